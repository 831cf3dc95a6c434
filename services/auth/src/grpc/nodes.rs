//! SSH servers.

use resources::SystemRole;
use wire::error::{Error, Result};
use wire::proto::{GetSshTargetsRequest, GetSshTargetsResponse};
use wire::types::{
    KeepAlive, ResourceInNamespaceRequest, ResourcesInNamespaceRequest, ServerV2, keep_alive::KeepAliveType,
};

use super::{Api, named};
use crate::authz::AuthContext;
use crate::presence;
use crate::store::kind;

/// A server that the caller's roles reach; others do not exist for him.
pub async fn get_node(api: &Api, context: &AuthContext, message: ResourceInNamespaceRequest) -> Result<ServerV2> {
    let name = named(&message.name, "Name")?;
    let node = api.auth().store().get::<kind::Node>(name).await?;
    if context.can_see_node(&node) {
        Ok((*node).clone())
    } else {
        Err(Error::not_found(format!("node {name:?} not found")))
    }
}

/// Registers a server: an agent itself, an administrator one that runs OpenSSH.
pub async fn upsert_node(api: &Api, context: &AuthContext, node: ServerV2) -> Result<KeepAlive> {
    context.require("node", &["create", "update"])?;
    let name = node.metadata.as_ref().map_or("", |metadata| metadata.name.as_str()).to_owned();
    named(&name, "metadata.name")?;
    require_own_record(context, &name)?;
    if !registers_others(context) {
        presence::require_agent(&node)?;
    }
    let stored = api.auth().upsert_node(node, context.caller().remote_addr).await?;
    let metadata = stored.metadata.clone().unwrap_or_default();
    Ok(KeepAlive {
        name,
        namespace: resources::NAMESPACE.to_owned(),
        expires: metadata.expires,
        r#type: KeepAliveType::Node as i32,
        ..Default::default()
    })
}

pub async fn delete_node(api: &Api, context: &AuthContext, message: ResourceInNamespaceRequest) -> Result<()> {
    context.require("node", &["delete"])?;
    let name = named(&message.name, "Name")?;
    require_own_record(context, name)?;
    api.auth().store().delete::<kind::Node>(name).await
}

pub async fn delete_all_nodes(api: &Api, context: &AuthContext, _: ResourcesInNamespaceRequest) -> Result<()> {
    context.require("node", &["list", "delete"])?;
    if context.is_service() && !context.is_admin() {
        return Err(Error::access_denied("access denied: services remove their own records only"));
    }
    api.auth().store().delete_all::<kind::Node>().await.map(drop)
}

/// The servers that a host name, address or UUID of a client could mean, best matches only.
pub async fn get_ssh_targets(
    api: &Api,
    context: &AuthContext,
    message: GetSshTargetsRequest,
) -> Result<GetSshTargetsResponse> {
    context.require("node", &["list", "read"])?;
    let host = named(&message.host, "Host")?;
    let ignore_case = api.auth().networking()?.spec.as_ref().is_some_and(|spec| spec.case_insensitive_routing);
    let target = Target { host, port: &message.port, ignore_case };
    let nodes = api.auth().store().list::<kind::Node>().await?;
    let scored: Vec<(u8, &ServerV2)> = nodes
        .iter()
        .map(|node| (target.score(node), &**node))
        .filter(|(score, node)| *score > 0 && context.can_see_node(node))
        .collect();
    let best = scored.iter().map(|(score, _)| *score).max().unwrap_or_default();
    let servers = scored.into_iter().filter(|(score, _)| *score == best).map(|(_, node)| node.clone()).collect();
    Ok(GetSshTargetsResponse { servers })
}

/// What a client means to reach.
pub struct Target<'a> {
    /// A host name, address or UUID.
    pub host: &'a str,
    /// A port; empty or `0` for any.
    pub port: &'a str,
    /// Whether a lower-case letter may stand for an upper-case one.
    pub ignore_case: bool,
}

impl Target<'_> {
    /// How well a server matches: 3 by its UUID, 2 by a name or address, 0 not at all.
    pub fn score(&self, node: &ServerV2) -> u8 {
        let name = node.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        if name == self.host {
            return 3;
        }
        let Some(spec) = &node.spec else { return 0 };
        if spec.use_tunnel {
            return if self.is_host(&spec.hostname) { 2 } else { 0 };
        }
        let reaches = |address: &String| {
            let Some((host, port)) = split_address(address) else { return false };
            let port_fits = matches!(self.port, "" | "0") || self.port == port;
            port_fits && (self.is_host(&spec.hostname) || self.is_host(host))
        };
        if std::iter::once(&spec.addr).chain(&spec.public_addrs).any(reaches) { 2 } else { 0 }
    }

    fn is_host(&self, host: &str) -> bool {
        if !self.ignore_case {
            return host == self.host;
        }
        let fits = |wanted: u8, found: u8| {
            wanted == found || wanted.is_ascii_lowercase() && wanted.to_ascii_uppercase() == found
        };
        host.len() == self.host.len() && self.host.bytes().zip(host.bytes()).all(|(wanted, found)| fits(wanted, found))
    }
}

/// Host and port of an address; IPv6 hosts stand in brackets.
pub(super) fn split_address(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!port.is_empty()).then_some((host, port))
}

/// An SSH agent registers itself and nothing else.
fn require_own_record(context: &AuthContext, name: &str) -> Result<()> {
    if registers_others(context) { Ok(()) } else { context.require_own_server(name) }
}

/// Discovery and administrators register servers without agents.
fn registers_others(context: &AuthContext) -> bool {
    context.has_role(SystemRole::Discovery) || context.is_admin() || !context.is_service()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use wire::types::{Metadata, ServerSpecV2};

    use super::*;

    fn node(hostname: &str, addr: &str, use_tunnel: bool) -> ServerV2 {
        ServerV2 {
            metadata: Some(Metadata { name: "5c2".to_owned(), ..Default::default() }),
            spec: Some(ServerSpecV2 {
                hostname: hostname.to_owned(),
                addr: addr.to_owned(),
                use_tunnel,
                public_addrs: vec!["[2001:db8::1]:22".to_owned()],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_target_is_matched_by_id_name_address_and_port() {
        let score = |host, port, node: &ServerV2| Target { host, port, ignore_case: false }.score(node);
        let direct = node("db1", "10.0.0.5:3022", false);
        for (host, port, expected) in [
            ("5c2", "", 3),
            ("db1", "0", 2),
            ("db1", "3022", 2),
            ("db1", "99", 0),
            ("10.0.0.5", "3022", 2),
            ("2001:db8::1", "22", 2),
            ("DB1", "", 0),
            ("", "", 0),
        ] {
            assert_eq!(score(host, port, &direct), expected, "{host}:{port}");
        }
        let tunnel = node("db1", "", true);
        assert_eq!(score("db1", "99", &tunnel), 2);
        assert_eq!(score("10.0.0.5", "", &tunnel), 0);
    }

    #[test]
    fn lower_case_may_stand_for_upper_case_but_not_the_other_way() {
        let target = |host| Target { host, port: "", ignore_case: true };
        assert_eq!(target("db1").score(&node("DB1", "", true)), 2);
        assert_eq!(target("DB1").score(&node("db1", "", true)), 0);
    }
}
