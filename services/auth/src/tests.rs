#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use audit::EventExt as _;
use pki::{authority::CaType, x509::Certificate};
use resources::{Origin, Resource, SystemRole};
use wire::{
    error::ErrorKind,
    types::{self, ProvisionTokenSpecV2, ProvisionTokenV2, RegisterUsingTokenRequest},
};

use crate::{
    Auth, AuthConfig, Caller, FileSettings, LocalIdentityRequest, UserCertRequest, Write,
    store::kind::{self, Kind as _},
    testing::{Away, CLUSTER, STATIC_TOKEN, Service, keys, user},
};

#[tokio::test]
async fn a_first_start_makes_a_whole_cluster() {
    let service = Service::start().await;
    let auth = &service.auth;
    assert_eq!((auth.cluster_name(), auth.cluster_id().len()), (CLUSTER, 36));
    for ca_type in CaType::ALL {
        let ca = auth.get_cert_authority(ca_type.as_str(), CLUSTER, false).await.unwrap();
        assert!(ca.spec.unwrap().active_keys.is_some(), "{ca_type}");
    }
    let error = auth.get_cert_authority("awsra", CLUSTER, false).await.unwrap_err();
    assert_eq!(error.message, "\"awsra\" authority type is not supported");
    assert!(auth.role("access").is_ok() && auth.role("editor").is_ok() && auth.role("auditor").is_ok());
    let preference = auth.auth_preference().unwrap();
    assert_eq!(preference.spec.as_ref().unwrap().signature_algorithm_suite, 2);
    assert_eq!(preference.origin(), Some(Origin::Defaults));
    assert_eq!(auth.ca_pins().unwrap().len(), 1);
    assert!(auth.ca_pins().unwrap()[0].starts_with("sha256:"));
    let servers = auth.store().cached_list::<kind::AuthServer>();
    assert_eq!(servers[0].name(), auth.host_uuid());
}

#[tokio::test]
async fn a_later_start_keeps_the_keys_and_takes_over_the_settings_of_the_file() {
    let service = Service::start().await;
    let before = service.auth.get_cert_authority("host", CLUSTER, true).await.unwrap();
    let uuid = service.auth.host_uuid().to_owned();
    service.auth.shutdown().await;
    let recording = types::SessionRecordingConfigV2 {
        spec: Some(types::SessionRecordingConfigSpecV2 { mode: "off".into(), ..Default::default() }),
        ..Default::default()
    };
    let auth = service
        .again(|config| {
            config.cluster_name = "another.name".into();
            config.recording = Some(recording);
        })
        .await;
    assert_eq!((auth.cluster_name(), auth.host_uuid()), (CLUSTER, uuid.as_str()));
    assert_eq!(auth.get_cert_authority("host", CLUSTER, true).await.unwrap(), before);
    let config = auth.recording_config().unwrap();
    assert_eq!((config.spec.as_ref().unwrap().mode.as_str(), config.origin()), ("off", Some(Origin::ConfigFile)));
    let admin = Caller::service(SystemRole::Admin, "x", None);
    assert!(auth.reset_recording_config(&admin).await.is_err());
    let edited = auth.set_recording_config(&admin, (*config).clone(), Write::Update).await.unwrap();
    assert_eq!(edited.origin(), Some(Origin::Dynamic));
    assert!(auth.reset_recording_config(&admin).await.is_ok());
}

#[tokio::test]
async fn starts_on_disk_are_quick_and_keep_everything() {
    let folder = tempfile::tempdir().unwrap();
    let config = || AuthConfig { cluster_name: CLUSTER.into(), ..AuthConfig::new(folder.path()) };
    let started = Instant::now();
    let auth = Auth::open(config()).await.unwrap();
    let first = started.elapsed();
    let pins = auth.ca_pins().unwrap();
    auth.shutdown().await;
    let started = Instant::now();
    let auth = Auth::open(config()).await.unwrap();
    let second = started.elapsed();
    assert_eq!(auth.ca_pins().unwrap(), pins);
    auth.shutdown().await;
    // Generous, because tests share the machine; what is meant is 500 and 100 ms.
    assert!(first.as_secs() < 5 && second.as_secs() < 5, "{first:?} {second:?}");
}

