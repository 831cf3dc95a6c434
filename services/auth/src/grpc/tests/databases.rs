//! Certificates for databases.

use std::time::Duration;

use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::x509::{Certificate, CertificateRequest, DistinguishedName, ExtendedUsage, oid};
use resources::SystemRole;
use serde_json::json;
use tonic::Code;
use wire::proto::DatabaseCertRequest;
use wire::proto::database_cert_request::{Extensions, Requester};

use crate::server::testing::Cluster;

const AGENT: &str = "6d1f5a3e-0000-4000-8000-000000000001";

fn request(requester: Requester, names: &[&str]) -> DatabaseCertRequest {
    let mut subject = DistinguishedName::new();
    subject.push(oid::COMMON_NAME, "db.example.com");
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    DatabaseCertRequest {
        csr: CertificateRequest::make(&subject, &key).unwrap().into_bytes(),
        server_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ttl: i64::try_from(Duration::from_secs(3600).as_nanos()).unwrap(),
        requester_name: requester as i32,
        ..Default::default()
    }
}

pub(super) async fn authority(cluster: &Cluster, of: &str) -> Certificate {
    let ca = cluster.auth.get_cert_authority(of, cluster.auth.cluster_name(), false).await.unwrap();
    Certificate::from_pem(&String::from_utf8_lossy(&ca.spec.unwrap().active_keys.unwrap().tls[0].cert)).unwrap()
}

pub(super) fn certificate(pem: &[u8]) -> Certificate {
    Certificate::from_pem(std::str::from_utf8(pem).unwrap()).unwrap()
}

#[tokio::test]
async fn servers_and_clients_of_databases_are_signed_by_authorities_of_their_own() {
    let cluster = Cluster::start().await;
    let (servers, clients) = (authority(&cluster, "db").await, authority(&cluster, "db_client").await);
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let answer = admin.generate_database_cert(request(Requester::Tctl, &["db.example.com", "10.1.2.3"])).await;
    let answer = answer.unwrap().into_inner();
    let signed = certificate(&answer.cert);
    assert!(signed.verify_issued_by(std::slice::from_ref(&servers), cluster.auth.now()).is_some());
    assert_eq!(signed.extended_usages(), Some(&[ExtendedUsage::ServerAuth][..]));
    assert_eq!(signed.dns_names().collect::<Vec<_>>(), ["db.example.com"]);
    assert_eq!(signed.ip_addresses().count(), 1);
    assert_eq!(certificate(&answer.ca_certs[0]).der(), clients.der());

    let agent = cluster.service(SystemRole::Db, AGENT).await;
    let mut agent = cluster.client(Some(&agent)).await;
    let answer = agent.generate_database_cert(request(Requester::Unspecified, &[])).await.unwrap().into_inner();
    let signed = certificate(&answer.cert);
    assert!(signed.verify_issued_by(&[clients], cluster.auth.now()).is_some());
    assert_eq!(signed.extended_usages(), Some(&[ExtendedUsage::ClientAuth][..]));
    assert_eq!(certificate(&answer.ca_certs[0]).der(), servers.der());
    let refused = agent.generate_database_cert(request(Requester::Tctl, &["db"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn people_get_certificates_for_servers_only_and_only_by_their_roles() {
    let cluster = Cluster::start().await;
    let role = |name: &str, allow: serde_json::Value| json!({"kind": "role", "version": "v7", "metadata": {"name": name}, "spec": {"allow": allow}});
    let rules = json!({"rules": [{"resources": ["database_certificate"], "verbs": ["create"]}]});
    cluster.add_role(role("by-verb", rules)).await;
    cluster.add_role(role("by-agent", json!({"impersonate": {"users": ["Db"], "roles": ["Db"]}}))).await;
    for (name, roles, allowed) in
        [("ann", "by-verb", true), ("bob", "by-agent", true), ("carl", "access", false), ("dora", "auditor", false)]
    {
        let holder = cluster.user(name, &[roles], &[]).await;
        let mut client = cluster.client(Some(&holder)).await;
        let server = client.generate_database_cert(request(Requester::Tctl, &["db"])).await;
        assert_eq!(server.is_ok(), allowed, "{name}: {server:?}");
        let login = client.generate_database_cert(request(Requester::Unspecified, &[])).await.unwrap_err();
        assert_eq!(login.code(), Code::PermissionDenied, "{name}");
    }
    let mut node = cluster.client(Some(&cluster.service(SystemRole::Node, AGENT).await)).await;
    let refused = node.generate_database_cert(request(Requester::Unspecified, &[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn malformed_requests_are_named() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let good = || request(Requester::Tctl, &["db"]);
    let cases = [
        (DatabaseCertRequest { csr: b"none".to_vec(), ..good() }, "request"),
        (DatabaseCertRequest { ttl: -1, ..good() }, "TTL"),
        (DatabaseCertRequest { ttl: 0, ..good() }, "TTL"),
        (DatabaseCertRequest { ttl: i64::MAX, ..good() }, "TTL"),
        (DatabaseCertRequest { server_names: vec!["a b".to_owned()], ..good() }, "server names"),
        (DatabaseCertRequest { certificate_extensions: Extensions::WindowsSmartcard as i32, ..good() }, "smart-card"),
        (DatabaseCertRequest { requester_name: 7, ..good() }, "RequesterName"),
    ];
    for (wrong, word) in cases {
        let refused = admin.generate_database_cert(wrong).await.unwrap_err();
        assert!(refused.message().contains(word), "{refused:?}");
    }
}
