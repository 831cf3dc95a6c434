//! Counting reviews of a request for access.

use serde_json::json;
use wire::types::{AccessRequestSpecV3, AccessReview, RequestState};

use crate::requests::{annotations_json, holds};
use crate::role_set::RoleSet;

impl RoleSet {
    /// The thresholds of a request for which a review by this user counts: those whose filter fits it.
    pub fn thresholds_met_by(&self, request: &AccessRequestSpecV3, review: &AccessReview) -> Vec<u32> {
        let annotations = review.annotations.as_ref().map(annotations_json);
        let context =
            self.review_context(request).with_review(&json!({"reason": review.reason, "annotations": annotations}));
        let fits = request.thresholds.iter().enumerate().filter(|(_, t)| holds(&t.filter, &context, false));
        fits.filter_map(|(index, _)| u32::try_from(index).ok()).collect()
    }
}

/// The state of a pending request after its last review.
///
/// It is approved when for every role, of every set of thresholds, one has enough approvals; denied when any threshold
/// has enough denials. Only the last review can tip the balance, and only in its own direction: a denial never approves.
pub fn reviewed_state(request: &AccessRequestSpecV3) -> RequestState {
    let Some(last) = request.reviews.last() else { return RequestState::Pending };
    match RequestState::try_from(last.proposed_state) {
        Ok(RequestState::Promoted) => RequestState::Promoted,
        Ok(RequestState::Approved) if is_approved(request) => RequestState::Approved,
        Ok(RequestState::Denied) if is_denied(request) => RequestState::Denied,
        _ => RequestState::Pending,
    }
}

fn is_approved(request: &AccessRequestSpecV3) -> bool {
    let every_role = request.roles.iter().all(|role| {
        let sets = request.role_threshold_mapping.get(role).map(|sets| sets.sets.as_slice()).unwrap_or_default();
        let met = |index: &u32| {
            let threshold = threshold(request, *index);
            threshold.is_some_and(|t| t.approve != 0 && count(request, *index, RequestState::Approved) >= t.approve)
        };
        !sets.is_empty() && sets.iter().all(|set| set.indexes.iter().any(met))
    });
    every_role && !request.roles.is_empty()
}

fn is_denied(request: &AccessRequestSpecV3) -> bool {
    request.thresholds.iter().enumerate().any(|(index, threshold)| {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        threshold.deny != 0 && count(request, index, RequestState::Denied) >= threshold.deny
    })
}

fn threshold(request: &AccessRequestSpecV3, index: u32) -> Option<&wire::types::AccessReviewThreshold> {
    request.thresholds.get(usize::try_from(index).ok()?)
}

/// How many reviews that propose a state count for a threshold.
fn count(request: &AccessRequestSpecV3, threshold: u32, state: RequestState) -> u32 {
    let counted = request
        .reviews
        .iter()
        .filter(|review| review.proposed_state == state as i32 && review.threshold_indexes.contains(&threshold));
    u32::try_from(counted.count()).unwrap_or(u32::MAX)
}
