//! Requests for more access: who may ask for what, and who may decide about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value as Json, json};
use wire::types::{
    AccessRequestConditions, AccessRequestSpecV3, AccessReviewConditions, AccessReviewThreshold, ClaimMapping,
    ThresholdIndexSet, ThresholdIndexSets,
};

use crate::{
    decision::{Cause, Decision, Denial, Permit},
    language::{Dialect, Expression},
    mapping::claimed_roles,
    role::Role,
    role_set::RoleSet,
    rules::RuleContext,
    template::Matcher,
    traits::Traits,
};

/// What a role asks for when it lists no thresholds.
fn default_threshold() -> AccessReviewThreshold {
    AccessReviewThreshold { name: "default".to_owned(), approve: 1, deny: 1, ..AccessReviewThreshold::default() }
}

/// How roles are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// By name: `request.roles` and `request.claims_to_roles`.
    Roles,
    /// For the sake of resources: `request.search_as_roles`.
    Resources,
}

/// What has to happen before a request is approved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// All that count, each once.
    pub list: Vec<AccessReviewThreshold>,
    /// For each role the sets of indices into the list; of every set one has to be met.
    pub by_role: BTreeMap<String, ThresholdIndexSets>,
}

impl RoleSet {
    /// Whether the user may ask for a role.
    ///
    /// Some role has to list it in `allow.request`, and none in `deny.request`.
    pub fn check_request(&self, role: &str, wish: Wish) -> Decision {
        let message = || match wish {
            Wish::Roles => format!("access denied: user may not request role {role:?}"),
            Wish::Resources => format!("access denied: user may not search as role {role:?}"),
        };
        for holder in self.roles() {
            let denied = holder.deny_conditions().request.as_ref();
            if denied.is_some_and(|conditions| self.lists(conditions, role, wish, true)) {
                let denial = Denial::new(Cause::Denied, message());
                return Decision::Deny(denial.by(holder.name(), "deny.request", format!("lists role {role:?}")));
            }
        }
        match self.directives(role, wish).next() {
            Some((holder, _)) => {
                Decision::Allow(Permit { role: holder.name().to_owned(), field: "allow.request".to_owned() })
            }
            None => Decision::Deny(
                Denial::new(Cause::NotGranted, message()).because(format!("no role lists {role:?} in allow.request")),
            ),
        }
    }

    /// The roles that the user may search as, and so get for the sake of resources.
    pub fn search_as_roles(&self) -> Vec<String> {
        let listed = self.roles().iter().filter_map(|role| role.allow_conditions().request.as_ref());
        let names: BTreeSet<&String> = listed.flat_map(|conditions| &conditions.search_as_roles).collect();
        let allowed = names.into_iter().filter(|name| self.check_request(name, Wish::Resources).is_allowed());
        allowed.cloned().collect()
    }

    /// The roles under which the user sees the resources of requests that are to be reviewed.
    pub fn preview_as_roles(&self) -> Vec<String> {
        let allowed = self.roles().iter().filter_map(|role| role.allow_conditions().review_requests.as_ref());
        let denied = self.roles().iter().filter_map(|role| role.deny_conditions().review_requests.as_ref());
        let mut names: BTreeSet<&String> = allowed.flat_map(|conditions| &conditions.preview_as_roles).collect();
        for name in denied.flat_map(|conditions| &conditions.preview_as_roles) {
            names.remove(name);
        }
        names.into_iter().cloned().collect()
    }

    /// What has to happen before these roles are given. A role that nobody may ask for has no set, and never is.
    pub fn thresholds(&self, roles: &[String], wish: Wish) -> Thresholds {
        let mut thresholds = Thresholds::default();
        for role in roles {
            let mut sets: Vec<ThresholdIndexSet> = Vec::new();
            for (_, conditions) in self.directives(role, wish) {
                let own = [default_threshold()];
                let wanted = if conditions.thresholds.is_empty() { &own[..] } else { &conditions.thresholds };
                let set = ThresholdIndexSet { indexes: wanted.iter().map(|one| thresholds.index_of(one)).collect() };
                if !sets.contains(&set) {
                    sets.push(set);
                }
            }
            thresholds.by_role.insert(role.clone(), ThresholdIndexSets { sets });
        }
        thresholds
    }

