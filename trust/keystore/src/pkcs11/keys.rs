//! Keys in a token: making, finding, using and removing them.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use pki::keys::{KeyAlgorithm, PublicKey, SignatureScheme, ecdsa_der_from_fixed};
use uuid::Uuid;

use super::link::Reason;
use super::workers::Handles;

/// The object identifier of P-256 (`secp256r1`, RFC 5480), DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// What stands before a hash that RSA signs (`DigestInfo`, RFC 8017 §9.2).
const SHA256_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];
const SHA512_INFO: [u8; 19] =
    [0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40];
/// 65537.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];
/// How often a free short id is looked for.
const TRIES: usize = 64;

/// How a module numbers keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdForm {
    /// By 16 bytes, written as a UUID.
    Uuid,
    /// By two bytes from 0001 to fffe, written as hexadecimal digits; YubiHSM.
    Short,
}

impl IdForm {
    pub(super) fn of_manufacturer(name: &str) -> Self {
        if name.starts_with("Yubico") { Self::Short } else { Self::Uuid }
    }

    /// The bytes of an id.
    fn bytes(self, id: &str) -> Result<Vec<u8>, Reason> {
        let malformed = || Reason::Other(format!("key id {id:?} is not one of this module"));
        match self {
            Self::Uuid => Ok(Uuid::try_parse(id).map_err(|_| malformed())?.into_bytes().to_vec()),
            // Older keys are named by a UUID, of which the beginning counts.
            Self::Short => {
                let number = id.get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok());
                Ok(number.ok_or_else(malformed)?.to_be_bytes().to_vec())
            }
        }
    }

    /// The text of an id; `None` for bytes that are no id of this form.
    fn text(self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Uuid => Uuid::from_slice(bytes).ok().map(|id| id.to_string()),
            Self::Short => <[u8; 2]>::try_from(bytes).ok().map(|id| format!("{:04x}", u16::from_be_bytes(id))),
        }
    }

    /// An id as the module itself tells it; what is no id of this form stays as it is.
    pub(super) fn canonical(self, id: &str) -> String {
        self.bytes(id).ok().and_then(|bytes| self.text(&bytes)).unwrap_or_else(|| id.to_owned())
    }

    /// An id that no key has.
    fn free(self, session: &Session) -> Result<String, Reason> {
        for _ in 0..TRIES {
            let id = Uuid::new_v4();
            let id = match self {
                Self::Uuid => return Ok(id.to_string()),
                Self::Short => id.simple().to_string().get(..4).unwrap_or_default().to_owned(),
            };
            let reserved = matches!(id.as_str(), "0000" | "ffff");
            if !reserved && session.find_objects(&[Attribute::Id(self.bytes(&id)?)])?.is_empty() {
                return Ok(id);
            }
        }
        Err(Reason::Other("no free key id was found".to_owned()))
    }
}

/// Makes a key that never leaves the token; its id and its public half.
pub(super) fn generate(
    session: &Session,
    label: &str,
    form: IdForm,
    algorithm: KeyAlgorithm,
) -> Result<(String, PublicKey), Reason> {
    let id = form.free(session)?;
    let named = [Attribute::Token(true), Attribute::Id(form.bytes(&id)?), Attribute::Label(label.into())];
    let (mechanism, kind) = match algorithm {
        KeyAlgorithm::EcdsaP256 => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(P256.to_vec())]),
        KeyAlgorithm::Rsa2048 => (
            Mechanism::RsaPkcsKeyPairGen,
            vec![Attribute::ModulusBits(2048.into()), Attribute::PublicExponent(RSA_EXPONENT.to_vec())],
        ),
        KeyAlgorithm::Ed25519 => return Err(Reason::Other("Ed25519 keys are not made in modules".to_owned())),
    };
    let public = [&named[..], &kind, &[Attribute::Verify(true)]].concat();
    let secret =
        [Attribute::Private(true), Attribute::Sensitive(true), Attribute::Extractable(false), Attribute::Sign(true)];
    let (public, _) = session.generate_key_pair(&mechanism, &public, &[&named[..], &secret].concat())?;
    Ok((id, public_key(session, public, algorithm)?))
}

fn public_key(session: &Session, key: ObjectHandle, algorithm: KeyAlgorithm) -> Result<PublicKey, Reason> {
    let missing = || Reason::Other("the module does not tell the public half of a new key".to_owned());
    if algorithm == KeyAlgorithm::Rsa2048 {
        let told = session.get_attributes(key, &[AttributeType::Modulus, AttributeType::PublicExponent])?;
        let modulus = told.iter().find_map(|a| if let Attribute::Modulus(n) = a { Some(n) } else { None });
        let exponent = told.iter().find_map(|a| if let Attribute::PublicExponent(e) = a { Some(e) } else { None });
        let (modulus, exponent) = modulus.zip(exponent).ok_or_else(missing)?;
        return Ok(PublicKey::from_rsa_numbers(modulus, exponent)?);
    }
    let told = session.get_attributes(key, &[AttributeType::EcPoint])?;
    let point = told.iter().find_map(|a| if let Attribute::EcPoint(point) = a { Some(point.as_slice()) } else { None });
    Ok(PublicKey::from_p256_point(bare_point(point.ok_or_else(missing)?))?)
}

