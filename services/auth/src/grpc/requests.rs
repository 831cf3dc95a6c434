//! Requests for more access: who may see, make and decide them.

use std::cmp::Ordering;

use futures::{Stream, stream};
use rbac::RoleSet;
use resources::Resource as _;
use tonic::Status;
use wire::error::{Error, Result};
use wire::proto::{
    AccessRequestAllowedPromotionRequest, AccessRequestAllowedPromotionResponse, AccessRequestSort,
    ListAccessRequestsRequest, ListAccessRequestsResponse, RequestId, RequestStateSetter,
};
use wire::types::{
    AccessCapabilities, AccessCapabilitiesRequest, AccessRequestAllowedPromotion, AccessRequestAllowedPromotions,
    AccessRequestFilter, AccessRequestScope, AccessRequestSpecV3, AccessRequestV3, AccessReviewSubmission,
    RequestState,
};

use super::{Api, named, page, required};
use crate::UserRights;
use crate::authz::AuthContext;
use crate::bots::is_bot;
use crate::requests::{Reviewer, state_of};
use crate::store::kind;

const KIND: &str = "access_request";
/// Most words of one search.
const MAX_WORDS: usize = 64;

/// Whose requests a caller sees.
struct View<'a> {
    context: &'a AuthContext,
    /// All, by the roles' rules.
    all: bool,
    /// The roles by which he reviews, if they let him review anything.
    reviewer: Option<RoleSet>,
}

impl<'a> View<'a> {
    fn of(api: &Api, context: &'a AuthContext) -> Self {
        let all = context.require(KIND, &["list", "read"]).is_ok();
        let reviewer = reviewing_roles(api, context).ok().filter(RoleSet::may_review_some);
        Self { context, all, reviewer }
    }

    fn shows(&self, spec: &AccessRequestSpecV3) -> bool {
        self.all || self.context.is_user(&spec.user) || self.may_review(spec)
    }

    fn may_review(&self, spec: &AccessRequestSpecV3) -> bool {
        let Some(roles) = &self.reviewer else { return false };
        !self.context.is_user(&spec.user) && roles.check_review(spec).is_allowed()
    }

    fn has_reviewed(&self, spec: &AccessRequestSpecV3) -> bool {
        spec.reviews.iter().any(|review| self.context.is_user(&review.author))
    }

    /// Whether a request is wanted and may be seen.
    fn finds(&self, filter: &AccessRequestFilter, request: &AccessRequestV3) -> bool {
        let Some(spec) = &request.spec else { return false };
        let equals = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
        let word = |word: &String| searched(request, spec).any(|text| text.contains(&word.to_lowercase()));
        equals(&filter.id, request.name())
            && equals(&filter.user, &spec.user)
            && equals(&filter.requester, &spec.user)
            && (filter.state == 0 || filter.state == spec.state)
            && filter.search_keywords.iter().all(word)
            && self.is_in(filter.scope(), spec)
            && self.shows(spec)
    }

    fn is_in(&self, scope: AccessRequestScope, spec: &AccessRequestSpecV3) -> bool {
        match scope {
            AccessRequestScope::Default => true,
            AccessRequestScope::MyRequests => self.context.is_user(&spec.user),
            AccessRequestScope::NeedsReview => {
                let waits = state_of(spec) == RequestState::Pending && !self.has_reviewed(spec);
                waits && !self.context.is_user(&spec.user)
            }
            AccessRequestScope::Reviewed => self.has_reviewed(spec),
        }
    }
}

/// The texts that words are searched in.
fn searched<'r>(request: &'r AccessRequestV3, spec: &'r AccessRequestSpecV3) -> impl Iterator<Item = String> + 'r {
    let ids = spec.requested_resource_i_ds.iter().map(|id| id.name.as_str());
    let texts = [request.name(), spec.user.as_str(), spec.request_reason.as_str(), spec.resolve_reason.as_str()];
    texts.into_iter().chain(spec.roles.iter().map(String::as_str)).chain(ids).map(str::to_lowercase)
}

