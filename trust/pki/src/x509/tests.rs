#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::fs;
use std::process::Command;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use super::*;
use crate::Error;
use crate::identity::Identity;
use crate::keys::{KeyAlgorithm, PrivateKey};

const ALL: [KeyAlgorithm; 3] = [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519];

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap()
}

fn authority(algorithm: KeyAlgorithm) -> Issuer {
    let key = PrivateKey::generate(algorithm).unwrap();
    Issuer::new(CaCertificate::self_signed("root.example.com", &key, now()).unwrap(), key).unwrap()
}

fn user() -> Identity {
    Identity {
        username: "alice".to_owned(),
        groups: vec!["access".to_owned(), "editor".to_owned()],
        principals: vec!["root".to_owned(), "-teleport-internal-join".to_owned()],
        ..Identity::default()
    }
}

fn issue(issuer: &Issuer, identity: &Identity, ttl: TimeDelta) -> Certificate {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let template = LeafTemplate::new(identity.to_subject().unwrap(), key.public().clone(), now(), now() + ttl);
    Certificate::from_der(&issuer.issue(&template).unwrap()).unwrap()
}

fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {text}");
    text
}

/// What openssl says about a certificate, after checking it against its authority for a purpose.
fn judged_by_openssl(certificate: &Certificate, ca: &Certificate, purpose: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (leaf, root) = (folder.path().join("leaf.pem"), folder.path().join("ca.pem"));
    fs::write(&leaf, certificate.to_pem()).unwrap();
    fs::write(&root, ca.to_pem()).unwrap();
    let (leaf, root) = (leaf.to_str().unwrap(), root.to_str().unwrap());
    openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", root, leaf]);
    openssl(&["x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", leaf])
}

#[test]
fn an_authority_has_the_documented_profile() {
    for algorithm in ALL {
        let issuer = authority(algorithm);
        let ca = issuer.ca().certificate();
        assert_eq!(issuer.ca().cluster(), Some("root.example.com"));
        assert_eq!(ca.issuer_organization(), Some("root.example.com"));
        assert_eq!(ca.subject_der(), ca.issuer().to_der().unwrap());
        let serial = ca.serial().iter().fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
        assert_eq!(ca.subject().first(oid::SERIAL_NUMBER), Some(serial.to_string().as_str()));
        assert_eq!(ca.not_after() - ca.not_before(), TimeDelta::hours(87_600));
        assert!(ca.is_ca() && ca.extended_usages().is_none());
        assert!(ca.verify_issued_by(std::slice::from_ref(ca), now()).is_some());
        let text = judged_by_openssl(ca, ca, "any");
        for expected in [
            "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment, Certificate Sign, CRL Sign",
            "X509v3 Basic Constraints: critical\n                CA:TRUE\n",
            "X509v3 Subject Key Identifier",
            "CN=root.example.com,O=root.example.com",
        ] {
            assert!(text.contains(expected), "{expected} not in {text}");
        }
        assert!(!text.contains("Extended Key Usage") && !text.contains("Authority Key"));
    }
}

#[test]
fn a_user_certificate_has_the_documented_profile() {
    for algorithm in ALL {
        let issuer = authority(algorithm);
        let certificate = issue(&issuer, &user(), TimeDelta::hours(12));
        let text = judged_by_openssl(&certificate, issuer.ca().certificate(), "sslclient");
        judged_by_openssl(&certificate, issuer.ca().certificate(), "sslserver");
        for expected in [
            "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment\n",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "X509v3 Basic Constraints: critical\n                CA:FALSE",
            "X509v3 Authority Key Identifier",
            "O=editor+O=access",
        ] {
            assert!(text.contains(expected), "{expected} not in {text}");
        }
        assert!(!text.contains("Subject Alternative Name") && !text.contains("Subject Key Identifier"));
        assert_eq!(certificate.not_before(), now_of(&certificate) - TimeDelta::minutes(1));
        assert_eq!(certificate.issuer_common_name(), Some("root.example.com"));
    }
}

/// The moment of issue, taken back from the end of a validity of twelve hours.
fn now_of(certificate: &Certificate) -> DateTime<Utc> {
    certificate.not_after() - TimeDelta::hours(12)
}

