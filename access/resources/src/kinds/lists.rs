//! Access lists, and what people had at their last login.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, Months, NaiveTime, TimeDelta, Utc};
use prost_types::Duration;
use uuid::Uuid;
use wire::{
    accesslist::{
        AccessList, AccessListGrants, Member, MembershipKind, Notifications, Recurrence, Review, ReviewDayOfMonth,
        ReviewFrequency,
    },
    time,
    userloginstate::UserLoginState,
};

use super::{required, table::kinds};
use crate::{Place, ResourceError, Result, kind, places};

/// How long before a review its owners are reminded: two weeks, in seconds.
const REMIND_BEFORE: i64 = 14 * 24 * 3600;

/// How many reviews can have been missed: one a month for ten years.
const MOST_MISSED: u32 = 122;

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
            // The record is found by the one name and was looked at by the other.
            if spec.name != member.name() {
                let text = format!("{:?} is not the name of the record, {:?}", spec.name, member.name());
                return Err(ResourceError::field("spec.name", text));
            }
            known_kind("spec.membership_kind", spec.membership_kind)?;
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
    spec.owners.retain(|owner| seen.insert((owner.name.clone(), owner.membership_kind == MembershipKind::List as i32)));
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
    for (i, owner) in spec.owners.iter().enumerate() {
        known_kind(&format!("spec.owners[{i}].membership_kind"), owner.membership_kind)?;
    }
    if spec.grants.as_ref().is_none_or(gives_nothing) {
        return Err(ResourceError::field("spec.grants", "grants must specify at least one role or trait"));
    }
    Ok(())
}

fn known_kind(field: &str, kind: i32) -> Result<()> {
    match MembershipKind::try_from(kind) {
        Ok(_) => Ok(()),
        Err(_) => Err(ResourceError::field(field, format!("unknown kind {kind}: expected a user or a list"))),
    }
}

/// When a list is reviewed next after a review that was `due`: so many months later, on the day of the month that the
/// list says, and after `now`.
pub fn next_review(recurrence: Recurrence, due: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    let months = u32::try_from(recurrence.frequency).unwrap_or_default().clamp(1, 120);
    // A review that was missed for long does not count month by month.
    let from = if now - due > TimeDelta::days(3660) { now } else { due };
    for times in 1..=MOST_MISSED {
        let Some(month) =
            from.date_naive().with_day(1).and_then(|first| first.checked_add_months(Months::new(months * times)))
        else {
            break;
        };
        let day = match recurrence.day_of_month {
            15 => month.with_day(15),
            31 => month.checked_add_months(Months::new(1)).and_then(|next| next.pred_opt()),
            _ => Some(month),
        };
        let next = day.map(|day| day.and_time(NaiveTime::MIN).and_utc());
        if let Some(next) = next.filter(|next| *next > now) {
            return next;
        }
    }
    now + TimeDelta::days(30)
}

fn gives_nothing(grants: &AccessListGrants) -> bool {
    grants.roles.is_empty() && grants.traits.is_empty()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reviews_are_due_on_the_day_of_the_month_that_the_list_says() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let next = |frequency, day_of_month, due, now| {
            next_review(Recurrence { frequency, day_of_month }, at(due), at(now)).to_rfc3339()
        };
        let (due, now) = ("2026-11-15T00:00:00Z", "2026-11-21T12:00:00Z");
        assert_eq!(next(6, 1, due, now), "2027-05-01T00:00:00+00:00");
        assert_eq!(next(1, 15, due, now), "2026-12-15T00:00:00+00:00");
        assert_eq!(next(3, 31, due, now), "2027-02-28T00:00:00+00:00");
        // What was missed is not due in the past.
        assert_eq!(next(1, 1, "2026-01-31T00:00:00Z", now), "2026-12-01T00:00:00+00:00");
        assert_eq!(next(12, 1, "1970-01-01T00:00:00Z", now), "2027-11-01T00:00:00+00:00");
    }
}
