//! Members of access lists in the audit log.

use chrono::{DateTime, Utc};
use resources::Resource as _;
use wire::accesslist::Member;
use wire::{events, time};

/// Most members that one event names.
const MAX_TOLD: usize = 100;

fn told(member: &Member) -> events::AccessListMember {
    let spec = member.spec.clone().unwrap_or_default();
    events::AccessListMember {
        joined_on: spec.joined,
        removed_on: spec.expires,
        reason: spec.reason,
        member_name: member.name().to_owned(),
    }
}

/// A member who was removed.
pub(super) fn removed(member: &Member, now: DateTime<Utc>) -> events::AccessListMember {
    events::AccessListMember { removed_on: Some(time::timestamp(now)), ..told(member) }
}

/// As many as fit into an event.
pub(super) fn bounded(mut members: Vec<events::AccessListMember>) -> Vec<events::AccessListMember> {
    members.truncate(MAX_TOLD);
    members
}
