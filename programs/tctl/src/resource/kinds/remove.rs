//! How each kind is removed.

use resources::{Reference, kind};
use wire::proto::{self, DeleteWindowsDesktopRequest, DeleteWindowsDesktopServiceRequest};
use wire::types::ResourceRequest;
use wire::{
    accesslist, accessmonitoringrules, crownjewel, dbobject, dbobjectimportrule, discoveryconfig, integration,
    loginrule, machineid, okta, secreports, userloginstate, userprovisioning, vnet,
};

use crate::api::{Api, Call};
use crate::error::{Error, Result};

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
