//! How a resumable connection begins, without any input or output.

use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// What every identification line begins with, and all that a client says before it knows the server.
pub const PREFIX: &[u8] = b"SSH-2.0-";
/// What a client says after it to a server that knows the protocol.
pub const CALL: &[u8] = b"\0teleport-resume-v1";
/// A point of P-256, uncompressed.
pub const KEY_LENGTH: usize = 65;
/// Length of a token.
pub const TOKEN_LENGTH: usize = 16;
/// The longest identification line (RFC 4253 §4.2).
pub const LONGEST_LINE: usize = 255;

/// Wishes of a client: a new connection, or one that exists.
pub const NEW: u8 = 0;
/// See [`NEW`].
pub const RESUME: u8 = 1;

/// The server's answers to [`RESUME`]: the connection goes on.
pub const RESUMED: u8 = 0;
/// There is no such connection.
pub const NOT_FOUND: u8 = 1;
/// The client comes from another address than before.
pub const WRONG_ADDRESS: u8 = 2;

/// Names a connection that may be resumed; a secret of its client.
pub type Token = [u8; TOKEN_LENGTH];

/// What is wrong with a peer's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's key is no point of P-256")]
pub struct NoPoint;

/// One side's key for one network connection.
pub struct Key {
    private: EphemeralPrivateKey,
    /// What the peer is told.
    pub public: Vec<u8>,
}

impl Key {
    /// A new key; `None` when there is no randomness.
    pub fn generate() -> Option<Self> {
        let private = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).ok()?;
        let public = private.compute_public_key().ok()?.as_ref().to_vec();
        Some(Self { private, public })
    }

    /// The first bytes of the hash of the shared secret: the token of a new connection, or what hides that of an old one.
    pub fn derive(self, theirs: &[u8]) -> Result<Token, NoPoint> {
        let peer = UnparsedPublicKey::new(&ECDH_P256, theirs);
        agree_ephemeral(self.private, peer, (), |secret| Ok(digest::digest(&digest::SHA256, secret)))
            .ok()
            .and_then(|hash| hash.as_ref().get(..TOKEN_LENGTH).and_then(|bytes| bytes.try_into().ok()))
            .ok_or(NoPoint)
    }
}

/// Hides a token with a pad that is used once, or uncovers it.
pub fn cover(token: &Token, pad: &Token) -> Token {
    let mut covered = *token;
    covered.iter_mut().zip(pad).for_each(|(byte, pad)| *byte ^= pad);
    covered
}

/// The identification line of a server that knows the protocol, without its end. `plain` is that of one that does not.
pub fn identification(plain: &str, key: &Key, host_id: &str) -> String {
    format!("{plain} resume-v1 {} {host_id}", STANDARD_NO_PAD.encode(&key.public))
}

/// A server that knows the protocol, as its identification line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Its key.
    pub key: [u8; KEY_LENGTH],
    /// The host, to be dialled again.
    pub host_id: String,
}

impl Invitation {
    /// Reads an identification line with its end; `None` when the server does not know the protocol.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
        let (key, host_id) = line.strip_prefix("SSH-2.0-Teleport resume-v1 ")?.split_once(' ')?;
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if host_id.is_empty() || !host_id.chars().all(named) {
            return None;
        }
        let key = STANDARD_NO_PAD.decode(key).ok()?.try_into().ok()?;
        Some(Self { key, host_id: host_id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn both_sides_derive_the_same_token_and_nobody_else_does() {
        let (client, server, stranger) = (Key::generate().unwrap(), Key::generate().unwrap(), Key::generate().unwrap());
        let line = identification("SSH-2.0-Teleport", &server, "host-1") + "\r\n";
        assert!(line.len() <= LONGEST_LINE);
        let invitation = Invitation::parse(line.as_bytes()).unwrap();
        assert_eq!(invitation.host_id, "host-1");
        let public = client.public.clone();
        let token = client.derive(&invitation.key).unwrap();
        assert_eq!(server.derive(&public).unwrap(), token);
        assert_ne!(stranger.derive(&public).unwrap(), token);
        let pad = [7; TOKEN_LENGTH];
        assert_eq!(cover(&cover(&token, &pad), &pad), token);
    }

    #[test]
    fn other_lines_are_no_invitations() {
        let key = STANDARD_NO_PAD.encode([4; KEY_LENGTH]);
        let good = format!("SSH-2.0-Teleport resume-v1 {key} a-1\r\n");
        assert!(Invitation::parse(good.as_bytes()).is_some());
        for line in [
            "SSH-2.0-Teleport\r\n".to_owned(),
            "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_owned(),
            format!("SSH-2.0-Teleport resume-v1 {key} a-1\n"),
            format!("SSH-2.0-Teleport resume-v1 {key} A 1\r\n"),
            format!("SSH-2.0-Teleport resume-v1 {key} \r\n"),
            format!("SSH-2.0-Teleport resume-v1 {key}= a\r\n"),
            format!("SSH-2.0-Teleport resume-v1 {} a\r\n", &key[1..]),
            format!("SSH-2.0-Teleport resume-v2 {key} a\r\n"),
        ] {
            assert_eq!(Invitation::parse(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(Key::generate().unwrap().derive(&[4; KEY_LENGTH]), Err(NoPoint));
    }
}
