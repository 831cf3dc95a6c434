//! `status`.

use pki::authority::CaType;
use wire::trust::GetCertAuthoritiesRequest;
use wire::types::{CertAuthorityV2, Rotation};

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
            Ok(Some(authority)) => state(authority.spec.and_then(|spec| spec.rotation).as_ref()),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

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
