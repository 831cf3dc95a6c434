//! One tunnel, seen from the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure, Disconnect, Error, server};
use tokio::time::Instant;
use tracing::debug;

use super::registry::TunnelInfo;
use crate::dial::DialRequest;
use crate::protocol::{
    DIAL_REQUEST, DISCOVERY_CHANNEL, DISCOVERY_REQUEST, RECONNECT_REQUEST, STDERR, TRANSPORT_CHANNEL, VERSION_REQUEST,
};
use crate::stream::{OpenStreams, TunnelStream};

/// How long to wait for an answer to something that the agent answers by itself.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The most of a refusal's text that is read.
const LONGEST_REASON: usize = 16 * 1024;

/// How long the text of a refusal may take.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Connection {
    info: Arc<TunnelInfo>,
    handle: server::Handle,
    since: Instant,
    streams: OpenStreams,
    state: Mutex<State>,
}

struct State {
    last_heartbeat: Instant,
    /// A stream could not be opened, or the agent drains. The next heartbeat clears it.
    invalid: bool,
    discovery: Discovery,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Discovery {
    Closed,
    Opening,
    Open(ChannelId),
}

/// Why a stream was not opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The agent said no; the tunnel is fine.
    Refused(String),
    /// The tunnel does not work.
    Ssh(Error),
}

impl Connection {
    pub(super) fn new(info: TunnelInfo, handle: server::Handle) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            info: Arc::new(info),
            handle,
            since: now,
            streams: OpenStreams::default(),
            state: Mutex::new(State { last_heartbeat: now, invalid: false, discovery: Discovery::Closed }),
        })
    }

    pub(super) fn info(&self) -> &Arc<TunnelInfo> {
        &self.info
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn heartbeat(&self) {
        let mut state = self.state.lock();
        state.last_heartbeat = Instant::now();
        state.invalid = false;
    }

    pub(super) fn invalidate(&self) {
        self.state.lock().invalid = true;
    }

    /// Whether the tunnel works as far as is known.
    pub(super) fn is_valid(&self, offline_threshold: Duration) -> bool {
        let state = self.state.lock();
        !state.invalid && state.last_heartbeat.elapsed() < offline_threshold
    }

    /// Whether nothing was heard for so long that the tunnel should be closed. Open streams keep it.
    pub(super) fn is_abandoned(&self, offline_threshold: Duration) -> bool {
        let silent = self.state.lock().last_heartbeat.elapsed();
        silent > offline_threshold.saturating_mul(3) && self.streams.count() == 0
    }

    /// Opens a stream and asks for it to be connected; `answers` is set as soon as the agent has taken it. Given up, it is
    /// closed at the agent as well.
    pub(super) async fn open(&self, request: &DialRequest, answers: &AtomicBool) -> Result<TunnelStream, OpenError> {
        let mut channel = match self.handle.channel_open_extension(TRANSPORT_CHANNEL, Vec::new()).await {
            Ok(channel) => channel,
            Err(Error::ChannelOpenFailure(rejection))
                if rejection.reason == ChannelOpenFailure::ConnectFailed && !rejection.description.is_empty() =>
            {
                return Err(OpenError::Refused(rejection.description));
            }
            Err(error) => return Err(OpenError::Ssh(error)),
        };
        answers.store(true, Ordering::Relaxed);
        let mut unanswered = Unanswered { handle: Some(self.handle.clone()), channel: channel.id() };
        channel.request(DIAL_REQUEST, true, request.to_payload()).await.map_err(OpenError::Ssh)?;
        let mut text = Vec::new();
        loop {
            match channel.wait().await {
                Some(ChannelMsg::Success) => break,
                Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => collect(&mut text, &data),
                Some(ChannelMsg::Failure) => return Err(refusal(channel, text, request).await),
                Some(ChannelMsg::Close) | None => return Err(OpenError::Ssh(Error::Disconnect)),
                Some(_) => {}
            }
        }
        // There is always a place: the agent has the limit.
        let place = self.streams.enter(usize::MAX).ok_or(OpenError::Ssh(Error::Disconnect))?;
        unanswered.handle = None;
        Ok(TunnelStream::of_proxy(channel.into_stream(), request.client_source(), place))
    }

    /// Sends the list of proxies.
    pub(super) async fn send_discovery(&self, payload: Bytes) {
        let sending = async {
            let Some(channel) = self.discovery_channel().await? else { return Ok(()) };
            self.handle.channel_request(channel, DISCOVERY_REQUEST, false, payload).await
        };
        if let Ok(Err(error)) = tokio::time::timeout(REQUEST_TIMEOUT, sending).await {
            debug!(tunnel = %self.info.server_id, %error, "no discovery message sent");
        }
    }

    /// The one discovery channel, opened when first needed. None while somebody else opens it.
    async fn discovery_channel(&self) -> Result<Option<ChannelId>, Error> {
        {
            let mut state = self.state.lock();
            match state.discovery {
                Discovery::Open(channel) => return Ok(Some(channel)),
                Discovery::Opening => return Ok(None),
                Discovery::Closed => state.discovery = Discovery::Opening,
            }
        }
        let opening = Opening { connection: self };
        let channel = self.handle.channel_open_extension(DISCOVERY_CHANNEL, Vec::new()).await?;
        let id = channel.id();
        self.state.lock().discovery = Discovery::Open(id);
        drop(opening);
        Ok(Some(id))
    }

    pub(super) fn channel_closed(&self, channel: ChannelId) {
        let mut state = self.state.lock();
        if state.discovery == Discovery::Open(channel) {
            state.discovery = Discovery::Closed;
        }
    }

    /// Asks the agent to connect elsewhere.
    pub(super) async fn ask_to_reconnect(&self) {
        let asking = self.handle.send_global_request(RECONNECT_REQUEST, b"", true);
        match tokio::time::timeout(REQUEST_TIMEOUT, asking).await {
            Ok(Ok(_)) => self.invalidate(),
            outcome => debug!(tunnel = %self.info.server_id, ?outcome, "an agent was not asked to reconnect"),
        }
    }

    pub(super) async fn disconnect(&self, reason: &str) {
        let saying = self.handle.disconnect(Disconnect::ByApplication, reason.to_owned(), String::new());
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, saying).await;
    }
}

