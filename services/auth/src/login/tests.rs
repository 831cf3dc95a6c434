#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use audit::EventExt as _;
use pki::{
    ssh_cert::{self, Kind, Requirements},
    x509::Certificate,
};
use resources::Resource;
use wire::{
    error::ErrorKind,
    proto::{self, CreateAuthenticateChallengeRequest, MfaRequired, create_authenticate_challenge_request::Request},
    types::PasswordState,
};

use crate::{
    Caller, WebSessionRequest,
    store::kind,
    testing::{PASSWORD, Service, acceptance, user},
};

#[tokio::test]
async fn a_user_accepts_the_invitation_and_logs_in_with_password_and_code() {
    let service = Service::start().await;
    let alice = service.user("alice").await;
    let response = service
        .auth
        .authenticate_ssh_user(service.login("alice", PASSWORD, &service.code(&alice.secret)))
        .await
        .unwrap();

    let certificate = ssh_cert::from_line(std::str::from_utf8(&response.cert).unwrap()).unwrap();
    let authority = service.auth.get_cert_authority("user", "main.test", false).await.unwrap();
    let keys = authority.spec.unwrap().active_keys.unwrap();
    let ca = pki::keys::PublicKey::from_ssh_line(std::str::from_utf8(&keys.ssh[0].public_key).unwrap()).unwrap();
    let wanted = Requirements { kind: Kind::User, principal: Some("root"), now: service.auth.now(), source: None };
    ssh_cert::check(&certificate, [&ca], &wanted).unwrap();
    let identity = ssh_cert::UserCertificate::from_certificate(certificate).unwrap().identity;
    assert_eq!(identity.username, "alice");
    let mut logins = identity.principals.clone();
    logins.sort();
    assert_eq!(logins, ["-teleport-internal-join", "alice", "root"]);
    assert_eq!(identity.groups, ["access"]);
    assert_eq!(identity.login_ip, "192.0.2.9");

    let tls = Certificate::from_pem(std::str::from_utf8(&response.tls_cert).unwrap()).unwrap();
    let tls_ca = Certificate::from_pem(std::str::from_utf8(&keys.tls[0].cert).unwrap()).unwrap();
    assert!(tls.verify_issued_by(&[tls_ca], service.auth.now()).is_some());
    assert_eq!(tls.issuer_common_name(), Some("main.test"));
    let identity = pki::identity::Identity::from_certificate(&tls).unwrap();
    assert_eq!(identity.teleport_cluster, "main.test");
    assert_eq!(identity.private_key_policy, "none");
    assert_eq!(response.host_signers[0].cluster_name, "main.test");
    assert_eq!(response.host_signers[0].authorized_keys.len(), 1);

    let events = service.events.events();
    let login = events.iter().find(|event| event.name() == "user.login").unwrap();
    assert_eq!((login.code(), login.user().unwrap().user.as_str()), ("T1000I", "alice"));
    let names = service.names_of_events();
    for name in ["user.create", "reset_password_token.create", "user.password_change", "mfa.add", "cert.create"] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
    let stored = service.auth.store().cached::<kind::User>("alice").unwrap();
    assert_eq!(stored.status.unwrap().password_state, PasswordState::Set as i32);
}

#[tokio::test]
async fn a_code_opens_the_door_once() {
    let service = Service::start().await;
    let alice = service.user("alice").await;
    let code = service.code(&alice.secret);
    service.auth.authenticate_ssh_user(service.login("alice", PASSWORD, &code)).await.unwrap();
    let replayed = service.auth.authenticate_ssh_user(service.login("alice", PASSWORD, &code)).await.unwrap_err();
    assert_eq!((replayed.kind, replayed.message.as_str()), (ErrorKind::AccessDenied, "invalid credentials"));
    service.advance(30);
    let next = service.code(&alice.secret);
    service.auth.authenticate_ssh_user(service.login("alice", PASSWORD, &next)).await.unwrap();
    // The code before it would still be in time, but is older than one that was used.
    let older = service.auth.authenticate_ssh_user(service.login("alice", PASSWORD, &code)).await.unwrap_err();
    assert_eq!(older.message, "invalid credentials");
}

#[tokio::test]
async fn the_code_of_the_registration_is_used_up() {
    let service = Service::start().await;
    let token = service.invite("alice").await;
    let secret = service.secret(&token).await;
    let code = service.code(&secret);
    let accepted = acceptance(&token, PASSWORD, &code);
    service.auth.change_user_authentication(&Caller::anonymous(None), accepted).await.unwrap();
    let login = service.login("alice", PASSWORD, &code);
    assert_eq!(service.auth.authenticate_ssh_user(login).await.unwrap_err().message, "invalid credentials");
}

