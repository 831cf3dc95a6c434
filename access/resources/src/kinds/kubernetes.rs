//! Kubernetes clusters, and the agents that serve them.

use wire::{
    kubewaitingcontainer::KubernetesWaitingContainer,
    types::{KubernetesClusterV3, KubernetesServerV3},
};

use super::{check_labels, default_text, required, table::kinds};
use crate::{Place, ResourceError, Result, kind, places};

kinds! {
    KubernetesClusterV3: kind::KUBE_CLUSTER, "v3", plain_header {
        place: |cluster| Place::new(places::KUBERNETES_CLUSTERS, [cluster.name()]),
        defaults: |cluster| { cluster.spec.get_or_insert_default(); },
        check: |cluster| {
            check_name(cluster.name())?;
            check_labels("spec.dynamic_labels", cluster.spec.iter().flat_map(|spec| spec.dynamic_labels.keys()))
        },
    }
    KubernetesServerV3: kind::KUBE_SERVER, "v3", plain_header {
        place: |server| {
            let host = server.spec.as_ref().map_or("", |s| &s.host_id);
            Place::new(places::KUBERNETES_SERVERS, [host, server.name()])
        },
        defaults: |server| {
            let spec = server.spec.get_or_insert_default();
            if let Some(cluster) = &mut spec.cluster {
                cluster.set_defaults();
            }
            let name = spec.cluster.as_ref().map(|c| c.name().to_owned()).unwrap_or_default();
            default_text(&mut server.metadata_mut().name, &name);
        },
        check: |server| {
            let spec = server.spec.clone().unwrap_or_default();
            required(&[("spec.host_id", &spec.host_id)])?;
            match &spec.cluster {
                Some(cluster) => cluster.check().map_err(|e| e.within("spec.cluster")),
                None => Err(ResourceError::field("spec.cluster", "missing the cluster that is served")),
            }
        },
    }
    KubernetesWaitingContainer: kind::KUBE_EPHEMERAL_CONTAINER, "v1", plain_header {
        place: |container| {
            let spec = container.spec.clone().unwrap_or_default();
            let parts = [&spec.username, &spec.cluster, &spec.namespace, &spec.pod_name, &spec.container_name];
            Place::new(places::KUBERNETES_WAITING_CONTAINERS, parts.map(String::as_str))
        },
        defaults: |container| { container.spec.get_or_insert_default(); },
        check: |container| {
            let spec = container.spec.clone().unwrap_or_default();
            required(&[
                ("spec.username", &spec.username),
                ("spec.cluster", &spec.cluster),
                ("spec.namespace", &spec.namespace),
                ("spec.pod_name", &spec.pod_name),
                ("spec.container_name", &spec.container_name),
            ])
        },
    }
}

/// Names of clusters stand in host names and in the contexts of `kubectl`.
fn check_name(name: &str) -> Result<()> {
    if name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return Ok(());
    }
    let text = format!("invalid kube cluster name {name:?}: expected letters, digits and the characters . _ -");
    Err(ResourceError::field("metadata.name", text))
}
