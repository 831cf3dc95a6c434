//! The web API and the pages of the public port.

mod error;
mod events;
mod forwarded;
mod join;
mod login;
mod pages;
mod ping;
mod session;
mod signup;
mod upgrade;
mod user;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use cache::Cache;
use mux::rate::{Rate, RateLimit};
use tokio_util::task::TaskTracker;
use wire::error::ErrorKind;

pub(crate) use error::{WebError, WebResult};

use crate::dial::NodeDialer;
use crate::gate::Gate;
use crate::listen::Place;
use crate::settings::Settings;
use crate::upstream::Upstream;

/// The largest request body of the API.
const MAX_BODY: usize = 10 << 20;

/// What every handler can reach.
#[derive(Clone)]
pub(crate) struct Web {
    pub settings: Arc<Settings>,
    pub cache: Cache,
    pub upstream: Upstream,
    /// The way to Auth Services in the name of users.
    pub dialer: NodeDialer,
    pub gate: Gate,
    limits: Arc<Limits>,
    /// Takes connections that were upgraded to carry TLS inside.
    pub upgrades: upgrade::Upgrades,
    /// What handlers leave running.
    pub tasks: TaskTracker,
}

#[derive(Debug)]
struct Limits {
    normal: RateLimit,
    high: RateLimit,
    /// Of the configuration file, for everything that is asked of the proxy.
    all: Arc<RateLimit>,
}

/// Where a request comes from; set for each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress(pub SocketAddr);

impl Web {
    pub(crate) fn new(
        settings: Arc<Settings>,
        cache: Cache,
        (upstream, dialer): (Upstream, NodeDialer),
        (gate, rates): (Gate, Arc<RateLimit>),
        upgrades: upgrade::Upgrades,
        tasks: TaskTracker,
    ) -> Self {
        let limits = Limits {
            normal: RateLimit::new([Rate::per_minute(20, 40)]),
            high: RateLimit::new([Rate::per_minute(120, 480)]),
            all: rates,
        };
        Self { settings, cache, upstream, dialer, gate, limits: Arc::new(limits), upgrades, tasks }
    }
}

pub(crate) use upgrade::{UpgradedConnection, Upgrades};

/// What is answered to HTTP, by where the request came in.
#[derive(Clone)]
pub(crate) struct WebRouters {
    /// At the public port: everything.
    pub public: Router,
    /// At a tunnel port of its own: enough to find the cluster and to join it.
    pub tunnel: Router,
    /// Inside an upgraded connection. It has passed the balancer unread, so headers that speak of the client's address are the
    /// client's own words there and mean nothing.
    pub upgraded: Router,
}

impl WebRouters {
    pub(crate) fn new(web: &Web) -> Self {
        let all = |router: Router<Web>| router.layer(middleware::from_fn_with_state(web.clone(), limit_all));
        let behind_balancer = |router: Router<Web>| {
            finished(router.layer(middleware::from_fn_with_state(web.clone(), forwarded::client)), web)
        };
        let everything = all(everything(web));
        Self {
            public: behind_balancer(everything.clone()),
            tunnel: behind_balancer(all(to_join(web))),
            upgraded: finished(everything, web),
        }
    }
}

fn finished(router: Router<Web>, web: &Web) -> Router {
    router.layer(middleware::from_fn(common_headers)).with_state(web.clone())
}

fn everything(web: &Web) -> Router<Web> {
    let unlimited = Router::new()
        .route("/webapi/ping", get(ping::ping))
        .route("/webapi/find", get(ping::find))
        .route("/webapi/connectionupgrade", get(upgrade::upgrade));
    let normal = Router::new()
        .route("/webapi/ssh/certs", post(login::ssh_certificates))
        .route("/webapi/mfa/login/begin", post(login::begin))
        .route("/webapi/mfa/login/finish", post(login::finish))
        .route("/webapi/sessions/web", post(session::create).delete(session::delete))
        .route("/webapi/mfa/token/{token}/registerchallenge", post(signup::register_challenge))
        .route("/webapi/users/password/token/{token}", get(signup::token))
        .route("/webapi/users/password/token", put(signup::accept))
        .route("/webapi/trustedclusters/validate", post(join::validate_trusted_cluster))
        .route("/webapi/auth/export", get(join::export))
        .route("/webapi/sites/{site}/auth/export", get(join::export))
        .route("/webapi/users/password", put(signup::change_password))
        .layer(middleware::from_fn_with_state(web.clone(), limit_normal));
    let high = Router::new()
        .route("/webapi/ping/{connector}", get(ping::ping_connector))
        .route("/webapi/motd", get(ping::motd))
        .route("/webapi/sites/{site}/events/search", get(events::search))
        .route("/webapi/sites/{site}/events/search/sessions", get(events::sessions))
        .route("/webapi/host/credentials", post(join::host_credentials))
        .layer(middleware::from_fn_with_state(web.clone(), limit_high));
    let pages = Router::new()
        .route("/", get(pages::root))
        .route("/robots.txt", get(pages::robots))
        .route("/web", get(pages::index))
        .route("/web/", get(pages::index))
        .route("/web/config.js", get(pages::config))
        .route("/web/app/{file}", get(pages::asset))
        .route("/web/{*path}", get(pages::index));
    let api = unlimited.merge(normal).merge(high).merge(pages);
    let with_prefix = Router::new().nest("/v1", api.clone()).merge(api);
    with_prefix.fallback(not_found).layer(DefaultBodyLimit::max(MAX_BODY))
}

