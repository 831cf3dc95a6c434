//! What must hold for a list or a member to be stored or removed.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use audit::codes;
use resources::Resource as _;
use wire::accesslist::{AccessList, AccessListOwner, Member, MembershipKind};
use wire::error::{Error, ErrorKind, Result};
use wire::{events, time};

use super::{as_list, list_of, notes};
use crate::store::kind;
use crate::{Auth, Caller, Write};

/// Most members of one list; few where it is tested.
pub(super) const MAX_MEMBERS: usize = if cfg!(test) { 50 } else { 100_000 };
/// Most lists that one message names.
const MAX_NAMED: usize = 10;

impl Auth {
    /// Stores a list. A first one is reviewed when its own settings say.
    ///
    /// # Errors
    /// `BadParameter` for malformed lists, and when they grant roles or name lists that do not exist.
    pub async fn write_access_list(&self, caller: &Caller, list: AccessList, write: Write) -> Result<AccessList> {
        let name = list.name().to_owned();
        let list = self.checked_list(list);
        let list = self.tell_failed_write::<kind::AccessList, _>(caller, (&name, write), list).await?;
        self.store_list(caller, list, write).await
    }

    /// A new list has no members: those of a list of the same name that was there before are not its own.
    async fn store_list(&self, caller: &Caller, list: AccessList, write: Write) -> Result<AccessList> {
        if write != Write::Update && !self.store().exists::<kind::AccessList>(list.name()).await? {
            self.delete_list_members(caller, list.name()).await?;
        }
        self.write_record::<kind::AccessList>(caller, list, write).await
    }

    fn checked_list(&self, mut list: AccessList) -> Result<AccessList> {
        // Counted when asked for, never stored.
        list.status = None;
        list.check_and_set_defaults().map_err(Error::from)?;
        let title = list.title();
        let spec = list.spec.get_or_insert_default();
        let granted = [("grants", &spec.grants), ("owner_grants", &spec.owner_grants)];
        for (field, grants) in granted {
            for role in grants.iter().flat_map(|grants| &grants.roles) {
                self.role(role).map_err(|error| match error.kind {
                    ErrorKind::NotFound => {
                        Error::bad_parameter(format!("{title}: spec.{field}.roles: role {role:?} does not exist"))
                    }
                    _ => error,
                })?;
            }
        }
        for owner in spec.owners.iter().filter(|owner| owner.membership_kind == MembershipKind::List as i32) {
            self.existing_list(&owner.name)
                .map_err(|error| Error::new(error.kind, format!("{title}: spec.owners: {}", error.message)))?;
        }
        let audit = spec.audit.get_or_insert_default();
        if time::moment(audit.next_audit_date.as_ref()).is_none() {
            let recurrence = audit.recurrence.unwrap_or_default();
            audit.next_audit_date = Some(time::timestamp(resources::next_review(recurrence, self.now(), self.now())));
        }
        Ok(list)
    }

    fn existing_list(&self, name: &str) -> Result<()> {
        self.store().cached::<kind::AccessList>(name).map(drop)
    }

    /// Stores a member. Who added it and when is filled in.
    ///
    /// # Errors
    /// `NotFound` when there is no such list; `BadParameter` for malformed members, and for lists that would contain
    /// themselves.
    pub async fn write_list_member(&self, caller: &Caller, member: Member, write: Write) -> Result<Member> {
        let member = self.acceptable_member(caller, member, write).await?;
        self.write_record::<kind::AccessListMember>(caller, member, write).await
    }

    /// A member that can be stored; that it cannot is told to the audit log.
    pub(super) async fn acceptable_member(&self, caller: &Caller, member: Member, write: Write) -> Result<Member> {
        let name = format!("{}/{}", list_of(&member), member.name());
        let member = self.fitting_member(caller, member);
        self.tell_failed_write::<kind::AccessListMember, _>(caller, (&name, write), member).await
    }

    fn fitting_member(&self, caller: &Caller, member: Member) -> Result<Member> {
        let member = self.checked_member(caller, member)?;
        let list = list_of(&member).to_owned();
        self.existing_list(&list)?;
        self.check_containment(&list, &member)?;
        let known = self.list_member(&list, member.name()).is_some();
        if !known && self.store().count_below::<kind::AccessListMember>(&list) >= MAX_MEMBERS {
            return Err(Error::limit_exceeded(format!("access list {list:?} has {MAX_MEMBERS} members already")));
        }
        Ok(member)
    }

    fn checked_member(&self, caller: &Caller, mut member: Member) -> Result<Member> {
        let now = self.now();
        let spec = member.spec.get_or_insert_default();
        if spec.added_by.is_empty() {
            spec.added_by = caller.user_name();
        }
        if time::moment(spec.joined.as_ref()).is_none() {
            spec.joined = Some(time::timestamp(now));
        }
        member.check_and_set_defaults().map_err(Error::from)?;
        // The names must fit into a key, too.
        kind::key_of::<kind::AccessListMember>(&member)?;
        Ok(member)
    }