/// Puts the state back if opening the discovery channel fails or is given up.
struct Opening<'a> {
    connection: &'a Connection,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut state = self.connection.state.lock();
        if state.discovery == Discovery::Opening {
            state.discovery = Discovery::Closed;
        }
    }
}

/// A stream whose dial the agent has not answered. When nobody waits for the answer any more, the agent is told.
struct Unanswered {
    /// None once there is nothing to close.
    handle: Option<server::Handle>,
    channel: ChannelId,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return }; // the process ends
        let channel = self.channel;
        runtime.spawn(async move { tokio::time::timeout(REQUEST_TIMEOUT, handle.close(channel)).await });
    }
}

/// Asks the proxy of another cluster for the version of its Auth Service.
pub(super) async fn auth_version(handle: &server::Handle) -> Result<String, Error> {
    let asking = handle.send_global_request(VERSION_REQUEST, b"", true);
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, asking).await.map_err(|_| Error::ConnectionTimeout)??;
    let text = answer.map(|payload| String::from_utf8_lossy(&payload).into_owned()).unwrap_or_default();
    Ok(text)
}

fn collect(text: &mut Vec<u8>, data: &[u8]) {
    let room = LONGEST_REASON.saturating_sub(text.len());
    text.extend(data.iter().take(room));
}

/// Reads the rest of the text that goes with a refused dial.
async fn refusal(mut channel: Channel<server::Msg>, mut text: Vec<u8>, request: &DialRequest) -> OpenError {
    let rest = async {
        loop {
            match channel.wait().await {
                Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => collect(&mut text, &data),
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => break,
                Some(_) => {}
            }
        }
    };
    let _ = tokio::time::timeout(REASON_TIMEOUT, rest).await;
    let text = String::from_utf8_lossy(&text);
    OpenError::Refused(match text.trim() {
        "" => format!("failed connecting to {} [{}]", request.address, request.server_id),
        reason => reason.to_owned(),
    })
}
