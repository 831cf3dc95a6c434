//! Certificates in exchange for certificates.

use pki::ssh_cert;
use pki::x509::Certificate;
use wire::proto::user_certs_request::{CertPurpose, CertUsage};
use wire::proto::{Certs, MfaAuthenticateResponse, UserCertsRequest};

use crate::account::Account;
use crate::cluster::ClusterClient;
use crate::error::{Error, Result};

/// Makes commands be about another cluster: new certificates that lead there, and the profile that says so.
pub async fn select_cluster(account: &Account, cluster: &str) -> Result<Account> {
    let client = ClusterClient::new(account.clone()).await?;
    let known = account.keys.trusted.iter().any(|trusted| trusted.name == cluster);
    let trusted = if known { account.keys.trusted.clone() } else { super::fetch_authorities(&client).await? };
    if !trusted.iter().any(|trusted| trusted.name == cluster) {
        let names: Vec<&str> = trusted.iter().map(|trusted| trusted.name.as_str()).collect();
        return Err(Error::other(format!("cluster {cluster:?} is not known; there are: {}", names.join(", "))));
    }
    let mut request = request_for(account)?;
    request.route_to_cluster = cluster.to_owned();
    let certs = client.root_auth().generate_user_certs(request).await?.into_inner();
    let mut account = account.clone();
    account.keys.ssh_certificate = ssh_certificate(&certs)?;
    account.keys.tls_certificate = tls_certificate(&certs)?;
    account.keys.trusted = trusted;
    cluster.clone_into(&mut account.cluster);
    cluster.clone_into(&mut account.profile.site_name);
    account.save_keys()?;
    if let Some(home) = &account.home {
        account.profile.save(home, true)?;
    }
    Ok(account)
}

/// New certificates with the roles of further access requests, or without those of some (`*`: of all). They are saved
/// where the login is kept.
///
/// # Errors
/// When a request is not approved, or not this user's.
pub async fn exchange_requests(client: &ClusterClient, added: &[String], dropped: &[String]) -> Result<Account> {
    let mut account = client.account().clone();
    let mut request = request_for(&account)?;
    account.cluster.clone_into(&mut request.route_to_cluster);
    let drops = |id: &String| dropped.iter().any(|one| one == "*" || one == id);
    request.access_requests.retain(|id| !drops(id));
    for id in added {
        if !request.access_requests.contains(id) {
            request.access_requests.push(id.clone());
        }
    }
    request.drop_access_requests = dropped.to_vec();
    let certs = client.root_auth().generate_user_certs(request).await?.into_inner();
    account.keys.ssh_certificate = ssh_certificate(&certs)?;
    account.keys.tls_certificate = tls_certificate(&certs)?;
    account.save_keys()?;
    Ok(account)
}

/// An SSH certificate for one session on one node, which a second factor was shown for.
pub async fn single_use_certificate(
    client: &ClusterClient,
    node: &str,
    login: &str,
    response: MfaAuthenticateResponse,
) -> Result<russh::keys::Certificate> {
    let account = client.account();
    let mut request = request_for(account)?;
    account.cluster.clone_into(&mut request.route_to_cluster);
    request.set_usage(CertUsage::Ssh);
    request.set_purpose(CertPurpose::SingleUseCerts);
    node.clone_into(&mut request.node_name);
    login.clone_into(&mut request.ssh_login);
    request.mfa_response = Some(response);
    let certs = client.root_auth().generate_user_certs(request).await?.into_inner();
    ssh_certificate(&certs)
}

/// What every request says: for whom, for which keys, and no longer than the present certificates.
fn request_for(account: &Account) -> Result<UserCertsRequest> {
    let keys = &account.keys;
    let ssh = keys.ssh_key.public().to_ssh_line().into_bytes();
    let mut request = UserCertsRequest {
        username: account.username.clone(),
        expires: Some(wire::time::timestamp(keys.tls_certificate.not_after())),
        format: "standard".to_owned(),
        access_requests: account.identity()?.active_requests,
        ..Default::default()
    };
    // Servers up to release 16 know only the form with one key.
    if keys.ssh_key.public() == keys.tls_key.public() {
        request.public_key = ssh;
    } else {
        request.ssh_public_key = ssh;
        request.tls_public_key = keys.tls_key.public().to_pem().into_bytes();
    }
    Ok(request)
}

fn ssh_certificate(certs: &Certs) -> Result<russh::keys::Certificate> {
    let line = String::from_utf8_lossy(&certs.ssh);
    ssh_cert::from_line(&line).map_err(|e| Error::other(format!("the SSH certificate that was issued: {e}")))
}

fn tls_certificate(certs: &Certs) -> Result<Certificate> {
    let pem = String::from_utf8_lossy(&certs.tls);
    Certificate::from_pem(&pem).map_err(|e| Error::other(format!("the TLS certificate that was issued: {e}")))
}
