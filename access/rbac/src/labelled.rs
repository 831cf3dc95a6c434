//! What roles reach by its labels, besides SSH servers: applications, databases, Kubernetes clusters, desktops, groups.

use std::collections::BTreeMap;

use resources::{Resource, kind};
use serde_json::Value as Json;
use wire::types::{
    AppServerV3, AppV3, CommandLabelV2, DatabaseServerV3, DatabaseServiceV1, DatabaseV3, KubernetesClusterV3,
    KubernetesServerV3, SamlIdPServiceProviderV1, ServerV2, UserGroupV1, WindowsDesktopServiceV3, WindowsDesktopV3,
};

use crate::{access::Target, filter::Filtered, labels::Labels};

/// What roles reach by its labels.
pub trait Labelled: Filtered {
    /// What a role is asked about.
    fn target(&self) -> Target<'_>;

    /// The fields that lists can be sorted by, besides the name.
    fn sort_fields() -> &'static [&'static str];

    /// The value of such a field; empty for others.
    fn sort_value(&self, field: &str) -> &str;
}

impl Labelled for ServerV2 {
    fn target(&self) -> Target<'_> {
        Target::node(self)
    }

    fn sort_fields() -> &'static [&'static str] {
        &["hostname", "addr"]
    }

    fn sort_value(&self, field: &str) -> &str {
        let spec = self.spec.as_ref();
        match field {
            "hostname" => spec.map_or("", |spec| &spec.hostname),
            "addr" => spec.map_or("", |spec| &spec.addr),
            _ => "",
        }
    }
}

static NO_COMMANDS: BTreeMap<String, CommandLabelV2> = BTreeMap::new();

/// What records of all kinds say in the same way: the name and the whole record, or what roles are asked about.
macro_rules! record {
    () => {
        fn name(&self) -> &str {
            Resource::name(self)
        }

        fn json(&self) -> Json {
            serde_json::to_value(self).unwrap_or_default()
        }
    };
    ($kind:path) => {
        fn target(&self) -> Target<'_> {
            Target { kind: $kind, name: Resource::name(self), labels: Filtered::labels(self) }
        }
    };
}

/// One row a kind: its type, what it is called where access is decided, the labels that come from commands, the texts
/// that words are searched in, and the fields lists can be sorted by.
macro_rules! labelled {
    ($($type:ty: $kind:path, |$value:ident| {
        commands: $commands:expr,
        searched: $searched:expr,
        sorted: { $($field:literal => $sorted:expr),* $(,)? },
    })*) => { $(
        impl Filtered for $type {
            record!();

            #[allow(unused_variables)] // some kinds have no commands
            fn labels(&self) -> Labels<'_> {
                let $value = self;
                Labels::with_commands(&self.metadata().labels, $commands.unwrap_or(&NO_COMMANDS))
            }

            #[allow(unused_variables)] // some kinds have no texts
            fn searched(&self) -> Vec<&str> {
                let $value = self;
                let mut texts: Vec<&str> = vec![&self.metadata().description];
                texts.extend($searched);
                texts
            }
        }

        impl Labelled for $type {
            record!($kind);

            fn sort_fields() -> &'static [&'static str] {
                &[$($field,)* "description"]
            }

            fn sort_value(&self, field: &str) -> &str {
                #[allow(unused_variables)] // some kinds have no such field
                let $value = self;
                match field {
                    $($field => $sorted.unwrap_or_default(),)*
                    "description" => &self.metadata().description,
                    _ => "",
                }
            }
        }
    )* };
}

