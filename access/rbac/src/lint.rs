//! What is wrong with a role although its shape is right: texts that do not parse, and names that mean nothing.

use std::fmt;

use resources::{Resource, kind};
use wire::types::{RoleConditions, RoleV6};

use crate::{
    language::{Dialect, Expression},
    role::ParsedRole,
    template::{Matcher, Template},
};

/// Something in a role that will not work as its author meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `spec.allow.node_labels_expression`.
    pub path: String,
    /// What.
    pub problem: String,
    /// Whether the part can never work; otherwise it may be meant for another build.
    pub fatal: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// Finds problems in a role. What administrators write should have none that are fatal; what is stored already is
/// used in spite of them, each part of it by failing closed.
pub fn lint_role(role: &RoleV6) -> Vec<Problem> {
    let parsed = ParsedRole::new(role.clone());
    let fatal = |(path, problem)| Problem { path, problem, fatal: true };
    let mut found: Vec<Problem> = parsed.problems().into_iter().map(fatal).collect();
    let mut role = role.clone();
    role.set_defaults();
    let spec = role.spec.unwrap_or_default();
    for (i, extension) in spec.options.iter().flat_map(|o| &o.cert_extensions).enumerate() {
        if let Err(e) = Template::parse(&extension.value) {
            found.push(fatal((format!("spec.options.cert_extensions[{i}].value"), e.to_string())));
        }
    }
    for (path, conditions) in [("spec.allow", spec.allow), ("spec.deny", spec.deny)] {
        let conditions = conditions.unwrap_or_default();
        found.extend(expressions(path, &conditions).into_iter().map(fatal));
        found.extend(unknown_words(path, &conditions));
    }
    found
}

/// Conditions and matchers outside of rules and labels.
fn expressions(path: &str, c: &RoleConditions) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut condition = |field: String, text: &str| {
        if let Some(e) =
            Some(text.trim()).filter(|t| !t.is_empty()).and_then(|t| Expression::parse(t, Dialect::Where).err())
        {
            found.push((format!("{path}.{field}"), e.to_string()));
        }
    };
    if let Some(impersonate) = &c.impersonate {
        condition("impersonate.where".into(), &impersonate.r#where);
    }
    if let Some(review) = &c.review_requests {
        condition("review_requests.where".into(), &review.r#where);
    }
    for (i, policy) in c.require_session_join.iter().enumerate() {
        condition(format!("require_session_join[{i}].filter"), &policy.filter);
    }
    for (i, threshold) in c.request.iter().flat_map(|r| &r.thresholds).enumerate() {
        condition(format!("request.thresholds[{i}].filter"), &threshold.filter);
    }
    let (impersonate, request, review) = (
        c.impersonate.clone().unwrap_or_default(),
        c.request.clone().unwrap_or_default(),
        c.review_requests.clone().unwrap_or_default(),
    );
    for (field, matchers) in [
        ("impersonate.users", &impersonate.users),
        ("impersonate.roles", &impersonate.roles),
        ("request.roles", &request.roles),
        ("review_requests.roles", &review.roles),
    ] {
        let bad = matchers.iter().enumerate().filter_map(|(i, text)| Matcher::parse(text).err().map(|e| (i, e)));
        found.extend(bad.map(|(i, e)| (format!("{path}.{field}[{i}]"), e.to_string())));
    }
    found
}

/// Kinds and verbs in rules that this build does not know.
fn unknown_words(path: &str, c: &RoleConditions) -> Vec<Problem> {
    let mut found = Vec::new();
    for (i, rule) in c.rules.iter().enumerate() {
        for (field, words, known) in
            [("resources", &rule.resources, &kind::ALL[..]), ("verbs", &rule.verbs, &kind::VERBS[..])]
        {
            for word in words.iter().filter(|w| *w != "*" && !known.contains(&w.as_str())) {
                let hint = match resources::nearest(word, known.iter().copied()) {
                    Some(near) => format!("; did you mean {near:?}?"),
                    None => String::new(),
                };
                let problem = format!("{word:?} is not known{hint}");
                found.push(Problem { path: format!("{path}.rules[{i}].{field}"), problem, fatal: false });
            }
        }
    }
    found
}
