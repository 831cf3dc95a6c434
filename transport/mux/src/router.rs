//! The one table that says where a TLS connection goes.
//!
//! A decision needs only the ClientHello, so it is made before a single byte is answered:
//!
//! 1. A server name with a registered prefix decides alone.
//! 2. Otherwise the client's application protocols are walked in the client's order; the first that any rule matches
//!    decides. A client that offers none counts as offering `http/1.1`.
//! 3. Nothing matched: the connection is closed.
//!
//! The handler thus follows the client's order while the negotiated name follows the server's; real clients put the
//! name they want first, so both agree.

use std::sync::Arc;

use rustls::ServerConfig;

use crate::{ClientHello, alpn};

/// Routes from server names and application protocols to handlers of type `H` (usually an enum of the proxy).
#[derive(Debug, Clone)]
pub struct Router<H> {
    names: Vec<(String, Route<H>)>,
    protocols: Vec<(ProtocolMatch, Route<H>)>,
}

/// Where a connection goes and who speaks TLS with the client.
#[derive(Debug, Clone)]
pub struct Route<H> {
    /// Who takes the connection.
    pub handler: H,
    /// Whether TLS ends before the handler.
    pub tls: Tls,
}

/// Who ends TLS.
#[derive(Clone)]
pub enum Tls {
    /// The router, with a configuration from this source; the handler gets clear bytes.
    Terminate(Arc<dyn ConfigSource>),
    /// The handler or somebody behind it; it gets the connection with the ClientHello still to be read.
    Forward,
}

/// Yields the TLS configuration for one connection: certificates may have been renewed since the last, and the
/// authorities for client certificates may depend on the server name asked for.
pub trait ConfigSource: Send + Sync {
    /// `None` closes the connection, for example when the server name is that of another cluster.
    fn config(&self, hello: &ClientHello) -> Option<Arc<ServerConfig>>;
}

/// Which application protocol names a rule takes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ProtocolMatch {
    Exact(String),
    Prefix(String),
}

/// The outcome of [`Router::decide`].
#[derive(Debug)]
pub struct Choice<'r, H> {
    /// The route taken.
    pub route: &'r Route<H>,
    /// What led to it.
    pub because: Because,
}

/// What decided about a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// The server name began with a registered prefix.
    ServerName(String),
    /// This application protocol of the client.
    Protocol(Vec<u8>),
    /// The client offered no application protocol.
    NoProtocol,
}

impl<H> Router<H> {
    /// A table without routes: every connection is closed.
    pub fn new() -> Self {
        Self { names: Vec::new(), protocols: Vec::new() }
    }

    /// Sends server names that begin with `prefix` to `route`, whatever protocols the client offers.
    #[must_use]
    pub fn server_name_prefix(mut self, prefix: &str, route: Route<H>) -> Self {
        self.names.push((prefix.to_ascii_lowercase(), route));
        self
    }

    /// Sends clients that offer one of `names` to `route`.
    #[must_use]
    pub fn protocols<'a>(mut self, names: impl IntoIterator<Item = &'a str>, route: Route<H>) -> Self
    where
        H: Clone,
    {
        let matches = names.into_iter().map(|name| ProtocolMatch::Exact(name.to_owned()));
        self.protocols.extend(matches.map(|name| (name, route.clone())));
        self
    }

    /// Sends clients that offer one of `names`, with or without the suffix for framing with pings, to `route`.
    #[must_use]
    pub fn protocols_with_ping<'a>(mut self, names: impl IntoIterator<Item = &'a str>, route: Route<H>) -> Self
    where
        H: Clone,
    {
        for name in names {
            for name in [name.to_owned(), format!("{name}{}", alpn::PING_SUFFIX)] {
                self.protocols.push((ProtocolMatch::Exact(name), route.clone()));
            }
        }
        self
    }

    /// Sends clients that offer a name with this prefix to `route`.
    #[must_use]
    pub fn protocol_prefix(mut self, prefix: &str, route: Route<H>) -> Self {
        self.protocols.push((ProtocolMatch::Prefix(prefix.to_owned()), route));
        self
    }

    /// The route for this ClientHello; `None` means that the connection is closed.
    pub fn decide(&self, hello: &ClientHello) -> Option<Choice<'_, H>> {
        if let Some(name) = &hello.server_name
            && let Some((_, route)) = self.names.iter().find(|(prefix, _)| name.starts_with(prefix.as_str()))
        {
            return Some(Choice { route, because: Because::ServerName(name.clone()) });
        }
        if hello.alpn.is_empty() {
            let route = self.route_of(alpn::HTTP_1_1.as_bytes())?;
            return Some(Choice { route, because: Because::NoProtocol });
        }
        hello.alpn.iter().find_map(|name| {
            let route = self.route_of(name)?;
            Some(Choice { route, because: Because::Protocol(name.clone()) })
        })
    }

    fn route_of(&self, name: &[u8]) -> Option<&Route<H>> {
        self.protocols.iter().find(|(rule, _)| rule.takes(name)).map(|(_, route)| route)
    }
}

impl<H> Default for Router<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H> Route<H> {
    /// TLS ends before the handler.
    pub fn terminate(handler: H, configs: Arc<dyn ConfigSource>) -> Self {
        Self { handler, tls: Tls::Terminate(configs) }
    }

    /// TLS is passed on untouched.
    pub fn forward(handler: H) -> Self {
        Self { handler, tls: Tls::Forward }
    }
}

