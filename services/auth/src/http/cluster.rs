//! What the cluster is.

use std::collections::HashMap;

use axum::extract::{Path, State};
use wire::{
    error::Error,
    types::{ClusterNameV2, Namespace},
};

use super::{
    answer::{Answer, Json},
    caller::By,
};
use crate::{Auth, store::kind};

/// `GET /configuration/name`.
pub(super) async fn name(State(auth): State<Auth>, by: By) -> Answer<ClusterNameV2> {
    by.known()?;
    Ok(Json((*auth.store().cached::<kind::ClusterName>("")?).clone()))
}

/// `GET /namespaces`.
pub(super) async fn namespaces(State(auth): State<Auth>, by: By) -> Answer<Vec<Namespace>> {
    by.known()?;
    Ok(Json(auth.store().cached_list::<kind::Namespace>().iter().map(|namespace| (**namespace).clone()).collect()))
}

/// `GET /namespaces/<name>`.
pub(super) async fn namespace(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
) -> Answer<Namespace> {
    by.known()?;
    let name = part(&path, "name")?;
    Ok(Json((*auth.store().cached::<kind::Namespace>(name)?).clone()))
}

/// A named segment of the path.
pub(super) fn part<'a>(path: &'a HashMap<String, String>, name: &str) -> Result<&'a str, Error> {
    path.get(name).map(String::as_str).ok_or_else(|| Error::bad_parameter(format!("missing {name} in the path")))
}
