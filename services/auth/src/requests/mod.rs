//! Requests for more access: made, decided, reviewed, dropped.
//!
//! [`wish`] checks what is asked for against the roles of whoever asks; [`notes`] tells the audit log. What counts as
//! enough reviews is decided in `rbac`.

mod notes;
mod wish;

use audit::codes;
use chrono::{DateTime, TimeDelta, Utc};
use rbac::{RoleSet, reviewed_state};
use resources::Resource as _;
use wire::error::{Error, ErrorKind, Result};
use wire::proto::RequestStateSetter;
use wire::time::{moment, timestamp};
use wire::types::{AccessRequestSpecV3, AccessRequestV3, AccessReview, PromotedAccessList, RequestState};
use wire::wrappers::LabelValues;

use crate::store::kind;
use crate::{Auth, Caller};

/// Longest reason, in bytes.
const MAX_REASON: usize = 4096;
/// Bytes of all annotations together.
const MAX_ANNOTATIONS: usize = 64 << 10;
/// Most reviews of one request.
const MAX_REVIEWS: usize = 100;
/// How long after its creation a request's access may begin.
const MAX_START: TimeDelta = TimeDelta::days(7);

/// The state of a request, as messages call it.
pub(crate) fn state_of(spec: &AccessRequestSpecV3) -> RequestState {
    RequestState::try_from(spec.state).unwrap_or_default()
}

/// A reviewer with the roles that let him review.
pub struct Reviewer<'a> {
    /// His name.
    pub name: &'a str,
    /// His roles.
    pub roles: &'a RoleSet,
}

impl Auth {
    /// Makes a request, or only checks it when it says so. `session_end` is when the login of whoever asks ends.
    ///
    /// # Errors
    /// `NotFound` for unknown users and roles, `AccessDenied` for what the user may not ask for, `BadParameter` for
    /// contradictions, `LimitExceeded` when too much is pending.
    pub async fn create_access_request(
        &self,
        caller: &Caller,
        request: AccessRequestV3,
        session_end: Option<DateTime<Utc>>,
    ) -> Result<AccessRequestV3> {
        let dry_run = request.spec.as_ref().is_some_and(|spec| spec.dry_run);
        let request = self.checked_wish(request, session_end).await?;
        if dry_run {
            return Ok(request);
        }
        let stored = self.store().create::<kind::AccessRequest>(request).await?;
        let spec = stored.spec.clone().unwrap_or_default();
        self.0.metrics.access_request(spec.roles.len(), spec.requested_resource_i_ds.len());
        self.emit(codes::ACCESS_REQUEST_CREATE.event(notes::about(caller, &stored))).await?;
        Ok((*stored).clone())
    }

    /// Approves or denies a pending request.
    ///
    /// # Errors
    /// `NotFound`; `AccessDenied` for one's own request; `BadParameter` when it is decided already, and for roles that
    /// were not asked for.
    pub async fn set_access_request_state(&self, caller: &Caller, wish: RequestStateSetter) -> Result<()> {
        let state = RequestState::try_from(wish.state).unwrap_or_default();
        if !matches!(state, RequestState::Approved | RequestState::Denied) {
            return Err(Error::bad_parameter("a request is approved or denied"));
        }
        check_reason(&wish.reason)?;
        check_annotations(wish.annotations.as_ref())?;
        let (now, decider) = (self.now(), caller.user_name());
        let admin = caller.is_admin();
        let stored = self
            .store()
            .change::<kind::AccessRequest>(&wish.id, |request| {
                let created = created(request, now);
                let spec = request.spec.get_or_insert_default();
                check_pending(spec)?;
                if !admin && (spec.user == decider || is_impersonator(caller, &spec.user)) {
                    return Err(Error::access_denied("access denied: nobody decides about their own access request"));
                }
                if let Some(role) = wish.roles.iter().find(|role| !spec.roles.contains(role)) {
                    return Err(Error::bad_parameter(format!("role {role:?} was not asked for")));
                }
                if !wish.roles.is_empty() {
                    spec.roles.clone_from(&wish.roles);
                }
                spec.resolve_reason.clone_from(&wish.reason);
                spec.resolve_annotations.clone_from(&wish.annotations);
                if wish.assume_start_time.is_some() {
                    check_start(moment(wish.assume_start_time.as_ref()), created, spec)?;
                    spec.assume_start_time = wish.assume_start_time;
                }
                spec.state = state.into();
                settle(request);
                Ok(())
            })
            .await
            .map_err(|error| named(error, &wish.id))?;
        let mut event = notes::about(caller, &stored);
        event.delegator = wish.delegator;
        event.reason = wish.reason;
        self.emit(codes::ACCESS_REQUEST_UPDATE.event(event)).await
    }