    /// The longest time for which these roles may be had beyond a session; `None` when some role sets none.
    pub fn longest_request(&self, roles: &[String], wish: Wish) -> Option<Duration> {
        let of_role = |role: &String| self.directives(role, wish).map(|(_, c)| c.max_duration).max().unwrap_or(0);
        let shortest = roles.iter().map(of_role).min()?;
        u64::try_from(shortest).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos)
    }

    /// Who should be asked, when the user names nobody.
    pub fn suggested_reviewers(&self) -> Vec<String> {
        let listed = self.roles().iter().filter_map(|role| role.allow_conditions().request.as_ref());
        let names: BTreeSet<&String> = listed.flat_map(|conditions| &conditions.suggested_reviewers).collect();
        names.into_iter().cloned().collect()
    }

    /// Annotations of the user's requests: what roles allow without what roles deny.
    pub fn request_annotations(&self) -> BTreeMap<String, Vec<String>> {
        let mut annotations: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for role in self.roles() {
            for (key, value) in annotated(role.allow_conditions().request.as_ref(), self.traits()) {
                annotations.entry(key).or_default().insert(value);
            }
        }
        for role in self.roles() {
            for (key, value) in annotated(role.deny_conditions().request.as_ref(), self.traits()) {
                if let Some(values) = annotations.get_mut(&key) {
                    values.remove(&value);
                }
            }
        }
        annotations.retain(|_, values| !values.is_empty());
        annotations.into_iter().map(|(key, values)| (key, values.into_iter().collect())).collect()
    }

    /// Whether the user may review anything at all.
    pub fn may_review_some(&self) -> bool {
        self.roles().iter().any(|role| {
            let conditions = role.allow_conditions().review_requests.as_ref();
            conditions.is_some_and(|c| !c.roles.is_empty() || !c.claims_to_roles.is_empty())
        })
    }

    /// Whether the user may review a request: some role has to list each of the wanted roles in
    /// `allow.review_requests` and none in `deny.review_requests`, where their conditions hold.
    pub fn check_review(&self, request: &AccessRequestSpecV3) -> Decision {
        let message = "access denied: user may not review this access request";
        let context = self.review_context(request);
        for role in self.roles() {
            let Some(deny) = &role.deny_conditions().review_requests else { continue };
            let listed = request.roles.iter().any(|wanted| self.reviews(deny, wanted, true));
            if listed && holds(&deny.r#where, &context, true) {
                let denial = Denial::new(Cause::Denied, message);
                return Decision::Deny(denial.by(role.name(), "deny.review_requests", "lists one of the roles"));
            }
        }
        let mut deciding = None;
        for wanted in &request.roles {
            let granting = self.roles().iter().find(|role| {
                let conditions = role.allow_conditions().review_requests.as_ref();
                conditions.is_some_and(|c| self.reviews(c, wanted, false) && holds(&c.r#where, &context, false))
            });
            match granting {
                Some(role) => deciding = Some(role.name().to_owned()),
                None => {
                    let detail = format!("no role lists {wanted:?} in allow.review_requests");
                    return Decision::Deny(Denial::new(Cause::NotGranted, message).because(detail));
                }
            }
        }
        match deciding {
            Some(role) => Decision::Allow(Permit { role, field: "allow.review_requests".to_owned() }),
            None => Decision::Deny(Denial::new(Cause::NotGranted, message).because("the request names no roles")),
        }
    }

    /// What conditions about reviews know: who reviews what.
    pub(crate) fn review_context(&self, request: &AccessRequestSpecV3) -> RuleContext {
        let traits: BTreeMap<&str, &[String]> = self.traits().iter().collect();
        let names: Vec<&str> = self.names().collect();
        let annotations = request.system_annotations.as_ref().map(annotations_json);
        RuleContext::new().with_reviewer(&json!({"roles": names, "traits": traits})).with_request(&json!({
            "roles": request.roles, "reason": request.request_reason, "system_annotations": annotations,
        }))
    }

    /// The conditions that let the user ask for a role.
    fn directives<'a>(
        &'a self,
        role: &'a str,
        wish: Wish,
    ) -> impl Iterator<Item = (&'a Role, &'a AccessRequestConditions)> + 'a {
        self.roles().iter().filter_map(move |holder| {
            let conditions = holder.allow_conditions().request.as_ref()?;
            self.lists(conditions, role, wish, false).then_some((holder.as_ref(), conditions))
        })
    }

    fn lists(&self, conditions: &AccessRequestConditions, role: &str, wish: Wish, broken: bool) -> bool {
        match wish {
            Wish::Roles => {
                self.matched(&conditions.roles, role, broken) || self.claims(&conditions.claims_to_roles, role, broken)
            }
            Wish::Resources => conditions.search_as_roles.iter().any(|name| name == role || (broken && name == "*")),
        }
    }

    fn reviews(&self, conditions: &AccessReviewConditions, role: &str, broken: bool) -> bool {
        self.matched(&conditions.roles, role, broken) || self.claims(&conditions.claims_to_roles, role, broken)
    }

    fn claims(&self, mappings: &[ClaimMapping], role: &str, broken: bool) -> bool {
        mappings.iter().any(|mapping| match claimed_roles(mapping, self.traits(), broken) {
            Ok(names) => self.matched(&names, role, broken) || broken && names.iter().any(|name| name == role),
            Err(_) => broken,
        })
    }

    /// Whether a name is in a list of matchers; what cannot be parsed counts as `broken`.
    fn matched(&self, matchers: &[String], name: &str, broken: bool) -> bool {
        matchers.iter().any(|text| Matcher::with_traits(text, self.traits()).map_or(broken, |m| m.matches(name)))
    }
}

impl Thresholds {
    fn index_of(&mut self, threshold: &AccessReviewThreshold) -> u32 {
        let known = self.list.iter().position(|one| one == threshold);
        let place = known.unwrap_or_else(|| {
            self.list.push(threshold.clone());
            self.list.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }
}

/// Keys with values, templates filled in.
fn annotated(conditions: Option<&AccessRequestConditions>, traits: &Traits) -> Vec<(String, String)> {
    let Some(annotations) = conditions.and_then(|c| c.annotations.as_ref()) else { return Vec::new() };
    let mut found = Vec::new();
    for (key, list) in &annotations.values {
        for text in &list.values {
            let Ok(template) = crate::template::Template::parse(text) else { continue };
            found.extend(template.expand(traits).into_iter().map(|value| (key.clone(), value)));
        }
    }
    found
}

/// Annotations as conditions see them.
pub(crate) fn annotations_json(annotations: &wire::wrappers::LabelValues) -> Json {
    annotations
        .values
        .iter()
        .map(|(key, list)| (key.clone(), json!(list.values)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Whether a condition holds; what cannot be decided counts as `broken`.
pub(crate) fn holds(condition: &str, context: &RuleContext, broken: bool) -> bool {
    match condition.trim() {
        "" => true,
        text => Expression::parse(text, Dialect::Where).map_or(broken, |e| e.holds(context).unwrap_or(broken)),
    }
}
