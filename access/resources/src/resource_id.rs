//! The text form of resources in requests for access and in certificates: `/<cluster>/<kind>/<name>`, and for what is
//! inside of a Kubernetes cluster `/<cluster>/<kind>/<name of that cluster>/<namespace>/<name>`.

use wire::types::ResourceId;

use crate::{KUBERNETES_KINDS, ResourceError, Result};

/// The text form of a resource.
pub fn resource_id_text(id: &ResourceId) -> String {
    let mut text = format!("/{}/{}/{}", id.cluster_name, id.kind, id.name);
    if !id.sub_resource_name.is_empty() {
        text.push('/');
        text.push_str(&id.sub_resource_name);
    }
    text
}

/// Reads the text form of a resource.
///
/// # Errors
/// What is wrong, with the text.
pub fn parse_resource_id(text: &str) -> Result<ResourceId> {
    let wrong = || {
        ResourceError::invalid(format!(
            "{text:?} is no resource: expected /<cluster>/<kind>/<name>, such as /example.com/node/1b2c…"
        ))
    };
    let mut parts = text.strip_prefix('/').ok_or_else(wrong)?.splitn(4, '/');
    let mut next = || parts.next().filter(|part| !part.is_empty()).map(str::to_owned);
    let (Some(cluster_name), Some(kind), Some(name)) = (next(), next(), next()) else { return Err(wrong()) };
    let sub_resource_name = next().unwrap_or_default();
    if KUBERNETES_KINDS.contains(&kind.as_str()) == sub_resource_name.is_empty() {
        return Err(wrong());
    }
    Ok(ResourceId { cluster_name, kind, name, sub_resource_name })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_text_form_is_read_as_it_is_written() {
        for text in ["/one/node/1b2c", "/one/app/grafana", "/one/pod/kube/default/web-1", "/one/namespace/kube/dev"] {
            assert_eq!(resource_id_text(&parse_resource_id(text).unwrap()), text);
        }
        for text in ["", "one/node/x", "/one/node", "/one//x", "/one/node/", "/one/node/x/y", "/one/pod/kube", "/"] {
            let said = parse_resource_id(text).unwrap_err().to_string();
            assert!(said.contains("/<cluster>/<kind>/<name>"), "{said}");
        }
    }
}
