//! A running `ssh-agent`: putting a login's key and certificate into it, and taking them out again.
//!
//! The protocol is that of draft-ietf-sshm-ssh-agent. Keys are added with the certificate's lifetime, so that an
//! agent forgets them when they are of no use any more.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{Certificate, PrivateKey, ssh_encoding};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::account::Account;
use crate::error::{Error, Result};

/// The variable that names an agent's socket.
pub const SOCKET_VARIABLE: &str = "SSH_AUTH_SOCK";

/// Longest message that is read; an agent with hundreds of keys stays below it.
pub(crate) const LONGEST_MESSAGE: u32 = 256 << 10;
/// Time for one answer. Agents that ask their users are only asked to sign, which is not done here.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Numbers of messages.
pub(crate) mod message {
    /// An agent could not do what was asked.
    pub(crate) const FAILURE: u8 = 5;
    /// It did.
    pub(crate) const SUCCESS: u8 = 6;
    /// Which keys are there?
    pub(crate) const REQUEST_IDENTITIES: u8 = 11;
    /// These.
    pub(crate) const IDENTITIES_ANSWER: u8 = 12;
    /// Sign this.
    pub(crate) const SIGN_REQUEST: u8 = 13;
    /// The signature.
    pub(crate) const SIGN_RESPONSE: u8 = 14;
    /// Forget a key.
    pub(crate) const REMOVE_IDENTITY: u8 = 18;
    /// Keep a key under conditions.
    pub(crate) const ADD_ID_CONSTRAINED: u8 = 25;
}

/// The condition that a key is forgotten after some seconds.
const CONSTRAIN_LIFETIME: u8 = 1;
/// Start of the comments of keys that this program adds.
const COMMENT_PREFIX: &str = "teleport:";

/// When keys of a login go into the user's agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddKeys {
    /// If there is an agent.
    #[default]
    Auto,
    /// Never.
    No,
    /// Always: no agent is an error.
    Yes,
}

impl std::str::FromStr for AddKeys {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "no" => Ok(Self::No),
            "yes" => Ok(Self::Yes),
            // An agent keeps no TLS keys, without which no command reaches the cluster.
            "only" => {
                Err(Error::other("--add-keys-to-agent=only is not possible: use yes, and 'tsh logout' afterwards"))
            }
            _ => Err(Error::other(format!("--add-keys-to-agent={text}: expected auto, no or yes"))),
        }
    }
}