impl ProtocolMatch {
    fn takes(&self, name: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => name == exact.as_bytes(),
            Self::Prefix(prefix) => name.starts_with(prefix.as_bytes()),
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Terminate(_) => "Terminate",
            Self::Forward => "Forward",
        })
    }
}

/// One configuration for all connections.
impl ConfigSource for Arc<ServerConfig> {
    fn config(&self, _: &ClientHello) -> Option<Arc<ServerConfig>> {
        Some(self.clone())
    }
}

/// Authorities for client certificates by the cluster that the server name stands for.
impl ConfigSource for pki::tls::ServerConfigs {
    fn config(&self, hello: &ClientHello) -> Option<Arc<ServerConfig>> {
        let selected = self.select(hello.server_name.as_deref());
        selected.inspect_err(|error| tracing::debug!(%error, "no TLS configuration")).ok()
    }
}

/// A source made of a function.
impl<F> ConfigSource for F
where
    F: Fn(&ClientHello) -> Option<Arc<ServerConfig>> + Send + Sync,
{
    fn config(&self, hello: &ClientHello) -> Option<Arc<ServerConfig>> {
        self(hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server_name::KUBERNETES_PREFIX;

    fn table() -> Router<&'static str> {
        Router::new()
            .server_name_prefix(KUBERNETES_PREFIX, Route::forward("kubernetes"))
            .protocols([alpn::HTTP_1_1, alpn::H2, alpn::ACME_TLS], Route::forward("web"))
            .protocols([alpn::REVERSE_TUNNEL], Route::forward("tunnel"))
            .protocols([alpn::PROXY_SSH], Route::forward("ssh"))
            .protocols([alpn::PROXY_SSH_GRPC], Route::forward("transport"))
            .protocols([alpn::PROXY_GRPC], Route::forward("join"))
            .protocol_prefix(alpn::AUTH_PREFIX, Route::forward("auth"))
            .protocols_with_ping([alpn::TCP], Route::forward("tcp application"))
            .protocols_with_ping([alpn::POSTGRES], Route::forward("postgres"))
            .protocol_prefix(alpn::MYSQL, Route::forward("mysql"))
            .protocols_with_ping(alpn::DATABASE_TLS, Route::forward("database tls"))
    }

    fn decide(name: Option<&str>, protocols: &[&str]) -> Option<&'static str> {
        let hello = ClientHello { server_name: name.map(str::to_owned), alpn: alpn::list(protocols.iter().copied()) };
        table().decide(&hello).map(|choice| choice.route.handler)
    }

    #[test]
    fn connections_go_where_name_and_protocols_say() {
        let auth = alpn::auth("root");
        let cases: [(Option<&str>, &[&str], Option<&str>); 24] = [
            (None, &[], Some("web")),
            (Some("proxy.example.com"), &["http/1.1"], Some("web")),
            (Some("proxy.example.com"), &["h2", "http/1.1"], Some("web")),
            (None, &["acme-tls/1"], Some("web")),
            (Some("kube-teleport-proxy-alpn.proxy.example.com"), &["h2", "http/1.1"], Some("kubernetes")),
            (Some("kube-teleport-proxy-alpn.proxy.example.com"), &[], Some("kubernetes")),
            (Some("x.kube-teleport-proxy-alpn.proxy.example.com"), &[], Some("web")),
            (None, &["teleport-reversetunnel"], Some("tunnel")),
            (None, &["teleport-reversetunnelv2", "teleport-reversetunnel"], Some("tunnel")),
            (None, &["teleport-reversetunnelv2"], None),
            (None, &["teleport-proxy-ssh"], Some("ssh")),
            (None, &["teleport-proxy-ssh-grpc", "h2"], Some("transport")),
            (None, &["h2", "teleport-proxy-ssh-grpc"], Some("web")),
            (None, &["teleport-proxy-grpc", "h2"], Some("join")),
            (None, &[&auth, "h2"], Some("auth")),
            (None, &[&auth, "http/1.1"], Some("auth")),
            (None, &["teleport-tcp-ping", "teleport-tcp"], Some("tcp application")),
            (None, &["teleport-postgres"], Some("postgres")),
            (None, &["teleport-mysql-ping", "teleport-mysql", "teleport-mysql-OC4w"], Some("mysql")),
            (None, &["teleport-redis-ping", "teleport-redis"], Some("database tls")),
            (None, &["teleport-unheard-of", "h2"], Some("web")),
            (None, &["teleport-proxy-grpc-mtls", "teleport-unheard-of"], None),
            (None, &["HTTP/1.1"], None),
            (None, &["unheard-of"], None),
        ];
        for (name, protocols, expected) in cases {
            assert_eq!(decide(name, protocols), expected, "{name:?} {protocols:?}");
        }
    }

    #[test]
    fn a_choice_says_what_it_rests_on() {
        let table = table();
        let because = |hello: ClientHello| table.decide(&hello).map(|choice| choice.because);
        assert_eq!(because(ClientHello::default()), Some(Because::NoProtocol));
        let hello = ClientHello { server_name: None, alpn: alpn::list(["?", "h2"]) };
        assert_eq!(because(hello), Some(Because::Protocol(b"h2".to_vec())));
    }

    #[test]
    fn an_empty_table_closes_every_connection() {
        assert!(Router::<()>::new().decide(&ClientHello::default()).is_none());
    }
}
