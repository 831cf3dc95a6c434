//! What the login endpoints of a proxy's web API take and give, with the names they have there.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::ssh_cert;
use pki::x509::Certificate;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::keys::{NewKeys, TrustedCluster};

/// The keys that certificates are wanted for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PublicKeys {
    /// One key for both certificates; the only form that servers up to release 16 know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pub_key: Option<Bytes>,
    /// The key of the SSH certificate: a line of `authorized_keys`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_pub_key: Option<Bytes>,
    /// The key of the TLS certificate: PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_pub_key: Option<Bytes>,
}

/// What every request for certificates says.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Wanted {
    /// For these keys.
    #[serde(flatten)]
    pub keys: PublicKeys,
    /// How long they are to be valid, in nanoseconds.
    pub ttl: i64,
    /// The form of the SSH certificate; empty for the standard one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compatibility: String,
    /// The cluster they lead to.
    #[serde(rename = "RouteToCluster")]
    pub route_to_cluster: String,
    /// The Kubernetes cluster they lead to.
    #[serde(rename = "KubernetesCluster")]
    pub kubernetes_cluster: String,
}

/// `POST /v1/webapi/ssh/certs`: login with a password and perhaps a one-time code.
#[derive(Serialize)]
pub struct PasswordLogin<'a> {
    /// The user.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
    /// The one-time code; empty without a second factor.
    pub otp_token: &'a str,
    /// What is wanted.
    #[serde(flatten)]
    pub wanted: &'a Wanted,
}

/// `POST /v1/webapi/mfa/login/begin`.
#[derive(Serialize)]
pub struct BeginLogin<'a> {
    /// The user.
    pub user: &'a str,
    /// The password.
    pub pass: &'a str,
    /// Whether a security key is to take the place of user name and password.
    pub passwordless: bool,
}

/// The answer to [`BeginLogin`].
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoginChallenge {
    /// For a security key.
    pub webauthn_challenge: Option<serde_json::Value>,
    /// Whether a one-time code will do.
    pub totp_challenge: bool,
}

/// `POST /v1/webapi/mfa/login/finish`.
#[derive(Serialize)]
pub struct FinishLogin<'a> {
    /// The user.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
    /// The one-time code, or empty.
    pub totp_code: &'a str,
    /// What is wanted.
    #[serde(flatten)]
    pub wanted: &'a Wanted,
}

/// The answer to a login.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoginResponse {
    /// Who logged in.
    pub username: String,
    /// The SSH certificate: a line.
    pub cert: Bytes,
    /// The TLS certificate: PEM.
    pub tls_cert: Bytes,
    /// Trusted authorities, the root cluster first.
    pub host_signers: Vec<HostSigner>,
}

/// The authorities of one cluster.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct HostSigner {
    /// Name of the cluster.
    pub domain_name: String,
    /// Lines of `authorized_keys`.
    #[serde(deserialize_with = "or_empty")]
    pub checking_keys: Vec<Bytes>,
    /// PEM.
    #[serde(deserialize_with = "or_empty")]
    pub tls_certs: Vec<Bytes>,
}

/// `GET /webapi/motd`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MessageOfTheDay {
    /// The message.
    #[serde(rename = "Text")]
    pub text: String,
}

/// Bytes that are base64 in JSON, and `null` when there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
    Ok(Option::<Vec<Bytes>>::deserialize(deserializer)?.unwrap_or_default())
}

impl PublicKeys {
    /// The form that suits the server: one that announces a suite knows separate keys.
    pub fn new(keys: &NewKeys, separate: bool) -> Self {
        let ssh = Bytes(keys.ssh.public().to_ssh_line().into_bytes());
        if !separate && keys.single {
            return Self { pub_key: Some(ssh), ..Default::default() };
        }
        let tls = Bytes(keys.tls.public().to_pem().into_bytes());
        Self { pub_key: None, ssh_pub_key: Some(ssh), tls_pub_key: Some(tls) }
    }
}

impl LoginResponse {
    /// The certificates.
    pub fn certificates(&self) -> Result<(russh::keys::Certificate, Certificate)> {
        let ssh = ssh_cert::from_line(&text(&self.cert)?).map_err(|e| unusable("SSH certificate", &e))?;
        let tls = Certificate::from_pem(&text(&self.tls_cert)?).map_err(|e| unusable("TLS certificate", &e))?;
        Ok((ssh, tls))
    }

    /// The trusted authorities.
    pub fn trusted(&self) -> Result<Vec<TrustedCluster>> {
        self.host_signers.iter().map(HostSigner::trusted).collect()
    }
}

impl HostSigner {
    fn trusted(&self) -> Result<TrustedCluster> {
        let keys = self.checking_keys.iter().map(|key| &key.0[..]);
        let certificates = self.tls_certs.iter().map(|pem| &pem.0[..]);
        super::authorities::trusted_cluster(&self.domain_name, keys, certificates)
    }
}

fn text(bytes: &Bytes) -> Result<String> {
    String::from_utf8(bytes.0.clone()).map_err(|_| Error::other("the proxy's answer to the login is not understood"))
}

fn unusable(what: &str, error: &pki::Error) -> Error {
    Error::other(format!("the {what} that the proxy issued cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pki::suite::SignatureSuite;
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_have_the_names_that_servers_read() {
        let keys = NewKeys::generate(Some(SignatureSuite::BalancedV1)).unwrap();
        let wanted = Wanted { keys: PublicKeys::new(&keys, true), ttl: 60_000_000_000, ..Default::default() };
        let login = PasswordLogin { user: "alice", password: "secret", otp_token: "123456", wanted: &wanted };
        let sent = serde_json::to_value(login).unwrap();
        assert_eq!(
            (&sent["user"], &sent["otp_token"], &sent["ttl"], &sent["RouteToCluster"]),
            (&json!("alice"), &json!("123456"), &json!(60_000_000_000_i64), &json!(""))
        );
        assert!(sent["ssh_pub_key"].is_string() && sent["tls_pub_key"].is_string());
        assert!(sent.get("pub_key").is_none() && sent.get("compatibility").is_none());
    }

    #[test]
    fn one_key_is_sent_in_the_form_that_old_servers_know() {
        let keys = NewKeys::generate(Some(SignatureSuite::BalancedV1)).unwrap();
        let single = NewKeys { ssh: keys.tls.clone(), tls: keys.tls, single: true };
        let sent = PublicKeys::new(&single, false);
        assert!(sent.pub_key.is_some() && sent.ssh_pub_key.is_none() && sent.tls_pub_key.is_none());
    }

    #[test]
    fn answers_with_missing_parts_are_read() {
        let answer: LoginResponse = serde_json::from_value(json!({
            "username": "alice", "cert": null, "host_signers": [{"domain_name": "main", "checking_keys": null}], "more": 1
        }))
        .unwrap();
        assert_eq!(answer.trusted().unwrap()[0].name, "main");
        assert!(answer.certificates().is_err());
        let challenge: LoginChallenge =
            serde_json::from_value(json!({"webauthn_challenge": null, "totp_challenge": true})).unwrap();
        assert!(challenge.totp_challenge && challenge.webauthn_challenge.is_none());
    }
}
