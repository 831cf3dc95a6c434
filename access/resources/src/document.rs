use serde_json::{Value, ser::PrettyFormatter};

use crate::{AnyResource, NAMESPACE, Resource, ResourceError, Result, read};

/// What happens to fields that this build does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fields {
    /// They are refused, with the nearest known field: a misspelt field would silently change a policy.
    #[default]
    Known,
    /// They are dropped: for resources written by newer builds.
    Any,
}

/// Reads the resources of a text: YAML documents separated by `---`, or JSON. A document may be a list of resources.
/// Every resource has its defaults and is checked.
///
/// # Errors
/// The first document that is refused. A text without any resource is refused as well.
pub fn parse_documents(text: &str, fields: Fields) -> Result<Vec<AnyResource>> {
    let documents = values(text)?;
    if documents.is_empty() {
        return Err(ResourceError::Empty);
    }
    let several = documents.len() > 1;
    let numbered = documents.into_iter().enumerate();
    numbered
        .map(|(i, value)| {
            parse_value(value, fields).map_err(|e| match e {
                e @ ResourceError::In { .. } => e,
                e if several => e.within(format!("document {}", i + 1)),
                e => e,
            })
        })
        .collect()
}

/// Reads one resource from its JSON value, fills its blanks and checks it.
///
/// # Errors
/// See [`ResourceError`].
pub fn parse_value(value: Value, fields: Fields) -> Result<AnyResource> {
    let Value::Object(object) = &value else {
        return Err(ResourceError::invalid(format!("expected a resource, found {}", read::describe(&value))));
    };
    let kind = match object.get("kind") {
        Some(Value::String(kind)) if !kind.is_empty() => kind.clone(),
        None | Some(Value::Null | Value::String(_)) => return Err(ResourceError::NoKind),
        Some(other) => {
            return Err(ResourceError::field("kind", format!("expected text, found {}", read::describe(other))));
        }
    };
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let title = if name.is_empty() { kind.clone() } else { format!("{kind} {name:?}") };
    let mut value = value;
    drop_old_fields(&mut value);
    let mut resource = AnyResource::read(&kind, value, fields).map_err(|e| match e {
        e @ ResourceError::UnknownKind { .. } => e,
        e => e.within(title),
    })?;
    resource.check_and_set_defaults()?;
    Ok(resource)
}

/// Removes fields of old files that say nothing: the only namespace, and the number that revisions replaced.
fn drop_old_fields(value: &mut Value) {
    let default = Value::from(NAMESPACE);
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("id");
        if metadata.get("namespace") == Some(&default) {
            metadata.remove("namespace");
        }
    }
    for conditions in ["/spec/allow", "/spec/deny"] {
        if let Some(conditions) = value.pointer_mut(conditions).and_then(Value::as_object_mut) {
            let namespaces = conditions.get("namespaces").and_then(Value::as_array);
            if namespaces.is_some_and(|list| list.iter().all(|n| *n == default || *n == "*")) {
                conditions.remove("namespaces");
            }
        }
    }
}

/// What the YAML library tells programmers about keys that stand twice.
const DUPLICATE_KEY_ADVICE: &str = ", set DuplicateKeyPolicy in Options if acceptable";

/// The JSON values of the documents of a text; lists are flattened, empty documents skipped.
fn values(text: &str) -> Result<Vec<Value>> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|e| ResourceError::Syntax(e.to_string().replace(DUPLICATE_KEY_ADVICE, "").trim().to_owned()))?;
    let mut flat = Vec::new();
    for document in documents {
        match document {
            Value::Array(items) => flat.extend(items),
            Value::Null => {}
            other => flat.push(other),
        }
    }
    Ok(flat)
}

/// Writes resources as YAML documents separated by `---`.
///
/// # Errors
/// Does not happen for resources of this crate; reported rather than hidden.
pub fn to_yaml(resources: &[AnyResource]) -> Result<String> {
    let values = resources.iter().map(value).collect::<Result<Vec<_>>>()?;
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_multiple_with_options(&values, options)
        .map_err(|e| ResourceError::invalid(format!("cannot write YAML: {e}")))
}

/// Writes resources as one JSON list, indented by four blanks.
///
/// # Errors
/// Does not happen for resources of this crate; reported rather than hidden.
pub fn to_json(resources: &[AnyResource]) -> Result<String> {
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"    "));
    serde::Serialize::serialize(resources, &mut writer)
        .map_err(|e| ResourceError::invalid(format!("cannot write JSON: {e}")))?;
    String::from_utf8(text).map_err(|e| ResourceError::invalid(format!("cannot write JSON: {e}")))
}

fn value(resource: &AnyResource) -> Result<Value> {
    serde_json::to_value(resource)
        .map_err(|e| ResourceError::invalid(format!("cannot write {}: {e}", resource.title())))
}

/// The stored form of a resource.
///
/// # Errors
/// Does not happen for resources of this crate; reported rather than hidden.
pub fn encode<T: Resource>(resource: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(resource).map_err(|e| ResourceError::invalid(format!("cannot write {}: {e}", resource.title())))
}

/// Reads the stored form of a resource and fills its blanks. Nothing is checked: what was accepted once stays
/// readable. Fields of newer builds are dropped.
///
/// # Errors
/// Bytes that are no resource of this type.
pub fn decode<T: Resource>(bytes: &[u8]) -> Result<T> {
    let mut resource: T = serde_json::from_slice(bytes)
        .map_err(|e| ResourceError::invalid(format!("stored {} cannot be read: {e}", T::KIND)))?;
    resource.set_defaults();
    Ok(resource)
}