    /// Counts a review.
    ///
    /// # Errors
    /// `NotFound`; `AccessDenied` for reviewers whose roles do not allow it, and for one's own request; `BadParameter`
    /// when it is decided already; `AlreadyExists` for a second review of the same reviewer.
    pub async fn review_access_request(
        &self,
        caller: &Caller,
        id: &str,
        reviewer: Reviewer<'_>,
        mut review: AccessReview,
    ) -> Result<AccessRequestV3> {
        check_review(&review)?;
        let now = self.now();
        review.author = reviewer.name.to_owned();
        review.created = Some(timestamp(now));
        let proposed = review.proposed_state;
        let (reason, start) = (review.reason.clone(), review.assume_start_time);
        let stored = self
            .store()
            .change::<kind::AccessRequest>(id, |request| {
                let created = created(request, now);
                let spec = request.spec.get_or_insert_default();
                check_pending(spec)?;
                if spec.user == reviewer.name || !caller.is_admin() && is_impersonator(caller, &spec.user) {
                    return Err(Error::access_denied("access denied: nobody reviews their own access request"));
                }
                if spec.reviews.iter().any(|one| one.author == reviewer.name) {
                    let text = format!("user {:?} has already reviewed this request", reviewer.name);
                    return Err(Error::already_exists(text));
                }
                if spec.reviews.len() >= MAX_REVIEWS {
                    return Err(Error::limit_exceeded(format!("the request has {MAX_REVIEWS} reviews already")));
                }
                reviewer.roles.check_review(spec).into_result().map_err(Error::from)?;
                if start.is_some() {
                    check_start(moment(start.as_ref()), created, spec)?;
                }
                let mut review = review.clone();
                review.threshold_indexes = reviewer.roles.thresholds_met_by(spec, &review);
                spec.reviews.push(review);
                let state = reviewed_state(spec);
                if state != RequestState::Pending {
                    spec.state = state.into();
                    spec.resolve_reason.clone_from(&reason);
                    if start.is_some() && state == RequestState::Approved {
                        spec.assume_start_time = start;
                    }
                    settle(request);
                }
                Ok(())
            })
            .await
            .map_err(|error| named(error, id))?;
        let mut event = notes::about(caller, &stored);
        event.reviewer = reviewer.name.to_owned();
        event.proposed_state = notes::state_name(RequestState::try_from(proposed).unwrap_or_default()).to_owned();
        event.reason = reason;
        self.emit(codes::ACCESS_REQUEST_REVIEW.event(event)).await?;
        Ok((*stored).clone())
    }

    /// Turns a pending request into a membership of an access list; the member is added by the caller of this.
    ///
    /// # Errors
    /// As [`review_access_request`](Self::review_access_request).
    pub(crate) async fn decide_promotion(
        &self,
        caller: &Caller,
        reviewer: Reviewer<'_>,
        id: &str,
        list: PromotedAccessList,
        reason: &str,
    ) -> Result<AccessRequestV3> {
        check_reason(reason)?;
        let now = self.now();
        let admin = caller.is_admin();
        let review = AccessReview {
            author: reviewer.name.to_owned(),
            proposed_state: RequestState::Promoted.into(),
            reason: reason.to_owned(),
            created: Some(timestamp(now)),
            access_list: Some(list.clone()),
            ..AccessReview::default()
        };
        let stored = self
            .store()
            .change::<kind::AccessRequest>(id, |request| {
                let spec = request.spec.get_or_insert_default();
                check_pending(spec)?;
                if !admin && (spec.user == reviewer.name || is_impersonator(caller, &spec.user)) {
                    return Err(Error::access_denied("access denied: nobody reviews their own access request"));
                }
                if spec.reviews.len() >= MAX_REVIEWS {
                    return Err(Error::limit_exceeded(format!("the request has {MAX_REVIEWS} reviews already")));
                }
                if !admin {
                    reviewer.roles.check_review(spec).into_result().map_err(Error::from)?;
                }
                spec.reviews.push(review.clone());
                spec.state = RequestState::Promoted.into();
                spec.resolve_reason = reason.to_owned();
                spec.access_list = Some(list.clone());
                Ok(())
            })
            .await
            .map_err(|error| named(error, id))?;
        let mut event = notes::about(caller, &stored);
        event.reviewer = reviewer.name.to_owned();
        event.proposed_state = notes::state_name(RequestState::Promoted).to_owned();
        event.reason = reason.to_owned();
        event.promoted_access_list_name = list.name;
        self.emit(codes::ACCESS_REQUEST_REVIEW.event(event)).await?;
        Ok((*stored).clone())
    }

