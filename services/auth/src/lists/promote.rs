//! Access requests that become memberships.

use resources::Resource as _;
use wire::accesslist::{AccessList, Member, MemberSpec};
use wire::error::{Error, Result};
use wire::types::{AccessRequestSpecV3, AccessRequestV3, PromotedAccessList};

use super::as_list;
use crate::requests::Reviewer;
use crate::store::kind;
use crate::{Auth, Caller, Write};

impl Auth {
    /// The lists that grant all roles of a request.
    pub fn lists_for_request(&self, spec: &AccessRequestSpecV3) -> Vec<AccessList> {
        let lists = self.store().cached_list::<kind::AccessList>().into_iter();
        let fits = lists.filter(|list| {
            let grants = list.spec.as_ref().and_then(|spec| spec.grants.as_ref());
            grants.is_some_and(|grants| {
                !spec.roles.is_empty() && spec.roles.iter().all(|role| grants.roles.contains(role))
            })
        });
        fits.map(|list| (*list).clone()).collect()
    }

    /// Makes whoever asked for access a member of a list instead. The right of the caller over the list was checked.
    ///
    /// # Errors
    /// `NotFound` for unknown requests and lists; `AccessDenied` for reviewers whose roles do not allow it and for
    /// one's own request; `BadParameter` when it is decided already, and for lists that do not grant what it asks for.
    pub async fn promote_access_request(
        &self,
        caller: &Caller,
        reviewer: Reviewer<'_>,
        (id, list): (&str, &str),
        reason: &str,
    ) -> Result<AccessRequestV3> {
        let title = self.store().cached::<kind::AccessList>(list)?.spec.as_ref().map(|spec| spec.title.clone());
        let asked = self.store().get::<kind::AccessRequest>(id).await?;
        let spec = asked.spec.clone().unwrap_or_default();
        if !self.lists_for_request(&spec).iter().any(|fitting| fitting.name() == list) {
            return Err(Error::bad_parameter(format!("access list {list:?} does not grant what was asked for")));
        }
        if self.list_member(list, &spec.user).is_some_and(|member| as_list(&member).is_some()) {
            return Err(Error::bad_parameter(format!(
                "a list named {:?} is a member of access list {list:?}: a user of this name cannot be one as well",
                spec.user
            )));
        }
        let promoted = PromotedAccessList { name: list.to_owned(), title: title.unwrap_or_default() };
        let mut member = Member {
            spec: Some(MemberSpec {
                access_list: list.to_owned(),
                name: spec.user,
                reason: reason.to_owned(),
                ..MemberSpec::default()
            }),
            ..Member::default()
        };
        member.set_defaults();
        // A decision is final: it is made when nothing but the storage can refuse the member any more.
        let member = self.acceptable_member(caller, member, Write::Upsert).await?;
        let request = self.decide_promotion(caller, reviewer, id, promoted, reason).await?;
        self.write_record::<kind::AccessListMember>(caller, member, Write::Upsert).await?;
        Ok(request)
    }
}
