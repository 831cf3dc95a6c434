//! Join tokens.

use wire::error::Result;
use wire::proto::{CreateTokenV2Request, UpsertTokenV2Request, create_token_v2_request, upsert_token_v2_request};
use wire::types::{ProvisionTokenV2, ProvisionTokenV2List, ResourceRequest};

use super::{Api, named, required};
use crate::authz::AuthContext;

pub async fn get_token(api: &Api, _: &AuthContext, message: ResourceRequest) -> Result<ProvisionTokenV2> {
    api.auth().get_token(named(&message.name, "Name")?).await
}

/// Every token: static ones and those of invited users included.
pub async fn get_tokens(api: &Api, _: &AuthContext, (): ()) -> Result<ProvisionTokenV2List> {
    Ok(ProvisionTokenV2List { provision_tokens: api.auth().list_tokens().await? })
}

pub async fn create_token_v2(api: &Api, context: &AuthContext, message: CreateTokenV2Request) -> Result<()> {
    let create_token_v2_request::Token::V2(token) = required(message.token, "Token")?;
    api.auth().create_token(context.caller(), token).await
}

pub async fn upsert_token_v2(api: &Api, context: &AuthContext, message: UpsertTokenV2Request) -> Result<()> {
    let upsert_token_v2_request::Token::V2(token) = required(message.token, "Token")?;
    api.auth().upsert_token(context.caller(), token).await
}

pub async fn delete_token(api: &Api, context: &AuthContext, message: ResourceRequest) -> Result<()> {
    api.auth().delete_token(context.caller(), named(&message.name, "Name")?).await
}
