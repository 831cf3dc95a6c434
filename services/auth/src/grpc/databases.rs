//! What agents serve: whose record it is; and certificates for databases.

use std::time::Duration;

use pki::x509::CertificateRequest;
use resources::SystemRole;
use wire::error::{Error, Result};
use wire::proto::database_cert_request::{Extensions, Requester};
use wire::proto::{DatabaseCertRequest, DatabaseCertResponse};
use wire::types::{AppServerV3, DatabaseServerV3, KubernetesServerV3, Metadata, UserSpecV2, UserV2};

use super::{Api, kinds, named};
use crate::authority::crypto;
use crate::authz::AuthContext;
use crate::certs::DatabaseEnd;
use crate::store::kind;

/// The agent that serves an application.
pub fn host_of_app(server: &AppServerV3) -> &str {
    server.spec.as_ref().map_or("", |spec| &spec.host_id)
}

/// The agent that serves a database.
pub fn host_of_database(server: &DatabaseServerV3) -> &str {
    server.spec.as_ref().map_or("", |spec| &spec.host_id)
}

/// The agent that serves a Kubernetes cluster.
pub fn host_of_cluster(server: &KubernetesServerV3) -> &str {
    server.spec.as_ref().map_or("", |spec| &spec.host_id)
}

/// Removes the record of an agent that serves databases; it is named by the agent.
pub async fn delete_service(api: &Api, context: &AuthContext, name: &str) -> Result<()> {
    if context.is_service() && !context.is_admin() {
        context.require_own_server(named(name, "name")?)?;
    }
    kinds::delete::<kind::DatabaseService>(api, context, name).await
}

/// Signs the request of a database agent that wants to log in to a database, or of an administrator for a database server.
pub async fn generate_database_cert(
    api: &Api,
    context: &AuthContext,
    message: DatabaseCertRequest,
) -> Result<DatabaseCertResponse> {
    let end = match Requester::try_from(message.requester_name) {
        Ok(Requester::Tctl) => DatabaseEnd::Server,
        Ok(Requester::Unspecified) => DatabaseEnd::Client,
        Err(_) => return Err(Error::bad_parameter("RequesterName: unknown")),
    };
    require_certificates(context, end)?;
    if message.certificate_extensions != Extensions::Normal as i32 {
        return Err(Error::not_implemented("certificates for smart-card logins are not part of this build yet"));
    }
    let mut names = message.server_names;
    if names.is_empty() && !message.server_name.is_empty() {
        names.push(message.server_name);
    }
    let (request, ttl) = request(message.csr, message.ttl)?;
    let signed = api.auth().sign_for_database(end, &request, &names, ttl).await?;
    Ok(DatabaseCertResponse { cert: signed.certificate, ca_certs: signed.trusted })
}

/// A request in PEM form and the lifetime in nanoseconds that its certificate is to have.
pub(super) fn request(csr: Vec<u8>, ttl: i64) -> Result<(CertificateRequest, Duration)> {
    let text = String::from_utf8(csr).map_err(|_| Error::bad_parameter("CSR: expected PEM"))?;
    let request = CertificateRequest::from_pem(named(&text, "CSR")?).map_err(crypto)?;
    let ttl = u64::try_from(ttl).map_err(|_| Error::bad_parameter("TTL: negative"))?;
    Ok((request, Duration::from_nanos(ttl)))
}

/// A client's certificate is good for every account of every database, so agents alone get it. A server's is for whoever
/// has the verb, or may impersonate the agents of databases.
fn require_certificates(context: &AuthContext, end: DatabaseEnd) -> Result<()> {
    let agent = SystemRole::Db.name();
    match end {
        _ if context.is_admin() => Ok(()),
        DatabaseEnd::Client if context.has_role(SystemRole::Db) => Ok(()),
        DatabaseEnd::Client => Err(Error::access_denied(
            "access denied: only database agents get certificates with which one logs in to databases",
        )),
        DatabaseEnd::Server => context.require("database_certificate", &["create"]).or_else(|denied| {
            let user = UserV2 {
                metadata: Some(Metadata { name: agent.to_owned(), ..Metadata::default() }),
                spec: Some(UserSpecV2 { roles: vec![agent.to_owned()], ..UserSpecV2::default() }),
                ..UserV2::default()
            };
            context.require_impersonation(&user, &[agent.to_owned()]).map_err(|_| denied)
        }),
    }
}
