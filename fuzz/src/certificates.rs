//! Certificates, and the texts that carry them.

use std::collections::BTreeSet;

use chrono::DateTime;
use pki::identity::Identity;
use pki::identity_file::IdentityFile;
use pki::known_hosts::{self, Entry};
use pki::ssh_cert::{self, HostCertificate, UserCertificate};
use pki::x509::{Certificate, DistinguishedName, oid};

pub(crate) const VALUES: &[&str] = &[
    "{\"logins\":[\"root\"]}",
    "null",
    "2026-11-21T15:00:00Z",
    "127.0.0.1",
    "true",
    "[\"/cluster/node/uuid\"]",
    "-teleport-internal-join",
    "-teleport-nologin-",
];
pub(crate) const TEXTS: &[&str] = &[
    "-----BEGIN CERTIFICATE-----\n",
    "-----END CERTIFICATE-----\n",
    "-----BEGIN RSA PRIVATE KEY-----\n",
    "ssh-rsa-cert-v01@openssh.com ",
    "ssh-ed25519-cert-v01@openssh.com ",
    "@cert-authority ",
    "*.main.test ",
    " type=host",
    "AAAA",
];

/// The identity in the subject of a client's certificate.
pub fn subject(data: &[u8]) {
    let Ok(name) = DistinguishedName::from_der(data) else { return };
    for (attribute, value) in name.iter() {
        assert!(name.values(attribute).any(|v| v == value));
    }
    let Ok(identity) = Identity::from_subject(&name) else { return };
    let _ = identity.is_mfa_verified();
    let _ = identity.is_expired(DateTime::UNIX_EPOCH);
    // What was understood can be said again, and means the same; a value that was there twice is then there once.
    let Ok(written) = identity.to_subject() else { return };
    let again = Identity::from_subject(&written).expect("our own subject is read");
    assert_eq!((&again.username, again.expires), (&identity.username, identity.expires));
    let groups = |identity: &Identity| identity.groups.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(groups(&again), groups(&identity), "no role is gained or lost");
    let settled = Identity::from_subject(&again.to_subject().expect("what was written can be written")).ok();
    assert_eq!(settled, Some(again));
}

/// X.509 certificates, from handshakes and from PROXY headers.
pub fn certificate(data: &[u8]) {
    let Ok(certificate) = Certificate::from_der(data) else { return };
    assert_eq!(certificate.der(), data);
    let _ = (certificate.common_name(), certificate.issuer_common_name(), certificate.issuer_organization());
    let _ = (certificate.serial(), certificate.is_ca(), certificate.is_valid_at(DateTime::UNIX_EPOCH));
    let _ = (certificate.dns_names().count(), certificate.ip_addresses().count(), certificate.uris().count());
    let _ = (certificate.extended_usages(), certificate.extension(oid::COMMON_NAME), certificate.public_key());
    let _ = Identity::from_certificate(&certificate);
    let _ = pki::pin::pin(&certificate);
    let own = [certificate.clone()];
    let _ = certificate.verify_issued_by(&own, certificate.not_before());
    let again = Certificate::from_pem(&certificate.to_pem()).expect("our own PEM is read");
    assert_eq!(again.der(), data);
}

/// A private key that everybody may know (RFC 8410): identity files begin with one, and corpora should not hold any.
pub fn key_pem() -> String {
    let der = [b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".as_slice(), &[7; 32]].concat();
    pki::pem::encode("PRIVATE KEY", &der)
}

/// SSH certificates, PEM, identity files and known hosts.
pub fn credentials(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(certificate) = ssh_cert::from_line(text) {
        let line = ssh_cert::to_line(&certificate).expect("what was read can be written");
        let again = ssh_cert::from_line(&line).expect("our own line is read");
        assert_eq!(ssh_cert::to_line(&again).ok(), Some(line));
        let _ = UserCertificate::from_certificate(certificate.clone()).map(|c| c.public_key().is_ok());
        let _ = HostCertificate::from_certificate(certificate).map(|c| c.host_id().len());
    }
    if let Ok(blocks) = pki::pem::blocks(text) {
        for block in &blocks {
            let _ = Certificate::from_der(&block.der);
        }
    }
    if let Ok(file) = IdentityFile::parse(&format!("{}{text}", key_pem())) {
        let _ = (file.cluster(), file.username());
        let written = file.to_text().expect("what was read can be written");
        assert!(IdentityFile::parse(&written).is_ok(), "our own identity file is read");
    }
    for entry in Entry::parse_all(text) {
        let _ = (entry.proxy(), entry.cluster(), entry.matches("node.main.test"));
        assert!(Entry::parse(&entry.to_line()).is_ok(), "our own line is read: {:?}", entry.to_line());
    }
    let lines: Vec<String> = text.lines().take(3).map(str::to_owned).collect();
    let merged = known_hosts::merge(text, &lines);
    assert_eq!(known_hosts::merge(&merged, &lines), merged, "adding twice changes nothing");
    let _ = pki::identity::traits_from_text(text);
}
