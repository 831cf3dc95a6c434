//! Passing load balancers that end TLS: finding out that there is one, and asking the proxy behind it for a
//! connection upgrade. See [`mux::upgrade`] for what follows.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mux::upgrade::{Content, Form, HEADER, PATH, Side, Upgraded, accept_key};
use mux::{Rewind, alpn};
use rustls::{AlertDescription, PeerMisbehaved};
use tokio::io::AsyncWriteExt;

use crate::address::HostPort;
use crate::deadline::Deadline;
use crate::environment::Traffic;
use crate::http_head::{self, Head};
use crate::stream::{BoxStream, TlsStream};
use crate::tcp::Dialer;
use crate::tls::{TlsSetup, Verify};
use crate::{DialError, EnvironmentLookup};

/// Overrides detection: `true`, `false`, or a list `address=bool` separated by `,` or `;`.
pub const OVERRIDE_VARIABLE: &str = "TELEPORT_TLS_ROUTING_CONN_UPGRADE";
/// Restricts the forms asked for: `websocket` or `legacy`; anything else means both.
pub const MODE_VARIABLE: &str = "TELEPORT_TLS_ROUTING_CONN_UPGRADE_MODE";

/// Time for the test connection.
const TEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The forms a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpgradeMode {
    /// Only WebSocket.
    WebSocket,
    /// Only the raw forms of older servers.
    Legacy,
    /// The server may choose.
    #[default]
    Both,
}

impl UpgradeMode {
    /// Reads [`MODE_VARIABLE`].
    pub fn from_lookup(lookup: EnvironmentLookup<'_>) -> Self {
        match lookup(MODE_VARIABLE).as_deref() {
            Some("websocket") => Self::WebSocket,
            Some("legacy") => Self::Legacy,
            _ => Self::Both,
        }
    }
}

/// What [`OVERRIDE_VARIABLE`] says about an address, if anything.
pub fn override_for(lookup: EnvironmentLookup<'_>, address: &HostPort) -> Option<bool> {
    let value = lookup(OVERRIDE_VARIABLE)?;
    if let Some(all) = parse_bool(value.trim()) {
        return Some(all);
    }
    let address = address.to_string();
    value.split([',', ';']).find_map(|entry| {
        let (named, needed) = entry.split_once('=')?;
        let named = named.trim();
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        (named.eq_ignore_ascii_case(&address) || named.eq_ignore_ascii_case(host)).then(|| parse_bool(needed.trim()))?
    })
}

/// Asks the proxy, with a TLS connection that offers a single name only a proxy knows, whether that name arrives.
///
/// Nothing is sent inside, so the certificate does not matter here. An error says that the test could not be made; a
/// failed handshake ([`DialError::Tls`]) usually means that no upgrade is needed.
pub async fn is_needed(dialer: &Dialer, address: &HostPort) -> Result<bool, DialError> {
    let setup = TlsSetup::new(&address.host, &[alpn::REVERSE_TUNNEL], &Verify::Insecure, None)?;
    let test = dialer.clone().with_timeout(TEST_TIMEOUT);
    let needed = match test.tls(address, Traffic::Raw, &setup).await {
        Ok(stream) => stream.get_ref().1.alpn_protocol().is_none(),
        Err(error) if protocol_was_stripped(&error) => true,
        Err(error) => return Err(error),
    };
    tracing::debug!(%address, needed, "connection upgrade test");
    Ok(needed)
}

/// Whether a handshake failed because the other side does not know the name it was offered.
fn protocol_was_stripped(error: &DialError) -> bool {
    use rustls::Error::{AlertReceived, NoApplicationProtocol, PeerMisbehaved as Misbehaved};
    matches!(
        error.tls_error(),
        Some(
            AlertReceived(AlertDescription::NoApplicationProtocol)
                | NoApplicationProtocol
                | Misbehaved(PeerMisbehaved::SelectedUnofferedApplicationProtocol)
        )
    )
}

/// Turns an HTTPS connection into one that carries bytes to the proxy's router.
pub(crate) async fn upgrade(
    deadline: &Deadline,
    address: &HostPort,
    mut stream: TlsStream,
    content: Content,
    mode: UpgradeMode,
) -> Result<BoxStream, DialError> {
    let failed = |problem: String| DialError::Upgrade { target: address.clone(), problem };
    let mut random = [0; 16];
    let provider = pki::tls::crypto_provider();
    provider.secure_random.fill(&mut random).map_err(|_| failed("no random numbers".to_owned()))?;
    let key = STANDARD.encode(random);
    let request = request(address, content, mode, &key);
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        http_head::read(&mut stream).await
    };
    let step = format!("{address} to answer the connection upgrade");
    let (head, rest) = deadline.wait(step, exchange).await?.map_err(|error| failed(error.to_string()))?;
    let form = granted(&head, content, &key).map_err(failed)?;
    Ok(Box::new(Upgraded::new(form, Side::Client, Rewind::new(rest, stream))))
}