labelled! {
    AppV3: kind::APP, |app| {
        commands: app.spec.as_ref().map(|s| &s.dynamic_labels),
        searched: app.spec.iter().map(|s| s.public_addr.as_str()),
        sorted: { "public_addr" => app.spec.as_ref().map(|s| s.public_addr.as_str()) },
    }
    DatabaseV3: kind::DB, |db| {
        commands: db.spec.as_ref().map(|s| &s.dynamic_labels),
        searched: db.spec.iter().map(|s| s.protocol.as_str()),
        sorted: { "type" => db.spec.as_ref().map(|s| s.protocol.as_str()) },
    }
    KubernetesClusterV3: kind::KUBE_CLUSTER, |cluster| {
        commands: cluster.spec.as_ref().map(|s| &s.dynamic_labels),
        searched: None::<&str>,
        sorted: {},
    }
    WindowsDesktopV3: kind::WINDOWS_DESKTOP, |desktop| {
        commands: None,
        searched: desktop.spec.iter().map(|s| s.addr.as_str()),
        sorted: { "addr" => desktop.spec.as_ref().map(|s| s.addr.as_str()) },
    }
    WindowsDesktopServiceV3: kind::WINDOWS_DESKTOP_SERVICE, |service| {
        commands: None,
        searched: service.spec.iter().flat_map(|s| [s.addr.as_str(), s.hostname.as_str()]),
        sorted: { "hostname" => service.spec.as_ref().map(|s| s.hostname.as_str()) },
    }
    UserGroupV1: kind::USER_GROUP, |group| {
        commands: None,
        searched: group.spec.iter().flat_map(|s| s.applications.iter().map(String::as_str)),
        sorted: {},
    }
    DatabaseServiceV1: kind::DB_SERVICE, |service| {
        commands: None,
        searched: None::<&str>,
        sorted: {},
    }
    SamlIdPServiceProviderV1: kind::SAML_IDP_SERVICE_PROVIDER, |provider| {
        commands: None,
        searched: provider.spec.iter().map(|s| s.entity_id.as_str()),
        sorted: {},
    }
}

/// An agent's record of something is reached, found and sorted as the thing itself.
macro_rules! served {
    ($($type:ty: $field:ident $inner:ty, $kind:path;)*) => { $(
        impl Filtered for $type {
            record!();

            fn labels(&self) -> Labels<'_> {
                match self.spec.as_ref().and_then(|spec| spec.$field.as_ref()) {
                    Some(inner) => Filtered::labels(inner),
                    None => Labels::fixed(&self.metadata().labels),
                }
            }

            fn searched(&self) -> Vec<&str> {
                let inner = self.spec.as_ref().and_then(|spec| spec.$field.as_ref());
                inner.map(Filtered::searched).unwrap_or_default()
            }
        }

        impl Labelled for $type {
            record!($kind);

            fn sort_fields() -> &'static [&'static str] {
                <$inner>::sort_fields()
            }

            fn sort_value(&self, field: &str) -> &str {
                let inner = self.spec.as_ref().and_then(|spec| spec.$field.as_ref());
                inner.map_or("", |inner| inner.sort_value(field))
            }
        }
    )* };
}

served! {
    AppServerV3: app AppV3, kind::APP;
    DatabaseServerV3: database DatabaseV3, kind::DB;
    KubernetesServerV3: cluster KubernetesClusterV3, kind::KUBE_CLUSTER;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{from_value, json};

    use super::*;
    use crate::{ResourceFilter, RoleSet, Traits};

    fn server(env: &str) -> DatabaseServerV3 {
        let mut server: DatabaseServerV3 = from_value(json!({
            "metadata": {"name": "orders"},
            "spec": {"host_id": "h", "hostname": "h", "database": {
                "kind": "db", "version": "v3", "metadata": {"name": "orders", "labels": {"env": env}},
                "spec": {"protocol": "postgres", "uri": "localhost:5432"}}}
        }))
        .unwrap();
        server.set_defaults();
        server
    }

    #[test]
    fn a_role_reaches_what_an_agent_serves_by_the_labels_of_the_thing() {
        let role = from_value(json!({
            "kind": "role", "version": "v7", "metadata": {"name": "dev"},
            "spec": {"allow": {"db_labels": {"env": "dev"}}}
        }))
        .unwrap();
        let roles = RoleSet::compile([role], Traits::default());
        assert!(roles.can_see(&server("dev").target()));
        assert!(!roles.can_see(&server("prod").target()));
    }

    #[test]
    fn a_search_looks_into_what_is_served() {
        let filter = |query: &str| ResourceFilter::new(BTreeMap::new(), &["postgres".to_owned()], query).unwrap();
        assert!(filter("labels[\"env\"] == \"dev\"").matches(&server("dev")).unwrap());
        assert!(!filter("labels[\"env\"] == \"prod\"").matches(&server("dev")).unwrap());
        assert_eq!(server("dev").sort_value("type"), "postgres");
    }
}
