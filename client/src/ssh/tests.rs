//! Sessions with a server in the same process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, Cursor, Write};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use pki::identity::Identity;
use pki::keys::{KeyAlgorithm, PrivateKey as Key};
use pki::ssh_cert::{CertificateFormat, CheckError, HostCertificateParams, Permits, SshIssuer, UserCertificateParams};
use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, run_stream};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure};

use super::connection::User;
use super::guest::HostCheck;
use super::session::{Exit, SessionRequest, Streams, run};
use super::stdio::{Input, Output};
use super::{Host, HostProblem, SshConnection, SshError};
use crate::Error;

pub(super) const NODE: &str = "node1";

/// A cluster's authority and a host with its certificate.
pub(super) struct World {
    pub(super) authority: Key,
    pub(super) host_key: Key,
    pub(super) host_certificate: Certificate,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_host_until(Utc::now() + TimeDelta::hours(1))
    }

    fn with_host_until(not_after: DateTime<Utc>) -> Self {
        let authority = Key::generate(KeyAlgorithm::Ed25519).unwrap();
        let host_key = Key::generate(KeyAlgorithm::Ed25519).unwrap();
        let params = HostCertificateParams {
            public_key: host_key.public(),
            host_id: "6e8fe1d5-4b0c-4b06-9c1d-5b4d3ad6d5ab",
            node_name: NODE,
            cluster: "main",
            role: "Node",
            additional_principals: &[],
            now: Utc::now() - TimeDelta::hours(2),
            not_after: Some(not_after),
        };
        let host_certificate = SshIssuer::new(authority.clone()).issue_host(&params).unwrap();
        Self { authority, host_key, host_certificate }
    }

    pub(super) fn check(&self, principal: &str) -> HostCheck {
        let authorities = vec![self.authority.public().clone()].into();
        HostCheck { principal: principal.to_owned(), authorities, insecure: false }
    }

    /// Connects to a server that plays its part.
    async fn connect(&self, check: HostCheck, login: &str, certified: bool) -> Result<SshConnection, SshError> {
        self.connect_with(check, login, certified, KeyAlgorithm::EcdsaP256).await
    }

    async fn connect_with(
        &self,
        check: HostCheck,
        login: &str,
        certified: bool,
        algorithm: KeyAlgorithm,
    ) -> Result<SshConnection, SshError> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let certificates = if certified { vec![self.host_certificate.clone()] } else { Vec::new() };
        let config = tunnel::ssh::server_config(vec![self.host_key.to_ssh().unwrap()], certificates);
        tokio::spawn(async move {
            if let Ok(running) = run_stream(Arc::new(config), far, Server::default()).await {
                let _ = running.await;
            }
        });
        let key = Key::generate(algorithm).unwrap();
        let certificate = self.user_certificate(&key, "root");
        let user = User { login, key: Arc::new(key.to_ssh().unwrap()), certificate };
        SshConnection::over(near, &Host::new(NODE, None), check, user).await
    }

    /// A certificate of somebody who may log in as one account.
    pub(super) fn user_certificate(&self, key: &Key, account: &str) -> Certificate {
        let identity = Identity { username: "alice".into(), principals: vec![account.into()], ..Default::default() };
        let params = UserCertificateParams {
            identity: &identity,
            public_key: key.public(),
            now: Utc::now(),
            not_after: Some(Utc::now() + TimeDelta::hours(1)),
            permits: Permits { port_forwarding: true, agent_forwarding: true, x11_forwarding: true },
            format: CertificateFormat::Standard,
            extensions: &[],
        };
        SshIssuer::new(self.authority.clone()).issue_user(&params).unwrap()
    }

    async fn root(&self) -> SshConnection {
        self.connect(self.check(NODE), "root", true).await.unwrap()
    }
}

/// Accepts `root`, and `locked` without letting it open anything; does what the commands below say.
#[derive(Default)]
struct Server {
    locked: bool,
}

impl Handler for Server {
    type Error = russh::Error;

