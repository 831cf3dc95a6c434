//! Databases, the agents that serve them, and the objects found in them.

use wire::{
    dbobject::DatabaseObject,
    dbobjectimportrule::DatabaseObjectImportRule,
    types::{DatabaseServerV3, DatabaseServiceV1, DatabaseSpecV3, DatabaseV3},
};

use super::{check_labels, default_text, one_of, required, table::kinds};
use crate::{Place, ResourceError, Result, kind, places};

/// The protocols of databases.
pub const DATABASE_PROTOCOLS: [&str; 15] = [
    "postgres",
    "mysql",
    "mongodb",
    "oracle",
    "redis",
    "cockroachdb",
    "sqlserver",
    "snowflake",
    "cassandra",
    "elasticsearch",
    "opensearch",
    "dynamodb",
    "clickhouse",
    "clickhouse-http",
    "spanner",
];

/// Protocols whose address follows from other settings.
const WITHOUT_URI: [&str; 3] = ["dynamodb", "spanner", "cassandra"];

kinds! {
    DatabaseV3: kind::DB, "v3", plain_header {
        place: |db| Place::new(places::DATABASES, [db.name()]),
        defaults: |db| { db.spec.get_or_insert_default(); },
        check: |db| {
            check_name(db.name())?;
            check(&db.spec.clone().unwrap_or_default())
        },
    }
    DatabaseServerV3: kind::DB_SERVER, "v3", plain_header {
        place: |server| {
            let host = server.spec.as_ref().map_or("", |s| &s.host_id);
            Place::new(places::DATABASE_SERVERS, [host, server.name()])
        },
        defaults: |server| {
            let spec = server.spec.get_or_insert_default();
            if let Some(db) = &mut spec.database {
                db.set_defaults();
            }
            let name = spec.database.as_ref().map(|db| db.name().to_owned()).unwrap_or_default();
            default_text(&mut server.metadata_mut().name, &name);
        },
        check: |server| {
            let spec = server.spec.clone().unwrap_or_default();
            required(&[("spec.host_id", &spec.host_id), ("spec.hostname", &spec.hostname)])?;
            match &spec.database {
                Some(db) => db.check().map_err(|e| e.within("spec.database")),
                None => Err(ResourceError::field("spec.database", "missing the database that is served")),
            }
        },
    }
    DatabaseServiceV1: kind::DB_SERVICE, "v1", embedded_header {
        place: |service| Place::new(places::DATABASE_SERVICES, [service.name()]),
        defaults: |service| { service.spec.get_or_insert_default(); },
        check: |_| Ok(()),
    }
    DatabaseObject: kind::DB_OBJECT, "v1", plain_header {
        place: |object| Place::new(places::DATABASE_OBJECTS, [object.name()]),
        defaults: |object| { object.spec.get_or_insert_default(); },
        check: |object| {
            let spec = object.spec.clone().unwrap_or_default();
            required(&[
                ("spec.name", &spec.name),
                ("spec.protocol", &spec.protocol),
                ("spec.database_service_name", &spec.database_service_name),
                ("spec.object_kind", &spec.object_kind),
            ])
        },
    }
    DatabaseObjectImportRule: kind::DB_OBJECT_IMPORT_RULE, "v1", plain_header {
        place: |rule| Place::new(places::DATABASE_OBJECT_IMPORT_RULES, [rule.name()]),
        defaults: |rule| { rule.spec.get_or_insert_default(); },
        check: |rule| {
            let spec = rule.spec.clone().unwrap_or_default();
            if spec.database_labels.is_empty() {
                return Err(ResourceError::field("spec.database_labels", "missing labels of the databases it is for"));
            }
            if spec.mappings.is_empty() {
                return Err(ResourceError::field("spec.mappings", "missing mappings from objects to labels"));
            }
            match spec.mappings.iter().position(|m| m.r#match.is_none() || m.add_labels.is_empty()) {
                Some(i) => {
                    let path = format!("spec.mappings[{i}]");
                    Err(ResourceError::field(path, "a mapping needs match and add_labels"))
                }
                None => Ok(()),
            }
        },
    }
}

/// Names of databases become parts of host names.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if begins && name.chars().all(plain) && !name.ends_with('-') {
        return Ok(());
    }
    let text = format!("invalid database name {name:?}: expected letters, digits and '-', beginning with a letter");
    Err(ResourceError::field("metadata.name", text))
}

fn check(spec: &DatabaseSpecV3) -> Result<()> {
    required(&[("spec.protocol", &spec.protocol)])?;
    one_of("spec.protocol", &spec.protocol, &DATABASE_PROTOCOLS)?;
    if !WITHOUT_URI.contains(&spec.protocol.as_str()) {
        required(&[("spec.uri", &spec.uri)])?;
    }
    check_labels("spec.dynamic_labels", spec.dynamic_labels.keys())?;
    let tls = spec.tls.clone().unwrap_or_default();
    for (path, pem) in [("spec.ca_cert", &spec.ca_cert), ("spec.tls.ca_cert", &tls.ca_cert)] {
        if !pem.is_empty() && !pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err(ResourceError::field(path, "expected a certificate in PEM"));
        }
    }
    Ok(())
}
