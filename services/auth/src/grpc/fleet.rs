//! Discovery, integrations, labels of what is found, accounts on servers, virtual networks: one row an RPC.

use wire::dbobject::database_object_service_server::DatabaseObjectService;
use wire::dbobjectimportrule::database_object_import_rule_service_server::DatabaseObjectImportRuleService;
use wire::discoveryconfig::discovery_config_service_server::DiscoveryConfigService;
use wire::error::{Error, Result};
use wire::integration::integration_service_server::IntegrationService;
use wire::okta::okta_service_server::OktaService;
use wire::userprovisioning::static_host_users_service_server::StaticHostUsersService;
use wire::vnet::vnet_config_service_server::VnetConfigService;
use wire::{dbobject, dbobjectimportrule, discoveryconfig, integration, okta, types, userprovisioning, vnet};

use super::rpcs::service;
use super::{Api, kinds, named};
use crate::Write;
use crate::store::kind;

service! {
    DatabaseObjectService, |api, context, message|
    unary {
        create_database_object(dbobject::CreateDatabaseObjectRequest) -> dbobject::DatabaseObject =
            kinds::write::<kind::DatabaseObject>(api, context, message.object, Write::Create).await;
        update_database_object(dbobject::UpdateDatabaseObjectRequest) -> dbobject::DatabaseObject =
            kinds::write::<kind::DatabaseObject>(api, context, message.object, Write::Update).await;
        upsert_database_object(dbobject::UpsertDatabaseObjectRequest) -> dbobject::DatabaseObject =
            kinds::write::<kind::DatabaseObject>(api, context, message.object, Write::Upsert).await;
        get_database_object(dbobject::GetDatabaseObjectRequest) -> dbobject::DatabaseObject =
            kinds::get::<kind::DatabaseObject>(api, &message.name).await;
        list_database_objects(dbobject::ListDatabaseObjectsRequest) -> dbobject::ListDatabaseObjectsResponse =
            kinds::page::<kind::DatabaseObject>(api, message.page_size, &message.page_token).await.map(|(objects, next)| dbobject::ListDatabaseObjectsResponse { objects, next_page_token: next });
        delete_database_object(dbobject::DeleteDatabaseObjectRequest) -> () =
            kinds::delete::<kind::DatabaseObject>(api, context, &message.name).await;
    }
}

service! {
    DatabaseObjectImportRuleService, |api, context, message|
    unary {
        create_database_object_import_rule(dbobjectimportrule::CreateDatabaseObjectImportRuleRequest) -> dbobjectimportrule::DatabaseObjectImportRule =
            kinds::write::<kind::DatabaseObjectImportRule>(api, context, message.rule, Write::Create).await;
        update_database_object_import_rule(dbobjectimportrule::UpdateDatabaseObjectImportRuleRequest) -> dbobjectimportrule::DatabaseObjectImportRule =
            kinds::write::<kind::DatabaseObjectImportRule>(api, context, message.rule, Write::Update).await;
        upsert_database_object_import_rule(dbobjectimportrule::UpsertDatabaseObjectImportRuleRequest) -> dbobjectimportrule::DatabaseObjectImportRule =
            kinds::write::<kind::DatabaseObjectImportRule>(api, context, message.rule, Write::Upsert).await;
        get_database_object_import_rule(dbobjectimportrule::GetDatabaseObjectImportRuleRequest) -> dbobjectimportrule::DatabaseObjectImportRule =
            kinds::get::<kind::DatabaseObjectImportRule>(api, &message.name).await;
        list_database_object_import_rules(dbobjectimportrule::ListDatabaseObjectImportRulesRequest) -> dbobjectimportrule::ListDatabaseObjectImportRulesResponse =
            kinds::page::<kind::DatabaseObjectImportRule>(api, message.page_size, &message.page_token).await.map(|(rules, next)| dbobjectimportrule::ListDatabaseObjectImportRulesResponse { rules, next_page_token: next });
        delete_database_object_import_rule(dbobjectimportrule::DeleteDatabaseObjectImportRuleRequest) -> () =
            kinds::delete::<kind::DatabaseObjectImportRule>(api, context, &message.name).await;
    }
}