#[tokio::test]
async fn strangers_and_users_with_a_wrong_password_look_the_same_until_and_during_a_lockout() {
    let service = Service::start().await;
    service.user("alice").await;
    for _ in 0..5 {
        let known = service.auth.authenticate_ssh_user(service.login("alice", b"wrong", "000000")).await.unwrap_err();
        let unknown =
            service.auth.authenticate_ssh_user(service.login("nobody", b"wrong", "000000")).await.unwrap_err();
        assert_eq!(known, unknown);
        assert_eq!(known.message, "invalid credentials");
    }
    let known = service.auth.authenticate_ssh_user(service.login("alice", b"wrong", "000000")).await.unwrap_err();
    let unknown = service.auth.authenticate_ssh_user(service.login("nobody", b"wrong", "000000")).await.unwrap_err();
    assert_eq!(known, unknown);
    assert_eq!(known.message, "too many incorrect attempts, please try again later");
    for name in ["", "a/b", "..", "bob\u{1b}[2J"] {
        let odd = service.auth.authenticate_ssh_user(service.login(name, b"wrong", "000000")).await.unwrap_err();
        assert_eq!(odd.message, "invalid credentials", "{name:?}");
    }
}

#[tokio::test]
async fn a_lockout_ends_after_half_an_hour_and_by_a_reset() {
    let service = Service::start().await;
    let alice = service.user("alice").await;
    let bob = service.user("bob").await;
    for name in ["alice", "bob"] {
        for _ in 0..5 {
            service.auth.authenticate_ssh_user(service.login(name, b"wrong", "000000")).await.unwrap_err();
        }
    }
    let right = service.login("alice", PASSWORD, &service.code(&alice.secret));
    assert!(service.auth.authenticate_ssh_user(right).await.unwrap_err().message.contains("too many"));
    let stored = service.auth.store().cached::<kind::User>("alice").unwrap();
    assert!(stored.spec.as_ref().unwrap().status.as_ref().unwrap().is_locked);

    service.auth.create_reset_password_token(&service.admin(), "bob", "password", Duration::ZERO).await.unwrap();
    let stored = service.auth.store().cached::<kind::User>("bob").unwrap();
    assert!(stored.spec.as_ref().unwrap().status.is_none());
    let reset = service.login("bob", PASSWORD, &service.code(&bob.secret));
    assert_eq!(service.auth.authenticate_ssh_user(reset).await.unwrap_err().message, "invalid credentials");

    service.advance(30 * 60 + 1);
    let right = service.login("alice", PASSWORD, &service.code(&alice.secret));
    service.auth.authenticate_ssh_user(right).await.unwrap();
}

#[tokio::test]
async fn a_success_forgets_the_wrong_guesses_before_it() {
    let service = Service::start().await;
    let alice = service.user("alice").await;
    for _ in 0..3 {
        for _ in 0..4 {
            service.auth.authenticate_ssh_user(service.login("alice", b"wrong", "000000")).await.unwrap_err();
        }
        let right = service.login("alice", PASSWORD, &service.code(&alice.secret));
        service.auth.authenticate_ssh_user(right).await.unwrap();
        service.advance(30);
    }
}

#[tokio::test]
async fn the_second_factor_cannot_be_left_out() {
    let service = Service::start().await;
    service.user("alice").await;
    let without = service.auth.authenticate_ssh_user(service.login("alice", PASSWORD, "")).await.unwrap_err();
    assert_eq!(without.message, "missing second factor authentication");
    let stranger = service.auth.authenticate_ssh_user(service.login("nobody", PASSWORD, "")).await.unwrap_err();
    assert_eq!(without, stranger);
}

#[tokio::test]
async fn an_invitation_sets_everything_or_nothing_and_works_once() {
    let service = Service::start().await;
    let token = service.invite("alice").await;
    let secret = service.secret(&token).await;
    let anonymous = Caller::anonymous(None);
    let wrong_code = acceptance(&token, PASSWORD, "000000");
    let error = service.auth.change_user_authentication(&anonymous, wrong_code).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::AccessDenied);
    let short = acceptance(&token, b"short", &service.code(&secret));
    assert!(
        service.auth.change_user_authentication(&anonymous, short).await.unwrap_err().message.contains("too short")
    );
    let no_device =
        proto::ChangeUserAuthenticationRequest { new_mfa_register_response: None, ..acceptance(&token, PASSWORD, "") };
    assert!(service.auth.change_user_authentication(&anonymous, no_device).await.is_err());
    assert!(service.auth.mfa_devices("alice").await.unwrap().is_empty());
    let login = service.login("alice", PASSWORD, &service.code(&secret));
    assert!(service.auth.authenticate_ssh_user(login).await.is_err());

    let right = acceptance(&token, PASSWORD, &service.code(&secret));
    let answer = service.auth.change_user_authentication(&anonymous, right.clone()).await.unwrap();
    assert_eq!(answer.web_session.unwrap().spec.unwrap().user, "alice");
    let again = service.auth.change_user_authentication(&anonymous, right).await.unwrap_err();
    assert_eq!(again.message, "bad or expired token");
}

