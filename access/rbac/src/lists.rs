//! Access lists: who is a member or an owner of which, and what that gives.
//!
//! Membership and ownership count while they have not expired and while the user meets what the list requires. What
//! lists give never helps to meet a requirement. A list can be a member or an owner of another one: its members are
//! then members or owners there, as long as they meet the requirements of every list on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use resources::Resource as _;
use wire::accesslist::{AccessList, AccessListGrants, AccessListRequires, Member, MembershipKind};
use wire::time;
use wire::types::ResourceHeader;

use crate::Traits;

/// How many lists can contain each other in a row.
pub const MAX_LIST_DEPTH: usize = 10;

/// A user as kept, without what lists give.
#[derive(Clone, Copy, Debug)]
pub struct ListCandidate<'a> {
    /// The name.
    pub name: &'a str,
    /// The roles of the user.
    pub roles: &'a [String],
    /// The traits of the user.
    pub traits: &'a Traits,
}

/// The lists that a user is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListStanding {
    /// The lists of which the user is a member, with the end of the membership.
    pub member_of: BTreeMap<String, Option<DateTime<Utc>>>,
    /// The lists of which the user is an owner, with the end of the ownership.
    pub owner_of: BTreeMap<String, Option<DateTime<Utc>>>,
}

/// What lists add to a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListGrants {
    /// Roles that the user does not hold otherwise.
    pub roles: Vec<String>,
    /// Values of traits that the user does not have otherwise.
    pub traits: BTreeMap<String, Vec<String>>,
    /// When the first membership ends that something of this comes from.
    pub ends: Option<DateTime<Utc>>,
}

/// The end of something, where `None` is never: the earlier of two.
fn earlier(one: Option<DateTime<Utc>>, other: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    one.into_iter().chain(other).min()
}

/// Whether an end is later than another.
fn is_later(end: Option<DateTime<Utc>>, than: Option<DateTime<Utc>>) -> bool {
    than.is_some_and(|than| end.is_none_or(|end| end > than))
}

/// Where a user stands in all `lists`; `member` finds the record of a member by list and name, and `nested` holds at
/// least the members that are lists.
pub fn list_standing(
    who: ListCandidate<'_>,
    lists: &[Arc<AccessList>],
    member: impl Fn(&str, &str) -> Option<Arc<Member>>,
    nested: &[Arc<Member>],
    now: DateTime<Utc>,
) -> ListStanding {
    let lists: BTreeMap<&str, &AccessList> = lists.iter().map(|list| (list.name(), &**list)).collect();
    let takes = |list: &AccessList| meets(who, requires(list, Requirement::Membership));
    let mut standing = ListStanding::default();
    let mut reached = BTreeSet::new();
    for (name, list) in &lists {
        let end = member(name, who.name).and_then(|member| membership(&member, MembershipKind::User, now));
        if let Some(end) = end.filter(|_| takes(list)) {
            standing.member_of.insert((*name).to_owned(), earlier(end, end_of(list.header.as_ref())));
            reached.insert(*name);
        }
    }
    let nestings = nestings(&lists, nested, now);
    for _ in 0..MAX_LIST_DEPTH {
        if reached.is_empty() || nestings.is_empty() {
            break;
        }
        let inner = std::mem::take(&mut reached);
        for nesting in nestings.iter().filter(|nesting| inner.contains(nesting.inner)) {
            let until = standing.member_of.get(nesting.inner).copied().flatten();
            let (end, name) = (earlier(nesting.end, until), nesting.outer.name());
            let better = standing.member_of.get(name).is_none_or(|known| is_later(end, *known));
            if better && takes(nesting.outer) {
                standing.member_of.insert(name.to_owned(), end);
                reached.insert(name);
            }
        }
    }
    for (name, list) in &lists {
        if let Some(end) = ownership(who, list, &standing) {
            standing.owner_of.insert((*name).to_owned(), end);
        }
    }
    standing
}

/// A list that is a member of another one, until the earlier end of that membership and of the outer list.
struct Nesting<'a> {
    outer: &'a AccessList,
    inner: &'a str,
    end: Option<DateTime<Utc>>,
}

/// The members that are lists, of the lists that there are.
fn nestings<'a>(
    lists: &BTreeMap<&str, &'a AccessList>,
    members: &'a [Arc<Member>],
    now: DateTime<Utc>,
) -> Vec<Nesting<'a>> {
    let nesting = |member: &'a Arc<Member>| {
        let end = membership(member, MembershipKind::List, now)?;
        let outer = *lists.get(member.spec.as_ref()?.access_list.as_str())?;
        Some(Nesting { outer, inner: member.name(), end: earlier(end, end_of(outer.header.as_ref())) })
    };
    members.iter().filter_map(nesting).collect()
}

