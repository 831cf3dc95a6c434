//! What SSH certificates say.

use std::fmt::Display;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use ssh_key::Certificate;
use ssh_key::certificate::CertType;

use super::{Permits, from_line, option};
use crate::Error;
use crate::identity::{DeviceExtensions, Identity, traits_from_text};
use crate::keys::PublicKey;

/// A user's certificate, read but not checked: see [`check`](super::check()).
#[derive(Clone, Debug)]
pub struct UserCertificate {
    /// The certificate itself.
    pub certificate: Certificate,
    /// What it says about the user. SSH certificates say nothing about Kubernetes, databases and applications, nor
    /// about the cluster: that follows from the authority that signed.
    pub identity: Identity,
    /// What OpenSSH's own extensions allow.
    pub permits: Permits,
}

/// A host's certificate, read but not checked: see [`check`](super::check()).
#[derive(Clone, Debug)]
pub struct HostCertificate {
    /// The certificate itself.
    pub certificate: Certificate,
    /// The host's full name, `<host id>.<cluster>`, which is also its user name when it dials.
    pub fqdn: String,
    /// Its system role, such as `Node`.
    pub role: String,
    /// Its cluster.
    pub cluster: String,
}

fn malformed(option: &'static str, reason: impl Display) -> Error {
    Error::malformed("SSH certificate", format!("{option}: {reason}"))
}

impl UserCertificate {
    /// Reads a user's certificate.
    ///
    /// # Errors
    /// [`Error::WrongCertificateType`] for a host's, [`Error::Malformed`] when an extension cannot be understood.
    pub fn from_certificate(certificate: Certificate) -> Result<Self, Error> {
        if certificate.cert_type() != CertType::User {
            return Err(Error::WrongCertificateType { expected: "user" });
        }
        let mut identity = identity_of(&certificate);
        read_structured(&certificate, &mut identity)?;
        let has = |name| certificate.extensions().contains_key(name);
        let permits = Permits {
            port_forwarding: has(option::PERMIT_PORT_FORWARDING),
            agent_forwarding: has(option::PERMIT_AGENT_FORWARDING),
            x11_forwarding: has(option::PERMIT_X11_FORWARDING),
        };
        Ok(Self { certificate, identity, permits })
    }

    /// Reads a line of OpenSSH's form.
    ///
    /// # Errors
    /// As [`from_certificate`](Self::from_certificate).
    pub fn from_line(line: &str) -> Result<Self, Error> {
        Self::from_certificate(from_line(line)?)
    }

    /// The user's key.
    ///
    /// # Errors
    /// [`Error::UnsupportedKey`] for kinds of key that are not in use here.
    pub fn public_key(&self) -> Result<PublicKey, Error> {
        PublicKey::from_ssh(self.certificate.public_key())
    }
}

impl HostCertificate {
    /// Reads a host's certificate.
    ///
    /// # Errors
    /// [`Error::WrongCertificateType`] for a user's, [`Error::Malformed`] without names, cluster, or exactly one role.
    pub fn from_certificate(certificate: Certificate) -> Result<Self, Error> {
        if certificate.cert_type() != CertType::Host {
            return Err(Error::WrongCertificateType { expected: "host" });
        }
        let principals = certificate.valid_principals();
        let fqdn = match principals.first() {
            Some(first) if !principals.iter().any(String::is_empty) => first.clone(),
            _ => return Err(Error::malformed("SSH certificate", "empty principal")),
        };
        let required = |name| {
            let value = certificate.extensions().get(name).filter(|value| !value.is_empty());
            value.cloned().ok_or_else(|| malformed(name, "missing"))
        };
        let cluster = required(option::HOST_AUTHORITY)?;
        let role = required(option::HOST_ROLE)?;
        if role.contains(',') {
            return Err(malformed(option::HOST_ROLE, "expected exactly one role"));
        }
        Ok(Self { fqdn, role, cluster, certificate })
    }

    /// Reads a line of OpenSSH's form.
    ///
    /// # Errors
    /// As [`from_certificate`](Self::from_certificate).
    pub fn from_line(line: &str) -> Result<Self, Error> {
        Self::from_certificate(from_line(line)?)
    }

