//! Reviews of access lists: owners confirm who is in, and change what has to change.

use std::collections::HashSet;

use audit::codes;
use backend::{Condition, ConditionalAction, Item, Key};
use chrono::{DateTime, Utc};
use resources::{Place, Resource as _};
use wire::accesslist::{AccessList, Review, ReviewChanges, ReviewDayOfMonth, ReviewFrequency};
use wire::error::{Error, ErrorKind, Result};
use wire::{events, time};

use crate::store::{self, kind};
use crate::{Auth, Caller};

/// Longest note of a review, in bytes.
const MAX_NOTES: usize = 4096;
/// Most members that one review removes.
const MAX_REMOVED: usize = 10_000;
/// Where the members are named that a review removes, while that is not done.
const UNFINISHED: &str = "/access_list_unfinished_review";

impl Auth {
    /// Takes the review of a list by `reviewer`: the changes it names are made, and the next one is due later. The
    /// answer is the review as stored and when the next one is due.
    ///
    /// # Errors
    /// `NotFound` when there is no such list; `BadParameter` for malformed reviews and members who are none.
    pub async fn review_access_list(
        &self,
        caller: &Caller,
        reviewer: &str,
        mut review: Review,
    ) -> Result<(Review, DateTime<Utc>)> {
        // A review is new: nobody overwrites one of others by naming it.
        review.header = None;
        let spec = review.spec.get_or_insert_default();
        spec.reviewers = vec![reviewer.to_owned()];
        spec.review_date = Some(time::timestamp(self.now()));
        review.check_and_set_defaults().map_err(Error::from)?;
        let outcome = self.reviewed(caller, review.clone()).await;
        let (code, told) = match &outcome {
            Ok((stored, _)) => (codes::ACCESS_LIST_REVIEW, stored),
            Err(_) => (codes::ACCESS_LIST_REVIEW_FAILURE, &review),
        };
        let emitted = self.emit(code.event(event(told, reviewer, outcome.as_ref().err()))).await;
        let answer = outcome?;
        emitted.map(|()| answer)
    }

    async fn reviewed(&self, caller: &Caller, review: Review) -> Result<(Review, DateTime<Utc>)> {
        let now = self.now();
        let spec = review.spec.clone().unwrap_or_default();
        let changes = spec.changes.clone().unwrap_or_default();
        let list = &spec.access_list;
        if spec.notes.len() > MAX_NOTES || changes.removed_members.len() > MAX_REMOVED {
            return Err(Error::limit_exceeded(format!(
                "a review has at most {MAX_NOTES} bytes of notes and removes at most {MAX_REMOVED} members"
            )));
        }
        let reviewed = |list: &mut AccessList| {
            apply(list, &changes, now);
            list.check_and_set_defaults().map_err(Error::from)
        };
        reviewed(&mut (*self.store().cached::<kind::AccessList>(list)?).clone())?;
        self.check_removed(list, &changes.removed_members).await?;
        let unfinished = unfinished(list)?;
        if !changes.removed_members.is_empty() {
            let names =
                serde_json::to_vec(&changes.removed_members).map_err(|error| Error::other(error.to_string()))?;
            let item = Item::new(unfinished.clone(), names);
            self.store().backend().put(item).await.map_err(|error| store::storage(&error))?;
        }
        for member in &changes.removed_members {
            match self.delete_list_member(caller, list, member).await {
                Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Should something have failed on the way, the list is still due, nobody sees a review, and it can be repeated.
        let last = [
            store::put::<kind::AccessListReview>(&review, Condition::NotExists)?,
            ConditionalAction::delete(unfinished, Condition::Whatever),
        ];
        let changed = self.store().change_with::<kind::AccessList>(list, reviewed, &last).await?;
        let audit = changed.spec.as_ref().and_then(|spec| spec.audit).unwrap_or_default();
        let next = time::moment(audit.next_audit_date.as_ref()).unwrap_or(now);
        Ok((review, next))
    }

    /// Forgets what a review had begun to remove from a list.
    pub(super) async fn forget_unfinished_review(&self, list: &str) -> Result<()> {
        match self.store().backend().delete(&unfinished(list)?).await {
            Err(error) if !error.is_not_found() => Err(store::storage(&error)),
            _ => Ok(()),
        }
    }

    /// Whoever is to be removed is a member, or was to be removed by a review that has not come to its end.
    async fn check_removed(&self, list: &str, names: &[String]) -> Result<()> {
        let strangers: Vec<&String> = names.iter().filter(|name| self.list_member(list, name).is_none()).collect();
        if strangers.is_empty() {
            return Ok(());
        }
        let removed: HashSet<String> = match self.store().backend().get(&unfinished(list)?).await {
            Ok(item) => store::from_json("review", &item)?,
            Err(error) if error.is_not_found() => HashSet::new(),
            Err(error) => return Err(store::storage(&error)),
        };
        match strangers.into_iter().find(|name| !removed.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(Error::bad_parameter(format!("{name:?} is no member of access list {list:?}"))),
        }
    }
}

fn unfinished(list: &str) -> Result<Key> {
    store::key_at(&Place::new(UNFINISHED, [list]))
}

fn apply(list: &mut AccessList, changes: &ReviewChanges, now: DateTime<Utc>) {
    let spec = list.spec.get_or_insert_default();
    if let Some(requires) = &changes.membership_requirements_changed {
        spec.membership_requires = Some(requires.clone());
    }
    let audit = spec.audit.get_or_insert_default();
    let mut recurrence = audit.recurrence.unwrap_or_default();
    if changes.review_frequency_changed != ReviewFrequency::Unspecified as i32 {
        recurrence.frequency = changes.review_frequency_changed;
    }
    if changes.review_day_of_month_changed != ReviewDayOfMonth::Unspecified as i32 {
        recurrence.day_of_month = changes.review_day_of_month_changed;
    }
    audit.recurrence = Some(recurrence);
    let due = time::moment(audit.next_audit_date.as_ref()).unwrap_or(now);
    audit.next_audit_date = Some(time::timestamp(resources::next_review(recurrence, due, now)));
}

fn event(review: &Review, reviewer: &str, failure: Option<&Error>) -> events::AccessListReview {
    let spec = review.spec.clone().unwrap_or_default();
    let changes = spec.changes.unwrap_or_default();
    let requires = changes.membership_requirements_changed.as_ref();
    let frequency = ReviewFrequency::try_from(changes.review_frequency_changed).unwrap_or_default();
    let day = ReviewDayOfMonth::try_from(changes.review_day_of_month_changed).unwrap_or_default();
    events::AccessListReview {
        resource: Some(events::ResourceMetadata {
            name: spec.access_list,
            updated_by: reviewer.to_owned(),
            ..Default::default()
        }),
        review: Some(events::AccessListReviewMetadata {
            message: spec.notes,
            review_id: review.name().to_owned(),
            membership_requirements_changed: requires.map(|requires| {
                events::AccessListReviewMembershipRequirementsChanged {
                    roles: requires.roles.clone(),
                    traits: requires.traits.iter().map(|one| (one.key.clone(), one.values.join(","))).collect(),
                }
            }),
            review_frequency_changed: match frequency {
                ReviewFrequency::Unspecified => String::new(),
                frequency => frequency.as_str_name().to_owned(),
            },
            review_day_of_month_changed: match day {
                ReviewDayOfMonth::Unspecified => String::new(),
                day => day.as_str_name().to_owned(),
            },
            removed_members: changes.removed_members,
        }),
        status: Some(events::Status {
            success: failure.is_none(),
            error: failure.map(|error| error.message.clone()).unwrap_or_default(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
