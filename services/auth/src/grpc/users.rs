//! `teleport.users.v1.UsersService`.

use tonic::Request;
use wire::error::{Error, Result};
use wire::types::{UserFilter, UserV2};
use wire::users::users_service_server::UsersService;
use wire::users::{
    CreateUserRequest, CreateUserResponse, DeleteUserRequest, GetUserRequest, GetUserResponse, ListUsersRequest,
    ListUsersResponse, UpdateUserRequest, UpdateUserResponse, UpsertUserRequest, UpsertUserResponse,
};

use super::{Answer, Api, answer, named, open, page, required};
use crate::authz::AuthContext;
use crate::store::kind;

#[tonic::async_trait]
impl UsersService for Api {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Answer<GetUserResponse> {
        let (context, message) = open(request)?;
        answer(get(self, &context, &message).await.map(|user| GetUserResponse { user: Some(user) }))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Answer<ListUsersResponse> {
        let (context, message) = open(request)?;
        answer(list(self, &context, message).await)
    }

    async fn create_user(&self, request: Request<CreateUserRequest>) -> Answer<CreateUserResponse> {
        let (context, message) = open(request)?;
        let user = required(message.user, "user")?;
        let created = self.auth().create_user(context.caller(), user).await;
        answer(created.map(|user| CreateUserResponse { user: Some(user) }))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Answer<UpdateUserResponse> {
        let (context, message) = open(request)?;
        let user = required(message.user, "user")?;
        let updated = self.auth().update_user(context.caller(), user).await;
        answer(updated.map(|user| UpdateUserResponse { user: Some(user) }))
    }

    async fn upsert_user(&self, request: Request<UpsertUserRequest>) -> Answer<UpsertUserResponse> {
        let (context, message) = open(request)?;
        let user = required(message.user, "user")?;
        let stored = self.auth().upsert_user(context.caller(), user).await;
        answer(stored.map(|user| UpsertUserResponse { user: Some(user) }))
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(delete(self, &context, &message.name).await)
    }
}

async fn get(api: &Api, context: &AuthContext, message: &GetUserRequest) -> Result<UserV2> {
    let name = match (message.current_user, message.name.as_str()) {
        (true, "") => context.username(),
        (true, _) => return Err(Error::bad_parameter("name and current_user cannot both be given")),
        (false, name) => named(name, "name")?,
    };
    if message.current_user && !context.is_person() {
        return Err(Error::access_denied("access denied: only users can ask for the current user"));
    }
    refuse_secrets(context, message.with_secrets)?;
    context.require_self_or(name, "user", &["read"])?;
    api.auth().get_user(name, message.with_secrets).await
}

async fn list(api: &Api, context: &AuthContext, message: ListUsersRequest) -> Result<ListUsersResponse> {
    refuse_secrets(context, message.with_secrets)?;
    let filter = message.filter.unwrap_or_default();
    let limit = page::limit(message.page_size)?;
    let found =
        api.auth().store().page::<kind::User>(&message.page_token, limit, |user| matches(&filter, user)).await?;
    let (mut users, mut next_page_token) = (page::owned(found.items), found.next_key);
    users.iter_mut().filter_map(|user| user.spec.as_mut()).for_each(|spec| spec.local_auth = None);
    page::fit(&mut users, &mut next_page_token, |user| user_name(user).to_owned());
    Ok(ListUsersResponse { users, next_page_token })
}

async fn delete(api: &Api, context: &AuthContext, name: &str) -> Result<()> {
    api.auth().delete_user(context.caller(), named(name, "name")?).await
}

/// Password hashes and device secrets are for the Auth Service alone.
fn refuse_secrets(context: &AuthContext, with_secrets: bool) -> Result<()> {
    if with_secrets && !context.is_admin() {
        return Err(Error::access_denied("access denied: secrets of users are not for users"));
    }
    Ok(())
}

fn matches(filter: &UserFilter, user: &UserV2) -> bool {
    let spec = user.spec.as_ref();
    filter.search_keywords.iter().all(|word| {
        let word = word.to_lowercase();
        let contains = |text: &str| text.to_lowercase().contains(&word);
        contains(user_name(user))
            || spec.is_some_and(|spec| {
                spec.roles.iter().any(|role| contains(role))
                    || spec.traits.as_ref().is_some_and(|traits| {
                        traits
                            .values
                            .iter()
                            .any(|(name, list)| contains(name) || list.values.iter().any(|v| contains(v)))
                    })
            })
    })
}

fn user_name(user: &UserV2) -> &str {
    user.metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}
