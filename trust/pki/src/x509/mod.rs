//! X.509 certificates: distinguished names, reading, and issuing with the profiles of this system.
//!
//! Encoding and decoding are done by the `der` and `x509-cert` crates; signatures by aws-lc.

mod asn1;
mod ca;
mod certificate;
mod leaf;
mod name;
mod request;
mod smart_card;

pub use ca::{CA_LIFETIME, CaCertificate, Issuer};
pub use certificate::{Certificate, to_pem};
pub use leaf::{AlternativeNames, ExtendedUsage, ExtraExtension, KeyUsages, LeafTemplate, self_signed_web};
pub use name::{DistinguishedName, oid};
pub use request::CertificateRequest;
pub use smart_card::{CREATE_USER, LICENSE, LIMIT_EXCEEDED, SMART_CARD_USAGES, SmartCardAccount};

#[cfg(test)]
mod tests;
