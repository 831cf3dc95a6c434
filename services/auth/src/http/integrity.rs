//! Whether the audit log is what was written.

use axum::extract::State;

use super::{
    answer::{Answer, Json},
    caller::By,
};
use crate::{Auth, Verification};

/// `GET /audit/integrity`: reads the whole log, so only those may ask who may read it.
pub(super) async fn verify(State(auth): State<Auth>, by: By) -> Answer<Verification> {
    by.service_or_rule(&[], "event", &["list", "read"])?;
    Ok(Json(auth.verify_audit_log().await?))
}