    /// The host's UUID: its full name without the cluster.
    #[must_use]
    pub fn host_id(&self) -> &str {
        self.fqdn.strip_suffix(self.cluster.as_str()).and_then(|rest| rest.strip_suffix('.')).unwrap_or(&self.fqdn)
    }
}

/// The plain fields.
fn identity_of(certificate: &Certificate) -> Identity {
    let extensions = certificate.extensions();
    let text = |name| extensions.get(name).cloned().unwrap_or_default();
    Identity {
        username: certificate.key_id().to_owned(),
        principals: certificate.valid_principals().to_vec(),
        route_to_cluster: text(option::ROUTE_TO_CLUSTER),
        mfa_verified: text(option::MFA_VERIFIED),
        login_ip: text(option::LOGIN_IP),
        pinned_ip: pinned_ip(certificate),
        impersonator: text(option::IMPERSONATOR),
        disallow_reissue: extensions.contains_key(option::DISALLOW_REISSUE),
        renewable: extensions.contains_key(option::RENEWABLE),
        bot_name: text(option::BOT_NAME),
        bot_instance_id: text(option::BOT_INSTANCE_ID),
        connection_diagnostic_id: text(option::CONNECTION_DIAGNOSTIC_ID),
        private_key_policy: text(option::PRIVATE_KEY_POLICY),
        device: DeviceExtensions {
            device_id: text(option::DEVICE_ID),
            asset_tag: text(option::DEVICE_ASSET_TAG),
            credential_id: text(option::DEVICE_CREDENTIAL_ID),
        },
        expires: i64::try_from(certificate.valid_before())
            .ok()
            .and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0)),
        ..Identity::default()
    }
}

/// The one address that a certificate is pinned to; lists and networks pin nothing that has a name here.
fn pinned_ip(certificate: &Certificate) -> String {
    let range = certificate.critical_options().get(option::SOURCE_ADDRESS);
    let address = range.and_then(|range| range.strip_suffix("/32").or_else(|| range.strip_suffix("/128")));
    address.filter(|address| !address.contains(',')).unwrap_or_default().to_owned()
}

#[derive(Deserialize)]
struct RolesExtension {
    #[serde(default)]
    roles: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RequestsExtension {
    #[serde(default)]
    access_requests: Option<Vec<String>>,
}

/// The fields with a form of their own.
fn read_structured(certificate: &Certificate, identity: &mut Identity) -> Result<(), Error> {
    let value = |name| certificate.extensions().get(name);
    if let Some(text) = value(option::ROLES) {
        let roles: RolesExtension = serde_json::from_str(text).map_err(|error| malformed(option::ROLES, error))?;
        identity.groups = roles.roles.unwrap_or_default();
    }
    if let Some(text) = value(option::TRAITS) {
        identity.traits = traits_from_text(text).map_err(|error| malformed(option::TRAITS, error))?;
    }
    if let Some(text) = value(option::ACTIVE_REQUESTS) {
        let requests: RequestsExtension =
            serde_json::from_str(text).map_err(|error| malformed(option::ACTIVE_REQUESTS, error))?;
        identity.active_requests = requests.access_requests.unwrap_or_default();
    }
    if let Some(text) = value(option::PREVIOUS_IDENTITY_EXPIRES) {
        let expires =
            DateTime::parse_from_rfc3339(text).map_err(|error| malformed(option::PREVIOUS_IDENTITY_EXPIRES, error))?;
        identity.previous_identity_expires = Some(expires.to_utc());
    }
    if let Some(text) = value(option::GENERATION) {
        identity.generation = text.parse().map_err(|error| malformed(option::GENERATION, error))?;
    }
    if let Some(text) = value(option::ALLOWED_RESOURCES) {
        identity.allowed_resource_ids = serde_json::from_str::<Option<Vec<String>>>(text)
            .map_err(|error| malformed(option::ALLOWED_RESOURCES, error))?
            .unwrap_or_default();
    }
    Ok(())
}
