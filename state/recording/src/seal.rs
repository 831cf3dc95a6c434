//! Recordings that only the cluster can read.
//!
//! Every part is sealed by itself (HPKE, RFC 9180: X25519, HKDF-SHA256, AES-256-GCM), with a fresh key for each, to the
//! cluster's public key; the session's id and the part's header are authenticated with it. A sealed body is
//!
//! | bytes | meaning |
//! | --- | --- |
//! | 8 | which of the cluster's keys: the start of the SHA-256 digest of its public half |
//! | 32 | the encapsulated secret |
//! | … | the sealed body of a plain part |
//!
//! A complete recording ends with one more part, in whose sealed body are the length (8 bytes) and the SHA-256 digest of
//! all parts before it. So whoever has the files cannot read them, nor put parts of one session into another's recording,
//! nor change, remove, add or cut off any unnoticed. (Sealing needs the public half of a key, which is as secret as the other.)

use std::sync::Arc;

use aws_lc_rs::digest;
use parking_lot::RwLock;
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256,
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey},
};
use zeroize::Zeroizing;

use crate::{
    Error, FormatError, Result, SessionId,
    format::{HEADER_BYTES, PartHeader, PartKind},
};

/// The longest sealed body that is read: far more than a writer puts into a part, and what a reader holds in memory.
pub(crate) const MAX_SEALED_BYTES: u64 = 16 * 1024 * 1024;

const KEY_ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
/// What is before and after a sealed body: key, secret, and the authentication tag.
const OVERHEAD: usize = KEY_ID_BYTES + SECRET_BYTES + 16;
/// Keeps these keys from being used for anything else.
const INFO: &[u8] = b"teleport session recording, format 1";

/// A key of the cluster.
#[derive(Clone)]
pub struct SealingKey {
    public: Vec<u8>,
    private: Zeroizing<Vec<u8>>,
}

/// The keys of the cluster, and whether new recordings are sealed. Clones share them.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Arc<RwLock<Keys>>,
}

#[derive(Default)]
struct Keys {
    /// The newest last.
    known: Vec<SealingKey>,
    seals: bool,
}

/// What the end of a recording says about the parts before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Their length in bytes.
    pub length: u64,
    /// Their SHA-256 digest.
    pub digest: [u8; 32],
}

impl End {
    /// The end after `length` bytes that went into `context`.
    pub fn after(length: u64, context: digest::Context) -> Self {
        let mut digest = [0; 32];
        digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self { length, digest }
    }

    pub fn to_bytes(self) -> Vec<u8> {
        [self.length.to_be_bytes().as_slice(), &self.digest].concat()
    }
}

/// What seals and opens the parts of one session's recording.
#[derive(Clone)]
pub struct Seal {
    ring: Keyring,
    session: SessionId,
}

impl SealingKey {
    /// A new key.
    ///
    /// # Errors
    ///
    /// [`Error::Sealing`] should there be no random numbers.
    pub fn generate() -> Result<Self> {
        let (public, private) = suite().generate_key_pair().map_err(|e| Error::Sealing(e.to_string()))?;
        Ok(Self { public: public.0, private: Zeroizing::new(private.secret_bytes().to_vec()) })
    }

    /// The key that [`Self::to_bytes`] described; `None` for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (public, private) = bytes.split_at_checked(KEY_BYTES)?;
        (private.len() == KEY_BYTES)
            .then(|| Self { public: public.to_vec(), private: Zeroizing::new(private.to_vec()) })
    }

    /// Both halves, to be kept secret.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.public.as_slice(), &self.private].concat())
    }

    /// What tells the key from others: 16 hexadecimal digits, which stand in every part sealed to it.
    pub fn name(&self) -> String {
        hex::encode(self.id())
    }

    fn id(&self) -> [u8; KEY_ID_BYTES] {
        let mut id = [0; KEY_ID_BYTES];
        let digest = digest::digest(&digest::SHA256, &self.public);
        id.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        id
    }
}

