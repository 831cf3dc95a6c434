//! `tsh proxy`.

use client::nodes;
use client::ssh::{Destination, Host, Target, pipe};
use client::{Error, Result};

use crate::args::ProxySshArgs;
use crate::context::Context;

/// Connects the standard streams with the SSH server of a host.
pub async fn ssh(context: &Context, args: &ProxySshArgs) -> Result<i32> {
    let destination = Destination::parse(&args.destination)?;
    let client = context.client(args.cluster.as_deref()).await?;
    let account = client.account();
    let host = match destination.target {
        Target::Host { host, port } => {
            let suffixes = [account.proxy_host(), account.cluster.as_str()];
            Host::new(&host, args.port.or(port)).without_suffixes(&suffixes)
        }
        Target::Labels(labels) => {
            let filter = nodes::NodeFilter { labels, ..Default::default() };
            let mut hosts = nodes::matching_hosts(&client, &filter).await?;
            match (hosts.pop(), hosts.is_empty()) {
                (Some(host), true) => host,
                (Some(_), false) => return Err(Error::other("found multiple matching SSH hosts")),
                (None, _) => return Err(Error::other("no matching SSH hosts found")),
            }
        }
    };
    match pipe(&client, &host).await {
        Err(Error::Ssh(error)) if error.is_ambiguous() => Err(nodes::explain_ambiguous(&client, &host).await),
        other => other.map(|()| 0),
    }
}
