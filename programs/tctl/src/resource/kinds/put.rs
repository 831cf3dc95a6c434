//! How each kind is written.

use resources::AnyResource;
use wire::proto;
use wire::{
    accesslist, accessmonitoringrules, crownjewel, dbobject, dbobjectimportrule, discoveryconfig, integration,
    loginrule, machineid, okta, secreports, userprovisioning, vnet,
};

use crate::api::{Api, Call};
use crate::error::Result;
use crate::resource::not_built;

/// Writes a resource, over the one there is if it `exists`.
pub async fn put(api: &Api, resource: AnyResource, exists: bool, what: &str) -> Result<()> {
    match resource {
        AnyResource::App(value) => match exists {
            true => api.auth().update_app(*value).within(what).await,
            false => api.auth().create_app(*value).within(what).await,
        },
        AnyResource::Database(value) => match exists {
            true => api.auth().update_database(*value).within(what).await,
            false => api.auth().create_database(*value).within(what).await,
        },
        AnyResource::KubernetesCluster(value) => match exists {
            true => api.auth().update_kubernetes_cluster(*value).within(what).await,
            false => api.auth().create_kubernetes_cluster(*value).within(what).await,
        },
        AnyResource::ServerInfo(value) => api.auth().upsert_server_info(*value).within(what).await,
        AnyResource::Installer(value) => api.auth().set_installer(*value).within(what).await,
        AnyResource::UiConfig(value) => api.auth().set_ui_config(*value).within(what).await,
        AnyResource::MaintenanceConfig(value) => {
            api.auth().update_cluster_maintenance_config(*value).within(what).await
        }
        AnyResource::NetworkRestrictions(value) => api.auth().set_network_restrictions(*value).within(what).await,
        AnyResource::WindowsDesktop(value) => api.auth().upsert_windows_desktop(*value).within(what).await,
        AnyResource::OidcConnector(value) => {
            let connector = Some(*value);
            match exists {
                true => {
                    api.auth()
                        .upsert_oidc_connector_v2(proto::UpsertOidcConnectorRequest { connector })
                        .within(what)
                        .await
                }
                false => {
                    api.auth().create_oidc_connector(proto::CreateOidcConnectorRequest { connector }).within(what).await
                }
            }
            .map(drop)
        }
        AnyResource::SamlConnector(value) => {
            let connector = Some(*value);
            match exists {
                true => {
                    api.auth()
                        .upsert_saml_connector_v2(proto::UpsertSamlConnectorRequest { connector })
                        .within(what)
                        .await
                }
                false => {
                    api.auth().create_saml_connector(proto::CreateSamlConnectorRequest { connector }).within(what).await
                }
            }
            .map(drop)
        }
        AnyResource::GithubConnector(value) => {
            let connector = Some(*value);
            match exists {
                true => {
                    api.auth()
                        .upsert_github_connector_v2(proto::UpsertGithubConnectorRequest { connector })
                        .within(what)
                        .await
                }
                false => {
                    api.auth()
                        .create_github_connector(proto::CreateGithubConnectorRequest { connector })
                        .within(what)
                        .await
                }
            }
            .map(drop)
        }
        AnyResource::UserGroup(value) => match exists {
            true => api.auth().update_user_group(*value).within(what).await,
            false => api.auth().create_user_group(*value).within(what).await,
        },
        AnyResource::SamlServiceProvider(value) => match exists {
            true => api.auth().update_saml_id_p_service_provider(*value).within(what).await,
            false => api.auth().create_saml_id_p_service_provider(*value).within(what).await,
        },
        AnyResource::AccessList(value) => api
            .access_lists()
            .upsert_access_list(accesslist::UpsertAccessListRequest { access_list: Some(*value) })
            .within(what)
            .await
            .map(drop),
        AnyResource::AccessMonitoringRule(value) => api
            .monitoring_rules()
            .upsert_access_monitoring_rule(accessmonitoringrules::UpsertAccessMonitoringRuleRequest {
                rule: Some(*value),
            })
            .within(what)
            .await
            .map(drop),
        AnyResource::CrownJewel(value) => api
            .crown_jewels()
            .upsert_crown_jewel(crownjewel::UpsertCrownJewelRequest { crown_jewel: Some(*value) })
            .within(what)
            .await
            .map(drop),
        AnyResource::DatabaseObject(value) => api
            .database_objects()
            .upsert_database_object(dbobject::UpsertDatabaseObjectRequest { object: Some(*value) })
            .within(what)
            .await
            .map(drop),
        AnyResource::DatabaseObjectImportRule(value) => api
            .import_rules()
            .upsert_database_object_import_rule(dbobjectimportrule::UpsertDatabaseObjectImportRuleRequest {
                rule: Some(*value),
            })
            .within(what)
            .await
            .map(drop),
        AnyResource::DiscoveryConfig(value) => api
            .discovery()
            .upsert_discovery_config(discoveryconfig::UpsertDiscoveryConfigRequest { discovery_config: Some(*value) })
            .within(what)
            .await
            .map(drop),
        AnyResource::Integration(value) => {
            let integration = Some(*value);
            match exists {
                true => {
                    api.integrations()
                        .update_integration(integration::UpdateIntegrationRequest { integration })
                        .within(what)
                        .await
                }
                false => {
                    api.integrations()
                        .create_integration(integration::CreateIntegrationRequest { integration })
                        .within(what)
                        .await
                }
            }
            .map(drop)
        }
        AnyResource::LoginRule(value) => api
            .login_rules()
            .upsert_login_rule(loginrule::UpsertLoginRuleRequest { login_rule: Some(*value) })
            .within(what)
            .await
            .map(drop),
        AnyResource::OktaImportRule(value) => {
            let import_rule = Some(*value);
            match exists {
                true => {
                    api.okta()
                        .update_okta_import_rule(okta::UpdateOktaImportRuleRequest { import_rule })
                        .within(what)
                        .await
                }
                false => {
                    api.okta()
                        .create_okta_import_rule(okta::CreateOktaImportRuleRequest { import_rule })
                        .within(what)
                        .await
                }
            }
            .map(drop)
        }
        AnyResource::AuditQuery(value) => api
            .reports()
            .upsert_audit_query(secreports::UpsertAuditQueryRequest { audit_query: Some(*value) })
            .within(what)
            .await
            .map(drop),
        AnyResource::SecurityReport(value) => api
            .reports()
            .upsert_report(secreports::UpsertReportRequest { report: Some(*value) })
            .within(what)
            .await
            .map(drop),
        AnyResource::StaticHostUser(value) => api
            .host_users()
            .upsert_static_host_user(userprovisioning::UpsertStaticHostUserRequest { user: Some(*value) })
            .within(what)
            .await
            .map(drop),
        AnyResource::VnetConfig(value) => api
            .vnet()
            .upsert_vnet_config(vnet::UpsertVnetConfigRequest { vnet_config: Some(*value) })
            .within(what)
            .await
            .map(drop),
        AnyResource::Bot(value) => {
            let bot = Some(*value);
            match exists {
                true => api.bots().upsert_bot(machineid::UpsertBotRequest { bot }).within(what).await,
                false => api.bots().create_bot(machineid::CreateBotRequest { bot }).within(what).await,
            }
            .map(drop)
        }
        AnyResource::AccessListMember(value) => api
            .access_lists()
            .upsert_access_list_member(accesslist::UpsertAccessListMemberRequest { member: Some(*value) })
            .within(what)
            .await
            .map(drop),
        other => Err(not_built(other.kind(), "creating")),
    }
}
