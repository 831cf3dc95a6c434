//! The keys of sealed recordings.

use axum::extract::State;

use super::{
    answer::{Answer, Json},
    caller::By,
};
use crate::{Auth, sealing::SealingStatus};

const KIND: &str = "session_recording_config";

/// `GET /recordings/encryption`: the names of the keys.
pub(super) async fn status(State(auth): State<Auth>, by: By) -> Answer<SealingStatus> {
    by.service_or_rule(&[], KIND, &["read"])?;
    Ok(Json(auth.sealing_status().await?))
}

/// `POST /recordings/encryption/rotate`: a new key from now on.
pub(super) async fn rotate(State(auth): State<Auth>, by: By) -> Answer<SealingStatus> {
    by.service_or_rule(&[], KIND, &["update"])?;
    Ok(Json(auth.rotate_sealing_key(&by.caller).await?))
}
