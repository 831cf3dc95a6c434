//! What the credentials of a user lead to besides a cluster: an application or a database.

use clap::Args;
use resources::{AnyResource, kind};
use wire::proto::user_certs_request::CertUsage;
use wire::proto::{ListResourcesRequest, RouteToApp, RouteToDatabase, UserCertsRequest};

use crate::api::Api;
use crate::error::{Error, Result};
use crate::resource;

/// What the credentials lead to.
#[derive(Args, Debug, Default)]
pub struct Route {
    /// The application to which the credentials lead, and to nothing else.
    #[arg(long, value_name = "NAME", conflicts_with = "db_service")]
    app_name: Option<String>,
    /// The database to which the credentials lead, and to nothing else.
    #[arg(long, value_name = "NAME")]
    db_service: Option<String>,
    /// The account in that database.
    #[arg(long, value_name = "USER", requires = "db_service")]
    db_user: Option<String>,
    /// The name of the database behind it.
    #[arg(long, value_name = "NAME", requires = "db_service")]
    db_name: Option<String>,
}

impl Route {
    /// Whether the credentials are for one service alone.
    pub fn is_some(&self) -> bool {
        self.app_name.is_some() || self.db_service.is_some()
    }

    /// Narrows a request to the service, as the cluster knows it.
    pub async fn narrow(&self, api: &Api, request: &mut UserCertsRequest) -> Result<()> {
        if let Some(name) = &self.app_name {
            let server = served(api, kind::APP_SERVER, |resource| match resource {
                AnyResource::AppServer(server) => server.spec?.app.filter(|app| named(app, name)),
                _ => None,
            });
            let app = server.await?.ok_or_else(|| Error::not_found(format!("app {name:?} not found")))?;
            request.usage = CertUsage::App.into();
            request.route_to_app = Some(RouteToApp {
                name: name.clone(),
                public_addr: app.spec.map(|spec| spec.public_addr).unwrap_or_default(),
                cluster_name: api.cluster().to_owned(),
                ..RouteToApp::default()
            });
        }
        if let Some(name) = &self.db_service {
            let server = served(api, kind::DB_SERVER, |resource| match resource {
                AnyResource::DatabaseServer(server) => server.spec?.database.filter(|database| named(database, name)),
                _ => None,
            });
            let database = server.await?.ok_or_else(|| Error::not_found(format!("database {name:?} not found")))?;
            request.usage = CertUsage::Database.into();
            request.route_to_database = Some(RouteToDatabase {
                service_name: name.clone(),
                protocol: database.spec.map(|spec| spec.protocol).unwrap_or_default(),
                username: self.db_user.clone().unwrap_or_default(),
                database: self.db_name.clone().unwrap_or_default(),
                ..RouteToDatabase::default()
            });
        }
        Ok(())
    }
}

fn named(resource: &impl resources::Resource, name: &str) -> bool {
    resource.name() == name
}

/// The first of the records of agents that is the one meant.
async fn served<T>(api: &Api, kind: &str, wanted: impl Fn(AnyResource) -> Option<T>) -> Result<Option<T>> {
    let request = ListResourcesRequest { resource_type: kind.to_owned(), ..Default::default() };
    Ok(resource::listed(api, &request).await?.into_iter().find_map(wanted))
}
