//! Rotation: replacing the keys of an authority without anybody being shut out.
//!
//! | phase | signs | trusted | what members do |
//! | --- | --- | --- | --- |
//! | `init` | old | old and new | learn the new authority |
//! | `update_clients` | new | old and new | renew their certificate and show it where they connect to |
//! | `update_servers` | new | old and new | show it to those who connect to them as well |
//! | `standby` | new | new | – |
//! | `rollback` | old | old and new | renew their certificate with the old keys |
//!
//! Each phase is one conditional write, so two Auth Services never take different steps.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use keystore::Usability;
use pki::authority::CaType;
use wire::{
    error::{Error, Result},
    time,
    types::{CaKeySet, CertAuthorityV2, Rotation, RotationSchedule},
};

use crate::{
    Auth,
    authority::{self, usability},
    random,
    store::kind,
};

/// How long a rotation takes by itself when nobody says.
const DEFAULT_GRACE: TimeDelta = TimeDelta::hours(30);
/// The longest that may be asked for.
const MAX_GRACE: TimeDelta = TimeDelta::days(366);
/// How often rotations that go on by themselves are looked at, at least and at most.
const PERIOD: Duration = Duration::from_secs(19);

const IN_PROGRESS: &str = "in_progress";
const STANDBY: &str = "standby";

/// A step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is being rotated.
    Standby,
    /// There are new keys, which everybody is to learn.
    Init,
    /// The new keys sign.
    UpdateClients,
    /// Servers show certificates of the new keys.
    UpdateServers,
    /// The old keys sign again.
    Rollback,
}

impl Phase {
    /// The name, as requests and resources spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standby => STANDBY,
            Self::Init => "init",
            Self::UpdateClients => "update_clients",
            Self::UpdateServers => "update_servers",
            Self::Rollback => "rollback",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        let all = [Self::Init, Self::UpdateClients, Self::UpdateServers, Self::Standby, Self::Rollback];
        all.into_iter().find(|phase| phase.name() == name).ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|phase| phase.name()).collect();
            Error::bad_parameter(format!("unknown phase {name:?}, expected one of {}", known.join(", ")))
        })
    }

    /// The phase of an authority.
    pub fn of(ca: &CertAuthorityV2) -> Self {
        let rotation = ca.spec.as_ref().and_then(|spec| spec.rotation.as_ref());
        rotation.filter(|r| r.state == IN_PROGRESS).and_then(|r| Self::parse(&r.phase).ok()).unwrap_or(Self::Standby)
    }

    /// The phases that may follow.
    fn next(self) -> &'static [Self] {
        match self {
            Self::Standby => &[Self::Init],
            Self::Init => &[Self::UpdateClients, Self::Rollback],
            Self::UpdateClients => &[Self::UpdateServers, Self::Rollback],
            Self::UpdateServers => &[Self::Standby, Self::Rollback],
            Self::Rollback => &[Self::Standby],
        }
    }
}

/// What is asked of a rotation.
#[derive(Clone, Debug, Default)]
pub struct RotationRequest {
    /// Where to go; empty: `init`.
    pub target: String,
    /// `manual` or `auto`; empty: `manual`.
    pub mode: String,
    /// How long all phases take together when they go on by themselves; `None`: 30 hours.
    pub grace: Option<TimeDelta>,
    /// When each phase begins, in place of thirds of the grace period.
    pub schedule: Option<RotationSchedule>,
}

/// A request that was understood.
struct Plan {
    target: Phase,
    /// The phase from which a schedule saw this step; somebody may have turned back since.
    from: Option<Phase>,
    automatic: bool,
    grace: TimeDelta,
    schedule: RotationSchedule,
}

impl Auth {
    /// Takes a step of a rotation.
    ///
    /// # Errors
    /// `BadParameter` for steps that do not follow the present phase, and for impossible times; `NotFound`.
    pub async fn rotate_authority(&self, ca_type: CaType, request: &RotationRequest) -> Result<()> {
        self.ensure_authority(ca_type).await?;
        let plan = Plan::read(request, self.now())?;
        self.take_step(ca_type, &plan).await
    }

