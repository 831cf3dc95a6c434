//! What a request asks for, against the roles of whoever asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use prost::Message as _;
use rbac::{Labelled, RoleSet, Wish};
use resources::{Resource as _, kind as kinds};
use uuid::Uuid;
use wire::error::{Error, ErrorKind, Result};
use wire::time::{moment, timestamp};
use wire::types::{
    AccessCapabilities, AccessCapabilitiesRequest, AccessRequestV3, RequestState, ResourceId, ServerV2, UserV2,
};
use wire::wrappers::{LabelValues, StringValues};

use super::{check_reason, check_start, state_of};
use crate::Auth;
use crate::store::kind::{self, Kind};

/// Every role the user may ask for.
const ALL_ROLES: &str = "*";
/// Most roles, and most suggested reviewers, of one request.
const MAX_NAMES: usize = 100;
/// Most resources of one request: all of them stand in certificates.
const MAX_RESOURCES: usize = 100;
/// Bytes of a whole request.
const MAX_BYTES: usize = 64 << 10;
/// Most requests of one user that wait for a decision.
const MAX_PENDING: usize = 100;
/// Longest access that roles can allow.
const MAX_ACCESS: TimeDelta = TimeDelta::days(14);
/// Longest access of a request that asks for no particular time.
const MAX_SESSION: TimeDelta = TimeDelta::hours(30);
/// How long a request waits for a decision, at most.
const MAX_WAIT: TimeDelta = TimeDelta::days(7);

/// Kinds of resources that requests may name, besides those inside of Kubernetes clusters.
const REQUESTABLE: [&str; 6] =
    [kinds::NODE, kinds::KUBE_CLUSTER, kinds::DB, kinds::APP, kinds::WINDOWS_DESKTOP, kinds::USER_GROUP];

/// Says of roles whether they reach something.
type Reach = Box<dyn Fn(&RoleSet) -> bool + Send + Sync>;

/// Whoever asks, with the roles that say what for.
struct Asker {
    user: Arc<UserV2>,
    roles: RoleSet,
}

impl Auth {
    /// A request as it is to be stored: checked, with thresholds, annotations and times.
    pub(super) async fn checked_wish(
        &self,
        request: AccessRequestV3,
        session_end: Option<DateTime<Utc>>,
    ) -> Result<AccessRequestV3> {
        let mut request = self.sane(request)?;
        let spec = request.spec.get_or_insert_default();
        let (user, roles) = self.user_role_set(&spec.user).map_err(|error| match error.kind {
            ErrorKind::NotFound => Error::not_found(format!("user {:?} not found", spec.user)),
            _ => error,
        })?;
        let asker = Asker { user, roles };
        if asker.roles.options().request.reason_required && spec.request_reason.trim().is_empty() {
            return Err(Error::bad_parameter("request reason must be specified (required by the roles of the user)"));
        }
        let wish = if spec.requested_resource_i_ds.is_empty() { Wish::Roles } else { Wish::Resources };
        spec.roles = match wish {
            Wish::Roles => self.wanted_roles(&asker, std::mem::take(&mut spec.roles))?,
            Wish::Resources => {
                let named = std::mem::take(&mut spec.roles);
                self.roles_for_resources(&asker, named, &spec.requested_resource_i_ds, &spec.login_hint).await?
            }
        };
        let thresholds = asker.roles.thresholds(&spec.roles, wish);
        (spec.thresholds, spec.role_threshold_mapping) = (thresholds.list, thresholds.by_role);
        if spec.suggested_reviewers.is_empty() {
            spec.suggested_reviewers = asker.roles.suggested_reviewers();
        }
        spec.system_annotations = Some(labels(asker.roles.request_annotations()));
        self.set_times(&mut request, &asker, wish, session_end)?;
        self.check_pending_count(&request)?;
        request.check_and_set_defaults().map_err(Error::from)?;
        Ok(request)
    }

