//! What goes into a certificate that is not an authority's.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use der::asn1::{Ia5String, ObjectIdentifier, OctetString};
use der::oid::AssociatedOid;
use rustls_pki_types::CertificateDer;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::crl::CrlDistributionPoints;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use super::ca;
use super::name::{DistinguishedName, oid};
use crate::Error;
use crate::keys::{PrivateKey, PublicKey};

pub use x509_cert::ext::pkix::KeyUsages;

/// How far in the past certificates start, against clocks that are behind.
const BACKDATE: TimeDelta = TimeDelta::minutes(1);

/// What a certificate's key may be used for (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendedUsage {
    /// TLS server.
    ServerAuth,
    /// TLS client.
    ClientAuth,
    /// Another purpose, such as smart-card logon.
    Other(ObjectIdentifier),
}

impl ExtendedUsage {
    const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
    const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

    pub(super) fn from_oid(id: ObjectIdentifier) -> Self {
        match id {
            Self::SERVER_AUTH => Self::ServerAuth,
            Self::CLIENT_AUTH => Self::ClientAuth,
            other => Self::Other(other),
        }
    }

    pub(super) fn to_oid(self) -> ObjectIdentifier {
        match self {
            Self::ServerAuth => Self::SERVER_AUTH,
            Self::ClientAuth => Self::CLIENT_AUTH,
            Self::Other(id) => id,
        }
    }
}

/// The names a certificate is good for besides its subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternativeNames {
    /// DNS names, which may be wildcards.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ip: Vec<IpAddr>,
    /// URIs.
    pub uris: Vec<String>,
}

impl AlternativeNames {
    /// Sorts a mixed list into addresses and DNS names, leaving out repeated and empty entries.
    pub fn from_hosts<I>(hosts: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut names = Self::default();
        for host in hosts {
            let host = host.as_ref();
            match host.parse::<IpAddr>() {
                Ok(ip) if !names.ip.contains(&ip) => names.ip.push(ip),
                Err(_) if !host.is_empty() && !names.dns.iter().any(|known| known == host) => {
                    names.dns.push(host.to_owned());
                }
                _ => {}
            }
        }
        names
    }

    fn is_empty(&self) -> bool {
        self.dns.is_empty() && self.ip.is_empty() && self.uris.is_empty()
    }

    fn to_general_names(&self) -> der::Result<Vec<GeneralName>> {
        let dns = self.dns.iter().map(|name| Ia5String::new(name).map(GeneralName::DnsName));
        let ip = self.ip.iter().map(|ip| Ok(GeneralName::from(*ip)));
        let uris = self.uris.iter().map(|uri| Ia5String::new(uri).map(GeneralName::UniformResourceIdentifier));
        dns.chain(ip).chain(uris).collect()
    }
}

/// An extension with contents made elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraExtension {
    /// Its type.
    pub id: ObjectIdentifier,
    /// Whether a reader that does not know it must refuse the certificate.
    pub critical: bool,
    /// Its contents.
    pub value: Vec<u8>,
}

impl ExtraExtension {
    pub(super) fn to_extension(&self) -> der::Result<Extension> {
        let value = OctetString::new(self.value.as_slice())?;
        Ok(Extension { extn_id: self.id, critical: self.critical, extn_value: value })
    }

    pub(super) fn from_extension(extension: Extension) -> Self {
        let value = extension.extn_value.into_bytes().into();
        Self { id: extension.extn_id, critical: extension.critical, value }
    }
}

/// Everything about a certificate to be issued except the issuer and the serial number.
#[derive(Clone, Debug)]
pub struct LeafTemplate {
    /// Who it is about.
    pub subject: DistinguishedName,
    /// Whose key it vouches for.
    pub public_key: PublicKey,
    /// Start of validity; seconds precision.
    pub not_before: DateTime<Utc>,
    /// End of validity; seconds precision.
    pub not_after: DateTime<Utc>,
    /// Basic uses of the key.
    pub key_usages: Vec<KeyUsages>,
    /// Purposes.
    pub extended_usages: Vec<ExtendedUsage>,
    /// Names besides the subject; without any there is no such extension.
    pub alternative_names: AlternativeNames,
    /// Where revocation lists are.
    pub crl_distribution_points: Vec<String>,
    /// Further extensions.
    pub extra_extensions: Vec<ExtraExtension>,
}

