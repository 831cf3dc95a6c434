//! Bots: `teleport.machineid.v1`. A bot is a user and a role; its instances are records of their own.

use wire::error::{Error, Result};
use wire::machineid::bot_instance_service_server::BotInstanceService;
use wire::machineid::bot_service_server::BotService;
use wire::machineid::{
    Bot, BotInstance, CreateBotRequest, DeleteBotInstanceRequest, DeleteBotRequest, GetBotInstanceRequest,
    GetBotRequest, ListBotInstancesRequest, ListBotInstancesResponse, ListBotsRequest, ListBotsResponse,
    UpdateBotRequest, UpsertBotRequest,
};

use super::rpcs::service;
use super::{Api, kinds, named, page, required};
use crate::authz::AuthContext;
use crate::store::kind;

service! {
    BotService, |api, context, message|
    unary {
        get_bot(GetBotRequest) -> Bot = api.auth().bot(named(&message.bot_name, "bot_name")?);
        list_bots(ListBotsRequest) -> ListBotsResponse = list(api, &message);
        create_bot(CreateBotRequest) -> Bot =
            api.auth().create_bot(context.caller(), required(message.bot, "bot")?).await;
        update_bot(UpdateBotRequest) -> Bot = update(api, context, message).await;
        upsert_bot(UpsertBotRequest) -> Bot =
            api.auth().upsert_bot(context.caller(), required(message.bot, "bot")?).await;
        delete_bot(DeleteBotRequest) -> () =
            api.auth().delete_bot(context.caller(), named(&message.bot_name, "bot_name")?).await;
    }
}

service! {
    BotInstanceService, |api, context, message|
    unary {
        get_bot_instance(GetBotInstanceRequest) -> BotInstance =
            kinds::get::<kind::BotInstance>(api, &kinds::two_part(&message.bot_name, &message.instance_id)?).await;
        list_bot_instances(ListBotInstancesRequest) -> ListBotInstancesResponse = instances(api, &message).await;
        delete_bot_instance(DeleteBotInstanceRequest) -> () =
            kinds::delete::<kind::BotInstance>(api, context, &kinds::two_part(&message.bot_name, &message.instance_id)?)
                .await;
    }
}

fn list(api: &Api, message: &ListBotsRequest) -> Result<ListBotsResponse> {
    let limit = page::limit(message.page_size)?;
    let mut bots = api.auth().bots();
    bots.retain(|bot| name(bot) >= message.page_token.as_str());
    let next_page_token = bots.get(limit).map(|bot| name(bot).to_owned()).unwrap_or_default();
    bots.truncate(limit);
    Ok(ListBotsResponse { bots, next_page_token })
}

/// Changes the parts that the mask names: `spec.roles`, `spec.traits`.
async fn update(api: &Api, context: &AuthContext, message: UpdateBotRequest) -> Result<Bot> {
    let wanted = required(message.bot, "bot")?;
    let mask = required(message.update_mask, "update_mask")?;
    let mut bot = api.auth().bot(named(name(&wanted), "bot.metadata.name")?)?;
    let (from, to) = (wanted.spec.unwrap_or_default(), bot.spec.get_or_insert_default());
    if mask.paths.is_empty() {
        return Err(Error::bad_parameter("update_mask names nothing: expected spec.roles or spec.traits"));
    }
    for path in &mask.paths {
        match path.as_str() {
            "spec.roles" => to.roles.clone_from(&from.roles),
            "spec.traits" => to.traits.clone_from(&from.traits),
            other => {
                let text = format!("update_mask: {other:?} cannot be changed: expected spec.roles or spec.traits");
                return Err(Error::bad_parameter(text));
            }
        }
    }
    api.auth().upsert_bot(context.caller(), bot).await
}

async fn instances(api: &Api, message: &ListBotInstancesRequest) -> Result<ListBotInstancesResponse> {
    let wanted = |instance: &BotInstance| {
        let of = instance.spec.as_ref().map_or("", |spec| &spec.bot_name);
        message.filter_bot_name.is_empty() || message.filter_bot_name == of
    };
    let found = kinds::page_of::<kind::BotInstance>(api, message.page_size, &message.page_token, wanted).await?;
    let (bot_instances, next_page_token) = found;
    Ok(ListBotInstancesResponse { bot_instances, next_page_token })
}

fn name(bot: &Bot) -> &str {
    bot.metadata.as_ref().map_or("", |metadata| &metadata.name)
}