service! {
    DiscoveryConfigService, |api, context, message|
    unary {
        create_discovery_config(discoveryconfig::CreateDiscoveryConfigRequest) -> discoveryconfig::DiscoveryConfig =
            kinds::write::<kind::DiscoveryConfig>(api, context, message.discovery_config, Write::Create).await;
        update_discovery_config(discoveryconfig::UpdateDiscoveryConfigRequest) -> discoveryconfig::DiscoveryConfig =
            kinds::write::<kind::DiscoveryConfig>(api, context, message.discovery_config, Write::Update).await;
        upsert_discovery_config(discoveryconfig::UpsertDiscoveryConfigRequest) -> discoveryconfig::DiscoveryConfig =
            kinds::write::<kind::DiscoveryConfig>(api, context, message.discovery_config, Write::Upsert).await;
        get_discovery_config(discoveryconfig::GetDiscoveryConfigRequest) -> discoveryconfig::DiscoveryConfig =
            kinds::get::<kind::DiscoveryConfig>(api, &message.name).await;
        list_discovery_configs(discoveryconfig::ListDiscoveryConfigsRequest) -> discoveryconfig::ListDiscoveryConfigsResponse =
            kinds::page::<kind::DiscoveryConfig>(api, message.page_size, &message.next_token).await.map(|(discovery_configs, next)| discoveryconfig::ListDiscoveryConfigsResponse { discovery_configs, next_key: next, total_count: 0 });
        delete_discovery_config(discoveryconfig::DeleteDiscoveryConfigRequest) -> () =
            kinds::delete::<kind::DiscoveryConfig>(api, context, &message.name).await;
        delete_all_discovery_configs(discoveryconfig::DeleteAllDiscoveryConfigsRequest) -> () =
            kinds::delete_all::<kind::DiscoveryConfig>(api, context).await;
        update_discovery_config_status(discoveryconfig::UpdateDiscoveryConfigStatusRequest) -> discoveryconfig::DiscoveryConfig =
            discovery_status(api, message).await;
    }
}

service! {
    IntegrationService, |api, context, message|
    unary {
        create_integration(integration::CreateIntegrationRequest) -> types::IntegrationV1 =
            kinds::write::<kind::Integration>(api, context, message.integration, Write::Create).await;
        update_integration(integration::UpdateIntegrationRequest) -> types::IntegrationV1 =
            kinds::write::<kind::Integration>(api, context, message.integration, Write::Update).await;
        get_integration(integration::GetIntegrationRequest) -> types::IntegrationV1 =
            kinds::get::<kind::Integration>(api, &message.name).await;
        list_integrations(integration::ListIntegrationsRequest) -> integration::ListIntegrationsResponse =
            kinds::page::<kind::Integration>(api, message.limit, &message.next_key).await.map(|(integrations, next)| integration::ListIntegrationsResponse { integrations, next_key: next, total_count: 0 });
        delete_integration(integration::DeleteIntegrationRequest) -> () =
            kinds::delete::<kind::Integration>(api, context, &message.name).await;
        delete_all_integrations(integration::DeleteAllIntegrationsRequest) -> () =
            kinds::delete_all::<kind::Integration>(api, context).await;
    }
}