    /// A list that is a member exists, is not the list itself, does not contain it, and is not nested too deep.
    fn check_containment(&self, list: &str, member: &Member) -> Result<()> {
        let Some(inner) = as_list(member) else { return Ok(()) };
        self.existing_list(inner)?;
        let above = self.levels_above(list);
        if inner == list || above.iter().any(|level| level.contains(inner)) {
            return Err(Error::bad_parameter(format!(
                "access list {inner:?} cannot be a member of {list:?}: it would contain itself"
            )));
        }
        if above.len() + 1 + self.levels_below(inner) > rbac::MAX_LIST_DEPTH {
            let deepest = rbac::MAX_LIST_DEPTH;
            return Err(Error::bad_parameter(format!("access lists can be nested at most {deepest} levels deep")));
        }
        Ok(())
    }

    /// The lists that have a list as a member.
    fn directly_above(&self, list: &str) -> BTreeSet<String> {
        let nested = self.nested_members();
        let outer = nested.iter().filter(|member| as_list(member) == Some(list)).map(|member| list_of(member));
        outer.filter(|outer| self.existing_list(outer).is_ok()).map(str::to_owned).collect()
    }

    /// The lists that contain a list, level by level upwards.
    pub(super) fn levels_above(&self, list: &str) -> Vec<BTreeSet<String>> {
        let mut levels = Vec::new();
        let mut level = self.directly_above(list);
        while !level.is_empty() && levels.len() <= rbac::MAX_LIST_DEPTH {
            let above = level.iter().flat_map(|list| self.directly_above(list)).collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        levels
    }

    /// How many levels of lists a list contains.
    pub(super) fn levels_below(&self, list: &str) -> usize {
        let nested = self.nested_members();
        let mut depth = 0;
        let mut level = BTreeSet::from([list]);
        while depth <= rbac::MAX_LIST_DEPTH {
            let inside = nested.iter().filter(|member| level.contains(list_of(member)));
            level = inside.filter_map(|member| as_list(member)).collect();
            if level.is_empty() {
                break;
            }
            depth += 1;
        }
        depth
    }

    /// A list with exactly these members. All of them are checked before the first is written.
    ///
    /// # Errors
    /// As [`write_access_list`](Self::write_access_list) and [`write_list_member`](Self::write_list_member).
    pub async fn write_list_with_members(
        &self,
        caller: &Caller,
        list: AccessList,
        members: Vec<Member>,
    ) -> Result<(AccessList, Vec<Member>)> {
        let name = list.name().to_owned();
        let checked = self.checked_list_with_members(caller, list, members);
        let write = (name.as_str(), Write::Upsert);
        let (list, wanted) = self.tell_failed_write::<kind::AccessList, _>(caller, write, checked).await?;
        let list = self.store_list(caller, list, Write::Upsert).await?;
        let kept: HashSet<String> = wanted.iter().map(|member| member.name().to_owned()).collect();
        for member in self.store().cached_below::<kind::AccessListMember>(&name) {
            if !kept.contains(member.name()) {
                self.delete_list_member(caller, &name, member.name()).await.or_else(gone)?;
            }
        }
        let mut stored = Vec::with_capacity(wanted.len());
        for member in wanted {
            stored.push(self.write_record::<kind::AccessListMember>(caller, member, Write::Upsert).await?);
        }
        Ok((list, stored))
    }

    fn checked_list_with_members(
        &self,
        caller: &Caller,
        list: AccessList,
        members: Vec<Member>,
    ) -> Result<(AccessList, Vec<Member>)> {
        let list = self.checked_list(list)?;
        if members.len() > MAX_MEMBERS {
            return Err(Error::limit_exceeded(format!("an access list has at most {MAX_MEMBERS} members")));
        }
        let mut wanted = Vec::with_capacity(members.len());
        for mut member in members {
            list.name().clone_into(&mut member.spec.get_or_insert_default().access_list);
            let member = self.checked_member(caller, member)?;
            self.check_containment(list.name(), &member)?;
            wanted.push(member);
        }
        Ok((list, wanted))
    }

    /// Removes a member.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_list_member(&self, caller: &Caller, list: &str, member: &str) -> Result<()> {
        if list.is_empty() || list.contains('/') || member.is_empty() {
            return Err(Error::bad_parameter("a member of an access list is named by the list and its own name"));
        }
        self.delete_record::<kind::AccessListMember>(caller, &format!("{list}/{member}")).await
    }

