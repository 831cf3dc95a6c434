//! Generates the protobuf messages and gRPC services from `proto/`, with serde attributes taken from the options
//! of `proto/teleport/options.proto`, so that one type is a resource on the wire, in YAML and in storage.

use std::{collections::BTreeMap, env, error::Error, fs, path::PathBuf};

use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

/// Packages whose messages have a JSON form of their own.
const JSON_PACKAGES: [&str; 19] = [
    "types",
    "events",
    "wrappers",
    "teleport.accesslist.v1",
    "teleport.accessmonitoringrules.v1",
    "teleport.attestation.v1",
    "teleport.crownjewel.v1",
    "teleport.dbobject.v1",
    "teleport.dbobjectimportrule.v1",
    "teleport.discoveryconfig.v1",
    "teleport.kubewaitingcontainer.v1",
    "teleport.label.v1",
    "teleport.machineid.v1",
    "teleport.notifications.v1",
    "teleport.secreports.v1",
    "teleport.trait.v1",
    "teleport.userloginstate.v1",
    "teleport.userprovisioning.v1",
    "teleport.vnet.v1",
];

/// The package whose messages equal those of the same name in `types`, on the wire and in JSON.
const HEADER_PACKAGE: &str = ".teleport.header.v1";

/// Messages whose JSON is not an object of their fields: `src/json.rs` implements serde for them.
const HAND_WRITTEN: [&str; 6] = [
    "teleport.loginrule.v1.LoginRule",
    "types.BoolValue",
    "types.BoolOption",
    "types.TunnelStrategyV1",
    "wrappers.LabelValues",
    "wrappers.StringValues",
];

/// The envelope of every audit event.
const AUDIT_EVENT: &str = "events.OneOf";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo:rerun-if-changed={}", root.display());
    println!("cargo:rerun-if-changed=build.rs");

    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).open_files(&files)?;
    let pool = compiler.descriptor_pool();

    let mut config = tonic_prost_build::Config::new();
    config.bytes([".teleport.transport.v1.Frame"]);
    config.btree_map(["."]);
    // The largest of the resources that these may hold has 3 KB, most have a few hundred bytes, and lists are long.
    config.boxed(".proto.PaginatedResource.resource");
    config.boxed(".proto.Event.Resource");
    config.extern_path(HEADER_PACKAGE, "crate::types");
    for page in ["ListResourcesResponse", "ListUnifiedResourcesResponse"] {
        config.extern_path(format!(".proto.{page}"), "crate::ResourcePage");
    }
    for message in pool.all_messages() {
        if has_json(&message) {
            describe_json(&mut config, &pool, &message);
        }
    }
    tonic_prost_build::configure()
        .generate_default_stubs(true)
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    let fields = PathBuf::from(env::var("OUT_DIR")?).join("fields.rs");
    fs::write(fields, field_tables(&pool))?;
    Ok(())
}

/// Whether the JSON of a message holds fields of other messages, or of a choice, beside its own. Serde loses track of
/// unknown fields there. Events are not written by people.
fn is_flattened(pool: &DescriptorPool, message: &MessageDescriptor) -> bool {
    let embedded = |field: FieldDescriptor| flag(pool, &field.options(), "teleport.embedded");
    has_json(message) && message.package_name() != "events" && {
        message.oneofs().next().is_some() || message.fields().any(embedded)
    }
}

/// Rust source of a table of the fields of flattened messages, and of all messages within their flattened fields.
fn field_tables(pool: &DescriptorPool) -> String {
    let mut waiting: Vec<_> = pool.all_messages().filter(|message| is_flattened(pool, message)).collect();
    let mut tables = BTreeMap::new();
    while let Some(message) = waiting.pop() {
        if tables.contains_key(message.full_name()) {
            continue;
        }
        let fields = json_fields(pool, &message, false);
        let named = fields.iter().filter_map(|(_, nested, _)| pool.get_message_by_name(nested));
        waiting.extend(named);
        tables.insert(message.full_name().to_owned(), fields);
    }
    let rows: String = tables.iter().map(|(name, fields)| format!("    ({name:?}, &{fields:?}),\n")).collect();
    format!("&[\n{rows}]")
}

/// The JSON fields of a message: name, the message that is its value or the value of its items, and whether it is taken
/// from another message or a choice.
fn json_fields(pool: &DescriptorPool, message: &MessageDescriptor, taken: bool) -> Vec<(String, String, bool)> {
    let mut fields = Vec::new();
    for field in message.fields() {
        let options = field.options();
        if flag(pool, &options, "teleport.hidden") {
            continue;
        }
        let nested = match field.kind() {
            Kind::Message(nested) => Some(nested),
            _ => None,
        };
        if let Some(nested) = nested.as_ref().filter(|_| flag(pool, &options, "teleport.embedded")) {
            fields.extend(json_fields(pool, nested, true));
            continue;
        }
        let plain = text(pool, &options, "teleport.shape").is_empty() && !field.is_map();
        let known = |m: &MessageDescriptor| has_json(m) || m.full_name().starts_with(&HEADER_PACKAGE[1..]);
        let nested = nested.filter(|nested| plain && known(nested)).map(|nested| nested.full_name().to_owned());
        let taken = taken || field.containing_oneof().is_some();
        fields.push((field.json_name().to_owned(), nested.unwrap_or_default(), taken));
    }
    fields
}

