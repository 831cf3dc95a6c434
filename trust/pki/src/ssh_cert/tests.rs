#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::fs;
use std::process::Command;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::*;
use crate::identity::{DeviceExtensions, Identity, Traits};
use crate::keys::{KeyAlgorithm, PrivateKey, PublicKey};

const ALL: [KeyAlgorithm; 3] = [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519];
const REQUEST: &str = "11111111-1111-1111-1111-111111111111";

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap()
}

fn issuer(algorithm: KeyAlgorithm) -> SshIssuer {
    SshIssuer::new(PrivateKey::generate(algorithm).unwrap())
}

fn alice() -> Identity {
    Identity {
        username: "alice".to_owned(),
        groups: vec!["dev".to_owned(), "access".to_owned()],
        principals: vec!["root".to_owned(), "-teleport-internal-join".to_owned()],
        traits: Some(Traits::from([("logins".to_owned(), vec!["root".to_owned()])])),
        route_to_cluster: "root.example.com".to_owned(),
        login_ip: "192.0.2.1".to_owned(),
        private_key_policy: "none".to_owned(),
        ..Identity::default()
    }
}

fn params<'a>(identity: &'a Identity, public_key: &'a PublicKey) -> UserCertificateParams<'a> {
    UserCertificateParams {
        identity,
        public_key,
        now: now(),
        not_after: Some(now() + TimeDelta::hours(12)),
        permits: Permits { port_forwarding: true, agent_forwarding: true, x11_forwarding: false },
        format: CertificateFormat::Standard,
        extensions: &[],
    }
}

fn host_params<'a>(public_key: &'a PublicKey, additional_principals: &'a [String]) -> HostCertificateParams<'a> {
    HostCertificateParams {
        public_key,
        host_id: "uuid",
        node_name: "node",
        cluster: "root.example.com",
        role: "Node",
        additional_principals,
        now: now(),
        not_after: None,
    }
}

fn requirements<'a>(principal: &'a str) -> Requirements<'a> {
    Requirements { kind: Kind::User, principal: Some(principal), now: now(), source: None }
}

/// What ssh-keygen says about a certificate.
fn shown_by_openssh(certificate: &Certificate) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key-cert.pub");
    fs::write(&path, to_line(certificate).unwrap()).unwrap();
    let output = Command::new("ssh-keygen").args(["-L", "-f"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Lets OpenSSH itself check the authority's signature: a certificate signs a message, and the authority is trusted.
fn accepted_by_openssh(issuer: &SshIssuer, key: &PrivateKey, certificate: &Certificate) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    };
    let openssh = key.to_ssh().unwrap().to_openssh(ssh_key::LineEnding::LF).unwrap();
    let secret = file("key", &openssh);
    file("key.pub", &key.public().to_ssh_line());
    let public = file("key-cert.pub", &to_line(certificate).unwrap());
    let message = file("message", "hello");
    let trusted = file("trusted", &format!("root cert-authority {}", issuer.public_key().to_ssh_line()));
    // `-Y sign` with a certificate wants the key from an agent or beside it.
    let sign =
        Command::new("ssh-keygen").args(["-q", "-Y", "sign", "-n", "file", "-f"]).arg(&public).arg(&message).output();
    let sign = sign.unwrap();
    assert!(sign.status.success(), "{secret:?}: {sign:?}");
    let verify = Command::new("ssh-keygen")
        .args(["-Y", "verify", "-n", "file", "-I", "root", "-f"])
        .arg(&trusted)
        .arg("-s")
        .arg(folder.path().join("message.sig"))
        .stdin(fs::File::open(&message).unwrap())
        .output()
        .unwrap();
    verify.status.success()
}

#[test]
fn openssh_shows_a_user_certificate_with_the_documented_profile() {
    let names = ["rsa-sha2-512", "ecdsa-sha2-nistp256", "ssh-ed25519"];
    for (algorithm, name) in ALL.into_iter().zip(names) {
        let issuer = issuer(algorithm);
        let key = PrivateKey::generate(algorithm).unwrap();
        let mut identity = alice();
        identity.active_requests = vec![REQUEST.to_owned()];
        identity.mfa_verified = "device".to_owned();
        let certificate = issuer.issue_user(&params(&identity, key.public())).unwrap();
        assert_eq!(certificate.nonce().len(), 32);
        let text = shown_by_openssh(&certificate);
        for expected in [
            "user certificate",
            &format!("(using {name})"),
            "Key ID: \"alice\"",
            "Serial: 0",
            "Principals: \n                root\n                -teleport-internal-join\n",
            "Critical Options: (none)",
            "permit-pty",
            "permit-port-forwarding",
            "permit-agent-forwarding",
            "teleport-roles UNKNOWN OPTION",
        ] {
            assert!(text.contains(expected), "{expected} not in {text}");
        }
        assert!(!text.contains("permit-X11-forwarding"));
        let extensions = certificate.extensions();
        assert_eq!(extensions["teleport-roles"], "{\"version\":\"v1\",\"roles\":[\"dev\",\"access\"]}");
        assert_eq!(extensions["teleport-traits"], "{\"logins\":[\"root\"]}");
        assert_eq!(extensions["teleport-route-to-cluster"], "root.example.com");
        assert_eq!(extensions["teleport-active-requests"], format!("{{\"access_requests\":[\"{REQUEST}\"]}}"));
        assert_eq!(extensions["mfa-verified"], "device");
        assert_eq!(extensions["login-ip"], "192.0.2.1");
        assert_eq!(extensions["private-key-policy"], "none");
        let validity = certificate.valid_before() - certificate.valid_after();
        assert_eq!(validity, 12 * 3600 + 60);
    }
}

