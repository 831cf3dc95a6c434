//! What this process uses of its machine, counted when somebody asks.

use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// The metrics about the process.
#[derive(Debug)]
pub struct Usage {
    started: SystemTime,
}

impl Usage {
    /// Of a process that starts now.
    pub fn new() -> Self {
        Self { started: SystemTime::now() }
    }
}

impl Collector for Usage {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let kib = 1024.0;
        let (gauge, counter) = (MetricType::Gauge, MetricType::Counter);
        let most_files = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(now, _)| now as f64);
        let open_files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
        for (name, help, kind, value) in [
            ("process_cpu_seconds_total", "CPU time", counter, cpu().map(|time| time.as_secs_f64())),
            ("process_start_time_seconds", "When the process started", gauge, Some(started.as_secs_f64())),
            ("process_resident_memory_bytes", "Memory in use", gauge, field(&status, "VmRSS").map(|size| size * kib)),
            (
                "process_virtual_memory_bytes",
                "Addresses in use",
                gauge,
                field(&status, "VmSize").map(|size| size * kib),
            ),
            ("process_threads", "Threads", gauge, field(&status, "Threads")),
            ("process_open_fds", "Open files", gauge, open_files),
            ("process_max_fds", "Most open files", gauge, most_files),
            ("teleport_cache_events", "Changes taken by caches", counter, Some(cache::events() as f64)),
        ] {
            if let Some(value) = value {
                // Not as one of the library's counters, which have "_total" behind the name of the value but not of the type:
                // readers of the served format would not know the type, nor find `teleport_cache_events`.
                let metric = encoder.encode_descriptor(name, help, None, kind)?;
                ConstGauge::new(value).encode(metric)?;
            }
        }
        let build = [("version", wire::VERSION)];
        let mut family = encoder.encode_descriptor("teleport_build_info", "This build", None, MetricType::Gauge)?;
        ConstGauge::new(1_u64).encode(family.encode_family(&build)?)
    }
}

/// The CPU time of all threads so far.
fn cpu() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let [user, system] = [usage.user_time(), usage.system_time()].map(|time| {
        let micros = u64::try_from(time.tv_sec()).ok()?.checked_mul(1_000_000)?;
        micros.checked_add(u64::try_from(time.tv_usec()).ok()?)
    });
    Some(Duration::from_micros(user?.checked_add(system?)?))
}

/// A number of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn the_process_says_what_it_uses() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Usage::new()));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for name in
            ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_threads"]
        {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            assert!(value.unwrap().parse::<f64>().unwrap() >= 0.0, "{name} in {text}");
        }
        assert!(text.contains("teleport_build_info{version="), "{text}");
        for (name, kind) in [
            ("process_cpu_seconds_total", "counter"),
            ("teleport_cache_events", "counter"),
            ("process_open_fds", "gauge"),
        ] {
            assert!(text.contains(&format!("# TYPE {name} {kind}\n{name} ")), "{name} in {text}");
        }
    }
}
