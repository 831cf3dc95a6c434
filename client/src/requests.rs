//! Requests for more access: making them, deciding them, and using what was approved.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use wire::client::turn_page;
use wire::proto::event::Resource;
use wire::proto::{ListAccessRequestsRequest, ListResourcesRequest, Operation, PaginatedResource, Watch};
use wire::types::{
    AccessCapabilities, AccessCapabilitiesRequest, AccessRequestFilter, AccessRequestSpecV3, AccessRequestV3,
    AccessReview, AccessReviewSubmission, RequestState, ResourceId, WatchKind,
};

use crate::account::Account;
use crate::cluster::ClusterClient;
use crate::error::{Error, Result};
use crate::login::exchange_requests;

/// Requests on one page.
const PAGE: i32 = 500;
/// Longest wait for a decision: no request waits longer.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Waits between attempts to follow a request when the cluster is out of reach.
const MIN_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(15);

/// The name of a request's state.
pub fn state(request: &AccessRequestV3) -> RequestState {
    RequestState::try_from(spec(request).state).unwrap_or_default()
}

/// What a request says; empty when it says nothing.
pub fn spec(request: &AccessRequestV3) -> AccessRequestSpecV3 {
    request.spec.clone().unwrap_or_default()
}

/// The id of a request.
pub fn id(request: &AccessRequestV3) -> &str {
    request.metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}

/// The requests that the user may see.
pub async fn list(client: &ClusterClient, filter: &AccessRequestFilter) -> Result<Vec<AccessRequestV3>> {
    let mut found = Vec::new();
    let mut start_key = String::new();
    loop {
        let page = ListAccessRequestsRequest {
            filter: Some(filter.clone()),
            limit: PAGE,
            start_key: start_key.clone(),
            ..Default::default()
        };
        let page = client.root_auth().list_access_requests(page).await?.into_inner();
        found.extend(page.access_requests);
        if !turn_page(&mut start_key, page.next_key)? {
            return Ok(found);
        }
    }
}

/// One request.
///
/// # Errors
/// When there is none of that id, as far as the user may know.
pub async fn get(client: &ClusterClient, wanted: &str) -> Result<AccessRequestV3> {
    let filter = AccessRequestFilter { id: wanted.to_owned(), ..Default::default() };
    let found = list(client, &filter).await?.into_iter().find(|request| id(request) == wanted);
    found.ok_or_else(|| Error::other(format!("there is no access request {wanted:?}")))
}

/// What the user may ask for, and has to ask for at login.
///
/// # Errors
/// When the cluster does not say; one that has no requests says that there is nothing to ask for.
pub async fn capabilities(client: &ClusterClient) -> Result<AccessCapabilities> {
    let asked = AccessCapabilitiesRequest { user: client.account().username.clone(), ..Default::default() };
    match client.root_auth().get_access_capabilities(asked).await {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) if status.code() == tonic::Code::Unimplemented => Ok(AccessCapabilities::default()),
        Err(status) => Err(status.into()),
    }
}

/// The roles that the user may ask for and that let this login in to a resource.
///
/// # Errors
/// When the cluster does not say.
pub async fn roles_for(client: &ClusterClient, resource: ResourceId, login: &str) -> Result<Vec<String>> {
    let asked = AccessCapabilitiesRequest {
        user: client.account().username.clone(),
        requestable_roles: true,
        filter_requestable_roles_by_resource: true,
        resource_i_ds: vec![resource],
        login: login.to_owned(),
        ..Default::default()
    };
    let found = client.root_auth().get_access_capabilities(asked).await?.into_inner();
    Ok(useful(found))
}

/// Clusters that know the filter return what passes it; others all roles, and apart from them those that are of use.
fn useful(found: AccessCapabilities) -> Vec<String> {
    let (mut roles, of_use) = (found.requestable_roles, found.applicable_roles_for_resources);
    if !of_use.is_empty() {
        roles.retain(|role| of_use.contains(role));
    }
    roles
}

/// Makes a request; the stored one.
pub async fn create(client: &ClusterClient, request: AccessRequestV3) -> Result<AccessRequestV3> {
    Ok(client.root_auth().create_access_request_v2(request).await?.into_inner())
}

