//! Requests for access in the audit log.

use std::collections::BTreeMap;

use prost_types::{ListValue, Struct, Value, value::Kind};
use resources::Resource as _;
use wire::events::{AccessRequestCreate, AccessRequestDelete, ResourceId, ResourceMetadata};
use wire::types::{AccessRequestV3, RequestState};
use wire::wrappers::LabelValues;

use super::state_of;
use crate::Caller;

/// What all events about a request say.
pub(super) fn about(caller: &Caller, request: &AccessRequestV3) -> AccessRequestCreate {
    let spec = request.spec.clone().unwrap_or_default();
    let state = state_of(&spec);
    let annotations = if state == RequestState::Pending { &spec.system_annotations } else { &spec.resolve_annotations };
    let ids = spec.requested_resource_i_ds.iter().map(|id| ResourceId {
        cluster_name: id.cluster_name.clone(),
        kind: id.kind.clone(),
        name: id.name.clone(),
        sub_resource_name: id.sub_resource_name.clone(),
    });
    AccessRequestCreate {
        user: Some(caller.user_metadata()),
        resource: Some(ResourceMetadata {
            expires: request.metadata().expires,
            updated_by: caller.user_name(),
            ..ResourceMetadata::default()
        }),
        requested_resource_i_ds: ids.collect(),
        roles: spec.roles,
        request_id: request.name().to_owned(),
        request_state: state_name(state).to_owned(),
        reason: if state == RequestState::Pending { spec.request_reason } else { spec.resolve_reason },
        annotations: annotations.as_ref().and_then(as_struct),
        max_duration: spec.max_duration,
        assume_start_time: spec.assume_start_time,
        ..AccessRequestCreate::default()
    }
}

/// The event of a removal.
pub(super) fn removal(caller: &Caller, id: &str) -> AccessRequestDelete {
    AccessRequestDelete {
        user: Some(caller.user_metadata()),
        request_id: id.to_owned(),
        ..AccessRequestDelete::default()
    }
}

/// A state as events spell it.
pub(super) fn state_name(state: RequestState) -> &'static str {
    state.as_str_name()
}

fn as_struct(annotations: &LabelValues) -> Option<Struct> {
    let text = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
    let list = |values: &Vec<String>| Value {
        kind: Some(Kind::ListValue(ListValue { values: values.iter().map(text).collect() })),
    };
    let fields: BTreeMap<String, Value> =
        annotations.values.iter().map(|(key, values)| (key.clone(), list(&values.values))).collect();
    (!fields.is_empty()).then_some(Struct { fields })
}
