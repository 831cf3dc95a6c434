//! `top`: what a process says about itself at its diagnostics address, again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Error, Result};
use crate::output::{Table, is_terminal, say, text, time};

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// Rows on one screen.
const ROWS: usize = 40;
/// Back to the first character of a terminal, and nothing on it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Show what a process says about itself.
#[derive(Args, Debug)]
pub struct Top {
    /// Its diagnostics address (`--diag-addr`).
    #[arg(default_value = "http://127.0.0.1:3000")]
    diag_addr: String,
    /// How often it is asked.
    #[arg(default_value = "5s")]
    refresh: String,
}

/// Values by the name and the labels of a metric.
type Samples = BTreeMap<String, f64>;

impl Top {
    /// Shows it until it is interrupted; once, when nobody watches a terminal.
    pub async fn run(self) -> Result<()> {
        let refresh = time::lifetime(&self.refresh)?;
        let address = address(&self.diag_addr)?;
        let mut before: Option<(Instant, Samples)> = None;
        loop {
            let (now, samples) = (Instant::now(), read(&address).await?);
            let elapsed = before.as_ref().map(|(at, old)| ((now - *at).as_secs_f64(), old));
            let screen = screen(&address, &samples, elapsed);
            if !is_terminal() {
                say(&screen);
                return Ok(());
            }
            say(&format!("{CLEAR}{screen}\nEvery {}; Ctrl-C ends.\n", time::short(refresh)));
            before = Some((now, samples));
            tokio::select! {
                () = sleep(refresh) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }
}

/// `host:port` of an address that may be a URL.
fn address(text: &str) -> Result<String> {
    let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match bare.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() && !bare.contains('/') => {
            Ok(bare.to_owned())
        }
        _ => Err(Error::bad(format!("{text:?}: expected the diagnostics address, such as http://127.0.0.1:3000"))),
    }
}

async fn read(address: &str) -> Result<Samples> {
    let failed = |what: String| Error::other(format!("asking {address} for metrics: {what}"));
    let asking = async {
        let stream = TcpStream::connect(address).await.map_err(|e| failed(e.to_string()))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(e.to_string()))?;
        let serving = tokio::spawn(connection);
        let request = hyper::Request::get("/metrics").header("host", address).body(Empty::<Bytes>::new());
        let request = request.map_err(|e| failed(e.to_string()))?;
        let answer = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| failed(e.to_string()))?;
        serving.abort();
        if !status.is_success() {
            return Err(failed(format!("it answered {status}")));
        }
        Ok(parse(&String::from_utf8_lossy(&body.to_bytes())))
    };
    timeout(PATIENCE, asking).await.map_err(|_| failed(format!("no answer within {} s", PATIENCE.as_secs())))?
}

/// The samples of the text form of metrics. Lines that are none are left out.
fn parse(text: &str) -> Samples {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let end = line.rfind('}').map_or_else(|| line.find(' '), |at| Some(at + 1))?;
        let (name, rest) = line.split_at_checked(end)?;
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some((name.trim().to_owned(), value))
    };
    lines.filter_map(sample).collect()
}

/// One screen: the process, then what changes most, then the rest.
fn screen(address: &str, samples: &Samples, before: Option<(f64, &Samples)>) -> String {
    let mut out = format!("Diagnostics of {}\n\n", text::line(address));
    let state = match samples.get("process_state").copied() {
        Some(0.0) => "ok",
        Some(1.0) => "recovering",
        Some(2.0) => "degraded",
        Some(3.0) => "starting",
        _ => "unknown",
    };
    let mut process = Table::new(["Process", ""]);
    process.row(["state".to_owned(), state.to_owned()]);
    for (metric, name, scale, unit) in [
        ("process_resident_memory_bytes", "memory", 1.0 / f64::from(1 << 20), "MiB"),
        ("process_cpu_seconds_total", "CPU time", 1.0, "s"),
        ("process_open_fds", "open files", 1.0, ""),
        ("process_threads", "threads", 1.0, ""),
    ] {
        if let Some(value) = samples.get(metric) {
            process.row([name.to_owned(), format!("{} {unit}", number(value * scale)).trim_end().to_owned()]);
        }
    }
    out.push_str(&process.full());
    let rate = |name: &str, value: f64| {
        let (elapsed, old) = before?;
        let old = old.get(name).copied().unwrap_or_default();
        (elapsed > 0.0).then(|| (value - old) / elapsed)
    };
    let shown = samples.iter().filter(|(name, _)| !name.starts_with("process_") && !name.contains("_bucket"));
    let mut rows: Vec<(&str, f64, Option<f64>)> =
        shown.map(|(name, value)| (name.as_str(), *value, rate(name, *value))).collect();
    rows.sort_by(|a, b| {
        let speed = |row: &(&str, f64, Option<f64>)| row.2.unwrap_or_default().abs();
        speed(b).total_cmp(&speed(a)).then_with(|| a.0.cmp(b.0))
    });
    let left = rows.len().saturating_sub(ROWS);
    let mut table = Table::new(["Metric", "Value", "Per Second"]);
    for (name, value, rate) in rows.into_iter().take(ROWS) {
        let rate = rate.filter(|rate| *rate != 0.0).map(number).unwrap_or_default();
        table.row([name.to_owned(), number(value), rate]);
    }
    out.push('\n');
    out.push_str(&table.full());
    if left > 0 {
        out.push_str(&format!("… and {left} more\n"));
    }
    out
}

/// A number without more digits than it needs.
fn number(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e15 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TEXT: &str = "# HELP process_state State\n# TYPE process_state gauge\nprocess_state 0\n\
                        calls_total{method=\"a b\"} 12\nteleport_tunnels 3\nnonsense\n# EOF\n";

    #[test]
    fn metrics_are_read_with_their_labels() {
        let samples = parse(TEXT);
        assert_eq!(samples.len(), 3);
        assert_eq!(samples["calls_total{method=\"a b\"}"], 12.0);
    }

    #[test]
    fn what_changes_most_stands_first() {
        let mut old = parse(TEXT);
        old.insert("calls_total{method=\"a b\"}".into(), 2.0);
        let shown = screen("127.0.0.1:3000", &parse(TEXT), Some((5.0, &old)));
        assert!(shown.contains("state") && shown.contains("ok"), "{shown}");
        let at = |word: &str| shown.find(word).unwrap();
        assert!(at("calls_total") < at("teleport_tunnels"), "{shown}");
        assert!(shown.lines().any(|line| line.contains("calls_total") && line.trim_end().ends_with('2')), "{shown}");
    }

    #[test]
    fn addresses_may_be_urls() {
        assert_eq!(address("http://127.0.0.1:3000/").unwrap(), "127.0.0.1:3000");
        assert_eq!(address("[::1]:3000").unwrap(), "[::1]:3000");
        for wrong in ["", "localhost", "http://x:3000/metrics", "x:port"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