#[test]
fn openssh_accepts_our_signatures() {
    for algorithm in ALL {
        let issuer = issuer(algorithm);
        let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
        let certificate = issuer.issue_user(&params(&alice(), key.public())).unwrap();
        assert!(accepted_by_openssh(&issuer, &key, &certificate), "{algorithm}");
    }
}

#[test]
fn a_user_certificate_reads_back_as_the_same_identity() {
    let issuer = issuer(KeyAlgorithm::Ed25519);
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let identity = Identity {
        mfa_verified: "device".to_owned(),
        previous_identity_expires: DateTime::from_timestamp(1_800_000_000, 0),
        pinned_ip: "2001:db8::1".to_owned(),
        impersonator: "bot".to_owned(),
        disallow_reissue: true,
        renewable: true,
        generation: 3,
        bot_name: "robot".to_owned(),
        bot_instance_id: "instance".to_owned(),
        active_requests: vec![REQUEST.to_owned()],
        allowed_resource_ids: vec!["/root/node/a".to_owned()],
        connection_diagnostic_id: "diag".to_owned(),
        device: DeviceExtensions {
            device_id: "d".to_owned(),
            asset_tag: "t".to_owned(),
            credential_id: "c".to_owned(),
        },
        expires: Some(now() + TimeDelta::hours(12)),
        ..alice()
    };
    let certificate = issuer.issue_user(&params(&identity, key.public())).unwrap();
    let line = to_line(&certificate).unwrap();
    assert!(line.starts_with("ecdsa-sha2-nistp256-cert-v01@openssh.com ") && line.ends_with('\n'));
    let read = UserCertificate::from_line(&line).unwrap();
    assert_eq!(&read.public_key().unwrap(), key.public());
    assert!(read.permits.port_forwarding && !read.permits.x11_forwarding);
    assert_eq!(read.identity.expires.unwrap().timestamp() - read.certificate.valid_after() as i64, 12 * 3600 + 60);
    assert_eq!(Identity { expires: identity.expires, ..read.identity }, identity);
    assert!(HostCertificate::from_line(&line).is_err());
}

#[test]
fn the_old_format_says_nothing_about_roles() {
    let issuer = issuer(KeyAlgorithm::Ed25519);
    let (identity, key) = (alice(), PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap());
    let old = UserCertificateParams {
        format: CertificateFormat::parse("oldssh").unwrap(),
        ..params(&identity, key.public())
    };
    let certificate = issuer.issue_user(&old).unwrap();
    assert!(!certificate.extensions().keys().any(|name| name.starts_with("teleport-")));
    assert!(UserCertificate::from_certificate(certificate).unwrap().identity.groups.is_empty());
    assert_eq!(CertificateFormat::parse("").unwrap(), CertificateFormat::Standard);
    assert!(CertificateFormat::parse("new").is_err());
}

#[test]
fn roles_may_add_extensions_but_not_replace_those_of_the_system() {
    let issuer = issuer(KeyAlgorithm::Ed25519);
    let (identity, key) = (alice(), PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap());
    let extra = [
        ("login@github.com".to_owned(), "alice".to_owned()),
        ("mfa-verified".to_owned(), "forged".to_owned()),
        ("teleport-roles".to_owned(), "forged".to_owned()),
    ];
    let with_extra = UserCertificateParams { extensions: &extra, ..params(&identity, key.public()) };
    let certificate = issuer.issue_user(&with_extra).unwrap();
    assert_eq!(certificate.extensions()["login@github.com"], "alice");
    let read = UserCertificate::from_certificate(certificate).unwrap();
    assert_eq!((read.identity.mfa_verified.as_str(), read.identity.groups), ("", identity.groups));
}

