//! One entry for every RPC of `proto.AuthService`: it opens the request and calls the handler of its subject.

use tonic::{Request, Streaming};
use wire::proto::auth_service_server::AuthService;
use wire::{events, proto, types};

use super::{
    Answer, Api, Items, alerts, answer, audit, audit_stream, basics, certificates, configs, devices, inventory,
    listing, locks, mfa, nodes, open, roles, semaphores, sessions, stream, tokens, trust, watch,
};

#[tonic::async_trait]
impl AuthService for Api {
    async fn inventory_control_stream(
        &self,
        request: Request<Streaming<proto::UpstreamInventoryOneOf>>,
    ) -> Answer<Items<proto::DownstreamInventoryOneOf>> {
        let (context, message) = open(request)?;
        stream(inventory::inventory_control_stream(self, &context, message).await)
    }

    async fn get_inventory_status(
        &self,
        request: Request<proto::InventoryStatusRequest>,
    ) -> Answer<proto::InventoryStatusSummary> {
        let (context, message) = open(request)?;
        answer(inventory::get_inventory_status(self, &context, message).await)
    }

    async fn ping_inventory(
        &self,
        request: Request<proto::InventoryPingRequest>,
    ) -> Answer<proto::InventoryPingResponse> {
        let (context, message) = open(request)?;
        answer(inventory::ping_inventory(self, &context, message).await)
    }

    async fn get_instances(&self, request: Request<types::InstanceFilter>) -> Answer<Items<types::InstanceV1>> {
        let (context, message) = open(request)?;
        stream(inventory::get_instances(self, &context, message).await)
    }

    async fn get_cluster_alerts(
        &self,
        request: Request<types::GetClusterAlertsRequest>,
    ) -> Answer<proto::GetClusterAlertsResponse> {
        let (context, message) = open(request)?;
        answer(alerts::get_cluster_alerts(self, &context, message).await)
    }

    async fn upsert_cluster_alert(&self, request: Request<proto::UpsertClusterAlertRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(alerts::upsert_cluster_alert(self, &context, message).await)
    }

    async fn create_alert_ack(&self, request: Request<types::AlertAcknowledgement>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(alerts::create_alert_ack(self, &context, message).await)
    }

    async fn get_alert_acks(
        &self,
        request: Request<proto::GetAlertAcksRequest>,
    ) -> Answer<proto::GetAlertAcksResponse> {
        let (context, message) = open(request)?;
        answer(alerts::get_alert_acks(self, &context, message).await)
    }

    async fn clear_alert_acks(&self, request: Request<proto::ClearAlertAcksRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(alerts::clear_alert_acks(self, &context, message).await)
    }

    async fn create_session_tracker(
        &self,
        request: Request<proto::CreateSessionTrackerRequest>,
    ) -> Answer<types::SessionTrackerV1> {
        let (context, message) = open(request)?;
        answer(sessions::create_session_tracker(self, &context, message).await)
    }

    async fn get_session_tracker(
        &self,
        request: Request<proto::GetSessionTrackerRequest>,
    ) -> Answer<types::SessionTrackerV1> {
        let (context, message) = open(request)?;
        answer(sessions::get_session_tracker(self, &context, message).await)
    }

    async fn get_active_session_trackers(&self, request: Request<()>) -> Answer<Items<types::SessionTrackerV1>> {
        let (context, message) = open(request)?;
        stream(sessions::get_active_session_trackers(self, &context, message).await)
    }

    async fn remove_session_tracker(&self, request: Request<proto::RemoveSessionTrackerRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(sessions::remove_session_tracker(self, &context, message).await)
    }

    async fn update_session_tracker(&self, request: Request<proto::UpdateSessionTrackerRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(sessions::update_session_tracker(self, &context, message).await)
    }

    async fn watch_events(&self, request: Request<proto::Watch>) -> Answer<Items<proto::Event>> {
        let (context, message) = open(request)?;
        stream(watch::watch_events(self, &context, message).await)
    }