    /// What the client may decide, within bounds; everything else is forgotten.
    fn sane(&self, given: AccessRequestV3) -> Result<AccessRequestV3> {
        // Everybody who may see a request reads all of it, and every cache keeps it.
        if given.encoded_len() > MAX_BYTES {
            return Err(Error::bad_parameter(format!("the access request is longer than {MAX_BYTES} bytes")));
        }
        let name = given.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
        let id = match name {
            "" => Uuid::new_v4(),
            name => Uuid::try_parse(name)
                .map_err(|_| Error::bad_parameter(format!("metadata.name: expected a UUID, found {name:?}")))?,
        };
        let mut request = AccessRequestV3::default();
        request.metadata_mut().name = id.to_string();
        request.metadata_mut().expires = given.metadata.and_then(|metadata| metadata.expires);
        let mut spec = given.spec.unwrap_or_default();
        if spec.user.is_empty() {
            return Err(Error::bad_parameter("missing parameter spec.user"));
        }
        if !matches!(state_of(&spec), RequestState::None | RequestState::Pending) {
            return Err(Error::bad_parameter("spec.state: a new request is pending"));
        }
        check_reason(&spec.request_reason)?;
        if spec.roles.len() > MAX_NAMES || spec.suggested_reviewers.len() > MAX_NAMES {
            return Err(Error::bad_parameter(format!("more than {MAX_NAMES} roles or reviewers")));
        }
        check_count(&spec.requested_resource_i_ds)?;
        if spec.roles.is_empty() && spec.requested_resource_i_ds.is_empty() {
            return Err(Error::bad_parameter("an access request names roles or resources"));
        }
        spec.state = RequestState::Pending.into();
        spec.created = Some(timestamp(self.now()));
        spec.reviews = Vec::new();
        (spec.resolve_reason, spec.resolve_annotations) = (String::new(), None);
        spec.access_list = None;
        request.spec = Some(spec);
        Ok(request)
    }

    /// The roles of a request by name, each of which the user may ask for.
    fn wanted_roles(&self, asker: &Asker, asked: Vec<String>) -> Result<Vec<String>> {
        if asked != [ALL_ROLES] {
            self.roles(&asked)?;
            for role in &asked {
                asker.roles.check_request(role, Wish::Roles).into_result().map_err(Error::from)?;
            }
            return Ok(without_repeats(asked));
        }
        let all = self.requestable_roles(asker);
        if all.is_empty() {
            return Err(Error::access_denied(format!(
                "access denied: user {:?} has no roles that they may request",
                asker.user.name()
            )));
        }
        Ok(all)
    }

    /// The roles that the user does not hold and may ask for by name.
    fn requestable_roles(&self, asker: &Asker) -> Vec<String> {
        let all = self.store().cached_list::<kind::Role>();
        let names = all.iter().map(|role| role.name());
        let wanted = names.filter(|name| !asker.roles.has_role(name));
        wanted.filter(|name| asker.roles.check_request(name, Wish::Roles).is_allowed()).map(str::to_owned).collect()
    }

    /// The roles that give access to at least one of the resources, among those the user may search as.
    async fn roles_for_resources(
        &self,
        asker: &Asker,
        named: Vec<String>,
        ids: &[ResourceId],
        login: &str,
    ) -> Result<Vec<String>> {
        for id in ids {
            self.check_resource_id(id)?;
        }
        let candidates = if named.is_empty() { asker.roles.search_as_roles() } else { without_repeats(named) };
        if candidates.is_empty() {
            return Err(Error::access_denied(format!(
                "Resource Access Requests require usable \"search_as_roles\", none found for user {:?}",
                asker.user.name()
            )));
        }
        for role in &candidates {
            asker.roles.check_request(role, Wish::Resources).into_result().map_err(Error::from)?;
        }
        let reaches = self.reaches(ids, login).await?;
        let is_of_use = |role: &RoleSet| reaches.iter().any(|reach| reach(role));
        let useful: Vec<String> = candidates
            .into_iter()
            .filter(|name| self.alone(asker, name).is_some_and(|role| is_of_use(&role)))
            .collect();
        if useful.is_empty() {
            return Err(Error::access_denied(
                "access denied: no roles configured in \"search_as_roles\" allow access to any of the requested resources",
            ));
        }
        Ok(useful)
    }