impl Keyring {
    /// Knows these keys from now on, the newest last; with `seals`, new parts are sealed with that one.
    pub fn set(&self, known: Vec<SealingKey>, seals: bool) {
        *self.keys.write() = Keys { known, seals };
    }

    /// What seals and opens the parts of a session's recording.
    pub fn of(&self, session: SessionId) -> Seal {
        Seal { ring: self.clone(), session }
    }
}

impl Seal {
    /// The session.
    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    /// The size that a body of `plain` bytes has when it is sealed; `None` when nothing is sealed now.
    pub(crate) fn length(&self, plain: usize) -> Option<usize> {
        let keys = self.ring.keys.read();
        (keys.seals && !keys.known.is_empty()).then_some(plain + OVERHEAD)
    }

    /// Seals a body to the newest key.
    pub(crate) fn seal(&self, header: &[u8; HEADER_BYTES], body: &[u8]) -> Result<Vec<u8>> {
        let keys = self.ring.keys.read();
        let key = keys.known.last().ok_or_else(|| Error::Sealing("the cluster has no key".into()))?;
        let public = HpkePublicKey(key.public.clone());
        let sealed = suite().seal(INFO, &self.bound_to(header), body, &public);
        let (secret, sealed) = sealed.map_err(|e| Error::Sealing(e.to_string()))?;
        Ok([key.id().as_slice(), &secret.0, &sealed].concat())
    }

    /// The part that ends a recording.
    pub(crate) fn end(&self, end: &End) -> Result<Vec<u8>> {
        let plain = end.to_bytes();
        let header = PartHeader { kind: PartKind::End, body: (plain.len() + OVERHEAD) as u64, padding: 0 }.to_bytes();
        Ok([header.as_slice(), &self.seal(&header, &plain)?].concat())
    }

    /// Opens a sealed body.
    pub(crate) fn open(&self, header: &[u8; HEADER_BYTES], body: &[u8], part: u64) -> Result<Vec<u8>, FormatError> {
        let short = || FormatError::Corrupt { part, what: "a sealed body without a key".into() };
        let (id, rest) = body.split_at_checked(KEY_ID_BYTES).ok_or_else(short)?;
        let (secret, sealed) = rest.split_at_checked(SECRET_BYTES).ok_or_else(short)?;
        let keys = self.ring.keys.read();
        let key = keys.known.iter().find(|key| key.id() == id).ok_or(FormatError::Sealed { part })?;
        let (secret, private) = (EncapsulatedSecret(secret.to_vec()), HpkePrivateKey::from(key.private.to_vec()));
        let opened = suite().open(&secret, INFO, &self.bound_to(header), sealed, &private);
        opened.map_err(|_| FormatError::Corrupt { part, what: "it was changed, or is of another session".into() })
    }

    fn bound_to(&self, header: &[u8; HEADER_BYTES]) -> Vec<u8> {
        [self.session.uuid().as_bytes().as_slice(), header].concat()
    }
}

