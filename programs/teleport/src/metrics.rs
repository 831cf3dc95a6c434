//! The metrics service: metrics, and nothing else, on a port of their own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use config::Metrics;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use pki::keys::PrivateKey;
use pki::tls::{ClientAuth, TrustedAuthorities, server_config};
use pki::x509::Certificate;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::error::{Failure, Result};
use crate::proxy;

/// How many clients are served at a time; monitoring is a handful.
const MAX_CLIENTS: usize = 64;
/// How long one connection may last.
const LIMIT: Duration = Duration::from_secs(3600);
/// How long a client may take to send its request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Opens the port and serves it for as long as the process runs; says where it listens.
pub async fn serve(service: &Metrics, router: Router) -> Result<SocketAddr> {
    let tls = tls(service).map_err(|e| Failure(format!("metrics_service: {e}")))?;
    let address = proxy::socket(&service.listen_addr)?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| Failure(format!("metrics_service: listening on {address}: {e}")))?;
    let address = listener.local_addr()?;
    tokio::spawn(accept(listener, tls, router));
    Ok(address)
}

async fn accept(listener: TcpListener, tls: Option<Arc<ServerConfig>>, router: Router) {
    let clients = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "the metrics service cannot accept a connection");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Whoever comes when all places are taken is told at once, by the end of the connection.
        let Ok(place) = clients.clone().try_acquire_owned() else { continue };
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            let _place = place;
            if timeout(LIMIT, answer(stream, tls, router)).await.is_err() {
                debug!("a client of the metrics service stayed too long");
            }
        });
    }
}

async fn answer(stream: TcpStream, tls: Option<Arc<ServerConfig>>, router: Router) {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let served = match tls {
        None => builder.serve_connection(TokioIo::new(stream), service).await,
        Some(config) => match mux::tls::accept(stream, config).await {
            Ok(accepted) => builder.serve_connection(TokioIo::new(accepted.stream), service).await,
            Err(error) => return debug!(%error, "a client of the metrics service was refused"),
        },
    };
    if let Err(error) = served {
        debug!(%error, "a connection to the metrics service ended");
    }
}

/// The port's certificate and whose certificates clients need; nothing for plain HTTP.
fn tls(service: &Metrics) -> Result<Option<Arc<ServerConfig>>> {
    let pair = match service.keypairs.as_slice() {
        [] if service.ca_certs.is_empty() => return Ok(None),
        [] => return Err(Failure("ca_certs needs keypairs".into())),
        [pair] => pair,
        [_, _, ..] => return Err(Failure("keypairs: one certificate is enough for this port".into())),
    };
    let chain = Certificate::bundle_from_pem(&read(&pair.cert_file)?).map_err(|e| unusable(&pair.cert_file, &e))?;
    let key = PrivateKey::from_pem(&read(&pair.key_file)?).map_err(|e| unusable(&pair.key_file, &e))?;
    let mut authorities = Vec::new();
    for path in &service.ca_certs {
        authorities.extend(Certificate::bundle_from_pem(&read(path)?).map_err(|e| unusable(path, &e))?);
    }
    let clients = match authorities.is_empty() {
        true => ClientAuth::None,
        false => ClientAuth::Required(Arc::new(TrustedAuthorities::new(&authorities)?)),
    };
    Ok(Some(Arc::new(server_config(&chain, &key, &["http/1.1"], clients)?)))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Failure(format!("reading {}: {e}", path.display())))
}

fn unusable(path: &Path, error: &pki::Error) -> Failure {
    Failure(format!("{}: {error}", path.display()))
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
