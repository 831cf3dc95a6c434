//! Whom the port lets in.

use std::time::Duration;

use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::x509::{CaCertificate, Issuer, LeafTemplate};
use resources::SystemRole;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Request};
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::{CreateAuthenticateChallengeRequest, PingRequest};
use wire::types::{LockSpecV2, LockTarget, LockV2, Metadata};

use crate::server::testing::{CLUSTER, Cluster, Holder};
use crate::server::{BoundServer, ServerConfig};

#[tokio::test]
async fn noise_and_plain_http_end_the_connection_and_nothing_else() {
    let cluster = Cluster::start().await;
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"SSH-2.0-x\r\n\r\n",
        &[0; 64],
        b"PROXY TCP4 x\r\n0123456789",
        &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3],
    ] {
        let mut stream = cluster.dial();
        stream.write_all(noise).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP"), "{noise:?}");
    }
    cluster.client(None).await.ping(PingRequest {}).await.unwrap();
}

#[tokio::test]
async fn whoever_names_others_in_a_header_that_nobody_configured_counts_as_who_they_are() {
    let cluster = Cluster::start().await;
    let mut refused = 0;
    for number in 0..60 {
        let mut stream = cluster.dial();
        stream.write_all(format!("PROXY TCP4 198.51.100.{number} 192.0.2.1 4000 3025\r\n").as_bytes()).await.unwrap();
        let stream = cluster.handshake(stream, None, "h2").await.unwrap();
        let mut client = AuthServiceClient::new(Cluster::channel_over(stream).await);
        let request = CreateAuthenticateChallengeRequest::default();
        let answer = client.create_authenticate_challenge(request).await.unwrap_err();
        refused += usize::from(answer.message().contains("too many attempts"));
    }
    assert!(refused >= 10, "{refused}");
}

#[tokio::test]
async fn a_stranger_learns_the_cluster_and_its_authorities_and_nothing_more() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client(None).await;
    let ping = client.ping(PingRequest {}).await.unwrap();
    assert_eq!(ping.metadata().get("version").unwrap(), wire::VERSION);
    let ping = ping.into_inner();
    assert_eq!((ping.cluster_name.as_str(), ping.server_version.as_str()), (CLUSTER, wire::VERSION));
    assert_eq!(ping.remote_addr, "192.0.2.7:41000");
    assert!(ping.server_features.unwrap().entitlements["App"].enabled);
    assert_eq!(client.get_domain_name(()).await.unwrap().into_inner().domain_name, CLUSTER);
    let ca = client.get_cluster_ca_cert(()).await.unwrap().into_inner().tlsca;
    assert!(ca.starts_with(b"-----BEGIN CERTIFICATE-----"));
    assert_eq!(client.get_roles(()).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn certificates_of_other_authorities_and_expired_ones_fail_the_handshake() {
    let cluster = Cluster::start().await;
    let now = chrono::Utc::now();
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let ca_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let ca = CaCertificate::self_signed(CLUSTER, &ca_key, now).unwrap();
    let identity = pki::identity::Identity {
        username: "mallory".to_owned(),
        groups: vec!["Admin".to_owned()],
        teleport_cluster: CLUSTER.to_owned(),
        ..Default::default()
    };
    let template =
        LeafTemplate::new(identity.to_subject().unwrap(), key.public().clone(), now, now + chrono::TimeDelta::hours(1));
    let forged = Issuer::new(ca, ca_key).unwrap().issue(&template).unwrap();
    let forged = Holder { key, certificate: pki::x509::Certificate::from_der(&forged).unwrap() };
    assert!(answers(&cluster, &forged).await.is_err());

    cluster.add_user("alice", &["access"], &[]).await;
    let expired = certificate_for(&cluster, "alice", -chrono::TimeDelta::hours(1)).await;
    let error = answers(&cluster, &expired).await.unwrap_err();
    assert!(error.contains("expired") || error.contains("Expired"), "{error}");
}

/// Whether a request of a holder is answered. With TLS 1.3 a refusal arrives after the client's part of the handshake.
async fn answers(cluster: &Cluster, holder: &Holder) -> Result<(), String> {
    let mut stream = cluster.tls(Some(holder), "http/1.1").await.map_err(|error| error.to_string())?;
    stream.write_all(b"GET /v2/configuration/name HTTP/1.1\r\nhost: x\r\n\r\n").await.map_err(|e| e.to_string())?;
    let mut answer = [0; 64];
    match stream.read(&mut answer).await {
        Ok(0) => Err("closed".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// A certificate of the real authority that ends so long from now.
async fn certificate_for(cluster: &Cluster, user: &str, life: chrono::TimeDelta) -> Holder {
    let authority = cluster.auth.get_cert_authority("user", CLUSTER, true).await.unwrap();
    let pair = &authority.spec.unwrap().active_keys.unwrap().tls[0];
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let ca = CaCertificate::from_pem(&text(&pair.cert)).unwrap();
    let issuer = Issuer::new(ca, PrivateKey::from_pem(&text(&pair.key)).unwrap()).unwrap();
    let identity = pki::identity::Identity {
        username: user.to_owned(),
        groups: vec!["access".to_owned()],
        teleport_cluster: CLUSTER.to_owned(),
        ..Default::default()
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let now = chrono::Utc::now();
    let mut template = LeafTemplate::new(identity.to_subject().unwrap(), key.public().clone(), now, now + life);
    template.not_before = now - chrono::TimeDelta::hours(2);
    let der = issuer.issue(&template).unwrap();
    Holder { key, certificate: pki::x509::Certificate::from_der(&der).unwrap() }
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate_when_the_cluster_says_so() {
    let cluster = Cluster::start().await;
    cluster.add_user("alice", &["access"], &[]).await;
    let mut preference = (*cluster.auth.auth_preference().unwrap()).clone();
    preference.spec.as_mut().unwrap().disconnect_expired_cert = Some(wire::types::BoolValue { value: true });
    let write = crate::Write::Upsert;
    cluster.auth.set_auth_preference(&cluster.admin_caller(), preference, write).await.unwrap();
    let alice = certificate_for(&cluster, "alice", chrono::TimeDelta::seconds(3)).await;
    let mut stream = cluster.tls(Some(&alice), "http/1.1").await.unwrap();
    let mut lasting = cluster.tls(None, "http/1.1").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut [0; 16])).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    lasting.write_all(b"GET /v2/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    lasting.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 404"));
}

#[tokio::test]
async fn a_bound_server_serves_on_its_sockets_until_the_core_closes() {
    let cluster = Cluster::start().await;
    let config = ServerConfig { addresses: vec!["127.0.0.1:0".parse().unwrap()], ..Default::default() };
    let bound = BoundServer::bind(cluster.auth.clone(), &config).unwrap();
    bound.server().announce_process(&[SystemRole::Auth]);
    let address = bound.addresses()[0];
    let running = tokio::spawn(bound.run());
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut stream = cluster.handshake(socket, None, "http/1.1").await.unwrap();
    stream.write_all(b"GET /v2/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 404"));
    cluster.auth.shutdown().await;
    tokio::time::timeout(Duration::from_secs(20), running).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn clients_that_are_too_old_are_refused_and_administrators_are_told() {
    let cluster = Cluster::start().await;
    let mut client = cluster.client(None).await;
    let with_version = |version: &'static str| {
        let mut request = Request::new(PingRequest {});
        request.metadata_mut().insert("version", version.parse().unwrap());
        request
    };
    client.ping(with_version("16.4.0")).await.unwrap();
    let error = client.ping(with_version("14.0.0")).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::PermissionDenied, "client version is unsupported"));
    let mut admin = cluster.client(Some(&cluster.admin().await)).await;
    let query = wire::types::GetClusterAlertsRequest { with_untargeted: true, ..Default::default() };
    let alerts = admin.get_cluster_alerts(query).await.unwrap().into_inner().alerts;
    assert_eq!(alerts[0].header.as_ref().unwrap().metadata.as_ref().unwrap().name, "rejected-unsupported-connection");
}