fn to_join(web: &Web) -> Router<Web> {
    let join = Router::new()
        .route("/webapi/host/credentials", post(join::host_credentials))
        .route("/v1/webapi/host/credentials", post(join::host_credentials))
        .layer(middleware::from_fn_with_state(web.clone(), limit_high));
    let find = Router::new().route("/webapi/find", get(ping::find));
    find.merge(join).fallback(not_found).layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn not_found() -> Response {
    WebError::new(ErrorKind::NotFound, "path not found").into_response()
}

async fn limit_normal(
    State(web): State<Web>,
    Extension(place): Extension<Place>,
    request: Request,
    next: Next,
) -> Response {
    limited(&web.limits.normal, &place, request, next).await
}

async fn limit_high(
    State(web): State<Web>,
    Extension(place): Extension<Place>,
    request: Request,
    next: Next,
) -> Response {
    limited(&web.limits.high, &place, request, next).await
}

async fn limit_all(
    State(web): State<Web>,
    Extension(place): Extension<Place>,
    request: Request,
    next: Next,
) -> Response {
    limited(&web.limits.all, &place, request, next).await
}

async fn limited(limit: &RateLimit, place: &Place, request: Request, next: Next) -> Response {
    if limit.allow(place.counted, Instant::now()) {
        next.run(request).await
    } else {
        WebError::new(ErrorKind::LimitExceeded, "too many requests from this address, try again in a minute")
            .into_response()
    }
}

/// Headers of every response; API responses are never cached.
async fn common_headers(request: Request, next: Next) -> Response {
    let api = request.uri().path().contains("/webapi/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "strict-origin"),
        ("x-frame-options", "SAMEORIGIN"),
        ("x-xss-protection", "1; mode=block"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if api {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        headers.insert(header::EXPIRES, HeaderValue::from_static("0"));
    }
    response
}

/// Reads a JSON body. The content type must say so, which a form on another site cannot.
pub(crate) struct JsonBody<T>(pub T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> axum::extract::FromRequest<S> for JsonBody<T> {
    type Rejection = WebError;

    async fn from_request(request: axum::http::Request<Body>, state: &S) -> Result<Self, WebError> {
        let json = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        if !json.is_some_and(|t| t.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("application/json")))
        {
            return Err(WebError::new(
                ErrorKind::BadParameter,
                "invalid request: expected content type application/json",
            ));
        }
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|e| WebError::new(ErrorKind::BadParameter, format!("reading the request: {e}")))?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|e| WebError::new(ErrorKind::BadParameter, format!("invalid request: {e}")))?;
        Ok(Self(value))
    }
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(';')).find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}

/// Refuses a call whose cookie was not joined by the header that only our own pages can send.
///
/// A call without the cookie carries no authority a third party could misuse, so it needs no token.
pub(crate) fn check_csrf(headers: &HeaderMap) -> WebResult<()> {
    let denied = || WebError::new(ErrorKind::AccessDenied, "access denied");
    let Some(expected) = cookie(headers, pages::CSRF_COOKIE) else { return Ok(()) };
    let sent = headers.get("x-csrf-token").and_then(|v| v.to_str().ok()).ok_or_else(denied)?;
    let (expected, sent) = (hex::decode(expected).map_err(|_| denied())?, hex::decode(sent).map_err(|_| denied())?);
    if expected.len() == 32 && bool::from(subtle::ConstantTimeEq::ct_eq(expected.as_slice(), sent.as_slice())) {
        Ok(())
    } else {
        Err(denied())
    }
}

/// The address part of a client, for calls to auth.
pub(crate) fn client_ip(client: ClientAddress) -> IpAddr {
    client.0.ip().to_canonical()
}
