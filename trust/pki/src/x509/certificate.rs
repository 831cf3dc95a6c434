//! Reading certificates.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use der::asn1::ObjectIdentifier;
use der::oid::AssociatedOid;
use der::{Decode, Encode as _};
use rustls_pki_types::CertificateDer;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, SubjectAltName, SubjectKeyIdentifier};

use super::asn1::{SignedCertificate, TbsCertificate, from_time, scheme_of};
use super::leaf::ExtendedUsage;
use super::name::{DistinguishedName, oid};
use crate::keys::{PublicKey, SignatureScheme};
use crate::{Error, pem};

/// A parsed certificate; clones are cheap.
///
/// Parsing says nothing about trust: see [`verify_issued_by`](Self::verify_issued_by) and [`tls`](crate::tls).
#[derive(Clone)]
pub struct Certificate {
    inner: Arc<Parsed>,
}

struct Parsed {
    der: Vec<u8>,
    tbs: Vec<u8>,
    scheme: Option<SignatureScheme>,
    signature: Vec<u8>,
    serial: Vec<u8>,
    issuer: DistinguishedName,
    issuer_der: Vec<u8>,
    subject: DistinguishedName,
    subject_der: Vec<u8>,
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
    spki: Vec<u8>,
    is_ca: bool,
    subject_key_id: Option<Vec<u8>>,
    extended_usages: Option<Vec<ExtendedUsage>>,
    alternative_names: Vec<GeneralName>,
    extensions: Vec<Extension>,
}

const WHAT: &str = "certificate";

fn malformed(error: der::Error) -> Error {
    Error::malformed(WHAT, error)
}

/// PEM text of a certificate in DER form.
#[must_use]
pub fn to_pem(der: &[u8]) -> String {
    pem::encode("CERTIFICATE", der)
}

impl Certificate {
    /// Reads one certificate.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the structure or one of the known extensions is broken.
    pub fn from_der(bytes: &[u8]) -> Result<Self, Error> {
        let signed = SignedCertificate::from_der(bytes).map_err(malformed)?;
        let tbs_der = signed.tbs.to_der().map_err(malformed)?;
        let tbs = TbsCertificate::from_der(&tbs_der).map_err(malformed)?;
        let issuer_der = tbs.issuer.to_der().map_err(malformed)?;
        let subject_der = tbs.subject.to_der().map_err(malformed)?;
        let spki = tbs.public_key.to_der().map_err(malformed)?;
        let (not_before, not_after) = (from_time(tbs.validity.not_before)?, from_time(tbs.validity.not_after)?);
        let serial = tbs.serial_number.as_bytes().to_vec();
        let extensions = tbs.extensions.unwrap_or_default();
        let alternative_names = find::<SubjectAltName>(&extensions)?.map(|names| names.0).unwrap_or_default();
        let usages = find::<ExtendedKeyUsage>(&extensions)?;
        let parsed = Parsed {
            der: bytes.to_vec(),
            scheme: scheme_of(&signed.signature_algorithm),
            signature: signed.signature.raw_bytes().to_vec(),
            serial,
            issuer: DistinguishedName::from_der(&issuer_der)?,
            issuer_der,
            subject: DistinguishedName::from_der(&subject_der)?,
            subject_der,
            not_before,
            not_after,
            spki,
            is_ca: find::<BasicConstraints>(&extensions)?.is_some_and(|constraints| constraints.ca),
            subject_key_id: find::<SubjectKeyIdentifier>(&extensions)?.map(|id| id.0.as_bytes().to_vec()),
            extended_usages: usages.map(|usages| usages.0.into_iter().map(ExtendedUsage::from_oid).collect()),
            alternative_names,
            extensions,
            tbs: tbs_der,
        };
        Ok(Self { inner: Arc::new(parsed) })
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// [`Error::Malformed`], also when there is none.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        Self::bundle_from_pem(text)?
            .into_iter()
            .next()
            .ok_or_else(|| Error::malformed(WHAT, "no PEM block with a certificate found"))
    }

