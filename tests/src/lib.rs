//! Drives the real programs the way people drive them: a `teleport.yaml` on disk, the command lines, the
//! public port, a password typed at a terminal. Nothing here links against the product.
//!
//! A test makes a [`Cluster`], lets [`AgentSetup`]s join, creates [`Person`]s through the sign-up page and
//! gets a [`Client`] (`tsh` with a home folder of its own) for each. Everything listens on loopback at ports
//! nobody else has, lives in a temporary folder, and ends when its owner is dropped; the logs are shown when
//! the test failed.
//!
//! Environment:
//! - `TELEPORT_BIN_DIR`: folder with `teleport`, `tctl` and `tsh`; `target/debug` of this workspace by default.
//! - `TELEPORT_TSH`: another `tsh` in place of the one in that folder, to check compatibility.
//! - `E2E_SCANNERS`: folder with `ssh-audit` and `sslyze`, which `tests/setup --all` installs; `target/scanners/bin` by default.
//! - `E2E_KEEP`: when set, the folders of the clusters stay for inspection.
//!
//! Being a driver of tests, it panics where a test should fail, and says what it was doing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod audit;
mod browser;
mod client;
mod cluster;
mod command;
mod daemon;
mod database;
mod files;
mod http_proxy;
mod network;
mod noise;
mod objects;
mod person;
mod ports;
mod power;
mod softhsm;
mod terminal;
mod valve;
mod waiting;

pub use agent::AgentSetup;
pub use browser::{Answer, Browser};
pub use client::Client;
pub use cluster::{Cluster, ClusterSetup, TOKEN};
pub use command::{Finished, account, clean_environment, program, run, scanner};
pub use daemon::Daemon;
pub use database::{Database, lacks};
pub use files::in_own_folder;
pub use http_proxy::{Asked, HttpProxy, Manner};
pub use network::{HERE, ON_THE_WAY, Tool, go_to_own_network, in_own_network, packets_lost};
pub use noise::{Noise, hold_half_open, make_noise, tls_conversation};
pub use objects::ObjectServer;
pub use person::Person;
pub use ports::{free_port, listen};
pub use power::{Loss, Power};
pub use softhsm::SoftHsm;
pub use terminal::Terminal;
pub use valve::Valve;
pub use waiting::{try_for, wait_for};
