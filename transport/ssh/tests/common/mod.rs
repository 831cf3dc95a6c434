//! A client and a server of this library, talking over memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Algorithm, Certificate, PrivateKey, PublicKey};
use russh::{client, server};

pub const CUSTOM: &str = "custom@example.com";

/// Fails a test that hangs instead of letting it hang.
pub async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("nothing happened for 20 s")
}

pub fn key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), algorithm).unwrap()
}

pub fn certificate(kind: CertType, subject: &PublicKey, ca: &PrivateKey, principal: &str) -> Certificate {
    let mut builder = Builder::new_with_random_nonce(&mut rand::rng(), subject, 0, u64::from(u32::MAX)).unwrap();
    builder.cert_type(kind).unwrap();
    builder.key_id("test").unwrap();
    builder.valid_principal(principal).unwrap();
    builder.sign(ca).unwrap()
}

pub fn server_config(host_key: PrivateKey) -> server::Config {
    server::Config {
        server_id: russh::SshId::Standard("SSH-2.0-Teleport".into()),
        keys: vec![host_key],
        auth_rejection_time: Duration::ZERO,
        ..server::Config::default()
    }
}

/// Connects the two and hands out both ends; neither is authenticated yet.
pub async fn connect<C, S>(
    client_config: client::Config,
    client: C,
    server_config: server::Config,
    server: S,
) -> Result<(client::Handle<C>, server::Handle), C::Error>
where
    C: client::Handler + Send + 'static,
    S: server::Handler + Send + 'static,
{
    let (near, far) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(async move {
        let session = server::run_stream(Arc::new(server_config), far, server).await;
        session.map(|session| session.handle()).ok()
    });
    let client = client::connect_stream(Arc::new(client_config), near, client).await?;
    Ok((client, serving.await.unwrap().expect("the server did not start")))
}
