//! Clusters that trust each other.
//!
//! A *leaf* trusts a *root*: users of the root get into the leaf with roles that the leaf maps. An administrator of the
//! leaf creates a `trusted_cluster` with a token of the root; the two exchange the public halves of their authorities
//! through the root's proxy, and from then on the leaf's proxies hold tunnels to the root's.
//!
//! | cluster | keeps |
//! | --- | --- |
//! | leaf | `trusted_cluster`, the root's authorities (that of its users with the role map), a `tunnel` |
//! | root | `remote_cluster`, the leaf's host authority |
//!
//! A disabled trusted cluster keeps its authorities apart, where nothing believes them, so that no new token is needed.

use std::sync::Arc;

use async_trait::async_trait;
use audit::codes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use resources::{Resource, SystemRole};
use serde::{Deserialize, Serialize};
use wire::error::{Error, ErrorKind, Result};
use wire::events;
use wire::types::{
    CertAuthoritySpecV2, CertAuthorityV2, Metadata, RemoteClusterStatusV3, RemoteClusterV3, ReverseTunnelSpecV2,
    ReverseTunnelV2, TrustedClusterV2,
};

use crate::authority::{strip_secrets, trusted_ssh, trusted_tls};
use crate::store::kind;
use crate::store::kind::{
    CertAuthority, ParkedAuthority, RemoteCluster, ReverseTunnel, TrustedCluster, TunnelConnection,
};
use crate::{Auth, Caller};

/// Authorities of the root that the leaf believes.
const OF_ROOT: [&str; 4] = ["host", "user", "db", "openssh"];
/// The authority of the leaf that the root believes: its hosts', for tunnels and sessions on its servers. The leaf's
/// users have no business at the root.
const OF_LEAF: &str = "host";

/// What a leaf sends.
#[derive(Deserialize, Serialize)]
pub struct ValidateRequest {
    /// A token of the root with the role `Trusted_cluster`.
    pub token: String,
    /// The leaf's authorities: the JSON of each, base64.
    pub certificate_authorities: Vec<String>,
    /// The version of the leaf.
    #[serde(default)]
    pub teleport_version: String,
}

/// What the root answers.
#[derive(Debug, Deserialize, Serialize)]
pub struct ValidateResponse {
    /// The root's authorities: the JSON of each, base64.
    pub certificate_authorities: Vec<String>,
}

/// Carries a request to the proxy of another cluster.
#[async_trait]
pub trait TrustExchange: Send + Sync {
    /// Posts the request to the proxy at an address; the answer, or its refusal.
    async fn validate(&self, proxy: &str, request: &ValidateRequest) -> Result<ValidateResponse>;
}

impl std::fmt::Debug for ValidateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValidateRequest").field("teleport_version", &self.teleport_version).finish_non_exhaustive()
    }
}