/// The requests that the caller may see, a page at a time.
pub async fn list_access_requests(
    api: &Api,
    context: &AuthContext,
    message: ListAccessRequestsRequest,
) -> Result<ListAccessRequestsResponse> {
    let filter = message.filter.clone().unwrap_or_default();
    let limit = page::limit(message.limit)?;
    let mut found = visible(api, context, &filter).await?;
    let by = |a: &AccessRequestV3, b: &AccessRequestV3| compare(message.sort(), a, b).then(a.name().cmp(b.name()));
    found.sort_by(|a, b| if message.descending { by(b, a) } else { by(a, b) });
    let start = match message.start_key.as_str() {
        "" => 0,
        key => found.iter().position(|request| request.name() == key).ok_or_else(|| {
            Error::bad_parameter("StartKey: the request with which the page begins is gone: list from the start")
        })?,
    };
    let mut rest = found.split_off(start);
    let mut next_key = rest.get(limit).map(|request| request.name().to_owned()).unwrap_or_default();
    rest.truncate(limit);
    page::fit(&mut rest, &mut next_key, |request| request.name().to_owned());
    Ok(ListAccessRequestsResponse { access_requests: rest, next_key })
}

/// The same for older clients, as a stream.
pub async fn get_access_requests(
    api: &Api,
    context: &AuthContext,
    filter: AccessRequestFilter,
) -> Result<impl Stream<Item = Result<AccessRequestV3, Status>> + Send + 'static + use<>> {
    Ok(stream::iter(visible(api, context, &filter).await?.into_iter().map(Ok)))
}

async fn visible(api: &Api, context: &AuthContext, filter: &AccessRequestFilter) -> Result<Vec<AccessRequestV3>> {
    if filter.search_keywords.len() > MAX_WORDS {
        return Err(Error::bad_parameter(format!("a search has at most {MAX_WORDS} words")));
    }
    let view = View::of(api, context);
    let mut all = api.auth().store().list::<kind::AccessRequest>().await?;
    all.retain(|request| view.finds(filter, request));
    Ok(page::owned(all))
}

fn compare(sort: AccessRequestSort, a: &AccessRequestV3, b: &AccessRequestV3) -> Ordering {
    let spec = |request: &AccessRequestV3| request.spec.clone().unwrap_or_default();
    match sort {
        AccessRequestSort::Default => Ordering::Equal,
        AccessRequestSort::Created => {
            let created = |request| spec(request).created.map(|at| (at.seconds, at.nanos));
            created(a).cmp(&created(b))
        }
        AccessRequestSort::State => spec(a).state.cmp(&spec(b).state),
        AccessRequestSort::User => spec(a).user.cmp(&spec(b).user),
    }
}

/// Makes a request: for oneself, or with the verb for somebody else.
pub async fn create_access_request(
    api: &Api,
    context: &AuthContext,
    request: AccessRequestV3,
) -> Result<AccessRequestV3> {
    let user = named(request.spec.as_ref().map_or("", |spec| &spec.user), "spec.user")?;
    let own = context.is_local_person() && context.is_user(user);
    if own && context.identity().is_some_and(|held| !held.impersonator.is_empty() && held.impersonator != user) {
        // Its impersonator would be free to approve it.
        return Err(Error::access_denied("access denied: nobody makes access requests as somebody else"));
    }
    if !own {
        context.require(KIND, &["create"])?;
    }
    // Somebody who acts for another has no session of theirs.
    let session_end = if own { context.expires() } else { None };
    api.auth().create_access_request(context.caller(), request, session_end).await
}

pub async fn set_access_request_state(api: &Api, context: &AuthContext, message: RequestStateSetter) -> Result<()> {
    named(&message.id, "ID")?;
    api.auth().set_access_request_state(context.caller(), message).await
}

