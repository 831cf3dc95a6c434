//! Access lists: what they give to users, and what may be done with them.
//!
//! Who stands where is decided in `rbac`; here are the records. What a user has by lists is worked out anew whenever
//! a certificate is made, so that whoever leaves a list has its roles no longer than the certificate at hand.

mod change;
mod notes;
mod promote;
mod review;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use pki::identity::Traits;
use rbac::{ListCandidate, ListStanding};
use resources::Resource as _;
use wire::accesslist::{AccessList, Member, MembershipKind};
use wire::error::Result;
use wire::traits::Trait;
use wire::types::{Metadata, ResourceHeader, UserV2};
use wire::userloginstate::{self, UserLoginState};

use crate::Auth;
use crate::login::{is_local, traits_of};
use crate::store::kind;

/// What a user has at this moment: the user's own, and what access lists add.
#[derive(Clone, Debug, Default)]
pub struct UserRights {
    /// The roles.
    pub roles: Vec<String>,
    /// The traits.
    pub traits: Traits,
    /// When the first membership ends that something of this comes from.
    pub ends: Option<DateTime<Utc>>,
}

impl Auth {
    /// What a user has at this moment. Roles that lists grant but that do not exist are left out.
    pub fn rights_of(&self, user: &UserV2) -> UserRights {
        let mut roles = user.spec.as_ref().map(|spec| spec.roles.clone()).unwrap_or_default();
        let mut traits = traits_of(user);
        let lists = self.store().cached_list::<kind::AccessList>();
        if lists.is_empty() {
            return UserRights { roles, traits, ends: None };
        }
        let own = rbac::Traits::from(traits.clone());
        let who = ListCandidate { name: user.name(), roles: &roles, traits: &own };
        let standing = self.standing(who, &lists);
        let given = rbac::list_grants(who, &lists, &standing);
        for role in given.roles {
            match self.role(&role) {
                Ok(_) => roles.push(role),
                Err(error) => tracing::warn!(user = user.name(), role, %error, "an access list grants an unknown role"),
            }
        }
        for (name, values) in given.traits {
            traits.entry(name).or_default().extend(values);
        }
        UserRights { roles, traits, ends: given.ends }
    }

    /// The same for a user who logs in: it is written down, for whoever asks with what the user was let in.
    ///
    /// # Errors
    /// When the storage cannot be written.
    pub(crate) async fn rights_at_login(&self, user: &UserV2) -> Result<UserRights> {
        let rights = self.rights_of(user);
        let spec = userloginstate::Spec {
            roles: rights.roles.clone(),
            traits: listed(&rights.traits),
            user_type: if is_local(user) { "local" } else { "sso" }.to_owned(),
            original_roles: user.spec.as_ref().map(|spec| spec.roles.clone()).unwrap_or_default(),
            original_traits: listed(&traits_of(user)),
        };
        let known = self.store().cached::<kind::UserLoginState>(user.name());
        if !known.is_ok_and(|known| known.spec.as_ref() == Some(&spec)) {
            let mut state = UserLoginState { header: Some(ResourceHeader::default()), spec: Some(spec) };
            *state.metadata_mut() = Metadata { name: user.name().to_owned(), ..Metadata::default() };
            state.check_and_set_defaults()?;
            self.store().upsert::<kind::UserLoginState>(state).await?;
        }
        Ok(rights)
    }

    /// The lists that a user is in.
    pub fn list_standing(&self, user: &UserV2) -> ListStanding {
        let roles = user.spec.as_ref().map(|spec| spec.roles.as_slice()).unwrap_or_default();
        let traits = rbac::Traits::from(traits_of(user));
        let lists = self.store().cached_list::<kind::AccessList>();
        self.standing(ListCandidate { name: user.name(), roles, traits: &traits }, &lists)
    }

    fn standing(&self, who: ListCandidate<'_>, lists: &[Arc<AccessList>]) -> ListStanding {
        rbac::list_standing(who, lists, |list, name| self.list_member(list, name), &self.nested_members(), self.now())
    }

    /// The members that are lists, of all lists.
    fn nested_members(&self) -> Arc<[Arc<Member>]> {
        let generation = self.store().membership_generation();
        let mut known = self.0.nested_lists.0.lock();
        if known.0 != generation {
            let nested = self.store().cached_where::<kind::AccessListMember>(|member| as_list(member).is_some());
            *known = (generation, nested.into());
        }
        known.1.clone()
    }

    fn list_member(&self, list: &str, name: &str) -> Option<Arc<Member>> {
        self.store().cached::<kind::AccessListMember>(&format!("{list}/{name}")).ok()
    }
}

/// The members that are lists, with the generation of members that they were found in: logins ask for them, and they
/// are few among all members.
#[derive(Default)]
pub(crate) struct Nested(Mutex<(u64, Arc<[Arc<Member>]>)>);

fn listed(traits: &Traits) -> Vec<Trait> {
    traits.iter().map(|(key, values)| Trait { key: key.clone(), values: values.clone() }).collect()
}

/// The name of the list that a member is, if it is one.
fn as_list(member: &Member) -> Option<&str> {
    let is_list = member.spec.as_ref()?.membership_kind == MembershipKind::List as i32;
    is_list.then(|| member.name())
}

/// The list that a member is one of.
pub(crate) fn list_of(member: &Member) -> &str {
    member.spec.as_ref().map_or("", |spec| &spec.access_list)
}
