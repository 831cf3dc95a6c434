//! Connections that a layer-7 balancer carried here as HTTP, and that hold TLS inside.

use std::net::SocketAddr;

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use mux::upgrade::{Content, Form, HEADER, Side, Upgraded, accept_key};
use tokio::sync::mpsc;
use tracing::debug;
use wire::error::ErrorKind;

use super::{ClientAddress, Web, WebError, WebResult};
use crate::listen::Place;

/// What carries the inner connection.
pub(crate) type UpgradedStream = Upgraded<TokioIo<hyper::upgrade::Upgraded>>;

/// A connection ready for the TLS router.
pub(crate) struct UpgradedConnection {
    /// The inner bytes.
    pub stream: UpgradedStream,
    /// Where the client is.
    pub client: SocketAddr,
    /// Its place among the client's connections, which the upgrade does not give back.
    pub place: Place,
}

/// The way from this endpoint back to the router.
#[derive(Clone)]
pub(crate) struct Upgrades(mpsc::Sender<UpgradedConnection>);

impl Upgrades {
    /// A way, and where it ends.
    pub(crate) fn channel() -> (Self, mpsc::Receiver<UpgradedConnection>) {
        let (sender, receiver) = mpsc::channel(64);
        (Self(sender), receiver)
    }
}

/// Answers 101 and hands the connection over.
pub(super) async fn upgrade(
    State(web): State<Web>,
    Extension(client): Extension<ClientAddress>,
    Extension(place): Extension<Place>,
    mut request: Request,
) -> WebResult {
    let headers = request.headers();
    let wanted = values(headers, HEADER).chain(values(headers, "upgrade"));
    let protocols = values(headers, "sec-websocket-protocol");
    let form = Form::choose(wanted, protocols)
        .ok_or_else(|| WebError::new(ErrorKind::NotFound, "no supported upgrade was asked for"))?;
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    describe(&mut response, form, headers)?;
    let upgraded = hyper::upgrade::on(&mut request);
    let upgrades = web.upgrades.clone();
    web.tasks.spawn(async move {
        match upgraded.await {
            Ok(stream) => {
                let stream = Upgraded::new(form, Side::Server, TokioIo::new(stream));
                let _ = upgrades.0.send(UpgradedConnection { stream, client: client.0, place }).await; // shutting down
            }
            Err(error) => debug!(%error, "connection upgrade failed"),
        }
    });
    Ok(response)
}

/// The headers that confirm the chosen form.
fn describe(response: &mut Response, form: Form, request: &HeaderMap) -> WebResult<()> {
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    match form {
        Form::WebSocket(content) => {
            let key = values(request, "sec-websocket-key")
                .next()
                .ok_or_else(|| WebError::new(ErrorKind::BadParameter, "missing Sec-WebSocket-Key"))?;
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert("sec-websocket-protocol", HeaderValue::from_static(name(content)));
            if let Ok(value) = HeaderValue::from_str(&accept_key(key)) {
                headers.insert("sec-websocket-accept", value);
            }
        }
        Form::Legacy(content) => {
            headers.insert(header::UPGRADE, HeaderValue::from_static(name(content)));
            headers.insert("x-teleport-upgrade", HeaderValue::from_static(name(content)));
        }
    }
    Ok(())
}

fn name(content: Content) -> &'static str {
    content.name()
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let all = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).map(str::trim)
}
