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
        pub mod accesslist {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.accesslist.v1.rs"));
            }
        }
        pub mod accessmonitoringrules {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.accessmonitoringrules.v1.rs"));
            }
        }
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
        pub mod crownjewel {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.crownjewel.v1.rs"));
            }
        }
        pub mod dbobject {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.dbobject.v1.rs"));
            }
        }
        pub mod dbobjectimportrule {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.dbobjectimportrule.v1.rs"));
            }
        }
        pub mod devicetrust {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.devicetrust.v1.rs"));
            }
        }
        pub mod discoveryconfig {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.discoveryconfig.v1.rs"));
            }
        }
        pub mod integration {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.integration.v1.rs"));
            }
        }
        pub mod kube {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.kube.v1.rs"));
            }
        }
        pub mod kubewaitingcontainer {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.kubewaitingcontainer.v1.rs"));
            }
        }
        pub mod label {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.label.v1.rs"));
            }
        }
        pub mod loginrule {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.loginrule.v1.rs"));
            }
        }
        pub mod machineid {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.machineid.v1.rs"));
            }
        }
        pub mod mfa {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.mfa.v1.rs"));
            }
        }
        pub mod notifications {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.notifications.v1.rs"));
            }
        }
        pub mod okta {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.okta.v1.rs"));
            }
        }
        pub mod presence {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.presence.v1.rs"));
            }
        }
        pub mod secreports {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.secreports.v1.rs"));
            }
        }
        pub mod r#trait {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.r#trait.v1.rs"));
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
        pub mod userloginstate {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.userloginstate.v1.rs"));
            }
        }
        pub mod userprovisioning {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.userprovisioning.v1.rs"));
            }
        }
        pub mod users {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.users.v1.rs"));
            }
        }
        pub mod vnet {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/teleport.vnet.v1.rs"));
            }
        }
    }
}

pub use generated::teleport::{
    accesslist::v1 as accesslist, accessmonitoringrules::v1 as accessmonitoringrules, attestation::v1 as attestation,
    auditlog::v1 as auditlog, clusterconfig::v1 as clusterconfig, crownjewel::v1 as crownjewel,
    dbobject::v1 as dbobject, dbobjectimportrule::v1 as dbobjectimportrule, devicetrust::v1 as devicetrust,
    discoveryconfig::v1 as discoveryconfig, integration::v1 as integration, kube::v1 as kube,
    kubewaitingcontainer::v1 as kubewaitingcontainer, label::v1 as label, loginrule::v1 as loginrule,
    machineid::v1 as machineid, mfa::v1 as mfa, notifications::v1 as notifications, okta::v1 as okta,
    presence::v1 as presence, secreports::v1 as secreports, r#trait::v1 as traits, transport::v1 as transport,
    trust::v1 as trust, userloginstate::v1 as userloginstate, userprovisioning::v1 as userprovisioning,
    users::v1 as users, vnet::v1 as vnet,
};
pub use generated::{events, proto, types, webauthn, wrappers};

pub mod client;
pub mod duration;
pub mod error;
pub mod fields;
pub mod json;
pub mod time;

mod page;
mod shapes;

pub use page::ResourcePage;

/// The version this build reports to clients and servers: plain semver, because clients refuse anything else.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The oldest client release accepted: one major behind, every pre-release included.
pub const MIN_CLIENT_VERSION: &str = "16.0.0-aa";

/// Name of the gRPC metadata entry that carries a version, in both directions.
pub const VERSION_METADATA: &str = "version";
