//! Health, readiness and metrics over HTTP.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
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
    services: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl Status {
    /// Nothing has started.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let process_state = Gauge::default();
        process_state.set(3);
        registry.register(
            "process_state",
            "State of the process: 0 ok, 1 recovering, 2 degraded, 3 starting",
            process_state.clone(),
        );
        let services = Family::default();
        registry.register("teleport_services", "Services that run in this process", services.clone());
        registry.register_collector(Box::new(Usage::new()));
        Self { parts: Arc::default(), registry: Arc::new(Mutex::new(registry)), process_state, services }
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

    /// Reports that a service, by the name of its section in the configuration, has started.
    pub fn report_service(&self, name: &'static str) {
        self.services.get_or_create(&[("service_name", name)]).set(1);
    }

    /// Shows how many agents are connected.
    pub fn count_tunnels(&self, count: impl Fn() -> usize + Send + Sync + 'static) {
        let name = "teleport_reverse_tunnels_connected";
        let count = move || u64::try_from(count()).unwrap_or(u64::MAX);
        self.count(MetricType::Gauge, name, "Reverse tunnels that end here", count);
    }

    /// Shows how many programs, files and connections of sessions enhanced recording has lost.
    pub fn count_lost(&self, count: impl Fn() -> PerKind<u64> + Clone + Send + Sync + 'static) {
        type Part = fn(PerKind<u64>) -> u64;
        let parts: [(&str, Part); 3] =
            [("command", |lost| lost.command), ("disk", |lost| lost.disk), ("network", |lost| lost.network)];
        for (kind, part) in parts {
            let (name, count) = (format!("bpf_lost_{kind}_events"), count.clone());
            let help = format!("Events of the kind {kind} that enhanced recording has lost");
            self.count(MetricType::Counter, name, help, move || part(count()));
        }
    }

    fn count(
        &self,
        kind: MetricType,
        name: impl Into<String>,
        help: impl Into<String>,
        value: impl Fn() -> u64 + Send + Sync + 'static,
    ) {
        let counted = Counted { kind, name: name.into(), help: help.into(), value: Box::new(value) };
        self.register(|registry| registry.register_collector(Box::new(counted)));
    }

    fn worst(&self) -> Health {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.values().max().copied().unwrap_or(Health::Starting)
    }
}

/// A number that is looked up when metrics are read.
struct Counted {
    kind: MetricType,
    name: String,
    help: String,
    value: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metric = encoder.encode_descriptor(&self.name, &self.help, None, self.kind)?;
        ConstGauge::new((self.value)()).encode(metric)
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
        Ok(()) => {
            let content_type = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
            ([content_type], in_text_format(&text)).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// OpenMetrics as Prometheus's older text format, which every collector reads: there, a counter is described by its whole
/// name, with `_total`.
fn in_text_format(open_metrics: &str) -> String {
    let samples = open_metrics.lines().filter_map(|line| line.split(['{', ' ']).next());
    let samples: HashSet<&str> = samples.filter(|name| *name != "#").collect();
    let counters: HashSet<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        // Those that this process adds by themselves have the names of their values.
        .filter(|name| !samples.contains(name))
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest)) if counters.contains(name) => {
                text.extend(["# ", what, " ", name, "_total ", rest, "\n"]);
            }
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

fn answer(code: StatusCode, status: &str) -> Response {
    (code, axum::Json(json!({"status": status}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_their_whole_name() {
        let open_metrics = "# HELP logins Logins so far.\n# TYPE logins counter\nlogins_total{ok=\"no\"} 2\n\
                            # HELP open Open now.\n# TYPE open gauge\nopen 1\n\
                            # HELP events Events.\n# TYPE events counter\nevents 7\n# EOF\n";
        let expected = "# HELP logins_total Logins so far.\n# TYPE logins_total counter\nlogins_total{ok=\"no\"} 2\n\
                        # HELP open Open now.\n# TYPE open gauge\nopen 1\n\
                        # HELP events Events.\n# TYPE events counter\nevents 7\n";
        assert_eq!(in_text_format(open_metrics), expected);
    }
}
