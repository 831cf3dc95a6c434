//! What this service counts, under the names that dashboards know.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::registry::Registry;

use crate::server::Server;

/// Most versions that are told apart.
const MAX_VERSIONS: usize = 50;
/// What stands for all others.
const OTHER: &str = "other";

/// Values by one label.
type By<const N: usize> = Family<[(&'static str, String); N], Gauge>;

/// One label whose values are known here.
type OneName = [(&'static str, &'static str); 1];
/// Sizes by one label.
type Sizes = Family<OneName, Histogram, fn() -> Histogram>;

/// What the core counts. Clones share it.
///
/// Some known names of counters do not end as counters of the text format do: these are gauges that only grow.
#[derive(Clone)]
pub(crate) struct Metrics {
    generating: Gauge,
    generated: Gauge,
    generate_seconds: Histogram,
    user_certificates: By<1>,
    logins: Counter,
    failed_logins: Counter,
    requests: By<2>,
    events: Gauge,
    failed_events: Gauge,
    calls: Family<[(&'static str, String); 2], Counter>,
    heartbeats: Gauge,
    kept: Family<OneName, Gauge>,
    event_sizes: Histogram,
    events_by_kind: Sizes,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            generating: Gauge::default(),
            generated: Gauge::default(),
            // From 0.1 ms to 3 s.
            generate_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            user_certificates: By::default(),
            logins: Counter::default(),
            failed_logins: Counter::default(),
            requests: By::default(),
            events: Gauge::default(),
            failed_events: Gauge::default(),
            calls: Family::default(),
            heartbeats: Gauge::default(),
            kept: Family::default(),
            event_sizes: sizes(),
            events_by_kind: Family::new_with_constructor(sizes),
        }
    }
}

/// Bytes of the changes that are sent to followers: mostly below 2 kB.
fn sizes() -> Histogram {
    Histogram::new(linear_buckets(100.0, 100.0, 20))
}

/// Certificates that are being made; ends when dropped.
pub(crate) struct Generating {
    metrics: Metrics,
    since: Instant,
}

impl Drop for Generating {
    fn drop(&mut self) {
        self.metrics.generating.dec();
        self.metrics.generate_seconds.observe(self.since.elapsed().as_secs_f64());
    }
}

/// Something that an agent keeps alive over a stream of this service; ends when dropped.
pub(crate) struct Kept(Gauge);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// An agent opened a stream for its heartbeats.
    pub(crate) fn heartbeats(&self) {
        self.heartbeats.inc();
    }

    /// An agent keeps alive something of a kind.
    pub(crate) fn kept(&self, kind: &'static str) -> Kept {
        let gauge = self.kept.get_or_create(&[("type", kind)]).clone();
        gauge.inc();
        Kept(gauge)
    }

    /// A change of a kind goes to a follower, in so many bytes.
    pub(crate) fn told(&self, kind: &'static str, bytes: usize) {
        let bytes = bytes as f64;
        self.event_sizes.observe(bytes);
        self.events_by_kind.get_or_create(&[("resource", kind)]).observe(bytes);
    }

    /// Somebody asked for certificates.
    pub(crate) fn generating(&self) -> Generating {
        self.generating.inc();
        self.generated.inc();
        Generating { metrics: self.clone(), since: Instant::now() }
    }

    /// A user got certificates; `policy` says how the private key is protected, empty: not at all.
    pub(crate) fn user_certificate(&self, policy: &str) {
        let policy = if policy.is_empty() { "none" } else { policy };
        self.user_certificates.get_or_create(&[("private_key_policy", policy.to_owned())]).inc();
    }

    /// Somebody tried to log in.
    pub(crate) fn login(&self, succeeded: bool) {
        if succeeded {
            self.logins.inc()
        } else {
            self.failed_logins.inc()
        };
    }

    /// Somebody asked for more access: for so many roles, or for so many resources.
    pub(crate) fn access_request(&self, roles: usize, resources: usize) {
        // Ten and more are one value, as labels must not be without number.
        let count = |count: usize| count.min(10).to_string();
        self.requests.get_or_create(&[("roles", count(roles)), ("resources", count(resources))]).inc();
    }

    /// An event went to the audit log.
    pub(crate) fn event(&self, stored: bool) {
        self.events.inc();
        if !stored {
            self.failed_events.inc();
        }
    }

    /// A call began, of a path in the table of permissions.
    pub(crate) fn call(&self, path: &str) {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or(("", path));
        self.calls.get_or_create(&[("grpc_service", service.to_owned()), ("grpc_method", method.to_owned())]).inc();
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("auth_generate_requests", "Certificates being made", self.generating.clone());
        registry.register("auth_generate_requests_total", "Requests for certificates", self.generated.clone());
        registry.register("auth_generate_seconds", "How long certificates took", self.generate_seconds.clone());
        registry.register(
            "teleport_user_certificates_generated",
            "Certificates made for users",
            self.user_certificates.clone(),
        );
        registry.register("user_login", "Logins of users", self.logins.clone());
        registry.register("failed_login_attempts", "Logins that failed", self.failed_logins.clone());
        registry.register("teleport_access_requests_created", "Requests for more access", self.requests.clone());
        registry.register("teleport_audit_emit_events", "Events for the audit log", self.events.clone());
        registry.register("audit_failed_emit_events", "Events that were not stored", self.failed_events.clone());
        registry.register("grpc_server_started", "Calls that began", self.calls.clone());
        registry.register(
            "heartbeat_connections_received_total",
            "Streams that agents opened for their heartbeats",
            self.heartbeats.clone(),
        );
        let help = "What agents keep alive over streams of this service, by kind";
        registry.register("teleport_connected_resources", help, self.kept.clone());
        registry.register("watcher_event_sizes", "Bytes of changes sent to followers", self.event_sizes.clone());
        let help = "Bytes of changes sent to followers, by kind";
        registry.register("watcher_events", help, self.events_by_kind.clone());
    }
}

impl Server {
    /// Adds what this service counts to the metrics of a process.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.auth().0.metrics.register(registry);
        registry.register_collector(Box::new(Fleet(self.clone())));
    }
}

