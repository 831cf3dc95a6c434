//! Roles.

use wire::error::Result;
use wire::proto::{
    CreateRoleRequest, DeleteRoleRequest, GetRoleRequest, GetRolesResponse, ListRolesRequest, ListRolesResponse,
    UpdateRoleRequest, UpsertRoleRequest,
};
use wire::types::{RoleFilter, RoleV6};

use super::{Api, named, page, required};
use crate::authz::AuthContext;
use crate::store::kind;

/// A role that the caller holds, or any with the right to read roles.
pub async fn get_role(api: &Api, context: &AuthContext, message: GetRoleRequest) -> Result<RoleV6> {
    let name = named(&message.name, "Name")?;
    if !context.role_names().iter().any(|held| held == name) {
        context.require("role", &["read"])?;
    }
    Ok((*api.auth().store().get::<kind::Role>(name).await?).clone())
}

pub async fn get_roles(api: &Api, _: &AuthContext, (): ()) -> Result<GetRolesResponse> {
    Ok(GetRolesResponse { roles: page::owned(api.auth().store().list::<kind::Role>().await?) })
}

pub async fn list_roles(api: &Api, _: &AuthContext, message: ListRolesRequest) -> Result<ListRolesResponse> {
    let filter = message.filter.unwrap_or_default();
    let limit = page::limit(message.limit)?;
    let found = api.auth().store().page::<kind::Role>(&message.start_key, limit, |role| matches(&filter, role)).await?;
    let (mut roles, mut next_key) = (page::owned(found.items), found.next_key);
    page::fit(&mut roles, &mut next_key, |role| name(role).to_owned());
    Ok(ListRolesResponse { roles, next_key })
}

pub async fn create_role(api: &Api, context: &AuthContext, message: CreateRoleRequest) -> Result<RoleV6> {
    api.auth().create_role(context.caller(), required(message.role, "Role")?).await
}

pub async fn update_role(api: &Api, context: &AuthContext, message: UpdateRoleRequest) -> Result<RoleV6> {
    api.auth().update_role(context.caller(), required(message.role, "Role")?).await
}

pub async fn upsert_role_v2(api: &Api, context: &AuthContext, message: UpsertRoleRequest) -> Result<RoleV6> {
    api.auth().upsert_role(context.caller(), required(message.role, "Role")?).await
}

pub async fn upsert_role(api: &Api, context: &AuthContext, role: RoleV6) -> Result<()> {
    api.auth().upsert_role(context.caller(), role).await.map(drop)
}

pub async fn delete_role(api: &Api, context: &AuthContext, message: DeleteRoleRequest) -> Result<()> {
    api.auth().delete_role(context.caller(), named(&message.name, "Name")?).await
}

fn matches(filter: &RoleFilter, role: &RoleV6) -> bool {
    let Some(metadata) = &role.metadata else { return false };
    let system = metadata.labels.get("teleport.internal/resource-type").is_some_and(|label| label == "system");
    if filter.skip_system_roles && system {
        return false;
    }
    filter.search_keywords.iter().all(|word| {
        let word = word.to_lowercase();
        metadata.name.to_lowercase().contains(&word)
            || metadata
                .labels
                .iter()
                .any(|(key, value)| key.to_lowercase().contains(&word) || value.to_lowercase().contains(&word))
    })
}

fn name(role: &RoleV6) -> &str {
    role.metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}