    async fn get_node(&self, request: Request<types::ResourceInNamespaceRequest>) -> Answer<types::ServerV2> {
        let (context, message) = open(request)?;
        answer(nodes::get_node(self, &context, message).await)
    }

    async fn upsert_node(&self, request: Request<types::ServerV2>) -> Answer<types::KeepAlive> {
        let (context, message) = open(request)?;
        answer(nodes::upsert_node(self, &context, message).await)
    }

    async fn delete_node(&self, request: Request<types::ResourceInNamespaceRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(nodes::delete_node(self, &context, message).await)
    }

    async fn delete_all_nodes(&self, request: Request<types::ResourcesInNamespaceRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(nodes::delete_all_nodes(self, &context, message).await)
    }

    async fn generate_user_certs(&self, request: Request<proto::UserCertsRequest>) -> Answer<proto::Certs> {
        let (context, message) = open(request)?;
        answer(certificates::generate_user_certs(self, &context, message).await)
    }

    async fn generate_host_certs(&self, request: Request<proto::HostCertsRequest>) -> Answer<proto::Certs> {
        let (context, message) = open(request)?;
        answer(certificates::generate_host_certs(self, &context, message).await)
    }

    async fn generate_open_ssh_cert(&self, request: Request<proto::OpenSshCertRequest>) -> Answer<proto::OpenSshCert> {
        let (context, message) = open(request)?;
        answer(certificates::generate_open_ssh_cert(self, &context, message).await)
    }

    async fn is_mfa_required(
        &self,
        request: Request<proto::IsMfaRequiredRequest>,
    ) -> Answer<proto::IsMfaRequiredResponse> {
        let (context, message) = open(request)?;
        answer(mfa::is_mfa_required(self, &context, message).await)
    }

    async fn list_access_requests(
        &self,
        request: Request<proto::ListAccessRequestsRequest>,
    ) -> Answer<proto::ListAccessRequestsResponse> {
        let (context, message) = open(request)?;
        answer(basics::list_access_requests(self, &context, message).await)
    }

    async fn get_access_capabilities(
        &self,
        request: Request<types::AccessCapabilitiesRequest>,
    ) -> Answer<types::AccessCapabilities> {
        let (context, message) = open(request)?;
        answer(basics::get_access_capabilities(self, &context, message).await)
    }

    async fn ping(&self, request: Request<proto::PingRequest>) -> Answer<proto::PingResponse> {
        let (context, message) = open(request)?;
        answer(basics::ping(self, &context, message).await)
    }

    async fn get_reset_password_token(
        &self,
        request: Request<proto::GetResetPasswordTokenRequest>,
    ) -> Answer<types::UserTokenV3> {
        let (context, message) = open(request)?;
        answer(devices::get_reset_password_token(self, &context, message).await)
    }

    async fn create_reset_password_token(
        &self,
        request: Request<proto::CreateResetPasswordTokenRequest>,
    ) -> Answer<types::UserTokenV3> {
        let (context, message) = open(request)?;
        answer(devices::create_reset_password_token(self, &context, message).await)
    }

    async fn get_current_user_roles(&self, request: Request<()>) -> Answer<Items<types::RoleV6>> {
        let (context, message) = open(request)?;
        stream(basics::get_current_user_roles(self, &context, message).await)
    }

    async fn change_password(&self, request: Request<proto::ChangePasswordRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(devices::change_password(self, &context, message).await)
    }

    async fn acquire_semaphore(
        &self,
        request: Request<types::AcquireSemaphoreRequest>,
    ) -> Answer<types::SemaphoreLease> {
        let (context, message) = open(request)?;
        answer(semaphores::acquire_semaphore(self, &context, message).await)
    }

    async fn keep_alive_semaphore_lease(&self, request: Request<types::SemaphoreLease>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(semaphores::keep_alive_semaphore_lease(self, &context, message).await)
    }

