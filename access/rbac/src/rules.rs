//! Rules: which actions on which kinds of resources.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use serde_json::Value as Json;
use wire::types::Rule;

use crate::{
    decision::{Cause, Decision, Denial, Permit},
    language::{Dialect, EvalError, Expression, Scope, Value},
    role_set::RoleSet,
};

/// What the names in `where` stand for: who acts, on what, and in which session.
///
/// A root that is not set is empty rather than undefined: `session.participants` has no items when there is no
/// session.
#[derive(Clone, Debug, Default)]
pub struct RuleContext {
    roots: BTreeMap<&'static str, Json>,
    ca_type: String,
}

/// What the names of conditions can begin with.
const ROOTS: [&str; 11] = [
    "user",
    "resource",
    "session",
    "ssh_session",
    "session_tracker",
    "host_cert",
    "impersonate_role",
    "impersonate_user",
    "reviewer",
    "request",
    "review",
];

impl RuleContext {
    /// A context without anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what conditions know by the name `root`: one of those the methods below set.
    #[must_use]
    pub fn with(mut self, root: &'static str, value: &impl Serialize) -> Self {
        self.roots.insert(root, serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// Sets the user who acts: `user`.
    #[must_use]
    pub fn with_user(self, user: &impl Serialize) -> Self {
        self.with("user", user)
    }

    /// Sets the resource the action is on: `resource`.
    #[must_use]
    pub fn with_resource(self, resource: &impl Serialize) -> Self {
        self.with("resource", resource)
    }

    /// Sets the end event of the session the action is on: `session`.
    #[must_use]
    pub fn with_session(self, session: &impl Serialize) -> Self {
        self.with("session", session)
    }

    /// Sets the running session the action is on: `ssh_session`.
    #[must_use]
    pub fn with_ssh_session(self, ssh_session: &impl Serialize) -> Self {
        self.with("ssh_session", ssh_session)
    }

    /// Sets the record of the running session the action is on: `session_tracker`.
    #[must_use]
    pub fn with_session_tracker(self, session_tracker: &impl Serialize) -> Self {
        self.with("session_tracker", session_tracker)
    }

    /// Sets the host certificate that is asked for: `host_cert`.
    #[must_use]
    pub fn with_host_cert(self, host_cert: &impl Serialize) -> Self {
        self.with("host_cert", host_cert)
    }

    /// Sets the user to act as: `impersonate_user`.
    #[must_use]
    pub fn with_impersonate_user(self, impersonate_user: &impl Serialize) -> Self {
        self.with("impersonate_user", impersonate_user)
    }

    /// Sets the role to act with: `impersonate_role`.
    #[must_use]
    pub fn with_impersonate_role(self, impersonate_role: &impl Serialize) -> Self {
        self.with("impersonate_role", impersonate_role)
    }

    /// Sets who reviews a request: `reviewer`.
    #[must_use]
    pub fn with_reviewer(self, reviewer: &impl Serialize) -> Self {
        self.with("reviewer", reviewer)
    }

    /// Sets the request that is reviewed: `request`.
    #[must_use]
    pub fn with_request(self, request: &impl Serialize) -> Self {
        self.with("request", request)
    }

    /// Sets the review that is counted: `review`.
    #[must_use]
    pub fn with_review(self, review: &impl Serialize) -> Self {
        self.with("review", review)
    }

    /// Sets the type of the authority the action is on.
    #[must_use]
    pub fn with_ca_type(mut self, ca_type: &str) -> Self {
        ca_type.clone_into(&mut self.ca_type);
        self
    }
}

impl Scope for RuleContext {
    fn resolve(&self, path: &[&str]) -> Result<Value<'_>, EvalError> {
        let undefined = || EvalError::Undefined(path.join("."));
        let (root, rest) = path.split_first().ok_or_else(undefined)?;
        if !ROOTS.contains(root) {
            return Err(undefined());
        }
        let mut value = self.roots.get(*root);
        for word in rest {
            value = value.and_then(|v| v.get(*word));
        }
        Ok(value.map_or(Value::Absent, Value::json))
    }

    fn ca_type(&self) -> &str {
        &self.ca_type
    }
}

/// The rules of one side of a role, parsed and in the order in which they are tried.
#[derive(Debug, Default)]
pub(crate) struct RuleTable {
    rules: Vec<ParsedRule>,
}

#[derive(Debug)]
struct ParsedRule {
    /// Where the rule stands in the role.
    index: usize,
    source: Rule,
    condition: Result<Option<Expression>, String>,
}

impl RuleTable {
    pub(crate) fn new(rules: &[Rule]) -> Self {
        let mut parsed: Vec<ParsedRule> = rules.iter().enumerate().map(|(i, rule)| ParsedRule::new(i, rule)).collect();
        parsed.sort_by_key(|rule| std::cmp::Reverse(score(&rule.source)));
        Self { rules: parsed }
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = (usize, &str)> {
        self.rules.iter().filter_map(|rule| rule.condition.as_ref().err().map(|e| (rule.index, e.as_str())))
    }

    /// The rules about a kind: first those that name it, then those for all kinds.
    fn about<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a ParsedRule> {
        [kind, "*"]
            .into_iter()
            .flat_map(|name| self.rules.iter().filter(move |rule| rule.source.resources.iter().any(|r| r == name)))
    }
}

/// Precise rules are tried first.
fn score(rule: &Rule) -> i32 {
    let mut score = 0;
    if rule.resources.len() == 1 {
        score += 2;
    }
    if rule.resources.iter().any(|r| r == "*") {
        score -= 4;
    }
    if rule.verbs.iter().any(|v| v == "*") {
        score -= 2;
    }
    for extra in [!rule.r#where.is_empty(), !rule.actions.is_empty()] {
        score += if extra { 8 } else { 0 };
    }
    score
}

impl ParsedRule {
    fn new(index: usize, rule: &Rule) -> Self {
        let text = rule.r#where.trim();
        let condition = if text.is_empty() {
            Ok(None)
        } else {
            Expression::parse(text, Dialect::Where).map(Some).map_err(|e| e.to_string())
        };
        Self { index, source: rule.clone(), condition }
    }

