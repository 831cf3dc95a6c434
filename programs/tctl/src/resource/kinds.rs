//! The kinds whose calls differ in their names only: how each is read, written and removed.

use resources::{AnyResource, Reference, kind};
use wire::proto::{self, DeleteWindowsDesktopRequest, DeleteWindowsDesktopServiceRequest};
use wire::types::{ResourceRequest, ResourceWithSecretsRequest, ResourcesWithSecretsRequest, WindowsDesktopFilter};
use wire::{
    accesslist, accessmonitoringrules, crownjewel, dbobject, dbobjectimportrule, discoveryconfig, integration,
    loginrule, machineid, okta, secreports, userloginstate, userprovisioning, vnet,
};

use super::read::chosen;
use super::{Secrets, any, not_built};
use crate::api::{Api, Call, collect};
use crate::error::{Error, Result};

/// Resources of one page.
const PAGE: i32 = 1000;

/// The resources that a reference names; `None` for kinds that are not in this table.
pub async fn get(api: &Api, reference: &Reference, secrets: Secrets) -> Result<Option<Vec<AnyResource>>> {
    let with_secrets = secrets == Secrets::Shown;
    let what = &format!("reading {}", reference.kind);
    macro_rules! one {
        ($call:expr) => {
            any([$call.within(what).await?])
        };
    }
    macro_rules! all {
        ($call:expr, $items:ident) => {
            any($call.within(what).await?.$items)
        };
    }
    macro_rules! pages {
        ($client:expr, $method:ident, $request:ty, $size:ident, $token:ident, $next:ident, $items:ident) => {{
            let mut found = Vec::new();
            let mut request = <$request>::default();
            #[allow(clippy::useless_conversion)] // some count pages in 64 bits
            {
                request.$size = PAGE.into();
            }
            loop {
                let page = $client.$method(request.clone()).within(what).await?;
                found.extend(any(page.$items));
                if page.$next.is_empty() {
                    break found;
                }
                request.$token = page.$next;
            }
        }};
    }
    let found = match (reference.kind.as_str(), reference.name.clone()) {
        (kind::APP, Some(name)) => one!(api.auth().get_app(ResourceRequest { name })),
        (kind::DB, Some(name)) => one!(api.auth().get_database(ResourceRequest { name })),
        (kind::KUBE_CLUSTER, Some(name)) => one!(api.auth().get_kubernetes_cluster(ResourceRequest { name })),
        (kind::SERVER_INFO, Some(name)) => one!(api.auth().get_server_info(ResourceRequest { name })),
        (kind::INSTALLER, Some(name)) => one!(api.auth().get_installer(ResourceRequest { name })),
        (kind::WINDOWS_DESKTOP, Some(name)) => {
            all!(api.auth().get_windows_desktops(WindowsDesktopFilter { name, ..Default::default() }), desktops)
        }
        (kind::OIDC, Some(name)) => {
            one!(api.auth().get_oidc_connector(ResourceWithSecretsRequest { name, with_secrets }))
        }
        (kind::SAML, Some(name)) => {
            one!(api.auth().get_saml_connector(ResourceWithSecretsRequest { name, with_secrets }))
        }
        (kind::GITHUB, Some(name)) => {
            one!(api.auth().get_github_connector(ResourceWithSecretsRequest { name, with_secrets }))
        }
        (kind::USER_GROUP, Some(name)) => one!(api.auth().get_user_group(proto::GetUserGroupRequest { name })),
        (kind::SAML_IDP_SERVICE_PROVIDER, Some(name)) => {
            one!(api.auth().get_saml_id_p_service_provider(proto::GetSamlIdPServiceProviderRequest { name }))
        }
        (kind::ACCESS_LIST, Some(name)) => {
            one!(api.access_lists().get_access_list(accesslist::GetAccessListRequest { name }))
        }
        (kind::ACCESS_MONITORING_RULE, Some(name)) => one!(
            api.monitoring_rules()
                .get_access_monitoring_rule(accessmonitoringrules::GetAccessMonitoringRuleRequest { name })
        ),
        (kind::CROWN_JEWEL, Some(name)) => {
            one!(api.crown_jewels().get_crown_jewel(crownjewel::GetCrownJewelRequest { name }))
        }
        (kind::DB_OBJECT, Some(name)) => {
            one!(api.database_objects().get_database_object(dbobject::GetDatabaseObjectRequest { name }))
        }
        (kind::DB_OBJECT_IMPORT_RULE, Some(name)) => one!(
            api.import_rules()
                .get_database_object_import_rule(dbobjectimportrule::GetDatabaseObjectImportRuleRequest { name })
        ),
        (kind::DISCOVERY_CONFIG, Some(name)) => {
            one!(api.discovery().get_discovery_config(discoveryconfig::GetDiscoveryConfigRequest { name }))
        }
        (kind::INTEGRATION, Some(name)) => {
            one!(api.integrations().get_integration(integration::GetIntegrationRequest { name }))
        }
        (kind::LOGIN_RULE, Some(name)) => {
            one!(api.login_rules().get_login_rule(loginrule::GetLoginRuleRequest { name }))
        }
        (kind::OKTA_IMPORT_RULE, Some(name)) => {
            one!(api.okta().get_okta_import_rule(okta::GetOktaImportRuleRequest { name }))
        }
        (kind::AUDIT_QUERY, Some(name)) => {
            one!(api.reports().get_audit_query(secreports::GetAuditQueryRequest { name }))
        }
        (kind::SECURITY_REPORT, Some(name)) => one!(api.reports().get_report(secreports::GetReportRequest { name })),
        (kind::STATIC_HOST_USER, Some(name)) => {
            one!(api.host_users().get_static_host_user(userprovisioning::GetStaticHostUserRequest { name }))
        }
        (kind::BOT, Some(name)) => one!(api.bots().get_bot(machineid::GetBotRequest { bot_name: name })),
        (kind::USER_LOGIN_STATE, Some(name)) => {
            one!(api.login_states().get_user_login_state(userloginstate::GetUserLoginStateRequest { name }))
        }
        (kind::APP, None) => all!(api.auth().get_apps(()), apps),
        (kind::DB, None) => all!(api.auth().get_databases(()), databases),
        (kind::KUBE_CLUSTER, None) => all!(api.auth().get_kubernetes_clusters(()), kubernetes_clusters),
        (kind::SERVER_INFO, None) => any(collect(api.auth().get_server_infos(()).within(what).await?, what).await?),
        (kind::INSTALLER, None) => all!(api.auth().get_installers(()), installers),
        (kind::UI_CONFIG, _) => one!(api.auth().get_ui_config(())),
        (kind::CLUSTER_MAINTENANCE_CONFIG, _) => one!(api.auth().get_cluster_maintenance_config(())),
        (kind::NETWORK_RESTRICTIONS, _) => one!(api.auth().get_network_restrictions(())),
        (kind::WINDOWS_DESKTOP, None) => {
            all!(api.auth().get_windows_desktops(WindowsDesktopFilter::default()), desktops)
        }
        (kind::WINDOWS_DESKTOP_SERVICE, _) => all!(api.auth().get_windows_desktop_services(()), services),
        (kind::OIDC, None) => {
            all!(api.auth().get_oidc_connectors(ResourcesWithSecretsRequest { with_secrets }), oidc_connectors)
        }
        (kind::SAML, None) => {
            all!(api.auth().get_saml_connectors(ResourcesWithSecretsRequest { with_secrets }), saml_connectors)
        }
        (kind::GITHUB, None) => {
            all!(api.auth().get_github_connectors(ResourcesWithSecretsRequest { with_secrets }), github_connectors)
        }
        (kind::USER_GROUP, None) => {
            pages!(api.auth(), list_user_groups, proto::ListUserGroupsRequest, limit, next_key, next_key, user_groups)
        }
        (kind::SAML_IDP_SERVICE_PROVIDER, None) => pages!(
            api.auth(),
            list_saml_id_p_service_providers,
            proto::ListSamlIdPServiceProvidersRequest,
            limit,
            next_key,
            next_key,
            service_providers
        ),
        (kind::ACCESS_LIST, None) => pages!(
            api.access_lists(),
            list_access_lists,
            accesslist::ListAccessListsRequest,
            page_size,
            next_token,
            next_token,
            access_lists
        ),
        (kind::ACCESS_MONITORING_RULE, None) => pages!(
            api.monitoring_rules(),
            list_access_monitoring_rules,
            accessmonitoringrules::ListAccessMonitoringRulesRequest,
            page_size,
            page_token,
            next_page_token,
            rules
        ),
        (kind::CROWN_JEWEL, None) => pages!(
            api.crown_jewels(),
            list_crown_jewels,
            crownjewel::ListCrownJewelsRequest,
            page_size,
            page_token,
            next_page_token,
            crown_jewels
        ),
        (kind::DB_OBJECT, None) => pages!(
            api.database_objects(),
            list_database_objects,
            dbobject::ListDatabaseObjectsRequest,
            page_size,
            page_token,
            next_page_token,
            objects
        ),
        (kind::DB_OBJECT_IMPORT_RULE, None) => pages!(
            api.import_rules(),
            list_database_object_import_rules,
            dbobjectimportrule::ListDatabaseObjectImportRulesRequest,
            page_size,
            page_token,
            next_page_token,
            rules
        ),
        (kind::DISCOVERY_CONFIG, None) => pages!(
            api.discovery(),
            list_discovery_configs,
            discoveryconfig::ListDiscoveryConfigsRequest,
            page_size,
            next_token,
            next_key,
            discovery_configs
        ),
        (kind::INTEGRATION, None) => pages!(
            api.integrations(),
            list_integrations,
            integration::ListIntegrationsRequest,
            limit,
            next_key,
            next_key,
            integrations
        ),
        (kind::LOGIN_RULE, None) => pages!(
            api.login_rules(),
            list_login_rules,
            loginrule::ListLoginRulesRequest,
            page_size,
            page_token,
            next_page_token,
            login_rules
        ),
        (kind::OKTA_IMPORT_RULE, None) => pages!(
            api.okta(),
            list_okta_import_rules,
            okta::ListOktaImportRulesRequest,
            page_size,
            page_token,
            next_page_token,
            import_rules
        ),
        (kind::AUDIT_QUERY, None) => pages!(
            api.reports(),
            list_audit_queries,
            secreports::ListAuditQueriesRequest,
            page_size,
            page_token,
            next_page_token,
            queries
        ),
        (kind::SECURITY_REPORT, None) => pages!(
            api.reports(),
            list_reports,
            secreports::ListReportsRequest,
            page_size,
            page_token,
            next_page_token,
            reports
        ),
        (kind::STATIC_HOST_USER, None) => pages!(
            api.host_users(),
            list_static_host_users,
            userprovisioning::ListStaticHostUsersRequest,
            page_size,
            page_token,
            next_page_token,
            users
        ),
        (kind::VNET_CONFIG, _) => one!(api.vnet().get_vnet_config(vnet::GetVnetConfigRequest {})),
        (kind::BOT, None) => {
            pages!(api.bots(), list_bots, machineid::ListBotsRequest, page_size, page_token, next_page_token, bots)
        }
        (kind::BOT_INSTANCE, _) => pages!(
            api.bot_instances(),
            list_bot_instances,
            machineid::ListBotInstancesRequest,
            page_size,
            page_token,
            next_page_token,
            bot_instances
        ),
        (kind::USER_LOGIN_STATE, None) => all!(
            api.login_states().get_user_login_states(userloginstate::GetUserLoginStatesRequest {}),
            user_login_states
        ),
        (kind::ACCESS_LIST_MEMBER, _) => pages!(
            api.access_lists(),
            list_all_access_list_members,
            accesslist::ListAllAccessListMembersRequest,
            page_size,
            page_token,
            next_page_token,
            members
        ),
        (kind::CONNECTORS, _) => {
            let mut found =
                all!(api.auth().get_oidc_connectors(ResourcesWithSecretsRequest { with_secrets }), oidc_connectors);
            found.extend(all!(
                api.auth().get_saml_connectors(ResourcesWithSecretsRequest { with_secrets }),
                saml_connectors
            ));
            found.extend(all!(
                api.auth().get_github_connectors(ResourcesWithSecretsRequest { with_secrets }),
                github_connectors
            ));
            found
        }
        _ => return Ok(None),
    };
    // What exists once goes by its kind, whatever name was given.
    let once = super::ONCE.contains(&reference.kind.as_str());
    if once { Ok(Some(found)) } else { chosen(found, reference).map(Some) }
}

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