    async fn cancel_semaphore_lease(&self, request: Request<types::SemaphoreLease>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(semaphores::cancel_semaphore_lease(self, &context, message).await)
    }

    async fn get_semaphores(&self, request: Request<types::SemaphoreFilter>) -> Answer<proto::Semaphores> {
        let (context, message) = open(request)?;
        answer(semaphores::get_semaphores(self, &context, message).await)
    }

    async fn delete_semaphore(&self, request: Request<types::SemaphoreFilter>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(semaphores::delete_semaphore(self, &context, message).await)
    }

    async fn emit_audit_event(&self, request: Request<events::OneOf>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(audit::emit_audit_event(self, &context, message).await)
    }

    async fn create_audit_stream(
        &self,
        request: Request<Streaming<proto::AuditStreamRequest>>,
    ) -> Answer<Items<events::StreamStatus>> {
        let (context, message) = open(request)?;
        stream(audit_stream::create_audit_stream(self, &context, message).await)
    }

    async fn get_web_session(
        &self,
        request: Request<types::GetWebSessionRequest>,
    ) -> Answer<proto::GetWebSessionResponse> {
        let (context, message) = open(request)?;
        answer(sessions::get_web_session(self, &context, message).await)
    }

    async fn get_web_sessions(&self, request: Request<()>) -> Answer<proto::GetWebSessionsResponse> {
        let (context, message) = open(request)?;
        answer(sessions::get_web_sessions(self, &context, message).await)
    }

    async fn delete_web_session(&self, request: Request<types::DeleteWebSessionRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(sessions::delete_web_session(self, &context, message).await)
    }

    async fn delete_all_web_sessions(&self, request: Request<()>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(sessions::delete_all_web_sessions(self, &context, message).await)
    }

    async fn get_role(&self, request: Request<proto::GetRoleRequest>) -> Answer<types::RoleV6> {
        let (context, message) = open(request)?;
        answer(roles::get_role(self, &context, message).await)
    }

    async fn get_roles(&self, request: Request<()>) -> Answer<proto::GetRolesResponse> {
        let (context, message) = open(request)?;
        answer(roles::get_roles(self, &context, message).await)
    }

    async fn list_roles(&self, request: Request<proto::ListRolesRequest>) -> Answer<proto::ListRolesResponse> {
        let (context, message) = open(request)?;
        answer(roles::list_roles(self, &context, message).await)
    }

    async fn create_role(&self, request: Request<proto::CreateRoleRequest>) -> Answer<types::RoleV6> {
        let (context, message) = open(request)?;
        answer(roles::create_role(self, &context, message).await)
    }

    async fn update_role(&self, request: Request<proto::UpdateRoleRequest>) -> Answer<types::RoleV6> {
        let (context, message) = open(request)?;
        answer(roles::update_role(self, &context, message).await)
    }

    async fn upsert_role_v2(&self, request: Request<proto::UpsertRoleRequest>) -> Answer<types::RoleV6> {
        let (context, message) = open(request)?;
        answer(roles::upsert_role_v2(self, &context, message).await)
    }

    async fn upsert_role(&self, request: Request<types::RoleV6>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(roles::upsert_role(self, &context, message).await)
    }

    async fn delete_role(&self, request: Request<proto::DeleteRoleRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(roles::delete_role(self, &context, message).await)
    }

    async fn add_mfa_device_sync(
        &self,
        request: Request<proto::AddMfaDeviceSyncRequest>,
    ) -> Answer<proto::AddMfaDeviceSyncResponse> {
        let (context, message) = open(request)?;
        answer(devices::add_mfa_device_sync(self, &context, message).await)
    }

    async fn delete_mfa_device_sync(&self, request: Request<proto::DeleteMfaDeviceSyncRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(devices::delete_mfa_device_sync(self, &context, message).await)
    }

