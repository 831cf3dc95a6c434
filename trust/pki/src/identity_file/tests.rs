#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::os::unix::fs::PermissionsExt as _;

use chrono::{TimeDelta, Utc};

use super::*;
use crate::ErrorKind;
use crate::identity::{Identity, certificate_logins};
use crate::keys::KeyAlgorithm;
use crate::known_hosts::host_authority_line;
use crate::ssh_cert::{CertificateFormat, Permits, SshIssuer, UserCertificateParams};
use crate::x509::{CaCertificate, Issuer, LeafTemplate};

fn sample(algorithm: KeyAlgorithm) -> IdentityFile {
    let (ca, key) = (PrivateKey::generate(algorithm).unwrap(), PrivateKey::generate(algorithm).unwrap());
    let now = Utc::now();
    let identity = Identity {
        username: "alice".to_owned(),
        groups: vec!["access".to_owned()],
        principals: certificate_logins(["root"]),
        ..Identity::default()
    };
    let issuer = Issuer::new(CaCertificate::self_signed("root", &ca, now).unwrap(), ca.clone()).unwrap();
    let expires = now + TimeDelta::hours(1);
    let template = LeafTemplate::new(identity.to_subject().unwrap(), key.public().clone(), now, expires);
    let params = UserCertificateParams {
        identity: &identity,
        public_key: key.public(),
        now,
        not_after: Some(expires),
        permits: Permits::default(),
        format: CertificateFormat::Standard,
        extensions: &[],
    };
    IdentityFile {
        ssh_certificate: Some(SshIssuer::new(ca.clone()).issue_user(&params).unwrap()),
        tls_certificate: Some(Certificate::from_der(&issuer.issue(&template).unwrap()).unwrap()),
        ssh_authorities: vec![host_authority_line(Some("p"), "root", ca.public()).trim().to_owned()],
        tls_authorities: vec![issuer.ca().certificate().clone()],
        private_key: key,
    }
}

#[test]
fn an_identity_file_survives_being_written_and_read() {
    for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
        let identity = sample(algorithm);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        fs::write(&path, "older").unwrap();
        identity.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let read = IdentityFile::read(&path).unwrap();
        assert_eq!(read.private_key.public(), identity.private_key.public());
        assert_eq!(read.ssh_certificate, identity.ssh_certificate);
        assert_eq!(read.tls_certificate, identity.tls_certificate);
        assert_eq!(read.ssh_authorities, identity.ssh_authorities);
        assert_eq!(read.tls_authorities, identity.tls_authorities);
        assert_eq!((read.cluster(), read.username()), (Some("root"), Some("alice")));
    }
}

#[test]
fn the_parts_come_in_the_documented_order() {
    let text = sample(KeyAlgorithm::Rsa2048).to_text().unwrap();
    let positions: Vec<usize> = [
        "-----BEGIN RSA PRIVATE KEY-----",
        "ssh-rsa-cert-v01@openssh.com ",
        "-----BEGIN CERTIFICATE-----",
        "@cert-authority p,root,*.root ssh-rsa ",
    ]
    .iter()
    .map(|part| text.find(part).unwrap_or_else(|| panic!("{part} not in {}", text.as_str())))
    .collect();
    assert!(positions.is_sorted(), "{positions:?}");
    assert!(text.rfind("-----BEGIN CERTIFICATE-----").unwrap() > positions[3]);
    assert!(text.ends_with("-----END CERTIFICATE-----\n"));
}

#[test]
fn a_certificate_beside_the_file_is_found() {
    let mut identity = sample(KeyAlgorithm::Ed25519);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    let certificate = identity.ssh_certificate.take();
    identity.write(&path).unwrap();
    assert!(IdentityFile::read(&path).unwrap().ssh_certificate.is_none());
    let line = ssh_cert::to_line(certificate.as_ref().unwrap()).unwrap();
    fs::write(folder.path().join("identity-cert.pub"), line).unwrap();
    assert_eq!(IdentityFile::read(&path).unwrap().ssh_certificate, certificate);
}

#[test]
fn broken_files_are_refused() {
    assert_eq!(IdentityFile::read(Path::new("/nonexistent")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(IdentityFile::parse("").is_err());
    let text = sample(KeyAlgorithm::Ed25519).to_text().unwrap();
    let cut = text.rfind("-----END").unwrap();
    assert!(IdentityFile::parse(&text[..cut]).is_err());
}

#[test]
fn only_names_of_ssh_certificates_start_a_certificate_line() {
    for name in ["ssh-rsa-cert-v01@openssh.com", "ecdsa-sha2-nistp256-cert-v01@openssh.com"] {
        assert!(is_ssh_certificate_type(name), "{name}");
    }
    for name in
        ["ssh-rsa", "-cert-v01@openssh.com", "SSH-cert-v01@openssh.com", "a-cert-v1@openssh.com", "a-cert-v01@x"]
    {
        assert!(!is_ssh_certificate_type(name), "{name}");
    }
}