/// Removes the resource that a reference names; `false` for kinds that are not in this table.
pub async fn remove(api: &Api, reference: &Reference) -> Result<bool> {
    let what = &format!("removing {}", reference.kind);
    let name = reference.name.clone().unwrap_or_default();
    match reference.kind.as_str() {
        kind::APP => api.auth().delete_app(ResourceRequest { name }).within(what).await?,
        kind::DB => api.auth().delete_database(ResourceRequest { name }).within(what).await?,
        kind::KUBE_CLUSTER => api.auth().delete_kubernetes_cluster(ResourceRequest { name }).within(what).await?,
        kind::SERVER_INFO => api.auth().delete_server_info(ResourceRequest { name }).within(what).await?,
        kind::INSTALLER => api.auth().delete_installer(ResourceRequest { name }).within(what).await?,
        kind::UI_CONFIG => api.auth().delete_ui_config(()).within(what).await?,
        kind::CLUSTER_MAINTENANCE_CONFIG => api.auth().delete_cluster_maintenance_config(()).within(what).await?,
        kind::NETWORK_RESTRICTIONS => api.auth().delete_network_restrictions(()).within(what).await?,
        kind::WINDOWS_DESKTOP => {
            api.auth()
                .delete_windows_desktop(DeleteWindowsDesktopRequest { name, ..Default::default() })
                .within(what)
                .await?
        }
        kind::WINDOWS_DESKTOP_SERVICE => {
            api.auth().delete_windows_desktop_service(DeleteWindowsDesktopServiceRequest { name }).within(what).await?
        }
        kind::OIDC => api.auth().delete_oidc_connector(ResourceRequest { name }).within(what).await?,
        kind::SAML => api.auth().delete_saml_connector(ResourceRequest { name }).within(what).await?,
        kind::GITHUB => api.auth().delete_github_connector(ResourceRequest { name }).within(what).await?,
        kind::USER_GROUP => api.auth().delete_user_group(proto::DeleteUserGroupRequest { name }).within(what).await?,
        kind::SAML_IDP_SERVICE_PROVIDER => {
            api.auth()
                .delete_saml_id_p_service_provider(proto::DeleteSamlIdPServiceProviderRequest { name })
                .within(what)
                .await?
        }
        kind::ACCESS_LIST => {
            api.access_lists().delete_access_list(accesslist::DeleteAccessListRequest { name }).within(what).await?
        }
        kind::ACCESS_MONITORING_RULE => {
            api.monitoring_rules()
                .delete_access_monitoring_rule(accessmonitoringrules::DeleteAccessMonitoringRuleRequest { name })
                .within(what)
                .await?
        }
        kind::CROWN_JEWEL => {
            api.crown_jewels().delete_crown_jewel(crownjewel::DeleteCrownJewelRequest { name }).within(what).await?
        }
        kind::DB_OBJECT => {
            api.database_objects()
                .delete_database_object(dbobject::DeleteDatabaseObjectRequest { name })
                .within(what)
                .await?
        }
        kind::DB_OBJECT_IMPORT_RULE => {
            api.import_rules()
                .delete_database_object_import_rule(dbobjectimportrule::DeleteDatabaseObjectImportRuleRequest { name })
                .within(what)
                .await?
        }
        kind::DISCOVERY_CONFIG => {
            api.discovery()
                .delete_discovery_config(discoveryconfig::DeleteDiscoveryConfigRequest { name })
                .within(what)
                .await?
        }
        kind::INTEGRATION => {
            api.integrations().delete_integration(integration::DeleteIntegrationRequest { name }).within(what).await?
        }
        kind::LOGIN_RULE => {
            api.login_rules().delete_login_rule(loginrule::DeleteLoginRuleRequest { name }).within(what).await?
        }
        kind::OKTA_IMPORT_RULE => {
            api.okta().delete_okta_import_rule(okta::DeleteOktaImportRuleRequest { name }).within(what).await?
        }
        kind::AUDIT_QUERY => {
            api.reports().delete_audit_query(secreports::DeleteAuditQueryRequest { name }).within(what).await?
        }
        kind::SECURITY_REPORT => {
            api.reports().delete_report(secreports::DeleteReportRequest { name }).within(what).await?
        }
        kind::STATIC_HOST_USER => {
            api.host_users()
                .delete_static_host_user(userprovisioning::DeleteStaticHostUserRequest { name })
                .within(what)
                .await?
        }
        kind::VNET_CONFIG => api.vnet().delete_vnet_config(vnet::DeleteVnetConfigRequest {}).within(what).await?,
        kind::BOT => api.bots().delete_bot(machineid::DeleteBotRequest { bot_name: name }).within(what).await?,
        kind::BOT_INSTANCE => {
            api.bot_instances()
                .delete_bot_instance(machineid::DeleteBotInstanceRequest {
                    bot_name: first_part(reference)?,
                    instance_id: name,
                })
                .within(what)
                .await?
        }
        kind::USER_LOGIN_STATE => {
            api.login_states()
                .delete_user_login_state(userloginstate::DeleteUserLoginStateRequest { name })
                .within(what)
                .await?
        }
        kind::ACCESS_LIST_MEMBER => {
            api.access_lists()
                .delete_access_list_member(accesslist::DeleteAccessListMemberRequest {
                    access_list: first_part(reference)?,
                    member_name: name,
                })
                .within(what)
                .await?
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The first part of a name of two: the bot of an instance, the list of a member.
fn first_part(reference: &Reference) -> Result<String> {
    let kind = &reference.kind;
    reference
        .sub_kind
        .clone()
        .ok_or_else(|| Error::bad(format!("the full name is missing: expected {kind}/owner/name")))
}