    async fn auth_openssh_certificate(&mut self, user: &str, _: &Certificate) -> Result<Auth, Self::Error> {
        self.locked = user == "locked";
        Ok(if self.locked || user == "root" { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.locked {
            reply.reject_with(ChannelOpenFailure::AdministrativelyProhibited, "locked: out of\x1b office").await;
            return Ok(());
        }
        reply.accept().await;
        tokio::spawn(play(channel));
        Ok(())
    }

    async fn channel_request(
        &mut self,
        _: ChannelId,
        _: &str,
        _: bool,
        _: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}

async fn play(mut channel: Channel<Msg>) {
    let mut variables = Vec::new();
    let command = loop {
        match channel.wait().await {
            Some(ChannelMsg::Request { name, data, .. }) if name == "envs@goteleport.com" => {
                variables = data[4..].to_vec()
            }
            Some(ChannelMsg::Exec { command, .. }) => break String::from_utf8(command).unwrap(),
            Some(_) => {}
            None => return,
        }
    };
    if command == "refused" {
        channel.extended_data_bytes(1, &b"no such thing here\n"[..]).await.unwrap();
        channel.reply(false).await.unwrap();
        channel.close().await.unwrap();
        return;
    }
    channel.reply(true).await.unwrap();
    match command.as_str() {
        "both" => {
            channel.data_bytes(&b"out"[..]).await.unwrap();
            channel.extended_data_bytes(1, &b"err"[..]).await.unwrap();
            channel.exit_status(7).await.unwrap();
        }
        "env" => {
            channel.data_bytes(variables).await.unwrap();
            channel.exit_status(0).await.unwrap();
        }
        "cat" => {
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Data { data } => channel.data_bytes(data).await.unwrap(),
                    ChannelMsg::Eof => break,
                    _ => {}
                }
            }
            channel.exit_status(0).await.unwrap();
        }
        // Without an exit status.
        _ => {}
    }
    channel.eof().await.unwrap();
    channel.close().await.unwrap();
}

#[derive(Clone, Default)]
pub(super) struct Sink(pub(super) Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn command(connection: &SshConnection, line: &str, input: Input) -> (Result<Exit, Error>, Vec<u8>, Vec<u8>) {
    let (out, err) = (Sink::default(), Sink::default());
    let request = SessionRequest::command(line.to_owned(), vec![("LANG".into(), "de_CH.UTF-8".into())]);
    let streams = Streams { input, output: Output::writing(out.clone()), errors: Output::writing(err.clone()) };
    let exit = run(connection, &request, streams).await;
    let (out, err) = (out.0.lock().clone(), err.0.lock().clone());
    (exit, out, err)
}

#[tokio::test]
async fn a_command_brings_back_its_output_and_exit_code() {
    let connection = World::new().root().await;
    let (exit, out, err) = command(&connection, "both", Input::none()).await;
    assert_eq!((exit.unwrap(), &out[..], &err[..]), (Exit::Status(7), &b"out"[..], &b"err"[..]));
}

#[tokio::test]
async fn users_have_keys_of_every_kind() {
    let world = World::new();
    for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        world.connect_with(world.check(NODE), "root", true, algorithm).await.unwrap();
    }
}

#[tokio::test]
async fn variables_reach_the_command() {
    let connection = World::new().root().await;
    let (_, out, _) = command(&connection, "env", Input::none()).await;
    assert_eq!(out, br#"{"LANG":"de_CH.UTF-8"}"#);
}

#[tokio::test]
async fn bytes_pass_unchanged_in_both_directions_at_once() {
    let connection = World::new().root().await;
    let data: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (exit, out, _) = command(&connection, "cat", Input::reading(Cursor::new(data.clone()))).await;
    assert_eq!(exit.unwrap(), Exit::Status(0));
    assert!(out == data, "{} of {} bytes", out.len(), data.len());
}

#[tokio::test]
async fn a_refused_command_shows_what_the_server_said() {
    let connection = World::new().root().await;
    let (exit, _, err) = command(&connection, "refused", Input::none()).await;
    assert!(matches!(exit, Err(Error::Ssh(SshError::Refused { .. }))), "{exit:?}");
    assert_eq!(err, b"no such thing here\n");
}

#[tokio::test]
async fn a_session_that_ends_without_a_status_is_an_error() {
    let connection = World::new().root().await;
    let (exit, ..) = command(&connection, "vanish", Input::none()).await;
    assert!(matches!(exit, Err(Error::Ssh(SshError::Lost { .. }))), "{exit:?}");
}

#[tokio::test]
async fn a_refused_login_names_login_and_host() {
    let world = World::new();
    let error = world.connect(world.check(NODE), "nobody", true).await.err().unwrap();
    assert_eq!(error.to_string(), "access denied to nobody connecting to node1");
}

#[tokio::test]
async fn what_a_server_refuses_a_session_for_is_shown() {
    let world = World::new();
    let connection = world.connect(world.check(NODE), "locked", true).await.unwrap();
    let (exit, ..) = command(&connection, "both", Input::none()).await;
    assert_eq!(exit.unwrap_err().to_string(), "node1 refused: locked: out of\\u{1b} office");
}

#[tokio::test]
async fn a_host_has_to_be_the_one_that_was_dialled() {
    let world = World::new();
    let error = world.connect(world.check("node"), "root", true).await.err().unwrap();
    let SshError::Unverified { problem, .. } = error else { panic!("{error:?}") };
    assert_eq!(problem, HostProblem::Certificate(CheckError::PrincipalNotListed("node".into())));
}

#[tokio::test]
async fn a_host_of_another_cluster_or_with_a_plain_key_or_an_old_certificate_is_refused() {
    let (world, other) = (World::new(), World::new());
    let refused = |result: Result<SshConnection, SshError>| match result.err().unwrap() {
        SshError::Unverified { problem, .. } => problem,
        error => panic!("{error:?}"),
    };
    let problem = refused(world.connect(other.check(NODE), "root", true).await);
    assert!(problem.is_unknown_authority(), "{problem}");
    assert_eq!(refused(world.connect(world.check(NODE), "root", false).await), HostProblem::NoCertificate);
    let old = World::with_host_until(Utc::now() - TimeDelta::minutes(1));
    let problem = refused(old.connect(old.check(NODE), "root", true).await);
    assert!(matches!(problem, HostProblem::Certificate(CheckError::Expired(_))), "{problem}");
}

#[tokio::test]
async fn an_insecure_client_notes_that_the_host_is_not_verified() {
    let (world, other) = (World::new(), World::new());
    let check = HostCheck { insecure: true, ..other.check(NODE) };
    let connection = world.connect(check, "root", true).await.unwrap();
    assert!(connection.unverified().is_some());
    assert!(world.root().await.unverified().is_none());
}
