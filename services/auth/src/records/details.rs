//! What events about records say besides who changed which one.

use std::any::Any;

use resources::Resource;
use wire::events::{
    self, AccessListMemberMetadata, AppMetadata, DatabaseMetadata, DeviceMetadata, IntegrationMetadata,
    KubeClusterMetadata, OneOf, SamlIdPServiceProviderMetadata, one_of::Event,
};
use wire::{accesslist, types};

/// Fills in what the event's kind says about a record. A deleted one is known by its name alone.
pub(super) fn fill<V: Resource>(event: &mut OneOf, name: &str, value: Option<&V>) {
    let value = value.map(|value| value as &dyn Any);
    match &mut event.event {
        Some(Event::AppCreate(e)) => e.app = of(value, app),
        Some(Event::AppUpdate(e)) => e.app = of(value, app),
        Some(Event::DatabaseCreate(e)) => e.database = of(value, database),
        Some(Event::DatabaseUpdate(e)) => e.database = of(value, database),
        Some(Event::KubernetesClusterCreate(e)) => e.kube_cluster_metadata = of(value, kubernetes),
        Some(Event::KubernetesClusterUpdate(e)) => e.kube_cluster_metadata = of(value, kubernetes),
        Some(Event::IntegrationCreate(e)) => e.integration = of(value, integration),
        Some(Event::IntegrationUpdate(e)) => e.integration = of(value, integration),
        Some(Event::SamlIdPServiceProviderCreate(e)) => e.service_provider = of(value, service_provider),
        Some(Event::SamlIdPServiceProviderUpdate(e)) => e.service_provider = of(value, service_provider),
        Some(Event::AccessListMemberCreate(e)) => e.access_list_member = Some(member(name, value)),
        Some(Event::AccessListMemberUpdate(e)) => e.access_list_member = Some(member(name, value)),
        Some(Event::AccessListMemberDelete(e)) => e.access_list_member = Some(member(name, value)),
        Some(Event::DeviceEvent2(e)) => {
            let id = DeviceMetadata { device_id: name.to_owned(), ..DeviceMetadata::default() };
            e.device = of(value, device).or(Some(id));
        }
        _ => {}
    }
}

fn of<V: 'static, D>(value: Option<&dyn Any>, describe: impl Fn(&V) -> D) -> Option<D> {
    value?.downcast_ref().map(describe)
}

fn app(app: &types::AppV3) -> AppMetadata {
    let spec = app.spec.clone().unwrap_or_default();
    AppMetadata {
        app_uri: spec.uri,
        app_public_addr: spec.public_addr,
        app_labels: app.metadata().labels.clone().into_iter().collect(),
        app_name: app.name().to_owned(),
    }
}

fn database(database: &types::DatabaseV3) -> DatabaseMetadata {
    let spec = database.spec.clone().unwrap_or_default();
    DatabaseMetadata {
        database_protocol: spec.protocol,
        database_uri: spec.uri,
        database_labels: database.metadata().labels.clone().into_iter().collect(),
        ..DatabaseMetadata::default()
    }
}

fn kubernetes(cluster: &types::KubernetesClusterV3) -> KubeClusterMetadata {
    KubeClusterMetadata { kube_labels: cluster.metadata().labels.clone().into_iter().collect() }
}

fn integration(integration: &types::IntegrationV1) -> IntegrationMetadata {
    IntegrationMetadata { sub_kind: integration.sub_kind().to_owned(), ..IntegrationMetadata::default() }
}

fn service_provider(provider: &types::SamlIdPServiceProviderV1) -> SamlIdPServiceProviderMetadata {
    let spec = provider.spec.clone().unwrap_or_default();
    SamlIdPServiceProviderMetadata {
        service_provider_entity_id: spec.entity_id,
        attribute_mapping: spec.attribute_mapping.into_iter().map(|m| (m.name, m.value)).collect(),
        ..SamlIdPServiceProviderMetadata::default()
    }
}

fn member(name: &str, value: Option<&dyn Any>) -> AccessListMemberMetadata {
    let (list, member) = name.split_once('/').unwrap_or(("", name));
    let spec = of(value, |member: &accesslist::Member| member.spec.clone().unwrap_or_default()).unwrap_or_default();
    let member = events::AccessListMember {
        joined_on: spec.joined,
        reason: spec.reason,
        member_name: member.to_owned(),
        ..events::AccessListMember::default()
    };
    AccessListMemberMetadata { access_list_name: list.to_owned(), members: vec![member] }
}

fn device(device: &types::DeviceV1) -> DeviceMetadata {
    let spec = device.spec.clone().unwrap_or_default();
    let os = match spec.os_type.as_str() {
        "linux" => events::OsType::Linux,
        "macos" => events::OsType::Macos,
        "windows" => events::OsType::Windows,
        _ => events::OsType::Unspecified,
    };
    DeviceMetadata {
        device_id: device.name().to_owned(),
        os_type: os.into(),
        asset_tag: spec.asset_tag,
        device_origin: events::DeviceOrigin::Api.into(),
        ..DeviceMetadata::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use audit::codes;

    use super::*;

    #[test]
    fn events_say_what_the_record_is() {
        let metadata = types::Metadata { name: "grafana".into(), ..types::Metadata::default() };
        let spec = types::AppSpecV3 { uri: "http://localhost:1".into(), ..types::AppSpecV3::default() };
        let app = types::AppV3 { metadata: Some(metadata), spec: Some(spec), ..types::AppV3::default() };
        let mut event = codes::APP_CREATE.event(events::AppCreate::default());
        fill(&mut event, "grafana", Some(&app));
        let line = audit::json::to_json_line(&event).unwrap();
        assert!(
            line.contains(r#""app_uri":"http://localhost:1""#) && line.contains(r#""app_name":"grafana""#),
            "{line}"
        );
        let mut event = codes::DEVICE_DELETE.event(events::DeviceEvent2::default());
        fill::<types::DeviceV1>(&mut event, "the-id", None);
        assert!(audit::json::to_json_line(&event).unwrap().contains(r#""device_id":"the-id""#));
        let mut event = codes::ACCESS_LIST_MEMBER_DELETE.event(events::AccessListMemberDelete::default());
        fill::<accesslist::Member>(&mut event, "list/alice", None);
        let line = audit::json::to_json_line(&event).unwrap();
        assert!(line.contains(r#""access_list_name":"list""#) && line.contains(r#""member_name":"alice""#), "{line}");
    }
}
