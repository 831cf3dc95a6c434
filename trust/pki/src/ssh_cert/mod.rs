//! SSH certificates (OpenSSH, PROTOCOL.certkeys): issuing, reading and checking.
//!
//! A user's certificate carries the same facts as the X.509 one, as far as SSH needs them, in extensions that
//! OpenSSH ignores. A host's certificate says which service of which cluster it is.

mod check;
mod issue;
mod view;

use ssh_key::Certificate;

pub use check::{CheckError, Kind, Requirements, check};
pub use issue::{HostCertificateParams, SshIssuer, UserCertificateParams};
pub use view::{HostCertificate, UserCertificate};

use crate::Error;

/// Names of extensions and critical options.
mod option {
    pub const PERMIT_PTY: &str = "permit-pty";
    pub const PERMIT_PORT_FORWARDING: &str = "permit-port-forwarding";
    pub const PERMIT_AGENT_FORWARDING: &str = "permit-agent-forwarding";
    pub const PERMIT_X11_FORWARDING: &str = "permit-X11-forwarding";
    pub const ROLES: &str = "teleport-roles";
    pub const TRAITS: &str = "teleport-traits";
    pub const ROUTE_TO_CLUSTER: &str = "teleport-route-to-cluster";
    pub const ACTIVE_REQUESTS: &str = "teleport-active-requests";
    pub const MFA_VERIFIED: &str = "mfa-verified";
    pub const PREVIOUS_IDENTITY_EXPIRES: &str = "prev-identity-expires";
    pub const LOGIN_IP: &str = "login-ip";
    pub const IMPERSONATOR: &str = "impersonator";
    pub const DISALLOW_REISSUE: &str = "disallow-reissue";
    pub const RENEWABLE: &str = "renewable";
    pub const GENERATION: &str = "generation";
    pub const BOT_NAME: &str = "bot-name@goteleport.com";
    pub const BOT_INSTANCE_ID: &str = "bot-instance-id@goteleport.com";
    pub const ALLOWED_RESOURCES: &str = "teleport-allowed-resources";
    pub const CONNECTION_DIAGNOSTIC_ID: &str = "teleport-connection-diagnostic-id";
    pub const PRIVATE_KEY_POLICY: &str = "private-key-policy";
    pub const DEVICE_ID: &str = "teleport-device-id";
    pub const DEVICE_ASSET_TAG: &str = "teleport-device-asset-tag";
    pub const DEVICE_CREDENTIAL_ID: &str = "teleport-device-credential-id";
    pub const SOURCE_ADDRESS: &str = "source-address";
    pub const HOST_ROLE: &str = "x-teleport-role";
    pub const HOST_AUTHORITY: &str = "x-teleport-authority";

    /// What only the system itself may say; extensions that roles define cannot have these names.
    pub const RESERVED: [&str; 24] = [
        PERMIT_PTY,
        PERMIT_PORT_FORWARDING,
        PERMIT_AGENT_FORWARDING,
        PERMIT_X11_FORWARDING,
        ROLES,
        TRAITS,
        ROUTE_TO_CLUSTER,
        ACTIVE_REQUESTS,
        MFA_VERIFIED,
        PREVIOUS_IDENTITY_EXPIRES,
        LOGIN_IP,
        IMPERSONATOR,
        DISALLOW_REISSUE,
        RENEWABLE,
        GENERATION,
        BOT_NAME,
        BOT_INSTANCE_ID,
        ALLOWED_RESOURCES,
        CONNECTION_DIAGNOSTIC_ID,
        PRIVATE_KEY_POLICY,
        DEVICE_ID,
        DEVICE_ASSET_TAG,
        DEVICE_CREDENTIAL_ID,
        SOURCE_ADDRESS,
    ];
}

/// What OpenSSH's own extensions allow a user to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permits {
    /// Forward ports.
    pub port_forwarding: bool,
    /// Forward the SSH agent.
    pub agent_forwarding: bool,
    /// Forward X11.
    pub x11_forwarding: bool,
}

/// How much a user's certificate says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateFormat {
    /// Everything.
    #[default]
    Standard,
    /// Without roles, traits, route and requests, for OpenSSH up to 7.1.
    OldSsh,
}

impl CertificateFormat {
    /// Reads `standard` or `oldssh`; empty text means standard.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text {
            "" | "standard" => Ok(Self::Standard),
            "oldssh" => Ok(Self::OldSsh),
            other => {
                Err(Error::malformed("certificate format", format!("expected standard or oldssh, found {other:?}")))
            }
        }
    }
}

/// A certificate as a line of OpenSSH's form, without comment, with a newline at the end.
///
/// # Errors
/// [`Error::Malformed`] only for certificates larger than 4 GiB.
pub fn to_line(certificate: &Certificate) -> Result<String, Error> {
    let line = certificate.to_openssh().map_err(|error| Error::malformed("SSH certificate", error))?;
    // The library keeps a comment that was read; none of our files has one.
    let mut words = line.split(' ');
    let (kind, blob) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(format!("{kind} {blob}\n"))
}

/// Reads a certificate from a line of OpenSSH's form.
///
/// # Errors
/// [`Error::Malformed`].
pub fn from_line(line: &str) -> Result<Certificate, Error> {
    Certificate::from_openssh(line.trim()).map_err(|error| Error::malformed("SSH certificate", error))
}

#[cfg(test)]
mod tests;