#[test]
fn a_host_certificate_lists_its_names_in_order() {
    let issuer = issuer(KeyAlgorithm::Rsa2048);
    let key = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    let more = ["node.example.com".to_owned(), "localhost".to_owned(), "192.0.2.7".to_owned()];
    let certificate = issuer.issue_host(&host_params(key.public(), &more)).unwrap();
    let expected = [
        "uuid.root.example.com",
        "uuid",
        "node.root.example.com",
        "node",
        "localhost",
        "127.0.0.1",
        "::1",
        "node.example.com",
        "192.0.2.7",
    ];
    assert_eq!(certificate.valid_principals(), expected);
    let text = shown_by_openssh(&certificate);
    assert!(text.contains("host certificate") && text.contains("Valid: after"), "{text}");
    assert!(text.contains("Key ID: \"\"") && text.contains("x-teleport-role UNKNOWN OPTION"), "{text}");
    let read = HostCertificate::from_certificate(certificate).unwrap();
    assert_eq!((read.fqdn.as_str(), read.role.as_str()), ("uuid.root.example.com", "Node"));
    assert_eq!((read.host_id(), read.cluster.as_str()), ("uuid", "root.example.com"));
}

#[test]
fn hosts_of_administration_and_of_other_clusters_have_few_names() {
    let issuer = issuer(KeyAlgorithm::Ed25519);
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let admin = HostCertificateParams { role: "Admin", ..host_params(key.public(), &[]) };
    assert_eq!(issuer.issue_host(&admin).unwrap().valid_principals(), ["uuid"]);
    let names = ["ssh.example.com".to_owned()];
    let foreign = HostCertificateParams { host_id: "", ..host_params(key.public(), &names) };
    assert_eq!(issuer.issue_host(&foreign).unwrap().valid_principals(), ["ssh.example.com"]);
    let nameless = HostCertificateParams { host_id: "", ..host_params(key.public(), &[]) };
    assert!(issuer.issue_host(&nameless).is_err());
}

#[test]
fn a_good_certificate_names_the_authority_that_signed_it() {
    for algorithm in ALL {
        let (mine, other) = (issuer(algorithm), issuer(algorithm));
        let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
        let certificate = mine.issue_user(&params(&alice(), key.public())).unwrap();
        let trusted = [other.public_key().clone(), mine.public_key().clone()];
        assert_eq!(check(&certificate, &trusted, &requirements("root")), Ok(mine.public_key()));
        assert_eq!(check(&certificate, &trusted[..1], &requirements("root")), Err(CheckError::UnknownAuthority));
    }
}

#[test]
fn a_certificate_is_refused_with_the_precise_reason() {
    let issuer = issuer(KeyAlgorithm::Ed25519);
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let certificate = issuer.issue_user(&params(&alice(), key.public())).unwrap();
    let trusted = [issuer.public_key().clone()];
    let judge = |required: Requirements<'_>| check(&certificate, &trusted, &required).unwrap_err();
    let good = requirements("root");
    assert_eq!(judge(Requirements { kind: Kind::Host, ..good }), CheckError::WrongType);
    let later = now() + TimeDelta::hours(12);
    assert!(matches!(judge(Requirements { now: later, ..good }), CheckError::Expired(_)));
    let earlier = now() - TimeDelta::minutes(5);
    assert!(matches!(judge(Requirements { now: earlier, ..good }), CheckError::NotYetValid(_)));
    assert_eq!(judge(requirements("admin")), CheckError::PrincipalNotListed("admin".to_owned()));
}

#[test]
fn a_changed_certificate_is_refused() {
    for algorithm in ALL {
        let issuer = issuer(algorithm);
        let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
        let certificate = issuer.issue_user(&params(&alice(), key.public())).unwrap();
        let mut bytes = certificate.to_bytes().unwrap();
        let position = bytes.windows(5).position(|window| window == b"alice").unwrap();
        bytes[position] = b'A';
        let forged = Certificate::from_bytes(&bytes).unwrap();
        assert_eq!(forged.key_id(), "Alice");
        let trusted = [issuer.public_key().clone()];
        assert_eq!(check(&forged, &trusted, &requirements("root")), Err(CheckError::BadSignature));
    }
}