#[tokio::test]
async fn a_lock_shuts_out_at_once_with_its_message_and_lets_in_again() {
    let cluster = Cluster::start().await;
    let alice = cluster.user("alice", &["access"], &[]).await;
    let mut client = cluster.client(Some(&alice)).await;
    client.list_unified_resources(wire::proto::ListUnifiedResourcesRequest::default()).await.unwrap();
    let lock = LockV2 {
        metadata: Some(Metadata { name: "l1".to_owned(), ..Default::default() }),
        spec: Some(LockSpecV2 {
            target: Some(LockTarget { user: "alice".to_owned(), ..Default::default() }),
            message: "come to my office".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    cluster.auth.upsert_lock(&cluster.admin_caller(), lock).await.unwrap();
    let error = client.list_unified_resources(wire::proto::ListUnifiedResourcesRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied);
    assert!(error.message().contains("come to my office"), "{error:?}");
    cluster.auth.delete_lock(&cluster.admin_caller(), "l1").await.unwrap();
    client.list_unified_resources(wire::proto::ListUnifiedResourcesRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_deleted_user_and_a_certificate_for_one_purpose_are_refused() {
    let cluster = Cluster::start().await;
    let alice = cluster.user("alice", &["access"], &[]).await;
    let mut client = cluster.client(Some(&alice)).await;
    cluster.auth.delete_user(&cluster.admin_caller(), "alice").await.unwrap();
    let error = client.get_cluster_alerts(wire::types::GetClusterAlertsRequest::default()).await.unwrap_err();
    assert!(error.message().starts_with("access denied"), "{error:?}");
}

#[tokio::test]
async fn the_http_api_answers_on_connections_without_a_protocol_name_and_knows_the_caller() {
    let cluster = Cluster::start().await;
    let node = cluster.service(SystemRole::Node, "6d1f5a3e-0000-4000-8000-000000000001").await;
    let mut stream = cluster.tls(Some(&node), "http/1.1").await.unwrap();
    stream
        .write_all(b"GET /v2/configuration/name HTTP/1.1\r\nhost: teleport.cluster.local\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(&format!("\"cluster_name\":\"{CLUSTER}\"")), "{answer}");
}