pub async fn delete_access_request(api: &Api, context: &AuthContext, message: RequestId) -> Result<()> {
    api.auth().delete_access_request(context.caller(), named(&message.id, "ID")?).await
}

/// Counts the review of the caller; the administrator on this machine names whose it is.
pub async fn submit_access_review(
    api: &Api,
    context: &AuthContext,
    message: AccessReviewSubmission,
) -> Result<AccessRequestV3> {
    let review = required(message.review, "review")?;
    let id = named(&message.request_id, "id")?;
    if context.is_admin() {
        let author = named(&review.author, "review.author")?.to_owned();
        let (_, roles) = api.auth().user_role_set(&author)?;
        let reviewer = Reviewer { name: &author, roles: &roles };
        return api.auth().review_access_request(context.caller(), id, reviewer, review).await;
    }
    let roles = reviewing_roles(api, context)?;
    if !review.author.is_empty() && !context.is_user(&review.author) {
        return Err(Error::access_denied("access denied: nobody reviews in the name of somebody else"));
    }
    let reviewer = Reviewer { name: context.username(), roles: &roles };
    api.auth().review_access_request(context.caller(), id, reviewer, review).await
}

/// The roles by which the caller reviews: those that he holds by now, also by access lists, neither roles of an access request nor any that
/// were taken from him since. Bots have their roles in their certificates only.
pub(super) fn reviewing_roles(api: &Api, context: &AuthContext) -> Result<RoleSet> {
    let certified = context.roles().filter(|_| context.is_local_person());
    let certified =
        certified.ok_or_else(|| Error::access_denied("access denied: only users of this cluster review requests"))?;
    let name = context.username();
    let user = api.auth().store().cached::<kind::User>(name)?;
    if is_bot(&user) {
        return Ok(certified.clone());
    }
    let UserRights { mut roles, traits, .. } = api.auth().rights_of(&user);
    if let Some(identity) = context.identity().filter(|identity| identity.impersonator == name) {
        // Who chose some of the own roles for this certificate left out the others.
        roles.retain(|role| identity.groups.contains(role));
    }
    api.auth().role_set(&roles, &traits, name)
}

/// What the caller, or with the verbs somebody else, could ask for.
pub async fn get_access_capabilities(
    api: &Api,
    context: &AuthContext,
    mut message: AccessCapabilitiesRequest,
) -> Result<AccessCapabilities> {
    if message.user.is_empty() {
        message.user = context.username().to_owned();
    }
    context.require_self_or(&message.user, KIND, &["list", "read"])?;
    api.auth().access_capabilities(message).await
}

/// A request that the caller may see.
pub(super) async fn visible_request(api: &Api, context: &AuthContext, id: &str) -> Result<AccessRequestV3> {
    let request = api.auth().store().get::<kind::AccessRequest>(named(id, "access_request_id")?).await;
    let shown =
        |request: &AccessRequestV3| request.spec.as_ref().is_some_and(|spec| View::of(api, context).shows(spec));
    match request {
        Ok(request) if shown(&request) => Ok((*request).clone()),
        _ => Err(Error::not_found(format!("access request {id:?} not found"))),
    }
}

/// The access lists that a request could become a membership of.
pub async fn get_allowed_promotions(
    api: &Api,
    context: &AuthContext,
    message: AccessRequestAllowedPromotionRequest,
) -> Result<AccessRequestAllowedPromotionResponse> {
    let request = visible_request(api, context, &message.access_request_id).await?;
    let lists = api.auth().lists_for_request(&request.spec.unwrap_or_default());
    let promotions =
        lists.iter().map(|list| AccessRequestAllowedPromotion { access_list_name: list.name().to_owned() });
    let allowed_promotions = Some(AccessRequestAllowedPromotions { promotions: promotions.collect() });
    Ok(AccessRequestAllowedPromotionResponse { allowed_promotions })
}