    async fn get_mfa_devices(
        &self,
        request: Request<proto::GetMfaDevicesRequest>,
    ) -> Answer<proto::GetMfaDevicesResponse> {
        let (context, message) = open(request)?;
        answer(devices::get_mfa_devices(self, &context, message).await)
    }

    async fn create_authenticate_challenge(
        &self,
        request: Request<proto::CreateAuthenticateChallengeRequest>,
    ) -> Answer<proto::MfaAuthenticateChallenge> {
        let (context, message) = open(request)?;
        answer(mfa::create_authenticate_challenge(self, &context, message).await)
    }

    async fn create_register_challenge(
        &self,
        request: Request<proto::CreateRegisterChallengeRequest>,
    ) -> Answer<proto::MfaRegisterChallenge> {
        let (context, message) = open(request)?;
        answer(devices::create_register_challenge(self, &context, message).await)
    }

    async fn get_github_connectors(
        &self,
        request: Request<types::ResourcesWithSecretsRequest>,
    ) -> Answer<types::GithubConnectorV3List> {
        let (context, message) = open(request)?;
        answer(basics::get_github_connectors(self, &context, message).await)
    }

    async fn get_trusted_cluster(&self, request: Request<types::ResourceRequest>) -> Answer<types::TrustedClusterV2> {
        let (context, message) = open(request)?;
        answer(basics::get_trusted_cluster(self, &context, message).await)
    }

    async fn get_trusted_clusters(&self, request: Request<()>) -> Answer<types::TrustedClusterV2List> {
        let (context, message) = open(request)?;
        answer(basics::get_trusted_clusters(self, &context, message).await)
    }

    async fn upsert_trusted_cluster(
        &self,
        request: Request<types::TrustedClusterV2>,
    ) -> Answer<types::TrustedClusterV2> {
        let (context, message) = open(request)?;
        answer(basics::upsert_trusted_cluster(self, &context, message).await)
    }

    async fn delete_trusted_cluster(&self, request: Request<types::ResourceRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(basics::delete_trusted_cluster(self, &context, message).await)
    }

    async fn get_token(&self, request: Request<types::ResourceRequest>) -> Answer<types::ProvisionTokenV2> {
        let (context, message) = open(request)?;
        answer(tokens::get_token(self, &context, message).await)
    }

    async fn get_tokens(&self, request: Request<()>) -> Answer<types::ProvisionTokenV2List> {
        let (context, message) = open(request)?;
        answer(tokens::get_tokens(self, &context, message).await)
    }

    async fn create_token_v2(&self, request: Request<proto::CreateTokenV2Request>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(tokens::create_token_v2(self, &context, message).await)
    }

    async fn upsert_token_v2(&self, request: Request<proto::UpsertTokenV2Request>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(tokens::upsert_token_v2(self, &context, message).await)
    }

    async fn delete_token(&self, request: Request<types::ResourceRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(tokens::delete_token(self, &context, message).await)
    }

    async fn get_cluster_audit_config(&self, request: Request<()>) -> Answer<types::ClusterAuditConfigV2> {
        let (context, message) = open(request)?;
        answer(configs::get_cluster_audit_config(self, &context, message).await)
    }

    async fn get_cluster_networking_config(&self, request: Request<()>) -> Answer<types::ClusterNetworkingConfigV2> {
        let (context, message) = open(request)?;
        answer(configs::get_cluster_networking_config(self, &context, message).await)
    }

    async fn get_session_recording_config(&self, request: Request<()>) -> Answer<types::SessionRecordingConfigV2> {
        let (context, message) = open(request)?;
        answer(configs::get_session_recording_config(self, &context, message).await)
    }

    async fn get_auth_preference(&self, request: Request<()>) -> Answer<types::AuthPreferenceV2> {
        let (context, message) = open(request)?;
        answer(configs::get_auth_preference(self, &context, message).await)
    }

