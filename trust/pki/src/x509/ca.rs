//! Authorities: their certificates, and signing with them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use chrono::{DateTime, TimeDelta, Utc};
use der::asn1::{AnyRef, BitStringRef, OctetString, Uint, UintRef};
use der::{Decode as _, Encode as _};
use rustls_pki_types::CertificateDer;
use x509_cert::Version;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlNumber, SubjectKeyIdentifier};
use x509_cert::time::Validity;

use super::asn1::{SignedCertificate, TbsCertificate, TbsEmptyCrl, algorithm_identifier, to_time};
use super::certificate::Certificate;
use super::leaf::{KeyUsages, LeafTemplate, basic_constraints, extension, key_usage};
use super::name::{DistinguishedName, oid};
use crate::Error;
use crate::keys::Signer;

/// How long an authority's certificate is valid, and the certificates of hosts.
pub const CA_LIFETIME: Duration = Duration::from_secs(87_600 * 3600);

/// How long an empty revocation list is valid.
const CRL_LIFETIME: TimeDelta = TimeDelta::days(365);

/// The certificate of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificate {
    certificate: Certificate,
}

impl CaCertificate {
    /// Makes the certificate of a new authority of a cluster, valid from now for [`CA_LIFETIME`].
    ///
    /// Its name holds the cluster's name and the serial number, which keeps generations of one authority apart
    /// during rotation.
    ///
    /// # Errors
    /// [`Error::Crypto`] when signing fails.
    pub fn self_signed(cluster: &str, key: &dyn Signer, now: DateTime<Utc>) -> Result<Self, Error> {
        let serial = random_serial()?;
        let mut name = DistinguishedName::new();
        name.push(oid::ORGANIZATION, cluster);
        name.push(oid::COMMON_NAME, cluster);
        name.push(oid::SERIAL_NUMBER, decimal(&serial));
        let lifetime = TimeDelta::from_std(CA_LIFETIME).map_err(|error| Error::malformed("lifetime", error))?;
        let mut template = LeafTemplate::new(name, key.public_key().clone(), now, now + lifetime);
        template.not_before = now;
        let issuer = template.subject.to_der()?;
        let extensions = ca_extensions(key).map_err(|error| Error::malformed("certificate extensions", error))?;
        let der = sign(&template, &serial, &issuer, extensions, key)?;
        Self::from_certificate(Certificate::from_der(&der)?)
    }

    /// Takes a certificate that says it is an authority's.
    ///
    /// # Errors
    /// [`Error::Malformed`] when it says it is not.
    pub fn from_certificate(certificate: Certificate) -> Result<Self, Error> {
        if certificate.is_ca() {
            Ok(Self { certificate })
        } else {
            Err(Error::malformed("authority's certificate", "it may not sign other certificates"))
        }
    }

    /// Reads PEM text.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        Self::from_certificate(Certificate::from_pem(text)?)
    }

    /// The certificate itself.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The cluster it stands for: its common name.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.certificate.common_name()
    }

    /// PEM text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.certificate.to_pem()
    }
}

/// An authority that signs X.509 certificates; clones share everything.
#[derive(Clone)]
pub struct Issuer {
    inner: Arc<Authority>,
}

struct Authority {
    ca: CaCertificate,
    key: Arc<dyn Signer>,
    name: Vec<u8>,
    key_id: Extension,
}

impl Issuer {
    /// Joins an authority's certificate with its key.
    ///
    /// # Errors
    /// [`Error::KeyMismatch`] when the key is not the certificate's.
    pub fn new(ca: CaCertificate, key: impl Into<Arc<dyn Signer>>) -> Result<Self, Error> {
        let key = key.into();
        if key.public_key().to_spki_der() != ca.certificate.spki_der() {
            return Err(Error::KeyMismatch);
        }
        let encode = || {
            let id = match ca.certificate.subject_key_id() {
                Some(id) => OctetString::new(id)?,
                None => OctetString::new(key_id(&*key))?,
            };
            let id = AuthorityKeyIdentifier { key_identifier: Some(id), ..Default::default() };
            extension(false, &id)
        };
        let key_id = encode().map_err(|error: der::Error| Error::malformed("certificate extensions", error))?;
        let authority = Authority { name: ca.certificate.subject_der().to_vec(), ca, key, key_id };
        Ok(Self { inner: Arc::new(authority) })
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca(&self) -> &CaCertificate {
        &self.inner.ca
    }

    /// Signs a certificate with a random serial number of 128 bits.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a template that cannot be encoded (such as DNS names that are not ASCII),
    /// [`Error::Crypto`] when signing fails.
    pub fn issue(&self, template: &LeafTemplate) -> Result<CertificateDer<'static>, Error> {
        let mut extensions = template.extensions()?;
        extensions.push(self.inner.key_id.clone());
        sign(template, &random_serial()?, &self.inner.name, extensions, &*self.inner.key)
    }