/// The socket of the user's agent, if there is one.
pub fn socket() -> Option<PathBuf> {
    std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Puts the key and certificate of a login into the agent, in place of those of an earlier login of the same user at
/// the same cluster.
///
/// # Errors
/// When there should be an agent and it does not take the key.
pub async fn add(account: &Account, add: AddKeys) -> Result<()> {
    if add == AddKeys::No {
        return Ok(());
    }
    let Some(socket) = socket() else {
        return match add {
            AddKeys::No | AddKeys::Auto => Ok(()),
            AddKeys::Yes => {
                Err(Error::other(format!("keys cannot be added to an agent: {SOCKET_VARIABLE} is not set")))
            }
        };
    };
    match (add, replace(&socket, account).await) {
        (_, Ok(())) => Ok(()),
        // Nobody has asked for it.
        (AddKeys::Auto, Err(error)) => {
            tracing::debug!(%error, "keys are not added to the agent");
            Ok(())
        }
        (_, Err(error)) => Err(Error::io(format!("adding keys to the agent at {}", socket.display()))(error)),
    }
}

/// Takes the keys of all logins at a proxy out of the agent, or those of all proxies. An agent that is not there has
/// none.
pub async fn remove(proxy_host: Option<&str>) {
    let Some(socket) = socket() else { return };
    let prefix = proxy_host.map_or_else(|| COMMENT_PREFIX.to_owned(), |host| format!("{COMMENT_PREFIX}{host}:"));
    if let Err(error) = forget(&socket, |found| found.starts_with(prefix.as_bytes())).await {
        tracing::debug!(%error, "keys are not removed from the agent");
    }
}

/// What keys of an account are called in agents.
pub(crate) fn comment(account: &Account) -> String {
    format!("{COMMENT_PREFIX}{}:{}:{}", account.proxy_host(), account.root_cluster(), account.username)
}

async fn replace(socket: &Path, account: &Account) -> io::Result<()> {
    let comment = comment(account);
    forget(socket, |found| found == comment.as_bytes()).await?;
    let key = account.keys.ssh_key.to_ssh().map_err(io::Error::other)?;
    let until = account.keys.valid_until();
    let message = add_message(&key, &account.keys.ssh_certificate, &comment, until, Utc::now());
    let message = message.map_err(io::Error::other)?;
    let mut stream = open(socket).await?;
    match exchange(&mut stream, &message).await?.first() {
        Some(&message::SUCCESS) => Ok(()),
        _ => Err(io::Error::other("the agent did not take the key")),
    }
}

/// Removes the keys with such comments.
async fn forget(socket: &Path, is_meant: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    let mut stream = open(socket).await?;
    let answer = exchange(&mut stream, &[message::REQUEST_IDENTITIES]).await?;
    for (key, comment) in identities(&answer).ok_or_else(|| io::Error::other("the agent's list is not understood"))? {
        if is_meant(comment) {
            let mut request = vec![message::REMOVE_IDENTITY];
            key.encode(&mut request).map_err(io::Error::other)?;
            exchange(&mut stream, &request).await?;
        }
    }
    Ok(())
}

async fn open(socket: &Path) -> io::Result<UnixStream> {
    timeout(TIMEOUT, UnixStream::connect(socket)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(stream: &mut UnixStream, message: &[u8]) -> io::Result<Vec<u8>> {
    let exchange = async {
        write_message(stream, message).await?;
        read_message(stream).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    };
    timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads a message without its length; `None` at the end.
pub(crate) async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length == 0 || length > LONGEST_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("agent message of {length} bytes")));
    }
    let mut message = vec![0; length as usize];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes a message with its length, in one piece.
pub(crate) async fn write_message(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    let mut whole = Zeroizing::new(Vec::with_capacity(message.len() + 4));
    whole.extend_from_slice(&length.to_be_bytes());
    whole.extend_from_slice(message);
    stream.write_all(&whole).await
}

/// Takes an SSH string off the front.
pub(crate) fn take_string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (string, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *bytes = rest;
    Some(string)
}

/// Keys and their comments in an agent's answer.
fn identities(answer: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let (&kind, rest) = answer.split_first()?;
    let (count, mut rest) = rest.split_first_chunk()?;
    if kind != message::IDENTITIES_ANSWER {
        return None;
    }
    (0..u32::from_be_bytes(*count)).map(|_| Some((take_string(&mut rest)?, take_string(&mut rest)?))).collect()
}

/// The message that adds a certificate with its key, to be forgotten at `until`.
fn add_message(
    key: &PrivateKey,
    certificate: &Certificate,
    comment: &str,
    until: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Zeroizing<Vec<u8>>, ssh_encoding::Error> {
    let mut message = Zeroizing::new(vec![message::ADD_ID_CONSTRAINED]);
    let blob = certificate.to_bytes().map_err(|_| ssh_encoding::Error::Length)?;
    let algorithm = take_string(&mut blob.as_slice()).ok_or(ssh_encoding::Error::Length)?;
    algorithm.encode(&mut *message)?;
    blob.encode(&mut *message)?;
    // What the certificate says already is left out.
    match key.key_data() {
        KeypairData::Rsa(pair) => {
            let private = pair.private();
            for number in [private.d(), private.iqmp(), private.p(), private.q()] {
                number.encode(&mut *message)?;
            }
        }
        KeypairData::Ecdsa(pair) => ssh_encoding_mpint(pair.private_key_bytes(), &mut message)?,
        KeypairData::Ed25519(pair) => pair.encode(&mut *message)?,
        _ => return Err(ssh_encoding::Error::Length),
    }
    comment.encode(&mut *message)?;
    message.push(CONSTRAIN_LIFETIME);
    u32::try_from((until - now).num_seconds().max(1)).unwrap_or(u32::MAX).encode(&mut *message)?;
    Ok(message)
}

/// A positive number as RFC 4251 §5 writes it.
fn ssh_encoding_mpint(number: &[u8], message: &mut Zeroizing<Vec<u8>>) -> Result<(), ssh_encoding::Error> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let digits = &number[start..];
    let sign = digits.first().is_some_and(|first| first & 0x80 != 0);
    (digits.len() + usize::from(sign)).encode(&mut **message)?;
    message.extend(sign.then_some(0));
    message.extend_from_slice(digits);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lists_of_agents_are_read_or_refused() {
        let list = [&[12, 0, 0, 0, 1, 0, 0, 0, 1, b'k', 0, 0, 0, 2][..], b"ab"].concat();
        assert_eq!(identities(&list).unwrap(), [(&b"k"[..], &b"ab"[..])]);
        assert_eq!(identities(&[12, 0, 0, 0, 0]).unwrap().len(), 0);
        for bad in [&[][..], &[5], &[12, 0], &[12, 0, 0, 0, 2, 0, 0, 0, 0], &list[..15]] {
            assert!(identities(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn numbers_have_no_zeroes_in_front_but_a_sign() {
        let encoded = |number: &[u8]| {
            let mut message = Zeroizing::new(Vec::new());
            ssh_encoding_mpint(number, &mut message).unwrap();
            message.to_vec()
        };
        assert_eq!(encoded(&[0, 0, 0x7f]), [0, 0, 0, 1, 0x7f]);
        assert_eq!(encoded(&[0x80, 1]), [0, 0, 0, 3, 0, 0x80, 1]);
    }

    #[tokio::test]
    async fn messages_without_measure_are_refused() {
        for length in [0, LONGEST_MESSAGE + 1] {
            assert!(read_message(&mut &length.to_be_bytes()[..]).await.is_err());
        }
        assert_eq!(read_message(&mut &b"\0\0\0\x02ab"[..]).await.unwrap().unwrap(), b"ab");
        assert!(read_message(&mut &b""[..]).await.unwrap().is_none());
    }
}
