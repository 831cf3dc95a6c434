//! Certification requests (PKCS #10, RFC 2986): the wish for a certificate, signed with the key it is about.

use der::asn1::{Any, AnyRef, SetOfVec};
use der::oid::AssociatedOid as _;
use der::{Decode, Encode as _, Sequence};
use x509_cert::attr::Attribute;
use x509_cert::request::ExtensionReq;

use super::asn1::{SignedCertificate, scheme_of};
use super::ca::seal;
use super::leaf::ExtraExtension;
use super::name::DistinguishedName;
use crate::keys::{PublicKey, Signer};
use crate::{Error, pem};

const WHAT: &str = "certificate request";
const LABEL: &str = "CERTIFICATE REQUEST";
/// The label that some older programs write.
const OLD_LABEL: &str = "NEW CERTIFICATE REQUEST";

/// `CertificationRequestInfo` of RFC 2986 §4.1.
#[derive(Clone, Debug, Sequence)]
struct RequestInfo<'a> {
    version: u8,
    subject: AnyRef<'a>,
    public_key: AnyRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", optional = "true")]
    attributes: Option<SetOfVec<Any>>,
}

/// A wish for a certificate whose sender has proven to hold the key. What it says about the subject is the sender's word.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// Who the certificate is to be about.
    pub subject: DistinguishedName,
    /// The key it is to vouch for.
    pub public_key: PublicKey,
    /// The extensions that it is to have, such as names besides the subject (RFC 2985 §5.4.2).
    pub extensions: Vec<ExtraExtension>,
}

fn malformed(error: der::Error) -> Error {
    Error::malformed(WHAT, error)
}

impl CertificateRequest {
    /// Signs a request for this subject; PEM.
    ///
    /// # Errors
    /// [`Error::Malformed`] for names that cannot be encoded, [`Error::Crypto`] when signing fails.
    pub fn make(subject: &DistinguishedName, key: &dyn Signer) -> Result<String, Error> {
        Self::make_with(subject, &[], key)
    }

    /// The same with extensions that the certificate is to have.
    ///
    /// # Errors
    /// As [`make`](Self::make).
    pub fn make_with(
        subject: &DistinguishedName,
        extensions: &[ExtraExtension],
        key: &dyn Signer,
    ) -> Result<String, Error> {
        let subject = subject.to_der()?;
        let info = RequestInfo {
            version: 0,
            subject: AnyRef::from_der(&subject).map_err(malformed)?,
            public_key: AnyRef::from_der(key.public_key().to_spki_der()).map_err(malformed)?,
            attributes: Some(wishes(extensions).map_err(malformed)?),
        };
        Ok(pem::encode(LABEL, &seal(&info.to_der().map_err(malformed)?, key)?))
    }

    /// Reads a request and checks that it is signed with the key it names. Attributes other than wishes for extensions are
    /// passed over.
    ///
    /// # Errors
    /// [`Error::Malformed`], also for a signature that is not the key's.
    pub fn from_pem(text: &str) -> Result<Self, Error> {
        let blocks = pem::blocks(text)?;
        let block = blocks.iter().find(|block| [LABEL, OLD_LABEL].contains(&block.label.as_str()));
        Self::from_der(&block.ok_or_else(|| Error::malformed(WHAT, "no PEM block with a request found"))?.der)
    }

    /// As [`from_pem`](Self::from_pem), for the DER form.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn from_der(bytes: &[u8]) -> Result<Self, Error> {
        let signed = SignedCertificate::from_der(bytes).map_err(malformed)?;
        let body = signed.tbs.to_der().map_err(malformed)?;
        let info = RequestInfo::from_der(&body).map_err(malformed)?;
        let public_key = PublicKey::from_spki_der(&info.public_key.to_der().map_err(malformed)?)?;
        let scheme = scheme_of(&signed.signature_algorithm)
            .ok_or_else(|| Error::malformed(WHAT, "signed with an algorithm that is not known"))?;
        if !public_key.verifies(scheme, &body, signed.signature.raw_bytes()) {
            return Err(Error::malformed(WHAT, "not signed with the key it is about"));
        }
        let subject = DistinguishedName::from_der(&info.subject.to_der().map_err(malformed)?)?;
        Ok(Self { subject, public_key, extensions: wished(info.attributes.as_ref()) })
    }
}

/// The attribute that asks for extensions, if there are any.
fn wishes(extensions: &[ExtraExtension]) -> der::Result<SetOfVec<Any>> {
    let mut attributes = SetOfVec::new();
    if !extensions.is_empty() {
        let wanted = ExtensionReq(extensions.iter().map(ExtraExtension::to_extension).collect::<der::Result<_>>()?);
        let mut values = SetOfVec::new();
        values.insert(Any::from_der(&wanted.to_der()?)?)?;
        attributes.insert(Any::from_der(&Attribute { oid: ExtensionReq::OID, values }.to_der()?)?)?;
    }
    Ok(attributes)
}

/// What the attributes of a request ask for; what cannot be read asks for nothing.
fn wished(attributes: Option<&SetOfVec<Any>>) -> Vec<ExtraExtension> {
    let attributes = attributes.into_iter().flat_map(SetOfVec::iter).filter_map(decoded::<Attribute>);
    let wishes = attributes.filter(|attribute| attribute.oid == ExtensionReq::OID);
    let wanted =
        wishes.flat_map(|attribute| attribute.values.into_vec()).filter_map(|any| decoded::<ExtensionReq>(&any));
    wanted.flat_map(|wanted| wanted.0).map(ExtraExtension::from_extension).collect()
}

fn decoded<T: for<'a> Decode<'a>>(any: &Any) -> Option<T> {
    T::from_der(&any.to_der().ok()?).ok()
}
