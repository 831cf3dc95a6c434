//! Writes the files of the corpus that are not texts: `cargo run -p fuzz --example corpus`.
//!
//! Texts in the corpus are written by hand; these are made by the product itself, and again when formats grow.

#![allow(clippy::unwrap_used, clippy::panic)] // a tool of the developers: it stops where something is wrong

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use audit::{EventExt, codes};
use chrono::{DateTime, TimeDelta, Utc};
use mux::proxy_protocol::{Addresses, Header};
use mux::upgrade::{Content, Form, Side, Upgraded};
use pki::identity::Identity;
use pki::keys::PrivateKey;
use pki::ssh_cert::{self, CertificateFormat, HostCertificateParams, Permits, SshIssuer, UserCertificateParams};
use pki::x509::{self, AlternativeNames, CaCertificate, Issuer, LeafTemplate};
use prost::Message;
use recording::PartWriter;
use resume::engine::{CLOSED, put_number};
use resume::exchange::{Key, identification};
use tokio::io::AsyncWriteExt;
use wire::events::{OneOf, Resize, SessionEnd, SessionPrint, SessionStart};

fn write(target: &str, name: &str, data: impl AsRef<[u8]>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), data).unwrap();
}

fn main() {
    let now = DateTime::from_timestamp(1_795_000_000, 0).unwrap();
    certificates(now);
    recordings();
    connections();
}

fn identity(now: DateTime<Utc>) -> Identity {
    let texts = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
    Identity {
        username: "alice@example.com".into(),
        groups: texts(&["access", "editor"]),
        principals: texts(&["root", "-teleport-internal-join"]),
        kubernetes_groups: texts(&["system:masters"]),
        route_to_cluster: "main.test".into(),
        teleport_cluster: "main.test".into(),
        traits: Some([("logins".to_owned(), texts(&["root"])), ("empty".to_owned(), vec![])].into()),
        mfa_verified: "5e3ab53c-4bd9-4bd3-8d9c-9ac2a2d1c6f0".into(),
        previous_identity_expires: Some(now),
        login_ip: "192.0.2.1".into(),
        pinned_ip: "2001:db8::1".into(),
        active_requests: texts(&["11111111-1111-1111-1111-111111111111"]),
        renewable: true,
        generation: 7,
        bot_name: "robot".into(),
        allowed_resource_ids: texts(&["/main.test/node/a"]),
        ..Identity::default()
    }
}

fn certificates(now: DateTime<Utc>) {
    let key = PrivateKey::from_pem(&fuzz::key_pem()).unwrap();
    let ca = CaCertificate::self_signed("main.test", &key, now).unwrap();
    let issuer = Issuer::new(ca.clone(), key.clone()).unwrap();
    let identity = identity(now);
    let small = Identity { username: "bob".into(), groups: vec!["access".into()], ..Identity::default() };
    for (name, identity) in [("full", &identity), ("small", &small)] {
        let subject = identity.to_subject().unwrap();
        write("subject", name, subject.to_der().unwrap());
        let template = LeafTemplate::new(subject, key.public().clone(), now, now + TimeDelta::hours(8));
        let der = issuer.issue(&template).unwrap();
        write("certificate", name, &der);
        write("credentials", &format!("{name}.pem"), x509::to_pem(&der));
    }
    let mut host = LeafTemplate::new(small.to_subject().unwrap(), key.public().clone(), now, now + TimeDelta::days(1));
    host.alternative_names = AlternativeNames::from_hosts(["node.main.test".to_owned(), "127.0.0.1".to_owned()]);
    write("certificate", "host", issuer.issue(&host).unwrap());
    write("certificate", "authority", ca.certificate().der());

    let issuer = SshIssuer::new(key.clone());
    let user = issuer.issue_user(&UserCertificateParams {
        identity: &identity,
        public_key: key.public(),
        now,
        not_after: Some(now + TimeDelta::hours(8)),
        permits: Permits { port_forwarding: true, agent_forwarding: true, x11_forwarding: false },
        format: CertificateFormat::Standard,
        extensions: &[],
    });
    write("credentials", "user-cert.pub", ssh_cert::to_line(&user.unwrap()).unwrap());
    let host = issuer.issue_host(&HostCertificateParams {
        public_key: key.public(),
        host_id: "6b3a8f2c-5f8d-4d27-9f2e-0d6c2f6c8a11",
        node_name: "node",
        cluster: "main.test",
        role: "Node",
        additional_principals: &["127.0.0.1".to_owned()],
        now,
        not_after: None,
    });
    write("credentials", "host-cert.pub", ssh_cert::to_line(&host.unwrap()).unwrap());
    let known = pki::known_hosts::host_authority_line(Some("proxy.main.test"), "main.test", key.public());
    write("credentials", "known_hosts", known);
}

