//! Users of clusters that this one trusts, who come to servers without an agent through their own cluster's proxy. It has
//! let them in; what they may do here is decided here, with the roles to which theirs are mapped.

use chrono::Utc;
use pki::identity::Identity;
use pki::ssh_cert::{Kind, Requirements, UserCertificate, check};
use russh::keys::Certificate;

use super::{Meeting, Shared};
use crate::gate::{Gate, Watch};
use crate::ssh::end_of;
use crate::transport::TransportPeer;
use crate::tunnels::ssh_keys;

/// Lets the holder of a certificate of `cluster` in, in terms of this cluster; with what ends the connection later.
///
/// # Errors
/// In words, when the certificate is not good here, or its user is locked out or has no roles here.
pub(super) fn admitted(
    shared: &Shared,
    meeting: &Meeting,
    cluster: &str,
    (login, certificate): (&str, &Certificate),
) -> Result<(TransportPeer, Watch), String> {
    let authority = shared.cache.authority("user", cluster);
    let authority = authority.ok_or_else(|| format!("the authority for users of cluster {cluster:?} is not known"))?;
    let (client, server) = (meeting.client, meeting.server);
    let required =
        Requirements { kind: Kind::User, principal: Some(login), now: Utc::now(), source: Some(client.ip()) };
    check(certificate, &ssh_keys(&authority), &required).map_err(|error| error.to_string())?;
    let view = UserCertificate::from_certificate(certificate.clone()).map_err(|error| error.to_string())?;
    let mut identity = view.identity;
    let mappings = authority.spec.as_ref().map_or(&[][..], |spec| &spec.role_map);
    identity.groups = rbac::map_roles(mappings, &identity.groups)
        .map_err(|denial| format!("user {} of cluster {cluster}: {denial}", identity.username))?;
    // The accounts that the certificate was issued for are a trait of its user.
    let logins = certificate.valid_principals().to_vec();
    identity.traits.get_or_insert_default().insert("logins".to_owned(), logins);
    cluster.clone_into(&mut identity.teleport_cluster);
    identity.expires = identity.expires.or(end_of(certificate));
    let peer = TransportPeer::new(identity.into(), client, server);
    let watch = Gate::new(shared.cache.clone()).admit(&peer).map_err(|status| status.message().to_owned())?;
    Ok((peer, watch))
}

/// What a user is called in this cluster: those of others are not to be taken for users of this one.
pub(super) fn local_name(shared: &Shared, identity: &Identity) -> String {
    let home = &identity.teleport_cluster;
    match *home == shared.cache.cluster_name() {
        true => identity.username.clone(),
        false => rbac::remote_user_name(&identity.username, home),
    }
}