    async fn take_step(&self, ca_type: CaType, plan: &Plan) -> Result<()> {
        let making = self.0.authorities.making.lock().await;
        let ca = self.own_authority(ca_type)?;
        let fresh = match (plan.target, Phase::of(&ca)) {
            // Keys that wait for a rotation, as those of a host with a new module do, need no others beside them.
            (Phase::Init, Phase::Standby) if !self.has_waiting_keys(ca_type, &ca) => self.make_keys(ca_type).await?,
            _ => CaKeySet::default(),
        };
        let now = self.now();
        self.store()
            .change::<kind::CertAuthority>(&self.authority_name(ca_type), |ca| step(ca, plan, &fresh, now))
            .await?;
        drop(making);
        tracing::info!(%ca_type, phase = plan.target.name(), "rotation of an authority went on");
        self.tend_changed_keys().await;
        Ok(())
    }

    fn has_waiting_keys(&self, ca_type: CaType, ca: &CertAuthorityV2) -> bool {
        let trusted = ca.spec.as_ref().and_then(|spec| spec.additional_trusted_keys.as_ref());
        trusted.is_some_and(|keys| usability(self.key_store(), ca_type, keys) == Usability::Preferred)
    }

    /// Takes the steps of automatic rotations when their time has come; ends only by being dropped.
    pub(crate) async fn keep_rotating(&self) {
        loop {
            tokio::time::sleep(random::jitter(PERIOD)).await;
            self.rotate_by_schedule().await;
            // Other Auth Services rotate as well.
            self.tend_changed_keys().await;
        }
    }

    /// Takes every step whose time has come.
    pub(crate) async fn rotate_by_schedule(&self) {
        for (ca_type, ca) in self.own_authorities() {
            let Some(target) = due(&ca, self.now()) else { continue };
            let rotation = ca.spec.as_ref().and_then(|spec| spec.rotation.clone()).unwrap_or_default();
            let plan = Plan {
                target,
                from: Some(Phase::of(&ca)),
                automatic: true,
                grace: TimeDelta::nanoseconds(rotation.grace_period),
                schedule: rotation.schedule.unwrap_or_default(),
            };
            if let Err(error) = self.take_step(ca_type, &plan).await {
                tracing::warn!(%ca_type, %error, "a rotation could not go on, it is tried again");
            }
        }
    }
}

/// The phase that an automatic rotation should have reached, when it is not the present one.
fn due(ca: &CertAuthorityV2, now: DateTime<Utc>) -> Option<Phase> {
    let rotation = ca.spec.as_ref()?.rotation.as_ref().filter(|rotation| rotation.mode == "auto")?;
    let schedule = rotation.schedule.as_ref()?;
    let (at, next) = match Phase::of(ca) {
        Phase::Init => (&schedule.update_clients, Phase::UpdateClients),
        Phase::UpdateClients => (&schedule.update_servers, Phase::UpdateServers),
        Phase::UpdateServers => (&schedule.standby, Phase::Standby),
        Phase::Standby | Phase::Rollback => return None,
    };
    time::moment(at.as_ref()).is_none_or(|at| at <= now).then_some(next)
}

impl Plan {
    fn read(request: &RotationRequest, now: DateTime<Utc>) -> Result<Self> {
        let target = if request.target.is_empty() { Phase::Init } else { Phase::parse(&request.target)? };
        let automatic = match request.mode.as_str() {
            "" | "manual" => false,
            "auto" => true,
            other => return Err(Error::bad_parameter(format!("unknown mode {other:?}, expected manual or auto"))),
        };
        let grace = request.grace.unwrap_or(DEFAULT_GRACE);
        if grace <= TimeDelta::zero() || grace > MAX_GRACE {
            return Err(Error::bad_parameter("grace_period: expected more than 0 and at most 366 days"));
        }
        let schedule = match &request.schedule {
            Some(schedule) => {
                check_schedule(schedule, now)?;
                *schedule
            }
            None => {
                let after = |thirds: i32| Some(time::timestamp(now + grace * thirds / 3));
                RotationSchedule { update_clients: after(1), update_servers: after(2), standby: after(3) }
            }
        };
        Ok(Self { target, from: None, automatic, grace, schedule })
    }
}

fn check_schedule(schedule: &RotationSchedule, now: DateTime<Utc>) -> Result<()> {
    let moment = |what: &str, at: &Option<prost_types::Timestamp>| match time::moment(at.as_ref()) {
        Some(at) if at > now => Ok(at),
        Some(at) => Err(Error::bad_parameter(format!("schedule.{what}: {at} is past"))),
        None => Err(Error::bad_parameter(format!("schedule.{what} is missing"))),
    };
    let clients = moment("update_clients", &schedule.update_clients)?;
    let servers = moment("update_servers", &schedule.update_servers)?;
    if servers < clients {
        return Err(Error::bad_parameter("schedule.update_servers is before schedule.update_clients"));
    }
    if moment("standby", &schedule.standby)? < servers {
        return Err(Error::bad_parameter("schedule.standby is before schedule.update_servers"));
    }
    Ok(())
}

