//! What one end of a tunnel asks the other to connect to.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Stands for the Auth Service of whoever accepts the request.
pub const REMOTE_AUTH_SERVER: &str = "@remote-auth-server";

/// Stands for the one service of the agent at the other end.
pub const LOCAL_NODE: &str = "@local-node";

/// Stands for the Kubernetes service of the agent at the other end.
pub const LOCAL_KUBERNETES: &str = "remote.kube.proxy.teleport.cluster.local";

/// Stands for the Windows desktop service of the agent at the other end.
pub const LOCAL_WINDOWS_DESKTOP: &str = "remote.windows_desktop.proxy.teleport.cluster.local";

/// What kind of service is reached through a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunnelType {
    /// An SSH server.
    #[default]
    Node,
    /// An Application Service agent.
    App,
    /// A Kubernetes Service agent.
    Kube,
    /// A Database Service agent.
    Db,
    /// A Windows Desktop Service agent.
    WindowsDesktop,
    /// An Okta Service agent.
    Okta,
    /// The proxy of a trusted cluster.
    Proxy,
}

/// A word that names no kind of tunnel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown tunnel type {0:?}")]
pub struct UnknownTunnelType(pub String);

impl TunnelType {
    /// The word for it on the wire and in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::App => "app",
            Self::Kube => "kube",
            Self::Db => "db",
            Self::WindowsDesktop => "windows_desktop",
            Self::Okta => "okta",
            Self::Proxy => "proxy",
        }
    }

    /// The kind of tunnel that an agent with this system role in its host certificate holds.
    pub fn of_role(role: &str) -> Option<Self> {
        match role {
            "Node" => Some(Self::Node),
            "App" => Some(Self::App),
            "Kube" => Some(Self::Kube),
            "Db" => Some(Self::Db),
            "WindowsDesktop" => Some(Self::WindowsDesktop),
            "Okta" => Some(Self::Okta),
            "Proxy" => Some(Self::Proxy),
            _ => None,
        }
    }
}

impl fmt::Display for TunnelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TunnelType {
    type Err = UnknownTunnelType;

    /// Reads the wire form; nothing at all means a node.
    fn from_str(word: &str) -> Result<Self, UnknownTunnelType> {
        match word {
            "" | "node" => Ok(Self::Node),
            "app" => Ok(Self::App),
            "kube" => Ok(Self::Kube),
            "db" => Ok(Self::Db),
            "windows_desktop" => Ok(Self::WindowsDesktop),
            "okta" => Ok(Self::Okta),
            "proxy" => Ok(Self::Proxy),
            other => Err(UnknownTunnelType(other.to_owned())),
        }
    }
}

/// A request to connect a stream to something: the JSON payload of a `teleport-transport-dial` request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DialRequest {
    /// `host:port`, or one of the special addresses of this module.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// `<host uuid>.<cluster name>` of the agent to go through.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_id: String,
    /// The kind of service, as in [`TunnelType::as_str`]; empty means a node.
    pub conn_type: String,
    /// `ip:port` the client really comes from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_src_addr: String,
    /// `ip:port` the client connected to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_dst_addr: String,
    /// Whether the target is an OpenSSH server that runs no agent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_agentless_node: bool,
}

/// Why a dial request makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialRequestError {
    /// It names no target.
    #[error("serverID or address required")]
    NoTarget,
    /// It names a kind of service that does not exist.
    #[error(transparent)]
    UnknownType(#[from] UnknownTunnelType),
    /// It is neither JSON nor text.
    #[error("dial request is not text")]
    NotText,
}

impl DialRequest {
    /// A request for the one service of an agent.
    pub fn local_service(server_id: impl Into<String>, kind: TunnelType) -> Self {
        let address = match kind {
            TunnelType::Kube => LOCAL_KUBERNETES,
            TunnelType::WindowsDesktop => LOCAL_WINDOWS_DESKTOP,
            _ => LOCAL_NODE,
        };
        Self {
            address: address.to_owned(),
            server_id: server_id.into(),
            conn_type: kind.as_str().to_owned(),
            ..Self::default()
        }
    }

