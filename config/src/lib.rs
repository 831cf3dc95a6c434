//! What a `teleport` process is to do, from `teleport.yaml` and the command line.
//!
//! [`Config::load`] reads the file into a tree that remembers lines, walks it section by section into typed
//! values with defaults, lays the flags of the command line over it and checks the whole. Nothing is read
//! leniently: unknown keys, wrong types and contradictions are errors, each with file, line, key, value and
//! what was expected, and all of them are reported at once.
//!
//! Sections of services that this build does not have are checked for form; enabling one is an error.
//! [`configure`] writes files that this crate reads.

mod address;
mod auth;
mod authentication;
mod cloning;
mod config;
pub mod configure;
mod error;
mod global;
mod key_module;
mod labels;
mod later;
mod overrides;
mod proxy;
mod scalar;
mod secret;
mod section;
mod ssh;
mod storage;
mod yaml;

#[cfg(test)]
mod tests;

pub use address::HostPort;
pub use auth::{
    Auth, ListenerMode, Networking, Recording, RecordingMode, RoutingStrategy, StaticToken, TokenRole, TunnelStrategy,
};
pub use authentication::{
    Authentication, AuthenticationType, DeviceTrust, DeviceTrustMode, HardwareKey, LockingMode, PivSlot, SecondFactor,
    SessionMfa, SignatureSuite, U2f, Webauthn,
};
pub use cloning::Cloning;
pub use config::{Config, DEFAULT_FILE, Environment, Metrics, Source, Version};
pub use error::{ConfigError, Problem, Problems};
pub use global::{
    Advertise, Cache, DEFAULT_DATA_DIR, Global, Join, JoinMethod, Limits, Log, LogFormat, LogOutput, Rate, Server,
    Severity,
};
pub use key_module::{KeyModule, Pin, TokenChoice};
pub use labels::{CommandLabel, Labels};
pub use overrides::Overrides;
pub use proxy::{KeyPair, Proxy, ProxyProtocol, ShowResources, Ui, UpgradeChannel};
pub use scalar::format_duration;
pub use secret::{Secret, Token};
pub use ssh::{EnhancedRecording, Pam, Ssh, X11};
pub use storage::{EtcdStorage, SqliteJournal, SqliteStorage, SqliteSync, StateStorage, Storage};