fn request(address: &HostPort, content: Content, mode: UpgradeMode, key: &str) -> String {
    let name = content.name();
    let mut request = format!("GET {PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n");
    if mode != UpgradeMode::Legacy {
        request.push_str(&format!(
            "Upgrade: websocket\r\nSec-WebSocket-Protocol: {name}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {key}\r\n"
        ));
    }
    if mode != UpgradeMode::WebSocket {
        request.push_str(&format!("Upgrade: {name}\r\n{HEADER}: {name}\r\n"));
    }
    request.push_str("\r\n");
    request
}

/// The form that an answer grants, or what is wrong with it.
fn granted(head: &Head, content: Content, key: &str) -> Result<Form, String> {
    match head.status {
        101 => {}
        404 => return Err("not implemented by the server".to_owned()),
        _ => return Err(format!("answered {}", head.status_text())),
    }
    let has = |header: &str, value: &str| head.values(header).any(|found| found.trim() == value);
    if head.values("upgrade").any(|value| value.trim().eq_ignore_ascii_case("websocket")) {
        if !has("sec-websocket-accept", &accept_key(key)) {
            return Err("the answer does not belong to the request (Sec-WebSocket-Accept)".to_owned());
        }
        if !has("sec-websocket-protocol", content.name()) {
            return Err("another sub-protocol was chosen (Sec-WebSocket-Protocol)".to_owned());
        }
        return Ok(Form::WebSocket(content));
    }
    if has("upgrade", content.name()) || has(HEADER, content.name()) {
        return Ok(Form::Legacy(content));
    }
    Err("another protocol was chosen (Upgrade)".to_owned())
}

/// The texts for booleans that configuration of this kind has always taken.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" | "yes" | "on" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_environment_overrides_detection() {
        let address: HostPort = "proxy.test:443".parse().unwrap();
        let said = |value: &str| override_for(&|_| Some(value.to_owned()), &address);
        assert_eq!(override_for(&|_| None, &address), None);
        for (value, expected) in [
            ("true", Some(true)),
            ("0", Some(false)),
            ("proxy.test:443=true", Some(true)),
            ("other.test:443=true;PROXY.test:443=false", Some(false)),
            ("proxy.test=1,x=0", Some(true)),
            ("proxy.test:444=true", None),
            ("maybe", None),
            ("proxy.test:443=maybe", None),
        ] {
            assert_eq!(said(value), expected, "{value}");
        }
    }

    #[test]
    fn both_forms_are_asked_for_in_one_request() {
        let address: HostPort = "proxy.test:443".parse().unwrap();
        let text = request(&address, Content::AlpnPing, UpgradeMode::Both, "key");
        assert!(text.starts_with("GET /webapi/connectionupgrade HTTP/1.1\r\nHost: proxy.test:443\r\n"));
        assert_eq!(text.matches("Upgrade: ").count(), 3);
        assert!(!request(&address, Content::Alpn, UpgradeMode::Legacy, "key").contains("websocket"));
        assert!(!request(&address, Content::Alpn, UpgradeMode::WebSocket, "key").contains(HEADER));
    }

    #[test]
    fn answers_are_checked() {
        let head = |status: u16, headers: &[(&str, &str)]| Head {
            status,
            reason: String::new(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let granted = |status, headers: &[(&str, &str)]| granted(&head(status, headers), Content::AlpnPing, "key");
        let accept = accept_key("key");
        let websocket =
            [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", &accept), ("Sec-WebSocket-Protocol", "alpn-ping")];
        assert_eq!(granted(101, &websocket), Ok(Form::WebSocket(Content::AlpnPing)));
        assert!(granted(101, &websocket[..2]).is_err());
        assert!(granted(101, &[websocket[0], ("Sec-WebSocket-Accept", "x"), websocket[2]]).is_err());
        assert_eq!(granted(101, &[("Upgrade", "alpn-ping")]), Ok(Form::Legacy(Content::AlpnPing)));
        assert_eq!(granted(101, &[("X-Teleport-Upgrade", "alpn-ping")]), Ok(Form::Legacy(Content::AlpnPing)));
        assert!(granted(101, &[("Upgrade", "alpn")]).is_err());
        assert!(granted(404, &[]).unwrap_err().contains("not implemented"));
        assert!(granted(200, &websocket).is_err());
    }
}