    fn has_verb(&self, verb: &str) -> bool {
        self.source.verbs.iter().any(|v| v == verb || v == "*" || (v == "read" && verb == "readnosecrets"))
    }

    /// Whether the condition holds; `otherwise` when that cannot be decided.
    fn holds(&self, context: &RuleContext, otherwise: bool) -> bool {
        match &self.condition {
            Err(_) => otherwise,
            Ok(None) => true,
            Ok(Some(condition)) => condition.holds(context).unwrap_or(otherwise),
        }
    }
}

impl RoleSet {
    /// Whether a verb (`list`, `create`, `read`, `readnosecrets`, `update`, `delete`, …) on a kind of resource is
    /// allowed. Denying rules of all roles come first; a condition that cannot be decided denies.
    pub fn check_rule(&self, kind: &str, verb: &str, context: &RuleContext) -> Decision {
        let message = || Cow::from(format!("access denied to perform action {verb:?} on {kind:?}"));
        for role in self.roles() {
            let denying = role.deny.rules.about(kind).find(|rule| rule.has_verb(verb) && rule.holds(context, true));
            if let Some(rule) = denying {
                let denial = Denial::new(Cause::Denied, message());
                let detail = format!("denies {verb:?} on {kind:?}{}", condition_text(&rule.source));
                return Decision::Deny(denial.by(role.name(), format!("deny.rules[{}]", rule.index), detail));
            }
        }
        for role in self.roles() {
            let allowing = role.allow.rules.about(kind).find(|rule| rule.has_verb(verb) && rule.holds(context, false));
            if let Some(rule) = allowing {
                let field = format!("allow.rules[{}]", rule.index);
                return Decision::Allow(Permit { role: role.name().to_owned(), field });
            }
        }
        let conditional = self.roles().iter().find_map(|role| {
            let rule = role.allow.rules.about(kind).find(|rule| rule.has_verb(verb))?;
            Some((role.name(), format!("allow.rules[{}]", rule.index), condition_text(&rule.source)))
        });
        let denial = Denial::new(Cause::NotGranted, message());
        Decision::Deny(match conditional {
            Some((role, field, condition)) => denial.by(role, field, format!("the rule does not apply{condition}")),
            None => denial.because(format!("no role has a rule that allows {verb:?} on {kind:?}")),
        })
    }

    /// Whether [`RoleSet::check_rule`] may say yes in some context: false when no `where` could change a no. For
    /// lists whose items are checked one by one.
    pub fn could_allow(&self, kind: &str, verb: &str) -> bool {
        let always = |rule: &ParsedRule| rule.has_verb(verb) && !matches!(rule.condition, Ok(Some(_)));
        let denied = self.roles().iter().any(|role| role.deny.rules.about(kind).any(always));
        let possible = |rule: &ParsedRule| rule.has_verb(verb) && rule.condition.is_ok();
        !denied && self.roles().iter().any(|role| role.allow.rules.about(kind).any(possible))
    }
}

fn condition_text(rule: &Rule) -> String {
    match rule.r#where.trim() {
        "" => String::new(),
        condition => format!(" where {condition}"),
    }
}