service! {
    OktaService, |api, context, message|
    unary {
        create_okta_import_rule(okta::CreateOktaImportRuleRequest) -> types::OktaImportRuleV1 =
            kinds::write::<kind::OktaImportRule>(api, context, message.import_rule, Write::Create).await;
        update_okta_import_rule(okta::UpdateOktaImportRuleRequest) -> types::OktaImportRuleV1 =
            kinds::write::<kind::OktaImportRule>(api, context, message.import_rule, Write::Update).await;
        get_okta_import_rule(okta::GetOktaImportRuleRequest) -> types::OktaImportRuleV1 =
            kinds::get::<kind::OktaImportRule>(api, &message.name).await;
        list_okta_import_rules(okta::ListOktaImportRulesRequest) -> okta::ListOktaImportRulesResponse =
            kinds::page::<kind::OktaImportRule>(api, message.page_size, &message.page_token).await.map(|(import_rules, next)| okta::ListOktaImportRulesResponse { import_rules, next_page_token: next });
        delete_okta_import_rule(okta::DeleteOktaImportRuleRequest) -> () =
            kinds::delete::<kind::OktaImportRule>(api, context, &message.name).await;
        delete_all_okta_import_rules(okta::DeleteAllOktaImportRulesRequest) -> () =
            kinds::delete_all::<kind::OktaImportRule>(api, context).await;
    }
}

service! {
    StaticHostUsersService, |api, context, message|
    unary {
        create_static_host_user(userprovisioning::CreateStaticHostUserRequest) -> userprovisioning::StaticHostUser =
            kinds::write::<kind::StaticHostUser>(api, context, message.user, Write::Create).await;
        update_static_host_user(userprovisioning::UpdateStaticHostUserRequest) -> userprovisioning::StaticHostUser =
            kinds::write::<kind::StaticHostUser>(api, context, message.user, Write::Update).await;
        upsert_static_host_user(userprovisioning::UpsertStaticHostUserRequest) -> userprovisioning::StaticHostUser =
            kinds::write::<kind::StaticHostUser>(api, context, message.user, Write::Upsert).await;
        get_static_host_user(userprovisioning::GetStaticHostUserRequest) -> userprovisioning::StaticHostUser =
            kinds::get::<kind::StaticHostUser>(api, &message.name).await;
        list_static_host_users(userprovisioning::ListStaticHostUsersRequest) -> userprovisioning::ListStaticHostUsersResponse =
            kinds::page::<kind::StaticHostUser>(api, message.page_size, &message.page_token).await.map(|(users, next)| userprovisioning::ListStaticHostUsersResponse { users, next_page_token: next });
        delete_static_host_user(userprovisioning::DeleteStaticHostUserRequest) -> () =
            kinds::delete::<kind::StaticHostUser>(api, context, &message.name).await;
    }
}

service! {
    VnetConfigService, |api, context, message|
    unary {
        create_vnet_config(vnet::CreateVnetConfigRequest) -> vnet::VnetConfig =
            kinds::write::<kind::VnetConfig>(api, context, message.vnet_config, Write::Create).await;
        update_vnet_config(vnet::UpdateVnetConfigRequest) -> vnet::VnetConfig =
            kinds::write::<kind::VnetConfig>(api, context, message.vnet_config, Write::Update).await;
        upsert_vnet_config(vnet::UpsertVnetConfigRequest) -> vnet::VnetConfig =
            kinds::write::<kind::VnetConfig>(api, context, message.vnet_config, Write::Upsert).await;
        get_vnet_config(vnet::GetVnetConfigRequest) -> vnet::VnetConfig =
            kinds::get::<kind::VnetConfig>(api, "").await;
        delete_vnet_config(vnet::DeleteVnetConfigRequest) -> () =
            kinds::delete::<kind::VnetConfig>(api, context, "").await;
    }
}

/// What a discovery service says about its work.
async fn discovery_status(
    api: &Api,
    message: discoveryconfig::UpdateDiscoveryConfigStatusRequest,
) -> Result<discoveryconfig::DiscoveryConfig> {
    let name = named(&message.name, "name")?;
    let status = message.status.ok_or_else(|| Error::bad_parameter("missing parameter status"))?;
    let store = api.auth().store();
    let stored = store.change::<kind::DiscoveryConfig>(name, |config| {
        config.status = Some(status.clone());
        Ok(())
    });
    Ok((*stored.await?).clone())
}
