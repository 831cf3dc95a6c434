//! Certificates for desktops.

use std::time::Duration;

use pki::identity::Identity;
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::x509::{CertificateRequest, DistinguishedName, SMART_CARD_USAGES, SmartCardAccount, oid};
use resources::SystemRole;
use tonic::Code;
use wire::proto::WindowsDesktopCertRequest;

use super::databases::{authority, certificate};
use crate::server::testing::Cluster;

const AGENT: &str = "6d1f5a3e-0000-4000-8000-000000000002";
const CRL: &str = "ldap:///CN=main.test,CN=Teleport,CN=CDP?certificateRevocationList";

fn account() -> SmartCardAccount {
    SmartCardAccount {
        principal_name: "ann@corp.example".to_owned(),
        security_identifier: Some("S-1-5-21-1-2-3-500".to_owned()),
    }
}

fn request(account: Option<SmartCardAccount>) -> WindowsDesktopCertRequest {
    let mut subject = DistinguishedName::new();
    subject.push(oid::ORGANIZATION, "editor");
    subject.push(oid::COMMON_NAME, "ann");
    let extensions = account.map(|account| account.to_request().unwrap()).unwrap_or_default();
    let key = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    WindowsDesktopCertRequest {
        csr: CertificateRequest::make_with(&subject, &extensions, &key).unwrap().into_bytes(),
        crl_endpoint: CRL.to_owned(),
        ttl: i64::try_from(Duration::from_secs(300).as_nanos()).unwrap(),
    }
}

#[tokio::test]
async fn agents_of_desktops_get_certificates_for_accounts_of_windows() {
    let cluster = Cluster::start().await;
    let agent = cluster.service(SystemRole::WindowsDesktop, AGENT).await;
    for holder in [agent, cluster.admin().await] {
        let mut client = cluster.client(Some(&holder)).await;
        let answer = client.generate_windows_desktop_cert(request(Some(account()))).await.unwrap().into_inner();
        let signed = certificate(&answer.cert);
        let users = authority(&cluster, "user").await;
        assert!(signed.verify_issued_by(&[users], cluster.auth.now()).is_some());
        assert_eq!(signed.extended_usages(), Some(&SMART_CARD_USAGES[..]));
        for (id, expected) in [
            ("2.5.29.17", "ann@corp.example"),
            ("2.5.29.31", CRL),
            ("1.3.6.1.4.1.311.25.2", "S-1-5-21-1-2-3-500"),
            ("1.3.9999.2.14", "oss"),
            ("1.3.9999.2.17", "false"),
        ] {
            let value = signed.extension(id.parse().unwrap()).unwrap();
            assert!(String::from_utf8_lossy(value).contains(expected), "{id}: {value:?}");
        }
        assert_eq!(signed.not_after().timestamp(), cluster.auth.now().timestamp() + 300);
    }
}

/// The authority is that of users, and the agent's word decides whose name is in the certificate.
#[tokio::test]
async fn the_certificate_of_an_account_of_windows_makes_nobody_a_user_of_the_cluster() {
    let cluster = Cluster::start().await;
    let agent = cluster.service(SystemRole::WindowsDesktop, AGENT).await;
    let mut client = cluster.client(Some(&agent)).await;
    let answer = client.generate_windows_desktop_cert(request(Some(account()))).await.unwrap().into_inner();
    let signed = certificate(&answer.cert);
    let subject: Vec<_> = signed.subject().iter().collect();
    assert_eq!(subject, [(oid::COMMON_NAME, "ann")]);
    assert!(matches!(Identity::from_certificate(&signed), Err(pki::Error::MissingGroups)));
}

#[tokio::test]
async fn nobody_else_gets_them_and_requests_of_another_kind_are_refused() {
    let cluster = Cluster::start().await;
    let editor = cluster.user("olga", &["editor", "access"], &[]).await;
    for holder in [editor, cluster.service(SystemRole::Db, AGENT).await] {
        let mut client = cluster.client(Some(&holder)).await;
        let refused = client.generate_windows_desktop_cert(request(Some(account()))).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let good = || request(Some(account()));
    for (wrong, word) in [
        (request(None), "no purpose"),
        (WindowsDesktopCertRequest { ttl: 0, ..good() }, "TTL"),
        (WindowsDesktopCertRequest { ttl: i64::MAX, ..good() }, "TTL"),
        (WindowsDesktopCertRequest { crl_endpoint: "ldap:///CN=ü".to_owned(), ..good() }, "CRLEndpoint"),
        (WindowsDesktopCertRequest { csr: b"none".to_vec(), ..good() }, "request"),
    ] {
        let refused = admin.generate_windows_desktop_cert(wrong).await.unwrap_err();
        assert!(refused.message().contains(word), "{refused:?}");
    }
}
