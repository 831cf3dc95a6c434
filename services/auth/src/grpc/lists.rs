//! Access lists with their members and reviews, and what people had at their last login.

use ::audit::codes;
use resources::Resource;
use wire::accesslist::access_list_service_server::AccessListService;
use wire::accesslist::{self, AccessList, AccessListStatus, Member, Review};
use wire::error::{Error, ErrorKind, Result};
use wire::userloginstate::user_login_state_service_server::UserLoginStateService;
use wire::{events, time, userloginstate};

use super::rpcs::service;
use super::{Api, kinds, named, required};
use crate::Write;
use crate::authz::AuthContext;
use crate::store::kind;

service! {
    AccessListService, |api, context, message|
    unary {
        get_access_lists(accesslist::GetAccessListsRequest) -> accesslist::GetAccessListsResponse =
            kinds::list::<kind::AccessList>(api).await
                .map(|lists| accesslist::GetAccessListsResponse { access_lists: counted_all(api, lists) });
        list_access_lists(accesslist::ListAccessListsRequest) -> accesslist::ListAccessListsResponse =
            kinds::page::<kind::AccessList>(api, message.page_size, &message.next_token).await
                .map(|(lists, next_token)| {
                    accesslist::ListAccessListsResponse { access_lists: counted_all(api, lists), next_token }
                });
        get_access_list(accesslist::GetAccessListRequest) -> AccessList =
            kinds::get::<kind::AccessList>(api, &message.name).await.map(|list| counted(api, list));
        upsert_access_list(accesslist::UpsertAccessListRequest) -> AccessList =
            kinds::write::<kind::AccessList>(api, context, message.access_list.map(plain), Write::Upsert).await;
        update_access_list(accesslist::UpdateAccessListRequest) -> AccessList =
            kinds::write::<kind::AccessList>(api, context, message.access_list.map(plain), Write::Update).await;
        delete_access_list(accesslist::DeleteAccessListRequest) -> () =
            delete_list(api, context, &message.name).await;
        delete_all_access_lists(accesslist::DeleteAllAccessListsRequest) -> () = delete_lists(api, context).await;
        get_access_lists_to_review(accesslist::GetAccessListsToReviewRequest)
            -> accesslist::GetAccessListsToReviewResponse = to_review(api, context).await;
        count_access_list_members(accesslist::CountAccessListMembersRequest)
            -> accesslist::CountAccessListMembersResponse =
            Ok(accesslist::CountAccessListMembersResponse { count: members_of(api, &message.access_list_name) });
        list_access_list_members(accesslist::ListAccessListMembersRequest)
            -> accesslist::ListAccessListMembersResponse =
            list_members(api, &message).await;
        list_all_access_list_members(accesslist::ListAllAccessListMembersRequest)
            -> accesslist::ListAllAccessListMembersResponse =
            kinds::page::<kind::AccessListMember>(api, message.page_size, &message.page_token).await
                .map(|(members, next_page_token)| {
                    accesslist::ListAllAccessListMembersResponse { members, next_page_token }
                });
        get_access_list_member(accesslist::GetAccessListMemberRequest) -> Member =
            kinds::get::<kind::AccessListMember>(api, &kinds::two_part(&message.access_list, &message.member_name)?)
                .await;
        upsert_access_list_member(accesslist::UpsertAccessListMemberRequest) -> Member =
            write_member(api, context, message.member, Write::Upsert).await;
        update_access_list_member(accesslist::UpdateAccessListMemberRequest) -> Member =
            write_member(api, context, message.member, Write::Update).await;
        delete_access_list_member(accesslist::DeleteAccessListMemberRequest) -> () =
            kinds::delete::<kind::AccessListMember>(
                api, context, &kinds::two_part(&message.access_list, &message.member_name)?,
            ).await;
        delete_all_access_list_members_for_access_list(accesslist::DeleteAllAccessListMembersForAccessListRequest)
            -> () = delete_all_members(api, context, named(&message.access_list, "access_list")?).await;
        delete_all_access_list_members(accesslist::DeleteAllAccessListMembersRequest) -> () =
            kinds::delete_all::<kind::AccessListMember>(api, context).await;
        upsert_access_list_with_members(accesslist::UpsertAccessListWithMembersRequest)
            -> accesslist::UpsertAccessListWithMembersResponse = with_members(api, context, message).await;
        list_access_list_reviews(accesslist::ListAccessListReviewsRequest)
            -> accesslist::ListAccessListReviewsResponse = list_reviews(api, &message).await;
        list_all_access_list_reviews(accesslist::ListAllAccessListReviewsRequest)
            -> accesslist::ListAllAccessListReviewsResponse =
            kinds::page::<kind::AccessListReview>(api, message.page_size, &message.next_token).await
                .map(|(reviews, next_token)| accesslist::ListAllAccessListReviewsResponse { reviews, next_token });
        delete_access_list_review(accesslist::DeleteAccessListReviewRequest) -> () =
            kinds::delete::<kind::AccessListReview>(
                api, context, &kinds::two_part(&message.access_list_name, &message.review_name)?,
            ).await;
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

/// The number of members is counted when it is asked for, never stored.
fn plain(mut list: AccessList) -> AccessList {
    list.status = None;
    list
}

fn counted(api: &Api, mut list: AccessList) -> AccessList {
    list.status = Some(AccessListStatus { member_count: Some(members_of(api, list.name())) });
    list
}

fn counted_all(api: &Api, lists: Vec<AccessList>) -> Vec<AccessList> {
    lists.into_iter().map(|list| counted(api, list)).collect()
}

fn members_of(api: &Api, list: &str) -> u32 {
    let all = api.auth().store().cached_list::<kind::AccessListMember>();
    u32::try_from(all.iter().filter(|member| list_of(member) == list).count()).unwrap_or(u32::MAX)
}

fn list_of(member: &Member) -> &str {
    member.spec.as_ref().map_or("", |spec| &spec.access_list)
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
    let mut access_lists = kinds::list::<kind::AccessList>(api).await?;
    access_lists.retain(|list| {
        let Some(spec) = &list.spec else { return false };
        let audit = spec.audit.unwrap_or_default();
        let remind = audit.notifications.and_then(|n| n.start).map_or(0, |start| start.seconds);
        let due = time::moment(audit.next_audit_date.as_ref());
        let due = due.and_then(|at| at.checked_sub_signed(chrono::TimeDelta::try_seconds(remind)?));
        spec.owners.iter().any(|owner| context.is_user(&owner.name)) && due.is_some_and(|at| at <= now)
    });
    Ok(accesslist::GetAccessListsToReviewResponse { access_lists })
}

/// A member is stored for a list that exists only.
async fn write_member(api: &Api, context: &AuthContext, member: Option<Member>, write: Write) -> Result<Member> {
    let member = completed(api, context, required(member, "member")?);
    kinds::get::<kind::AccessList>(api, list_of(&member)).await?;
    kinds::write::<kind::AccessListMember>(api, context, member, write).await
}

/// Says who added a member and when, where the writer did not.
fn completed(api: &Api, context: &AuthContext, mut member: Member) -> Member {
    let spec = member.spec.get_or_insert_default();
    if spec.added_by.is_empty() {
        context.username().clone_into(&mut spec.added_by);
    }
    if time::moment(spec.joined.as_ref()).is_none() {
        spec.joined = Some(time::timestamp(api.auth().now()));
    }
    member
}

async fn delete_list(api: &Api, context: &AuthContext, name: &str) -> Result<()> {
    kinds::delete::<kind::AccessList>(api, context, name).await?;
    delete_members(api, context, name).await?;
    for review in kinds::list::<kind::AccessListReview>(api).await? {
        if review.spec.as_ref().is_some_and(|spec| spec.access_list == name) {
            gone(kinds::delete::<kind::AccessListReview>(api, context, &kinds::two_part(name, review.name())?).await)?;
        }
    }
    Ok(())
}

async fn delete_lists(api: &Api, context: &AuthContext) -> Result<()> {
    for list in kinds::list::<kind::AccessList>(api).await? {
        gone(delete_list(api, context, list.name()).await)?;
    }
    Ok(())
}

/// Removes the members of a list, and says so in the audit log as one event beside theirs.
async fn delete_all_members(api: &Api, context: &AuthContext, list: &str) -> Result<()> {
    let deleted = delete_members(api, context, list).await;
    let caller = context.caller();
    let (success, error) = match &deleted {
        Ok(()) => (true, String::new()),
        Err(error) => (false, error.message.clone()),
    };
    let event = events::AccessListMemberDeleteAllForAccessList {
        resource: Some(events::ResourceMetadata {
            name: list.to_owned(),
            updated_by: caller.user_name(),
            ..Default::default()
        }),
        access_list_member: Some(events::AccessListMemberMetadata {
            access_list_name: list.to_owned(),
            ..Default::default()
        }),
        status: Some(events::Status { success, error, ..Default::default() }),
        ..Default::default()
    };
    let kind = if success { codes::ACCESS_LIST_MEMBERS_DELETE } else { codes::ACCESS_LIST_MEMBERS_DELETE_FAILURE };
    let told = api.auth().emit(kind.event(event)).await;
    deleted.and(told)
}

async fn delete_members(api: &Api, context: &AuthContext, list: &str) -> Result<()> {
    for member in kinds::list::<kind::AccessListMember>(api).await? {
        if list_of(&member) == list {
            gone(kinds::delete::<kind::AccessListMember>(api, context, &kinds::two_part(list, member.name())?).await)?;
        }
    }
    Ok(())
}

/// Whatever is gone already need not be removed.
fn gone(result: Result<()>) -> Result<()> {
    result.or_else(|error| if error.kind == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// A list with exactly these members. All of them are checked before the first is written.
async fn with_members(
    api: &Api,
    context: &AuthContext,
    message: accesslist::UpsertAccessListWithMembersRequest,
) -> Result<accesslist::UpsertAccessListWithMembersResponse> {
    let list = plain(required(message.access_list, "access_list")?);
    let name = list.name().to_owned();
    let mut members = Vec::with_capacity(message.members.len());
    for member in message.members {
        let mut member = completed(api, context, member);
        name.clone_into(&mut member.spec.get_or_insert_default().access_list);
        member.check_and_set_defaults().map_err(Error::from)?;
        members.push(member);
    }
    let access_list = kinds::write::<kind::AccessList>(api, context, list, Write::Upsert).await?;
    for member in kinds::list::<kind::AccessListMember>(api).await? {
        if list_of(&member) == name && !members.iter().any(|m| m.name() == member.name()) {
            gone(kinds::delete::<kind::AccessListMember>(api, context, &kinds::two_part(&name, member.name())?).await)?;
        }
    }
    let mut stored = Vec::with_capacity(members.len());
    for member in members {
        stored.push(kinds::write::<kind::AccessListMember>(api, context, member, Write::Upsert).await?);
    }
    Ok(accesslist::UpsertAccessListWithMembersResponse { access_list: Some(access_list), members: stored })
}
