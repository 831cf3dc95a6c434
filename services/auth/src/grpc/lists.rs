//! Access lists with their members and reviews, and what people had at their last login.

use rbac::ListStanding;
use resources::Resource as _;
use wire::accesslist::access_list_service_server::AccessListService;
use wire::accesslist::{self, AccessList, AccessListStatus, Member, Review};
use wire::error::{Error, Result};
use wire::userloginstate::user_login_state_service_server::UserLoginStateService;
use wire::{time, userloginstate};

use super::requests::{reviewing_roles, visible_request};
use super::rpcs::service;
use super::{Api, kinds, named, required};
use crate::Write;
use crate::authz::AuthContext;
use crate::lists::list_of;
use crate::requests::Reviewer;
use crate::store::kind;

const KIND: &str = "access_list";

service! {
    AccessListService, |api, context, message|
    unary {
        get_access_lists(accesslist::GetAccessListsRequest) -> accesslist::GetAccessListsResponse = {
            let sight = Sight::of(api, context);
            let mut lists = kinds::list::<kind::AccessList>(api).await?;
            lists.retain(|list| sight.shows(list));
            Ok(accesslist::GetAccessListsResponse { access_lists: counted_all(api, lists) })
        };
        list_access_lists(accesslist::ListAccessListsRequest) -> accesslist::ListAccessListsResponse = {
            let sight = Sight::of(api, context);
            let shown = |list: &AccessList| sight.shows(list);
            kinds::page_of::<kind::AccessList>(api, message.page_size, &message.next_token, shown).await
                .map(|(lists, next_token)| {
                    accesslist::ListAccessListsResponse { access_lists: counted_all(api, lists), next_token }
                })
        };
        get_access_list(accesslist::GetAccessListRequest) -> AccessList = {
            Sight::of(api, context).require_shown(&message.name)?;
            kinds::get::<kind::AccessList>(api, &message.name).await.map(|list| counted(api, list))
        };
        upsert_access_list(accesslist::UpsertAccessListRequest) -> AccessList =
            write_list(api, context, message.access_list, Write::Upsert).await;
        update_access_list(accesslist::UpdateAccessListRequest) -> AccessList =
            write_list(api, context, message.access_list, Write::Update).await;
        delete_access_list(accesslist::DeleteAccessListRequest) -> () =
            api.auth().delete_access_list(context.caller(), named(&message.name, "name")?).await;
        delete_all_access_lists(accesslist::DeleteAllAccessListsRequest) -> () = delete_lists(api, context).await;
        get_access_lists_to_review(accesslist::GetAccessListsToReviewRequest)
            -> accesslist::GetAccessListsToReviewResponse = to_review(api, context).await;
        count_access_list_members(accesslist::CountAccessListMembersRequest)
            -> accesslist::CountAccessListMembersResponse = {
            Sight::of(api, context).require_shown(&message.access_list_name)?;
            Ok(accesslist::CountAccessListMembersResponse { count: members_of(api, &message.access_list_name) })
        };
        list_access_list_members(accesslist::ListAccessListMembersRequest)
            -> accesslist::ListAccessListMembersResponse = {
            Sight::of(api, context).require_owned(&message.access_list, &["list", "read"])?;
            list_members(api, &message).await
        };
        list_all_access_list_members(accesslist::ListAllAccessListMembersRequest)
            -> accesslist::ListAllAccessListMembersResponse =
            kinds::page::<kind::AccessListMember>(api, message.page_size, &message.page_token).await
                .map(|(members, next_page_token)| {
                    accesslist::ListAllAccessListMembersResponse { members, next_page_token }
                });
        get_access_list_member(accesslist::GetAccessListMemberRequest) -> Member = {
            if !context.is_user(&message.member_name) {
                Sight::of(api, context).require_owned(&message.access_list, &["read"])?;
            }
            kinds::get::<kind::AccessListMember>(api, &kinds::two_part(&message.access_list, &message.member_name)?)
                .await
        };
        upsert_access_list_member(accesslist::UpsertAccessListMemberRequest) -> Member =
            write_member(api, context, message.member, Write::Upsert).await;
        update_access_list_member(accesslist::UpdateAccessListMemberRequest) -> Member =
            write_member(api, context, message.member, Write::Update).await;
        delete_access_list_member(accesslist::DeleteAccessListMemberRequest) -> () = {
            Sight::of(api, context).require_owned(&message.access_list, &["delete"])?;
            api.auth().delete_list_member(context.caller(), &message.access_list, &message.member_name).await
        };
        delete_all_access_list_members_for_access_list(accesslist::DeleteAllAccessListMembersForAccessListRequest)
            -> () = {
            Sight::of(api, context).require_owned(&message.access_list, &["delete"])?;
            api.auth().delete_list_members(context.caller(), named(&message.access_list, "access_list")?).await
        };
        delete_all_access_list_members(accesslist::DeleteAllAccessListMembersRequest) -> () =
            kinds::delete_all::<kind::AccessListMember>(api, context).await;
        upsert_access_list_with_members(accesslist::UpsertAccessListWithMembersRequest)
            -> accesslist::UpsertAccessListWithMembersResponse = {
            let list = required(message.access_list, "access_list")?;
            let (list, members) =
                api.auth().write_list_with_members(context.caller(), list, message.members).await?;
            let access_list = Some(counted(api, list));
            Ok(accesslist::UpsertAccessListWithMembersResponse { access_list, members })
        };
        list_access_list_reviews(accesslist::ListAccessListReviewsRequest)
            -> accesslist::ListAccessListReviewsResponse = {
            Sight::of(api, context).require_owned(&message.access_list, &["list", "read"])?;
            list_reviews(api, &message).await
        };
        list_all_access_list_reviews(accesslist::ListAllAccessListReviewsRequest)
            -> accesslist::ListAllAccessListReviewsResponse =
            kinds::page::<kind::AccessListReview>(api, message.page_size, &message.next_token).await
                .map(|(reviews, next_token)| accesslist::ListAllAccessListReviewsResponse { reviews, next_token });
        create_access_list_review(accesslist::CreateAccessListReviewRequest)
            -> accesslist::CreateAccessListReviewResponse = review(api, context, message.review).await;
        delete_access_list_review(accesslist::DeleteAccessListReviewRequest) -> () =
            kinds::delete::<kind::AccessListReview>(
                api, context, &kinds::two_part(&message.access_list_name, &message.review_name)?,
            ).await;
        access_request_promote(accesslist::AccessRequestPromoteRequest) -> accesslist::AccessRequestPromoteResponse =
            promote(api, context, &message).await;
        get_suggested_access_lists(accesslist::GetSuggestedAccessListsRequest)
            -> accesslist::GetSuggestedAccessListsResponse = {
            let request = visible_request(api, context, &message.access_request_id).await?;
            let sight = Sight::of(api, context);
            let mut lists = api.auth().lists_for_request(&request.spec.unwrap_or_default());
            lists.retain(|list| sight.require_owned(list.name(), &["create", "update"]).is_ok());
            Ok(accesslist::GetSuggestedAccessListsResponse { access_lists: counted_all(api, lists) })
        };
    }
}