    /// Reads every certificate of a PEM text; other blocks are skipped and an empty list is fine.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn bundle_from_pem(text: &str) -> Result<Vec<Self>, Error> {
        pem::blocks(text)?
            .iter()
            .filter(|block| block.label == "CERTIFICATE")
            .map(|block| Self::from_der(&block.der))
            .collect()
    }

    /// The DER form.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.inner.der
    }

    /// The form that rustls takes.
    #[must_use]
    pub fn to_rustls(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.inner.der.clone())
    }

    /// PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        to_pem(&self.inner.der)
    }

    /// Who the certificate is about.
    #[must_use]
    pub fn subject(&self) -> &DistinguishedName {
        &self.inner.subject
    }

    /// The subject as encoded.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.inner.subject_der
    }

    /// Who signed the certificate.
    #[must_use]
    pub fn issuer(&self) -> &DistinguishedName {
        &self.inner.issuer
    }

    /// The subject's common name.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.inner.subject.first(oid::COMMON_NAME)
    }

    /// The issuer's common name, which is the cluster's name.
    #[must_use]
    pub fn issuer_common_name(&self) -> Option<&str> {
        self.inner.issuer.first(oid::COMMON_NAME)
    }

    /// The issuer's organization, which is the cluster's name too.
    #[must_use]
    pub fn issuer_organization(&self) -> Option<&str> {
        self.inner.issuer.first(oid::ORGANIZATION)
    }

    /// The serial number, big-endian without leading zeros.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.inner.serial
    }

    /// Start of validity, inclusive.
    #[must_use]
    pub fn not_before(&self) -> DateTime<Utc> {
        self.inner.not_before
    }

    /// End of validity, inclusive.
    #[must_use]
    pub fn not_after(&self) -> DateTime<Utc> {
        self.inner.not_after
    }

    /// Whether the validity covers a point in time.
    #[must_use]
    pub fn is_valid_at(&self, now: DateTime<Utc>) -> bool {
        self.inner.not_before <= now && now <= self.inner.not_after
    }

    /// The SubjectPublicKeyInfo in DER form.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.inner.spki
    }

    /// The public key.
    ///
    /// # Errors
    /// [`Error::UnsupportedKey`] for kinds of key that are not in use here.
    pub fn public_key(&self) -> Result<PublicKey, Error> {
        PublicKey::from_spki_der(&self.inner.spki)
    }

    /// Whether the certificate may sign others.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.inner.is_ca
    }

    pub(super) fn subject_key_id(&self) -> Option<&[u8]> {
        self.inner.subject_key_id.as_deref()
    }

    /// What the certificate may be used for; `None` when it does not say.
    #[must_use]
    pub fn extended_usages(&self) -> Option<&[ExtendedUsage]> {
        self.inner.extended_usages.as_deref()
    }

    /// The DNS names it is good for.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.inner.alternative_names.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The IP addresses it is good for.
    pub fn ip_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.inner.alternative_names.iter().filter_map(|name| match name {
            GeneralName::IpAddress(bytes) => ip_from_octets(bytes.as_bytes()),
            _ => None,
        })
    }

    /// The URIs it is good for, such as a SPIFFE ID.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.inner.alternative_names.iter().filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
            _ => None,
        })
    }

    /// The contents of an extension.
    #[must_use]
    pub fn extension(&self, id: ObjectIdentifier) -> Option<&[u8]> {
        self.inner
            .extensions
            .iter()
            .find(|extension| extension.extn_id == id)
            .map(|extension| extension.extn_value.as_bytes())
    }

    /// Whether one of the authorities signed this certificate and both are valid now; which one.
    ///
    /// This is the check for certificates that arrive outside of TLS; it knows no intermediates and no purposes.
    #[must_use]
    pub fn verify_issued_by<'a>(&self, authorities: &'a [Self], now: DateTime<Utc>) -> Option<&'a Self> {
        let scheme = self.inner.scheme?;
        let issued = |authority: &&Self| {
            authority.is_ca()
                && authority.inner.subject_der == self.inner.issuer_der
                && authority.is_valid_at(now)
                && authority.public_key().is_ok_and(|key| key.verifies(scheme, &self.inner.tbs, &self.inner.signature))
        };
        self.is_valid_at(now).then(|| authorities.iter().find(issued)).flatten()
    }
}

/// Decodes the one extension of a type; a repeated one is refused.
fn find<'a, T: Decode<'a, Error = der::Error> + AssociatedOid>(
    extensions: &'a [Extension],
) -> Result<Option<T>, Error> {
    let mut found = extensions.iter().filter(|extension| extension.extn_id == T::OID);
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(extension), None) => T::from_der(extension.extn_value.as_bytes()).map(Some).map_err(malformed),
        (Some(_), Some(_)) => Err(Error::malformed(WHAT, format!("extension {} appears twice", T::OID))),
    }
}

fn ip_from_octets(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.inner.der == other.inner.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.common_name())
            .field("issuer", &self.issuer_common_name())
            .field("not_after", &self.inner.not_after)
            .finish_non_exhaustive()
    }
}