#[tokio::test]
async fn invitations_expire_and_replace_each_other() {
    let service = Service::start().await;
    let first = service.invite("alice").await;
    let hour = Duration::from_secs(3600);
    let second = service.auth.create_reset_password_token(&service.admin(), "alice", "invite", hour).await.unwrap();
    assert_eq!(service.auth.get_reset_password_token(&first).await.unwrap_err().message, "bad or expired token");
    assert!(service.auth.get_reset_password_token(second.name()).await.is_ok());
    assert!(second.spec.as_ref().unwrap().url.ends_with(&format!("/web/invite/{}", second.name())));
    service.advance(3601);
    let error = service.auth.get_reset_password_token(second.name()).await.unwrap_err();
    assert_eq!(error.message, "bad or expired token");
    let too_long = Duration::from_secs(49 * 3600);
    let error =
        service.auth.create_reset_password_token(&service.admin(), "alice", "invite", too_long).await.unwrap_err();
    assert_eq!(error.message, "a invite token cannot live for 49h0m0s, at most for 48h0m0s");
}

#[tokio::test]
async fn a_locked_user_is_told_the_message_of_the_lock() {
    let service = Service::start().await;
    let alice = service.user("alice").await;
    let mut lock = wire::types::LockV2::default();
    lock.metadata_mut().name = "one".into();
    lock.spec = Some(wire::types::LockSpecV2 {
        target: Some(wire::types::LockTarget { user: "alice".into(), ..Default::default() }),
        message: "on holiday".into(),
        ..Default::default()
    });
    service.auth.upsert_lock(&service.admin(), lock).await.unwrap();
    let login = service.login("alice", PASSWORD, &service.code(&alice.secret));
    let error = service.auth.authenticate_ssh_user(login).await.unwrap_err();
    assert!(error.message.ends_with("on holiday"), "{error}");
    service.auth.delete_lock(&service.admin(), "one").await.unwrap();
    service.advance(30);
    let login = service.login("alice", PASSWORD, &service.code(&alice.secret));
    service.auth.authenticate_ssh_user(login).await.unwrap();
}

#[tokio::test]
async fn challenges_ask_for_the_factors_a_user_has() {
    let service = Service::start().await;
    service.user("alice").await;
    let anonymous = Caller::anonymous(None);
    let credentials = |name: &str, password: &[u8]| CreateAuthenticateChallengeRequest {
        request: Some(Request::UserCredentials(proto::UserCredentials {
            username: name.into(),
            password: password.to_vec(),
        })),
        ..Default::default()
    };
    let right = service.auth.create_authenticate_challenge(&anonymous, credentials("alice", PASSWORD), None).await;
    assert!(right.unwrap().totp.is_some());
    let wrong = service.auth.create_authenticate_challenge(&anonymous, credentials("alice", b"no"), None).await;
    let stranger = service.auth.create_authenticate_challenge(&anonymous, credentials("nobody", b"no"), None).await;
    assert_eq!(wrong.unwrap_err(), stranger.unwrap_err());

    let own = CreateAuthenticateChallengeRequest::default;
    let alice = Caller::user("alice", None);
    let answer = service.auth.create_authenticate_challenge(&alice, own(), Some(false)).await.unwrap();
    assert_eq!((answer.totp, answer.mfa_required), (None, MfaRequired::No as i32));
    let answer = service.auth.create_authenticate_challenge(&alice, own(), Some(true)).await.unwrap();
    assert_eq!((answer.totp.is_some(), answer.mfa_required), (true, MfaRequired::Yes as i32));
    let error = service.auth.create_authenticate_challenge(&service.admin(), own(), None).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadParameter);
}

