//! The settings of the cluster: `teleport.clusterconfig.v1.ClusterConfigService` and its older calls.

use resources::kind;
use tonic::Request;
use wire::clusterconfig::cluster_config_service_server::ClusterConfigService;
use wire::clusterconfig::{
    GetAuthPreferenceRequest, GetClusterNetworkingConfigRequest, GetSessionRecordingConfigRequest,
    ResetAuthPreferenceRequest, ResetClusterNetworkingConfigRequest, ResetSessionRecordingConfigRequest,
    UpdateAuthPreferenceRequest, UpdateClusterNetworkingConfigRequest, UpdateSessionRecordingConfigRequest,
    UpsertAuthPreferenceRequest, UpsertClusterNetworkingConfigRequest, UpsertSessionRecordingConfigRequest,
};
use wire::error::Result;
use wire::types::{
    AuthPreferenceV2, ClusterAuditConfigV2, ClusterNetworkingConfigV2, SessionRecordingConfigSpecV2,
    SessionRecordingConfigV2,
};

use super::{Answer, Api, answer, open, required};
use crate::Write;
use crate::authz::AuthContext;

pub async fn get_cluster_audit_config(api: &Api, _: &AuthContext, (): ()) -> Result<ClusterAuditConfigV2> {
    Ok((*api.auth().audit_config()?).clone())
}

pub async fn get_cluster_networking_config(api: &Api, _: &AuthContext, (): ()) -> Result<ClusterNetworkingConfigV2> {
    Ok((*api.auth().networking()?).clone())
}

pub async fn get_session_recording_config(api: &Api, _: &AuthContext, (): ()) -> Result<SessionRecordingConfigV2> {
    Ok((*api.auth().recording_config()?).clone())
}

/// Who may know no more than that learns the mode: clients help a proxy to log in to nodes only where it records.
async fn get_recording_mode(api: &Api, context: &AuthContext, (): ()) -> Result<SessionRecordingConfigV2> {
    let mut config = get_session_recording_config(api, context, ()).await?;
    if context.require(kind::SESSION_RECORDING_CONFIG, &["read"]).is_err() {
        let mode = config.spec.take().unwrap_or_default().mode;
        config.spec = Some(SessionRecordingConfigSpecV2 { mode, ..Default::default() });
    }
    Ok(config)
}

pub async fn get_auth_preference(api: &Api, _: &AuthContext, (): ()) -> Result<AuthPreferenceV2> {
    Ok((*api.auth().auth_preference()?).clone())
}

#[tonic::async_trait]
impl ClusterConfigService for Api {
    async fn get_cluster_networking_config(
        &self,
        request: Request<GetClusterNetworkingConfigRequest>,
    ) -> Answer<ClusterNetworkingConfigV2> {
        let (context, _) = open(request)?;
        answer(get_cluster_networking_config(self, &context, ()).await)
    }

    async fn update_cluster_networking_config(
        &self,
        request: Request<UpdateClusterNetworkingConfigRequest>,
    ) -> Answer<ClusterNetworkingConfigV2> {
        let (context, message) = open(request)?;
        let config = required(message.cluster_network_config, "cluster_network_config")?;
        answer(self.auth().set_networking(context.caller(), config, Write::Update).await)
    }

    async fn upsert_cluster_networking_config(
        &self,
        request: Request<UpsertClusterNetworkingConfigRequest>,
    ) -> Answer<ClusterNetworkingConfigV2> {
        let (context, message) = open(request)?;
        let config = required(message.cluster_network_config, "cluster_network_config")?;
        answer(self.auth().set_networking(context.caller(), config, Write::Upsert).await)
    }

    async fn reset_cluster_networking_config(
        &self,
        request: Request<ResetClusterNetworkingConfigRequest>,
    ) -> Answer<ClusterNetworkingConfigV2> {
        let (context, _) = open(request)?;
        answer(self.auth().reset_networking(context.caller()).await)
    }

    async fn get_session_recording_config(
        &self,
        request: Request<GetSessionRecordingConfigRequest>,
    ) -> Answer<SessionRecordingConfigV2> {
        let (context, _) = open(request)?;
        answer(get_recording_mode(self, &context, ()).await)
    }

    async fn update_session_recording_config(
        &self,
        request: Request<UpdateSessionRecordingConfigRequest>,
    ) -> Answer<SessionRecordingConfigV2> {
        let (context, message) = open(request)?;
        let config = required(message.session_recording_config, "session_recording_config")?;
        answer(self.auth().set_recording_config(context.caller(), config, Write::Update).await)
    }

    async fn upsert_session_recording_config(
        &self,
        request: Request<UpsertSessionRecordingConfigRequest>,
    ) -> Answer<SessionRecordingConfigV2> {
        let (context, message) = open(request)?;
        let config = required(message.session_recording_config, "session_recording_config")?;
        answer(self.auth().set_recording_config(context.caller(), config, Write::Upsert).await)
    }

    async fn reset_session_recording_config(
        &self,
        request: Request<ResetSessionRecordingConfigRequest>,
    ) -> Answer<SessionRecordingConfigV2> {
        let (context, _) = open(request)?;
        answer(self.auth().reset_recording_config(context.caller()).await)
    }

    async fn get_auth_preference(&self, request: Request<GetAuthPreferenceRequest>) -> Answer<AuthPreferenceV2> {
        let (context, _) = open(request)?;
        answer(get_auth_preference(self, &context, ()).await)
    }

    async fn update_auth_preference(&self, request: Request<UpdateAuthPreferenceRequest>) -> Answer<AuthPreferenceV2> {
        let (context, message) = open(request)?;
        let preference = required(message.auth_preference, "auth_preference")?;
        answer(self.auth().set_auth_preference(context.caller(), preference, Write::Update).await)
    }

    async fn upsert_auth_preference(&self, request: Request<UpsertAuthPreferenceRequest>) -> Answer<AuthPreferenceV2> {
        let (context, message) = open(request)?;
        let preference = required(message.auth_preference, "auth_preference")?;
        answer(self.auth().set_auth_preference(context.caller(), preference, Write::Upsert).await)
    }

    async fn reset_auth_preference(&self, request: Request<ResetAuthPreferenceRequest>) -> Answer<AuthPreferenceV2> {
        let (context, _) = open(request)?;
        answer(self.auth().reset_auth_preference(context.caller()).await)
    }
}
