//! One row for every RPC of `proto.AuthService`.

use resources::Resource;
use tonic::Streaming;
use wire::proto::auth_service_server::AuthService;
use wire::types::keep_alive::KeepAliveType;
use wire::{events, proto, types};

use super::databases::{self, host_of_app, host_of_cluster, host_of_database};
use super::rpcs::service;
use super::{
    alerts, audit, audit_stream, basics, certificates, clusters, configs, connectors, desktops, devices, inventory,
    keep_alives, kinds, listing, locks, maintenance, mfa, nodes, plugins, requests, roles, semaphores, sessions,
    tokens, trust, watch,
};
use crate::Write;
use crate::store::kind;

service! {
    AuthService, |api, context, message|
    unary {
        get_inventory_status(proto::InventoryStatusRequest) -> proto::InventoryStatusSummary =
            inventory::get_inventory_status(api, context, message).await;
        get_inventory_connected_service_counts(proto::InventoryConnectedServiceCountsRequest) -> proto::InventoryConnectedServiceCounts =
            inventory::get_connected_service_counts(api, context, message).await;
        ping_inventory(proto::InventoryPingRequest) -> proto::InventoryPingResponse =
            inventory::ping_inventory(api, context, message).await;
        get_cluster_alerts(types::GetClusterAlertsRequest) -> proto::GetClusterAlertsResponse =
            alerts::get_cluster_alerts(api, context, message).await;
        upsert_cluster_alert(proto::UpsertClusterAlertRequest) -> () =
            alerts::upsert_cluster_alert(api, context, message).await;
        create_alert_ack(types::AlertAcknowledgement) -> () = alerts::create_alert_ack(api, context, message).await;
        get_alert_acks(proto::GetAlertAcksRequest) -> proto::GetAlertAcksResponse =
            alerts::get_alert_acks(api, context, message).await;
        clear_alert_acks(proto::ClearAlertAcksRequest) -> () = alerts::clear_alert_acks(api, context, message).await;
        create_session_tracker(proto::CreateSessionTrackerRequest) -> types::SessionTrackerV1 =
            sessions::create_session_tracker(api, context, message).await;
        get_session_tracker(proto::GetSessionTrackerRequest) -> types::SessionTrackerV1 =
            sessions::get_session_tracker(api, context, message).await;
        remove_session_tracker(proto::RemoveSessionTrackerRequest) -> () =
            sessions::remove_session_tracker(api, context, message).await;
        update_session_tracker(proto::UpdateSessionTrackerRequest) -> () =
            sessions::update_session_tracker(api, context, message).await;
        get_node(types::ResourceInNamespaceRequest) -> types::ServerV2 = nodes::get_node(api, context, message).await;
        upsert_node(types::ServerV2) -> types::KeepAlive = nodes::upsert_node(api, context, message).await;
        delete_node(types::ResourceInNamespaceRequest) -> () = nodes::delete_node(api, context, message).await;
        delete_all_nodes(types::ResourcesInNamespaceRequest) -> () =
            nodes::delete_all_nodes(api, context, message).await;
        generate_user_certs(proto::UserCertsRequest) -> proto::Certs =
            certificates::generate_user_certs(api, context, message).await;
        generate_host_certs(proto::HostCertsRequest) -> proto::Certs =
            certificates::generate_host_certs(api, context, message).await;
        generate_database_cert(proto::DatabaseCertRequest) -> proto::DatabaseCertResponse =
            databases::generate_database_cert(api, context, message).await;
        generate_open_ssh_cert(proto::OpenSshCertRequest) -> proto::OpenSshCert =
            certificates::generate_open_ssh_cert(api, context, message).await;
        is_mfa_required(proto::IsMfaRequiredRequest) -> proto::IsMfaRequiredResponse =
            mfa::is_mfa_required(api, context, message).await;
        list_access_requests(proto::ListAccessRequestsRequest) -> proto::ListAccessRequestsResponse =
            requests::list_access_requests(api, context, message).await;
        create_access_request_v2(types::AccessRequestV3) -> types::AccessRequestV3 =
            requests::create_access_request(api, context, message).await;
        set_access_request_state(proto::RequestStateSetter) -> () =
            requests::set_access_request_state(api, context, message).await;
        delete_access_request(proto::RequestId) -> () = requests::delete_access_request(api, context, message).await;
        submit_access_review(types::AccessReviewSubmission) -> types::AccessRequestV3 =
            requests::submit_access_review(api, context, message).await;
        get_access_capabilities(types::AccessCapabilitiesRequest) -> types::AccessCapabilities =
            requests::get_access_capabilities(api, context, message).await;
        get_access_request_allowed_promotions(proto::AccessRequestAllowedPromotionRequest) -> proto::AccessRequestAllowedPromotionResponse =
            requests::get_allowed_promotions(api, context, message).await;
        ping(proto::PingRequest) -> proto::PingResponse = basics::ping(api, context, message).await;
        get_reset_password_token(proto::GetResetPasswordTokenRequest) -> types::UserTokenV3 =
            devices::get_reset_password_token(api, context, message).await;
        create_reset_password_token(proto::CreateResetPasswordTokenRequest) -> types::UserTokenV3 =
            devices::create_reset_password_token(api, context, message).await;
        change_password(proto::ChangePasswordRequest) -> () = devices::change_password(api, context, message).await;
        acquire_semaphore(types::AcquireSemaphoreRequest) -> types::SemaphoreLease =
            semaphores::acquire_semaphore(api, context, message).await;
        keep_alive_semaphore_lease(types::SemaphoreLease) -> () =
            semaphores::keep_alive_semaphore_lease(api, context, message).await;
        cancel_semaphore_lease(types::SemaphoreLease) -> () =
            semaphores::cancel_semaphore_lease(api, context, message).await;
        get_semaphores(types::SemaphoreFilter) -> proto::Semaphores =
            semaphores::get_semaphores(api, context, message).await;
        delete_semaphore(types::SemaphoreFilter) -> () = semaphores::delete_semaphore(api, context, message).await;
        emit_audit_event(events::OneOf) -> () = audit::emit_audit_event(api, context, message).await;
        get_web_session(types::GetWebSessionRequest) -> proto::GetWebSessionResponse =
            sessions::get_web_session(api, context, message).await;
        get_web_sessions(()) -> proto::GetWebSessionsResponse = sessions::get_web_sessions(api, context, message).await;
        delete_web_session(types::DeleteWebSessionRequest) -> () =
            sessions::delete_web_session(api, context, message).await;
        delete_all_web_sessions(()) -> () = sessions::delete_all_web_sessions(api, context, message).await;
        get_role(proto::GetRoleRequest) -> types::RoleV6 = roles::get_role(api, context, message).await;
        get_roles(()) -> proto::GetRolesResponse = roles::get_roles(api, context, message).await;
        list_roles(proto::ListRolesRequest) -> proto::ListRolesResponse =
            roles::list_roles(api, context, message).await;
        create_role(proto::CreateRoleRequest) -> types::RoleV6 = roles::create_role(api, context, message).await;
        update_role(proto::UpdateRoleRequest) -> types::RoleV6 = roles::update_role(api, context, message).await;
        upsert_role_v2(proto::UpsertRoleRequest) -> types::RoleV6 = roles::upsert_role_v2(api, context, message).await;
        upsert_role(types::RoleV6) -> () = roles::upsert_role(api, context, message).await;
        delete_role(proto::DeleteRoleRequest) -> () = roles::delete_role(api, context, message).await;
        add_mfa_device_sync(proto::AddMfaDeviceSyncRequest) -> proto::AddMfaDeviceSyncResponse =
            devices::add_mfa_device_sync(api, context, message).await;
        delete_mfa_device_sync(proto::DeleteMfaDeviceSyncRequest) -> () =
            devices::delete_mfa_device_sync(api, context, message).await;
        get_mfa_devices(proto::GetMfaDevicesRequest) -> proto::GetMfaDevicesResponse =
            devices::get_mfa_devices(api, context, message).await;
        create_authenticate_challenge(proto::CreateAuthenticateChallengeRequest) -> proto::MfaAuthenticateChallenge =
            mfa::create_authenticate_challenge(api, context, message).await;
        create_register_challenge(proto::CreateRegisterChallengeRequest) -> proto::MfaRegisterChallenge =
            devices::create_register_challenge(api, context, message).await;
        get_trusted_cluster(types::ResourceRequest) -> types::TrustedClusterV2 =
            basics::get_trusted_cluster(api, context, message).await;
        get_trusted_clusters(()) -> types::TrustedClusterV2List =
            basics::get_trusted_clusters(api, context, message).await;
        upsert_trusted_cluster(types::TrustedClusterV2) -> types::TrustedClusterV2 =
            basics::upsert_trusted_cluster(api, context, message).await;
        delete_trusted_cluster(types::ResourceRequest) -> () =
            basics::delete_trusted_cluster(api, context, message).await;
        get_token(types::ResourceRequest) -> types::ProvisionTokenV2 = tokens::get_token(api, context, message).await;
        get_tokens(()) -> types::ProvisionTokenV2List = tokens::get_tokens(api, context, message).await;
        create_token_v2(proto::CreateTokenV2Request) -> () = tokens::create_token_v2(api, context, message).await;
        upsert_token_v2(proto::UpsertTokenV2Request) -> () = tokens::upsert_token_v2(api, context, message).await;
        delete_token(types::ResourceRequest) -> () = tokens::delete_token(api, context, message).await;
        get_cluster_audit_config(()) -> types::ClusterAuditConfigV2 =
            configs::get_cluster_audit_config(api, context, message).await;
        get_cluster_networking_config(()) -> types::ClusterNetworkingConfigV2 =
            configs::get_cluster_networking_config(api, context, message).await;
        get_session_recording_config(()) -> types::SessionRecordingConfigV2 =
            configs::get_session_recording_config(api, context, message).await;
        get_auth_preference(()) -> types::AuthPreferenceV2 = configs::get_auth_preference(api, context, message).await;
        get_events(proto::GetEventsRequest) -> proto::Events = audit::get_events(api, context, message).await;
        get_session_events(proto::GetSessionEventsRequest) -> proto::Events =
            audit::get_session_events(api, context, message).await;
        get_lock(proto::GetLockRequest) -> types::LockV2 = locks::get_lock(api, context, message).await;
        get_locks(proto::GetLocksRequest) -> proto::GetLocksResponse = locks::get_locks(api, context, message).await;
        upsert_lock(types::LockV2) -> () = locks::upsert_lock(api, context, message).await;
        delete_lock(proto::DeleteLockRequest) -> () = locks::delete_lock(api, context, message).await;
        replace_remote_locks(proto::ReplaceRemoteLocksRequest) -> () =
            locks::replace_remote_locks(api, context, message).await;
        generate_windows_desktop_cert(proto::WindowsDesktopCertRequest) -> proto::WindowsDesktopCertResponse =
            desktops::generate_certificate(api, message).await;
        generate_cert_authority_crl(proto::CertAuthorityRequest) -> proto::Crl =
            trust::generate_cert_authority_crl(api, context, message).await;
        change_user_authentication(proto::ChangeUserAuthenticationRequest) -> proto::ChangeUserAuthenticationResponse =
            devices::change_user_authentication(api, context, message).await;
        list_resources(proto::ListResourcesRequest) -> wire::ResourcePage =
            listing::list_resources(api, context, message).await;
        list_unified_resources(proto::ListUnifiedResourcesRequest) -> wire::ResourcePage =
            listing::list_unified_resources(api, context, message).await;
        get_ssh_targets(proto::GetSshTargetsRequest) -> proto::GetSshTargetsResponse =
            nodes::get_ssh_targets(api, context, message).await;
        get_domain_name(()) -> proto::GetDomainNameResponse = basics::get_domain_name(api, context, message).await;
        get_cluster_ca_cert(()) -> proto::GetClusterCaCertResponse =
            basics::get_cluster_ca_cert(api, context, message).await;
        assert_system_role(proto::SystemRoleAssertion) -> () = basics::assert_system_role(api, context, message).await;
        get_app(types::ResourceRequest) -> types::AppV3 =
            kinds::get_reached::<kind::App>(api, context, &message.name).await;
        get_apps(()) -> types::AppV3List =
            kinds::list_reached::<kind::App>(api, context).await.map(|apps| types::AppV3List { apps });
        create_app(types::AppV3) -> () =
            kinds::write_reached::<kind::App>(api, context, message, Write::Create).await.map(drop);
        update_app(types::AppV3) -> () =
            kinds::write_reached::<kind::App>(api, context, message, Write::Update).await.map(drop);
        delete_app(types::ResourceRequest) -> () =
            kinds::delete_reached::<kind::App>(api, context, &message.name).await;
        delete_all_apps(()) -> () = kinds::delete_all::<kind::App>(api, context).await;
        get_database(types::ResourceRequest) -> types::DatabaseV3 =
            kinds::get_reached::<kind::Database>(api, context, &message.name).await;
        get_databases(()) -> types::DatabaseV3List =
            kinds::list_reached::<kind::Database>(api, context).await.map(|databases| types::DatabaseV3List { databases });
        create_database(types::DatabaseV3) -> () =
            kinds::write_reached::<kind::Database>(api, context, message, Write::Create).await.map(drop);
        update_database(types::DatabaseV3) -> () =
            kinds::write_reached::<kind::Database>(api, context, message, Write::Update).await.map(drop);
        delete_database(types::ResourceRequest) -> () =
            kinds::delete_reached::<kind::Database>(api, context, &message.name).await;
        delete_all_databases(()) -> () = kinds::delete_all::<kind::Database>(api, context).await;
        get_kubernetes_cluster(types::ResourceRequest) -> types::KubernetesClusterV3 =
            clusters::get(api, context, &message.name).await;
        get_kubernetes_clusters(()) -> types::KubernetesClusterV3List =
            clusters::list(api, context).await.map(|kubernetes_clusters| types::KubernetesClusterV3List { kubernetes_clusters });
        create_kubernetes_cluster(types::KubernetesClusterV3) -> () =
            kinds::write_reached::<kind::KubernetesCluster>(api, context, message, Write::Create).await.map(drop);
        update_kubernetes_cluster(types::KubernetesClusterV3) -> () =
            kinds::write_reached::<kind::KubernetesCluster>(api, context, message, Write::Update).await.map(drop);
        delete_kubernetes_cluster(types::ResourceRequest) -> () =
            kinds::delete_reached::<kind::KubernetesCluster>(api, context, &message.name).await;
        delete_all_kubernetes_clusters(()) -> () = kinds::delete_all::<kind::KubernetesCluster>(api, context).await;
        upsert_application_server(proto::UpsertApplicationServerRequest) -> types::KeepAlive =
            kinds::announce::<kind::AppServer>(api, context, message.server, (KeepAliveType::App, host_of_app)).await;
        delete_application_server(proto::DeleteApplicationServerRequest) -> () =
            kinds::retract::<kind::AppServer>(api, context, &message.host_id, &message.name).await;
        delete_all_application_servers(proto::DeleteAllApplicationServersRequest) -> () =
            kinds::delete_all::<kind::AppServer>(api, context).await;
        upsert_database_server(proto::UpsertDatabaseServerRequest) -> types::KeepAlive =
            kinds::announce::<kind::DatabaseServer>(api, context, message.server, (KeepAliveType::Database, host_of_database)).await;
        delete_database_server(proto::DeleteDatabaseServerRequest) -> () =
            kinds::retract::<kind::DatabaseServer>(api, context, &message.host_id, &message.name).await;
        delete_all_database_servers(proto::DeleteAllDatabaseServersRequest) -> () =
            kinds::delete_all::<kind::DatabaseServer>(api, context).await;
        upsert_kubernetes_server(proto::UpsertKubernetesServerRequest) -> types::KeepAlive =
            kinds::announce::<kind::KubernetesServer>(api, context, message.server, (KeepAliveType::Kubernetes, host_of_cluster)).await;
        delete_kubernetes_server(proto::DeleteKubernetesServerRequest) -> () =
            kinds::retract::<kind::KubernetesServer>(api, context, &message.host_id, &message.name).await;
        delete_all_kubernetes_servers(proto::DeleteAllKubernetesServersRequest) -> () =
            kinds::delete_all::<kind::KubernetesServer>(api, context).await;
        upsert_database_service(proto::UpsertDatabaseServiceRequest) -> types::KeepAlive =
            kinds::announce::<kind::DatabaseService>(api, context, message.service, (KeepAliveType::DatabaseService, Resource::name)).await;
        delete_database_service(types::ResourceRequest) -> () =
            databases::delete_service(api, context, &message.name).await;
        delete_all_database_services(proto::DeleteAllDatabaseServicesRequest) -> () =
            kinds::delete_all::<kind::DatabaseService>(api, context).await;
        get_windows_desktops(types::WindowsDesktopFilter) -> proto::GetWindowsDesktopsResponse =
            desktops::list(api, context, &message).await.map(|desktops| proto::GetWindowsDesktopsResponse { desktops });
        create_windows_desktop(types::WindowsDesktopV3) -> () =
            desktops::write(api, context, message, Write::Create).await;
        update_windows_desktop(types::WindowsDesktopV3) -> () =
            desktops::write(api, context, message, Write::Update).await;
        upsert_windows_desktop(types::WindowsDesktopV3) -> () =
            desktops::write(api, context, message, Write::Upsert).await;
        delete_windows_desktop(proto::DeleteWindowsDesktopRequest) -> () =
            desktops::delete(api, context, &message).await;
        delete_all_windows_desktops(()) -> () = kinds::delete_all::<kind::WindowsDesktop>(api, context).await;
        get_windows_desktop_service(proto::GetWindowsDesktopServiceRequest) -> proto::GetWindowsDesktopServiceResponse =
            kinds::get::<kind::WindowsDesktopService>(api, &message.name).await.map(|service| proto::GetWindowsDesktopServiceResponse { service: Some(service) });
        get_windows_desktop_services(()) -> proto::GetWindowsDesktopServicesResponse =
            kinds::list::<kind::WindowsDesktopService>(api).await.map(|services| proto::GetWindowsDesktopServicesResponse { services });
        upsert_windows_desktop_service(types::WindowsDesktopServiceV3) -> types::KeepAlive =
            kinds::announce::<kind::WindowsDesktopService>(api, context, Some(message), (KeepAliveType::WindowsDesktop, Resource::name)).await;
        delete_windows_desktop_service(proto::DeleteWindowsDesktopServiceRequest) -> () =
            desktops::delete_service(api, context, &message.name).await;
        delete_all_windows_desktop_services(()) -> () =
            kinds::delete_all::<kind::WindowsDesktopService>(api, context).await;
        get_server_info(types::ResourceRequest) -> types::ServerInfoV1 =
            kinds::get::<kind::ServerInfo>(api, &message.name).await;
        upsert_server_info(types::ServerInfoV1) -> () =
            kinds::write::<kind::ServerInfo>(api, context, message, Write::Upsert).await.map(drop);
        delete_server_info(types::ResourceRequest) -> () =
            kinds::delete::<kind::ServerInfo>(api, context, &message.name).await;
        delete_all_server_infos(()) -> () = kinds::delete_all::<kind::ServerInfo>(api, context).await;
        get_installer(types::ResourceRequest) -> types::InstallerV1 =
            kinds::get::<kind::Installer>(api, &message.name).await;
        get_installers(()) -> types::InstallerV1List =
            kinds::list::<kind::Installer>(api).await.map(|installers| types::InstallerV1List { installers });
        set_installer(types::InstallerV1) -> () =
            kinds::write::<kind::Installer>(api, context, message, Write::Upsert).await.map(drop);
        delete_installer(types::ResourceRequest) -> () =
            kinds::delete::<kind::Installer>(api, context, &message.name).await;
        delete_all_installers(()) -> () = kinds::delete_all::<kind::Installer>(api, context).await;
        get_ui_config(()) -> types::UiConfigV1 = kinds::get::<kind::UiConfig>(api, "").await;
        set_ui_config(types::UiConfigV1) -> () =
            kinds::write::<kind::UiConfig>(api, context, message, Write::Upsert).await.map(drop);
        delete_ui_config(()) -> () = kinds::delete::<kind::UiConfig>(api, context, "").await;
        get_cluster_maintenance_config(()) -> types::ClusterMaintenanceConfigV1 =
            kinds::get::<kind::MaintenanceConfig>(api, "").await;
        update_cluster_maintenance_config(types::ClusterMaintenanceConfigV1) -> () =
            maintenance::update(api, context, message).await;
        delete_cluster_maintenance_config(()) -> () = kinds::delete::<kind::MaintenanceConfig>(api, context, "").await;
        export_upgrade_windows(proto::ExportUpgradeWindowsRequest) -> proto::ExportUpgradeWindowsResponse =
            maintenance::export(api, &message).await;
        send_keep_alives(Streaming<types::KeepAlive>) -> () =
            keep_alives::send_keep_alives(api, context, message).await;
        get_plugin_data(types::PluginDataFilter) -> proto::PluginDataSeq = plugins::get(api, message).await;
        update_plugin_data(types::PluginDataUpdateParams) -> () = plugins::update(api, message).await;
        get_network_restrictions(()) -> types::NetworkRestrictionsV4 =
            kinds::get::<kind::NetworkRestrictions>(api, "").await;
        set_network_restrictions(types::NetworkRestrictionsV4) -> () =
            kinds::write::<kind::NetworkRestrictions>(api, context, message, Write::Upsert).await.map(drop);
        delete_network_restrictions(()) -> () = kinds::delete::<kind::NetworkRestrictions>(api, context, "").await;
        get_oidc_connector(types::ResourceWithSecretsRequest) -> types::OidcConnectorV3 =
            connectors::get::<kind::OidcConnector>(api, context, &message).await;
        get_oidc_connectors(types::ResourcesWithSecretsRequest) -> types::OidcConnectorV3List =
            connectors::list::<kind::OidcConnector>(api, context, message.with_secrets).await.map(|oidc_connectors| types::OidcConnectorV3List { oidc_connectors });
        create_oidc_connector(proto::CreateOidcConnectorRequest) -> types::OidcConnectorV3 =
            connectors::write::<kind::OidcConnector>(api, context, message.connector, Write::Create).await;
        update_oidc_connector(proto::UpdateOidcConnectorRequest) -> types::OidcConnectorV3 =
            connectors::write::<kind::OidcConnector>(api, context, message.connector, Write::Update).await;
        upsert_oidc_connector(types::OidcConnectorV3) -> () =
            connectors::write::<kind::OidcConnector>(api, context, Some(message), Write::Upsert).await.map(drop);
        upsert_oidc_connector_v2(proto::UpsertOidcConnectorRequest) -> types::OidcConnectorV3 =
            connectors::write::<kind::OidcConnector>(api, context, message.connector, Write::Upsert).await;
        delete_oidc_connector(types::ResourceRequest) -> () =
            kinds::delete::<kind::OidcConnector>(api, context, &message.name).await;
        get_saml_connector(types::ResourceWithSecretsRequest) -> types::SamlConnectorV2 =
            connectors::get::<kind::SamlConnector>(api, context, &message).await;
        get_saml_connectors(types::ResourcesWithSecretsRequest) -> types::SamlConnectorV2List =
            connectors::list::<kind::SamlConnector>(api, context, message.with_secrets).await.map(|saml_connectors| types::SamlConnectorV2List { saml_connectors });
        create_saml_connector(proto::CreateSamlConnectorRequest) -> types::SamlConnectorV2 =
            connectors::write::<kind::SamlConnector>(api, context, message.connector, Write::Create).await;
        update_saml_connector(proto::UpdateSamlConnectorRequest) -> types::SamlConnectorV2 =
            connectors::write::<kind::SamlConnector>(api, context, message.connector, Write::Update).await;
        upsert_saml_connector(types::SamlConnectorV2) -> () =
            connectors::write::<kind::SamlConnector>(api, context, Some(message), Write::Upsert).await.map(drop);
        upsert_saml_connector_v2(proto::UpsertSamlConnectorRequest) -> types::SamlConnectorV2 =
            connectors::write::<kind::SamlConnector>(api, context, message.connector, Write::Upsert).await;
        delete_saml_connector(types::ResourceRequest) -> () =
            kinds::delete::<kind::SamlConnector>(api, context, &message.name).await;
        get_github_connector(types::ResourceWithSecretsRequest) -> types::GithubConnectorV3 =
            connectors::get::<kind::GithubConnector>(api, context, &message).await;
        get_github_connectors(types::ResourcesWithSecretsRequest) -> types::GithubConnectorV3List =
            connectors::list::<kind::GithubConnector>(api, context, message.with_secrets).await.map(|github_connectors| types::GithubConnectorV3List { github_connectors });
        create_github_connector(proto::CreateGithubConnectorRequest) -> types::GithubConnectorV3 =
            connectors::write::<kind::GithubConnector>(api, context, message.connector, Write::Create).await;
        update_github_connector(proto::UpdateGithubConnectorRequest) -> types::GithubConnectorV3 =
            connectors::write::<kind::GithubConnector>(api, context, message.connector, Write::Update).await;
        upsert_github_connector(types::GithubConnectorV3) -> () =
            connectors::write::<kind::GithubConnector>(api, context, Some(message), Write::Upsert).await.map(drop);
        upsert_github_connector_v2(proto::UpsertGithubConnectorRequest) -> types::GithubConnectorV3 =
            connectors::write::<kind::GithubConnector>(api, context, message.connector, Write::Upsert).await;
        delete_github_connector(types::ResourceRequest) -> () =
            kinds::delete::<kind::GithubConnector>(api, context, &message.name).await;
        list_user_groups(proto::ListUserGroupsRequest) -> proto::ListUserGroupsResponse =
            listing::reached::<kind::UserGroup>(api, context, message.limit, &message.next_key).await.map(|(user_groups, next_key)| proto::ListUserGroupsResponse { user_groups, next_key, total_count: 0 });
        get_user_group(proto::GetUserGroupRequest) -> types::UserGroupV1 =
            kinds::get_reached::<kind::UserGroup>(api, context, &message.name).await;
        create_user_group(types::UserGroupV1) -> () =
            kinds::write_reached::<kind::UserGroup>(api, context, message, Write::Create).await.map(drop);
        update_user_group(types::UserGroupV1) -> () =
            kinds::write_reached::<kind::UserGroup>(api, context, message, Write::Update).await.map(drop);
        delete_user_group(proto::DeleteUserGroupRequest) -> () =
            kinds::delete_reached::<kind::UserGroup>(api, context, &message.name).await;
        delete_all_user_groups(()) -> () = kinds::delete_all::<kind::UserGroup>(api, context).await;
        list_saml_id_p_service_providers(proto::ListSamlIdPServiceProvidersRequest) -> proto::ListSamlIdPServiceProvidersResponse =
            listing::reached::<kind::SamlServiceProvider>(api, context, message.limit, &message.next_key).await.map(|(service_providers, next_key)| proto::ListSamlIdPServiceProvidersResponse { service_providers, next_key, total_count: 0 });
        get_saml_id_p_service_provider(proto::GetSamlIdPServiceProviderRequest) -> types::SamlIdPServiceProviderV1 =
            kinds::get_reached::<kind::SamlServiceProvider>(api, context, &message.name).await;
        create_saml_id_p_service_provider(types::SamlIdPServiceProviderV1) -> () =
            kinds::write_reached::<kind::SamlServiceProvider>(api, context, message, Write::Create).await.map(drop);
        update_saml_id_p_service_provider(types::SamlIdPServiceProviderV1) -> () =
            kinds::write_reached::<kind::SamlServiceProvider>(api, context, message, Write::Update).await.map(drop);
        delete_saml_id_p_service_provider(proto::DeleteSamlIdPServiceProviderRequest) -> () =
            kinds::delete_reached::<kind::SamlServiceProvider>(api, context, &message.name).await;
        delete_all_saml_id_p_service_providers(()) -> () =
            kinds::delete_all::<kind::SamlServiceProvider>(api, context).await;
    }
    streaming {
        inventory_control_stream(Streaming<proto::UpstreamInventoryOneOf>) -> proto::DownstreamInventoryOneOf =
            inventory::inventory_control_stream(api, context, message).await;
        get_instances(types::InstanceFilter) -> types::InstanceV1 =
            inventory::get_instances(api, context, message).await;
        get_active_session_trackers(()) -> types::SessionTrackerV1 =
            sessions::get_active_session_trackers(api, context, message).await;
        get_active_session_trackers_with_filter(types::SessionTrackerFilter) -> types::SessionTrackerV1 =
            sessions::get_filtered_session_trackers(api, context, message).await;
        get_access_requests_v2(types::AccessRequestFilter) -> types::AccessRequestV3 =
            requests::get_access_requests(api, context, message).await;
        watch_events(proto::Watch) -> proto::Event = watch::watch_events(api, context, message).await;
        get_current_user_roles(()) -> types::RoleV6 = basics::get_current_user_roles(api, context, message).await;
        create_audit_stream(Streaming<proto::AuditStreamRequest>) -> events::StreamStatus =
            audit_stream::create_audit_stream(api, context, message).await;
        stream_session_events(proto::StreamSessionEventsRequest) -> events::OneOf =
            audit::stream_session_events(api, context, message).await;
        get_server_infos(()) -> types::ServerInfoV1 =
            kinds::list::<kind::ServerInfo>(api).await.map(|all| futures::stream::iter(all.into_iter().map(Ok)));
    }
}
