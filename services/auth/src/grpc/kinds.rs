//! What the RPCs of most kinds do: read, list, write and remove records. The gate has checked the verbs already; kinds
//! that roles reach by label are seen and changed only where a role of the caller reaches them.

use rbac::Labelled;
use resources::{Resource, SystemRole};
use wire::error::{Error, ErrorKind, Result};
use wire::types::KeepAlive;
use wire::types::keep_alive::KeepAliveType;

use super::{Api, named, page, required};
use crate::authz::AuthContext;
use crate::store::kind::Kind;
use crate::store::resource_name;
use crate::{SERVER_TTL, Write};

/// The record of a name.
pub async fn get<K: Kind>(api: &Api, name: &str) -> Result<K::Value> {
    let name = if K::Value::SINGLETON.is_some() { "" } else { named(name, "name")? };
    Ok((*api.auth().store().get::<K>(name).await?).clone())
}

/// All records.
pub async fn list<K: Kind>(api: &Api) -> Result<Vec<K::Value>> {
    Ok(page::owned(api.auth().store().list::<K>().await?))
}

/// One page of records that `wanted` accepts, and where the next begins.
pub async fn page_of<K: Kind>(
    api: &Api,
    size: impl TryInto<i32>,
    start: &str,
    wanted: impl FnMut(&K::Value) -> bool,
) -> Result<(Vec<K::Value>, String)>
where
    K::Value: prost::Message,
{
    let limit = page::limit(size.try_into().unwrap_or(i32::MAX))?;
    let found = api.auth().store().page::<K>(start, limit, wanted).await?;
    let (mut items, mut next) = (page::owned(found.items), found.next_key);
    page::fit(&mut items, &mut next, |item| resource_name::<K>(item));
    Ok((items, next))
}

/// One page of all records.
pub async fn page<K: Kind>(api: &Api, size: impl TryInto<i32>, start: &str) -> Result<(Vec<K::Value>, String)>
where
    K::Value: prost::Message,
{
    page_of::<K>(api, size, start, |_| true).await
}

/// Writes a record.
pub async fn write<K: Kind>(
    api: &Api,
    context: &AuthContext,
    value: impl Into<Option<K::Value>>,
    write: Write,
) -> Result<K::Value> {
    let value = required(value.into(), K::NAME)?;
    api.auth().write_record::<K>(context.caller(), value, write).await
}

/// Removes a record.
pub async fn delete<K: Kind>(api: &Api, context: &AuthContext, name: &str) -> Result<()> {
    let name = if K::Value::SINGLETON.is_some() { "" } else { named(name, "name")? };
    api.auth().delete_record::<K>(context.caller(), name).await
}

/// Removes all records. Services that may remove their own may not remove all.
pub async fn delete_all<K: Kind>(api: &Api, context: &AuthContext) -> Result<()> {
    if context.is_service() && !context.is_admin() {
        return Err(Error::access_denied("access denied: services remove their own records only"));
    }
    api.auth().delete_records::<K>(context.caller()).await
}

/// The record of a name, if the caller's roles reach it; others do not exist for him.
pub async fn get_reached<K: Kind>(api: &Api, context: &AuthContext, name: &str) -> Result<K::Value>
where
    K::Value: Labelled,
{
    let found = get::<K>(api, name).await?;
    if context.reaches(&found) { Ok(found) } else { Err(Error::not_found(format!("{} not found", found.title()))) }
}

/// The records that the caller's roles reach.
pub async fn list_reached<K: Kind>(api: &Api, context: &AuthContext) -> Result<Vec<K::Value>>
where
    K::Value: Labelled,
{
    let mut found = list::<K>(api).await?;
    found.retain(|value| context.reaches(value));
    Ok(found)
}

/// Writes a record that the caller's roles reach, in place of one that they reach as well.
pub async fn write_reached<K: Kind>(
    api: &Api,
    context: &AuthContext,
    value: impl Into<Option<K::Value>>,
    write: Write,
) -> Result<K::Value>
where
    K::Value: Labelled,
{
    let value = required(value.into(), K::NAME)?;
    if !context.reaches(&value) {
        return Err(unreached(&value));
    }
    match api.auth().store().get::<K>(&resource_name::<K>(&value)).await {
        Ok(before) if !context.reaches(&*before) => return Err(unreached(&*before)),
        Err(error) if error.kind != ErrorKind::NotFound && error.kind != ErrorKind::BadParameter => return Err(error),
        _ => {}
    }
    api.auth().write_record::<K>(context.caller(), value, write).await
}

/// Removes a record that the caller's roles reach.
pub async fn delete_reached<K: Kind>(api: &Api, context: &AuthContext, name: &str) -> Result<()>
where
    K::Value: Labelled,
{
    get_reached::<K>(api, context, name).await?;
    delete::<K>(api, context, name).await
}

fn unreached<T: Labelled + Resource>(value: &T) -> Error {
    Error::access_denied(format!("access to {} denied: none of your roles reaches its labels", value.title()))
}

/// Takes the record that an agent keeps of what it serves: `host` is the agent. Such a record ends unless it is
/// renewed.
pub async fn announce<K: Kind>(
    api: &Api,
    context: &AuthContext,
    value: Option<K::Value>,
    (of, host): (KeepAliveType, fn(&K::Value) -> &str),
) -> Result<KeepAlive> {
    let mut value = required(value, K::NAME)?;
    let host_id = host(&value).to_owned();
    require_own(context, &host_id)?;
    value.check_and_set_defaults().map_err(Error::from)?;
    let latest = api.auth().now() + SERVER_TTL;
    let lasting = context.is_admin() || !context.is_service();
    if !lasting && value.expires().is_none_or(|at| at > latest) {
        value.set_expires(Some(latest));
    }
    let stored = api.auth().store().upsert::<K>(value).await?;
    Ok(KeepAlive {
        name: stored.name().to_owned(),
        namespace: resources::NAMESPACE.to_owned(),
        expires: stored.metadata().expires,
        r#type: of as i32,
        host_id,
    })
}

/// Removes the record that an agent keeps of what it serves.
pub async fn retract<K: Kind>(api: &Api, context: &AuthContext, host: &str, name: &str) -> Result<()> {
    require_own(context, named(host, "HostID")?)?;
    api.auth().store().delete::<K>(&two_part(host, name)?).await
}

/// The name under which a record of two parts is stored.
pub fn two_part(first: &str, second: &str) -> Result<String> {
    if first.contains('/') {
        return Err(Error::bad_parameter(format!("{first:?} contains a slash")));
    }
    Ok(format!("{first}/{}", named(second, "name")?))
}

/// An agent speaks of itself only; the administrator and people with the verbs speak of every agent.
fn require_own(context: &AuthContext, host_id: &str) -> Result<()> {
    let foreign = context.is_admin() || context.has_role(SystemRole::Discovery) || !context.is_service();
    if foreign { Ok(()) } else { context.require_own_server(host_id) }
}