#[test]
fn a_host_certificate_lists_names_and_addresses_once() {
    let issuer = authority(KeyAlgorithm::EcdsaP256);
    let key = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    let mut template =
        LeafTemplate::new(user().to_subject().unwrap(), key.public().clone(), now(), now() + CA_LIFETIME);
    let hosts = ["localhost", "127.0.0.1", "::1", "localhost", "*.teleport.cluster.local", "127.0.0.1", ""];
    template.alternative_names = AlternativeNames::from_hosts(hosts);
    let certificate = Certificate::from_der(&issuer.issue(&template).unwrap()).unwrap();
    let names: Vec<&str> = certificate.dns_names().collect();
    assert_eq!(names, ["localhost", "*.teleport.cluster.local"]);
    let addresses: Vec<String> = certificate.ip_addresses().map(|ip| ip.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1", "::1"]);
    judged_by_openssl(&certificate, issuer.ca().certificate(), "sslserver");
}

#[test]
fn other_profiles_are_possible() {
    let issuer = authority(KeyAlgorithm::Rsa2048);
    let key = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    let mut template =
        LeafTemplate::new(DistinguishedName::new(), key.public().clone(), now(), now() + TimeDelta::minutes(5));
    template.key_usages = vec![KeyUsages::DigitalSignature];
    template.extended_usages =
        vec![ExtendedUsage::ClientAuth, ExtendedUsage::Other("1.3.6.1.4.1.311.20.2.2".parse().unwrap())];
    template.alternative_names.uris = vec!["spiffe://root/a".to_owned()];
    template.crl_distribution_points = vec!["ldap:///CN=root,CN=Teleport?certificateRevocationList".to_owned()];
    template.extra_extensions =
        vec![ExtraExtension { id: "1.3.9999.2.14".parse().unwrap(), critical: false, value: b"oss".to_vec() }];
    let certificate = Certificate::from_der(&issuer.issue(&template).unwrap()).unwrap();
    assert_eq!(certificate.extended_usages(), Some(template.extended_usages.as_slice()));
    assert_eq!(certificate.uris().collect::<Vec<_>>(), ["spiffe://root/a"]);
    assert_eq!(certificate.extension("1.3.9999.2.14".parse().unwrap()), Some(b"oss".as_slice()));
    let text = judged_by_openssl(&certificate, issuer.ca().certificate(), "any");
    assert!(text.contains("URI:ldap:///CN=root,CN=Teleport"), "{text}");
    assert!(text.contains("X509v3 Subject Alternative Name: critical"), "{text}");
}

#[test]
fn an_empty_revocation_list_verifies() {
    let issuer = authority(KeyAlgorithm::EcdsaP256);
    let folder = tempfile::tempdir().unwrap();
    let (crl, ca) = (folder.path().join("crl"), folder.path().join("ca"));
    fs::write(&crl, issuer.empty_crl(now()).unwrap()).unwrap();
    fs::write(&ca, issuer.ca().to_pem()).unwrap();
    let arguments =
        ["crl", "-inform", "DER", "-noout", "-text", "-in", crl.to_str().unwrap(), "-CAfile", ca.to_str().unwrap()];
    let text = openssl(&arguments);
    assert!(text.contains("verify OK") && text.contains("No Revoked Certificates"), "{text}");
}

#[test]
fn the_web_certificate_of_a_proxy_covers_its_hosts() {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let hosts = ["proxy.example.com".to_owned(), "127.0.0.1".to_owned()];
    let der = self_signed_web(&hosts, &key, now(), Duration::from_secs(3600)).unwrap();
    let certificate = Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.dns_names().collect::<Vec<_>>(), ["proxy.example.com"]);
    assert!(!certificate.is_ca());
    let text = judged_by_openssl(&certificate, &certificate, "sslserver");
    assert!(text.contains("IP Address:127.0.0.1"), "{text}");
}

#[test]
fn a_key_that_is_not_the_authoritys_cannot_issue() {
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let ca = CaCertificate::self_signed("root", &key, now()).unwrap();
    let other = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    assert!(matches!(Issuer::new(ca, other), Err(Error::KeyMismatch)));
    let leaf = issue(&authority(KeyAlgorithm::EcdsaP256), &user(), TimeDelta::hours(1));
    assert!(CaCertificate::from_certificate(leaf).is_err());
}

#[test]
fn only_the_authority_that_signed_vouches_for_a_certificate() {
    let (issuer, other) = (authority(KeyAlgorithm::EcdsaP256), authority(KeyAlgorithm::EcdsaP256));
    let certificate = issue(&issuer, &user(), TimeDelta::hours(1));
    let (mine, foreign) = (issuer.ca().certificate().clone(), other.ca().certificate().clone());
    let trusted = [foreign.clone(), mine.clone()];
    assert_eq!(certificate.verify_issued_by(&trusted, now()), Some(&mine));
    assert_eq!(certificate.verify_issued_by(&trusted, now() + TimeDelta::hours(2)), None);
    assert_eq!(certificate.verify_issued_by(&[foreign], now()), None);
}