    fn check_resource_id(&self, id: &ResourceId) -> Result<()> {
        let shown = format!("/{}/{}/{}", id.cluster_name, id.kind, id.name);
        let inside_kubernetes = resources::KUBERNETES_KINDS.contains(&id.kind.as_str());
        if !REQUESTABLE.contains(&id.kind.as_str()) && !inside_kubernetes {
            return Err(Error::bad_parameter(format!("{shown}: resources of kind {:?} cannot be requested", id.kind)));
        }
        let broken = |text: &str| text.is_empty() || text.chars().any(|c| c.is_control() || c == '/');
        if broken(&id.name) || (inside_kubernetes && id.sub_resource_name.is_empty()) {
            return Err(Error::bad_parameter(format!("{shown}: expected /<cluster>/<kind>/<name>")));
        }
        if id.sub_resource_name.chars().any(char::is_control) {
            return Err(Error::bad_parameter(format!("{shown}: the name holds control characters")));
        }
        if id.cluster_name != self.cluster_name() {
            self.store()
                .cached::<kind::RemoteCluster>(&id.cluster_name)
                .map_err(|_| Error::not_found(format!("{shown}: cluster {:?} is not known here", id.cluster_name)))?;
        }
        Ok(())
    }

    /// The roles among these that give access to all of the resources.
    async fn roles_that_reach(
        &self,
        asker: &Asker,
        roles: Vec<String>,
        ids: &[ResourceId],
        login: &str,
    ) -> Result<Vec<String>> {
        for id in ids {
            self.check_resource_id(id)?;
        }
        let reaches = self.reaches(ids, login).await?;
        let mut reaching = Vec::new();
        for name in roles {
            if self.alone(asker, &name).is_some_and(|role| reaches.iter().all(|reach| reach(&role))) {
                reaching.push(name);
            }
            // There may be many roles, and others wait for this thread.
            tokio::task::yield_now().await;
        }
        Ok(reaching)
    }

    /// What a role gives to whoever asks. A role that was removed since gives nothing.
    fn alone(&self, asker: &Asker, name: &str) -> Option<RoleSet> {
        let role = self.0.parsed_roles.get(&self.role(name).ok()?);
        Some(RoleSet::new([role], asker.roles.traits().clone()))
    }

    /// For each of the resources, what says whether roles reach it. Those of other clusters cannot be seen from here.
    async fn reaches(&self, ids: &[ResourceId], login: &str) -> Result<Vec<Reach>> {
        let mut reaches = Vec::with_capacity(ids.len());
        for id in ids {
            reaches.push(match id.kind.as_str() {
                _ if id.cluster_name != self.cluster_name() => Box::new(|_: &RoleSet| true),
                kinds::NODE => match self.store().get::<kind::Node>(&id.name).await {
                    Ok(node) => on_node(node, login.to_owned()),
                    Err(error) if error.kind == ErrorKind::NotFound => Box::new(|_: &RoleSet| false),
                    Err(error) => return Err(error),
                },
                kinds::APP => self.served::<kind::AppServer>(&id.name).await?,
                kinds::DB => self.served::<kind::DatabaseServer>(&id.name).await?,
                kinds::WINDOWS_DESKTOP => self.served::<kind::WindowsDesktop>(&id.name).await?,
                kinds::USER_GROUP => self.served::<kind::UserGroup>(&id.name).await?,
                _ => self.served::<kind::KubernetesServer>(&id.name).await?,
            });
        }
        Ok(reaches)
    }

    /// Says whether roles reach something of this name.
    async fn served<K: Kind>(&self, name: &str) -> Result<Reach>
    where
        K::Value: Labelled,
    {
        let mut all = self.store().list::<K>().await?;
        all.retain(|value| value.target().name == name);
        Ok(Box::new(move |roles| all.iter().any(|value| roles.can_see(&value.target()))))
    }