fn suite() -> &'static dyn Hpke {
    DH_KEM_X25519_HKDF_SHA256_AES_256
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit::{EventExt, codes};
    use wire::events::{OneOf, SessionPrint};

    use super::*;
    use crate::{PartWriter, StreamReader};

    fn event(index: i64) -> OneOf {
        let mut event = codes::SESSION_PRINT.event(SessionPrint { data: b"the secret".to_vec(), ..Default::default() });
        event.metadata_mut().unwrap().index = index;
        event
    }

    fn parts_of(seal: &Seal) -> Vec<u8> {
        let mut writer = PartWriter::sealed(seal.clone());
        let mut bytes = Vec::new();
        for (index, least) in [(0, 0), (1, 400), (2, 0)] {
            writer.push(&event(index)).unwrap();
            bytes.extend(writer.take(least).unwrap());
        }
        bytes
    }

    fn read(bytes: &[u8], seal: &Seal) -> Result<Vec<i64>, FormatError> {
        StreamReader::sealed(bytes, seal.clone()).map(|event| event.map(|event| event.index())).collect()
    }

    #[test]
    fn what_is_sealed_is_read_with_the_cluster_s_keys_old_and_new() {
        let (ring, session) = (Keyring::default(), SessionId::random());
        let (old, new) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
        let seal = ring.of(session);
        let plain = parts_of(&seal);
        ring.set(vec![old.clone()], true);
        let sealed = parts_of(&seal);
        let again = SealingKey::from_bytes(&old.to_bytes()).unwrap();
        ring.set(vec![again, new], true);
        let bytes = [plain, sealed, parts_of(&seal)].concat();
        assert_eq!(read(&bytes, &seal).unwrap(), [0, 1, 2]);
        ring.set(vec![old], false);
        assert_eq!(parts_of(&seal)[..8], 1_u64.to_be_bytes());
    }

    #[test]
    fn strangers_and_other_sessions_read_nothing() {
        let (ring, session) = (Keyring::default(), SessionId::random());
        ring.set(vec![SealingKey::generate().unwrap()], true);
        let bytes = parts_of(&ring.of(session));
        assert!(!bytes.windows(4).any(|window| window == [0x1f, 0x8b, 8, 0]));
        let refused = read(&bytes, &Keyring::default().of(session)).unwrap_err();
        assert!(matches!(refused, FormatError::Sealed { part: 1 }), "{refused}");
        let other = read(&bytes, &ring.of(SessionId::random())).unwrap_err();
        assert!(matches!(other, FormatError::Corrupt { part: 1, .. }), "{other}");
        assert!(StreamReader::new(bytes.as_slice()).next_event().is_err());
    }

    #[test]
    fn a_changed_bit_is_noticed_wherever_it_is() {
        let (ring, session) = (Keyring::default(), SessionId::random());
        ring.set(vec![SealingKey::generate().unwrap()], true);
        let seal = ring.of(session);
        let mut writer = PartWriter::sealed(seal.clone());
        writer.push(&event(0)).unwrap();
        let bytes = writer.take(0).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(&changed, &seal).is_err(), "byte {at}");
        }
    }

    /// A complete recording of three parts.
    fn complete(seal: &Seal) -> Vec<Vec<u8>> {
        let mut writer = PartWriter::sealed(seal.clone());
        let mut parts: Vec<Vec<u8>> = (0..3)
            .map(|index| {
                writer.push(&event(index)).unwrap();
                writer.take(0).unwrap()
            })
            .collect();
        let all = parts.concat();
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&all);
        parts.push(seal.end(&End::after(all.len() as u64, context)).unwrap());
        parts
    }

    #[test]
    fn parts_cannot_be_cut_off_left_out_or_moved() {
        let (ring, session) = (Keyring::default(), SessionId::random());
        ring.set(vec![SealingKey::generate().unwrap()], true);
        let seal = ring.of(session);
        let whole = |parts: &[&Vec<u8>]| {
            let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            StreamReader::complete(bytes.as_slice(), seal.clone())
                .map(|event| event.map(|event| event.index()))
                .collect::<Result<Vec<_>, _>>()
        };
        let parts = complete(&seal);
        let [a, b, c, end] = [&parts[0], &parts[1], &parts[2], &parts[3]];
        assert_eq!(whole(&[a, b, c, end]).unwrap(), [0, 1, 2]);
        for cut in [&[a, b, c][..], &[a, b], &[a]] {
            assert!(matches!(whole(cut).unwrap_err(), FormatError::NoEnd { .. }));
        }
        for wrong in [&[a, b, end][..], &[a, c, end], &[a, b, b, c, end], &[b, a, c, end], &[a, b, c, end, c]] {
            let refused = whole(wrong).unwrap_err();
            assert!(matches!(refused, FormatError::Corrupt { .. }), "{refused}");
        }
        // What is read while it grows, and what is not sealed, needs no end.
        assert_eq!(read(&[a.as_slice(), b].concat(), &seal).unwrap(), [0, 1]);
        ring.set(Vec::new(), false);
        let plain = parts_of(&seal);
        assert_eq!(whole(&[&plain]).unwrap(), [0, 1, 2]);
    }
}