#[test]
fn bundles_keep_their_order_and_empty_ones_are_fine() {
    let (first, second) = (authority(KeyAlgorithm::EcdsaP256), authority(KeyAlgorithm::Ed25519));
    let bundle = first.ca().to_pem() + &second.ca().to_pem();
    let parsed = Certificate::bundle_from_pem(&bundle).unwrap();
    assert_eq!(parsed, [first.ca().certificate().clone(), second.ca().certificate().clone()]);
    assert!(Certificate::bundle_from_pem("").unwrap().is_empty());
    assert!(Certificate::from_pem("").is_err());
}

#[test]
fn text_is_printable_only_when_every_character_is() {
    let mut name = DistinguishedName::new();
    for value in ["plain' ()+,-./:=?", "star*", "under_score", "a@b", "", "ü"] {
        name.push(oid::COMMON_NAME, value);
    }
    let der = name.to_der().unwrap();
    let count = |tag: u8, value: &[u8]| {
        let mut wanted = vec![tag, u8::try_from(value.len()).unwrap()];
        wanted.extend_from_slice(value);
        der.windows(wanted.len()).filter(|window| *window == wanted).count()
    };
    assert_eq!(count(0x13, b"plain' ()+,-./:=?"), 1);
    assert_eq!(count(0x13, b""), 1);
    for value in ["star*", "under_score", "a@b", "ü"] {
        assert_eq!(count(0x0c, value.as_bytes()), 1, "{value}");
    }
    assert_eq!(DistinguishedName::from_der(&der).unwrap(), name);
}

proptest! {
    #[test]
    fn names_round_trip_with_sets_sorted(values in prop::collection::btree_set("\\PC{0,200}", 1..20), single in "\\PC{0,40}") {
        let mut name = DistinguishedName::new();
        name.push_set(oid::ORGANIZATION, values.iter().cloned());
        name.push(oid::COMMON_NAME, single.clone());
        let read = DistinguishedName::from_der(&name.to_der().unwrap()).unwrap();
        let found: std::collections::BTreeSet<String> = read.values(oid::ORGANIZATION).map(str::to_owned).collect();
        prop_assert_eq!(found, values);
        prop_assert_eq!(read.first(oid::COMMON_NAME), Some(single.as_str()));
    }

    #[test]
    fn hostile_certificates_never_panic(bytes: Vec<u8>) {
        let _ = Certificate::from_der(&bytes);
        let _ = DistinguishedName::from_der(&bytes);
    }

    #[test]
    fn damaged_certificates_never_panic(position: prop::sample::Index, value: u8, cut: prop::sample::Index) {
        thread_local! {
            static CERTIFICATE: Vec<u8> = issue(&authority(KeyAlgorithm::EcdsaP256), &user(), TimeDelta::hours(1)).der().to_vec();
        }
        let mut der = CERTIFICATE.with(Clone::clone);
        let position = position.index(der.len());
        der[position] = value;
        if let Ok(certificate) = Certificate::from_der(&der) {
            let _ = Identity::from_certificate(&certificate);
            let _ = certificate.public_key();
            let _ = certificate.verify_issued_by(std::slice::from_ref(&certificate), now());
        }
        der.truncate(cut.index(der.len()));
        let _ = Certificate::from_der(&der);
    }
}

#[test]
fn a_request_is_read_by_openssl_and_back() {
    for algorithm in ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        let mut subject = DistinguishedName::new();
        subject.push(oid::ORGANIZATION, "root.example.com");
        subject.push(oid::COMMON_NAME, "db.example.com");
        let text = CertificateRequest::make(&subject, &key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("csr.pem");
        fs::write(&file, &text).unwrap();
        let said = openssl(&["req", "-verify", "-noout", "-subject", "-in", file.to_str().unwrap()]);
        assert!(said.contains("db.example.com") && said.contains("root.example.com"), "{said}");
        let read = CertificateRequest::from_pem(&text).unwrap();
        assert_eq!(read.subject.first(oid::COMMON_NAME), Some("db.example.com"));
        assert_eq!(read.public_key.to_spki_der(), key.public().to_spki_der());
    }
}

