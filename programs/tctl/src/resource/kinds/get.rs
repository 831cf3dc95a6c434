//! How each kind is read.

use resources::{AnyResource, Reference, kind};
use wire::client::turn_page;
use wire::proto;
use wire::types::{ResourceRequest, ResourceWithSecretsRequest, ResourcesWithSecretsRequest, WindowsDesktopFilter};
use wire::{
    accesslist, accessmonitoringrules, crownjewel, dbobject, dbobjectimportrule, discoveryconfig, integration,
    loginrule, machineid, okta, secreports, userloginstate, userprovisioning, vnet,
};

use crate::api::{Api, Call, collect};
use crate::error::Result;
use crate::resource::read::chosen;
use crate::resource::{Secrets, any};

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
                if !turn_page(&mut request.$token, page.$next)? {
                    break found;
                }
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
    let once = crate::resource::ONCE.contains(&reference.kind.as_str());
    if once { Ok(Some(found)) } else { chosen(found, reference).map(Some) }
}
