//! The client's address from a balancer that speaks HTTP.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use wire::error::ErrorKind;

use super::{ClientAddress, Web, WebError};
use crate::listen::Place;

const HEADER: &str = "x-forwarded-for";

/// Believes `X-Forwarded-For` where that is configured, for the request and for what it is upgraded to.
pub(super) async fn client(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    if web.settings.trust_x_forwarded_for
        && let Some(ClientAddress(seen)) = request.extensions().get::<ClientAddress>().copied()
    {
        match address(request.headers(), seen) {
            Ok(Some(address)) => {
                request.extensions_mut().insert(ClientAddress(address));
                if let Some(place) = request.extensions_mut().get_mut::<Place>() {
                    place.counted = address.ip();
                }
            }
            Ok(None) => {}
            Err(reason) => return WebError::new(ErrorKind::BadParameter, reason).into_response(),
        }
    }
    next.run(request).await
}

/// The one address of the one header, if there is one; without a port, it has that which was seen. Several would leave open which
/// is the client.
fn address(headers: &HeaderMap, seen: SocketAddr) -> Result<Option<SocketAddr>, String> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let text = first.to_str().unwrap_or_default().trim();
    if values.next().is_some() || text.contains(',') {
        return Err("expected one X-Forwarded-For header with one address, found several".to_owned());
    }
    let with_port = text.parse::<SocketAddr>().ok();
    let without = || text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, seen.port()));
    with_port.or_else(without).map(Some).ok_or_else(|| "X-Forwarded-For: expected an address".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(values: &[&'static str]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().unwrap());
        }
        address(&headers, "10.0.0.9:5000".parse().unwrap()).map(|found| found.map(|a| a.to_string()))
    }

    #[test]
    fn one_address_is_believed_and_several_are_refused() {
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&["192.0.2.1"]).unwrap().unwrap(), "192.0.2.1:5000");
        assert_eq!(of(&["192.0.2.1:7"]).unwrap().unwrap(), "192.0.2.1:7");
        assert_eq!(of(&["2001:db8::1"]).unwrap().unwrap(), "[2001:db8::1]:5000");
        for bad in [&["192.0.2.1, 192.0.2.2"][..], &["192.0.2.1", "192.0.2.2"], &["unknown"], &[""]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