#[tokio::test]
async fn a_new_cluster_without_any_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = Auth::open(AuthConfig::new(folder.path())).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::BadParameter);
}

fn request(token: &str, role: &str) -> RegisterUsingTokenRequest {
    let keys = keys();
    RegisterUsingTokenRequest {
        host_id: "11111111-2222-3333-4444-555555555555".into(),
        node_name: "node1".into(),
        role: role.into(),
        token: token.into(),
        additional_principals: vec!["0.0.0.0".into(), "node1.lan".into()],
        public_tls_key: keys.tls.unwrap().into_bytes(),
        public_ssh_key: keys.ssh.unwrap().into_bytes(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_token_gives_certificates_for_its_roles() {
    let service = Service::start().await;
    let agent = Caller::anonymous(Some(([192, 0, 2, 5], 40_000).into()));
    let certs = service.auth.register_using_token(&agent, request(STATIC_TOKEN, "Node")).await.unwrap();
    let line = std::str::from_utf8(&certs.ssh).unwrap();
    let host = pki::ssh_cert::HostCertificate::from_line(line).unwrap();
    assert_eq!((host.role.as_str(), host.cluster.as_str()), ("Node", CLUSTER));
    assert_eq!(host.fqdn, "11111111-2222-3333-4444-555555555555.main.test");
    let principals = host.certificate.valid_principals();
    assert!(principals.iter().any(|p| p == "192.0.2.5") && principals.iter().any(|p| p == "node1.lan"));
    let tls = Certificate::from_pem(std::str::from_utf8(&certs.tls).unwrap()).unwrap();
    let ca = Certificate::from_pem(std::str::from_utf8(&certs.tlsca_certs[0]).unwrap()).unwrap();
    assert!(tls.verify_issued_by(&[ca], service.auth.now()).is_some());
    let identity = pki::identity::Identity::from_certificate(&tls).unwrap();
    assert_eq!(identity.groups, ["Node"]);

    let certs = service.auth.register_using_token(&agent, request(STATIC_TOKEN, "Instance")).await.unwrap();
    let tls = Certificate::from_pem(std::str::from_utf8(&certs.tls).unwrap()).unwrap();
    let identity = pki::identity::Identity::from_certificate(&tls).unwrap();
    assert_eq!(
        (identity.groups, identity.system_roles),
        (vec!["Instance".to_owned()], vec!["Node".into(), "App".into()])
    );
}

#[tokio::test]
async fn tokens_that_are_wrong_expired_or_for_other_roles_open_nothing() {
    let service = Service::start().await;
    let agent = Caller::anonymous(None);
    let join = |token: &str, role: &str| service.auth.register_using_token(&agent, request(token, role));
    let wrong = join("wrong", "Node").await.unwrap_err();
    let text = "\"node1\" can not join the cluster with role \"Node\", token expired or not found";
    assert_eq!((wrong.kind, wrong.message.as_str()), (ErrorKind::AccessDenied, text));
    let mismatch = join(STATIC_TOKEN, "Proxy").await.unwrap_err();
    let text = "node \"node1\" [11111111-2222-3333-4444-555555555555] can not join the cluster, the token does not \
                allow \"Proxy\" role";
    assert_eq!((mismatch.kind, mismatch.message.as_str()), (ErrorKind::BadParameter, text));
    for role in ["Admin", "Nop", "", "bogus"] {
        assert!(join(STATIC_TOKEN, role).await.is_err(), "{role:?}");
    }
    let mut token = ProvisionTokenV2::default();
    token.metadata_mut().name = "short-lived-token".into();
    token.spec = Some(ProvisionTokenSpecV2 { roles: vec!["Node".into()], ..Default::default() });
    token.set_expires(Some(service.auth.now() + chrono::TimeDelta::minutes(5)));
    service.auth.create_token(&service.admin(), token.clone()).await.unwrap();
    join("short-lived-token", "Node").await.unwrap();
    service.advance(301);
    let expired = join("short-lived-token", "Node").await.unwrap_err();
    assert!(expired.message.ends_with("token expired or not found"));
    assert!(service.auth.create_token(&service.admin(), token).await.is_err());

    let events = service.events.events();
    let joins: Vec<_> = events.iter().filter(|event| event.name() == "instance.join").collect();
    assert_eq!(joins.iter().filter(|event| event.code() == "TJ002I").count(), 1);
    assert_eq!(joins.iter().filter(|event| event.code() == "TJ002E").count(), 7);
    for event in &events {
        let line = audit::json::to_json_line(event).unwrap();
        assert!(!line.contains("short-lived-token") && !line.contains(STATIC_TOKEN), "{line}");
    }
}

#[tokio::test]
async fn names_that_could_be_mistaken_for_something_else_cannot_join() {
    let service = Service::start().await;
    let agent = Caller::anonymous(None);
    for change in [
        |r: &mut RegisterUsingTokenRequest| r.host_id = "../../etc".into(),
        |r: &mut RegisterUsingTokenRequest| r.node_name = "x\u{1b}[2J".into(),
        |r: &mut RegisterUsingTokenRequest| r.additional_principals = vec!["a,b".into()],
        |r: &mut RegisterUsingTokenRequest| r.additional_principals = vec!["a".into(); 1000],
        |r: &mut RegisterUsingTokenRequest| r.public_ssh_key = b"ssh-rsa AAAA".into(),
        |r: &mut RegisterUsingTokenRequest| r.public_tls_key = vec![0xff, 0],
        |r: &mut RegisterUsingTokenRequest| r.host_id = String::new(),
    ] {
        let mut odd = request(STATIC_TOKEN, "Node");
        change(&mut odd);
        let error = service.auth.register_using_token(&agent, odd).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadParameter, "{error}");
    }
}

#[tokio::test]
async fn tokens_are_listed_with_static_ones_and_invitations() {
    let service = Service::start().await;
    service.invite("alice").await;
    let tokens = service.auth.list_tokens().await.unwrap();
    let roles: Vec<_> = tokens.iter().map(|token| token.spec.clone().unwrap().roles).collect();
    assert_eq!(roles, [vec!["Node".to_owned(), "App".to_owned()], vec!["Signup".to_owned()]]);
    let error = service.auth.delete_token(&service.admin(), STATIC_TOKEN).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadParameter);
    service.auth.delete_token(&service.admin(), tokens[1].name()).await.unwrap();
    assert_eq!(service.auth.list_tokens().await.unwrap().len(), 1);
}

#[tokio::test]
async fn services_of_this_machine_get_identities_without_a_token() {
    let service = Service::start().await;
    let request = LocalIdentityRequest { additional_principals: vec!["localhost".into()], ..Default::default() };
    let identity = service.auth.local_identity(SystemRole::Proxy, request).await.unwrap();
    let tls = Certificate::from_pem(&identity.tls_certificate).unwrap();
    let names: Vec<&str> = tls.dns_names().collect();
    assert!(names.contains(&"*.teleport.cluster.local") && names.contains(&"localhost"), "{names:?}");
    assert!(identity.ssh_certificate.starts_with("ssh-rsa-cert-v01@openssh.com "));
    assert!(pki::keys::PrivateKey::from_pem(&identity.tls_key).is_ok());
}

#[tokio::test]
async fn users_need_roles_that_exist_and_keep_their_password_state() {
    let service = Service::start().await;
    let admin = service.admin();
    let error = service.auth.create_user(&admin, user("bob", &["nonsense"])).await.unwrap_err();
    assert!(error.message.contains("role \"nonsense\" not found"), "{error}");
    assert!(service.auth.get_user("bob", false).await.is_err());
    service.user("alice").await;
    let mut changed = user("alice", &["editor"]);
    changed.spec.as_mut().unwrap().local_auth = Some(types::LocalAuthSecrets::default());
    let stored = service.auth.upsert_user(&admin, changed).await.unwrap();
    assert_eq!(stored.status.unwrap().password_state, types::PasswordState::Set as i32);
    assert!(stored.spec.unwrap().local_auth.is_none());
    let error = service.auth.delete_role(&admin, "editor").await.unwrap_err();
    assert!(error.message.contains("still in use by user \"alice\""));
}

#[tokio::test]
async fn a_semaphore_is_held_as_often_as_allowed() {
    let service = Service::start().await;
    let auth = Arc::new(service.auth.clone());
    let ask = || types::AcquireSemaphoreRequest {
        semaphore_kind: "connection".into(),
        semaphore_name: "alice".into(),
        max_leases: 3,
        expires: Some(wire::time::timestamp(auth.now() + chrono::TimeDelta::minutes(1))),
        holder: "node".into(),
    };
    let (a, b, c, d) = tokio::join!(
        auth.acquire_semaphore(ask()),
        auth.acquire_semaphore(ask()),
        auth.acquire_semaphore(ask()),
        auth.acquire_semaphore(ask()),
    );
    let (held, refused): (Vec<_>, Vec<_>) = [a, b, c, d].into_iter().partition(Result::is_ok);
    assert_eq!((held.len(), refused.len()), (3, 1));
    assert!(refused[0].as_ref().unwrap_err().message.contains("err-max-leases"));
    auth.cancel_semaphore(held[0].as_ref().unwrap().clone()).await.unwrap();
    let lease = auth.acquire_semaphore(ask()).await.unwrap();
    auth.keep_alive_semaphore(lease.clone()).await.unwrap();
    service.advance(61);
    assert_eq!(
        auth.keep_alive_semaphore(types::SemaphoreLease {
            expires: Some(wire::time::timestamp(auth.now() + chrono::TimeDelta::minutes(1))),
            ..lease
        })
        .await
        .unwrap_err()
        .kind,
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn abandoned_recordings_are_completed_once_their_session_is_gone() {
    let service = Service::start().await;
    let session = recording::SessionId::random();
    let mut upload = service.auth.recordings().create(session).await.unwrap();
    let start = audit::codes::SESSION_START.event(wire::events::SessionStart {
        session: Some(wire::events::SessionMetadata { session_id: session.to_string(), ..Default::default() }),
        ..Default::default()
    });
    upload.write(&start).await.unwrap();
    upload.flush().await.unwrap();
    drop(upload);
    // The files have the machine's time; the service's clock is moved past it.
    let ahead = chrono::Utc::now() - service.auth.now() + chrono::TimeDelta::minutes(11);
    service.advance(ahead.num_seconds().max(0).unsigned_abs());
    let mut untold = std::collections::VecDeque::new();
    assert_eq!(service.auth.complete_abandoned_recordings(&mut untold).await.unwrap(), 1);
    assert_eq!(service.auth.complete_abandoned_recordings(&mut untold).await.unwrap(), 0);
    assert!(service.auth.recordings().open(session).await.is_ok());
    let names = service.names_of_events();
    assert!(names.iter().any(|name| name == "session.upload") && names.iter().any(|name| name == "session.end"));
}

#[tokio::test]
async fn no_recording_is_completed_before_the_last_one_was_told() {
    let service = Service::start().await;
    service.auth.shutdown().await;
    let log = Arc::new(Away::default());
    let auth = service.again(|config| config.audit_sinks.push(log.clone())).await;
    for _ in 0..2 {
        let mut upload = auth.recordings().create(recording::SessionId::random()).await.unwrap();
        upload.write(&audit::codes::SESSION_START.event(Default::default())).await.unwrap();
        upload.flush().await.unwrap();
    }
    let ahead = chrono::Utc::now() - auth.now() + chrono::TimeDelta::minutes(11);
    service.advance(ahead.num_seconds().max(0).unsigned_abs());
    log.0.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut untold = std::collections::VecDeque::new();
    assert!(auth.complete_abandoned_recordings(&mut untold).await.is_err());
    assert_eq!((untold.len(), auth.recordings().unfinished().await.unwrap().len()), (2, 1));
    log.0.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(auth.complete_abandoned_recordings(&mut untold).await.unwrap(), 1);
    assert_eq!(service.names_of_events().iter().filter(|name| *name == "session.upload").count(), 2);
}

#[tokio::test]
async fn a_failed_write_is_told_as_what_it_would_have_been() {
    use audit::EventExt as _;
    let service = Service::start().await;
    let spec =
        |title: &str| serde_json::json!({ "title": title, "owners": [{"name": "o"}], "grants": {"roles": ["access"]} });
    let list = |name: &str, title: &str| -> wire::accesslist::AccessList {
        serde_json::from_value(serde_json::json!({ "metadata": {"name": name}, "spec": spec(title) })).unwrap()
    };
    let write = async |list, write| service.auth.write_access_list(&service.admin(), list, write).await;
    write(list("one", "One"), Write::Upsert).await.unwrap();
    let last = || service.events.events().last().unwrap().code().to_owned();
    for (name, how, code) in [
        ("one", Write::Upsert, "TAL002E"),
        ("one", Write::Update, "TAL002E"),
        ("two", Write::Upsert, "TAL001E"),
        ("two", Write::Update, "TAL002E"),
    ] {
        write(list(name, ""), how).await.unwrap_err();
        assert_eq!(last(), code, "{name} {how:?}");
        if how == Write::Upsert {
            let before = service.events.events().len();
            let admin = service.admin();
            service.auth.write_list_with_members(&admin, list(name, ""), Vec::new()).await.unwrap_err();
            assert_eq!((service.events.events().len(), last()), (before + 1, code.to_owned()), "{name} with members");
        }
        let record: wire::accesslist::AccessList = list(name, "");
        service.auth.write_record::<kind::AccessList>(&service.admin(), record, how).await.unwrap_err();
        assert_eq!(last(), code, "{name} {how:?}");
    }
}

#[tokio::test]
async fn recordings_are_removed_when_they_are_older_than_the_file_says() {
    let service = Service::start().await;
    service.auth.shutdown().await;
    let auth = service.again(|config| config.recordings_retention = Some(Duration::from_secs(3600))).await;
    let session = recording::SessionId::random();
    let mut upload = auth.recordings().create(session).await.unwrap();
    upload.write(&audit::codes::SESSION_START.event(Default::default())).await.unwrap();
    upload.complete().await.unwrap();
    // The files have the machine's time; the service's clock is moved to it, and past it.
    let behind = (chrono::Utc::now() - auth.now()).num_seconds().max(0).unsigned_abs();
    service.advance(behind);
    assert_eq!(auth.remove_old_recordings().await.unwrap(), 0);
    service.advance(3660);
    assert_eq!(auth.remove_old_recordings().await.unwrap(), 1);
    assert!(auth.recordings().open(session).await.is_err());
}

#[tokio::test]
async fn a_file_that_gives_up_second_factors_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let preference = types::AuthPreferenceV2 {
        spec: Some(types::AuthPreferenceSpecV2 { second_factor: "off".into(), ..Default::default() }),
        ..Default::default()
    };
    let config = AuthConfig {
        cluster_name: CLUSTER.into(),
        auth_preference: Some(preference),
        ..AuthConfig::new(folder.path())
    };
    let error = Auth::open(config).await.err().unwrap();
    assert!(error.message.contains("cannot disable multi-factor authentication"), "{error}");
}

#[tokio::test]
async fn a_user_without_logins_gets_a_certificate_that_opens_no_account() {
    let service = Service::start().await;
    let mut bob = user("bob", &["access"]);
    bob.spec.as_mut().unwrap().traits = None;
    service.auth.create_user(&service.admin(), bob).await.unwrap();
    let request =
        UserCertRequest { user: "bob".into(), roles: vec!["access".into()], keys: keys(), ..Default::default() };
    let certs = service.auth.generate_user_certs(request).await.unwrap();
    let line = std::str::from_utf8(&certs.ssh).unwrap();
    let identity = pki::ssh_cert::UserCertificate::from_line(line).unwrap().identity;
    assert!(identity.principals[0].starts_with("-teleport-nologin-"), "{:?}", identity.principals);
    assert_eq!(identity.principals[1..], ["-teleport-internal-join"]);
}

#[tokio::test]
async fn roles_cut_the_life_of_a_certificate_and_locks_forbid_it() {
    let service = Service::start().await;
    let mut role = (*service.auth.role("access").unwrap()).clone();
    role.metadata_mut().name = "short".into();
    role.metadata_mut().labels.clear();
    let hour = 3_600_000_000_000;
    role.spec.as_mut().unwrap().options.as_mut().unwrap().max_session_ttl = hour;
    service.auth.create_role(&service.admin(), role).await.unwrap();
    let request = || UserCertRequest {
        user: "carol".into(),
        roles: vec!["short".into()],
        traits: [("logins".to_owned(), vec!["root".to_owned()])].into(),
        ttl: std::time::Duration::from_secs(8 * 3600),
        keys: keys(),
        ..Default::default()
    };
    let life = |certs: &wire::proto::Certs| {
        let tls = Certificate::from_pem(std::str::from_utf8(&certs.tls).unwrap()).unwrap();
        (tls.not_after() - service.auth.now()).num_seconds()
    };
    assert_eq!(life(&service.auth.generate_user_certs(request()).await.unwrap()), 3600);
    let signed = UserCertRequest { override_ttl: true, ..request() };
    assert_eq!(life(&service.auth.generate_user_certs(signed).await.unwrap()), 8 * 3600);
    let mut lock = types::LockV2::default();
    lock.metadata_mut().name = "one".into();
    let target = types::LockTarget { role: "short".into(), ..Default::default() };
    lock.spec = Some(types::LockSpecV2 { target: Some(target), message: "audit".into(), ..Default::default() });
    service.auth.upsert_lock(&service.admin(), lock).await.unwrap();
    let error = service.auth.generate_user_certs(request()).await.unwrap_err();
    assert_eq!((error.kind, error.message.ends_with("audit")), (ErrorKind::AccessDenied, true));
    let stranger = UserCertRequest { route_to_cluster: "elsewhere".into(), roles: vec!["access".into()], ..request() };
    assert_eq!(service.auth.generate_user_certs(stranger).await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_file_that_is_refused_in_one_place_changes_nothing() {
    let service = Service::start().await;
    let auth = &service.auth;
    let mut networking = resources::cluster::networking_config();
    networking.spec.as_mut().unwrap().client_idle_timeout = 60_000_000_000;
    let token = types::ProvisionTokenV1 { roles: vec!["Nonsense".into()], token: "x".into(), ..Default::default() };
    let file = FileSettings { networking: Some(networking), static_tokens: vec![token], ..FileSettings::default() };
    let before = auth.networking().unwrap();
    assert_eq!(auth.follow_file(file.clone()).await.unwrap_err().kind, ErrorKind::BadParameter);
    assert_eq!(auth.networking().unwrap(), before);
    auth.follow_file(FileSettings { static_tokens: Vec::new(), ..file }).await.unwrap();
    assert_eq!(auth.networking().unwrap().spec.as_ref().unwrap().client_idle_timeout, 60_000_000_000);
}

#[tokio::test]
async fn a_setting_that_is_stored_is_told_even_when_it_cannot_be_followed() {
    let service = Service::start().await;
    let key = backend::Key::root("/recordings").child("sealing_keys").unwrap();
    service.auth.store().backend().put(backend::Item::new(key, "no keys")).await.unwrap();
    let config = resources::cluster::session_recording_config();
    service.auth.set_recording_config(&service.admin(), config, Write::Upsert).await.unwrap_err();
    let told = service.names_of_events();
    assert_eq!(told.last().map(String::as_str), Some("session_recording_config.update"), "{told:?}");
}

#[tokio::test]
async fn the_record_of_a_removed_user_goes_last() {
    let service = Service::start().await;
    let (auth, admin) = (&service.auth, service.admin());
    auth.create_user(&admin, user("olga", &["access"])).await.unwrap();
    let record = kind::User::key("olga").unwrap();
    let belongings = crate::store::key_at(&resources::Place::new(resources::places::USERS, ["olga"])).unwrap();
    let backend = auth.store().backend();
    for name in ["pwd", "zones"] {
        backend.put(backend::Item::new(belongings.child(name).unwrap(), "something")).await.unwrap();
    }
    let watch = backend::Watch::new("test", [belongings.clone()]);
    let mut changes = backend.watch(watch).await.unwrap();
    auth.delete_user(&admin, "olga").await.unwrap();
    let mut removed = Vec::new();
    while removed.last() != Some(&record) {
        if let backend::Event::Delete(key) = changes.recv().await.unwrap() {
            removed.push((*key).clone());
        }
    }
    assert_eq!(removed.len(), 3, "{removed:?}");
    assert!(backend.get_range(&belongings.children(), 0).await.unwrap().is_empty());
}