    /// Removes a request, whatever its state: certificates that hold its roles are not renewed any more.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_access_request(&self, caller: &Caller, id: &str) -> Result<()> {
        self.store().delete::<kind::AccessRequest>(id).await.map_err(|error| named(error, id))?;
        self.emit(codes::ACCESS_REQUEST_DELETE.event(notes::removal(caller, id))).await
    }
}

/// Whether a user calls with a certificate of somebody else.
fn is_impersonator(caller: &Caller, user: &str) -> bool {
    caller.identity.as_deref().is_some_and(|identity| identity.impersonator == user)
}

/// A decided request lives as long as its access, when there is any; a denied one as long as it would have waited.
fn settle(request: &mut AccessRequestV3) {
    let spec = request.spec.get_or_insert_default();
    if state_of(spec) == RequestState::Approved {
        let expires = spec.expires;
        request.metadata_mut().expires = expires;
    }
}

fn created(request: &AccessRequestV3, now: DateTime<Utc>) -> DateTime<Utc> {
    request.spec.as_ref().and_then(|spec| moment(spec.created.as_ref())).unwrap_or(now)
}

fn check_pending(spec: &AccessRequestSpecV3) -> Result<()> {
    let word = match state_of(spec) {
        RequestState::None | RequestState::Pending => return Ok(()),
        RequestState::Approved => "approved",
        RequestState::Denied => "denied",
        RequestState::Promoted => "promoted",
    };
    Err(Error::bad_parameter(format!("the access request has been already {word}")))
}

/// Access begins while the request is there for it.
fn check_start(start: Option<DateTime<Utc>>, created: DateTime<Utc>, spec: &AccessRequestSpecV3) -> Result<()> {
    let refused = |what: &str| Err(Error::bad_parameter(format!("assume_start_time: {what}")));
    let Some(start) = start else { return refused("is not a moment") };
    if start < created {
        return refused("is before the request was made");
    }
    if start > created + MAX_START {
        return refused("is more than 7 days after the request was made");
    }
    match moment(spec.expires.as_ref()) {
        Some(end) if start >= end => refused("is not before the end of the access"),
        _ => Ok(()),
    }
}

fn check_review(review: &AccessReview) -> Result<()> {
    match RequestState::try_from(review.proposed_state) {
        Ok(RequestState::Approved | RequestState::Denied) => {}
        Ok(RequestState::Promoted) => {
            return Err(Error::bad_parameter("a request is promoted to an access list by a call of its own"));
        }
        _ => return Err(Error::bad_parameter("a review proposes to approve or to deny")),
    }
    if !review.roles.is_empty() {
        return Err(Error::bad_parameter("a review is about all roles of a request"));
    }
    check_reason(&review.reason)?;
    check_annotations(review.annotations.as_ref())
}

fn check_reason(reason: &str) -> Result<()> {
    if reason.len() > MAX_REASON {
        return Err(Error::bad_parameter(format!("the reason is longer than {MAX_REASON} bytes")));
    }
    Ok(())
}

fn check_annotations(annotations: Option<&LabelValues>) -> Result<()> {
    if annotations.map_or(0, prost::Message::encoded_len) > MAX_ANNOTATIONS {
        return Err(Error::bad_parameter(format!("the annotations are longer than {MAX_ANNOTATIONS} bytes")));
    }
    Ok(())
}

/// Names the request that was not found; its place in the storage is nobody's business.
fn named(error: Error, id: &str) -> Error {
    match error.kind {
        ErrorKind::NotFound => Error::not_found(format!("access request {id:?} not found")),
        _ => error,
    }
}
