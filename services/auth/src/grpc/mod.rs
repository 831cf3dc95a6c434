//! The gRPC services of the Auth Service.
//!
//! [`service`] has one line for every RPC; what it does is a method of [`Api`] in the module of its subject. Before a
//! handler runs, the [gate](crate::authz) has looked the call up in the table of permissions and put the caller's
//! [`AuthContext`] into the request; handlers check what depends on the message.

pub(crate) mod alerts;
mod assertions;
mod audit;
mod audit_stream;
mod automation;
mod basics;
mod bots;
mod certificates;
mod clusters;
mod configs;
mod connectors;
mod databases;
mod desktops;
mod devices;
mod fleet;
mod impersonation;
mod inventory;
mod keep_alives;
mod kinds;
mod listing;
mod lists;
mod locks;
mod maintenance;
mod mfa;
mod nodes;
mod notifications;
mod page;
mod places;
mod plugins;
mod presence;
mod requests;
mod roles;
mod rpcs;
mod semaphores;
mod service;
mod sessions;
#[cfg(test)]
mod tests;
mod tokens;
mod trust;
mod trusted_devices;
mod users;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use wire::accesslist::access_list_service_server::AccessListServiceServer;
use wire::accessmonitoringrules::access_monitoring_rules_service_server::AccessMonitoringRulesServiceServer;
use wire::auditlog::audit_log_service_server::AuditLogServiceServer;
use wire::clusterconfig::cluster_config_service_server::ClusterConfigServiceServer;
use wire::crownjewel::crown_jewel_service_server::CrownJewelServiceServer;
use wire::dbobject::database_object_service_server::DatabaseObjectServiceServer;
use wire::dbobjectimportrule::database_object_import_rule_service_server::DatabaseObjectImportRuleServiceServer;
use wire::devicetrust::device_trust_service_server::DeviceTrustServiceServer;
use wire::discoveryconfig::discovery_config_service_server::DiscoveryConfigServiceServer;
use wire::error::{Error, Result};
use wire::integration::integration_service_server::IntegrationServiceServer;
use wire::loginrule::login_rule_service_server::LoginRuleServiceServer;
use wire::machineid::bot_instance_service_server::BotInstanceServiceServer;
use wire::machineid::bot_service_server::BotServiceServer;
use wire::notifications::notification_service_server::NotificationServiceServer;
use wire::okta::okta_service_server::OktaServiceServer;
use wire::presence::presence_service_server::PresenceServiceServer;
use wire::proto::auth_service_server::AuthServiceServer;
use wire::secreports::sec_reports_service_server::SecReportsServiceServer;
use wire::trust::trust_service_server::TrustServiceServer;
use wire::userloginstate::user_login_state_service_server::UserLoginStateServiceServer;
use wire::userprovisioning::static_host_users_service_server::StaticHostUsersServiceServer;
use wire::users::users_service_server::UsersServiceServer;
use wire::vnet::vnet_config_service_server::VnetConfigServiceServer;

use crate::Auth;
use crate::authz::AuthContext;
use places::Places;

pub use inventory::Inventory;

/// Labels of alerts that steer who sees them.
pub mod alert_labels {
    pub use super::alerts::{ON_LOGIN, PERMIT_ALL, SUPERSEDES, VERB_PERMIT};
}

/// What an RPC answers.
type Answer<T> = Result<Response<T>, Status>;
/// What a streaming RPC answers with.
type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

/// The handlers of all RPCs. Clones share everything.
#[derive(Clone)]
pub struct Api(Arc<State>);

struct State {
    auth: Auth,
    inventory: Inventory,
    assertions: assertions::Assertions,
    streams: Places,
    followed: Places,
    taken: audit::Taken,
}

