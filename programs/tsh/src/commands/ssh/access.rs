//! Asking for access to a host that has refused the login.

use std::io::{self, IsTerminal};

use client::cluster::ClusterClient;
use client::ssh::Host;
use client::terminal::Echo;
use client::{Error, Result, requests, text};
use wire::proto::ListResourcesRequest;
use wire::proto::paginated_resource::Resource;
use wire::types::{AccessRequestSpecV3, AccessRequestV3, ResourceId, ServerV2};

use crate::args::SshArgs;
use crate::ask::Terminal;
use crate::commands::request::use_when_approved;
use crate::context::Context;

/// Asks for access to a host, and waits for it; `None` when there is nothing to ask for, or the user does not want to.
///
/// # Errors
/// When the request is denied, or cannot be made.
pub async fn request(
    context: &Context,
    client: &ClusterClient,
    host: &Host,
    login: &str,
    args: &SshArgs,
) -> Result<Option<ClusterClient>> {
    let mode = args.request_mode.as_deref().filter(|mode| !mode.is_empty()).unwrap_or("resource");
    let may_ask = args.request_reason.is_some() || io::stdin().is_terminal();
    // An identity file cannot take more roles.
    let is_file = context.global.identity.is_some();
    match mode {
        _ if args.disable_access_request || is_file || !may_ask => return Ok(None),
        "resource" => {}
        "off" | "role" => return Ok(None),
        other => return Err(Error::other(format!("--request-mode={other}: expected off, resource or role"))),
    }
    let Some(node) = requestable(client, host).await else { return Ok(None) };
    let name = text::line(&host.name);
    eprintln!("You do not currently have access to \"{}@{name}\", attempting to request access.", text::line(login));
    let reason = match &args.request_reason {
        Some(reason) => reason.clone(),
        None => Terminal::default().ask("Enter request reason: ", Echo::On)?.trim().to_owned(),
    };
    let id = ResourceId {
        cluster_name: client.account().cluster.clone(),
        kind: "node".to_owned(),
        name: node.metadata.map(|metadata| metadata.name).unwrap_or_default(),
        ..Default::default()
    };
    let request = AccessRequestV3 {
        spec: Some(AccessRequestSpecV3 {
            user: client.account().username.clone(),
            request_reason: reason,
            requested_resource_i_ds: vec![id],
            login_hint: login.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = requests::create(client, request).await?;
    eprintln!("Created request {}.", text::line(requests::id(&request)));
    let account = use_when_approved(context, client, request, |words| {
        eprint!("{words}");
        Ok(())
    })
    .await?;
    let resumes = client.resumes();
    Ok(Some(ClusterClient::new(account).await?.acquainted().await?.with_resumption(resumes)))
}

/// The one host of this name that roles may be requested for. That the cluster does not say is no other error than that
/// of the host.
async fn requestable(client: &ClusterClient, host: &Host) -> Option<ServerV2> {
    let question = ListResourcesRequest {
        resource_type: "node".to_owned(),
        search_keywords: vec![host.address.clone()],
        ..Default::default()
    };
    let found = requests::search(client, question).await;
    let found = found.inspect_err(|error| tracing::debug!(%error, "no access is asked for")).ok()?;
    let mut matching = found.into_iter().filter_map(|found| match found.resource? {
        Resource::Node(node) if is(&node, &host.address) => Some(node),
        _ => None,
    });
    let first = matching.next()?;
    matching.next().is_none().then_some(first)
}

/// Whether a node is called this.
fn is(node: &ServerV2, address: &str) -> bool {
    let spec = node.spec.clone().unwrap_or_default();
    let host_of = |text: &str| text.rsplit_once(':').map_or(text, |(host, _)| host).to_owned();
    let named = node.metadata.as_ref().is_some_and(|metadata| metadata.name == address);
    named || spec.hostname == address || (!spec.addr.is_empty() && host_of(&spec.addr) == address)
}

#[cfg(test)]
mod tests {
    use wire::types::{Metadata, ServerSpecV2};

    use super::*;

    #[test]
    fn a_host_goes_by_its_id_its_name_and_its_address() {
        let node = ServerV2 {
            metadata: Some(Metadata { name: "the-id".into(), ..Default::default() }),
            spec: Some(ServerSpecV2 { hostname: "web-1".into(), addr: "10.0.0.1:3022".into(), ..Default::default() }),
            ..Default::default()
        };
        assert!(is(&node, "the-id") && is(&node, "web-1") && is(&node, "10.0.0.1"));
        assert!(!is(&node, "web") && !is(&node, ""));
    }
}
