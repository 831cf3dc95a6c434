//! The protobuf messages and gRPC services of the API, generated from `proto/`, with their JSON and YAML forms.
//!
//! A resource is one type everywhere: the message below is what travels, what is stored and what an administrator
//! writes. Validation and defaults live in the `resources` crate; this one only knows shapes.

/// Generated code: one module per protobuf package.
#[allow(clippy::all, clippy::pedantic, missing_docs, rustdoc::all)]
mod generated {
    pub mod events {
        include!(concat!(env!("OUT_DIR"), "/events.rs"));
    }
    pub mod proto {
        include!(concat!(env!("OUT_DIR"), "/proto.rs"));
    }
    pub mod types {
        include!(concat!(env!("OUT_DIR"), "/types.rs"));
    }
    pub mod webauthn {
        include!(concat!(env!("OUT_DIR"), "/webauthn.rs"));
    }
    pub mod wrappers {
        include!(concat!(env!("OUT_DIR"), "/wrappers.rs"));
    }
    pub mod teleport {
        pub mod attestation {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.attestation.v1.rs"));
            }
        }
        pub mod auditlog {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.auditlog.v1.rs"));
            }
        }
        pub mod clusterconfig {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.clusterconfig.v1.rs"));
            }
        }
        pub mod mfa {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.mfa.v1.rs"));
            }
        }
        pub mod presence {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.presence.v1.rs"));
            }
        }
        pub mod transport {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.transport.v1.rs"));
            }
        }
        pub mod trust {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.trust.v1.rs"));
            }
        }
        pub mod users {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.users.v1.rs"));
            }
        }
    }
}

pub use generated::teleport::{
    attestation::v1 as attestation, auditlog::v1 as auditlog, clusterconfig::v1 as clusterconfig, mfa::v1 as mfa,
    presence::v1 as presence, transport::v1 as transport, trust::v1 as trust, users::v1 as users,
};
pub use generated::{events, proto, types, webauthn, wrappers};

pub mod client;
pub mod duration;
pub mod error;
pub mod json;
pub mod time;

mod shapes;

/// The version this build reports to clients and servers: plain semver, because clients refuse anything else.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The oldest client release accepted: one major behind, every pre-release included.
pub const MIN_CLIENT_VERSION: &str = "16.0.0-aa";

/// Name of the gRPC metadata entry that carries a version, in both directions.
pub const VERSION_METADATA: &str = "version";
