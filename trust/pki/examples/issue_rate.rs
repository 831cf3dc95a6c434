use std::io::{Read, Write};
use std::sync::Arc;
use chrono::{TimeDelta, Utc};
use pki::identity::*; use pki::keys::*; use pki::x509::*; use pki::tls::*; use pki::ssh_cert::*;
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let now = Utc::now();
    let alg = match std::env::args().nth(2).as_deref() { Some("rsa") => KeyAlgorithm::Rsa2048, Some("ed") => KeyAlgorithm::Ed25519, _ => KeyAlgorithm::EcdsaP256 };
    let ca = PrivateKey::generate(alg).unwrap();
    let sshca = PrivateKey::generate(if alg == KeyAlgorithm::EcdsaP256 { KeyAlgorithm::Ed25519 } else { alg }).unwrap();
    let issuer = Issuer::new(CaCertificate::self_signed("root.example.com", &ca, now).unwrap(), ca).unwrap();
    let mk = |name: &str, role: &str, sans: &[&str], from, until| {
        let key = PrivateKey::generate(alg).unwrap();
        let id = Identity { username: name.into(), groups: vec![role.into(), "zz_x".into()], principals: certificate_logins(["root"]), traits: Some(Traits::from([("logins".to_string(), vec!["a<b".to_string()])])), teleport_cluster: "root.example.com".into(), route_to_cluster: "root.example.com".into(), private_key_policy: "none".into(), ..Default::default() };
        let mut t = LeafTemplate::new(id.to_subject().unwrap(), key.public().clone(), from, until);
        t.alternative_names = AlternativeNames::from_hosts(sans);
        (Certificate::from_der(&issuer.issue(&t).unwrap()).unwrap(), key, id)
    };
    let w = |n: &str, s: &str| std::fs::write(format!("{dir}/{n}"), s).unwrap();
    let host = mk("uuid.root.example.com", "Proxy", &["*.teleport.cluster.local", "teleport.cluster.local"], now, now + CA_LIFETIME);
    let user = mk("alice", "access", &[], now, now + TimeDelta::hours(12));
    let old = mk("alice", "access", &[], now - TimeDelta::hours(3), now - TimeDelta::hours(1));
    w("ca.pem", &issuer.ca().to_pem());
    for (n, x) in [("host", &host), ("user", &user), ("old", &old)] { w(&format!("{n}.crt"), &x.0.to_pem()); w(&format!("{n}.key"), &x.1.to_pem().unwrap()); }
    let si = SshIssuer::new(sshca.clone());
    let ssh = si.issue_user(&UserCertificateParams { identity: &user.2, public_key: user.1.public(), now, not_after: Some(now + TimeDelta::hours(12)), permits: Permits::default(), format: CertificateFormat::Standard, extensions: &[] }).unwrap();
    let idf = pki::identity_file::IdentityFile { private_key: user.1.clone(), ssh_certificate: Some(ssh), tls_certificate: Some(user.0.clone()), ssh_authorities: vec![pki::known_hosts::host_authority_line(Some("localhost"), "root.example.com", sshca.public())], tls_authorities: vec![issuer.ca().certificate().clone()] };
    idf.write(format!("{dir}/identity").as_ref()).unwrap();
    let ta = Arc::new(TrustedAuthorities::new([issuer.ca().certificate()]).unwrap());
    let cfg = Arc::new(server_config(&[host.0.clone()], &host.1, &["h2", "http/1.1"], ClientAuth::Required(ta)).unwrap());
    let l = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", l.local_addr().unwrap());
    for s in l.incoming() {
        let mut s = s.unwrap(); let cfg = cfg.clone();
        std::thread::spawn(move || {
            let mut c = rustls::ServerConnection::new(cfg).unwrap();
            let mut b = [0; 5];
            let r = rustls::Stream::new(&mut c, &mut s).read_exact(&mut b);
            eprintln!("server: {r:?} sni {:?} alpn {:?} who {:?}", c.server_name(), c.alpn_protocol().map(String::from_utf8_lossy), peer_identity(c.peer_certificates(), Utc::now()).map(|x| x.map(|x| x.1.username)));
            let _ = rustls::Stream::new(&mut c, &mut s).write_all(b"world");
            let _ = c.complete_io(&mut s);
        });
    }
}