/// Changes an authority; `fresh` are new keys for [`Phase::Init`], none when there are some that are trusted already.
fn step(ca: &mut CertAuthorityV2, plan: &Plan, fresh: &CaKeySet, now: DateTime<Utc>) -> Result<()> {
    let (from, target) = (Phase::of(ca), plan.target);
    let spec = ca.spec.get_or_insert_default();
    if plan.from.is_some_and(|seen| seen != from) {
        return Err(Error::compare_failed(format!("the {} authority is in phase {} by now", spec.r#type, from.name())));
    }
    if !from.next().contains(&target) {
        let next: Vec<_> = from.next().iter().map(|phase| phase.name()).collect();
        return Err(Error::bad_parameter(format!(
            "the {} authority is in phase {}: it can go to {}, not to {}",
            spec.r#type,
            from.name(),
            next.join(" or "),
            target.name()
        )));
    }
    let mut rotation = spec.rotation.clone().unwrap_or_default();
    match target {
        Phase::Init => {
            let waiting = spec.additional_trusted_keys.take().unwrap_or_default();
            let mut next = fresh.clone();
            authority::append(&mut next, &waiting);
            spec.additional_trusted_keys = Some(next);
            rotation.current_id = uuid::Uuid::new_v4().to_string();
            rotation.started = Some(time::timestamp(now));
            rotation.grace_period = plan.grace.num_nanoseconds().unwrap_or(i64::MAX);
            rotation.schedule = Some(plan.schedule);
        }
        Phase::UpdateClients => std::mem::swap(&mut spec.active_keys, &mut spec.additional_trusted_keys),
        Phase::Rollback if from != Phase::Init => {
            std::mem::swap(&mut spec.active_keys, &mut spec.additional_trusted_keys);
        }
        Phase::UpdateServers | Phase::Rollback => {}
        Phase::Standby => {
            spec.additional_trusted_keys = Some(CaKeySet::default());
            finish(&mut rotation, now);
        }
    }
    if target != Phase::Standby {
        IN_PROGRESS.clone_into(&mut rotation.state);
        target.name().clone_into(&mut rotation.phase);
        // Nobody takes a step back by schedule.
        let automatic = plan.automatic && target != Phase::Rollback;
        if automatic { "auto" } else { "manual" }.clone_into(&mut rotation.mode);
    }
    spec.rotation = Some(rotation);
    Ok(())
}

/// The rotation is over.
fn finish(rotation: &mut Rotation, now: DateTime<Utc>) {
    STANDBY.clone_into(&mut rotation.state);
    STANDBY.clone_into(&mut rotation.phase);
    rotation.mode.clear();
    rotation.started = None;
    rotation.schedule = None;
    rotation.last_rotated = Some(time::timestamp(now));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pki::suite::SignatureSuite;

    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn authority() -> CertAuthorityV2 {
        authority::generate(&keystore::KeyStore::default(), CaType::User, "one", SignatureSuite::BalancedV1, now())
            .unwrap()
    }

    fn keys(ca: &CertAuthorityV2) -> (CaKeySet, CaKeySet) {
        let spec = ca.spec.clone().unwrap();
        (spec.active_keys.unwrap(), spec.additional_trusted_keys.unwrap())
    }

    fn go(ca: &mut CertAuthorityV2, target: &str) -> Result<()> {
        let request = RotationRequest { target: target.into(), ..Default::default() };
        let (fresh, _) = keys(&authority());
        step(ca, &Plan::read(&request, now())?, &fresh, now())
    }

    #[test]
    fn a_rotation_ends_with_the_new_keys_alone() {
        let mut ca = authority();
        let (old, _) = keys(&ca);
        go(&mut ca, "init").unwrap();
        let (active, new) = keys(&ca);
        assert!(active == old && new != old && Phase::of(&ca) == Phase::Init);
        go(&mut ca, "update_clients").unwrap();
        assert_eq!(keys(&ca), (new.clone(), old.clone()));
        go(&mut ca, "update_servers").unwrap();
        assert_eq!(keys(&ca), (new.clone(), old));
        go(&mut ca, "standby").unwrap();
        assert_eq!(keys(&ca), (new, CaKeySet::default()));
        let rotation = ca.spec.unwrap().rotation.unwrap();
        assert_eq!((&*rotation.state, &*rotation.phase, &*rotation.mode), ("standby", "standby", ""));
        assert!(rotation.last_rotated.is_some() && rotation.started.is_none() && !rotation.current_id.is_empty());
    }

    #[test]
    fn a_rollback_ends_with_the_old_keys_alone() {
        for before in [&["init"][..], &["init", "update_clients"], &["init", "update_clients", "update_servers"]] {
            let mut ca = authority();
            let (old, _) = keys(&ca);
            before.iter().for_each(|phase| go(&mut ca, phase).unwrap());
            go(&mut ca, "rollback").unwrap();
            let (active, new) = keys(&ca);
            assert!(active == old && new != CaKeySet::default(), "{before:?}");
            go(&mut ca, "standby").unwrap();
            assert_eq!(keys(&ca), (old, CaKeySet::default()), "{before:?}");
        }
    }

    #[test]
    fn steps_out_of_order_are_refused_and_change_nothing() {
        let allowed = |from: &[&str]| {
            let reached = |target: &str| {
                let mut ca = authority();
                from.iter().for_each(|phase| go(&mut ca, phase).unwrap());
                let before = ca.clone();
                let outcome = go(&mut ca, target);
                assert!(outcome.is_ok() || ca == before);
                outcome.is_ok()
            };
            ["init", "update_clients", "update_servers", "standby", "rollback"].map(reached)
        };
        assert_eq!(allowed(&[]), [true, false, false, false, false]);
        assert_eq!(allowed(&["init"]), [false, true, false, false, true]);
        assert_eq!(allowed(&["init", "update_clients"]), [false, false, true, false, true]);
        assert_eq!(allowed(&["init", "update_clients", "update_servers"]), [false, false, false, true, true]);
        assert_eq!(allowed(&["init", "rollback"]), [false, false, false, true, false]);
    }

    #[test]
    fn impossible_requests_are_named() {
        let refused = |request: RotationRequest| Plan::read(&request, now()).err().unwrap().to_string();
        let of = |text: &str| RotationRequest { target: text.into(), ..Default::default() };
        assert!(refused(of("next")).contains("update_servers"));
        assert!(refused(RotationRequest { mode: "magic".into(), ..of("init") }).contains("magic"));
        assert!(refused(RotationRequest { grace: Some(TimeDelta::zero()), ..of("init") }).contains("grace_period"));
        let at = |hours: i64| Some(time::timestamp(now() + TimeDelta::hours(hours)));
        let schedule = |servers, standby| RotationRequest {
            schedule: Some(RotationSchedule { update_clients: at(1), update_servers: servers, standby }),
            ..of("init")
        };
        assert!(refused(schedule(at(2), None)).contains("standby"));
        assert!(refused(schedule(at(-2), at(3))).contains("past"));
        assert!(refused(schedule(at(3), at(2))).contains("before"));
        assert!(Plan::read(&schedule(at(2), at(3)), now()).is_ok());
    }

    #[test]
    fn an_automatic_rotation_goes_on_when_its_time_has_come() {
        let mut ca = authority();
        let request = RotationRequest { mode: "auto".into(), grace: Some(TimeDelta::hours(3)), ..Default::default() };
        let (fresh, _) = keys(&authority());
        step(&mut ca, &Plan::read(&request, now()).unwrap(), &fresh, now()).unwrap();
        assert_eq!(due(&ca, now() + TimeDelta::minutes(59)), None);
        assert_eq!(due(&ca, now() + TimeDelta::minutes(60)), Some(Phase::UpdateClients));
        go(&mut ca, "rollback").unwrap();
        assert_eq!(due(&ca, now() + TimeDelta::days(9)), None, "a rollback waits for the administrator");
    }

    #[test]
    fn a_step_by_schedule_is_not_taken_from_another_phase() {
        let mut ca = authority();
        for phase in ["init", "update_clients", "update_servers", "rollback"] {
            go(&mut ca, phase).unwrap();
        }
        let request = RotationRequest { target: "standby".into(), ..Default::default() };
        let seen = Plan { from: Some(Phase::UpdateServers), ..Plan::read(&request, now()).unwrap() };
        let before = ca.clone();
        assert!(step(&mut ca, &seen, &CaKeySet::default(), now()).is_err());
        assert_eq!(ca, before);
    }
}
