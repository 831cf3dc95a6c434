//! Joining the cluster, and the public halves of its authorities.

use axum::Json;
use axum::extract::{Extension, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value};
use wire::error::{Error, ErrorKind};
use wire::types::{CertAuthorityV2, TlsKeyPair};

use super::{ClientAddress, JsonBody, Web, WebResult, client_ip};

/// `POST /webapi/host/credentials`: a token against a host's certificates.
pub(super) async fn host_credentials(
    State(web): State<Web>,
    Extension(client): Extension<ClientAddress>,
    JsonBody(mut request): JsonBody<Map<String, Value>>,
) -> WebResult {
    // Where the request comes from is for the proxy to say, not for the one who joins.
    request.insert("remote_addr".into(), client_ip(client).to_string().into());
    for trusted in ["bot_instance_id", "bot_generation"] {
        request.remove(trusted);
    }
    Ok(Json(web.upstream.post("/v2/tokens/register", &Value::Object(request)).await?).into_response())
}

/// `POST /webapi/trustedclusters/validate`: a leaf cluster shows a token and is told this cluster's authorities.
pub(super) async fn validate_trusted_cluster(
    State(web): State<Web>,
    JsonBody(request): JsonBody<Map<String, Value>>,
) -> WebResult {
    Ok(Json(web.upstream.post("/v2/trustedclusters/validate", &Value::Object(request)).await?).into_response())
}

/// Which authority to export.
#[derive(Deserialize)]
pub(super) struct ExportQuery {
    #[serde(default, rename = "type")]
    kind: String,
}

/// `GET /webapi/auth/export`: authorities as text for other programs.
pub(super) async fn export(State(web): State<Web>, Query(query): Query<ExportQuery>) -> Response {
    match export_text(&web, &query.kind) {
        Ok(text) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream"),
                (header::CONTENT_DISPOSITION, "attachment; filename=authorized_hosts.txt"),
            ];
            (headers, text).into_response()
        }
        Err(error) => {
            let status = error.kind.http_status();
            (axum::http::StatusCode::from_u16(status.as_u16()).unwrap_or_default(), error.message).into_response()
        }
    }
}

fn export_text(web: &Web, kind: &str) -> Result<Vec<u8>, Error> {
    let cluster = web.cache.cluster_name();
    let authority = |ca_type: &str| {
        web.cache.authority(ca_type, &cluster).ok_or_else(|| Error::not_found(format!("no {ca_type} authority")))
    };
    match kind {
        "" => Ok([ssh_lines(&*authority("host")?, &cluster)?, ssh_lines(&*authority("user")?, &cluster)?].concat()),
        "user" | "host" | "openssh" => ssh_lines(&*authority(kind)?, &cluster),
        "tls" | "tls-host" => tls_pem(&*authority("host")?),
        "tls-user" => tls_pem(&*authority("user")?),
        "tls-spiffe" => tls_pem(&*authority("spiffe")?),
        "db" => tls_pem(&*authority("db")?),
        "db-client" => tls_pem(&*authority("db_client")?),
        "tls-user-der" | "windows" => tls_der(&*authority("user")?),
        "db-der" => tls_der(&*authority("db")?),
        "db-client-der" => tls_der(&*authority("db_client")?),
        "saml-idp" => tls_der(&*authority("saml_idp")?),
        other => Err(Error::bad_parameter(format!("{other:?} authority type is not supported"))),
    }
}

fn ssh_lines(ca: &CertAuthorityV2, cluster: &str) -> Result<Vec<u8>, Error> {
    let spec = ca.spec.as_ref().ok_or_else(|| Error::not_found("authority without keys"))?;
    let pairs = spec.active_keys.iter().flat_map(|k| &k.ssh);
    let mut text = String::new();
    for pair in pairs {
        let line = String::from_utf8_lossy(&pair.public_key);
        let key = pki::keys::PublicKey::from_ssh_line(&line).map_err(|e| Error::other(e.to_string()))?;
        text += &if spec.r#type == "host" {
            pki::known_hosts::host_authority_line(None, cluster, &key)
        } else {
            pki::known_hosts::user_authority_line(cluster, &key)
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text.into_bytes())
}

/// The TLS certificates of an authority, one for each of its key pairs.
fn tls_certificates(ca: &CertAuthorityV2) -> Result<&[TlsKeyPair], Error> {
    match ca.spec.as_ref().and_then(|s| s.active_keys.as_ref()).map(|k| k.tls.as_slice()) {
        Some(pairs @ [_, ..]) => Ok(pairs),
        _ => Err(Error::bad_parameter("expected one TLS key pair, got 0")),
    }
}

fn tls_pem(ca: &CertAuthorityV2) -> Result<Vec<u8>, Error> {
    let lines = tls_certificates(ca)?.iter().flat_map(|pair| pair.cert.trim_ascii_end().iter().chain(b"\n"));
    Ok(lines.copied().collect())
}

/// Several do not fit in this form.
fn tls_der(ca: &CertAuthorityV2) -> Result<Vec<u8>, Error> {
    let [pair] = tls_certificates(ca)? else {
        return Err(Error::bad_parameter(
            "expected one TLS key pair, got several: DER holds one only, PEM all of them",
        ));
    };
    let certificate = pki::x509::Certificate::from_pem(&String::from_utf8_lossy(&pair.cert));
    certificate.map(|c| c.der().to_vec()).map_err(|e| Error::new(ErrorKind::Other, e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use wire::types::{CaKeySet, CertAuthoritySpecV2};

    use super::*;

    #[test]
    fn certificates_of_several_key_pairs_come_one_after_the_other_in_pem_only() {
        let authority = |certificates: &[&str]| {
            let tls = certificates.iter().map(|cert| TlsKeyPair { cert: cert.as_bytes().into(), ..Default::default() });
            let keys = CaKeySet { tls: tls.collect(), ..Default::default() };
            let spec = CertAuthoritySpecV2 { active_keys: Some(keys), ..Default::default() };
            CertAuthorityV2 { spec: Some(spec), ..Default::default() }
        };
        assert_eq!(tls_pem(&authority(&["one\n"])).unwrap(), b"one\n");
        assert_eq!(tls_pem(&authority(&["one\n", "two"])).unwrap(), b"one\ntwo\n");
        assert_eq!(tls_pem(&authority(&[])).unwrap_err().to_string(), "expected one TLS key pair, got 0");
        assert!(tls_der(&authority(&["one\n", "two"])).unwrap_err().to_string().contains("DER holds one only"));
    }
}
