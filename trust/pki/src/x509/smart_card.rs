//! Certificates with which one logs in to Windows as with a smart card ([MS-PKCA], [MS-WCCE] §2.2.2.7.7.4).

use der::asn1::{Any, ObjectIdentifier, OctetString};
use der::{Choice, Decode, DecodeValue, Encode as _, EncodeValue, Tagged};
use x509_cert::ext::pkix::name::{GeneralName, OtherName};
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectAltName};

use super::leaf::{ExtendedUsage, ExtraExtension};
use crate::Error;

const WHAT: &str = "smart-card extensions";
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const EXTENDED_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const SMART_CARD_LOGON: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.2");
/// The user's principal name, `<user>@<domain>`.
const PRINCIPAL_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.20.2.3");
/// The security identifier, which ties the certificate to one account whatever its name.
const SECURITY_EXTENSION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.25.2");
const SECURITY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.25.2.1");

/// Asks the logon package of a host outside of any domain to make the account; JSON.
pub const CREATE_USER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.2.16");
/// Tells that package which kind of Auth Service signed; bare text.
pub const LICENSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.2.14");
/// Tells it whether there are more desktops than the licence has; bare text.
pub const LIMIT_EXCEEDED: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.9999.2.17");

/// What the key of such a certificate is for.
pub const SMART_CARD_USAGES: [ExtendedUsage; 2] = [ExtendedUsage::ClientAuth, ExtendedUsage::Other(SMART_CARD_LOGON)];

/// The account that such a certificate opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmartCardAccount {
    /// `<user>@<domain>`.
    pub principal_name: String,
    /// Such as `S-1-5-21-1-2-3-500`, for accounts of a domain.
    pub security_identifier: Option<String>,
}

impl SmartCardAccount {
    /// What a request for the certificate asks for.
    ///
    /// # Errors
    /// [`Error::Malformed`] for text that cannot be encoded.
    pub fn to_request(&self) -> Result<Vec<ExtraExtension>, Error> {
        let usages = ExtendedKeyUsage(SMART_CARD_USAGES.map(ExtendedUsage::to_oid).to_vec());
        let value = usages.to_der().map_err(malformed)?;
        let mut extensions = vec![ExtraExtension { id: EXTENDED_USAGE, critical: false, value }];
        extensions.extend(self.to_extensions()?);
        Ok(extensions)
    }

    /// The extensions of the certificate besides those that every one has.
    ///
    /// # Errors
    /// [`Error::Malformed`] for text that cannot be encoded.
    pub fn to_extensions(&self) -> Result<Vec<ExtraExtension>, Error> {
        let mut extensions = vec![other_name(SUBJECT_ALT_NAME, PRINCIPAL_NAME, &self.principal_name)?];
        if let Some(identifier) = &self.security_identifier {
            let value = OctetString::new(identifier.as_bytes()).map_err(malformed)?;
            extensions.push(other_name(SECURITY_EXTENSION, SECURITY_IDENTIFIER, &value)?);
        }
        Ok(extensions)
    }

    /// Reads what a request asks for; extensions that have nothing to do with the account are passed over.
    ///
    /// # Errors
    /// [`Error::Malformed`] unless the request is for logging in with a smart card, and names one account in the form
    /// above.
    pub fn from_request(extensions: &[ExtraExtension]) -> Result<Self, Error> {
        let refused = |reason: &str| Error::malformed(WHAT, reason);
        let usages: ExtendedKeyUsage =
            find(extensions, EXTENDED_USAGE)?.ok_or_else(|| refused("no purpose is named"))?;
        let is_known = |usage: &ObjectIdentifier| SMART_CARD_USAGES.contains(&ExtendedUsage::from_oid(*usage));
        if !usages.0.contains(&SMART_CARD_LOGON) || !usages.0.iter().all(is_known) {
            return Err(refused("another purpose than logging in with a smart card"));
        }
        let name = named::<String>(extensions, SUBJECT_ALT_NAME, PRINCIPAL_NAME)?;
        let identifier = named::<OctetString>(extensions, SECURITY_EXTENSION, SECURITY_IDENTIFIER)?;
        let identifier = identifier.map(|bytes| String::from_utf8(bytes.into_bytes().into()));
        Ok(Self {
            principal_name: name.filter(|name| !name.is_empty()).ok_or_else(|| refused("no account is named"))?,
            security_identifier: identifier.transpose().map_err(|_| refused("the security identifier is no text"))?,
        })
    }
}

fn malformed(error: der::Error) -> Error {
    Error::malformed(WHAT, error)
}

/// An extension that holds one name of a kind of its own.
fn other_name<T: EncodeValue + Tagged>(
    id: ObjectIdentifier,
    type_id: ObjectIdentifier,
    value: &T,
) -> Result<ExtraExtension, Error> {
    let value = Any::encode_from(value).map_err(malformed)?;
    let names = SubjectAltName(vec![GeneralName::OtherName(OtherName { type_id, value })]);
    Ok(ExtraExtension { id, critical: false, value: names.to_der().map_err(malformed)? })
}

/// The one name in such an extension, if that is there.
fn named<T>(extensions: &[ExtraExtension], id: ObjectIdentifier, type_id: ObjectIdentifier) -> Result<Option<T>, Error>
where
    T: for<'a> Choice<'a> + for<'a> DecodeValue<'a, Error = der::Error>,
{
    match find::<SubjectAltName>(extensions, id)?.as_ref().map(|names| names.0.as_slice()) {
        None => Ok(None),
        Some([GeneralName::OtherName(name)]) if name.type_id == type_id => {
            name.value.decode_as().map(Some).map_err(malformed)
        }
        Some(_) => Err(Error::malformed(WHAT, "other names than that of one account")),
    }
}

/// Decodes the one extension of a type.
fn find<T>(extensions: &[ExtraExtension], id: ObjectIdentifier) -> Result<Option<T>, Error>
where
    T: for<'a> Decode<'a, Error = der::Error>,
{
    let mut found = extensions.iter().filter(|extension| extension.id == id);
    match (found.next(), found.next()) {
        (found, None) => found.map(|extension| T::from_der(&extension.value)).transpose().map_err(malformed),
        (_, Some(_)) => Err(Error::malformed(WHAT, format!("extension {id} appears twice"))),
    }
}
