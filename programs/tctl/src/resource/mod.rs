//! Resources of any kind: which calls read, write and remove them.

mod devices;
mod kinds;
mod lists;
mod read;
mod remove;
mod rows;
mod served;
mod write;

pub use devices::register as register_device;
pub use lists::list_members;
pub use read::{Secrets, current, get, get_all, nodes, users};
pub use remove::remove;
pub use rows::{labels_text, nodes_table, table, tokens_table};
pub use served::list as listed;
pub use write::{Permission, check_role, put, update};

use resources::{AnyResource, Resource, kind};

use crate::error::Error;

/// Settings of which there is exactly one, under a fixed name.
pub const SETTINGS: [&str; 3] =
    [kind::CLUSTER_AUTH_PREFERENCE, kind::CLUSTER_NETWORKING_CONFIG, kind::SESSION_RECORDING_CONFIG];

/// Kinds of which there is at most one, under a fixed name.
pub const ONCE: [&str; 7] = [
    kind::CLUSTER_AUTH_PREFERENCE,
    kind::CLUSTER_NETWORKING_CONFIG,
    kind::SESSION_RECORDING_CONFIG,
    kind::UI_CONFIG,
    kind::CLUSTER_MAINTENANCE_CONFIG,
    kind::NETWORK_RESTRICTIONS,
    kind::VNET_CONFIG,
];

/// Kind and name for messages; the kind alone where there is only one.
pub fn title(resource: &AnyResource) -> String {
    match resource.kind() {
        kind if ONCE.contains(&kind) => kind.to_owned(),
        _ => resource.title(),
    }
}

/// Where a resource comes from: a file, a command, or nowhere in particular.
pub fn origin(resource: &AnyResource) -> Option<resources::Origin> {
    let label = resource.metadata().labels.get(resources::ORIGIN_LABEL)?;
    resources::Origin::from_text(label)
}

/// The refusal of a kind that has a name but no calls.
fn not_built(kind: &str, verb: &str) -> Error {
    Error::not_built(format!("{verb} {kind:?} resources is not supported by this build yet"))
}

/// All of a list of one type.
fn any<T: Resource + Into<AnyResource>>(list: impl IntoIterator<Item = T>) -> Vec<AnyResource> {
    list.into_iter().map(Into::into).collect()
}