/// Reviews a request; the request with the review.
pub async fn review(client: &ClusterClient, id: &str, review: AccessReview) -> Result<AccessRequestV3> {
    let submission = AccessReviewSubmission { request_id: id.to_owned(), review: Some(review) };
    Ok(client.root_auth().submit_access_review(submission).await?.into_inner())
}

/// Resources of a kind that the user reaches, or would reach with roles that may be requested.
pub async fn search(client: &ClusterClient, mut wanted: ListResourcesRequest) -> Result<Vec<PaginatedResource>> {
    wanted.use_search_as_roles = true;
    wanted.limit = PAGE;
    let mut found = Vec::new();
    loop {
        let page = client.auth().list_resources(wanted.clone()).await?.into_inner();
        for item in page.items() {
            found.push(item?);
        }
        if !turn_page(&mut wanted.start_key, page.next_key)? {
            return Ok(found);
        }
    }
}

/// Waits until a request is decided.
///
/// # Errors
/// When it is removed, or nobody decides before it ends.
pub async fn decision(client: &ClusterClient, wanted: &str) -> Result<AccessRequestV3> {
    let end = Instant::now() + PATIENCE;
    let mut retry = MIN_RETRY;
    loop {
        let began = Instant::now();
        match timeout_at(end, follow(client, wanted)).await {
            Ok(Ok(Some(decided))) => return Ok(decided),
            Ok(Ok(None)) => tracing::debug!("the cluster ended the watch"),
            Ok(Err(Error::Call(status))) if is_passing(&status) => {
                tracing::debug!(reason = status.message(), "the watch was lost");
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::other(format!("nobody decided about access request {wanted:?}"))),
        }
        if began.elapsed() > MAX_RETRY {
            retry = MIN_RETRY;
        }
        sleep(mux::listener::jittered(retry)).await;
        retry = (retry * 2).min(MAX_RETRY);
    }
}

/// Follows a request; `None` when the watch ended first.
async fn follow(client: &ClusterClient, wanted: &str) -> Result<Option<AccessRequestV3>> {
    let filter = [("id", wanted), ("user", client.account().username.as_str())];
    let filter = filter.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let kinds = vec![WatchKind { kind: "access_request".to_owned(), filter, ..Default::default() }];
    let mut events = client.root_auth().watch_events(Watch { kinds, ..Default::default() }).await?.into_inner();
    while let Some(event) = events.message().await? {
        let request = match (Operation::try_from(event.r#type), event.resource) {
            // The watch is there: what was decided before it is seen by looking.
            (Ok(Operation::Init), _) => get(client, wanted).await?,
            (Ok(Operation::Put), Some(Resource::AccessRequest(request))) if id(&request) == wanted => *request,
            (Ok(Operation::Delete), _) => {
                return Err(Error::other(format!("access request {wanted:?} has ended or was removed")));
            }
            _ => continue,
        };
        if !matches!(state(&request), RequestState::None | RequestState::Pending) {
            return Ok(Some(request));
        }
    }
    Ok(None)
}

fn is_passing(status: &tonic::Status) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, Internal, ResourceExhausted, Unavailable, Unknown};
    matches!(status.code(), Cancelled | DeadlineExceeded | Internal | ResourceExhausted | Unavailable | Unknown)
}

/// New certificates with the roles of these requests as well; saved where the login is kept.
pub async fn assume(client: &ClusterClient, ids: &[String]) -> Result<Account> {
    exchange_requests(client, ids, &[]).await
}

/// New certificates without the roles of these requests; `*` stands for all.
pub async fn drop(client: &ClusterClient, ids: &[String]) -> Result<Account> {
    exchange_requests(client, &[], ids).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_role_is_asked_for_that_is_of_no_use() {
        let found = |requestable: &[&str], of_use: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            useful(AccessCapabilities {
                requestable_roles: owned(requestable),
                applicable_roles_for_resources: owned(of_use),
                ..Default::default()
            })
        };
        assert_eq!(found(&["dba", "web"], &[]), ["dba", "web"]);
        assert_eq!(found(&["dba", "web"], &["web", "search"]), ["web"]);
        assert!(found(&["dba"], &["search"]).is_empty());
    }
}
