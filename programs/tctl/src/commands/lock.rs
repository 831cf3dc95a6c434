//! `lock`.

use chrono::Utc;
use clap::Args;
use resources::Resource;
use uuid::Uuid;
use wire::types::{LockSpecV2, LockTarget, LockV2, Metadata};

use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{say, time};

/// Keep somebody or something out: running sessions end, new ones are refused.
#[derive(Args, Debug)]
pub struct Lock {
    /// A user.
    #[arg(long)]
    user: Option<String>,
    /// Everybody with a role.
    #[arg(long)]
    role: Option<String>,
    /// An account on servers.
    #[arg(long)]
    login: Option<String>,
    /// The id of a second factor's device.
    #[arg(long, value_name = "ID")]
    mfa_device: Option<String>,
    /// A desktop.
    #[arg(long, value_name = "NAME")]
    windows_desktop: Option<String>,
    /// An access request.
    #[arg(long, value_name = "ID")]
    access_request: Option<String>,
    /// A trusted device.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// A server: an agent of any kind.
    #[arg(long, value_name = "ID", alias = "node")]
    server_id: Option<String>,
    #[command(flatten)]
    terms: Terms,
}

/// What a lock says, and how long it lasts.
#[derive(Args, Debug)]
pub struct Terms {
    /// What those who are kept out read.
    #[arg(long)]
    message: Option<String>,
    /// When the lock ends, in RFC 3339.
    #[arg(long, value_name = "TIME", conflicts_with = "ttl")]
    expires: Option<String>,
    /// How long the lock lasts.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
}

impl Terms {
    /// Makes a lock, and says its name.
    pub async fn lock(&self, api: &Api, target: LockTarget) -> Result<()> {
        let lock = self.of(target)?;
        let name = lock.name().to_owned();
        api.auth().upsert_lock(lock).within("making the lock").await?;
        say(&format!("Created a lock with name {name:?}.\n"));
        Ok(())
    }

    fn of(&self, target: LockTarget) -> Result<LockV2> {
        let expires = match (&self.expires, &self.ttl) {
            (Some(at), _) => Some(time::rfc3339(at).map_err(|e| Error::bad(format!("--expires: {e}")))?),
            (None, Some(ttl)) => Some(time::after(Utc::now(), time::lifetime(ttl)?)?),
            (None, None) => None,
        };
        let mut lock = LockV2 {
            metadata: Some(Metadata { name: Uuid::new_v4().to_string(), ..Default::default() }),
            spec: Some(LockSpecV2 {
                target: Some(target),
                message: self.message.clone().unwrap_or_default(),
                expires: expires.map(wire::time::timestamp),
                ..Default::default()
            }),
            ..Default::default()
        };
        lock.check_and_set_defaults()?;
        Ok(lock)
    }
}

impl Lock {
    /// Makes the lock.
    pub async fn run(self, api: &Api) -> Result<()> {
        self.terms.lock(api, self.target()?).await
    }

    fn target(&self) -> Result<LockTarget> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let target = LockTarget {
            user: text(&self.user),
            role: text(&self.role),
            login: text(&self.login),
            mfa_device: text(&self.mfa_device),
            windows_desktop: text(&self.windows_desktop),
            access_request: text(&self.access_request),
            device: text(&self.device),
            server_id: text(&self.server_id),
            ..Default::default()
        };
        if target == LockTarget::default() {
            return Err(Error::bad(
                "the lock has no target: name one with --user, --role, --login, --server-id, --mfa-device, \
                 --windows-desktop, --access-request or --device",
            ));
        }
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        lock: Lock,
    }

    fn lock(line: &str) -> Result<LockV2> {
        let lock = Line::try_parse_from(line.split(' ')).unwrap().lock;
        lock.terms.of(lock.target()?)
    }

    #[test]
    fn a_lock_needs_a_target() {
        assert!(lock("lock --message=x").unwrap_err().to_string().contains("target"));
        let spec = lock("lock --user=eve --ttl=1h").unwrap().spec.unwrap();
        assert!(spec.target.unwrap().user == "eve" && spec.expires.is_some());
        assert!(lock("lock --server-id=s").unwrap().spec.unwrap().expires.is_none());
    }

    #[test]
    fn the_end_of_a_lock_is_one_time() {
        let said =
            Line::try_parse_from(["lock", "--user=x", "--ttl=1h", "--expires=2037-01-01T00:00:00Z"]).unwrap_err();
        assert!(said.to_string().contains("--expires") && said.to_string().contains("--ttl"));
        assert!(lock("lock --user=x --expires=tomorrow").unwrap_err().to_string().contains("tomorrow"));
    }
}
