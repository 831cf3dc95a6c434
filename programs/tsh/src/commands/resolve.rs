//! `tsh resolve`.

use client::nodes;
use client::ssh::{Destination, Host, Target};
use client::{Error, Result, text};

use super::list::{node_row, node_table};
use crate::args::ResolveArgs;
use crate::context::Context;
use crate::output::print_as;

/// Says which host is meant; fails unless it is exactly one. For `Match exec` of OpenSSH's configuration, too.
pub async fn resolve(context: &Context, args: &ResolveArgs) -> Result<i32> {
    let destination = Destination::parse(&args.host)?;
    let (client, target) = context.destination(destination.target, args.cluster.as_deref()).await?;
    let account = client.account();
    let found = match (&target, target.filter()) {
        (Target::Host { host, port }, _) => {
            let suffixes = [account.proxy_host(), account.cluster.as_str()];
            nodes::named(&client, &Host::new(host, *port).without_suffixes(&suffixes)).await?
        }
        (_, filter) => nodes::list(&client, &filter.unwrap_or_default()).await?,
    };
    let host = text::line(&args.host);
    let [node] = found.as_slice() else {
        return Err(match found.len() {
            0 => Error::other(format!("no matching host: {host}")),
            n => Error::other(format!("ambiguous host: {host} could be any of {n} hosts, name one by its id")),
        });
    };
    if !args.quiet {
        print_as(args.format, node, || {
            let mut table = node_table(&[], true);
            table.row(node_row(&[], node, true));
            table.render()
        })?;
    }
    Ok(0)
}