impl Auth {
    /// Trusts another cluster, or changes how it is trusted.
    ///
    /// # Errors
    /// `BadParameter` when it is malformed or the other cluster has another name; the refusal of the other cluster.
    pub async fn upsert_trusted_cluster(
        &self,
        caller: &Caller,
        mut cluster: TrustedClusterV2,
    ) -> Result<TrustedClusterV2> {
        cluster.check_and_set_defaults().map_err(Error::from)?;
        let name = cluster.name().to_owned();
        if name == self.cluster_name() {
            return Err(Error::bad_parameter("a cluster cannot trust itself"));
        }
        let spec = cluster.spec.clone().unwrap_or_default();
        self.check_local_roles(&cluster)?;
        let before = self.store().get::<TrustedCluster>(&name).await.ok();
        let offered = match self.kept_authorities(&name, before.as_deref(), &cluster) {
            Some(_) => Vec::new(),
            // To trust no more takes nobody's consent.
            None if before.is_some() && !spec.enabled => Vec::new(),
            None => self.exchange(&cluster).await?,
        };
        for authority in &offered {
            self.check_cert_authority(authority)?;
        }
        // First what a removal asks for: whatever is believed below can be taken back by its name.
        let stored = self.store().upsert::<TrustedCluster>(cluster.clone()).await.map(Arc::unwrap_or_clone)?;
        for authority in offered {
            self.keep(with_role_map(authority, &cluster), spec.enabled).await?;
        }
        for ca_type in OF_ROOT {
            self.turn(&format!("{ca_type}/{name}"), &cluster).await?;
        }
        if spec.enabled {
            self.store().upsert::<ReverseTunnel>(tunnel_to(&name, &spec.reverse_tunnel_address)).await?;
        } else {
            absent_is_fine(self.store().delete::<ReverseTunnel>(&name).await)?;
        }
        self.emit(codes::TRUSTED_CLUSTER_CREATE.event(events::TrustedClusterCreate {
            resource: Some(resource(&name, caller)),
            user: Some(caller.user_metadata()),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await?;
        Ok(stored)
    }

    /// Trusts another cluster no more.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_trusted_cluster(&self, caller: &Caller, name: &str) -> Result<()> {
        self.store().get::<TrustedCluster>(name).await?;
        // What is believed goes first: half of a removal must leave nobody in.
        for ca_type in OF_ROOT {
            absent_is_fine(self.store().delete::<CertAuthority>(&format!("{ca_type}/{name}")).await)?;
            absent_is_fine(self.store().delete::<ParkedAuthority>(&format!("{ca_type}/{name}")).await)?;
        }
        absent_is_fine(self.store().delete::<ReverseTunnel>(name).await)?;
        self.store().delete::<TrustedCluster>(name).await?;
        self.emit(codes::TRUSTED_CLUSTER_DELETE.event(events::TrustedClusterDelete {
            resource: Some(resource(name, caller)),
            user: Some(caller.user_metadata()),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }

    /// The root's part: takes a leaf in that shows a token, and tells it this cluster's authorities.
    ///
    /// # Errors
    /// `AccessDenied` for a wrong token; `BadParameter` for authorities that cannot be used; `AlreadyExists` when
    /// another cluster of that name is known.
    pub async fn validate_trusted_cluster(&self, request: &ValidateRequest) -> Result<ValidateResponse> {
        let rejected = || Error::access_denied("access denied: the cluster token has been rejected");
        let token = self.find_token(&request.token)?.ok_or_else(rejected)?;
        let expired = token.metadata().expires.as_ref().and_then(|e| wire::time::moment(Some(e)));
        let role = SystemRole::TrustedCluster.name();
        let roles = token.spec.as_ref().map(|spec| spec.roles.clone()).unwrap_or_default();
        if expired.is_some_and(|end| end < self.now()) || !roles.iter().any(|r| r.eq_ignore_ascii_case(role)) {
            return Err(rejected());
        }
        let offered = decode_all(&request.certificate_authorities)?;
        let authority = offered
            .into_iter()
            .find(|ca| ca.spec.as_ref().is_some_and(|spec| spec.r#type == OF_LEAF))
            .ok_or_else(|| Error::bad_parameter("the leaf cluster sent no host authority"))?;
        let name = cluster_of(&authority).to_owned();
        if name.is_empty() || name == self.cluster_name() {
            return Err(Error::bad_parameter(format!("a leaf cluster cannot be called {name:?}")));
        }
        self.take_in_leaf(&name, authority).await?;
        if self.store().get::<RemoteCluster>(&name).await.is_err() {
            let remote = RemoteClusterV3 {
                metadata: Some(Metadata { name: name.clone(), ..Default::default() }),
                ..Default::default()
            };
            self.store().upsert::<RemoteCluster>(remote).await?;
        }
        tracing::info!(cluster = name, "leaf cluster taken in");
        let mut own = Vec::new();
        for ca_type in OF_ROOT {
            own.push(self.get_cert_authority(ca_type, self.cluster_name(), false).await?);
        }
        Ok(ValidateResponse { certificate_authorities: own.iter().map(encode).collect::<Result<_>>()? })
    }

    /// Forgets a leaf: its tunnels are let in no more, and its hosts are believed no more.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_remote_cluster(&self, name: &str) -> Result<()> {
        self.store().get::<RemoteCluster>(name).await?;
        absent_is_fine(self.store().delete::<CertAuthority>(&format!("{OF_LEAF}/{name}")).await)?;
        for connection in self.store().cached_list::<TunnelConnection>() {
            if connection.spec.as_ref().is_some_and(|spec| spec.cluster_name == name) {
                let key = format!("{name}/{}", connection.name());
                absent_is_fine(self.store().delete::<TunnelConnection>(&key).await)?;
            }
        }
        self.store().delete::<RemoteCluster>(name).await
    }

    /// A leaf with what is known of its tunnels now.
    pub fn with_status(&self, cluster: &RemoteClusterV3) -> RemoteClusterV3 {
        let mut cluster = cluster.clone();
        let name = cluster.name().to_owned();
        let now = self.now();
        let connections = self.store().cached_list::<TunnelConnection>();
        let alive = connections.iter().filter(|connection| {
            let ends = wire::time::moment(connection.metadata().expires.as_ref());
            ends.is_none_or(|end| end > now) && connection.spec.as_ref().is_some_and(|s| s.cluster_name == name)
        });
        let newest = alive.map(|c| last_heartbeat(c.spec.as_ref().and_then(|s| s.last_heartbeat.as_ref()))).max();
        let status = cluster.status.get_or_insert_with(RemoteClusterStatusV3::default);
        match newest {
            Some(heartbeat) => {
                status.connection = "online".to_owned();
                status.last_heartbeat = Some(wire::time::timestamp(heartbeat));
            }
            None => status.connection = "offline".to_owned(),
        }
        cluster
    }

    /// Takes a leaf's view of the root's authority after a rotation there.
    ///
    /// # Errors
    /// `AccessDenied` unless the caller's cluster is the authority's, and trusted.
    pub async fn rotate_external_authority(&self, caller_cluster: &str, authority: CertAuthorityV2) -> Result<()> {
        let spec = authority.spec.clone().unwrap_or_default();
        let known = OF_ROOT.contains(&spec.r#type.as_str()) && spec.cluster_name == caller_cluster;
        if !known || spec.cluster_name == self.cluster_name() {
            return Err(Error::access_denied("access denied: a cluster speaks of its own authorities only"));
        }
        let name = format!("{}/{}", spec.r#type, spec.cluster_name);
        let denied = |_| Error::access_denied("access denied: the authority is not known here");
        let stored = self.store().get::<CertAuthority>(&name).await.map_err(denied)?;
        let authority = stripped(authority);
        self.check_cert_authority(&authority)?;
        let spec = authority.spec.unwrap_or_default();
        let keys = (spec.active_keys, spec.additional_trusted_keys);
        let same =
            |kept: &CertAuthoritySpecV2| (&kept.active_keys, &kept.additional_trusted_keys) == (&keys.0, &keys.1);
        if stored.spec.as_ref().is_some_and(same) {
            return Ok(());
        }
        // Keys alone: whom the roles there become here is for this cluster to say. And only where they are still believed.
        let changed = self.store().change::<CertAuthority>(&name, |stored| {
            let kept = stored.spec.get_or_insert_default();
            (kept.active_keys, kept.additional_trusted_keys) = keys.clone();
            Ok(())
        });
        changed.await.map(drop).map_err(|error| if error.kind == ErrorKind::NotFound { denied(error) } else { error })
    }

    /// The role map for users of another cluster; empty when none is trusted by that name.
    pub fn role_map_of(&self, cluster: &str) -> Vec<wire::types::RoleMapping> {
        let authority = self.store().cached::<CertAuthority>(&format!("user/{cluster}"));
        authority.ok().and_then(|ca| ca.spec.as_ref().map(|spec| spec.role_map.clone())).unwrap_or_default()
    }

    /// Refuses a role map that names local roles which do not exist; a name made from a match is not known before.
    fn check_local_roles(&self, cluster: &TrustedClusterV2) -> Result<()> {
        let spec = cluster.spec.clone().unwrap_or_default();
        let named = spec.role_map.iter().flat_map(|mapping| &mapping.local).chain(&spec.roles);
        for role in named.filter(|role| !role.contains('$')) {
            if self.store().cached::<kind::Role>(role).is_err() {
                return Err(Error::bad_parameter(format!("spec.role_map: role {role:?} does not exist")));
            }
        }
        Ok(())
    }

    /// The authorities of a cluster that is trusted in the same way already.
    fn kept_authorities(
        &self,
        name: &str,
        before: Option<&TrustedClusterV2>,
        now: &TrustedClusterV2,
    ) -> Option<Vec<CertAuthorityV2>> {
        let way = |cluster: &TrustedClusterV2| {
            let spec = cluster.spec.clone().unwrap_or_default();
            (spec.token, spec.proxy_address, spec.reverse_tunnel_address)
        };
        let before = before.filter(|before| way(before) == way(now))?;
        let mut kept = Vec::new();
        for ca_type in OF_ROOT {
            let key = format!("{ca_type}/{}", before.name());
            let active = self.store().cached::<CertAuthority>(&key);
            kept.extend(active.or_else(|_| self.store().cached::<ParkedAuthority>(&key)).map(Arc::unwrap_or_clone));
        }
        let both = ["host", "user"].iter().all(|wanted| {
            kept.iter().any(|ca| ca.spec.as_ref().is_some_and(|s| s.r#type == *wanted && s.cluster_name == name))
        });
        both.then_some(kept)
    }

    /// Shows the token at the other cluster's proxy; the other cluster's authorities.
    async fn exchange(&self, cluster: &TrustedClusterV2) -> Result<Vec<CertAuthorityV2>> {
        let spec = cluster.spec.clone().unwrap_or_default();
        for (field, value) in [("token", &spec.token), ("web_proxy_addr", &spec.proxy_address)] {
            if value.is_empty() {
                return Err(Error::bad_parameter(format!("spec.{field}: missing")));
            }
        }
        let exchange = self.trust_exchange().ok_or_else(|| {
            Error::not_implemented("this Auth Service was started without a way to reach other clusters")
        })?;
        let mut own = Vec::new();
        for ca_type in ["host", "user"] {
            own.push(encode(&self.get_cert_authority(ca_type, self.cluster_name(), false).await?)?);
        }
        let request = ValidateRequest {
            token: spec.token,
            certificate_authorities: own,
            teleport_version: wire::VERSION.to_owned(),
        };
        let answer = exchange.validate(&spec.proxy_address, &request).await?;
        let authorities = decode_all(&answer.certificate_authorities)?;
        let name = cluster.name();
        for authority in &authorities {
            let of = cluster_of(authority);
            if of != name {
                return Err(Error::bad_parameter(format!(
                    "metadata.name: the cluster at {} is called {of:?}, expected {name:?}: the resource has the name of \
                     the cluster that is to be trusted",
                    spec.proxy_address
                )));
            }
        }
        let wanted = |ca: &CertAuthorityV2| ca.spec.as_ref().is_some_and(|s| OF_ROOT.contains(&s.r#type.as_str()));
        Ok(authorities.into_iter().filter(wanted).map(stripped).collect())
    }

    /// Keeps an authority where it is believed, or where it is not.
    async fn keep(&self, authority: CertAuthorityV2, enabled: bool) -> Result<()> {
        let spec = authority.spec.clone().unwrap_or_default();
        let key = format!("{}/{}", spec.r#type, spec.cluster_name);
        if enabled {
            self.upsert_cert_authority(authority).await?;
            absent_is_fine(self.store().delete::<ParkedAuthority>(&key).await)
        } else {
            self.store().upsert_at::<ParkedAuthority>(&key, authority).await?;
            absent_is_fine(self.store().delete::<CertAuthority>(&key).await)
        }
    }

    /// Brings an authority of a cluster that is trusted already, if there is one, to where it belongs, with the role map of now.
    async fn turn(&self, key: &str, cluster: &TrustedClusterV2) -> Result<()> {
        let enabled = cluster.spec.as_ref().is_some_and(|spec| spec.enabled);
        let changed = self.store().change::<CertAuthority>(key, |authority| {
            set_role_map(authority, cluster);
            Ok(())
        });
        match changed.await {
            Ok(_) if enabled => return Ok(()),
            Ok(authority) => return self.keep(Arc::unwrap_or_clone(authority), false).await,
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match self.store().get::<ParkedAuthority>(key).await {
            Ok(parked) if enabled => self.keep(with_role_map(Arc::unwrap_or_clone(parked), cluster), true).await,
            Ok(_) => Ok(()),
            Err(error) => absent_is_fine(Err(error)),
        }
    }

    /// Believes a leaf's authority from now on, if its name is free or its own: of several that come at once with one name,
    /// the first has it.
    async fn take_in_leaf(&self, name: &str, offered: CertAuthorityV2) -> Result<()> {
        if self.is_known_leaf(name, &offered)? {
            return Ok(());
        }
        let offered = stripped(offered);
        match self.create_cert_authority(offered.clone()).await {
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                self.store().refresh().await;
                if self.is_known_leaf(name, &offered)? { Ok(()) } else { Err(error) }
            }
            other => other,
        }
    }

    /// Whether a leaf is known by these very keys. One that is known keeps them: a token must not let anybody take over its
    /// name, or add a key to it. A leaf tells of new keys over a connection that the old ones vouch for.
    fn is_known_leaf(&self, name: &str, offered: &CertAuthorityV2) -> Result<bool> {
        let Ok(known) = self.store().cached::<CertAuthority>(&format!("{OF_LEAF}/{name}")) else { return Ok(false) };
        let among = |offered: &[Vec<u8>], known: &[Vec<u8>]| offered.iter().all(|key| known.contains(key));
        if among(&trusted_ssh(offered), &trusted_ssh(&known)) && among(&trusted_tls(offered), &trusted_tls(&known)) {
            return Ok(true);
        }
        Err(Error::already_exists(format!(
            "another cluster called {name:?} is known here already: remove remote_cluster/{name} first"
        )))
    }
}

fn with_role_map(mut authority: CertAuthorityV2, cluster: &TrustedClusterV2) -> CertAuthorityV2 {
    set_role_map(&mut authority, cluster);
    // What is stored gets a revision of its own.
    authority.set_revision(String::new());
    authority
}

fn set_role_map(authority: &mut CertAuthorityV2, cluster: &TrustedClusterV2) {
    let trusted = cluster.spec.clone().unwrap_or_default();
    if let Some(spec) = authority.spec.as_mut().filter(|spec| spec.r#type == "user") {
        spec.role_map = trusted.role_map;
        spec.roles = trusted.roles;
    }
}

fn tunnel_to(cluster: &str, address: &str) -> ReverseTunnelV2 {
    ReverseTunnelV2 {
        metadata: Some(Metadata { name: cluster.to_owned(), ..Default::default() }),
        spec: Some(ReverseTunnelSpecV2 {
            cluster_name: cluster.to_owned(),
            dial_addrs: vec![address.to_owned()],
            r#type: "proxy".to_owned(),
        }),
        ..Default::default()
    }
}

fn resource(name: &str, caller: &Caller) -> events::ResourceMetadata {
    events::ResourceMetadata { name: name.to_owned(), updated_by: caller.user_name(), ..Default::default() }
}

fn cluster_of(authority: &CertAuthorityV2) -> &str {
    authority.spec.as_ref().map_or("", |spec| &spec.cluster_name)
}

fn stripped(mut authority: CertAuthorityV2) -> CertAuthorityV2 {
    strip_secrets(&mut authority);
    authority
}

fn last_heartbeat(time: Option<&prost_types::Timestamp>) -> DateTime<Utc> {
    wire::time::moment(time).unwrap_or_default()
}

fn encode(authority: &CertAuthorityV2) -> Result<String> {
    let json = serde_json::to_vec(authority).map_err(|e| Error::other(format!("an authority cannot be sent: {e}")))?;
    Ok(STANDARD.encode(json))
}

fn decode_all(encoded: &[String]) -> Result<Vec<CertAuthorityV2>> {
    let unreadable = |e: &dyn std::fmt::Display| Error::bad_parameter(format!("certificate_authorities: {e}"));
    let decode = |text: &String| {
        let json = STANDARD.decode(text).map_err(|e| unreadable(&e))?;
        let mut authority: CertAuthorityV2 = serde_json::from_slice(&json).map_err(|e| unreadable(&e))?;
        authority.check_and_set_defaults().map_err(Error::from)?;
        Ok(authority)
    };
    encoded.iter().map(decode).collect()
}

fn absent_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use chrono::TimeDelta;
    use pki::identity::Identity;
    use pki::keys::{KeyAlgorithm, PrivateKey};
    use pki::x509::{CaCertificate, Certificate, Issuer, LeafTemplate};
    use wire::types::{RoleMapping, TrustedClusterSpecV2};

    use super::*;
    use crate::testing::{CLUSTER, Service};

    /// A root that is reached without a network.
    struct Root(Auth);

    #[async_trait]
    impl TrustExchange for Root {
        async fn validate(&self, _: &str, request: &ValidateRequest) -> Result<ValidateResponse> {
            self.0.validate_trusted_cluster(request).await
        }
    }

    const TOKEN: &str = "token-for-leaves";

    async fn root() -> Service {
        let root = Service::start().await;
        let token = serde_json::json!({
            "kind": "token", "version": "v2", "metadata": {"name": TOKEN},
            "spec": {"roles": ["Trusted_cluster"], "join_method": "token"},
        });
        root.auth.create_token(&root.admin(), serde_json::from_value(token).unwrap()).await.unwrap();
        root
    }

    /// A leaf on a storage of its own.
    async fn leaf(root: &Service, name: &str) -> (Service, Auth) {
        let other = Service::start().await;
        let exchange: Arc<dyn TrustExchange> = Arc::new(Root(root.auth.clone()));
        let name = name.to_owned();
        let auth = other
            .again(move |config| {
                config.backend = Some(Arc::new(backend::Memory::with_clock(config.clock.clone())));
                config.cluster_name = name;
                config.trust_exchange = Some(exchange);
            })
            .await;
        (other, auth)
    }

    fn trust(name: &str, enabled: bool, token: &str) -> TrustedClusterV2 {
        TrustedClusterV2 {
            metadata: Some(Metadata { name: name.into(), ..Default::default() }),
            spec: Some(TrustedClusterSpecV2 {
                enabled,
                token: token.into(),
                proxy_address: "root:443".into(),
                role_map: vec![RoleMapping { remote: "access".into(), local: vec!["access".into()] }],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_leaf_trusts_a_root_until_it_does_not() {
        let root = root().await;
        let (service, leaf) = leaf(&root, "leaf.test").await;
        let admin = service.admin();
        let refused = leaf.upsert_trusted_cluster(&admin, trust(CLUSTER, true, "guessed")).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::AccessDenied, "{refused}");
        let refused = leaf.upsert_trusted_cluster(&admin, trust("other.test", true, TOKEN)).await.unwrap_err();
        assert!(refused.message.contains("is called"), "{refused}");
        assert!(leaf.store().cached_list::<TrustedCluster>().is_empty());

        leaf.upsert_trusted_cluster(&admin, trust(CLUSTER, true, TOKEN)).await.unwrap();
        assert_eq!(leaf.role_map_of(CLUSTER).len(), 1);
        assert!(root.auth.store().exists::<RemoteCluster>("leaf.test").await.unwrap());
        let known = root.auth.get_cert_authority("host", "leaf.test", true).await.unwrap();
        let keys = known.spec.unwrap().active_keys.unwrap();
        assert!(keys.tls.iter().all(|pair| pair.key.is_empty()) && keys.ssh.iter().all(|p| p.private_key.is_empty()));
        assert!(
            root.auth.get_cert_authority("user", "leaf.test", false).await.is_err(),
            "a root trusts no leaf's users"
        );

        leaf.upsert_trusted_cluster(&admin, trust(CLUSTER, false, TOKEN)).await.unwrap();
        assert!(leaf.role_map_of(CLUSTER).is_empty() && !leaf.store().exists::<ReverseTunnel>(CLUSTER).await.unwrap());
        root.auth.store().delete::<kind::Token>(TOKEN).await.unwrap();
        leaf.upsert_trusted_cluster(&admin, trust(CLUSTER, true, TOKEN)).await.expect("no token is needed to return");
        assert_eq!(leaf.role_map_of(CLUSTER).len(), 1);
        leaf.delete_trusted_cluster(&admin, CLUSTER).await.unwrap();
        assert!(leaf.role_map_of(CLUSTER).is_empty());
        root.auth.delete_remote_cluster("leaf.test").await.unwrap();
        assert!(root.auth.get_cert_authority("host", "leaf.test", false).await.is_err());
    }

    #[tokio::test]
    async fn nobody_takes_over_the_name_of_a_known_leaf() {
        let root = root().await;
        let (service, first) = leaf(&root, "leaf.test").await;
        first.upsert_trusted_cluster(&service.admin(), trust(CLUSTER, true, TOKEN)).await.unwrap();
        let key = "host/leaf.test";
        let known = root.auth.store().cached::<CertAuthority>(key).unwrap();
        let own = first.get_cert_authority("host", "leaf.test", false).await.unwrap();
        let with_foreign_key = |mut offered: CertAuthorityV2| {
            let foreign = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
            let keys = offered.spec.as_mut().unwrap().active_keys.as_mut().unwrap();
            let public_key = foreign.public().to_ssh_line().into_bytes();
            keys.ssh.push(wire::types::SshKeyPair { public_key, ..Default::default() });
            offered
        };
        for (offered, accepted) in [(own.clone(), true), (with_foreign_key(own), false)] {
            let request = ValidateRequest {
                token: TOKEN.into(),
                certificate_authorities: vec![encode(&offered).unwrap()],
                teleport_version: String::new(),
            };
            let outcome = root.auth.validate_trusted_cluster(&request).await;
            assert_eq!(outcome.is_ok(), accepted, "{outcome:?}");
            assert_eq!(root.auth.store().cached::<CertAuthority>(key).unwrap().spec, known.spec);
        }
        let (service, second) = leaf(&root, "leaf.test").await;
        let refused = second.upsert_trusted_cluster(&service.admin(), trust(CLUSTER, true, TOKEN)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::AlreadyExists, "{refused}");
    }

    #[tokio::test]
    async fn of_two_clusters_that_come_at_once_with_one_name_one_has_it() {
        let root = root().await;
        let mut offers = Vec::new();
        for _ in 0..2 {
            let (_service, leaf) = leaf(&root, "leaf.test").await;
            offers.push(leaf.get_cert_authority("host", "leaf.test", false).await.unwrap());
        }
        let take_in = |offer: &CertAuthorityV2| root.auth.take_in_leaf("leaf.test", offer.clone());
        // Both find the name free before either has written.
        let (one, other) = (take_in(&offers[0]), take_in(&offers[1]));
        let outcomes = <[_; 2]>::from(tokio::join!(one, other));
        let winner = outcomes.iter().position(Result::is_ok).expect("one has it");
        assert_eq!(outcomes[1 - winner].as_ref().unwrap_err().kind, ErrorKind::AlreadyExists);
        let known = root.auth.get_cert_authority("host", "leaf.test", false).await.unwrap();
        assert_eq!(trusted_ssh(&known), trusted_ssh(&offers[winner]));
        take_in(&offers[winner]).await.unwrap();
    }

    #[tokio::test]
    async fn a_cluster_that_is_taken_in_twice_at_once_is_taken_in() {
        let root = root().await;
        let (_service, leaf) = leaf(&root, "leaf.test").await;
        let offer = leaf.get_cert_authority("host", "leaf.test", false).await.unwrap();
        let take_in = || root.auth.take_in_leaf("leaf.test", offer.clone());
        let (one, other) = tokio::join!(take_in(), take_in());
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    }

    #[tokio::test]
    async fn trust_ends_without_the_root_and_its_word_does_not_bring_it_back() {
        let root = root().await;
        let (service, leaf) = leaf(&root, "leaf.test").await;
        let admin = service.admin();
        leaf.upsert_trusted_cluster(&admin, trust(CLUSTER, true, TOKEN)).await.unwrap();
        let authority = root.auth.get_cert_authority("user", CLUSTER, false).await.unwrap();
        leaf.rotate_external_authority(CLUSTER, authority.clone()).await.unwrap();
        root.auth.store().delete::<kind::Token>(TOKEN).await.unwrap();
        leaf.upsert_trusted_cluster(&admin, trust(CLUSTER, false, "another token"))
            .await
            .expect("the root is not asked");
        let refused = leaf.rotate_external_authority(CLUSTER, authority).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::AccessDenied, "{refused}");
        assert!(leaf.role_map_of(CLUSTER).is_empty());
    }

    #[tokio::test]
    async fn an_authority_speaks_for_its_own_cluster_and_kind_only() {
        let service = Service::start().await;
        let now = service.auth.now();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let ca = |name: &str| CaCertificate::self_signed(name, &key, now).unwrap();
        // Each has a serial number in its name, so that there is only one of the leaf.
        let of_leaf = ca("leaf.test");
        let authority = |shown: &CaCertificate| {
            let pem = shown.certificate().to_pem();
            let spec = serde_json::json!({
                "type": "host", "cluster_name": "leaf.test", "active_keys": {"tls": [{"cert": STANDARD.encode(pem)}]},
            });
            let ca = serde_json::json!({
                "kind": "cert_authority", "version": "v2", "sub_kind": "host", "metadata": {"name": "leaf.test"},
                "spec": spec,
            });
            serde_json::from_value::<CertAuthorityV2>(ca).unwrap()
        };
        assert!(
            service.auth.upsert_cert_authority(authority(&ca(CLUSTER))).await.is_err(),
            "in the name of this cluster"
        );
        service.auth.upsert_cert_authority(authority(&of_leaf)).await.unwrap();
        let check = |cluster: &str, group: &str| {
            let identity = Identity {
                username: "mallory".into(),
                groups: vec![group.into()],
                teleport_cluster: cluster.into(),
                ..Identity::default()
            };
            let subject = identity.to_subject().unwrap();
            let template = LeafTemplate::new(subject, key.public().clone(), now, now + TimeDelta::hours(1));
            let der = Issuer::new(of_leaf.clone(), key.clone()).unwrap().issue(&template).unwrap();
            service.auth.check_signer(&Certificate::from_der(&der).unwrap(), &identity)
        };
        assert!(check("leaf.test", "Proxy").is_ok());
        assert!(check("leaf.test", "access").is_err(), "hosts' authority, a person");
        for group in ["Admin", "Proxy", "editor"] {
            assert!(check(CLUSTER, group).is_err(), "{group} of this cluster");
        }
    }
}