/// What the lists give that a user is in.
pub fn list_grants(who: ListCandidate<'_>, lists: &[Arc<AccessList>], standing: &ListStanding) -> ListGrants {
    let mut given = ListGrants::default();
    for list in lists {
        let Some(spec) = &list.spec else { continue };
        let name = list.name();
        if let (Some(end), Some(grants)) = (standing.member_of.get(name), &spec.grants) {
            add(&mut given, who, grants, *end);
        }
        if let (Some(end), Some(grants)) = (standing.owner_of.get(name), &spec.owner_grants) {
            add(&mut given, who, grants, *end);
        }
    }
    given
}

fn add(given: &mut ListGrants, who: ListCandidate<'_>, grants: &AccessListGrants, end: Option<DateTime<Utc>>) {
    let mut counts = false;
    for role in grants.roles.iter().filter(|role| !who.roles.contains(role)) {
        counts = true;
        if !given.roles.contains(role) {
            given.roles.push(role.clone());
        }
    }
    for one in &grants.traits {
        for value in one.values.iter().filter(|value| !who.traits.get(&one.key).contains(value)) {
            counts = true;
            let values = given.traits.entry(one.key.clone()).or_default();
            if !values.contains(value) {
                values.push(value.clone());
            }
        }
    }
    if counts {
        given.ends = earlier(given.ends, end);
    }
}

/// Until when a record makes a member of that kind; `None` when it does not.
fn membership(member: &Member, kind: MembershipKind, now: DateTime<Utc>) -> Option<Option<DateTime<Utc>>> {
    let spec = member.spec.as_ref()?;
    if as_kind(spec.membership_kind) != kind {
        return None;
    }
    let end = earlier(time::moment(spec.expires.as_ref()), end_of(member.header.as_ref()));
    end.is_none_or(|end| end > now).then_some(end)
}

fn ownership(who: ListCandidate<'_>, list: &AccessList, standing: &ListStanding) -> Option<Option<DateTime<Utc>>> {
    let owners = &list.spec.as_ref()?.owners;
    let mut best: Option<Option<DateTime<Utc>>> = None;
    for owner in owners {
        let end = match as_kind(owner.membership_kind) {
            MembershipKind::List => standing.member_of.get(&owner.name).copied(),
            _ => (owner.name == who.name).then_some(None),
        };
        if let Some(end) = end
            && best.is_none_or(|known| is_later(end, known))
        {
            best = Some(end);
        }
    }
    let best = best.map(|end| earlier(end, end_of(list.header.as_ref())));
    best.filter(|_| meets(who, requires(list, Requirement::Ownership)))
}

/// When a record is removed by itself.
fn end_of(header: Option<&ResourceHeader>) -> Option<DateTime<Utc>> {
    time::moment(header?.metadata.as_ref()?.expires.as_ref())
}

/// A kind that is not said is that of a user.
fn as_kind(kind: i32) -> MembershipKind {
    match MembershipKind::try_from(kind) {
        Ok(MembershipKind::Unspecified) => MembershipKind::User,
        Ok(kind) => kind,
        // Of a later version: it makes nobody a member here.
        Err(_) => MembershipKind::Unspecified,
    }
}

enum Requirement {
    Membership,
    Ownership,
}

fn requires(list: &AccessList, which: Requirement) -> Option<&AccessListRequires> {
    let spec = list.spec.as_ref()?;
    match which {
        Requirement::Membership => spec.membership_requires.as_ref(),
        Requirement::Ownership => spec.ownership_requires.as_ref(),
    }
}

