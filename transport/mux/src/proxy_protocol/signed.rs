//! Signed headers: what a Proxy of a cluster says about its client, and how that is checked.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::RwLock;
use pki::identity::Identity;
use pki::keys::{KeyAlgorithm, PrivateKey, PublicKey};
use pki::x509::Certificate;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Addresses, Header as ProxyHeader, SignError, SignHeader, Signature, VerifyError};

/// The system role whose holders may speak for clients.
const PROXY: &str = "Proxy";
/// How far clocks of the cluster may differ.
const LEEWAY: TimeDelta = TimeDelta::seconds(10);
/// How long a token is good for.
const LIFETIME: TimeDelta = TimeDelta::seconds(60);
/// Longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 4096;

/// Makes signed headers with a proxy's host certificate and key.
/// Clones share them.
#[derive(Clone)]
pub struct HeaderSigner {
    shown: Arc<RwLock<(Certificate, PrivateKey)>>,
    cluster: Arc<str>,
}

impl HeaderSigner {
    /// A signer for a proxy of `cluster`.
    pub fn new(certificate: Certificate, key: PrivateKey, cluster: &str) -> Self {
        Self { shown: Arc::new(RwLock::new((certificate, key))), cluster: cluster.into() }
    }

    /// Signs with another certificate and key from now on.
    pub fn replace(&self, certificate: Certificate, key: PrivateKey) {
        *self.shown.write() = (certificate, key);
    }

