//! Health, readiness and metrics over HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::json;
use ssh_service::PerKind;
use tokio::net::TcpListener;

use crate::error::{Failure, Result};
use crate::usage::Usage;

/// How a part of the process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It works.
    Ok,
    /// It has not joined the cluster yet.
    Starting,
    /// It has lost the cluster.
    Degraded,
}

/// The state of the process by part. Clones share it.
#[derive(Clone)]
pub struct Status {
    parts: Arc<Mutex<BTreeMap<&'static str, Health>>>,
    registry: Arc<Mutex<Registry>>,
    process_state: Gauge,
    tunnels: Gauge,
    /// Programs, files and connections of sessions that enhanced recording has lost.
    lost: [Gauge; 3],
}

impl Status {
    /// Nothing has started.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let (process_state, tunnels) = (Gauge::default(), Gauge::default());
        process_state.set(3);
        registry.register(
            "process_state",
            "State of the process: 0 ok, 1 recovering, 2 degraded, 3 starting",
            process_state.clone(),
        );
        registry.register("teleport_reverse_tunnels_connected", "Reverse tunnels that end here", tunnels.clone());
        let lost = ["command", "disk", "network"].map(|kind| {
            let lost = Gauge::default();
            let help = format!("Events of the kind {kind} that enhanced recording has lost");
            registry.register(format!("bpf_lost_{kind}_events"), help, lost.clone());
            lost
        });
        registry.register_collector(Box::new(Usage::new()));
        Self { parts: Arc::default(), registry: Arc::new(Mutex::new(registry)), process_state, tunnels, lost }
    }

    /// Adds what a service counts to the metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Reports how a part is doing.
    pub fn report(&self, part: &'static str, health: Health) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(part, health);
        let worst = parts.values().max().copied().unwrap_or(Health::Starting);
        self.process_state.set(match worst {
            Health::Ok => 0,
            Health::Degraded => 2,
            Health::Starting => 3,
        });
    }

    /// Reports how many agents are connected.
    pub fn report_tunnels(&self, count: usize) {
        self.tunnels.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Reports how many events of sessions enhanced recording has lost.
    pub fn report_lost(&self, count: PerKind<u64>) {
        for (gauge, count) in self.lost.iter().zip([count.command, count.disk, count.network]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn worst(&self) -> Health {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.values().max().copied().unwrap_or(Health::Starting)
    }
}

/// Opens the diagnostic port and serves it for as long as the process runs. Metrics are here unless they have a port of
/// their own.
pub async fn serve(address: SocketAddr, status: Status, with_metrics: bool) -> Result<()> {
    let listener =
        TcpListener::bind(address).await.map_err(|e| Failure(format!("diagnostics: listening on {address}: {e}")))?;
    let mut router = Router::new()
        .route("/healthz", get(|| async { answer(StatusCode::OK, "ok") }))
        .route("/readyz", get(ready))
        .with_state(status.clone());
    if with_metrics {
        router = router.merge(metrics_router(status));
    }
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "diagnostics ended");
        }
    });
    Ok(())
}

/// What serves metrics.
pub fn metrics_router(status: Status) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(status)
}

async fn ready(State(status): State<Status>) -> Response {
    match status.worst() {
        Health::Ok => answer(StatusCode::OK, "ok"),
        Health::Starting => answer(StatusCode::BAD_REQUEST, "teleport is starting and hasn't joined the cluster yet"),
        Health::Degraded => {
            answer(StatusCode::SERVICE_UNAVAILABLE, "teleport is in a degraded state, check logs for details")
        }
    }
}

async fn metrics(State(status): State<Status>) -> Response {
    let mut text = String::new();
    let encoded = encode(&mut text, &status.registry.lock().unwrap_or_else(PoisonError::into_inner));
    match encoded {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn answer(code: StatusCode, status: &str) -> Response {
    (code, axum::Json(json!({"status": status}))).into_response()
}