/// Whether a message is, or is part of, a resource or an event. Requests of the newer services are not.
fn has_json(message: &MessageDescriptor) -> bool {
    let package = message.package_name();
    let call =
        package.starts_with("teleport.") && ["Request", "Response"].iter().any(|end| message.name().ends_with(end));
    JSON_PACKAGES.contains(&package) && !HAND_WRITTEN.contains(&message.full_name()) && !call
}

fn collect(folder: &PathBuf, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(())
}

/// Adds the serde attributes of one message and of its fields.
fn describe_json(config: &mut tonic_prost_build::Config, pool: &DescriptorPool, message: &MessageDescriptor) {
    let path = message.full_name();
    let derive = if path == AUDIT_EVENT {
        "#[derive(serde::Serialize)]"
    } else {
        "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]"
    };
    config.message_attribute(path, derive);
    if is_flattened(pool, message) {
        // By this name a reader of JSON finds the fields, which serde does not tell of such messages.
        config.message_attribute(path, format!("#[serde(expecting = {path:?})]"));
    }
    for field in message.fields().filter(|f| f.containing_oneof().is_none()) {
        let attribute = field_attribute(pool, &field);
        config.field_attribute(format!("{path}.{}", field.name()), format!("#[serde({attribute})]"));
    }
    for choice in message.oneofs() {
        let choice_path = format!("{path}.{}", choice.name());
        config.field_attribute(&choice_path, "#[serde(flatten)]");
        if path == AUDIT_EVENT {
            // An event is written as itself; which one a JSON object is follows from its `event` and `code`.
            config.enum_attribute(&choice_path, "#[derive(serde::Serialize)] #[serde(untagged)]");
            continue;
        }
        config.enum_attribute(&choice_path, "#[derive(serde::Serialize, serde::Deserialize)]");
        for field in choice.fields() {
            let rename = format!("#[serde(rename = {:?})]", field.json_name());
            config.field_attribute(format!("{choice_path}.{}", field.name()), rename);
        }
    }
}

fn field_attribute(pool: &DescriptorPool, field: &FieldDescriptor) -> String {
    let options = field.options();
    if flag(pool, &options, "teleport.hidden") {
        return "skip".into();
    }
    if flag(pool, &options, "teleport.embedded") {
        return "flatten".into();
    }
    let mut parts = vec![format!("rename = {:?}", field.json_name())];
    let shape = text(pool, &options, "teleport.shape");
    let single = field.cardinality() != Cardinality::Repeated;
    let module = match (shape.as_str(), field.kind()) {
        ("", Kind::Message(m)) if m.full_name() == "google.protobuf.Timestamp" && single => Some("timestamp"),
        ("", Kind::Message(m)) if m.full_name() == "google.protobuf.Struct" && single => Some("object"),
        ("", Kind::Message(m)) if m.full_name() == "google.protobuf.Duration" && single => Some("proto_duration"),
        ("", Kind::Message(m)) if m.full_name().starts_with("google.protobuf.") && single => Some("wrapper"),
        ("", Kind::Bytes) if single => Some("bytes"),
        ("", Kind::Bytes) => Some("bytes_list"),
        ("", _) if flag(pool, &options, "teleport.duration") => Some("duration"),
        ("", _) => None,
        (name, _) => Some(name),
    };
    if let Some(module) = module {
        parts.push(format!("with = \"crate::json::{module}\""));
    }
    if !single && !flag(pool, &options, "teleport.always") && !field.is_map() {
        parts.push("deserialize_with = \"crate::json::list\"".into());
        if module.is_some() {
            parts.pop();
        }
    }
    if !flag(pool, &options, "teleport.always") {
        parts.push("skip_serializing_if = \"crate::json::is_empty\"".into());
    }
    parts.join(", ")
}

fn flag(pool: &DescriptorPool, options: &DynamicMessage, name: &str) -> bool {
    pool.get_extension_by_name(name).is_some_and(|e| options.get_extension(&e).as_bool().unwrap_or(false))
}

fn text(pool: &DescriptorPool, options: &DynamicMessage, name: &str) -> String {
    match pool.get_extension_by_name(name).map(|e| options.get_extension(&e).into_owned()) {
        Some(Value::String(s)) => s,
        _ => String::new(),
    }
}
