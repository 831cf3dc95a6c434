//! Cluster alerts: short messages that programs show to those whom they concern.

use std::collections::HashSet;

use backend::Key;
use chrono::{DateTime, Utc};
use resources::Resource;
use wire::error::{Error, Result};
use wire::proto::{
    ClearAlertAcksRequest, GetAlertAcksRequest, GetAlertAcksResponse, GetClusterAlertsResponse,
    UpsertClusterAlertRequest,
};
use wire::types::{AlertAcknowledgement, ClusterAlert, GetClusterAlertsRequest};

use super::{Api, named, page, required};
use crate::authz::AuthContext;
use crate::store::{self, kind};

/// Everybody sees the alert.
pub const PERMIT_ALL: &str = "teleport.internal/alert-permit-all";
/// Whoever has one of these `kind:verb` pairs, separated by bars, sees the alert.
pub const VERB_PERMIT: &str = "teleport.internal/alert-verb-permit";
/// Ids, separated by commas, of less severe alerts that this one replaces.
pub const SUPERSEDES: &str = "teleport.internal/alert-supersedes";
/// The alert is shown after a login.
pub const ON_LOGIN: &str = "teleport.internal/alert-on-login";

/// Acknowledged alerts lie below this key.
const ACKNOWLEDGED: Key = Key::root("/alert-ack");
/// How long an alert may be acknowledged for.
const MAX_REASON: usize = 4096;

/// The alerts that concern the caller, the most severe and newest first.
pub async fn get_cluster_alerts(
    api: &Api,
    context: &AuthContext,
    query: GetClusterAlertsRequest,
) -> Result<GetClusterAlertsResponse> {
    let acknowledged = if query.with_acknowledged { HashSet::new() } else { acknowledged_ids(api).await? };
    let untargeted = query.with_untargeted && context.require("cluster_alert", &["list", "read"]).is_ok();
    let mut alerts = page::owned(api.auth().store().list::<kind::ClusterAlert>().await?);
    alerts.retain(|alert| {
        matches(&query, alert) && !acknowledged.contains(alert.name()) && (untargeted || is_permitted(context, alert))
    });
    if !query.with_superseded {
        drop_superseded(&mut alerts);
    }
    alerts.sort_by_key(|alert| std::cmp::Reverse((severity(alert), created(alert))));
    Ok(GetClusterAlertsResponse { alerts })
}

pub async fn upsert_cluster_alert(api: &Api, _: &AuthContext, message: UpsertClusterAlertRequest) -> Result<()> {
    let mut alert = required(message.alert, "Alert")?;
    let spec = alert.spec.get_or_insert_default();
    if wire::time::moment(spec.created.as_ref()).is_none() {
        spec.created = Some(wire::time::timestamp(api.auth().now()));
    }
    alert.check_and_set_defaults()?;
    check_labels(&alert)?;
    api.auth().store().upsert::<kind::ClusterAlert>(alert).await.map(drop)
}

pub async fn create_alert_ack(api: &Api, _: &AuthContext, ack: AlertAcknowledgement) -> Result<()> {
    let id = named(&ack.alert_id, "alert_id")?;
    if ack.reason.is_empty() || ack.reason.len() > MAX_REASON {
        return Err(Error::bad_parameter(format!("an acknowledgement needs a reason of at most {MAX_REASON} bytes")));
    }
    let expires = wire::time::moment(ack.expires.as_ref())
        .filter(|expires| *expires > api.auth().now())
        .ok_or_else(|| Error::bad_parameter("an acknowledgement needs an expiry in the future"))?;
    if !api.auth().store().exists::<kind::ClusterAlert>(id).await? {
        return Err(Error::not_found(format!("cluster_alert {id:?} not found")));
    }
    let value = serde_json::to_vec(&ack).map_err(|error| Error::other(error.to_string()))?;
    let key = ACKNOWLEDGED.child(id).map_err(|error| store::storage(&error))?;
    let item = backend::Item::new(key, value).with_expires(expires);
    api.auth().store().backend().put(item).await.map_err(|error| store::storage(&error)).map(drop)
}

pub async fn get_alert_acks(api: &Api, _: &AuthContext, _: GetAlertAcksRequest) -> Result<GetAlertAcksResponse> {
    Ok(GetAlertAcksResponse { acks: acknowledgements(api).await? })
}

/// Removes the acknowledgement of an alert, or with `*` all.
pub async fn clear_alert_acks(api: &Api, _: &AuthContext, message: ClearAlertAcksRequest) -> Result<()> {
    let backend = api.auth().store().backend();
    let result = match named(&message.alert_id, "AlertID")? {
        "*" => backend.delete_range(&ACKNOWLEDGED.children()).await.map(drop),
        id => match ACKNOWLEDGED.child(id) {
            Ok(key) => backend.delete(&key).await,
            Err(error) => Err(error),
        },
    };
    result.map_err(|error| match error.kind() {
        backend::ErrorKind::NotFound => Error::not_found("the alert is not acknowledged"),
        _ => store::storage(&error),
    })
}