    /// Until when the request waits, and until when its access lasts.
    fn set_times(
        &self,
        request: &mut AccessRequestV3,
        asker: &Asker,
        wish: Wish,
        session_end: Option<DateTime<Utc>>,
    ) -> Result<()> {
        let now = self.now();
        let waits = request.metadata().expires;
        let spec = request.spec.get_or_insert_default();
        let mut session = now + MAX_SESSION;
        for role in self.roles(&spec.roles)? {
            let nanos = role.spec.as_ref().and_then(|s| s.options.as_ref()).map_or(0, |o| o.max_session_ttl);
            if nanos > 0 {
                session = session.min(now + TimeDelta::nanoseconds(nanos));
            }
        }
        session = session.min(session_end.unwrap_or(session));
        if let Some(asked) = moment(spec.session_ttl.as_ref()) {
            session = session.min(asked);
        }
        let longest = asker.roles.longest_request(&spec.roles, wish).map(|longest| bounded(longest).min(MAX_ACCESS));
        let access = match (moment(spec.max_duration.as_ref()), longest) {
            (Some(asked), Some(longest)) => asked.min(now + longest),
            _ => session,
        };
        if session <= now || access <= now {
            return Err(Error::bad_parameter("the access would end before it begins"));
        }
        spec.max_duration = longest.and(spec.max_duration).map(|_| timestamp(access));
        spec.session_ttl = Some(timestamp(session));
        spec.expires = Some(timestamp(access));
        if spec.assume_start_time.is_some() {
            check_start(moment(spec.assume_start_time.as_ref()), now, spec)?;
        }
        let wait = moment(waits.as_ref()).unwrap_or(now + MAX_WAIT).min(now + MAX_WAIT).min(access);
        if wait <= now {
            return Err(Error::bad_parameter("metadata.expires: the request would be gone before anybody decides"));
        }
        request.metadata_mut().expires = Some(timestamp(wait));
        Ok(())
    }

    fn check_pending_count(&self, request: &AccessRequestV3) -> Result<()> {
        let user = request.spec.as_ref().map_or("", |spec| spec.user.as_str());
        let all = self.store().cached_list::<kind::AccessRequest>();
        let waiting = all.iter().filter_map(|other| other.spec.as_ref());
        let waiting = waiting.filter(|spec| spec.user == user && state_of(spec) == RequestState::Pending).count();
        if waiting < MAX_PENDING {
            return Ok(());
        }
        Err(Error::limit_exceeded(format!("user {user:?} has {waiting} access requests that wait for a decision")))
    }

    /// What a user could ask for.
    ///
    /// # Errors
    /// `NotFound` for unknown users.
    pub async fn access_capabilities(&self, asked: AccessCapabilitiesRequest) -> Result<AccessCapabilities> {
        let (user, roles) = self.user_role_set(&asked.user)?;
        let asker = Asker { user, roles };
        check_count(&asked.resource_i_ds)?;
        let options = asker.roles.options().request.clone();
        let mut found = AccessCapabilities {
            request_prompt: options.prompt,
            require_reason: options.reason_required,
            auto_request: options.automatic,
            ..AccessCapabilities::default()
        };
        let (ids, login) = (asked.resource_i_ds, asked.login);
        let by_resource = asked.filter_requestable_roles_by_resource && !ids.is_empty();
        if asked.requestable_roles {
            let roles = self.requestable_roles(&asker);
            found.requestable_roles =
                if by_resource { self.roles_that_reach(&asker, roles, &ids, &login).await? } else { roles };
        }
        if asked.suggested_reviewers {
            found.suggested_reviewers = asker.roles.suggested_reviewers();
        }
        // Whoever asks which roles help asks for roles by name: that nothing can be requested otherwise is no error then.
        if !ids.is_empty() && !by_resource {
            found.applicable_roles_for_resources = self.roles_for_resources(&asker, Vec::new(), &ids, &login).await?;
        }
        Ok(found)
    }
}

/// Says whether roles reach an SSH server, with this login if there is one.
fn on_node(node: Arc<ServerV2>, login: String) -> Reach {
    Box::new(move |roles| match login.as_str() {
        "" => roles.can_see(&node.target()),
        login => roles.node_logins(&node).iter().any(|allowed| allowed == login),
    })
}

fn check_count(ids: &[ResourceId]) -> Result<()> {
    if ids.len() > MAX_RESOURCES {
        return Err(Error::bad_parameter(format!("more than {MAX_RESOURCES} resources")));
    }
    Ok(())
}

fn bounded(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(MAX_ACCESS)
}

fn without_repeats(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

fn labels(annotations: BTreeMap<String, Vec<String>>) -> LabelValues {
    let values = annotations.into_iter().map(|(key, values)| (key, StringValues { values }));
    LabelValues { values: values.collect() }
}
