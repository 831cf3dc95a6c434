//! Forwarding of agents: the user's own, or one with nothing but this login's certificate.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use russh::Channel;
use russh::client::{ChannelOpenHandle, Msg};
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{Certificate, HashAlg, PrivateKey};
use signature::Signer;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::account::Account;
use crate::agent::{comment, message, read_message, take_string, write_message};
use crate::error::{Error, Result};

/// Flag of a request that wants SHA-256 in an RSA signature (RFC 8332).
const RSA_SHA2_256: u32 = 2;

/// The agent that a host may use.
#[derive(Clone, Debug)]
pub enum Agent {
    /// The one at this socket.
    System(PathBuf),
    /// One of our own.
    Local(Arc<LocalAgent>),
}

/// An agent with one certificate.
pub struct LocalAgent {
    key: PrivateKey,
    certificate: Vec<u8>,
    comment: String,
    /// What it is there for.
    purpose: Purpose,
}

/// What an agent signs.
#[derive(Debug, PartialEq, Eq)]
enum Purpose {
    /// Whatever the user's programs on the host ask for.
    Any,
    /// Logins to SSH servers with its certificate, and nothing else; to this account, if one is named.
    Logins(Option<String>),
}

impl Agent {
    /// The user's agent.
    ///
    /// # Errors
    /// When there is none.
    pub fn system() -> Result<Self> {
        let socket = crate::agent::socket().ok_or_else(|| {
            let variable = crate::agent::SOCKET_VARIABLE;
            Error::other(format!("no agent can be forwarded: {variable} is not set (is ssh-agent running?)"))
        })?;
        Ok(Self::System(socket))
    }

    /// An agent with the certificate of an account.
    pub fn local(account: &Account) -> Result<Self> {
        let unusable = |error: &dyn std::fmt::Display| Error::other(format!("key for a forwarded agent: {error}"));
        let key = account.keys.ssh_key.to_ssh().map_err(|error| unusable(&error))?;
        let agent = LocalAgent::new(key, &account.keys.ssh_certificate, comment(account));
        Ok(Self::Local(Arc::new(agent.map_err(|error| unusable(&error))?)))
    }
}

/// Without the key.
impl fmt::Debug for LocalAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAgent").field("comment", &self.comment).finish_non_exhaustive()
    }
}

impl LocalAgent {
    fn new(key: PrivateKey, certificate: &Certificate, comment: String) -> Result<Self, russh::keys::ssh_key::Error> {
        Ok(Self { key, certificate: certificate.to_bytes()?, comment, purpose: Purpose::Any })
    }

    /// The agent of a proxy that records sessions: it logs in to the host in the user's name. Only in `login`, where that
    /// is known. Which host it is remains unknown: what is signed has nothing but the number of a connection.
    ///
    /// # Errors
    /// When the key is of no use for SSH.
    pub(crate) fn for_logins(account: &Account, certificate: &Certificate, login: Option<&str>) -> Result<Self> {
        let unusable = |error: &dyn std::fmt::Display| Error::other(format!("key for the proxy's login: {error}"));
        let key = account.keys.ssh_key.to_ssh().map_err(|error| unusable(&error))?;
        let agent = Self::new(key, certificate, comment(account)).map_err(|error| unusable(&error))?;
        Ok(Self { purpose: Purpose::Logins(login.map(str::to_owned)), ..agent })
    }

    /// Answers a channel that a host opens to the agent.
    pub(super) async fn serve(&self, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        reply.accept().await;
        if let Err(error) = self.answer(&mut channel.into_stream()).await {
            tracing::debug!(%error, "forwarded agent");
        }
    }

    /// Answers requests until the other side ends. It lists and signs; everything else fails.
    pub(crate) async fn answer(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
        while let Some(request) = read_message(stream).await? {
            let answer = match request.split_first() {
                Some((&message::REQUEST_IDENTITIES, _)) => self.list(),
                Some((&message::SIGN_REQUEST, rest)) => self.sign(rest),
                _ => None,
            };
            write_message(stream, answer.as_deref().unwrap_or(&[message::FAILURE])).await?;
        }
        Ok(())
    }

    fn list(&self) -> Option<Vec<u8>> {
        let mut answer = vec![message::IDENTITIES_ANSWER];
        1_u32.encode(&mut answer).ok()?;
        self.certificate.encode(&mut answer).ok()?;
        self.comment.as_bytes().encode(&mut answer).ok()?;
        Some(answer)
    }

    fn sign(&self, mut request: &[u8]) -> Option<Vec<u8>> {
        let (key, data) = (take_string(&mut request)?, take_string(&mut request)?);
        let flags = u32::from_be_bytes(*request.first_chunk()?);
        let plain = self.key.public_key().to_bytes().ok()?;
        if key != self.certificate && key != plain {
            return None;
        }
        if let Purpose::Logins(login) = &self.purpose
            && !is_login(data, login.as_deref(), &[&self.certificate, &plain])
        {
            tracing::debug!("the proxy asked to sign something else than a login");
            return None;
        }
        let signature: Signature = match self.key.key_data() {
            KeypairData::Rsa(pair) => {
                let hash = if flags & RSA_SHA2_256 == 0 { HashAlg::Sha512 } else { HashAlg::Sha256 };
                (pair, Some(hash)).try_sign(data).ok()?
            }
            _ => self.key.try_sign(data).ok()?,
        };
        let mut encoded = Vec::new();
        signature.encode(&mut encoded).ok()?;
        let mut answer = vec![message::SIGN_RESPONSE];
        encoded.encode(&mut answer).ok()?;
        Some(answer)
    }
}

