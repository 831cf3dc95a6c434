//! What a cluster is made of: kinds of resources, their defaults, their rules, and how they are written in YAML
//! and JSON.
//!
//! The types themselves are the messages of [`wire::types`]; this crate says which of them are resources
//! ([`Resource`]), what fills their blanks and which values are refused. It does no I/O and reads no clock.
//!
//! ```
//! use resources::{Fields, parse_documents};
//!
//! let text = "kind: role\nversion: v7\nmetadata: {name: dev}\nspec: {allow: {loginz: [root]}}\n";
//! let error = parse_documents(text, Fields::Known).unwrap_err();
//! assert!(error.to_string().contains("spec.allow.loginz: unknown field; did you mean \"logins\"?"));
//! ```

pub mod cluster;
pub mod kind;
pub mod presets;

mod any;
mod devices;
mod document;
mod error;
mod kinds;
mod place;
mod read;
mod reference;
mod resource;
mod resource_id;
mod system_role;

pub use any::AnyResource;
pub use devices::{device_message, device_record};
pub use document::{Fields, decode, encode, parse_documents, parse_value, to_json, to_yaml};
pub use error::{ResourceError, Result};
pub use kinds::{
    CLUSTER_WIDE_KUBERNETES_KINDS, DATABASE_PROTOCOLS, DEFAULT_SESSION_TTL, JOIN_METHODS, KUBERNETES_KINDS,
    KUBERNETES_VERBS, MAX_ACCESS_DURATION, MAX_SESSION_TTL, NOTIFICATION_CONTENT, NOTIFICATION_TITLE, ROLE_VERSIONS,
    check_second_factor_allowed, next_review,
};
pub use place::{Place, places};
pub use read::nearest;
pub use reference::Reference;
pub use resource::{NAMESPACE, ORIGIN_LABEL, Origin, Resource};
pub use resource_id::{parse_resource_id, resource_id_text};
pub use system_role::{SystemRole, UnknownSystemRole};