/// What is connected, counted when somebody asks.
struct Fleet(Server);

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fleet")
    }
}

impl Collector for Fleet {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let hellos = self.0.inventory().hellos();
        let mut versions = BTreeMap::<String, (u64, u64)>::new();
        for hello in hellos {
            // What others say becomes a label only when it is what it should be.
            let full = versions.len() >= MAX_VERSIONS && !versions.contains_key(&hello.version);
            let version = if full || !is_version(&hello.version) { OTHER.to_owned() } else { hello.version };
            let count = versions.entry(version).or_default();
            if hello.external_upgrader.is_empty() { count.0 += 1 } else { count.1 += 1 }
        }
        let instances = versions.values().map(|(by_hand, by_itself)| by_hand + by_itself).sum::<u64>();
        gauge(&mut encoder, "teleport_total_instances", "Instances that are connected", instances)?;
        let watchers = self.0.auth().store().watchers() as u64;
        gauge(&mut encoder, "backend_watchers_total", "Followers of changes", watchers)?;
        let help = "SSH servers that are listed although they have not been heard of when they should have been";
        gauge(&mut encoder, "heartbeats_missed_total", help, self.0.auth().missed_heartbeats() as u64)?;
        let help = "Instances that are connected, by their version and whether they are upgraded by a program";
        let mut family = encoder.encode_descriptor("teleport_registered_servers", help, None, MetricType::Gauge)?;
        for (version, (by_hand, by_itself)) in &versions {
            for (automatic, count) in [("false", *by_hand), ("true", *by_itself)].into_iter().filter(|(_, n)| *n > 0) {
                let labels = [("version", version.as_str()), ("automatic_updates", automatic)];
                ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn is_version(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-".contains(&b))
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}
