//! Issuing SSH certificates.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use ssh_key::certificate::{Builder, CertType};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, Certificate, EcdsaCurve, HashAlg, Signature};

use super::{CertificateFormat, Permits, option};
use crate::Error;
use crate::cluster_name::host_fqdn;
use crate::identity::{Identity, go_json, rfc3339, traits_to_json};
use crate::keys::{KeyAlgorithm, PublicKey, Signer, ecdsa_ssh_from_der};

/// How far in the past certificates start, against clocks that are behind.
const BACKDATE: TimeDelta = TimeDelta::minutes(1);

/// The `valid before` of certificates that do not expire.
const FOREVER: u64 = u64::MAX;

/// The names under which a host is always reached from itself.
const LOOPBACKS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A user's certificate to be issued.
#[derive(Clone, Copy, Debug)]
pub struct UserCertificateParams<'a> {
    /// Who the user is. Logins are taken as they are: see
    /// [`certificate_logins`](crate::identity::certificate_logins).
    pub identity: &'a Identity,
    /// The user's key.
    pub public_key: &'a PublicKey,
    /// The current time.
    pub now: DateTime<Utc>,
    /// End of validity; `None` means never.
    pub not_after: Option<DateTime<Utc>>,
    /// What OpenSSH servers shall allow.
    pub permits: Permits,
    /// How much to say.
    pub format: CertificateFormat,
    /// Extensions that roles define. They cannot replace those of the system.
    pub extensions: &'a [(String, String)],
}

/// A host's certificate to be issued.
#[derive(Clone, Copy, Debug)]
pub struct HostCertificateParams<'a> {
    /// The host's key.
    pub public_key: &'a PublicKey,
    /// The host's UUID; empty for hosts outside of the cluster, which then have only additional principals.
    pub host_id: &'a str,
    /// The host's name; may be empty.
    pub node_name: &'a str,
    /// The cluster's name.
    pub cluster: &'a str,
    /// The system role, such as `Node`.
    pub role: &'a str,
    /// Further names and addresses.
    pub additional_principals: &'a [String],
    /// The current time.
    pub now: DateTime<Utc>,
    /// End of validity; `None` means never.
    pub not_after: Option<DateTime<Utc>>,
}

/// An authority that signs SSH certificates; clones share everything.
#[derive(Clone)]
pub struct SshIssuer {
    key: Arc<dyn Signer>,
}

impl SshIssuer {
    /// Makes an issuer of an authority's key.
    #[must_use]
    pub fn new(key: impl Into<Arc<dyn Signer>>) -> Self {
        Self { key: key.into() }
    }

    /// The authority's public key.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// Issues a user's certificate.
    ///
    /// # Errors
    /// [`Error::Malformed`] without any login, or when an access request's id is not a UUID;
    /// [`Error::Crypto`] when signing fails.
    pub fn issue_user(&self, params: &UserCertificateParams<'_>) -> Result<Certificate, Error> {
        let identity = params.identity;
        let mut draft = Draft::new(params.public_key, params.now, params.not_after, &identity.principals)?;
        draft.set(|builder| builder.cert_type(CertType::User).map(drop))?;
        draft.set(|builder| builder.key_id(&identity.username).map(drop))?;
        if !identity.pinned_ip.is_empty() {
            let width = if identity.pinned_ip.contains(':') { 128 } else { 32 };
            let range = format!("{}/{width}", identity.pinned_ip);
            draft.set(|builder| builder.critical_option(option::SOURCE_ADDRESS, range).map(drop))?;
        }
        let mut extensions = user_extensions(identity, params.permits);
        if params.format == CertificateFormat::Standard {
            extensions.extend(standard_extensions(identity)?);
        }
        for (name, value) in params.extensions {
            let repeated = extensions.iter().any(|(known, _)| known == name);
            if !repeated && !option::RESERVED.contains(&name.as_str()) {
                extensions.push((name, value.clone()));
            }
        }
        for (name, value) in extensions {
            draft.set(|builder| builder.extension(name, value).map(drop))?;
        }
        draft.sign(&*self.key)
    }