/// Whether a user has every role and every value of every trait that is required.
fn meets(who: ListCandidate<'_>, required: Option<&AccessListRequires>) -> bool {
    required.is_none_or(|required| {
        let has = |key: &str, value: &String| who.traits.get(key).contains(value);
        required.roles.iter().all(|role| who.roles.contains(role))
            && required.traits.iter().all(|one| one.values.iter().all(|value| has(&one.key, value)))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;

    use chrono::TimeDelta;
    use serde_json::{Value, from_value, json};

    use super::*;

    #[derive(Default)]
    struct World {
        lists: Vec<Arc<AccessList>>,
        members: HashMap<(String, String), Arc<Member>>,
    }

    impl World {
        fn list(mut self, name: &str, role: &str, more: Value) -> Self {
            let mut spec = json!({"title": name, "owners": [{"name": "olga"}], "grants": {"roles": [role]}});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let list = json!({"kind": "access_list", "version": "v1", "metadata": {"name": name}, "spec": spec});
            self.lists.push(Arc::new(from_value(list).unwrap()));
            self
        }

        fn member(self, list: &str, name: &str) -> Self {
            self.with(list, name, json!({}))
        }

        fn with(mut self, list: &str, name: &str, more: Value) -> Self {
            let mut spec = json!({"access_list": list, "name": name, "added_by": "olga"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let member =
                json!({"kind": "access_list_member", "version": "v1", "metadata": {"name": name}, "spec": spec});
            self.members.insert((list.into(), name.into()), Arc::new(from_value(member).unwrap()));
            self
        }

        fn given(&self, name: &str, roles: &[&str]) -> ListGrants {
            let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
            let traits = Traits::from(BTreeMap::from([("team".to_owned(), vec!["red".to_owned()])]));
            let who = ListCandidate { name, roles: &roles, traits: &traits };
            let find = |list: &str, name: &str| self.members.get(&(list.to_owned(), name.to_owned())).cloned();
            let all: Vec<Arc<Member>> = self.members.values().cloned().collect();
            let standing = list_standing(who, &self.lists, find, &all, now());
            list_grants(who, &self.lists, &standing)
        }

        fn roles(&self, name: &str, roles: &[&str]) -> Vec<String> {
            self.given(name, roles).roles
        }
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn at(seconds: i64) -> String {
        (now() + TimeDelta::seconds(seconds)).to_rfc3339()
    }

    #[test]
    fn members_get_what_a_list_grants_and_others_do_not() {
        let grants = json!({"grants": {"roles": ["dba", "access"], "traits": {"team": ["red", "blue"]}}});
        let world = World::default().list("l", "dba", grants).member("l", "alice");
        let given = world.given("alice", &["access"]);
        assert_eq!(given.roles, ["dba"]);
        assert_eq!(given.traits, BTreeMap::from([("team".to_owned(), vec!["blue".to_owned()])]));
        assert_eq!(given.ends, None);
        assert_eq!(world.given("bob", &["access"]), ListGrants::default());
    }

    #[test]
    fn owners_get_their_own_grants_only() {
        let world = World::default().list("l", "dba", json!({"owner_grants": {"roles": ["auditor"]}}));
        assert_eq!(world.roles("olga", &[]), ["auditor"]);
    }

    #[test]
    fn an_expired_membership_gives_nothing_and_a_running_one_says_when_it_ends() {
        let world = World::default()
            .list("gone", "a", json!({}))
            .list("runs", "b", json!({}))
            .with("gone", "alice", json!({"expires": at(0)}))
            .with("runs", "alice", json!({"expires": at(60)}));
        let given = world.given("alice", &[]);
        assert_eq!(given.roles, ["b"]);
        assert_eq!(given.ends, Some(now() + TimeDelta::seconds(60)));
        // What the user has anyway does not end with a membership.
        assert_eq!(world.given("alice", &["b"]).ends, None);
    }

    #[test]
    fn what_a_record_gives_ends_with_the_record() {
        let mut world = World::default()
            .list("l", "a", json!({"owner_grants": {"roles": ["o"]}}))
            .list("outer", "b", json!({}))
            .with("l", "alice", json!({"expires": at(600)}))
            .with("outer", "l", json!({"membership_kind": LIST}));
        let end_at = |header: &mut Option<ResourceHeader>, seconds| {
            let metadata = header.as_mut().unwrap().metadata.as_mut().unwrap();
            metadata.expires = Some(time::timestamp(now() + TimeDelta::seconds(seconds)));
        };
        let ends = |world: &World, name: &str| world.given(name, &[]).ends.map(|end| (end - now()).num_seconds());
        assert_eq!((ends(&world, "alice"), ends(&world, "olga")), (Some(600), None));
        end_at(&mut Arc::make_mut(&mut world.lists[0]).header, 300);
        assert_eq!((ends(&world, "alice"), ends(&world, "olga")), (Some(300), Some(300)));
        let nested = world.members.get_mut(&("outer".into(), "l".into())).unwrap();
        end_at(&mut Arc::make_mut(nested).header, 60);
        assert_eq!(ends(&world, "alice"), Some(60));
    }

    #[test]
    fn requirements_are_met_by_what_the_user_has_without_lists() {
        let requires = json!({"membership_requires": {"roles": ["staff"], "traits": {"team": ["red"]}}});
        let world = World::default()
            .list("l", "dba", requires)
            .list("staff", "staff", json!({}))
            .member("l", "alice")
            .member("staff", "alice");
        assert_eq!(world.roles("alice", &["staff"]), ["dba"]);
        assert_eq!(world.roles("alice", &[]), ["staff"]);
        let other_team = json!({"membership_requires": {"traits": {"team": ["red", "green"]}}});
        assert!(World::default().list("l", "dba", other_team).member("l", "alice").roles("alice", &[]).is_empty());
        let owner = json!({"owner_grants": {"roles": ["auditor"]}, "ownership_requires": {"roles": ["staff"]}});
        let world = World::default().list("l", "dba", owner);
        assert!(world.roles("olga", &[]).is_empty());
        assert_eq!(world.roles("olga", &["staff"]), ["auditor"]);
    }

    const LIST: &str = "MEMBERSHIP_KIND_LIST";

    #[test]
    fn members_of_a_list_in_a_list_are_members_of_both() {
        let world = World::default()
            .list("inner", "a", json!({}))
            .list("outer", "b", json!({}))
            .list("strict", "c", json!({"membership_requires": {"roles": ["staff"]}}))
            .list("above", "d", json!({}))
            .member("inner", "alice")
            .with("outer", "inner", json!({"membership_kind": LIST, "expires": at(60)}))
            .with("strict", "outer", json!({"membership_kind": LIST}))
            .with("above", "strict", json!({"membership_kind": LIST}));
        let given = world.given("alice", &[]);
        assert_eq!(
            (given.roles, given.ends),
            (vec!["a".to_owned(), "b".to_owned()], Some(now() + TimeDelta::seconds(60)))
        );
        let mut all = world.roles("alice", &["staff"]);
        all.sort();
        assert_eq!(all, ["a", "b", "c", "d"]);
        // A user with the name of a list is not that list, nor is a list its namesake.
        assert!(world.roles("inner", &[]).is_empty());
    }

    #[test]
    fn lists_can_own_lists() {
        let owner = json!({"owners": [{"name": "admins", "membership_kind": LIST}], "owner_grants": {"roles": ["o"]}});
        let world = World::default().list("admins", "a", json!({})).list("l", "b", owner).member("admins", "alice");
        assert_eq!(world.roles("alice", &[]), ["a", "o"]);
        assert!(world.roles("admins", &[]).is_empty());
    }

    #[test]
    fn lists_that_contain_each_other_come_to_an_end_and_too_deep_ones_do_not_count() {
        let ring = World::default()
            .list("x", "a", json!({}))
            .list("y", "b", json!({}))
            .member("x", "alice")
            .with("y", "x", json!({"membership_kind": LIST}))
            .with("x", "y", json!({"membership_kind": LIST}));
        assert_eq!(ring.roles("alice", &[]), ["a", "b"]);
        let mut deep = World::default().list("l00", "r00", json!({})).member("l00", "alice");
        for i in 1..15 {
            let name = format!("l{i:02}");
            deep = deep.list(&name, &format!("r{i:02}"), json!({}));
            deep = deep.with(&name, &format!("l{:02}", i - 1), json!({"membership_kind": LIST}));
        }
        assert_eq!(deep.roles("alice", &[]).len(), 1 + MAX_LIST_DEPTH);
    }

    #[test]
    fn only_records_of_the_user_are_looked_for() {
        let mut world = World::default();
        for i in 0..20 {
            world = world.list(&format!("l{i}"), &format!("r{i}"), json!({})).member(&format!("l{i}"), "alice");
        }
        let nested = World::default().with("l0", "l1", json!({"membership_kind": LIST}));
        let nested: Vec<Arc<Member>> = nested.members.into_values().collect();
        let looked = std::cell::Cell::new(0);
        let find = |list: &str, name: &str| {
            looked.set(looked.get() + 1);
            world.members.get(&(list.to_owned(), name.to_owned())).cloned()
        };
        let traits = Traits::default();
        let who = ListCandidate { name: "alice", roles: &[], traits: &traits };
        let standing = list_standing(who, &world.lists, find, &nested, now());
        assert_eq!((standing.member_of.len(), looked.get()), (20, 20));
    }
}