fn recordings() {
    let print = |delay: i64, data: &[u8]| SessionPrint {
        data: data.to_vec(),
        delay_milliseconds: delay,
        ..SessionPrint::default()
    };
    let mut events: Vec<OneOf> = vec![
        codes::SESSION_START.event(SessionStart { terminal_size: "80:24".into(), ..SessionStart::default() }),
        codes::SESSION_PRINT.event(print(5, b"$ ls\r\n")),
        codes::RESIZE.event(Resize { terminal_size: "100:30".into(), ..Resize::default() }),
        codes::SESSION_PRINT.event(print(900, "\x1b[1mgrün\x1b[0m\r\n".as_bytes())),
        codes::SESSION_END.event(SessionEnd { interactive: true, ..SessionEnd::default() }),
    ];
    let mut whole = PartWriter::new();
    let mut records = Vec::new();
    for (index, event) in (0..).zip(&mut events) {
        audit::event::prepare(event, "main.test", DateTime::from_timestamp(1_795_000_000 + index, 0).unwrap()).unwrap();
        event.metadata_mut().unwrap().index = index;
        whole.push(event).unwrap();
        let message = event.encode_to_vec();
        records.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        records.extend_from_slice(&message);
        write("audit_line", &format!("{}-{index}.json", event.name()), audit::json::to_json_line(event).unwrap());
    }
    let part = whole.take(0).unwrap();
    whole.push(&events[4]).unwrap();
    let padded = whole.take(1024).unwrap();
    write("recording", "one-part", &part);
    write("recording", "padded-and-more", [padded, part].concat());
    write("recording_events", "session", records);
}

fn connections() {
    for (name, server, alpn) in [
        ("web", "proxy.main.test", &["h2", "http/1.1"][..]),
        ("tunnel", "proxy.main.test", &["teleport-reversetunnelv2", "teleport-reversetunnel"][..]),
        (
            "auth",
            "6d61696e2e74657374.teleport.cluster.local",
            &["teleport-auth@6d61696e2e74657374.teleport.cluster.local"][..],
        ),
    ] {
        let hello = hello(server, alpn);
        write("client_hello", name, &hello);
        write("detect", name, &hello);
        for name in alpn {
            write("alpn", &name.replace('/', "_"), name);
        }
        write("alpn", server, server);
    }
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let tls = hello("proxy.main.test", &["h2"]);
    for (name, source, destination) in
        [("v4", "192.0.2.7:5", "192.0.2.1:443"), ("v6", "[2001:db8::7]:5", "[2001:db8::1]:443")]
    {
        let addresses = Addresses::new(address(source), address(destination)).unwrap();
        let unsigned = Header::unsigned(&addresses);
        let signed = Header::signed(&addresses, b"certificate", "header.claims.signature").unwrap();
        for (kind, header) in [("unsigned", unsigned), ("signed", signed)] {
            write("proxy_header", &format!("v2-{kind}-{name}"), &header);
            write("detect", &format!("v2-{kind}-{name}"), [header, tls.clone()].concat());
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // The first byte chooses the framing in the target.
    for (choice, form, side) in [
        (0, Form::WebSocket(Content::Alpn), Side::Client),
        (2, Form::WebSocket(Content::Alpn), Side::Server),
        (3, Form::Legacy(Content::AlpnPing), Side::Client),
    ] {
        let bytes = runtime.block_on(async {
            let mut stream = Upgraded::new(form, side, tokio::io::join(tokio::io::empty(), vec![choice]));
            stream.write_all(b"hello").await.unwrap();
            stream.write_all(&[b'x'; 300]).await.unwrap();
            stream.shutdown().await.unwrap();
            match stream {
                Upgraded::WebSocket(inner) => inner.get_ref().writer().clone(),
                Upgraded::Ping(inner) => inner.get_ref().writer().clone(),
                Upgraded::Raw(inner) => inner.writer().clone(),
            }
        });
        write("framing", &format!("frames-{choice}"), bytes);
    }
    let frames = |first: u8, numbers: &[u64], data: &[u8]| {
        let mut bytes = vec![first];
        numbers.iter().for_each(|number| put_number(&mut bytes, *number));
        bytes.extend_from_slice(data);
        bytes
    };
    write("resumption", "new", frames(254, &[29, 5], b"hello"));
    write("resumption", "again", frames(255, &[4, 25, 5], b"hello"));
    write("resumption", "closed", frames(2, &[0, 0, CLOSED], b""));
    write("resumption", "lost", frames(1, &[30], b""));
    let key = Key::generate().unwrap();
    write("resumption", "line", identification("SSH-2.0-Teleport", &key, "6e8fe1d5-4b0c") + "\r\n");
}

fn hello(server: &str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = rustls::pki_types::ServerName::try_from(server.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}
