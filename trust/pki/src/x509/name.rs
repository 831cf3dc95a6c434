//! Distinguished names with many values per attribute.
//!
//! Everything that the system says about a user stands in the subject of the certificate, so names here are
//! larger than elsewhere: several kilobytes, with private attributes and repeated ones.

use der::asn1::{Any, AnyRef, ObjectIdentifier};
use der::{Decode as _, Encode as _, Reader as _, SliceReader, Tag, Tagged as _};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

use crate::Error;

/// Attribute types (X.520) used in names.
pub mod oid {
    use super::ObjectIdentifier;

    /// `CN`.
    pub const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
    /// `serialNumber` of a person or device, here of an authority's certificate.
    pub const SERIAL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.5");
    /// `L`.
    pub const LOCALITY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.7");
    /// `STREET`.
    pub const STREET_ADDRESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.9");
    /// `O`.
    pub const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
    /// `OU`.
    pub const ORGANIZATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");
    /// `postalCode`.
    pub const POSTAL_CODE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.17");
}

/// A distinguished name: attributes in order, each with one or more text values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistinguishedName {
    attributes: Vec<(ObjectIdentifier, Vec<String>)>,
}

impl DistinguishedName {
    /// A name without attributes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an attribute with one value, which may be empty.
    pub fn push(&mut self, attribute: ObjectIdentifier, value: impl Into<String>) {
        self.attributes.push((attribute, vec![value.into()]));
    }

    /// Appends an attribute whose values share one relative name; without values nothing is appended.
    ///
    /// The encoding keeps such values sorted (DER `SET OF`), so their order is not kept.
    pub fn push_set<I>(&mut self, attribute: ObjectIdentifier, values: I)
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        if !values.is_empty() {
            self.attributes.push((attribute, values));
        }
    }

    /// All values of an attribute.
    pub fn values(&self, attribute: ObjectIdentifier) -> impl Iterator<Item = &str> {
        self.iter().filter(move |(found, _)| *found == attribute).map(|(_, value)| value)
    }

    /// The first value of an attribute.
    #[must_use]
    pub fn first(&self, attribute: ObjectIdentifier) -> Option<&str> {
        self.values(attribute).next()
    }

    /// Every attribute with every value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (ObjectIdentifier, &str)> {
        self.attributes.iter().flat_map(|(attribute, values)| values.iter().map(|value| (*attribute, value.as_str())))
    }

    /// The DER form.
    ///
    /// # Errors
    /// [`Error::Malformed`] for names beyond 256 MiB.
    pub fn to_der(&self) -> Result<Vec<u8>, Error> {
        let mut names = RdnSequence::default();
        for (attribute, values) in &self.attributes {
            let values = values.iter().map(|value| encode_value(*attribute, value));
            let values = values.collect::<der::Result<Vec<_>>>().map_err(malformed)?;
            names.push(RelativeDistinguishedName::try_from(values).map_err(malformed)?);
        }
        names.to_der().map_err(malformed)
    }

    /// Reads the DER form. Values that are not text are left out; nothing here uses them.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the structure is broken.
    pub fn from_der(bytes: &[u8]) -> Result<Self, Error> {
        let names = Vec::<AnyRef<'_>>::from_der(bytes).map_err(malformed)?;
        let mut found = Self::new();
        for set in names {
            set.tag().assert_eq(Tag::Set).map_err(malformed)?;
            let values = decode_set(set.value()).map_err(malformed)?;
            found.attributes.extend(values);
        }
        Ok(found)
    }
}

fn malformed(error: der::Error) -> Error {
    Error::malformed("distinguished name", error)
}

fn encode_value(attribute: ObjectIdentifier, value: &str) -> der::Result<AttributeTypeAndValue> {
    let tag = if value.bytes().all(is_printable) { Tag::PrintableString } else { Tag::Utf8String };
    Ok(AttributeTypeAndValue { oid: attribute, value: Any::new(tag, value.as_bytes())? })
}

/// The characters of a PrintableString (X.680 §41.4).
fn is_printable(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)
}

fn decode_set(bytes: &[u8]) -> der::Result<Vec<(ObjectIdentifier, Vec<String>)>> {
    let mut reader = SliceReader::new(bytes)?;
    let mut found: Vec<(ObjectIdentifier, Vec<String>)> = Vec::new();
    while !reader.is_finished() {
        let pair = AttributeTypeAndValue::decode(&mut reader)?;
        let text_tag = matches!(pair.value.tag(), Tag::PrintableString | Tag::Utf8String | Tag::Ia5String);
        if let (true, Ok(text)) = (text_tag, std::str::from_utf8(pair.value.value())) {
            match found.last_mut() {
                Some((attribute, values)) if *attribute == pair.oid => values.push(text.to_owned()),
                _ => found.push((pair.oid, vec![text.to_owned()])),
            }
        }
    }
    Ok(found)
}