/// The point itself: it is wrapped as an octet string (PKCS #11 §6.3.3), by most modules.
fn bare_point(told: &[u8]) -> &[u8] {
    match told {
        [0x04, 0x41, point @ ..] if point.len() == 65 => point,
        bare => bare,
    }
}

/// A signature to be made.
pub(super) struct SignRequest {
    form: IdForm,
    label: String,
    key_id: String,
    scheme: SignatureScheme,
    /// What the token signs: modules know this form best, and a hash is never too long for them.
    hashed: Vec<u8>,
}

impl SignRequest {
    pub(super) fn new(form: IdForm, label: &str, key_id: &str, scheme: SignatureScheme, message: &[u8]) -> Self {
        let hashed = match scheme {
            SignatureScheme::RsaPkcs1Sha256 => [&SHA256_INFO[..], digest(&SHA256, message).as_ref()].concat(),
            SignatureScheme::RsaPkcs1Sha512 => [&SHA512_INFO[..], digest(&SHA512, message).as_ref()].concat(),
            SignatureScheme::EcdsaP256Sha256 => digest(&SHA256, message).as_ref().to_vec(),
            SignatureScheme::Ed25519 => Vec::new(),
        };
        Self { form, label: label.to_owned(), key_id: key_id.to_owned(), scheme, hashed }
    }

    pub(super) fn sign(&self, session: &Session, handles: &mut Handles) -> Result<Vec<u8>, Reason> {
        let key = match handles.get(&self.key_id) {
            Some(key) => *key,
            None => {
                let key = self.find(session)?;
                handles.insert(self.key_id.clone(), key);
                key
            }
        };
        match self.scheme {
            SignatureScheme::RsaPkcs1Sha256 | SignatureScheme::RsaPkcs1Sha512 => {
                Ok(session.sign(&Mechanism::RsaPkcs, key, &self.hashed)?)
            }
            SignatureScheme::EcdsaP256Sha256 => {
                Ok(ecdsa_der_from_fixed(&session.sign(&Mechanism::Ecdsa, key, &self.hashed)?)?)
            }
            SignatureScheme::Ed25519 => Err(Reason::Other("there are no Ed25519 keys in modules".to_owned())),
        }
    }

    fn find(&self, session: &Session) -> Result<ObjectHandle, Reason> {
        let found = session.find_objects(&[
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Id(self.form.bytes(&self.key_id)?),
            Attribute::Label(self.label.clone().into_bytes()),
        ])?;
        match found.as_slice() {
            [key] => Ok(*key),
            [] => Err(Reason::Other(format!("there is no key {}", self.key_id))),
            _ => Err(Reason::Other(format!("there are several keys {}", self.key_id))),
        }
    }
}

/// The ids of the keys with this label.
pub(super) fn list(session: &Session, label: &str, form: IdForm) -> Result<Vec<String>, Reason> {
    let labelled = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Label(label.into())];
    let mut ids = Vec::new();
    for key in session.find_objects(&labelled)? {
        for told in session.get_attributes(key, &[AttributeType::Id])? {
            if let Attribute::Id(id) = told {
                ids.extend(form.text(&id));
            }
        }
    }
    Ok(ids)
}

/// Removes both halves of a key.
pub(super) fn delete(session: &Session, label: &str, form: IdForm, id: &str) -> Result<(), Reason> {
    let halves = session.find_objects(&[Attribute::Id(form.bytes(id)?), Attribute::Label(label.into())])?;
    for half in halves {
        session.destroy_object(half)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn ids_have_the_form_of_the_module() {
        let id = "00112233-4455-6677-8899-aabbccddeeff";
        let bytes = IdForm::Uuid.bytes(id).unwrap();
        assert_eq!((bytes.len(), IdForm::Uuid.text(&bytes).as_deref()), (16, Some(id)));
        let form = IdForm::of_manufacturer("Yubico (www.yubico.com)");
        assert_eq!(form.bytes("1a2b").unwrap(), [0x1a, 0x2b]);
        assert_eq!(form.text(&[0x1a, 0x2b]).as_deref(), Some("1a2b"));
        assert_eq!(form.bytes(id).unwrap(), [0x00, 0x11], "an older key");
        assert_eq!(["1A2B", id, "?"].map(|id| form.canonical(id)), ["1a2b", "0011", "?"]);
        assert_eq!(IdForm::Uuid.canonical(&id.to_uppercase()), id);
        assert_eq!(IdForm::of_manufacturer("SoftHSM"), IdForm::Uuid);
    }

    #[test]
    fn ids_of_another_form_are_refused_and_passed_over() {
        for id in ["", "1a", "wxyz", "é€"] {
            assert!(IdForm::Short.bytes(id).is_err() && IdForm::Uuid.bytes(id).is_err(), "{id}");
        }
        assert_eq!((IdForm::Uuid.text(&[1, 2]), IdForm::Short.text(&[1; 16])), (None, None));
    }

    #[test]
    fn points_are_taken_bare_and_wrapped() {
        let bare = [[0x04].as_slice(), &[7; 64]].concat();
        let wrapped = [[0x04, 0x41].as_slice(), &bare].concat();
        assert_eq!((bare_point(&wrapped), bare_point(&bare)), (&bare[..], &bare[..]));
        // A bare point may happen to go on like a wrapped one.
        let twin = [[0x04, 0x41].as_slice(), &[7; 63]].concat();
        assert_eq!(bare_point(&twin), &twin);
    }
}