#[tokio::test]
async fn a_web_session_is_extended_under_a_new_id_and_belongs_to_its_user() {
    let service = Service::start().await;
    let alice = service.user("alice").await;
    let login = service.login("alice", PASSWORD, &service.code(&alice.secret));
    let session = service.auth.authenticate_web_user(login.credentials, login.client).await.unwrap();
    let spec = session.spec.clone().unwrap();
    assert_eq!((session.name().len(), spec.bearer_token.len()), (64, 64));
    assert!(service.auth.get_web_session("bob", session.name()).await.is_err());

    service.advance(300);
    let request =
        WebSessionRequest { user: "alice".into(), previous_session: session.name().into(), reload_user: false };
    let next = service.auth.extend_web_session(&request).await.unwrap();
    assert_ne!(next.name(), session.name());
    assert_eq!(next.spec.as_ref().unwrap().expires, spec.expires);
    assert!(service.auth.get_web_session("alice", session.name()).await.is_err());
    service.auth.delete_web_session("alice", next.name()).await.unwrap();
    assert_eq!(service.auth.extend_web_session(&request).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn another_device_is_added_with_a_proof_and_the_last_one_stays() {
    let service = Service::start().await;
    let alice = service.user("alice").await;
    let caller = Caller::user("alice", None);
    let start = |existing| proto::CreateRegisterChallengeRequest {
        device_type: proto::DeviceType::Totp.into(),
        existing_mfa_response: existing,
        ..Default::default()
    };
    let proof = |code: String| proto::MfaAuthenticateResponse {
        response: Some(proto::mfa_authenticate_response::Response::Totp(proto::TotpResponse { code })),
    };
    assert!(service.auth.create_register_challenge(&caller, start(None)).await.is_err());
    let existing = Some(proof(service.code(&alice.secret)));
    let challenge = service.auth.create_register_challenge(&caller, start(existing)).await.unwrap();
    let Some(proto::mfa_register_challenge::Request::Totp(totp)) = challenge.request else { panic!("no secret") };
    let add = proto::AddMfaDeviceSyncRequest {
        new_device_name: "phone".into(),
        new_mfa_response: Some(proto::MfaRegisterResponse {
            response: Some(proto::mfa_register_response::Response::Totp(proto::TotpRegisterResponse {
                code: service.code(&totp.secret),
                id: totp.id,
            })),
        }),
        ..Default::default()
    };
    let mallory = Caller::user("mallory", None);
    assert!(service.auth.add_mfa_device(&mallory, add.clone()).await.is_err());
    service.auth.add_mfa_device(&caller, add).await.unwrap();
    assert_eq!(service.auth.mfa_devices("alice").await.unwrap().len(), 2);

    service.advance(30);
    let remove = |name: &str, code: String| proto::DeleteMfaDeviceSyncRequest {
        device_name: name.into(),
        existing_mfa_response: Some(proof(code)),
        ..Default::default()
    };
    service.auth.delete_mfa_device(&caller, remove("phone", service.code(&alice.secret))).await.unwrap();
    service.advance(30);
    let last = service.auth.delete_mfa_device(&caller, remove("otp", service.code(&alice.secret))).await.unwrap_err();
    assert_eq!(last.kind, ErrorKind::BadParameter);
}

#[tokio::test]
async fn a_deleted_user_leaves_nothing_behind() {
    let service = Service::start().await;
    let alice = service.user("alice").await;
    service.auth.delete_user(&service.admin(), "alice").await.unwrap();
    assert!(service.auth.mfa_devices("alice").await.unwrap().is_empty());
    assert!(service.auth.web_sessions().await.unwrap().is_empty());
    service.auth.create_user(&service.admin(), user("alice", &["access"])).await.unwrap();
    let login = service.login("alice", PASSWORD, &service.code(&alice.secret));
    assert_eq!(service.auth.authenticate_ssh_user(login).await.unwrap_err().message, "invalid credentials");
}

#[tokio::test]
async fn knowing_the_password_does_not_allow_guessing_codes_for_ever() {
    let service = Service::start().await;
    service.user("alice").await;
    let anonymous = Caller::anonymous(None);
    let password = CreateAuthenticateChallengeRequest {
        request: Some(Request::UserCredentials(proto::UserCredentials {
            username: "alice".into(),
            password: PASSWORD.to_vec(),
        })),
        ..Default::default()
    };
    for _ in 0..5 {
        service.auth.create_authenticate_challenge(&anonymous, password.clone(), None).await.unwrap();
        service.auth.authenticate_ssh_user(service.login("alice", PASSWORD, "000000")).await.unwrap_err();
    }
    let error = service.auth.create_authenticate_challenge(&anonymous, password, None).await.unwrap_err();
    assert!(error.message.contains("too many"), "{error}");
}

#[tokio::test]
async fn endless_names_are_not_remembered() {
    let service = Service::start().await;
    let name = "n".repeat(100_000);
    for _ in 0..6 {
        let error = service.auth.authenticate_ssh_user(service.login(&name, b"x", "000000")).await.unwrap_err();
        assert_eq!(error.message, "invalid credentials");
    }
}
