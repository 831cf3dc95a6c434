//! The proxy in the name of nodes: host certificates that the Auth Service issues for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cache::Cache;
use parking_lot::Mutex;
use pki::keys::{KeyAlgorithm, PrivateKey};
use russh::keys::Certificate;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tonic::Request;
use tunnel::HostIdentity;
use wire::client::ApiChannel;
use wire::error::{Error, Result};
use wire::trust::GenerateHostCertRequest;
use wire::trust::trust_service_client::TrustServiceClient;
use wire::types::ServerV2;

use super::{Meeting, host_of};
use crate::tunnels::ssh_keys;

/// How long a certificate is used; it is valid twice as long.
const KEPT: Duration = Duration::from_secs(12 * 3600);
/// Certificates kept.
const MOST: usize = 4096;
/// How long the Auth Service may take.
const CALL: Duration = Duration::from_secs(10);

/// A key that this process alone has.
struct HostKey {
    private: Arc<russh::keys::PrivateKey>,
    /// A line of OpenSSH's authorized_keys form.
    public: String,
}

/// Identities of nodes as this proxy shows them.
pub(super) struct Hosts {
    channel: ApiChannel,
    cache: Cache,
    key: OnceCell<HostKey>,
    known: Mutex<HashMap<Vec<String>, (Certificate, Instant)>>,
}

impl Hosts {
    /// None yet; `channel` leads to the Auth Service.
    pub(super) fn new(channel: ApiChannel, cache: Cache) -> Self {
        Self { channel, cache, key: OnceCell::new(), known: Mutex::default() }
    }

    /// The key of all these identities, made when it is first needed. RSA, like that of every host: the configuration
    /// that clients generate for OpenSSH accepts nothing else.
    async fn key(&self) -> Result<&HostKey> {
        let make = || async {
            let generate = || {
                let key = PrivateKey::generate(KeyAlgorithm::Rsa2048)?;
                Ok(HostKey { private: Arc::new(key.to_ssh()?), public: key.public().to_ssh_line() })
            };
            let made = tokio::task::spawn_blocking(generate).await;
            let made = made.map_err(|_| Error::other("making a host key failed"))?;
            made.map_err(|error: pki::Error| Error::other(error.to_string()))
        };
        self.key.get_or_try_init(make).await
    }

    /// The identity for a node under the names by which clients know it.
    pub(super) async fn identity(&self, meeting: &Meeting) -> Result<HostIdentity> {
        let names = names(meeting);
        let known = self.known.lock().get(&names).filter(|(_, until)| *until > Instant::now()).map(|(c, _)| c.clone());
        let known = known.filter(|certificate| self.is_trusted(certificate));
        let certificate = match known {
            Some(certificate) => certificate,
            None => self.issue(meeting, names).await?,
        };
        Ok(HostIdentity { key: self.key().await?.private.clone(), certificate })
    }

    /// Whether clients believe who signed a certificate: its key may have been replaced since.
    fn is_trusted(&self, certificate: &Certificate) -> bool {
        let authority = self.cache.authority("host", &self.cache.cluster_name());
        let keys = authority.map(|authority| ssh_keys(&authority)).unwrap_or_default();
        keys.iter().any(|key| key.to_ssh().key_data() == certificate.signature_key())
    }

    async fn issue(&self, meeting: &Meeting, names: Vec<String>) -> Result<Certificate> {
        let ttl = i64::try_from(2 * KEPT.as_secs()).unwrap_or_default();
        let request = GenerateHostCertRequest {
            key: self.key().await?.public.clone().into_bytes(),
            host_id: node_id(meeting).to_owned(),
            node_name: names.first().cloned().unwrap_or_default(),
            principals: names.clone(),
            cluster_name: String::new(),
            role: "Node".to_owned(),
            ttl: Some(prost_types::Duration { seconds: ttl, nanos: 0 }),
        };
        let mut trust = TrustServiceClient::new(self.channel.clone());
        let answer = timeout(CALL, trust.generate_host_cert(Request::new(request))).await;
        let answer = answer.map_err(|_| Error::connection_problem("waited 10 s for a host certificate"))??;
        let line = String::from_utf8_lossy(&answer.into_inner().ssh_certificate).into_owned();
        let certificate = Certificate::from_openssh(line.trim());
        let certificate = certificate.map_err(|error| Error::other(format!("host certificate: {error}")))?;
        let mut known = self.known.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(names, (certificate.clone(), Instant::now() + KEPT));
        Ok(certificate)
    }
}

pub(super) fn node_id(meeting: &Meeting) -> &str {
    meeting.node.metadata.as_ref().map_or("", |metadata| &metadata.name)
}

/// The host as the client calls it, the node's own name and its id, alone and within their cluster.
///
/// For a server without an agent the Auth Service signs its own names alone, to which its address belongs: a client that
/// calls it otherwise finds out by itself.
fn names(meeting: &Meeting) -> Vec<String> {
    names_of(&meeting.node, meeting.agentless, (&meeting.name, &meeting.cluster))
}

fn names_of(node: &ServerV2, agentless: bool, (called, cluster): (&str, &str)) -> Vec<String> {
    let id = node.metadata.as_ref().map_or("", |metadata| &metadata.name);
    let spec = node.spec.as_ref();
    let hostname = spec.map_or("", |spec| &spec.hostname);
    let address = spec.filter(|_| agentless).map_or_else(String::new, |spec| host_of(&spec.addr));
    let own = || [hostname, id, &address].into_iter().filter(|name| !name.is_empty());
    let names: Vec<String> = own().map(str::to_owned).chain(own().map(|name| format!("{name}.{cluster}"))).collect();
    let fits = !agentless || names.iter().any(|name| name.eq_ignore_ascii_case(called));
    let called = (fits && !called.is_empty()).then(|| called.to_owned());
    let mut seen = HashSet::new();
    called.into_iter().chain(names).filter(|name| seen.insert(name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use wire::types::{Metadata, ServerSpecV2};

    use super::*;

    #[test]
    fn a_server_without_an_agent_is_shown_under_its_own_names_only() {
        let node = ServerV2 {
            metadata: Some(Metadata { name: "5c2".into(), ..Default::default() }),
            spec: Some(ServerSpecV2 { hostname: "db1".into(), addr: "[2001:db8::1]:22".into(), ..Default::default() }),
            ..Default::default()
        };
        let own = ["db1", "5c2", "2001:db8::1", "db1.one", "5c2.one", "2001:db8::1.one"];
        for (called, first) in [("db1", "db1"), ("2001:db8::1", "2001:db8::1"), ("DB1", "DB1"), ("web", "db1")] {
            let mut names = names_of(&node, true, (called, "one"));
            assert_eq!(names[0], first);
            names.retain(|name| !own.contains(&name.as_str()));
            assert_eq!(names, if called == "DB1" { vec!["DB1"] } else { Vec::new() }, "{called}");
        }
        let names = names_of(&node, false, ("alias", "one"));
        assert_eq!(names, ["alias", "db1", "5c2", "db1.one", "5c2.one"]);
    }
}
