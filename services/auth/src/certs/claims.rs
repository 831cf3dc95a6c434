//! Names that a host may not have in its certificates, because they are somebody else's.
//!
//! Host names and addresses are believed: a cluster cannot know who owns them. The UUIDs of other hosts and the
//! made-up names of the Auth API are the cluster's own, and whoever had them could pass for another host or for the
//! Auth Service itself.

use pki::cluster_name::{API_DOMAIN, api_dns_names};
use uuid::Uuid;
use wire::error::{Error, Result};

use super::HostCertRequest;

/// Refuses names of others among those that a host asks for.
///
/// # Errors
/// `AccessDenied`, naming the first such name.
pub(super) fn check(request: &HostCertRequest, principals: &[String], cluster: &str) -> Result<()> {
    let roles = std::iter::once(request.role).chain(request.system_roles.iter().copied());
    let serves_api = roles.into_iter().any(|role| !api_dns_names(role.name()).is_empty());
    for name in principals.iter().chain(&request.dns_names).chain([&request.node_name]) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if !serves_api && (name == API_DOMAIN || name.ends_with(&format!(".{API_DOMAIN}"))) {
            return Err(Error::access_denied(format!("{name:?} is a name of the Auth Service, not of this host")));
        }
        let suffix = format!(".{}", cluster.to_ascii_lowercase());
        let host = name.strip_suffix(&suffix).unwrap_or(&name);
        if Uuid::try_parse(host).is_ok() && host != request.host_id.to_ascii_lowercase() {
            return Err(Error::access_denied(format!("{name:?} is the name of another host")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use resources::SystemRole;

    use super::*;

    const OWN: &str = "6d1f5a3e-0000-4000-8000-000000000001";
    const OTHER: &str = "6d1f5a3e-0000-4000-8000-000000000002";

    fn asks(role: SystemRole, name: &str) -> Result<()> {
        let request = HostCertRequest { host_id: OWN.to_owned(), role, ..Default::default() };
        check(&request, &[name.to_owned()], "one.example.com")
    }

    #[test]
    fn a_host_has_its_own_uuid_and_any_name_of_the_network() {
        for name in
            [OWN, &format!("{OWN}.one.example.com"), "web1", "web1.one.example.com", "10.0.0.7", "*.example.com"]
        {
            assert!(asks(SystemRole::Node, name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_of_other_hosts_and_of_the_auth_service_are_refused() {
        let upper = OTHER.to_uppercase();
        for name in [
            OTHER,
            upper.as_str(),
            &format!("{OTHER}.one.example.com"),
            &format!("{OTHER}.ONE.example.com."),
            "teleport.cluster.local",
            "6f6e65.Teleport.Cluster.Local",
            "*.teleport.cluster.local",
        ] {
            assert!(asks(SystemRole::Node, name).is_err(), "{name}");
        }
        assert!(asks(SystemRole::Proxy, "remote.kube.proxy.teleport.cluster.local").is_ok());
        assert!(asks(SystemRole::Proxy, OTHER).is_err());
    }
}
