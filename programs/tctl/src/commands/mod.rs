//! The commands, one module each.

pub mod access;
pub mod acl;
pub mod alerts;
pub mod audit;
pub mod auth;
pub mod bots;
pub mod create;
pub mod devices;
pub mod edit;
pub mod get;
pub mod inventory;
pub mod listed;
pub mod loadtest;
pub mod lock;
pub mod nodes;
pub mod notifications;
pub mod other;
pub mod recordings;
pub mod requests;
pub mod rm;
pub mod status;
pub mod tokens;
pub mod top;
pub mod update;
pub mod users;
pub mod version;

mod labels;