    fn token(&self, key: &PrivateKey, said: (&Addresses, IpAddr), now: DateTime<Utc>) -> Result<String, SignError> {
        let (addresses, counted) = said;
        let mut claims = json!({
            "iss": *self.cluster,
            "sub": addresses.source().to_string(),
            "aud": [addresses.destination().to_string()],
            "iat": now.timestamp(),
            "nbf": (now - LEEWAY).timestamp(),
            "exp": (now + LIFETIME).timestamp(),
        });
        if counted != addresses.source().ip() {
            claims["counted"] = counted.to_string().into();
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": key.algorithm().jws_name(), "typ": "JWT"});
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = key.sign_jws(signed.as_bytes()).map_err(|error| SignError(error.to_string()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[async_trait]
impl SignHeader for HeaderSigner {
    async fn sign(&self, addresses: &Addresses, counted: IpAddr) -> Result<Vec<u8>, SignError> {
        let (certificate, key) = self.shown.read().clone();
        let token = self.token(&key, (addresses, counted.to_canonical()), Utc::now())?;
        ProxyHeader::signed(addresses, certificate.der(), &token)
            .ok_or_else(|| SignError("certificate and token do not fit into a header".into()))
    }
}

/// Checks a signed header: its certificate is of a Proxy of `cluster`, issued by one of `authorities`, and its token
/// was made with that certificate's key for this very connection. The answer is the address for which things count, unless
/// that is the source's.
///
/// # Errors
/// [`VerifyError::Refused`] with the first reason found.
pub fn verify(
    addresses: &Addresses,
    header: Signature<'_>,
    cluster: &str,
    authorities: &[Certificate],
    now: DateTime<Utc>,
) -> Result<Option<IpAddr>, VerifyError> {
    let (Some(certificate), Some(token)) = (header.certificate, header.token) else {
        return Err(refused("certificate or token is missing"));
    };
    let certificate = Certificate::from_der(certificate).map_err(refused)?;
    if certificate.verify_issued_by(authorities, now).is_none() {
        return Err(refused("the certificate is not of a host of this cluster"));
    }
    check_holder(&certificate, cluster)?;
    let key = certificate.public_key().map_err(refused)?;
    check_token(token, &key, &Expected { cluster, addresses, now })
}

/// What the token of a header must say.
struct Expected<'a> {
    cluster: &'a str,
    addresses: &'a Addresses,
    now: DateTime<Utc>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Audience,
    iss: String,
    exp: i64,
    nbf: i64,
    /// Where the client is as far as the proxy has seen itself, when the source is only the client's own word. Nobody but
    /// this system writes or reads it.
    counted: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The certificate must be of a proxy of this cluster.
fn check_holder(certificate: &Certificate, cluster: &str) -> Result<(), VerifyError> {
    let holder = Identity::from_certificate(certificate).map_err(refused)?;
    let proxy = holder.groups.iter().chain(&holder.system_roles).any(|role| role == PROXY);
    if holder.teleport_cluster == cluster && proxy {
        Ok(())
    } else {
        Err(refused("the certificate is not of a proxy of this cluster"))
    }
}

fn check_token(token: &[u8], key: &PublicKey, expected: &Expected<'_>) -> Result<Option<IpAddr>, VerifyError> {
    let token = std::str::from_utf8(token).ok().filter(|token| token.len() <= MAX_TOKEN);
    let (signed, signature) =
        token.and_then(|token| token.rsplit_once('.')).ok_or_else(|| refused("malformed token"))?;
    let (header, claims) = signed.split_once('.').ok_or_else(|| refused("malformed token"))?;
    let signature = decode(signature)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(refused)?;
    let (name, algorithm): (_, &dyn VerificationAlgorithm) = match key.algorithm() {
        KeyAlgorithm::Rsa2048 => ("RS256", &signature::RSA_PKCS1_2048_8192_SHA256),
        KeyAlgorithm::EcdsaP256 => ("ES256", &signature::ECDSA_P256_SHA256_FIXED),
        KeyAlgorithm::Ed25519 => ("EdDSA", &signature::ED25519),
    };
    if header.alg != name {
        return Err(refused("the token's algorithm is not that of the certificate's key"));
    }
    let key = UnparsedPublicKey::new(algorithm, key.raw());
    key.verify(signed.as_bytes(), &signature).map_err(|_| refused("the token's signature is wrong"))?;
    let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(refused)?;
    check_claims(&claims, expected)?;
    Ok(claims.counted)
}

fn check_claims(claims: &Claims, expected: &Expected<'_>) -> Result<(), VerifyError> {
    let destination = expected.addresses.destination().to_string();
    let audience = match &claims.aud {
        Audience::One(one) => *one == destination,
        Audience::Many(many) => many.contains(&destination),
    };
    let now = expected.now.timestamp();
    let leeway = LEEWAY.num_seconds();
    if claims.iss != expected.cluster {
        return Err(refused("the token is of another cluster"));
    }
    if claims.sub != expected.addresses.source().to_string() || !audience {
        return Err(refused("the token is for other addresses"));
    }
    if now > claims.exp.saturating_add(leeway) || now < claims.nbf.saturating_sub(leeway) {
        return Err(refused("the token is not valid now"));
    }
    Ok(())
}

fn decode(text: &str) -> Result<Vec<u8>, VerifyError> {
    URL_SAFE_NO_PAD.decode(text).map_err(refused)
}

fn refused(reason: impl ToString) -> VerifyError {
    VerifyError::Refused(reason.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn token(key: &PrivateKey, alg: &str, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": alg, "typ": "JWT"})), encode(claims));
        let signature = key.sign_jws(signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn a_token_says_for_which_address_things_count_when_the_source_is_only_the_clients_word() {
        let (key, now) = (PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap(), Utc::now());
        let addresses = Addresses::new("192.0.2.1:0".parse().unwrap(), "192.0.2.9:3025".parse().unwrap()).unwrap();
        let mut subject = pki::x509::DistinguishedName::new();
        subject.push(pki::x509::oid::COMMON_NAME, "proxy");
        let host = pki::x509::self_signed_web(&["proxy".to_owned()], &key, now, std::time::Duration::from_secs(60));
        let signer = HeaderSigner::new(Certificate::from_der(&host.unwrap()).unwrap(), key.clone(), "one");
        for (counted, said) in [("198.51.100.7", Some("198.51.100.7")), ("192.0.2.1", None)] {
            let token = signer.token(&key, (&addresses, counted.parse().unwrap()), now).unwrap();
            let expected = Expected { cluster: "one", addresses: &addresses, now };
            let read = check_token(token.as_bytes(), key.public(), &expected).unwrap();
            assert_eq!(read, said.map(|ip| ip.parse().unwrap()));
        }
    }

    #[test]
    fn a_token_holds_for_its_cluster_addresses_and_minute_only() {
        let now = Utc::now();
        let addresses = Addresses::new("192.0.2.1:5000".parse().unwrap(), "192.0.2.9:3025".parse().unwrap()).unwrap();
        let claims = json!({
            "iss": "one", "sub": "192.0.2.1:5000", "aud": ["192.0.2.9:3025"], "nbf": now.timestamp() - 10,
            "iat": now.timestamp(), "exp": now.timestamp() + 60, "username": "", "roles": null, "traits": null,
        });
        for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let check = |token: &str, cluster: &str, now: DateTime<Utc>| {
                check_token(token.as_bytes(), key.public(), &Expected { cluster, addresses: &addresses, now })
            };
            let good = token(&key, algorithm.jws_name(), &claims);
            assert_eq!(check(&good, "one", now), Ok(None));
            assert!(check(&good, "two", now).is_err());
            assert!(check(&good, "one", now + TimeDelta::minutes(5)).is_err());
            assert!(check(&good, "one", now - TimeDelta::minutes(5)).is_err());
            assert!(check(&token(&key, "none", &claims), "one", now).is_err());
            let mut elsewhere = claims.clone();
            elsewhere["sub"] = json!("192.0.2.7:5000");
            assert!(check(&token(&key, algorithm.jws_name(), &elsewhere), "one", now).is_err());
            let other = PrivateKey::generate(algorithm).unwrap();
            assert!(check(&token(&other, algorithm.jws_name(), &claims), "one", now).is_err());
            for noise in ["", ".", "..", "a.b.c", "\u{fffd}"] {
                assert!(check(noise, "one", now).is_err());
            }
        }
    }
}
