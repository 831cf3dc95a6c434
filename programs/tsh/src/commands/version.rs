//! `tsh version`.

use client::cluster::web_verify;
use client::{Error, Result, text};
use serde::Serialize;

use crate::args::VersionArgs;
use crate::context::Context;
use crate::output::print_as;

/// What was built, and who answered.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    version: &'static str,
    #[serde(rename = "gitref")]
    git_ref: &'static str,
    runtime: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    proxy_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    proxy_public_address: String,
}

fn ours() -> Versions {
    Versions {
        version: wire::VERSION,
        git_ref: option_env!("GIT_REF").unwrap_or_default(),
        runtime: concat!("rust", env!("CARGO_PKG_RUST_VERSION")),
        ..Default::default()
    }
}

fn show(args: &VersionArgs, versions: &Versions) -> Result<i32> {
    print_as(args.format, versions, || {
        let mut shown = format!("Teleport v{} git:{} {}\n", versions.version, versions.git_ref, versions.runtime);
        if !versions.proxy_version.is_empty() {
            shown += &format!("Proxy version: {}\n", text::line(&versions.proxy_version));
            shown += &format!("Proxy: {}\n", text::line(&versions.proxy_public_address));
        }
        shown
    })?;
    Ok(0)
}

/// Prints the version of this program.
pub fn client(args: &VersionArgs) -> Result<i32> {
    show(args, &ours())
}

/// Prints the versions of this program and of the proxy, if one is known.
pub async fn version(context: &Context, args: &VersionArgs) -> Result<i32> {
    let selection = context.selection(None);
    let address = match selection.profile()? {
        Some(profile) => Some(profile.web_proxy_addr),
        None => selection.proxy.clone(),
    };
    let Some(address) = address else { return client(args) };
    let authorities = selection.account().map(|account| account.keys.tls_authorities()).unwrap_or_default();
    let ping = client::cluster::ping(&address, web_verify(context.global.insecure, &authorities)).await;
    let versions = match ping {
        Ok(ping) => {
            let public = Some(ping.proxy.ssh.public_addr).filter(|address| !address.is_empty());
            Versions { proxy_version: ping.server_version, proxy_public_address: public.unwrap_or(address), ..ours() }
        }
        // The version of this program is known in any case.
        Err(Error::Web(error)) => {
            eprintln!("WARNING: the proxy at {address} does not answer: {error}");
            ours()
        }
        Err(error) => return Err(error),
    };
    show(args, &versions)
}
