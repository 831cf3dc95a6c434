//! Names that become names of files, and therefore are nothing but UUIDs.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::Error;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A new random id.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id as a UUID.
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Reads the 36 characters of a UUID with hyphens; no other form is taken.
            fn from_str(text: &str) -> Result<Self, Error> {
                let invalid = || Error::InvalidId(text.chars().take(64).collect(), $what);
                if text.len() != 36 {
                    return Err(invalid());
                }
                Uuid::try_parse(text).map(Self).map_err(|_| invalid())
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

id!(
    /// The id of a session.
    SessionId,
    "session id"
);
id!(
    /// The id of an upload: known to whoever started it, and to nobody else.
    UploadId,
    "upload id"
);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_plain_uuids_are_ids() {
        let text = "7e1a0c1e-3d0a-4a1b-9c3e-5a2f6d7b8c90";
        assert_eq!(text.parse::<SessionId>().unwrap().to_string(), text);
        for bad in [
            "",
            "..",
            "../../../../../../../../../etc/passwd",
            "7e1a0c1e3d0a4a1b9c3e5a2f6d7b8c90",
            "{7e1a0c1e-3d0a-4a1b-9c3e-5a2f6d7b8c9}",
            "7e1a0c1e-3d0a-4a1b-9c3e-5a2f6d7b8c9/",
            "urn:uuid:7e1a0c1e-3d0a-4a1b-9c3e-5a2f6d7b8c90",
        ] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }
}
