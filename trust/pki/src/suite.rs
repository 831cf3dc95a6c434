//! Which kind of key is generated for which purpose.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::keys::KeyAlgorithm;

/// A cluster-wide choice of key algorithms; changing it affects only keys made afterwards.
///
/// The text forms are those of `cluster_auth_preference.spec.signature_algorithm_suite`; an unspecified
/// suite behaves as [`Legacy`](Self::Legacy).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureSuite {
    /// RSA with 2048 bits for everything; one key of a user serves SSH and TLS.
    #[default]
    Legacy,
    /// Ed25519 for SSH and P-256 for TLS: the best balance of speed, size and compatibility.
    BalancedV1,
    /// Only algorithms of FIPS 186-5 that FIPS modules offer.
    FipsV1,
    /// Only algorithms that hardware modules and cloud key services offer for authorities.
    HsmV1,
}

/// What a new key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Signs users' X.509 certificates.
    UserCaTls,
    /// Signs users' SSH certificates.
    UserCaSsh,
    /// Signs services' X.509 certificates.
    HostCaTls,
    /// Signs SSH host certificates.
    HostCaSsh,
    /// Signs certificates of self-hosted databases.
    DatabaseCaTls,
    /// Signs the certificates with which database agents log in to databases.
    DatabaseClientCaTls,
    /// Signs the SSH certificates with which the proxy logs in to plain OpenSSH servers.
    OpenSshCaSsh,
    /// Signs assertions for applications.
    JwtCaJwt,
    /// Signs tokens as an OpenID Connect provider.
    OidcIdpCaJwt,
    /// Signs assertions as a SAML identity provider.
    SamlIdpCaTls,
    /// Signs X.509 SVIDs.
    SpiffeCaTls,
    /// Signs JWT SVIDs.
    SpiffeCaJwt,
    /// A user's SSH key.
    UserSsh,
    /// A user's TLS key, also of application sessions.
    UserTls,
    /// The one key of a host, proxy, agent or bot, used for both SSH and TLS.
    HostIdentity,
    /// The proxy's short-lived key towards a database agent.
    ProxyToDatabaseAgent,
    /// A key handed to a database server.
    DatabaseServer,
    /// The smart-card key of a desktop session; Windows wants RSA.
    WindowsSmartCard,
}

/// The algorithm of new keys for a purpose.
#[must_use]
pub fn algorithm_for(suite: SignatureSuite, purpose: Purpose) -> KeyAlgorithm {
    use KeyAlgorithm::{EcdsaP256, Ed25519, Rsa2048};
    use SignatureSuite::{BalancedV1, FipsV1, HsmV1, Legacy};
    match (purpose, suite) {
        (_, Legacy) => Rsa2048,
        // Databases, Windows and SAML parties in the field are only sure to know RSA.
        (
            Purpose::DatabaseCaTls
            | Purpose::DatabaseClientCaTls
            | Purpose::DatabaseServer
            | Purpose::SamlIdpCaTls
            | Purpose::WindowsSmartCard,
            _,
        ) => Rsa2048,
        (Purpose::UserCaSsh | Purpose::HostCaSsh | Purpose::OpenSshCaSsh, BalancedV1) => Ed25519,
        // The hardware limits of hsm-v1 concern authorities, not users' own keys.
        (Purpose::UserSsh, BalancedV1 | HsmV1) => Ed25519,
        (_, BalancedV1 | FipsV1 | HsmV1) => EcdsaP256,
    }
}

impl SignatureSuite {
    /// The text form, such as `balanced-v1`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::BalancedV1 => "balanced-v1",
            Self::FipsV1 => "fips-v1",
            Self::HsmV1 => "hsm-v1",
        }
    }

    /// The number in protobuf messages; 0 is "unspecified" there.
    #[must_use]
    pub fn to_number(self) -> i32 {
        match self {
            Self::Legacy => 1,
            Self::BalancedV1 => 2,
            Self::FipsV1 => 3,
            Self::HsmV1 => 4,
        }
    }

    /// Reads the number of protobuf messages; 0 (unspecified) behaves as legacy.
    ///
    /// # Errors
    /// [`Error::UnknownSuite`] for other numbers.
    pub fn from_number(number: i32) -> Result<Self, Error> {
        match number {
            0 | 1 => Ok(Self::Legacy),
            2 => Ok(Self::BalancedV1),
            3 => Ok(Self::FipsV1),
            4 => Ok(Self::HsmV1),
            other => Err(Error::UnknownSuite(other.to_string())),
        }
    }
}

impl fmt::Display for SignatureSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SignatureSuite {
    type Err = Error;

    /// Accepts the short text, the full name of the protobuf enum, and the empty string for "unspecified".
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "" | "legacy" | "SIGNATURE_ALGORITHM_SUITE_LEGACY" | "SIGNATURE_ALGORITHM_SUITE_UNSPECIFIED" => {
                Ok(Self::Legacy)
            }
            "balanced-v1" | "SIGNATURE_ALGORITHM_SUITE_BALANCED_V1" => Ok(Self::BalancedV1),
            "fips-v1" | "SIGNATURE_ALGORITHM_SUITE_FIPS_V1" => Ok(Self::FipsV1),
            "hsm-v1" | "SIGNATURE_ALGORITHM_SUITE_HSM_V1" => Ok(Self::HsmV1),
            other => Err(Error::UnknownSuite(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn suites_round_trip_as_text_number_and_json() {
        for suite in [SignatureSuite::Legacy, SignatureSuite::BalancedV1, SignatureSuite::FipsV1, SignatureSuite::HsmV1]
        {
            assert_eq!(suite.as_str().parse::<SignatureSuite>().unwrap(), suite);
            assert_eq!(SignatureSuite::from_number(suite.to_number()).unwrap(), suite);
            assert_eq!(serde_json::to_string(&suite).unwrap(), format!("\"{suite}\""));
        }
        assert!("rsa".parse::<SignatureSuite>().is_err());
        assert!(SignatureSuite::from_number(5).is_err());
    }

    #[test]
    fn purposes_get_the_documented_algorithms() {
        use KeyAlgorithm::{EcdsaP256, Ed25519, Rsa2048};
        let table = [
            (Purpose::UserCaTls, [Rsa2048, EcdsaP256, EcdsaP256, EcdsaP256]),
            (Purpose::HostCaSsh, [Rsa2048, Ed25519, EcdsaP256, EcdsaP256]),
            (Purpose::DatabaseCaTls, [Rsa2048; 4]),
            (Purpose::OpenSshCaSsh, [Rsa2048, Ed25519, EcdsaP256, EcdsaP256]),
            (Purpose::JwtCaJwt, [Rsa2048, EcdsaP256, EcdsaP256, EcdsaP256]),
            (Purpose::UserSsh, [Rsa2048, Ed25519, EcdsaP256, Ed25519]),
            (Purpose::UserTls, [Rsa2048, EcdsaP256, EcdsaP256, EcdsaP256]),
        ];
        for (purpose, expected) in table {
            for (number, algorithm) in (1..).zip(expected) {
                let suite = SignatureSuite::from_number(number).unwrap();
                assert_eq!(algorithm_for(suite, purpose), algorithm, "{purpose:?} {suite}");
            }
        }
    }
}
