//! Joining: the one call that needs no certificate.

use axum::extract::State;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;
use wire::{proto, types::RegisterUsingTokenRequest};

use super::{
    answer::{Answer, Json},
    caller::By,
};
use crate::Auth;

/// New certificates, bytes in base64.
#[derive(Serialize)]
pub(super) struct Certs {
    ssh: String,
    tls: String,
    tls_ca_certs: Vec<String>,
    ssh_ca_certs: Vec<String>,
}

/// `POST /tokens/register`: open to everybody, the token decides.
pub(super) async fn register(
    State(auth): State<Auth>,
    by: By,
    Json(request): Json<RegisterUsingTokenRequest>,
) -> Answer<Certs> {
    let certs = auth.register_using_token(&by.caller, request).await?;
    Ok(Json(certs.into()))
}

impl From<proto::Certs> for Certs {
    fn from(certs: proto::Certs) -> Self {
        let list = |items: Vec<Vec<u8>>| items.iter().map(|item| STANDARD.encode(item)).collect();
        Self {
            ssh: STANDARD.encode(&certs.ssh),
            tls: STANDARD.encode(&certs.tls),
            tls_ca_certs: list(certs.tlsca_certs),
            ssh_ca_certs: list(certs.sshca_certs),
        }
    }
}
