//! Whether the audit log is what was written.

use audit::Anchor;
use axum::extract::{Query, State};
use serde::Deserialize;
use wire::error::{Error, Result};

use super::{
    answer::{Answer, Json},
    caller::By,
};
use crate::{Auth, Verification};

/// The most checkpoints that can be asked for at once.
const MAX_EXPECTED: usize = 100;

#[derive(Deserialize)]
pub(super) struct Asked {
    /// Checkpoints that must be there, `<number>:<digest>`, with commas between them.
    #[serde(default)]
    expect: String,
}

impl Asked {
    fn anchors(&self) -> Result<Vec<Anchor>> {
        let words = || self.expect.split(',').filter(|word| !word.is_empty());
        if words().count() > MAX_EXPECTED {
            return Err(Error::bad_parameter(format!("expect: at most {MAX_EXPECTED} checkpoints")));
        }
        let read = |word: &str| word.parse::<Anchor>().map_err(|e| Error::bad_parameter(format!("expect: {e}")));
        words().map(read).collect()
    }
}

/// `GET /audit/integrity?expect=…`: reads the whole log, so only those may ask who may read it.
pub(super) async fn verify(State(auth): State<Auth>, by: By, Query(asked): Query<Asked>) -> Answer<Verification> {
    by.service_or_rule(&[], "event", &["list", "read"])?;
    Ok(Json(auth.verify_audit_log(asked.anchors()?).await?))
}