    /// Issues a host's certificate.
    ///
    /// # Errors
    /// [`Error::Malformed`] without any principal, [`Error::Crypto`] when signing fails.
    pub fn issue_host(&self, params: &HostCertificateParams<'_>) -> Result<Certificate, Error> {
        let mut draft = Draft::new(params.public_key, params.now, params.not_after, &host_principals(params))?;
        draft.set(|builder| builder.cert_type(CertType::Host).map(drop))?;
        draft.set(|builder| builder.extension(option::HOST_ROLE, params.role).map(drop))?;
        draft.set(|builder| builder.extension(option::HOST_AUTHORITY, params.cluster).map(drop))?;
        draft.sign(&*self.key)
    }
}

impl fmt::Debug for SshIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshIssuer").field("key", self.public_key()).finish()
    }
}

/// The names of a host, in order and without repetition.
fn host_principals(params: &HostCertificateParams<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: String| {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    };
    if params.role == "Admin" && !params.host_id.is_empty() {
        add(params.host_id.to_owned());
        return names;
    }
    if !params.host_id.is_empty() {
        add(host_fqdn(params.host_id, params.cluster));
        add(params.host_id.to_owned());
        if !params.node_name.is_empty() {
            add(host_fqdn(params.node_name, params.cluster));
            add(params.node_name.to_owned());
        }
        LOOPBACKS.into_iter().map(str::to_owned).for_each(&mut add);
    }
    params.additional_principals.iter().cloned().for_each(add);
    names
}

/// The contents of `teleport-roles`.
#[derive(Serialize)]
struct RolesExtension<'a> {
    version: &'static str,
    roles: &'a [String],
}

/// The contents of `teleport-active-requests`.
#[derive(Serialize)]
struct RequestsExtension<'a> {
    access_requests: &'a [String],
}

type Extensions<'a> = Vec<(&'a str, String)>;

/// The extensions of every format.
fn user_extensions(identity: &Identity, permits: Permits) -> Extensions<'static> {
    let flags = [
        (option::PERMIT_PTY, true),
        (option::PERMIT_PORT_FORWARDING, permits.port_forwarding),
        (option::PERMIT_AGENT_FORWARDING, permits.agent_forwarding),
        (option::PERMIT_X11_FORWARDING, permits.x11_forwarding),
        (option::DISALLOW_REISSUE, identity.disallow_reissue),
        (option::RENEWABLE, identity.renewable),
    ];
    let texts = [
        (option::MFA_VERIFIED, &identity.mfa_verified),
        (option::LOGIN_IP, &identity.login_ip),
        (option::IMPERSONATOR, &identity.impersonator),
        (option::BOT_NAME, &identity.bot_name),
        (option::BOT_INSTANCE_ID, &identity.bot_instance_id),
        (option::CONNECTION_DIAGNOSTIC_ID, &identity.connection_diagnostic_id),
        (option::PRIVATE_KEY_POLICY, &identity.private_key_policy),
        (option::DEVICE_ID, &identity.device.device_id),
        (option::DEVICE_ASSET_TAG, &identity.device.asset_tag),
        (option::DEVICE_CREDENTIAL_ID, &identity.device.credential_id),
    ];
    let flags = flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| (name, String::new()));
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    let mut extensions: Extensions<'static> = flags.chain(texts.map(|(name, text)| (name, text.clone()))).collect();
    if let Some(expires) = identity.previous_identity_expires {
        extensions.push((option::PREVIOUS_IDENTITY_EXPIRES, rfc3339(expires)));
    }
    if identity.generation > 0 {
        extensions.push((option::GENERATION, identity.generation.to_string()));
    }
    if !identity.allowed_resource_ids.is_empty() {
        extensions.push((option::ALLOWED_RESOURCES, go_json(&identity.allowed_resource_ids)));
    }
    extensions
}