service! {
    UserLoginStateService, |api, context, message|
    unary {
        get_user_login_states(userloginstate::GetUserLoginStatesRequest)
            -> userloginstate::GetUserLoginStatesResponse =
            kinds::list::<kind::UserLoginState>(api).await
                .map(|user_login_states| userloginstate::GetUserLoginStatesResponse { user_login_states });
        get_user_login_state(userloginstate::GetUserLoginStateRequest) -> userloginstate::UserLoginState = {
            context.require_self_or(&message.name, "user_login_state", &["read"])?;
            kinds::get::<kind::UserLoginState>(api, &message.name).await
        };
        upsert_user_login_state(userloginstate::UpsertUserLoginStateRequest) -> userloginstate::UserLoginState =
            kinds::write::<kind::UserLoginState>(api, context, message.user_login_state, Write::Upsert).await;
        delete_user_login_state(userloginstate::DeleteUserLoginStateRequest) -> () =
            kinds::delete::<kind::UserLoginState>(api, context, &message.name).await;
        delete_all_user_login_states(userloginstate::DeleteAllUserLoginStatesRequest) -> () =
            kinds::delete_all::<kind::UserLoginState>(api, context).await;
    }
}

/// Which lists the caller may deal with: by the verbs of roles, or as a member or an owner.
struct Sight<'a> {
    context: &'a AuthContext,
    standing: ListStanding,
}

impl<'a> Sight<'a> {
    fn of(api: &Api, context: &'a AuthContext) -> Self {
        // Who chose some of the own roles for this certificate left out what lists give.
        let chosen = context.identity().is_some_and(|identity| identity.impersonator == context.username());
        let stands = context.is_local_person() && !chosen;
        let user = stands.then(|| api.auth().store().cached::<kind::User>(context.username()));
        let standing = user.and_then(Result::ok).map(|user| api.auth().list_standing(&user)).unwrap_or_default();
        Self { context, standing }
    }

    fn owns(&self, list: &str) -> bool {
        self.standing.owner_of.contains_key(list)
    }

    fn stands_in(&self, list: &str) -> bool {
        self.owns(list) || self.standing.member_of.contains_key(list)
    }

    fn shows(&self, list: &AccessList) -> bool {
        self.stands_in(list.name()) || self.context.require(KIND, &["list", "read"]).is_ok()
    }

    fn require_shown(&self, list: &str) -> Result<()> {
        if self.stands_in(list) { Ok(()) } else { self.context.require(KIND, &["read"]) }
    }

    /// Owners decide about members, everybody else needs the verbs.
    fn require_owned(&self, list: &str, verbs: &[&str]) -> Result<()> {
        if self.owns(list) { Ok(()) } else { self.context.require(KIND, verbs) }
    }
}

fn counted(api: &Api, mut list: AccessList) -> AccessList {
    list.status = Some(AccessListStatus { member_count: Some(members_of(api, list.name())) });
    list
}

fn counted_all(api: &Api, lists: Vec<AccessList>) -> Vec<AccessList> {
    lists.into_iter().map(|list| counted(api, list)).collect()
}

