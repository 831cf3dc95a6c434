//! One SSH connection to a host, through the proxy.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pki::keys::PublicKey;
use russh::client::{AuthResult, Handle, Msg, connect_stream};
use russh::keys::{Certificate, PrivateKey};
use russh::{Channel, Disconnect};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::forward::Admitted;
use super::guest::{Ear, Guest, GuestError, HostCheck, Notes};
use super::lent::LentAgent;
use super::road::Road;
use super::{Host, SshError, mfa};
use crate::cluster::ClusterClient;
use crate::error::{Error, Result};
use crate::keys::{KeyError, save_trusted};
use crate::login::{Ask, fetch_authorities};
use crate::proxy_stream::ProxyFailure;
use crate::text;

/// How long taking leave may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often a host that says nothing is asked whether it is there: only what has something to be acknowledged shows that
/// it works. Nothing on the way takes the connection for unused either.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// An authenticated connection.
pub struct SshConnection {
    pub(super) handle: Arc<Handle<Guest>>,
    pub(super) admitted: Arc<Mutex<Admitted>>,
    pub(super) host: Host,
    notes: Arc<Mutex<Notes>>,
    /// Who hears what the server tells of a session.
    pub(super) ear: Ear,
    /// Cancelled when the host knows that the connection is closed, where it is told.
    told: Option<CancellationToken>,
}

/// What one attempt to connect uses. The next one may use something else.
struct Attempt<'a> {
    client: &'a ClusterClient,
    host: &'a Host,
    login: &'a str,
    certificate: Certificate,
    authorities: Arc<[PublicKey]>,
}

impl SshConnection {
    /// Connects and authenticates.
    ///
    /// The user is asked for a second factor only when the host has refused the certificate and the cluster says
    /// that it wants one: asking the cluster each time would cost every session a call.
    pub async fn open(client: &ClusterClient, host: &Host, login: &str, ask: &mut impl Ask) -> Result<Self> {
        let account = client.account();
        let mut attempt = Attempt {
            client,
            host,
            login,
            certificate: account.keys.ssh_certificate.clone(),
            authorities: account.keys.host_authorities(&account.cluster).into(),
        };
        let mut result = attempt.run().await;
        if let Err(Error::Ssh(SshError::Unverified { problem, .. })) = &result
            && problem.is_unknown_authority()
            && let Some(authorities) = renewed_authorities(client).await
        {
            attempt.authorities = authorities;
            result = attempt.run().await;
        }
        let denied = match result {
            Err(Error::Ssh(denied @ SshError::Denied { .. })) => denied,
            other => return other,
        };
        match mfa::certificate(client, host, login, ask).await? {
            Some(certificate) => {
                attempt.certificate = certificate;
                attempt.run().await
            }
            None => Err(denied.into()),
        }
    }

    /// Opens a session channel.
    pub async fn session(&self) -> Result<Channel<Msg>, SshError> {
        match timeout(tunnel::ssh::HANDSHAKE_TIMEOUT, self.handle.channel_open_session()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(russh::Error::ChannelOpenFailure(rejection))) => Err(SshError::Refused {
                host: self.host.name.clone(),
                reason: text::lines(&rejection.description).into_owned(),
            }),
            Ok(Err(error)) => Err(lost(&self.host, error.into())),
            Err(_) => Err(SshError::Timeout { host: self.host.name.clone(), waited_for: "a session" }),
        }
    }

    /// Whether the server is one of a cluster, which knows requests that other servers do not.
    pub fn is_of_cluster(&self) -> bool {
        self.notes.lock().of_cluster
    }

    /// What the server wants to be shown before a session.
    pub fn banner(&self) -> String {
        text::lines(&self.notes.lock().banner).into_owned()
    }

    /// Why the host was not verified, if `--insecure` let it pass.
    pub fn unverified(&self) -> Option<String> {
        self.notes.lock().unverified.as_ref().map(ToString::to_string)
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Sends a global request and waits for the answer; `None` when the server does not know it.
    pub async fn ask_server(&self, name: &str, data: &[u8]) -> Option<Vec<u8>> {
        let answer = self.handle.send_global_request(name, data, true);
        let answer = timeout(tunnel::ssh::HANDSHAKE_TIMEOUT, answer).await.ok()?.ok()?;
        answer.map(|payload| payload.to_vec())
    }

    /// One round trip to the host.
    pub async fn probe(&self) -> Result<(), SshError> {
        let request = self.handle.send_global_request("keepalive@openssh.com", b"", true);
        match timeout(tunnel::ssh::HANDSHAKE_TIMEOUT, request).await {
            // A refusal is an answer as well.
            Ok(Ok(_) | Err(russh::Error::RequestDenied)) => Ok(()),
            Ok(Err(error)) => Err(lost(&self.host, error.into())),
            Err(_) => Err(SshError::Timeout { host: self.host.name.clone(), waited_for: "an answer" }),
        }
    }

    /// Waits until the connection ends; the error says why, as far as that is known.
    pub async fn ended(&self) -> SshError {
        self.handle.closed().await;
        let reason = self.notes.lock().farewell.clone();
        let reason = reason.map_or_else(|| "the host closed it".to_owned(), |reason| text::lines(&reason).into_owned());
        SshError::Lost { host: self.host.name.clone(), reason }
    }

    /// Takes leave of the server.
    pub async fn close(self) {
        let goodbye = async {
            // The server notices the end of the connection as well.
            let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
            if let Some(told) = &self.told {
                told.cancelled().await;
            }
        };
        let _ = timeout(FAREWELL, goodbye).await;
    }
}

