//! `tsh latency`.

use std::time::{Duration, Instant};

use client::ssh::Destination;
use client::{Error, Result};

use super::ssh::{connect, find_hosts};
use crate::args::LatencySshArgs;
use crate::context::Context;
use crate::output::print;

/// Time between two measurements.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was measured on one way.
#[derive(Default)]
struct Series(Vec<Duration>);

impl Series {
    fn add(&mut self, taken: Duration) {
        self.0.push(taken);
    }

    /// Smallest, middle, largest and last, in milliseconds.
    fn summary(&self) -> String {
        let mut sorted = self.0.clone();
        sorted.sort();
        let (Some(first), Some(last), Some(latest)) = (sorted.first(), sorted.last(), self.0.last()) else {
            return "not measured".to_owned();
        };
        let ms = |taken: &Duration| taken.as_secs_f64() * 1e3;
        let middle = &sorted[sorted.len() / 2];
        format!(
            "last {:.1} ms, least {:.1} ms, median {:.1} ms, most {:.1} ms",
            ms(latest),
            ms(first),
            ms(middle),
            ms(last)
        )
    }
}

/// Measures round trips to the proxy, and through it to a host.
pub async fn ssh(context: &Context, args: &LatencySshArgs) -> Result<i32> {
    let destination = Destination::parse(&args.destination)?;
    let login = destination.login.clone().map_or_else(|| context.host_login(), Ok)?;
    let (client, target) = context.destination(destination.target, args.cluster.as_deref()).await?;
    let hosts = find_hosts(&client, target).await?;
    let [host] = hosts.as_slice() else {
        return Err(Error::other(format!("{} hosts match: name one of them", hosts.len())));
    };
    let connection = connect(&client, host, &login).await?;
    let (mut to_proxy, mut to_host) = (Series::default(), Series::default());
    let mut measured = 0;
    while args.count.is_none_or(|count| measured < count) {
        if measured > 0 {
            tokio::time::sleep(INTERVAL).await;
        }
        let begun = Instant::now();
        client.probe().await?;
        to_proxy.add(begun.elapsed());
        let begun = Instant::now();
        connection.probe().await?;
        to_host.add(begun.elapsed());
        measured += 1;
        print(&format!("proxy: {}\nhost, through the proxy: {}\n", to_proxy.summary(), to_host.summary()))?;
    }
    connection.close().await;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_extremes_and_the_middle() {
        let mut series = Series::default();
        assert_eq!(series.summary(), "not measured");
        for ms in [3, 1, 2] {
            series.add(Duration::from_millis(ms));
        }
        assert_eq!(series.summary(), "last 2.0 ms, least 1.0 ms, median 2.0 ms, most 3.0 ms");
    }
}
