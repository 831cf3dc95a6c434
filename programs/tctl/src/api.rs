//! The calls of the Auth Service, each with a time limit.

use std::time::Duration;

use dialer::webapi::JsonClient;
use tonic::{Code, Response, Status, Streaming};
use wire::accesslist::access_list_service_client::AccessListServiceClient;
use wire::accessmonitoringrules::access_monitoring_rules_service_client::AccessMonitoringRulesServiceClient;
use wire::client::ApiChannel;
use wire::clusterconfig::cluster_config_service_client::ClusterConfigServiceClient;
use wire::crownjewel::crown_jewel_service_client::CrownJewelServiceClient;
use wire::dbobject::database_object_service_client::DatabaseObjectServiceClient;
use wire::dbobjectimportrule::database_object_import_rule_service_client::DatabaseObjectImportRuleServiceClient;
use wire::devicetrust::device_trust_service_client::DeviceTrustServiceClient;
use wire::discoveryconfig::discovery_config_service_client::DiscoveryConfigServiceClient;
use wire::integration::integration_service_client::IntegrationServiceClient;
use wire::loginrule::login_rule_service_client::LoginRuleServiceClient;
use wire::machineid::bot_instance_service_client::BotInstanceServiceClient;
use wire::machineid::bot_service_client::BotServiceClient;
use wire::notifications::notification_service_client::NotificationServiceClient;
use wire::okta::okta_service_client::OktaServiceClient;
use wire::presence::presence_service_client::PresenceServiceClient;
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::{PingRequest, PingResponse};
use wire::secreports::sec_reports_service_client::SecReportsServiceClient;
use wire::trust::trust_service_client::TrustServiceClient;
use wire::types::GetClusterAlertsRequest;
use wire::userloginstate::user_login_state_service_client::UserLoginStateServiceClient;
use wire::userprovisioning::static_host_users_service_client::StaticHostUsersServiceClient;
use wire::users::users_service_client::UsersServiceClient;
use wire::vnet::vnet_config_service_client::VnetConfigServiceClient;

use crate::error::{Error, Result};

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a run waits for alerts after its work.
const ALERTS_TIMEOUT: Duration = Duration::from_millis(750);

/// Largest answer that is read: a page of a thousand resources with many labels is larger than the usual 4 MiB.
const LARGEST_MESSAGE: usize = 64 << 20;

/// Severity of alerts that every run shows.
const HIGH: i32 = 10;

/// An Auth Service and the rights to call it. Connections are made when they are first used.
#[derive(Clone)]
pub struct Api {
    cluster: String,
    channel: ApiChannel,
    http: JsonClient,
}

macro_rules! service {
    ($(#[$doc:meta])* $name:ident: $client:ident) => {
        $(#[$doc])*
        pub fn $name(&self) -> $client<ApiChannel> {
            $client::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE)
        }
    };
}

impl Api {
    /// The Auth Service of `cluster`.
    pub fn new(cluster: impl Into<String>, channel: ApiChannel, http: JsonClient) -> Self {
        Self { cluster: cluster.into(), channel, http }
    }

    /// Name of the cluster, as the credentials say it.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    service!(
        /// Everything that has no service of its own.
        auth: AuthServiceClient
    );
    service!(
        /// Accounts.
        users: UsersServiceClient
    );
    service!(
        /// Authorities.
        trust: TrustServiceClient
    );
    service!(
        /// Settings of the cluster.
        settings: ClusterConfigServiceClient
    );
    service!(
        /// Other clusters.
        presence: PresenceServiceClient
    );
    service!(
        /// Access lists.
        access_lists: AccessListServiceClient
    );
    service!(
        /// Texts for users.
        notifications: NotificationServiceClient
    );
    service!(
        /// Rules about access requests.
        monitoring_rules: AccessMonitoringRulesServiceClient
    );
    service!(
        /// What is most worth protecting.
        crown_jewels: CrownJewelServiceClient
    );
    service!(
        /// Objects found in databases.
        database_objects: DatabaseObjectServiceClient
    );
    service!(
        /// How objects found in databases get labels.
        import_rules: DatabaseObjectImportRuleServiceClient
    );
    service!(
        /// Devices that can be trusted.
        devices: DeviceTrustServiceClient
    );
    service!(
        /// What discovery looks for.
        discovery: DiscoveryConfigServiceClient
    );
    service!(
        /// Integrations with clouds.
        integrations: IntegrationServiceClient
    );
    service!(
        /// Rules that make traits at login.
        login_rules: LoginRuleServiceClient
    );
    service!(
        /// Bots.
        bots: BotServiceClient
    );
    service!(
        /// Running bots.
        bot_instances: BotInstanceServiceClient
    );
    service!(
        /// What is read from Okta.
        okta: OktaServiceClient
    );
    service!(
        /// Saved questions to the audit log.
        reports: SecReportsServiceClient
    );
    service!(
        /// What people had at their last login.
        login_states: UserLoginStateServiceClient
    );
    service!(
        /// Accounts that servers keep.
        host_users: StaticHostUsersServiceClient
    );
    service!(
        /// Settings of virtual networks.
        vnet: VnetConfigServiceClient
    );

    /// The older API, for the few calls that never moved.
    pub fn http(&self) -> &JsonClient {
        &self.http
    }

    /// Who answers.
    pub async fn ping(&self) -> Result<PingResponse> {
        self.auth().ping(PingRequest::default()).within("asking the Auth Service who it is").await
    }

    /// Host authorities of this cluster for TLS, as PEM.
    pub async fn authorities_pem(&self) -> Result<String> {
        let answer = self.auth().get_cluster_ca_cert(()).within("reading the cluster's authorities").await?;
        String::from_utf8(answer.tlsca).map_err(|_| Error::other("the cluster's authorities are not PEM"))
    }

    /// Pins of the host authorities.
    pub async fn pins(&self) -> Result<Vec<String>> {
        Ok(pki::pin::ca_pins(&self.authorities_pem().await?)?)
    }

    /// Severe alerts that nobody acknowledged; none when they cannot be had quickly.
    pub async fn severe_alerts(&self) -> Vec<String> {
        let query = GetClusterAlertsRequest { severity: HIGH, ..Default::default() };
        let mut auth = self.auth();
        let Ok(Ok(answer)) = tokio::time::timeout(ALERTS_TIMEOUT, auth.get_cluster_alerts(query)).await else {
            return Vec::new();
        };
        answer.into_inner().alerts.into_iter().filter_map(|alert| alert.spec.map(|spec| spec.message)).collect()
    }
}

/// A call under way.
pub trait Call<T>: Sized {
    /// Its answer, if it comes in time; `what` is what a person reads when it does not.
    async fn within(self, what: &str) -> Result<T>;
}

impl<T, F: Future<Output = Result<Response<T>, Status>>> Call<T> for F {
    async fn within(self, what: &str) -> Result<T> {
        Ok(limited(what, self).await?.into_inner())
    }
}

/// Everything a stream of answers carries.
pub async fn collect<T>(mut stream: Streaming<T>, what: &str) -> Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(message) = limited(what, stream.message()).await? {
        all.push(message);
    }
    Ok(all)
}

async fn limited<T>(what: &str, call: impl Future<Output = Result<T, Status>>) -> Result<T> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            let text = format!("{what}: the Auth Service did not answer within {} s", CALL_TIMEOUT.as_secs());
            Err(Status::new(Code::DeadlineExceeded, text).into())
        }
    }
}
