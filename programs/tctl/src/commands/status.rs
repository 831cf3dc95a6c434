//! `status`.

use std::collections::BTreeSet;

use pki::authority::CaType;
use wire::trust::GetCertAuthoritiesRequest;
use wire::types::{CaKeySet, CertAuthoritySpecV2, CertAuthorityV2, PrivateKeyType, Rotation};

use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{say, table, time};

/// Shows the cluster, its authorities and the pins for joining.
pub async fn run(api: &Api) -> Result<()> {
    let ping = api.ping().await?;
    let mut rows = vec![("Cluster".to_owned(), ping.cluster_name), ("Version".to_owned(), ping.server_version)];
    for ca_type in CaType::ALL {
        let name = ca_type.as_str();
        let state = match rotation(api, name).await {
            Ok(Some(authority)) => {
                let spec = authority.spec.unwrap_or_default();
                format!("{}{}", state(spec.rotation.as_ref()), places(&spec))
            }
            Ok(None) => continue,
            Err(error) => format!("ERROR: {error}"),
        };
        rows.push((format!("{name} CA"), state));
    }
    match api.pins().await?.as_slice() {
        [] => return Err(Error::other("the cluster has no host authority")),
        pins => rows.extend(pins.iter().map(|pin| ("CA pin".to_owned(), pin.clone()))),
    }
    say(&table::pairs(&rows));
    Ok(())
}

/// The cluster's own authority of a type.
async fn rotation(api: &Api, ca_type: &str) -> Result<Option<CertAuthorityV2>> {
    let request = GetCertAuthoritiesRequest { r#type: ca_type.to_owned(), include_key: false };
    let found = api.trust().get_cert_authorities(request).within("reading an authority").await?;
    let own = |authority: &CertAuthorityV2| authority.spec.as_ref().is_some_and(|s| s.cluster_name == api.cluster());
    Ok(found.cert_authorities_v2.into_iter().find(own))
}

/// A rotation in words.
fn state(rotation: Option<&Rotation>) -> String {
    let Some(rotation) = rotation else { return "never updated".to_owned() };
    if rotation.state == "in_progress" {
        let started = wire::time::moment(rotation.started.as_ref()).map(|at| format!(", started {}", time::moment(at)));
        let mode = if rotation.mode.is_empty() { "manual" } else { &rotation.mode };
        return format!("rotation in progress: {} (mode: {mode}{})", rotation.phase, started.unwrap_or_default());
    }
    match wire::time::moment(rotation.last_rotated.as_ref()) {
        Some(at) => format!("rotated {}", time::moment(at)),
        None => "never updated".to_owned(),
    }
}

/// Where the keys of an authority are, unless all are in the storage of the cluster. References to keys in modules are
/// hidden as keys themselves are, so whose module it is is not known here.
fn places(spec: &CertAuthoritySpecV2) -> String {
    let active: BTreeSet<i32> = spec.active_keys.iter().flat_map(types_of).collect();
    let waiting = spec.additional_trusted_keys.as_ref().is_some_and(|keys| types_of(keys).next().is_some());
    let in_progress = spec.rotation.as_ref().is_some_and(|rotation| rotation.state == "in_progress");
    let mut text = String::new();
    if active.iter().any(|number| *number != PrivateKeyType::Raw as i32) {
        let names: Vec<&str> = active.into_iter().map(described).collect();
        text = format!(", {}", names.join(" and "));
    }
    if waiting && !in_progress {
        text.push_str("; other keys are trusted and wait for a rotation to sign");
    }
    text
}

fn types_of(keys: &CaKeySet) -> impl Iterator<Item = i32> {
    let ssh = keys.ssh.iter().map(|pair| pair.private_key_type);
    let tls = keys.tls.iter().map(|pair| pair.key_type);
    let jwt = keys.jwt.iter().map(|pair| pair.private_key_type);
    ssh.chain(tls).chain(jwt)
}

fn described(number: i32) -> &'static str {
    match PrivateKeyType::try_from(number) {
        Ok(PrivateKeyType::Raw) => "raw software keys",
        Ok(PrivateKeyType::Pkcs11) => "PKCS#11 HSM keys",
        Ok(PrivateKeyType::GcpKms) => "GCP KMS keys",
        Ok(PrivateKeyType::AwsKms) => "AWS KMS keys",
        Err(_) => "keys of an unknown kind",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use wire::types::SshKeyPair;

    use super::*;

    #[test]
    fn keys_in_modules_are_told() {
        let set = |kinds: &[i32]| {
            let pairs = kinds.iter().map(|kind| SshKeyPair { private_key_type: *kind, ..Default::default() });
            Some(CaKeySet { ssh: pairs.collect(), ..Default::default() })
        };
        let of = |active_keys, additional_trusted_keys, state: &str| {
            let rotation = Some(Rotation { state: state.into(), ..Default::default() });
            places(&CertAuthoritySpecV2 { active_keys, additional_trusted_keys, rotation, ..Default::default() })
        };
        assert_eq!(of(set(&[0]), set(&[]), ""), "");
        assert_eq!(of(set(&[1, 0, 1]), None, ""), ", raw software keys and PKCS#11 HSM keys");
        let waits = "; other keys are trusted and wait for a rotation to sign";
        assert_eq!(of(set(&[0]), set(&[1]), ""), waits);
        assert_eq!(of(set(&[1]), set(&[1]), "in_progress"), ", PKCS#11 HSM keys");
    }

    #[test]
    fn a_rotation_is_told_in_words() {
        assert_eq!(state(None), "never updated");
        assert_eq!(state(Some(&Rotation::default())), "never updated");
        let at = Some(wire::time::timestamp(time::rfc3339("2024-01-02T15:00:00Z").unwrap()));
        let done = Rotation { last_rotated: at, ..Default::default() };
        assert_eq!(state(Some(&done)), "rotated 02 Jan 24 15:00 UTC");
        let running = Rotation { state: "in_progress".into(), phase: "init".into(), started: at, ..Default::default() };
        assert_eq!(state(Some(&running)), "rotation in progress: init (mode: manual, started 02 Jan 24 15:00 UTC)");
    }
}