/// The extensions that only the standard format has.
fn standard_extensions(identity: &Identity) -> Result<Extensions<'static>, Error> {
    let mut extensions = vec![(option::TRAITS, traits_to_json(identity.traits.as_ref()))];
    if !identity.groups.is_empty() {
        let roles = RolesExtension { version: "v1", roles: &identity.groups };
        extensions.push((option::ROLES, go_json(&roles)));
    }
    if !identity.route_to_cluster.is_empty() {
        extensions.push((option::ROUTE_TO_CLUSTER, identity.route_to_cluster.clone()));
    }
    if !identity.active_requests.is_empty() {
        for id in &identity.active_requests {
            uuid::Uuid::parse_str(id)
                .map_err(|error| Error::malformed("access request", format!("{id:?} is not a UUID: {error}")))?;
        }
        let requests = RequestsExtension { access_requests: &identity.active_requests };
        extensions.push((option::ACTIVE_REQUESTS, go_json(&requests)));
    }
    Ok(extensions)
}

/// A certificate that is being filled in.
struct Draft {
    builder: Builder,
}

impl Draft {
    fn new(
        key: &PublicKey,
        now: DateTime<Utc>,
        not_after: Option<DateTime<Utc>>,
        principals: &[String],
    ) -> Result<Self, Error> {
        if principals.is_empty() {
            // An SSH certificate without principals would be good for every name.
            return Err(Error::malformed("SSH certificate", "at least one principal is needed"));
        }
        let mut nonce = vec![0; 32];
        SystemRandom::new().fill(&mut nonce).map_err(|_| Error::Crypto("random number generation"))?;
        let until = not_after.map_or(Ok(FOREVER), seconds)?;
        let builder =
            Builder::new(nonce, key.ssh_key_data().clone(), seconds(now - BACKDATE)?, until).map_err(refused)?;
        let mut draft = Self { builder };
        for principal in principals {
            draft.set(|builder| builder.valid_principal(principal).map(drop))?;
        }
        Ok(draft)
    }

    fn set(&mut self, change: impl FnOnce(&mut Builder) -> ssh_key::Result<()>) -> Result<(), Error> {
        change(&mut self.builder).map_err(refused)
    }

    fn sign(self, key: &dyn Signer) -> Result<Certificate, Error> {
        let key = CaKey { key, failed: Cell::default() };
        // The library knows of one kind of failure only.
        self.builder.sign(&key).map_err(|error| key.failed.take().unwrap_or_else(|| refused(error)))
    }
}

fn refused(error: ssh_key::Error) -> Error {
    match error {
        ssh_key::Error::Crypto => Error::Crypto("signing of an SSH certificate"),
        other => Error::malformed("SSH certificate", other),
    }
}

fn seconds(moment: DateTime<Utc>) -> Result<u64, Error> {
    u64::try_from(moment.timestamp()).map_err(|_| Error::malformed("SSH certificate", "validity before 1970"))
}

/// Lends an authority's key to the SSH library.
struct CaKey<'a> {
    key: &'a dyn Signer,
    /// Why it did not sign.
    failed: Cell<Option<Error>>,
}

impl From<&CaKey<'_>> for KeyData {
    fn from(key: &CaKey<'_>) -> Self {
        key.key.public_key().ssh_key_data().clone()
    }
}

impl signature::Signer<Signature> for CaKey<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        self.signature(message).map_err(|error| {
            self.failed.set(Some(error));
            signature::Error::new()
        })
    }
}

impl CaKey<'_> {
    fn signature(&self, message: &[u8]) -> Result<Signature, Error> {
        let algorithm = self.key.public_key().algorithm();
        let raw = self.key.sign(algorithm.ssh_scheme(), message)?;
        let (algorithm, blob) = match algorithm {
            KeyAlgorithm::Rsa2048 => (Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, raw),
            KeyAlgorithm::EcdsaP256 => (Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }, ecdsa_ssh_from_der(&raw)?),
            KeyAlgorithm::Ed25519 => (Algorithm::Ed25519, raw),
        };
        Signature::new(algorithm, blob).map_err(refused)
    }
}
