//! Asking for access to a host that has refused the login.

use std::io::{self, IsTerminal};

use client::cluster::ClusterClient;
use client::ssh::Host;
use client::terminal::Echo;
use client::{Error, Result, nodes, requests, text};
use wire::proto::ListResourcesRequest;
use wire::proto::paginated_resource::Resource;
use wire::types::{AccessRequestSpecV3, AccessRequestV3, ResourceId, ServerV2};

use crate::args::SshArgs;
use crate::ask::Terminal;
use crate::commands::request::use_when_approved;
use crate::context::Context;

/// What is asked for: the host itself, or a role that gives access to it.
const RESOURCE: &str = "resource";
const ROLE: &str = "role";

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
    let mode = args.request_mode.as_deref().filter(|mode| !mode.is_empty()).unwrap_or(RESOURCE);
    let may_ask = args.request_reason.is_some() || io::stdin().is_terminal();
    // An identity file cannot take more roles.
    let is_file = context.global.identity.is_some();
    match mode {
        _ if args.disable_access_request || is_file || !may_ask => return Ok(None),
        RESOURCE | ROLE => {}
        "off" => return Ok(None),
        other => return Err(Error::other(format!("--request-mode={other}: expected off, resource or role"))),
    }
    let Some(node) = requestable(client, host).await else { return Ok(None) };
    let id = ResourceId {
        cluster_name: client.account().cluster.clone(),
        kind: "node".to_owned(),
        name: nodes::id(&node).to_owned(),
        ..Default::default()
    };
    let (roles, resources) = match mode {
        ROLE => match role_for(client, id, login).await? {
            Some(role) => (vec![role], Vec::new()),
            None => return Ok(None),
        },
        _ => (Vec::new(), vec![id]),
    };
    let name = text::line(&host.name);
    eprintln!("You do not currently have access to \"{}@{name}\", attempting to request access.", text::line(login));
    let reason = match &args.request_reason {
        Some(reason) => reason.clone(),
        None => Terminal::default().ask("Enter request reason: ", Echo::On)?.trim().to_owned(),
    };
    let request = AccessRequestV3 {
        spec: Some(AccessRequestSpecV3 {
            user: client.account().username.clone(),
            roles,
            request_reason: reason,
            requested_resource_i_ds: resources,
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
        Resource::Node(node) if is(&node, &host.address) => Some(*node),
        _ => None,
    });
    let first = matching.next()?;
    matching.next().is_none().then_some(first)
}

/// The role to ask for: of those that may be requested and let this login in to the host the only one, or the one that the
/// user chooses. That the cluster does not say is no other error than that of the host.
async fn role_for(client: &ClusterClient, host: ResourceId, login: &str) -> Result<Option<String>> {
    let found = requests::roles_for(client, host, login).await;
    let mut roles = found.inspect_err(|error| tracing::debug!(%error, "no role is asked for")).unwrap_or_default();
    if roles.len() <= 1 {
        return Ok(roles.pop());
    }
    let names = roles.iter().map(|role| text::line(role)).collect::<Vec<_>>().join(", ");
    let several =
        || Error::other(format!("several roles give access: request one of them with 'tsh request create': {names}"));
    if !io::stdin().is_terminal() {
        return Err(several());
    }
    let chosen = Terminal::default().ask(&format!("Role to request ({names}): "), Echo::On)?.trim().to_owned();
    if roles.contains(&chosen) { Ok(Some(chosen)) } else { Err(several()) }
}

/// Whether a node is called this.
fn is(node: &ServerV2, address: &str) -> bool {
    let at = node.spec.as_ref().map_or("", |spec| client::profile::host(&spec.addr));
    !address.is_empty() && [nodes::id(node), nodes::hostname(node), at].contains(&address)
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
        let spec = Some(ServerSpecV2 { addr: "[2001:db8::1]:22".into(), ..Default::default() });
        let node = ServerV2 { spec, ..Default::default() };
        assert!(is(&node, "2001:db8::1") && !is(&node, "2001:db8:") && !is(&node, ""));
    }
}