async fn acknowledgements(api: &Api) -> Result<Vec<AlertAcknowledgement>> {
    let listed = backend::get_all(api.auth().store().backend(), ACKNOWLEDGED.children()).await;
    let items = listed.map_err(|error| store::storage(&error))?;
    items.iter().map(|item| store::from_json("alert acknowledgement", item)).collect()
}

async fn acknowledged_ids(api: &Api) -> Result<HashSet<String>> {
    Ok(acknowledgements(api).await?.into_iter().map(|ack| ack.alert_id).collect())
}

fn matches(query: &GetClusterAlertsRequest, alert: &ClusterAlert) -> bool {
    let labels = &alert.metadata().labels;
    severity(alert) >= query.severity
        && (query.alert_id.is_empty() || query.alert_id == alert.name())
        && query.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn is_permitted(context: &AuthContext, alert: &ClusterAlert) -> bool {
    let labels = &alert.metadata().labels;
    if labels.get(PERMIT_ALL).is_some_and(|value| value == "yes") {
        return true;
    }
    let pairs = labels.get(VERB_PERMIT).into_iter().flat_map(|pairs| pairs.split('|'));
    pairs.filter_map(|pair| pair.split_once(':')).any(|(kind, verb)| context.require(kind, &[verb]).is_ok())
}

/// Drops alerts that a visible, strictly more severe one replaces.
fn drop_superseded(alerts: &mut Vec<ClusterAlert>) {
    let superseded: HashSet<String> = alerts
        .iter()
        .filter_map(|alert| Some((alert, alert.metadata().labels.get(SUPERSEDES)?)))
        .flat_map(|(alert, ids)| ids.split(',').map(|id| (severity(alert), id.trim().to_owned())))
        .filter(|(severity_of_new, id)| alerts.iter().any(|old| old.name() == id && severity(old) < *severity_of_new))
        .map(|(_, id)| id)
        .collect();
    alerts.retain(|alert| !superseded.contains(alert.name()));
}

/// Labels of alerts steer programs: only plain characters, and links only to where they may lead.
fn check_labels(alert: &ClusterAlert) -> Result<()> {
    let plain = |text: &str, extra: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || extra.contains(c))
    };
    for (key, value) in &alert.metadata().labels {
        if !plain(key, "-./") {
            return Err(Error::bad_parameter(format!("invalid alert label key {key:?}")));
        }
        if key == "teleport.internal/link" {
            let link = url::Url::parse(value).ok().filter(|link| link.host_str() == Some("goteleport.com"));
            if link.is_none() {
                return Err(Error::bad_parameter("invalid alert link: expected a URL of goteleport.com"));
            }
        } else if !plain(value, "-./_:|,") {
            return Err(Error::bad_parameter(format!("invalid alert label value {value:?}")));
        }
    }
    Ok(())
}

fn severity(alert: &ClusterAlert) -> i32 {
    alert.spec.as_ref().map_or(0, |spec| spec.severity)
}

fn created(alert: &ClusterAlert) -> Option<DateTime<Utc>> {
    wire::time::moment(alert.spec.as_ref().and_then(|spec| spec.created.as_ref()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use wire::types::{ClusterAlertSpec, Metadata, ResourceHeader};

    use super::*;

    fn alert(name: &str, severity: i32, labels: &[(&str, &str)]) -> ClusterAlert {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = Metadata { name: name.to_owned(), labels, ..Default::default() };
        ClusterAlert {
            header: Some(ResourceHeader { metadata: Some(metadata), ..Default::default() }),
            spec: Some(ClusterAlertSpec { severity, message: "text".to_owned(), created: None }),
        }
    }

    #[test]
    fn only_a_more_severe_alert_replaces_another() {
        let names = |mut alerts: Vec<ClusterAlert>| {
            drop_superseded(&mut alerts);
            alerts.iter().map(|alert| alert.name().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(vec![alert("old", 5, &[]), alert("new", 10, &[(SUPERSEDES, "x, old")])]), ["new"]);
        assert_eq!(names(vec![alert("old", 5, &[]), alert("new", 5, &[(SUPERSEDES, "old")])]), ["old", "new"]);
    }

    #[test]
    fn labels_that_could_mislead_are_refused() {
        assert!(check_labels(&alert("a", 0, &[(VERB_PERMIT, "token:create|role:read"), (ON_LOGIN, "yes")])).is_ok());
        assert!(check_labels(&alert("a", 0, &[("Upper", "x")])).is_err());
        assert!(check_labels(&alert("a", 0, &[("key", "two words")])).is_err());
        assert!(check_labels(&alert("a", 0, &[("teleport.internal/link", "https://evil.example/")])).is_err());
        assert!(check_labels(&alert("a", 0, &[("teleport.internal/link", "https://goteleport.com/docs")])).is_ok());
    }
}