    /// Removes a list with its members and its reviews.
    ///
    /// # Errors
    /// `NotFound`; `BadParameter` while other lists have it as a member or an owner.
    pub async fn delete_access_list(&self, caller: &Caller, name: &str) -> Result<()> {
        self.existing_list(name)?;
        if let Some(outer) = self.directly_above(name).first() {
            return Err(Error::bad_parameter(format!("access list {name:?} is a member of access list {outer:?}")));
        }
        let owned = self.store().cached_list::<kind::AccessList>().into_iter().find(|list| {
            let is_owner = |o: &AccessListOwner| o.name == name && o.membership_kind == MembershipKind::List as i32;
            list.name() != name && owners(list).iter().any(is_owner)
        });
        if let Some(owned) = owned {
            return Err(Error::bad_parameter(format!(
                "access list {name:?} is an owner of access list {:?}",
                owned.name()
            )));
        }
        // The list goes last: should something fail on the way, it can be removed again.
        self.delete_list_members(caller, name).await?;
        for review in self.store().cached_below::<kind::AccessListReview>(name) {
            let review = format!("{name}/{}", review.name());
            self.store().delete::<kind::AccessListReview>(&review).await.or_else(gone)?;
        }
        self.forget_unfinished_review(name).await?;
        self.delete_record::<kind::AccessList>(caller, name).await
    }

    /// Ends the memberships and ownerships of a user: whoever gets the name later is somebody else.
    ///
    /// # Errors
    /// `BadParameter` when lists would be left without an owner; nothing is changed then.
    pub(crate) async fn forget_places_of(&self, caller: &Caller, user: &str) -> Result<()> {
        let lists = self.store().cached_list::<kind::AccessList>();
        let alone: Vec<&str> = lists.iter().filter(|list| is_only_owner(list, user)).map(|list| list.name()).collect();
        if !alone.is_empty() {
            let named = alone.iter().take(MAX_NAMED).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
            let more = if alone.len() > MAX_NAMED { " and others" } else { "" };
            return Err(Error::bad_parameter(format!(
                "user {user:?} is the only owner of access list {named}{more}: give it another owner first"
            )));
        }
        for list in lists {
            let member = self.list_member(list.name(), user);
            if member.is_some_and(|member| as_list(&member).is_none()) {
                self.delete_list_member(caller, list.name(), user).await.or_else(gone)?;
            }
            if owners(&list).iter().any(|owner| is_user(owner, user)) {
                let mut list = Arc::unwrap_or_clone(list);
                list.spec.get_or_insert_default().owners.retain(|owner| !is_user(owner, user));
                self.write_record::<kind::AccessList>(caller, list, Write::Update).await.map(drop).or_else(gone)?;
            }
        }
        Ok(())
    }

    /// Removes all members of a list.
    ///
    /// # Errors
    /// When the storage cannot be written.
    pub async fn delete_list_members(&self, caller: &Caller, list: &str) -> Result<()> {
        let members = self.store().cached_below::<kind::AccessListMember>(list);
        if members.is_empty() {
            return Ok(());
        }
        let removed = self.remove_members(list, &members).await;
        let told = members.iter().map(|member| notes::removed(member, self.now())).collect();
        let error = removed.as_ref().err().map(|error| error.message.clone()).unwrap_or_default();
        let event = events::AccessListMemberDeleteAllForAccessList {
            resource: Some(events::ResourceMetadata {
                name: list.to_owned(),
                updated_by: caller.user_name(),
                ..Default::default()
            }),
            access_list_member: Some(events::AccessListMemberMetadata {
                access_list_name: list.to_owned(),
                members: notes::bounded(told),
            }),
            status: Some(events::Status { success: removed.is_ok(), error, ..Default::default() }),
            ..Default::default()
        };
        let code = match removed {
            Ok(()) => codes::ACCESS_LIST_MEMBERS_DELETE,
            Err(_) => codes::ACCESS_LIST_MEMBERS_DELETE_FAILURE,
        };
        let emitted = self.emit(code.event(event)).await;
        removed.and(emitted)
    }

    async fn remove_members(&self, list: &str, members: &[Arc<Member>]) -> Result<()> {
        for member in members {
            let name = format!("{list}/{}", member.name());
            self.store().delete::<kind::AccessListMember>(&name).await.or_else(gone)?;
        }
        Ok(())
    }
}

fn owners(list: &AccessList) -> &[AccessListOwner] {
    list.spec.as_ref().map(|spec| spec.owners.as_slice()).unwrap_or_default()
}

/// Whether an owner is the user of a name.
fn is_user(owner: &AccessListOwner, user: &str) -> bool {
    owner.name == user && owner.membership_kind != MembershipKind::List as i32
}

fn is_only_owner(list: &AccessList, user: &str) -> bool {
    let owners = owners(list);
    !owners.is_empty() && owners.iter().all(|owner| is_user(owner, user))
}

/// Whatever is gone already need not be removed.
fn gone(error: Error) -> Result<()> {
    if error.kind == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