#[test]
fn a_request_of_openssl_is_read_with_its_attributes() {
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = (folder.path().join("key"), folder.path().join("csr.pem"));
    let (key, file) = (key.to_str().unwrap(), file.to_str().unwrap());
    let new = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=db", "-addext", "subjectAltName=DNS:x"];
    openssl(&[&new[..], &["-keyout", key, "-out", file]].concat());
    let read = CertificateRequest::from_pem(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(read.subject.first(oid::COMMON_NAME), Some("db"));
    let ids: Vec<String> = read.extensions.iter().map(|extension| extension.id.to_string()).collect();
    assert_eq!(ids, ["2.5.29.17"]);
}

#[test]
fn a_smart_card_certificate_names_the_account_as_windows_reads_it() {
    let account = SmartCardAccount {
        principal_name: "Müller@corp.example".to_owned(),
        security_identifier: Some("S-1-5-21-1-2-3-500".to_owned()),
    };
    let key = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    let mut subject = DistinguishedName::new();
    subject.push(oid::COMMON_NAME, "Müller");
    let text = CertificateRequest::make_with(&subject, &account.to_request().unwrap(), &key).unwrap();
    let read = CertificateRequest::from_pem(&text).unwrap();
    assert_eq!(SmartCardAccount::from_request(&read.extensions).unwrap(), account);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("it.pem");
    fs::write(&file, &text).unwrap();
    openssl(&["req", "-verify", "-noout", "-in", file.to_str().unwrap()]);

    let mut template = LeafTemplate::new(subject, key.public().clone(), now(), now() + TimeDelta::minutes(5));
    template.extended_usages = SMART_CARD_USAGES.to_vec();
    template.extra_extensions = account.to_extensions().unwrap();
    fs::write(&file, to_pem(&authority(KeyAlgorithm::Rsa2048).issue(&template).unwrap())).unwrap();
    let said = openssl(&["x509", "-noout", "-text", "-in", file.to_str().unwrap()]);
    for expected in
        ["TLS Web Client Authentication, Microsoft Smartcard Login", "UPN", "ller@corp.example", "S-1-5-21-1-2-3-500"]
    {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn a_smart_card_request_is_for_one_account_and_for_nothing_else() {
    let name = |name: &str| SmartCardAccount { principal_name: name.to_owned(), security_identifier: None };
    let good = name("a@b").to_request().unwrap();
    assert_eq!(SmartCardAccount::from_request(&good).unwrap(), name("a@b"));
    let of = |template: LeafTemplate| -> Vec<ExtraExtension> {
        template.extensions().unwrap().into_iter().map(ExtraExtension::from_extension).collect()
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let mut server = LeafTemplate::new(DistinguishedName::new(), key.public().clone(), now(), now());
    server.extended_usages = [SMART_CARD_USAGES.as_slice(), &[ExtendedUsage::ServerAuth]].concat();
    server.extra_extensions = name("a@b").to_extensions().unwrap();
    let mut hosts = server.clone();
    hosts.extended_usages = SMART_CARD_USAGES.to_vec();
    hosts.alternative_names = AlternativeNames::from_hosts(["proxy.example.com"]);
    let mut other = hosts.clone();
    other.extra_extensions = Vec::new();
    for wrong in [
        Vec::new(),
        good[1..].to_vec(),
        good[..1].to_vec(),
        name("").to_request().unwrap(),
        of(server),
        of(hosts),
        of(other),
    ] {
        assert!(SmartCardAccount::from_request(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_request_with_the_key_of_another_is_refused() {
    let (mine, theirs) = (PrivateKey::generate(KeyAlgorithm::EcdsaP256), PrivateKey::generate(KeyAlgorithm::EcdsaP256));
    let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
    let mut subject = DistinguishedName::new();
    subject.push(oid::COMMON_NAME, "db");
    let text = CertificateRequest::make(&subject, &mine).unwrap();
    let mut der = crate::pem::blocks(&text).unwrap()[0].der.to_vec();
    let key = mine.public().raw().to_vec();
    let place = der.windows(key.len()).position(|window| window == key).unwrap();
    der[place..place + key.len()].copy_from_slice(theirs.public().raw());
    let said = CertificateRequest::from_der(&der).unwrap_err().to_string();
    assert!(said.contains("not signed with the key"), "{said}");
    for end in 0..der.len() {
        assert!(CertificateRequest::from_der(&der[..end]).is_err());
    }
}
