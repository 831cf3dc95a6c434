//! The client's side of the protocol's callbacks: whom to believe, and what to remember of what the server says.

use std::sync::Arc;

use chrono::Utc;
use parking_lot::Mutex;
use pki::keys::PublicKey;
use pki::ssh_cert::{CheckError, Kind, Requirements, check};
use russh::client::{ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, GlobalRequestReply, Names};
use tokio::sync::mpsc;

use super::forward::{Admitted, Purpose};
use super::transfers::Transfer;

/// Start of the identification line of servers that are part of a cluster.
const SERVER_PREFIX: &[u8] = b"SSH-2.0-Teleport";
/// Global request that carries an audit event.
const EVENT_REQUEST: &str = "x-teleport-event";
/// Global request that asks those who watch to show that they are there.
const PRESENCE_REQUEST: &str = "x-teleport-mfa-presence";
/// The longest event that is read.
const LONGEST_EVENT: usize = 64 << 10;
/// Most of a banner that is kept.
const LONGEST_BANNER: usize = 16 << 10;

/// Whom to believe to be a host.
#[derive(Clone, Debug)]
pub struct HostCheck {
    /// The name that was dialled: it has to be a principal of the host's certificate, as it is.
    pub principal: String,
    /// Keys that sign host certificates.
    pub authorities: Arc<[PublicKey]>,
    /// Whether any host will do.
    pub insecure: bool,
}

/// Why a host is not believed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HostProblem {
    /// It has a key that nobody vouches for.
    #[error("it presented a key without a certificate of the cluster")]
    NoCertificate,
    /// Its certificate is not good for it.
    #[error("its host {0}")]
    Certificate(#[from] CheckError),
}

impl HostProblem {
    /// Whether the host's authority is one that the user does not know.
    pub fn is_unknown_authority(&self) -> bool {
        matches!(self, Self::Certificate(CheckError::UnknownAuthority))
    }
}

/// Why the protocol ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum GuestError {
    #[error(transparent)]
    Ssh(#[from] russh::Error),
    #[error(transparent)]
    Host(#[from] HostProblem),
}

/// What the server has said.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Text to be shown before the session.
    pub banner: String,
    /// Whether it is a server of a cluster, with requests of its own.
    pub of_cluster: bool,
    /// A host that was believed only because any will do.
    pub unverified: Option<HostProblem>,
    /// Why the connection ended.
    pub farewell: Option<String>,
}

/// What a server tells of a session while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Somebody wants to copy a file.
    TransferWanted(Transfer),
    /// A request was denied, or approved; its id.
    TransferDecided(String),
    /// Those who watch have to show that they are there.
    Presence,
}

/// Who is told, while there is a session.
pub(super) type Ear = Arc<Mutex<Option<mpsc::Sender<Heard>>>>;

/// The callbacks.
pub(super) struct Guest {
    pub ear: Ear,
    pub check: HostCheck,
    pub notes: Arc<Mutex<Notes>>,
    pub admitted: Arc<Mutex<Admitted>>,
}

impl HostCheck {
    /// Judges what a host presented.
    pub fn judge(&self, presented: &PublicKeyOrCertificate) -> Result<(), HostProblem> {
        let PublicKeyOrCertificate::Certificate(certificate) = presented else {
            return Err(HostProblem::NoCertificate);
        };
        let required =
            Requirements { kind: Kind::Host, principal: Some(&self.principal), now: Utc::now(), source: None };
        check(certificate, self.authorities.iter(), &required)?;
        Ok(())
    }
}

/// What an event means for a session of a terminal.
fn event(data: &[u8]) -> Option<Heard> {
    #[derive(serde::Deserialize)]
    struct Event {
        event: String,
        #[serde(flatten)]
        transfer: Transfer,
    }
    let Event { event, transfer } = serde_json::from_slice(data.get(..data.len().min(LONGEST_EVENT))?).ok()?;
    match event.as_str() {
        "file_transfer_request" => Some(Heard::TransferWanted(transfer)),
        "file_transfer_request_approve" | "file_transfer_request_deny" => Some(Heard::TransferDecided(transfer.id)),
        _ => None,
    }
}

impl Guest {
    /// Lets a channel of the host in, if that was asked for: `purpose` says for what.
    async fn visit(
        &self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        purpose: impl FnOnce(&Admitted) -> Option<Purpose>,
        what: &str,
    ) -> Result<(), GuestError> {
        let (visit, purpose) = {
            let admitted = self.admitted.lock();
            (admitted.visit(channel, reply), purpose(&admitted))
        };
        visit.decide(purpose, what).await;
        Ok(())
    }
}

impl Handler for Guest {
    type Error = GuestError;

    async fn auth_banner(&mut self, banner: &str, _: &mut Session) -> Result<(), Self::Error> {
        let mut notes = self.notes.lock();
        if notes.banner.len() + banner.len() <= LONGEST_BANNER {
            notes.banner.push_str(banner);
        }
        Ok(())
    }

    async fn check_server_key(&mut self, presented: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        match self.check.judge(presented) {
            Ok(()) => Ok(true),
            Err(problem) if self.check.insecure => {
                self.notes.lock().unverified = Some(problem);
                Ok(true)
            }
            Err(problem) => Err(problem.into()),
        }
    }

    async fn kex_done(&mut self, _: Option<&[u8]>, _: &Names, session: &mut Session) -> Result<(), Self::Error> {
        self.notes.lock().of_cluster = session.remote_sshid().starts_with(SERVER_PREFIX);
        Ok(())
    }

    async fn global_request(
        &mut self,
        name: &str,
        _: bool,
        data: &[u8],
        _: &mut Session,
    ) -> Result<GlobalRequestReply, Self::Error> {
        let heard = match name {
            PRESENCE_REQUEST => Some(Heard::Presence),
            EVENT_REQUEST => event(data),
            _ => None,
        };
        if let (Some(heard), Some(ear)) = (heard, &*self.ear.lock()) {
            let _ = ear.try_send(heard); // a session that is behind hears of the next
        }
        Ok(GlobalRequestReply::Failure) // counts as an answer where only that one comes is of interest
    }

    async fn channel_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        want_reply: bool,
        _: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if want_reply {
            session.channel_failure(channel)?;
        }
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: Channel<Msg>,
        address: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let purpose = |admitted: &Admitted| admitted.tcp_target(address, port).map(Purpose::Connection);
        self.visit(channel, reply, purpose, "remote forward of this port").await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let purpose = |admitted: &Admitted| admitted.socket_target(path).map(Purpose::Connection);
        self.visit(channel, reply, purpose, "remote forward of this socket").await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.visit(channel, reply, Admitted::agent_purpose, "agent forwarding").await
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let purpose = |admitted: &Admitted| admitted.x11.clone().map(Purpose::Display);
        self.visit(channel, reply, purpose, "X11 forwarding").await
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                self.notes.lock().farewell = Some(said.message);
                Ok(())
            }
            DisconnectReason::Error(error) => {
                self.notes.lock().farewell = Some(error.to_string());
                Err(error)
            }
        }
    }
}