/// Whether what is to be signed is a login to an SSH server with one of these public keys (RFC 4252 §7), in this name.
fn is_login(mut data: &[u8], login: Option<&str>, keys: &[&[u8]]) -> bool {
    const USERAUTH_REQUEST: u8 = 50;
    let data = &mut data;
    let text = |data: &mut &[u8], wanted: &[u8]| take_string(data).is_some_and(|found| found == wanted);
    let session = take_string(data).is_some_and(|id| (16..=64).contains(&id.len()));
    let request = data.split_off_first() == Some(&USERAUTH_REQUEST);
    let user = take_string(data).is_some_and(|user| login.is_none_or(|login| login.as_bytes() == user));
    let service = text(data, b"ssh-connection") && text(data, b"publickey");
    let signed = data.split_off_first() == Some(&1);
    session
        && request
        && user
        && service
        && signed
        && take_string(data).is_some() // the algorithm
        && take_string(data).is_some_and(|key| keys.contains(&key))
        && data.is_empty()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use pki::identity::Identity;
    use pki::keys::{KeyAlgorithm, PrivateKey as Key};
    use pki::ssh_cert::{CertificateFormat, Permits, SshIssuer, UserCertificateParams};
    use signature::Verifier;

    use super::*;

    /// An agent of somebody.
    pub(in crate::ssh) fn agent() -> Agent {
        Agent::Local(Arc::new(local(KeyAlgorithm::Ed25519)))
    }

    pub(crate) fn local(algorithm: KeyAlgorithm) -> LocalAgent {
        let (authority, key) = (Key::generate(KeyAlgorithm::Ed25519).unwrap(), Key::generate(algorithm).unwrap());
        let identity = Identity { username: "alice".into(), principals: vec!["root".into()], ..Default::default() };
        let now = chrono::Utc::now();
        let params = UserCertificateParams {
            identity: &identity,
            public_key: key.public(),
            now,
            not_after: Some(now + chrono::TimeDelta::hours(1)),
            permits: Permits::default(),
            format: CertificateFormat::Standard,
            extensions: &[],
        };
        let certificate = SshIssuer::new(authority).issue_user(&params).unwrap();
        LocalAgent::new(key.to_ssh().unwrap(), &certificate, "alice's".into()).unwrap()
    }

    #[test]
    fn signatures_are_those_of_the_certificate_s_key() {
        for algorithm in [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519] {
            let agent = local(algorithm);
            for flags in [0_u32, RSA_SHA2_256, 4] {
                let mut request = Vec::new();
                agent.certificate.encode(&mut request).unwrap();
                b"data".as_slice().encode(&mut request).unwrap();
                flags.encode(&mut request).unwrap();
                let answer = agent.sign(&request).unwrap();
                let blob = take_string(&mut &answer[1..]).unwrap();
                let signature = Signature::try_from(blob).unwrap();
                agent.key.public_key().key_data().verify(b"data", &signature).unwrap();
            }
        }
    }

    #[test]
    fn a_proxy_gets_signatures_for_logins_and_nothing_else() {
        let lent = |login: Option<&str>| LocalAgent {
            purpose: Purpose::Logins(login.map(str::to_owned)),
            ..local(KeyAlgorithm::Ed25519)
        };
        let agent = lent(Some("root"));
        let login_of = |agent: &LocalAgent, name: &str, service: &str, tail: &[u8]| {
            let mut data = Vec::new();
            [7_u8; 32].as_slice().encode(&mut data).unwrap();
            data.push(50);
            for text in [name, service, "publickey"] {
                text.encode(&mut data).unwrap();
            }
            data.push(1);
            "ssh-ed25519-cert-v01@openssh.com".encode(&mut data).unwrap();
            agent.certificate.encode(&mut data).unwrap();
            data.extend_from_slice(tail);
            data
        };
        let login = |service: &str, tail: &[u8]| login_of(&agent, "root", service, tail);
        let asked = |agent: &LocalAgent, data: &[u8]| {
            let mut request = Vec::new();
            agent.certificate.encode(&mut request).unwrap();
            data.encode(&mut request).unwrap();
            request.extend_from_slice(&[0; 4]);
            agent.sign(&request).is_some()
        };
        let signs = |data: &[u8]| asked(&agent, data);
        assert!(signs(&login("ssh-connection", b"")));
        assert!(!signs(&login_of(&agent, "admin", "ssh-connection", b"")), "another account");
        let of_any = lent(None);
        assert!(!signs(&login_of(&of_any, "root", "ssh-connection", b"")), "another certificate");
        assert!(asked(&of_any, &login_of(&of_any, "admin", "ssh-connection", b"")));
        for other in [login("ssh-userauth", b""), login("ssh-connection", b"x"), b"SSHSIG".to_vec(), Vec::new()] {
            assert!(!signs(&other));
        }
    }

    #[tokio::test]
    async fn it_lists_one_key_and_refuses_all_that_is_not_for_it() {
        let agent = local(KeyAlgorithm::Ed25519);
        let (mut near, mut far) = tokio::io::duplex(1 << 16);
        let serving = async { agent.answer(&mut far).await };
        let asking = async {
            let mut answers = Vec::new();
            // A list, another key, nothing to sign, removal of all keys.
            for request in [&[11][..], &[13, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0], &[13], &[19]] {
                write_message(&mut near, request).await.unwrap();
                answers.push(read_message(&mut near).await.unwrap().unwrap());
            }
            drop(near);
            answers
        };
        let (served, answers) = tokio::join!(serving, asking);
        served.unwrap();
        assert_eq!(&answers[0][..5], [12, 0, 0, 0, 1]);
        assert!(answers[1..].iter().all(|answer| *answer == [message::FAILURE]));
    }
}
