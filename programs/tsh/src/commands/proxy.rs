//! `tsh proxy`.

use client::nodes;
use client::ssh::{Destination, Host, Target, pipe};
use client::{Error, Result};

use super::ssh::with_port;
use crate::args::ProxySshArgs;
use crate::context::Context;

/// Connects the standard streams with the SSH server of a host.
pub async fn ssh(context: &Context, args: &ProxySshArgs) -> Result<i32> {
    let destination = Destination::parse(&args.destination)?;
    let target = with_port(destination.target, args.port);
    let (client, target) = context.destination(target, args.cluster.as_deref()).await?;
    let account = client.account();
    let host = match (&target, target.filter()) {
        (Target::Host { host, port }, _) => {
            let suffixes = [account.proxy_host(), account.cluster.as_str()];
            Host::new(host, *port).without_suffixes(&suffixes)
        }
        (_, filter) => {
            let mut hosts = nodes::matching_hosts(&client, &filter.unwrap_or_default()).await?;
            match (hosts.pop(), hosts.is_empty()) {
                (Some(host), true) => host,
                (Some(_), false) => return Err(Error::other("found multiple matching SSH hosts")),
                (None, _) => {
                    return Err(Error::other("no matching SSH hosts found for search terms or query expression"));
                }
            }
        }
    };
    match pipe(&client, &host, destination.login.as_deref()).await {
        Err(Error::Ssh(error)) if error.is_ambiguous() => Err(nodes::explain_ambiguous(&client, &host).await),
        other => other.map(|()| 0),
    }
}
