//! Access lists, and what people had at their last login.

use std::collections::BTreeSet;

use prost_types::Duration;
use uuid::Uuid;
use wire::{
    accesslist::{AccessList, AccessListGrants, Member, Notifications, Review, ReviewDayOfMonth, ReviewFrequency},
    time,
    userloginstate::UserLoginState,
};

use super::{required, table::kinds};
use crate::{Place, ResourceError, Result, kind, places};

/// How long before a review its owners are reminded: two weeks, in seconds.
const REMIND_BEFORE: i64 = 14 * 24 * 3600;

kinds! {
    AccessList: kind::ACCESS_LIST, "v1", embedded_header {
        place: |list| Place::new(places::ACCESS_LISTS, [list.name()]),
        defaults: fill_list,
        check: check_list,
    }
    Member: kind::ACCESS_LIST_MEMBER, "v1", embedded_header {
        place: |member| {
            let list = member.spec.as_ref().map_or("", |s| &s.access_list);
            Place::new(places::ACCESS_LIST_MEMBERS, [list, member.name()])
        },
        defaults: |member| {
            let name = member.spec.get_or_insert_default().name.clone();
            super::default_text(&mut member.metadata_mut().name, &name);
            let name = member.name().to_owned();
            super::default_text(&mut member.spec.get_or_insert_default().name, &name);
        },
        check: |member| {
            let spec = member.spec.clone().unwrap_or_default();
            required(&[
                ("spec.access_list", &spec.access_list),
                ("spec.name", &spec.name),
                ("spec.added_by", &spec.added_by),
            ])?;
            match time::moment(spec.joined.as_ref()) {
                Some(_) => Ok(()),
                None => Err(ResourceError::field("spec.joined", "missing value")),
            }
        },
    }
    Review: kind::ACCESS_LIST_REVIEW, "v1", embedded_header {
        place: |review| {
            let list = review.spec.as_ref().map_or("", |s| &s.access_list);
            Place::new(places::ACCESS_LIST_REVIEWS, [list, review.name()])
        },
        defaults: |review| {
            review.spec.get_or_insert_default();
            if review.name().is_empty() {
                review.metadata_mut().name = Uuid::new_v4().to_string();
            }
        },
        check: |review| {
            let spec = review.spec.clone().unwrap_or_default();
            required(&[("spec.access_list", &spec.access_list)])?;
            if spec.reviewers.is_empty() {
                return Err(ResourceError::field("spec.reviewers", "missing the names of reviewers"));
            }
            Ok(())
        },
    }
    UserLoginState: kind::USER_LOGIN_STATE, "v1", embedded_header {
        place: |state| Place::new(places::USER_LOGIN_STATES, [state.name()]),
        defaults: |state| { state.spec.get_or_insert_default(); },
        check: |_| Ok(()),
    }
}

/// A list that says nothing about reviews is reviewed every half year, on the first of the month.
fn fill_list(list: &mut AccessList) {
    let spec = list.spec.get_or_insert_default();
    let mut seen = BTreeSet::new();
    spec.owners.retain(|owner| seen.insert(owner.name.clone()));
    let audit = spec.audit.get_or_insert_default();
    let recurrence = audit.recurrence.get_or_insert_default();
    if recurrence.frequency == ReviewFrequency::Unspecified as i32 {
        recurrence.frequency = ReviewFrequency::SixMonths as i32;
    }
    if recurrence.day_of_month == ReviewDayOfMonth::Unspecified as i32 {
        recurrence.day_of_month = ReviewDayOfMonth::First as i32;
    }
    let unset = audit.notifications.as_ref().is_none_or(|n| n.start.is_none());
    if unset {
        audit.notifications = Some(Notifications { start: Some(Duration { seconds: REMIND_BEFORE, nanos: 0 }) });
    }
    spec.membership_requires.get_or_insert_default();
    spec.ownership_requires.get_or_insert_default();
    spec.grants.get_or_insert_default();
    spec.owner_grants.get_or_insert_default();
}

fn check_list(list: &AccessList) -> Result<()> {
    let spec = list.spec.clone().unwrap_or_default();
    if spec.title.is_empty() {
        return Err(ResourceError::field("spec.title", "access list title required"));
    }
    if spec.owners.is_empty() {
        return Err(ResourceError::field("spec.owners", "owners are missing"));
    }
    if let Some(i) = spec.owners.iter().position(|owner| owner.name.is_empty()) {
        return Err(ResourceError::field(format!("spec.owners[{i}].name"), "owner name is missing"));
    }
    if spec.grants.as_ref().is_none_or(gives_nothing) {
        return Err(ResourceError::field("spec.grants", "grants must specify at least one role or trait"));
    }
    Ok(())
}

fn gives_nothing(grants: &AccessListGrants) -> bool {
    grants.roles.is_empty() && grants.traits.is_empty()
}