impl Attempt<'_> {
    async fn run(&self) -> Result<SshConnection> {
        let attempt = timeout(tunnel::ssh::HANDSHAKE_TIMEOUT, self.connect()).await;
        let late = || SshError::Timeout { host: self.host.name.clone(), waited_for: "the SSH handshake" };
        attempt.unwrap_or_else(|_| Err(late().into()))
    }

    async fn connect(&self) -> Result<SshConnection> {
        let account = self.client.account();
        let agent = Arc::new(LentAgent::new(self.client, &self.certificate, Some(self.login))?);
        let stream = Road::to(self.client, self.host, agent).await;
        let stream = stream.map_err(|error| unreachable(self.host, russh::Error::IO(error).into()))?;
        let told = stream.closed();
        let key = account.keys.ssh_key.to_ssh();
        let key = key.map_err(|source| KeyError::Material { what: "SSH key", source })?;
        let check = HostCheck {
            principal: self.host.address.clone(),
            authorities: self.authorities.clone(),
            insecure: account.insecure,
        };
        let user = User { login: self.login, key: Arc::new(key), certificate: self.certificate.clone() };
        Ok(SshConnection { told, ..SshConnection::over(stream, self.host, check, user).await? })
    }
}

/// Who logs in.
pub(super) struct User<'a> {
    /// The account on the host.
    pub login: &'a str,
    /// The key of the certificate.
    pub key: Arc<PrivateKey>,
    /// The user's certificate.
    pub certificate: Certificate,
}

impl SshConnection {
    /// Connects and authenticates on a stream that leads to the host.
    pub(super) async fn over<S>(stream: S, host: &Host, check: HostCheck, user: User<'_>) -> Result<Self, SshError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let admitted = Arc::new(Mutex::new(Admitted::default()));
        let ear = Ear::default();
        let guest = Guest { check, notes: notes.clone(), admitted: admitted.clone(), ear: ear.clone() };
        let config = Arc::new(russh::client::Config {
            keepalive_interval: Some(KEEP_ALIVE),
            // What does not answer is not given up here: the network connections below are.
            keepalive_max: 0,
            ..tunnel::ssh::client_config()
        });
        let mut handle = connect_stream(config, stream, guest).await.map_err(|error| unreachable(host, error))?;
        let result = handle.authenticate_openssh_cert(user.login, user.key, user.certificate).await;
        match result.map_err(|error| unreachable(host, error.into()))? {
            AuthResult::Success => {
                return Ok(Self { handle: Arc::new(handle), notes, admitted, ear, host: host.clone(), told: None });
            }
            // The connection may have ended during authentication, which looks like a refusal.
            AuthResult::Failure { remaining_methods, .. } if remaining_methods.is_empty() && handle.is_closed() => {
                handle.await.map_err(|error| unreachable(host, error))?;
            }
            AuthResult::Failure { .. } => {}
        }
        let reason = text::lines(notes.lock().banner.trim()).into_owned();
        let reason = Some(reason).filter(|reason| !reason.is_empty());
        Err(SshError::Denied { login: user.login.to_owned(), host: host.name.clone(), reason })
    }
}

/// The authorities that the cluster has now, if they are others than the login knew: one may have been rotated, or a
/// cluster have come to be trusted since. They are asked for on a connection that known authorities vouch for.
async fn renewed_authorities(client: &ClusterClient) -> Option<Arc<[PublicKey]>> {
    let account = client.account();
    let trusted = match fetch_authorities(client).await {
        Ok(trusted) => trusted,
        Err(error) => {
            tracing::debug!(%error, "authorities are not renewed");
            return None;
        }
    };
    let mut keys = account.keys.clone();
    keys.trusted = trusted;
    let authorities = keys.host_authorities(&account.cluster);
    if authorities == account.keys.host_authorities(&account.cluster) {
        return None;
    }
    if let Some(home) = &account.home
        && let Err(error) = save_trusted(home, account.proxy_host(), &keys.trusted)
    {
        tracing::debug!(%error, "renewed authorities are not saved");
    }
    Some(authorities.into())
}

/// The error of a connection that did not come about.
fn unreachable(host: &Host, error: GuestError) -> SshError {
    let host = host.name.clone();
    match error {
        GuestError::Host(problem) => SshError::Unverified { host, problem },
        GuestError::Ssh(error) => match proxy_failure(&error) {
            Some(failure) => SshError::Unreachable { host, status: Box::new(failure.0.clone()) },
            None => SshError::Handshake { host, source: error },
        },
    }
}

/// The error of a connection that ended too early.
fn lost(host: &Host, error: GuestError) -> SshError {
    match unreachable(host, error) {
        SshError::Handshake { host, source } => SshError::Lost { host, reason: source.to_string() },
        SshError::Unreachable { host, status } => SshError::Lost { host, reason: crate::error::explain(&status) },
        other => other,
    }
}

/// What the proxy said, if it was the proxy that ended the connection.
fn proxy_failure(error: &russh::Error) -> Option<&ProxyFailure> {
    match error {
        russh::Error::IO(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}
