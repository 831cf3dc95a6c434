//! Access requests that become memberships.

use resources::Resource as _;
use wire::accesslist::{AccessList, Member, MemberSpec};
use wire::error::Result;
use wire::types::{AccessRequestSpecV3, AccessRequestV3, PromotedAccessList};

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
    /// one's own request; `BadParameter` when it is decided already.
    pub async fn promote_access_request(
        &self,
        caller: &Caller,
        reviewer: Reviewer<'_>,
        (id, list): (&str, &str),
        reason: &str,
    ) -> Result<AccessRequestV3> {
        let title = self.store().cached::<kind::AccessList>(list)?.spec.as_ref().map(|spec| spec.title.clone());
        let promoted = PromotedAccessList { name: list.to_owned(), title: title.unwrap_or_default() };
        let request = self.decide_promotion(caller, reviewer, id, promoted, reason).await?;
        let user = request.spec.as_ref().map(|spec| spec.user.clone()).unwrap_or_default();
        let mut member = Member {
            spec: Some(MemberSpec {
                access_list: list.to_owned(),
                name: user,
                reason: reason.to_owned(),
                ..MemberSpec::default()
            }),
            ..Member::default()
        };
        member.set_defaults();
        self.write_list_member(caller, member, Write::Upsert).await?;
        Ok(request)
    }
}