#[test]
fn a_pinned_certificate_works_from_its_address_only() {
    let issuer = issuer(KeyAlgorithm::EcdsaP256);
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let trusted = [issuer.public_key().clone()];
    for (pinned, shown, good, bad) in [
        ("192.0.2.1", "192.0.2.1/32", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
    ] {
        let mut identity = alice();
        identity.pinned_ip = pinned.to_owned();
        let certificate = issuer.issue_user(&params(&identity, key.public())).unwrap();
        assert_eq!(certificate.critical_options()["source-address"], shown);
        let from = |source: Option<&str>| Requirements {
            source: source.map(|source| source.parse().unwrap()),
            ..requirements("root")
        };
        assert!(check(&certificate, &trusted, &from(Some(good))).is_ok());
        for source in [Some(bad), Some("203.0.113.1"), None] {
            let refused = check(&certificate, &trusted, &from(source));
            assert!(matches!(refused, Err(CheckError::SourceAddressNotAllowed(_))), "{source:?}");
        }
    }
}

/// Certificates that our own issuer refuses to make come from ssh-keygen.
fn made_by_openssh(arguments: &[&str]) -> (Certificate, PublicKey) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let run = |arguments: &[&str]| {
        let output = Command::new("ssh-keygen").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run(&["-q", "-t", "ed25519", "-N", "", "-f", &path("ca")]);
    run(&["-q", "-t", "ed25519", "-N", "", "-f", &path("key")]);
    let (ca, public) = (path("ca"), path("key.pub"));
    let mut all = vec!["-q", "-s", &ca, "-I", "id"];
    all.extend_from_slice(arguments);
    all.push(&public);
    run(&all);
    let certificate = from_line(&fs::read_to_string(path("key-cert.pub")).unwrap()).unwrap();
    let ca = PublicKey::from_ssh_line(&fs::read_to_string(path("ca.pub")).unwrap()).unwrap();
    (certificate, ca)
}

#[test]
fn certificates_of_openssh_are_checked_alike() {
    let (certificate, ca) = made_by_openssh(&["-n", "root", "-O", "source-address=192.0.2.0/24,10.0.0.1/32"]);
    assert!(!to_line(&certificate).unwrap().contains("id\n") && !certificate.comment().is_empty());
    let from = |source: &str| Requirements { source: Some(source.parse().unwrap()), ..requirements("root") };
    assert!(check(&certificate, [&ca], &from("192.0.2.77")).is_ok());
    assert!(check(&certificate, [&ca], &from("10.0.0.1")).is_ok());
    assert!(check(&certificate, [&ca], &from("10.0.0.2")).is_err());
    let (forced, ca) = made_by_openssh(&["-n", "root", "-O", "force-command=/bin/true"]);
    let refused = check(&forced, [&ca], &requirements("root"));
    assert_eq!(refused, Err(CheckError::UnknownCriticalOption("force-command".to_owned())));
    let (anyone, ca) = made_by_openssh(&[]);
    let refused = check(&anyone, [&ca], &requirements("root"));
    assert_eq!(refused, Err(CheckError::PrincipalNotListed("root".to_owned())));
    let (host, ca) = made_by_openssh(&["-h", "-n", "host"]);
    assert!(HostCertificate::from_certificate(host.clone()).is_err());
    let required = Requirements { kind: Kind::Host, ..requirements("host") };
    assert!(check(&host, [&ca], &required).is_ok());
}

proptest! {
    #[test]
    fn hostile_certificates_never_panic(position: prop::sample::Index, value: u8, cut: prop::sample::Index) {
        thread_local! {
            static CERTIFICATE: (Vec<u8>, PublicKey) = {
                let issuer = issuer(KeyAlgorithm::EcdsaP256);
                let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
                let certificate = issuer.issue_user(&params(&alice(), key.public())).unwrap();
                (certificate.to_bytes().unwrap(), issuer.public_key().clone())
            };
        }
        let (mut bytes, ca) = CERTIFICATE.with(Clone::clone);
        let position = position.index(bytes.len());
        let unchanged = bytes[position] == value;
        bytes[position] = value;
        if let Ok(certificate) = Certificate::from_bytes(&bytes) {
            let checked = check(&certificate, [&ca], &requirements("root"));
            prop_assert!(unchanged || checked.is_err());
            let _ = to_line(&certificate);
            let _ = UserCertificate::from_certificate(certificate.clone());
            let _ = HostCertificate::from_certificate(certificate);
        }
        bytes.truncate(cut.index(bytes.len()));
        let _ = Certificate::from_bytes(&bytes);
    }

    #[test]
    fn hostile_lines_never_panic(line in "(ssh-ed25519-cert-v01@openssh.com )?[A-Za-z0-9+/=]{0,200}") {
        let _ = from_line(&line);
    }
}

/// A key that a module keeps and does not sign with.
#[derive(Debug)]
struct Unreachable(PublicKey);

impl crate::keys::Signer for Unreachable {
    fn public_key(&self) -> &PublicKey {
        &self.0
    }

    fn sign(&self, _: crate::keys::SignatureScheme, _: &[u8]) -> Result<Vec<u8>, crate::Error> {
        Err(crate::Error::Module("the token is gone".to_owned()))
    }
}

#[test]
fn why_a_module_did_not_sign_is_told() {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap().public().clone();
    let signer: std::sync::Arc<dyn crate::keys::Signer> = std::sync::Arc::new(Unreachable(key.clone()));
    let error = SshIssuer::new(signer).issue_user(&params(&alice(), &key)).unwrap_err();
    assert_eq!(error.to_string(), "the token is gone");
    assert_eq!(error.kind(), crate::ErrorKind::Internal);
}
