//! What plugins remember about access requests, such as the messages that they sent about them.

use resources::Resource as _;
use wire::error::{Error, ErrorKind, Result};
use wire::proto::PluginDataSeq;
use wire::types::{PluginDataEntry, PluginDataFilter, PluginDataUpdateParams};

use super::{Api, kinds, named};
use crate::store::kind;

/// Longest record of one request, in bytes.
const MAX_RECORD: usize = 64 << 10;
/// How often an update is tried before its caller learns that others were faster.
const ATTEMPTS: usize = 8;

/// What is remembered about one request, or about all, by one plugin or by all.
pub async fn get(api: &Api, filter: PluginDataFilter) -> Result<PluginDataSeq> {
    if !filter.kind.is_empty() && filter.kind != resources::kind::ACCESS_REQUEST {
        return Err(Error::bad_parameter(format!("plugin data of kind {:?} is not kept", filter.kind)));
    }
    let mut plugin_data = kinds::list::<kind::PluginData>(api).await?;
    plugin_data.retain(|data| filter.resource.is_empty() || data.name() == filter.resource);
    if !filter.plugin.is_empty() {
        for data in &mut plugin_data {
            data.spec.get_or_insert_default().entries.retain(|plugin, _| *plugin == filter.plugin);
        }
        plugin_data.retain(|data| data.spec.as_ref().is_some_and(|spec| !spec.entries.is_empty()));
    }
    Ok(PluginDataSeq { plugin_data })
}

/// Changes what one plugin remembers about a request, if what it expects is there. An empty value is none.
pub async fn update(api: &Api, params: PluginDataUpdateParams) -> Result<()> {
    if params.kind != resources::kind::ACCESS_REQUEST {
        return Err(Error::bad_parameter(format!("plugin data of kind {:?} is not kept", params.kind)));
    }
    let (id, plugin) = (named(&params.resource, "resource")?, named(&params.plugin, "plugin")?);
    let store = api.auth().store();
    let request = store.get::<kind::AccessRequest>(id).await.map_err(|error| match error.kind {
        ErrorKind::NotFound => Error::not_found(format!("access request {id:?} not found")),
        _ => error,
    })?;
    for _ in 0..ATTEMPTS {
        let known = match store.get::<kind::PluginData>(id).await {
            Ok(known) => Some(known),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut data = known.as_deref().cloned().unwrap_or_default();
        data.metadata_mut().name = id.to_owned();
        data.metadata_mut().expires = request.metadata().expires;
        data.set_defaults();
        change(data.spec.get_or_insert_default().entries.entry(plugin.to_owned()).or_default(), &params)?;
        if prost::Message::encoded_len(&data) > MAX_RECORD {
            return Err(Error::limit_exceeded(format!("plugins remember at most {MAX_RECORD} bytes about a request")));
        }
        let stored = match known {
            Some(_) => store.update::<kind::PluginData>(data).await,
            None => store.create::<kind::PluginData>(data).await,
        };
        match stored {
            Err(error) if matches!(error.kind, ErrorKind::CompareFailed | ErrorKind::AlreadyExists) => {}
            other => return other.map(drop),
        }
    }
    Err(Error::compare_failed("the plugin data is being changed by others, try again"))
}

fn change(entry: &mut PluginDataEntry, params: &PluginDataUpdateParams) -> Result<()> {
    for (key, expected) in &params.expect {
        if entry.data.get(key).map_or("", String::as_str) != expected {
            return Err(Error::compare_failed(format!("plugin data: the value of {key:?} is not the expected one")));
        }
    }
    for (key, value) in &params.set {
        match value.is_empty() {
            true => drop(entry.data.remove(key)),
            false => drop(entry.data.insert(key.clone(), value.clone())),
        }
    }
    Ok(())
}