fn members_of(api: &Api, list: &str) -> u32 {
    u32::try_from(api.auth().store().count_below::<kind::AccessListMember>(list)).unwrap_or(u32::MAX)
}

async fn write_list(api: &Api, context: &AuthContext, list: Option<AccessList>, write: Write) -> Result<AccessList> {
    let list = required(list, "access_list")?;
    api.auth().write_access_list(context.caller(), list, write).await.map(|list| counted(api, list))
}

async fn write_member(api: &Api, context: &AuthContext, member: Option<Member>, write: Write) -> Result<Member> {
    let mut member = required(member, "member")?;
    let list = named(list_of(&member), "member.spec.access_list")?.to_owned();
    Sight::of(api, context).require_owned(&list, &["create", "update"])?;
    if context.require(KIND, &["create", "update"]).is_err() {
        // Who has it as an owner only does not act in the name of others.
        member.spec.get_or_insert_default().added_by = context.username().to_owned();
    }
    api.auth().write_list_member(context.caller(), member, write).await
}

async fn list_members(
    api: &Api,
    message: &accesslist::ListAccessListMembersRequest,
) -> Result<accesslist::ListAccessListMembersResponse> {
    let list = named(&message.access_list, "access_list")?;
    kinds::get::<kind::AccessList>(api, list).await?;
    let wanted = |member: &Member| list_of(member) == list;
    let found = kinds::page_of::<kind::AccessListMember>(api, message.page_size, &message.page_token, wanted).await?;
    let (members, next_page_token) = found;
    Ok(accesslist::ListAccessListMembersResponse { members, next_page_token })
}

async fn list_reviews(
    api: &Api,
    message: &accesslist::ListAccessListReviewsRequest,
) -> Result<accesslist::ListAccessListReviewsResponse> {
    let list = named(&message.access_list, "access_list")?;
    let wanted = |review: &Review| review.spec.as_ref().is_some_and(|spec| spec.access_list == list);
    let found = kinds::page_of::<kind::AccessListReview>(api, message.page_size, &message.next_token, wanted).await?;
    let (reviews, next_token) = found;
    Ok(accesslist::ListAccessListReviewsResponse { reviews, next_token })
}

/// The lists that the caller owns and that are due for a review.
async fn to_review(api: &Api, context: &AuthContext) -> Result<accesslist::GetAccessListsToReviewResponse> {
    let now = api.auth().now();
    let sight = Sight::of(api, context);
    let mut access_lists = kinds::list::<kind::AccessList>(api).await?;
    access_lists.retain(|list| {
        let Some(spec) = &list.spec else { return false };
        let audit = spec.audit.unwrap_or_default();
        let remind = audit.notifications.and_then(|n| n.start).map_or(0, |start| start.seconds);
        let due = time::moment(audit.next_audit_date.as_ref());
        let due = due.and_then(|at| at.checked_sub_signed(chrono::TimeDelta::try_seconds(remind)?));
        sight.owns(list.name()) && due.is_some_and(|at| at <= now)
    });
    Ok(accesslist::GetAccessListsToReviewResponse { access_lists: counted_all(api, access_lists) })
}

async fn delete_lists(api: &Api, context: &AuthContext) -> Result<()> {
    if context.is_service() && !context.is_admin() {
        return Err(Error::access_denied("access denied: services remove no access lists"));
    }
    kinds::delete_all::<kind::AccessListMember>(api, context).await?;
    kinds::delete_all::<kind::AccessListReview>(api, context).await?;
    kinds::delete_all::<kind::AccessList>(api, context).await
}

async fn review(
    api: &Api,
    context: &AuthContext,
    review: Option<Review>,
) -> Result<accesslist::CreateAccessListReviewResponse> {
    let review = required(review, "review")?;
    let list = review.spec.as_ref().map_or("", |spec| spec.access_list.as_str());
    Sight::of(api, context).require_owned(named(list, "review.spec.access_list")?, &["create", "update"])?;
    let (stored, next) = api.auth().review_access_list(context.caller(), context.username(), review).await?;
    Ok(accesslist::CreateAccessListReviewResponse {
        review_name: stored.name().to_owned(),
        next_audit_date: Some(time::timestamp(next)),
    })
}

async fn promote(
    api: &Api,
    context: &AuthContext,
    message: &accesslist::AccessRequestPromoteRequest,
) -> Result<accesslist::AccessRequestPromoteResponse> {
    let id = named(&message.request_id, "request_id")?;
    let list = named(&message.access_list_name, "access_list_name")?;
    visible_request(api, context, id).await?;
    Sight::of(api, context).require_owned(list, &["create", "update"])?;
    let roles = match context.is_admin() {
        true => rbac::RoleSet::compile(Vec::new(), rbac::Traits::default()),
        false => reviewing_roles(api, context)?,
    };
    let reviewer = Reviewer { name: context.username(), roles: &roles };
    let caller = context.caller();
    let request = api.auth().promote_access_request(caller, reviewer, (id, list), &message.reason).await?;
    Ok(accesslist::AccessRequestPromoteResponse { access_request: Some(request) })
}
