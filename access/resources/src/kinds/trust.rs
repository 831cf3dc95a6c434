use wire::types::{
    CertAuthorityV2, RemoteClusterV3, ReverseTunnelV2, RoleMapping, TrustedClusterV2, TunnelConnectionV2,
};

use super::{default_text, one_of, required};
use crate::{
    Place, Resource, ResourceError, Result, kind, places,
    resource::{check_version, plain_header},
};

/// The types of authorities.
const AUTHORITY_TYPES: [&str; 9] =
    ["host", "user", "db", "db_client", "openssh", "jwt", "saml_idp", "oidc_idp", "spiffe"];

impl Resource for CertAuthorityV2 {
    const KIND: &'static str = kind::CERT_AUTHORITY;
    const VERSION: &'static str = "v2";
    plain_header!();

    fn place(&self) -> Place {
        let ca_type = self.spec.as_ref().map_or("", |s| &s.r#type);
        places::authority(ca_type, self.name())
    }

    /// The type is the sub-kind, the name that of the cluster.
    fn set_spec_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_text(&mut spec.r#type, &self.sub_kind);
        self.sub_kind.clone_from(&spec.r#type);
        let cluster = spec.cluster_name.clone();
        default_text(&mut self.metadata_mut().name, &cluster);
        let name = self.name().to_owned();
        default_text(&mut self.spec.get_or_insert_default().cluster_name, &name);
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        required(&[("spec.type", &spec.r#type), ("spec.cluster_name", &spec.cluster_name)])?;
        one_of("spec.type", &spec.r#type, &AUTHORITY_TYPES)?;
        if spec.cluster_name != self.name() {
            return Err(ResourceError::field("metadata.name", "must be the name of the cluster in spec.cluster_name"));
        }
        check_role_map(&spec.role_map)
    }
}

impl Resource for TrustedClusterV2 {
    const KIND: &'static str = kind::TRUSTED_CLUSTER;
    const VERSION: &'static str = "v2";
    plain_header!();

    fn place(&self) -> Place {
        places::trusted_cluster(self.name())
    }

    fn set_spec_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let proxy = spec.proxy_address.clone();
        default_text(&mut spec.reverse_tunnel_address, &proxy);
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        match (spec.role_map.is_empty(), spec.roles.is_empty()) {
            (true, true) => return Err(ResourceError::invalid("missing 'role_map' parameter")),
            (false, false) => {
                return Err(ResourceError::invalid("should set either 'roles' or 'role_map', not both"));
            }
            _ => {}
        }
        check_role_map(&spec.role_map)
    }
}

fn check_role_map(map: &[RoleMapping]) -> Result<()> {
    for (i, mapping) in map.iter().enumerate() {
        let path = format!("spec.role_map[{i}]");
        if mapping.remote.is_empty() {
            return Err(ResourceError::field(format!("{path}.remote"), "missing the name of a remote role"));
        }
        if mapping.local.is_empty() || mapping.local.iter().any(String::is_empty) {
            return Err(ResourceError::field(format!("{path}.local"), "missing the names of local roles"));
        }
    }
    Ok(())
}

impl Resource for RemoteClusterV3 {
    const KIND: &'static str = kind::REMOTE_CLUSTER;
    const VERSION: &'static str = "v3";
    plain_header!();

    fn place(&self) -> Place {
        places::remote_cluster(self.name())
    }

    fn set_spec_defaults(&mut self) {
        default_text(&mut self.status.get_or_insert_default().connection, "offline");
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)
    }
}

impl Resource for ReverseTunnelV2 {
    const KIND: &'static str = kind::TUNNEL;
    const VERSION: &'static str = "v2";
    plain_header!();

    fn place(&self) -> Place {
        Place::new(places::REVERSE_TUNNELS, [self.name()])
    }

    fn set_spec_defaults(&mut self) {
        default_text(&mut self.spec.get_or_insert_default().r#type, "proxy");
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        required(&[("spec.cluster_name", &spec.cluster_name)])?;
        if spec.dial_addrs.is_empty() {
            return Err(ResourceError::field("spec.dial_addrs", "missing addresses"));
        }
        Ok(())
    }
}

impl Resource for TunnelConnectionV2 {
    const KIND: &'static str = kind::TUNNEL_CONNECTION;
    const VERSION: &'static str = "v2";
    plain_header!();

    fn place(&self) -> Place {
        let cluster = self.spec.as_ref().map_or("", |s| &s.cluster_name);
        Place::new(places::TUNNEL_CONNECTIONS, [cluster, self.name()])
    }

    /// The cluster is the sub-kind.
    fn set_spec_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_text(&mut spec.r#type, "proxy");
        self.sub_kind.clone_from(&spec.cluster_name);
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        required(&[("spec.cluster_name", &spec.cluster_name), ("spec.proxy_name", &spec.proxy_name)])
    }
}