    /// A request for the Auth Service of whoever accepts it.
    pub fn auth_server() -> Self {
        Self { address: REMOTE_AUTH_SERVER.to_owned(), ..Self::default() }
    }

    /// Says where the client comes from and which address it connected to.
    pub fn with_client(mut self, source: SocketAddr, destination: Option<SocketAddr>) -> Self {
        self.client_src_addr = source.to_string();
        self.client_dst_addr = destination.map(|address| address.to_string()).unwrap_or_default();
        self
    }

    /// Reads a payload: JSON, or in the oldest form nothing but the address.
    pub fn from_payload(payload: &[u8]) -> Result<Self, DialRequestError> {
        let request = match serde_json::from_slice::<Self>(payload) {
            Ok(request) => request,
            Err(_) => Self {
                address: std::str::from_utf8(payload).map_err(|_| DialRequestError::NotText)?.to_owned(),
                ..Self::default()
            },
        };
        if request.address.is_empty() && request.server_id.is_empty() {
            return Err(DialRequestError::NoTarget);
        }
        request.tunnel_type()?;
        Ok(request)
    }

    /// The JSON form.
    pub fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The kind of service asked for.
    pub fn tunnel_type(&self) -> Result<TunnelType, UnknownTunnelType> {
        self.conn_type.parse()
    }

    /// Where the client comes from, if that was said and makes sense.
    pub fn client_source(&self) -> Option<SocketAddr> {
        self.client_src_addr.parse().ok()
    }

    /// Which address the client connected to, if that was said and makes sense.
    pub fn client_destination(&self) -> Option<SocketAddr> {
        self.client_dst_addr.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_json_form_leaves_out_what_is_empty_but_never_the_type() {
        let request = DialRequest { server_id: "id.cluster".to_owned(), ..DialRequest::default() };
        assert_eq!(request.to_payload(), br#"{"server_id":"id.cluster","conn_type":""}"#);
        let request =
            DialRequest::local_service("id.cluster", TunnelType::Kube).with_client("10.0.0.1:5".parse().unwrap(), None);
        assert_eq!(
            String::from_utf8(request.to_payload()).unwrap(),
            r#"{"address":"remote.kube.proxy.teleport.cluster.local","server_id":"id.cluster","conn_type":"kube","client_src_addr":"10.0.0.1:5"}"#,
        );
    }

    #[test]
    fn a_request_reads_back_as_written_and_tolerates_newer_fields() {
        let request = DialRequest::local_service("id.cluster", TunnelType::Node);
        assert_eq!(DialRequest::from_payload(&request.to_payload()), Ok(request));
        let newer = br#"{"address":"@local-node","conn_type":"","permit":"x","is_agentless_node":true}"#;
        assert!(DialRequest::from_payload(newer).unwrap().is_agentless_node);
    }

    #[test]
    fn a_payload_that_is_not_json_is_an_address() {
        let request = DialRequest::from_payload(b"10.0.0.1:3022").unwrap();
        assert_eq!((request.address.as_str(), request.tunnel_type()), ("10.0.0.1:3022", Ok(TunnelType::Node)));
    }

    #[test]
    fn requests_without_sense_are_refused() {
        let cases: [(&[u8], &str); 4] = [
            (b"", "serverID or address required"),
            (br#"{"conn_type":"node"}"#, "serverID or address required"),
            (br#"{"address":"a:1","conn_type":"toaster"}"#, "unknown tunnel type \"toaster\""),
            (b"\xff\xfe", "dial request is not text"),
        ];
        for (payload, message) in cases {
            assert_eq!(DialRequest::from_payload(payload).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn every_kind_of_tunnel_reads_back_as_written() {
        for role in ["Node", "App", "Kube", "Db", "WindowsDesktop", "Okta", "Proxy"] {
            let kind = TunnelType::of_role(role).unwrap();
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!(TunnelType::of_role("Auth"), None);
    }
}