impl LeafTemplate {
    /// The profile of users' and services' certificates: server and client authentication alike, valid from one
    /// minute ago, no alternative names.
    #[must_use]
    pub fn new(
        subject: DistinguishedName,
        public_key: PublicKey,
        now: DateTime<Utc>,
        not_after: DateTime<Utc>,
    ) -> Self {
        Self {
            subject,
            public_key,
            not_before: now - BACKDATE,
            not_after,
            key_usages: vec![KeyUsages::DigitalSignature, KeyUsages::KeyEncipherment],
            extended_usages: vec![ExtendedUsage::ServerAuth, ExtendedUsage::ClientAuth],
            alternative_names: AlternativeNames::default(),
            crl_distribution_points: Vec::new(),
            extra_extensions: Vec::new(),
        }
    }

    pub(super) fn extensions(&self) -> Result<Vec<Extension>, Error> {
        self.encode_extensions().map_err(|error| Error::malformed("certificate extensions", error))
    }

    fn encode_extensions(&self) -> der::Result<Vec<Extension>> {
        let mut extensions = vec![key_usage(&self.key_usages)?];
        if !self.extended_usages.is_empty() {
            let usages = self.extended_usages.iter().map(|usage| usage.to_oid()).collect();
            extensions.push(extension(false, &ExtendedKeyUsage(usages))?);
        }
        extensions.push(basic_constraints(false)?);
        if !self.alternative_names.is_empty() {
            // A certificate without any subject must rely on its alternative names (RFC 5280 §4.2.1.6).
            let critical = self.subject.iter().next().is_none();
            extensions.push(extension(critical, &SubjectAltName(self.alternative_names.to_general_names()?))?);
        }
        if !self.crl_distribution_points.is_empty() {
            extensions.push(extension(false, &distribution_points(&self.crl_distribution_points)?)?);
        }
        for extra in &self.extra_extensions {
            extensions.push(extra.to_extension()?);
        }
        Ok(extensions)
    }
}

/// A certificate for a web server that signs itself, for proxies to which nobody has given one.
///
/// It names every given host or address; the first is the common name. It is not an authority.
///
/// # Errors
/// [`Error::Malformed`] for names that are not ASCII, [`Error::Crypto`] when signing fails.
pub fn self_signed_web(
    hosts: &[String],
    key: &PrivateKey,
    now: DateTime<Utc>,
    lifetime: Duration,
) -> Result<CertificateDer<'static>, Error> {
    let mut subject = DistinguishedName::new();
    subject.push(oid::ORGANIZATION, "localhost");
    subject.push(oid::COMMON_NAME, hosts.first().map_or("localhost", String::as_str));
    let lifetime = TimeDelta::from_std(lifetime).map_err(|error| Error::malformed("certificate lifetime", error))?;
    let mut template = LeafTemplate::new(subject, key.public().clone(), now, now + lifetime);
    template.extended_usages = vec![ExtendedUsage::ServerAuth];
    template.alternative_names = AlternativeNames::from_hosts(hosts);
    let issuer = template.subject.to_der()?;
    ca::sign(&template, &ca::random_serial()?, &issuer, template.extensions()?, key)
}

pub(super) fn extension<T: der::Encode + AssociatedOid>(critical: bool, value: &T) -> der::Result<Extension> {
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

pub(super) fn key_usage(usages: &[KeyUsages]) -> der::Result<Extension> {
    let mut flags = KeyUsage(Default::default());
    for usage in usages {
        flags.0 |= *usage;
    }
    extension(true, &flags)
}

pub(super) fn basic_constraints(ca: bool) -> der::Result<Extension> {
    extension(true, &BasicConstraints { ca, path_len_constraint: None })
}

fn distribution_points(uris: &[String]) -> der::Result<CrlDistributionPoints> {
    let point = |uri: &String| {
        let name = GeneralName::UniformResourceIdentifier(Ia5String::new(uri)?);
        Ok(DistributionPoint {
            distribution_point: Some(DistributionPointName::FullName(vec![name])),
            reasons: None,
            crl_issuer: None,
        })
    };
    uris.iter().map(point).collect::<der::Result<Vec<_>>>().map(CrlDistributionPoints)
}