    /// Signs a revocation list without entries, valid for a year, in DER form.
    ///
    /// # Errors
    /// [`Error::Crypto`] when signing fails.
    pub fn empty_crl(&self, now: DateTime<Utc>) -> Result<Vec<u8>, Error> {
        let malformed = |error: der::Error| Error::malformed("revocation list", error);
        let number = Uint::new(&[1]).map_err(malformed)?;
        let number = extension(false, &CrlNumber(number)).map_err(malformed)?;
        let scheme = self.inner.key.public_key().algorithm().x509_scheme();
        let tbs = TbsEmptyCrl {
            version: Version::V2,
            signature: algorithm_identifier(scheme)?,
            issuer: AnyRef::from_der(&self.inner.name).map_err(malformed)?,
            this_update: to_time(now - TimeDelta::minutes(1))?,
            next_update: to_time(now + CRL_LIFETIME)?,
            extensions: Some(vec![self.inner.key_id.clone(), number]),
        };
        seal(&tbs.to_der().map_err(malformed)?, &*self.inner.key)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("ca", &self.inner.ca).finish_non_exhaustive()
    }
}

/// Encodes a certificate and signs it.
pub(super) fn sign(
    template: &LeafTemplate,
    serial: &[u8],
    issuer: &[u8],
    extensions: Vec<Extension>,
    key: &dyn Signer,
) -> Result<CertificateDer<'static>, Error> {
    let malformed = |error: der::Error| Error::malformed("certificate", error);
    let subject = template.subject.to_der()?;
    let scheme = key.public_key().algorithm().x509_scheme();
    let tbs = TbsCertificate {
        version: Version::V3,
        serial_number: UintRef::new(serial).map_err(malformed)?,
        signature: algorithm_identifier(scheme)?,
        issuer: AnyRef::from_der(issuer).map_err(malformed)?,
        validity: Validity::new(to_time(template.not_before)?, to_time(template.not_after)?),
        subject: AnyRef::from_der(&subject).map_err(malformed)?,
        public_key: AnyRef::from_der(template.public_key.to_spki_der()).map_err(malformed)?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    };
    seal(&tbs.to_der().map_err(malformed)?, key).map(CertificateDer::from)
}

/// Signs an encoded body and wraps both, as certificates, requests and revocation lists do alike.
pub(super) fn seal(tbs: &[u8], key: &dyn Signer) -> Result<Vec<u8>, Error> {
    let malformed = |error: der::Error| Error::malformed("certificate", error);
    let scheme = key.public_key().algorithm().x509_scheme();
    let signature = key.sign(scheme, tbs)?;
    SignedCertificate {
        tbs: AnyRef::from_der(tbs).map_err(malformed)?,
        signature_algorithm: algorithm_identifier(scheme)?,
        signature: BitStringRef::from_bytes(&signature).map_err(malformed)?,
    }
    .to_der()
    .map_err(malformed)
}

fn ca_extensions(key: &dyn Signer) -> der::Result<Vec<Extension>> {
    let usages = [KeyUsages::DigitalSignature, KeyUsages::KeyEncipherment, KeyUsages::KeyCertSign, KeyUsages::CRLSign];
    Ok(vec![
        key_usage(&usages)?,
        basic_constraints(true)?,
        extension(false, &SubjectKeyIdentifier(OctetString::new(key_id(key))?))?,
    ])
}

/// Method 1 of RFC 7093 §2: the first 160 bits of SHA-256 over the key.
fn key_id(key: &dyn Signer) -> Vec<u8> {
    let hash = digest(&SHA256, key.public_key().raw());
    hash.as_ref().iter().copied().take(20).collect()
}

/// 128 random bits, without leading zero bytes.
pub(super) fn random_serial() -> Result<Vec<u8>, Error> {
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| Error::Crypto("random number generation"))?;
    let start = serial.iter().position(|byte| *byte != 0).unwrap_or(15);
    Ok(serial[start..].to_vec())
}

/// Decimal text of a serial number of at most 128 bits.
fn decimal(serial: &[u8]) -> String {
    let number = serial.iter().fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
    number.to_string()
}