    async fn get_events(&self, request: Request<proto::GetEventsRequest>) -> Answer<proto::Events> {
        let (context, message) = open(request)?;
        answer(audit::get_events(self, &context, message).await)
    }

    async fn get_session_events(&self, request: Request<proto::GetSessionEventsRequest>) -> Answer<proto::Events> {
        let (context, message) = open(request)?;
        answer(audit::get_session_events(self, &context, message).await)
    }

    async fn get_lock(&self, request: Request<proto::GetLockRequest>) -> Answer<types::LockV2> {
        let (context, message) = open(request)?;
        answer(locks::get_lock(self, &context, message).await)
    }

    async fn get_locks(&self, request: Request<proto::GetLocksRequest>) -> Answer<proto::GetLocksResponse> {
        let (context, message) = open(request)?;
        answer(locks::get_locks(self, &context, message).await)
    }

    async fn upsert_lock(&self, request: Request<types::LockV2>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(locks::upsert_lock(self, &context, message).await)
    }

    async fn delete_lock(&self, request: Request<proto::DeleteLockRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(locks::delete_lock(self, &context, message).await)
    }

    async fn replace_remote_locks(&self, request: Request<proto::ReplaceRemoteLocksRequest>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(locks::replace_remote_locks(self, &context, message).await)
    }

    async fn stream_session_events(
        &self,
        request: Request<proto::StreamSessionEventsRequest>,
    ) -> Answer<Items<events::OneOf>> {
        let (context, message) = open(request)?;
        stream(audit::stream_session_events(self, &context, message).await)
    }

    async fn get_network_restrictions(&self, request: Request<()>) -> Answer<types::NetworkRestrictionsV4> {
        let (context, message) = open(request)?;
        answer(basics::get_network_restrictions(self, &context, message).await)
    }

    async fn generate_cert_authority_crl(&self, request: Request<proto::CertAuthorityRequest>) -> Answer<proto::Crl> {
        let (context, message) = open(request)?;
        answer(trust::generate_cert_authority_crl(self, &context, message).await)
    }

    async fn change_user_authentication(
        &self,
        request: Request<proto::ChangeUserAuthenticationRequest>,
    ) -> Answer<proto::ChangeUserAuthenticationResponse> {
        let (context, message) = open(request)?;
        answer(devices::change_user_authentication(self, &context, message).await)
    }

    async fn list_resources(
        &self,
        request: Request<proto::ListResourcesRequest>,
    ) -> Answer<proto::ListResourcesResponse> {
        let (context, message) = open(request)?;
        answer(listing::list_resources(self, &context, message).await)
    }

    async fn list_unified_resources(
        &self,
        request: Request<proto::ListUnifiedResourcesRequest>,
    ) -> Answer<proto::ListUnifiedResourcesResponse> {
        let (context, message) = open(request)?;
        answer(listing::list_unified_resources(self, &context, message).await)
    }

    async fn get_ssh_targets(
        &self,
        request: Request<proto::GetSshTargetsRequest>,
    ) -> Answer<proto::GetSshTargetsResponse> {
        let (context, message) = open(request)?;
        answer(nodes::get_ssh_targets(self, &context, message).await)
    }

    async fn get_domain_name(&self, request: Request<()>) -> Answer<proto::GetDomainNameResponse> {
        let (context, message) = open(request)?;
        answer(basics::get_domain_name(self, &context, message).await)
    }

    async fn get_cluster_ca_cert(&self, request: Request<()>) -> Answer<proto::GetClusterCaCertResponse> {
        let (context, message) = open(request)?;
        answer(basics::get_cluster_ca_cert(self, &context, message).await)
    }

    async fn assert_system_role(&self, request: Request<proto::SystemRoleAssertion>) -> Answer<()> {
        let (context, message) = open(request)?;
        answer(basics::assert_system_role(self, &context, message).await)
    }
}
