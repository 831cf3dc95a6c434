//! A service in memory, for tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backend::{Backend, ManualClock, Memory};
use chrono::{TimeZone, Utc};
use pki::keys::{KeyAlgorithm, PrivateKey};
use resources::{Resource, SystemRole};
use wire::{
    proto::{
        self, ChangeUserAuthenticationRequest, CreateRegisterChallengeRequest, DeviceType, MfaRegisterResponse,
        TotpRegisterResponse, mfa_register_challenge, mfa_register_response,
    },
    types::{Metadata, ProvisionTokenV1, UserSpecV2, UserV2},
    wrappers::{LabelValues, StringValues},
};

use crate::{Auth, AuthConfig, Caller, Credentials, LoginClient, PublicKeys, SshLogin};

pub(crate) const CLUSTER: &str = "main.test";
pub(crate) const STATIC_TOKEN: &str = "static-token-of-the-file";
pub(crate) const PASSWORD: &[u8] = b"correct horse battery";

/// A service with its clock, its storage and its audit events.
pub(crate) struct Service {
    pub(crate) auth: Auth,
    pub(crate) clock: ManualClock,
    pub(crate) backend: Arc<Memory>,
    pub(crate) events: Arc<audit::Memory>,
    folder: tempfile::TempDir,
}

/// What a user needs to log in.
pub(crate) struct Alice {
    pub(crate) secret: String,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut AuthConfig)) -> Self {
        let clock = ManualClock::new(Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap());
        let backend = Arc::new(Memory::with_clock(Arc::new(clock.clone())));
        let events = Arc::new(audit::Memory::default());
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder, &clock, &backend, &events);
        change(&mut config);
        Self { auth: Auth::open(config).await.unwrap(), clock, backend, events, folder }
    }

    /// Another process on the same storage, after this one.
    pub(crate) async fn again(&self, change: impl FnOnce(&mut AuthConfig)) -> Auth {
        let mut config = self.config();
        change(&mut config);
        Auth::open(config).await.unwrap()
    }

    pub(crate) fn config(&self) -> AuthConfig {
        config(&self.folder, &self.clock, &self.backend, &self.events)
    }

    pub(crate) fn admin(&self) -> Caller {
        Caller::service(SystemRole::Admin, self.auth.host_uuid(), None)
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(std::time::Duration::from_secs(seconds));
    }

    pub(crate) fn names_of_events(&self) -> Vec<String> {
        use audit::EventExt as _;
        self.events.events().iter().map(|event| event.name().to_owned()).collect()
    }

    /// An invitation for a new user with the role `access`.
    pub(crate) async fn invite(&self, name: &str) -> String {
        self.auth.create_user(&self.admin(), user(name, &["access"])).await.unwrap();
        let hour = std::time::Duration::ZERO;
        let token = self.auth.create_reset_password_token(&self.admin(), name, "invite", hour).await.unwrap();
        token.name().to_owned()
    }

    pub(crate) async fn secret(&self, token: &str) -> String {
        secret(&self.auth, token).await
    }

    /// A user who has accepted the invitation.
    pub(crate) async fn user(&self, name: &str) -> Alice {
        let token = self.invite(name).await;
        let secret = self.secret(&token).await;
        let request = acceptance(&token, PASSWORD, &self.code(&secret));
        self.auth.change_user_authentication(&Caller::anonymous(None), request).await.unwrap();
        self.advance(30);
        Alice { secret }
    }

    pub(crate) fn code(&self, secret: &str) -> String {
        code(&self.clock, secret)
    }

    pub(crate) fn login(&self, user: &str, password: &[u8], otp: &str) -> SshLogin {
        SshLogin {
            credentials: Credentials {
                username: user.to_owned(),
                password: zeroize::Zeroizing::new(password.to_vec()),
                otp: otp.to_owned(),
                webauthn: false,
            },
            client: LoginClient { user_agent: "tsh/17.0.0".into(), remote_addr: "192.0.2.9:4711".into() },
            keys: keys(),
            ..SshLogin::default()
        }
    }
}

/// An audit log that can be away.
#[derive(Default)]
pub(crate) struct Away(pub(crate) AtomicBool);

#[async_trait::async_trait]
impl audit::Sink for Away {
    async fn emit(&self, _: wire::events::OneOf) -> audit::Result<()> {
        match self.0.load(Ordering::SeqCst) {
            true => Err(audit::Error::Database("away".into())),
            false => Ok(()),
        }
    }

    async fn search(&self, _: audit::Query) -> audit::Result<audit::Page> {
        Err(audit::Error::Unsupported { sink: "test", what: "search" })
    }
}

/// The secret of a new device, as a browser gets it.
pub(crate) async fn secret(auth: &Auth, token: &str) -> String {
    let request = CreateRegisterChallengeRequest {
        token_id: token.to_owned(),
        device_type: DeviceType::Totp.into(),
        ..Default::default()
    };
    let challenge = auth.create_register_challenge(&Caller::anonymous(None), request).await.unwrap();
    match challenge.request.unwrap() {
        mfa_register_challenge::Request::Totp(totp) => totp.secret,
        mfa_register_challenge::Request::Webauthn(_) => panic!("asked for a one-time code"),
    }
}

/// The code of a device by a clock.
pub(crate) fn code(clock: &ManualClock, secret: &str) -> String {
    let totp = totp_rs::Builder::new().with_secret(totp_rs::Secret::try_from_base32(secret).unwrap()).build().unwrap();
    totp.generate(u64::try_from(backend::Clock::now(clock).timestamp()).unwrap()).to_string()
}

pub(crate) fn keys() -> PublicKeys {
    let ssh = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let tls = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    PublicKeys { ssh: Some(ssh.public().to_ssh_line()), tls: Some(tls.public().to_pem()) }
}

pub(crate) fn user(name: &str, roles: &[&str]) -> UserV2 {
    let logins = StringValues { values: vec!["root".into(), name.into()] };
    UserV2 {
        metadata: Some(Metadata { name: name.into(), ..Metadata::default() }),
        spec: Some(UserSpecV2 {
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            traits: Some(LabelValues { values: [("logins".to_owned(), logins)].into() }),
            ..UserSpecV2::default()
        }),
        ..UserV2::default()
    }
}

pub(crate) fn acceptance(token: &str, password: &[u8], code: &str) -> ChangeUserAuthenticationRequest {
    let response = mfa_register_response::Response::Totp(TotpRegisterResponse { code: code.into(), id: String::new() });
    proto::ChangeUserAuthenticationRequest {
        token_id: token.to_owned(),
        new_password: password.to_vec(),
        new_mfa_register_response: Some(MfaRegisterResponse { response: Some(response) }),
        ..Default::default()
    }
}

fn config(
    folder: &tempfile::TempDir,
    clock: &ManualClock,
    backend: &Arc<Memory>,
    events: &Arc<audit::Memory>,
) -> AuthConfig {
    let storage: Arc<dyn Backend> = backend.clone();
    AuthConfig {
        cluster_name: CLUSTER.to_owned(),
        node_name: "auth-host".to_owned(),
        static_tokens: vec![ProvisionTokenV1 {
            roles: vec!["Node".into(), "App".into()],
            token: STATIC_TOKEN.into(),
            ..Default::default()
        }],
        clock: Arc::new(clock.clone()),
        backend: Some(storage),
        audit_sinks: vec![events.clone()],
        ..AuthConfig::new(folder.path())
    }
}
