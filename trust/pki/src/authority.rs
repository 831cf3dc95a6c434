//! The kinds of certificate authority of a cluster.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::suite::Purpose;

/// A certificate authority of the cluster, by what it vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CaType {
    /// Services and SSH hosts; the trust anchor of every client.
    Host,
    /// Users, over SSH and TLS.
    User,
    /// Database servers.
    Database,
    /// Database agents logging in to databases.
    DatabaseClient,
    /// Logins to plain OpenSSH servers.
    OpenSsh,
    /// Assertions for applications.
    Jwt,
    /// This cluster as a SAML identity provider.
    SamlIdp,
    /// This cluster as an OpenID Connect provider.
    OidcIdp,
    /// Workload identities.
    Spiffe,
}

/// The three forms in which an authority holds keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CaKeyKind {
    /// An SSH key pair.
    Ssh,
    /// An X.509 certificate with its key.
    Tls,
    /// A bare key pair that signs JSON Web Tokens.
    Jwt,
}

impl CaType {
    /// Every type; a cluster has one authority of each.
    pub const ALL: [Self; 9] = [
        Self::Host,
        Self::User,
        Self::Database,
        Self::DatabaseClient,
        Self::OpenSsh,
        Self::Jwt,
        Self::SamlIdp,
        Self::OidcIdp,
        Self::Spiffe,
    ];

    /// The `type` of the authority's resource, such as `db_client`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::User => "user",
            Self::Database => "db",
            Self::DatabaseClient => "db_client",
            Self::OpenSsh => "openssh",
            Self::Jwt => "jwt",
            Self::SamlIdp => "saml_idp",
            Self::OidcIdp => "oidc_idp",
            Self::Spiffe => "spiffe",
        }
    }

    /// The kinds of key such an authority has, each with the purpose that chooses its algorithm.
    #[must_use]
    pub fn keys(self) -> &'static [(CaKeyKind, Purpose)] {
        match self {
            Self::Host => &[(CaKeyKind::Ssh, Purpose::HostCaSsh), (CaKeyKind::Tls, Purpose::HostCaTls)],
            Self::User => &[(CaKeyKind::Ssh, Purpose::UserCaSsh), (CaKeyKind::Tls, Purpose::UserCaTls)],
            Self::Database => &[(CaKeyKind::Tls, Purpose::DatabaseCaTls)],
            Self::DatabaseClient => &[(CaKeyKind::Tls, Purpose::DatabaseClientCaTls)],
            Self::OpenSsh => &[(CaKeyKind::Ssh, Purpose::OpenSshCaSsh)],
            Self::Jwt => &[(CaKeyKind::Jwt, Purpose::JwtCaJwt)],
            Self::SamlIdp => &[(CaKeyKind::Tls, Purpose::SamlIdpCaTls)],
            Self::OidcIdp => &[(CaKeyKind::Jwt, Purpose::OidcIdpCaJwt)],
            Self::Spiffe => &[(CaKeyKind::Tls, Purpose::SpiffeCaTls), (CaKeyKind::Jwt, Purpose::SpiffeCaJwt)],
        }
    }

    /// Whether such an authority has keys of this kind.
    #[must_use]
    pub fn has(self, kind: CaKeyKind) -> bool {
        self.keys().iter().any(|(held, _)| *held == kind)
    }
}

impl fmt::Display for CaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CaType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == text)
            .ok_or_else(|| Error::UnknownAuthorityType(text.to_owned()))
    }
}

impl TryFrom<String> for CaType {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<CaType> for String {
    fn from(ca: CaType) -> Self {
        ca.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_type_round_trips_as_text() {
        for ca in CaType::ALL {
            assert_eq!(ca.as_str().parse::<CaType>().unwrap(), ca);
        }
    }

    #[test]
    fn an_unknown_type_is_refused_in_the_words_clients_recognise() {
        let error = "awsra".parse::<CaType>().unwrap_err();
        assert_eq!(error.to_string(), "\"awsra\" authority type is not supported");
    }
}