impl Api {
    /// The handlers over the core of the service.
    pub fn new(auth: Auth) -> Self {
        Self(Arc::new(State {
            auth,
            inventory: Inventory::default(),
            assertions: assertions::Assertions::default(),
            streams: Places::new(audit_stream::MAX_STREAMS),
            followed: Places::new(audit_stream::MAX_FOLLOWED),
            taken: audit::Taken::default(),
        }))
    }

    /// All gRPC services behind one router. Unknown services and methods answer UNIMPLEMENTED.
    pub fn routes(&self) -> axum::Router {
        Routes::new(AuthServiceServer::new(self.clone()).accept_compressed(Gzip).max_decoding_message_size(MAX_MESSAGE))
            .add_service(TrustServiceServer::new(self.clone()))
            .add_service(ClusterConfigServiceServer::new(self.clone()))
            .add_service(UsersServiceServer::new(self.clone()))
            .add_service(PresenceServiceServer::new(self.clone()))
            .add_service(AuditLogServiceServer::new(self.clone()))
            .add_service(AccessListServiceServer::new(self.clone()))
            .add_service(AccessMonitoringRulesServiceServer::new(self.clone()))
            .add_service(BotServiceServer::new(self.clone()))
            .add_service(BotInstanceServiceServer::new(self.clone()))
            .add_service(CrownJewelServiceServer::new(self.clone()))
            .add_service(DatabaseObjectServiceServer::new(self.clone()))
            .add_service(DatabaseObjectImportRuleServiceServer::new(self.clone()))
            .add_service(DeviceTrustServiceServer::new(self.clone()))
            .add_service(DiscoveryConfigServiceServer::new(self.clone()))
            .add_service(IntegrationServiceServer::new(self.clone()))
            .add_service(LoginRuleServiceServer::new(self.clone()))
            .add_service(NotificationServiceServer::new(self.clone()))
            .add_service(OktaServiceServer::new(self.clone()))
            .add_service(SecReportsServiceServer::new(self.clone()))
            .add_service(StaticHostUsersServiceServer::new(self.clone()))
            .add_service(UserLoginStateServiceServer::new(self.clone()))
            .add_service(VnetConfigServiceServer::new(self.clone()))
            .prepare()
            .into_axum_router()
    }

    /// The servers that keep a control stream to this Auth Service.
    pub fn inventory(&self) -> &Inventory {
        &self.0.inventory
    }

    fn taken(&self) -> &audit::Taken {
        &self.0.taken
    }

    fn assertions(&self) -> &assertions::Assertions {
        &self.0.assertions
    }

    fn auth(&self) -> &Auth {
        &self.0.auth
    }

    fn closing(&self) -> CancellationToken {
        self.0.auth.closing()
    }
}

/// Largest message taken, in bytes.
const MAX_MESSAGE: usize = 4 << 20;

/// Takes a request apart into who asks and what.
fn open<T>(request: Request<T>) -> Result<(Arc<AuthContext>, T), Status> {
    let (_, extensions, message) = request.into_parts();
    match extensions.get::<Arc<AuthContext>>() {
        Some(context) => Ok((Arc::clone(context), message)),
        None => Err(Error::access_denied("access denied").into()),
    }
}

/// Turns a handler's result into an answer.
fn answer<T>(result: Result<T>) -> Answer<T> {
    result.map(Response::new).map_err(Status::from)
}

/// Turns a handler's stream into an answer.
fn stream<T>(result: Result<impl Stream<Item = Result<T, Status>> + Send + 'static>) -> Answer<Items<T>> {
    let items = result.map_err(Status::from)?;
    Ok(Response::new(Box::pin(items) as Items<T>))
}

/// A member of a message that must be there.
fn required<T>(value: Option<T>, name: &str) -> Result<T> {
    value.ok_or_else(|| Error::bad_parameter(format!("missing parameter {name}")))
}

/// A text of a message that must not be empty.
fn named<'a>(value: &'a str, name: &str) -> Result<&'a str> {
    if value.is_empty() { Err(Error::bad_parameter(format!("missing parameter {name}"))) } else { Ok(value) }
}
