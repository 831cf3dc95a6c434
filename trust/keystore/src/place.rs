//! Where a stored key is, as the bytes say that stand for it in an authority's resource.

use std::fmt;

use serde::{Deserialize, Serialize};

const PKCS11: &[u8] = b"pkcs11:";
const GCP_KMS: &[u8] = b"gcpkms:";
const AWS_KMS: &[u8] = b"awskms:";

/// Which key of which host's module is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyReference {
    /// The UUID of the host whose Auth Service made the key; it alone can use it.
    pub host_id: String,
    /// The key's id in the module.
    pub key_id: String,
}

impl KeyReference {
    /// What is stored in the place of a private key.
    #[must_use]
    pub fn to_stored(&self) -> Vec<u8> {
        // Two texts always have a JSON form.
        let json = serde_json::to_vec(self).unwrap_or_default();
        [PKCS11, &json].concat()
    }
}

/// Where a stored key is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Nowhere: it was left out.
    Hidden,
    /// In the stored bytes themselves.
    Software,
    /// In a PKCS#11 module.
    Pkcs11(KeyReference),
    /// In Google's key service, which is not used here.
    GcpKms(String),
    /// In Amazon's key service, which is not used here.
    AwsKms(String),
    /// In a PKCS#11 module, but the reference cannot be read.
    Unreadable,
}

impl Place {
    /// Reads what is stored for a key.
    #[must_use]
    pub fn of(stored: &[u8]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if stored.is_empty() {
            Self::Hidden
        } else if let Some(json) = stored.strip_prefix(PKCS11) {
            serde_json::from_slice(json).map_or(Self::Unreadable, Self::Pkcs11)
        } else if let Some(name) = stored.strip_prefix(GCP_KMS) {
            Self::GcpKms(text(name))
        } else if let Some(name) = stored.strip_prefix(AWS_KMS) {
            Self::AwsKms(text(name))
        } else {
            Self::Software
        }
    }

    /// The number of the place in `private_key_type` and `key_type` of an authority's resource.
    #[must_use]
    pub fn number(&self) -> i32 {
        match self {
            Self::Hidden | Self::Software => 0,
            Self::Pkcs11(_) | Self::Unreadable => 1,
            Self::GcpKms(_) => 2,
            Self::AwsKms(_) => 3,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hidden => f.write_str("no keys"),
            Self::Software => f.write_str("raw software keys"),
            Self::Pkcs11(reference) => write!(f, "PKCS#11 HSM keys created by {}", reference.host_id),
            Self::Unreadable => f.write_str("PKCS#11 HSM keys with an unreadable reference"),
            Self::GcpKms(name) => {
                write!(f, "GCP KMS keys in keyring {}", name.split("/cryptoKeys/").next().unwrap_or_default())
            }
            Self::AwsKms(arn) => {
                // arn:partition:kms:region:account:key/id
                let mut parts = arn.split(':').skip(3);
                let (region, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                write!(f, "AWS KMS keys in account {account} and region {region}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn references_have_the_form_that_other_programs_read() {
        let reference = KeyReference { host_id: "h".to_owned(), key_id: "k".to_owned() };
        assert_eq!(reference.to_stored(), br#"pkcs11:{"host_id":"h","key_id":"k"}"#);
        assert_eq!(Place::of(&reference.to_stored()), Place::Pkcs11(reference));
        assert_eq!(Place::of(b"pkcs11:{"), Place::Unreadable);
        assert_eq!(Place::of(b"pkcs11:\xff"), Place::Unreadable);
    }

    #[test]
    fn places_are_told_apart_and_described() {
        let cases: [(&[u8], i32, &str); 6] = [
            (b"", 0, "no keys"),
            (b"-----BEGIN RSA PRIVATE KEY-----", 0, "raw software keys"),
            (br#"pkcs11:{"host_id":"ab","key_id":"1"}"#, 1, "PKCS#11 HSM keys created by ab"),
            (b"pkcs11:", 1, "PKCS#11 HSM keys with an unreadable reference"),
            (
                b"gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/u/cryptoKeyVersions/1",
                2,
                "GCP KMS keys in keyring projects/p/locations/l/keyRings/r",
            ),
            (b"awskms:arn:aws:kms:us-west-2:1234:key/u", 3, "AWS KMS keys in account 1234 and region us-west-2"),
        ];
        for (stored, number, words) in cases {
            let place = Place::of(stored);
            assert_eq!((place.number(), place.to_string().as_str()), (number, words));
        }
    }
}
