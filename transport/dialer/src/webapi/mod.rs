//! The web API of a proxy, and the JSON API of an Auth Service that works the same way.

mod client;
mod error;
mod ping;

pub use client::{JsonClient, RequestError};
pub use error::{ApiError, ErrorKind};
pub use ping::{
    AuthSettings, AutoUpdate, ConnectorSettings, DatabaseProxySettings, DeviceTrustSettings, GoDuration,
    KubeProxySettings, LocalSettings, PingResponse, ProxySettings, SamlSettings, SshProxySettings, U2fSettings,
    WebauthnSettings,
};
