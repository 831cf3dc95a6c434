//! `access test`.
//!
//! The file is YAML or JSON:
//!
//! ```yaml
//! cases:
//! - user: alice              # as stored, or: roles: [dev], traits: {logins: [root]}
//!   node: web1               # as stored; or app, db, kube_cluster, windows_desktop; or: kind: db, labels: {env: prod}
//!   login: root              # the account on the node, in the database or on the desktop; db_name: the database
//!   mfa: true                # a second factor was used; device: true: a trusted device
//!   expect: deny             # or allow
//!   because: no-prod         # what the reason has to contain
//! - {user: alice, rule: {kind: token, verb: create}, expect: deny}
//! - {user: alice, request: dba, expect: allow}           # may ask for the role
//! - {user: bob, review: [dba], expect: allow}            # may review a request for these roles
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use rbac::{AccessState, Ask, Decision, Labels, RoleSet, RuleContext, Target, Traits};
use resources::kind;
use serde::{Deserialize, Serialize};
use wire::types::AccessRequestSpecV3;

use super::reach::{self, Account};
use super::subject::{Cluster, proposed, read};
use crate::connect::Wanted;
use crate::error::{Error, Result};
use crate::output::{self, Format, say, text};

const EXAMPLE: &str = "\
Example of a table:
  cases:
  - {user: alice, node: web1, login: root, expect: allow}
  - {roles: [dev], traits: {logins: [root]}, labels: {env: prod}, login: root, expect: deny, because: no-prod}
  - {user: alice, rule: {kind: token, verb: create}, expect: deny}
  - {user: alice, request: dba, expect: allow}";

/// Check a table of expected decisions, for policies that are tested like code.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Test {
    /// The table: a list `cases` of user or roles, what they want, and expect: allow|deny.
    file: PathBuf,
    /// Roles that count in place of stored ones of the same name.
    #[arg(long, value_name = "FILE")]
    roles: Vec<PathBuf>,
    /// How to show the outcome.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: Option<String>,
    user: Option<String>,
    roles: Option<Vec<String>>,
    #[serde(default)]
    traits: BTreeMap<String, Vec<String>>,
    node: Option<String>,
    app: Option<String>,
    db: Option<String>,
    kube_cluster: Option<String>,
    windows_desktop: Option<String>,
    kind: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    login: Option<String>,
    db_name: Option<String>,
    rule: Option<Rule>,
    request: Option<String>,
    review: Option<Vec<String>>,
    #[serde(default)]
    mfa: bool,
    #[serde(default)]
    device: bool,
    expect: Expected,
    because: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    kind: String,
    verb: String,
    /// What conditions know as `resource`.
    #[serde(default)]
    resource: serde_json::Value,
}

/// What a case is about.
enum Wish<'a> {
    /// A resource of the cluster.
    Thing(&'static str, &'a str),
    /// One that somebody thought of.
    Labels(&'static str, &'a BTreeMap<String, String>),
    Rule(&'a Rule),
    Request(&'a str),
    Review(&'a [String]),
}

/// How a case came out.
#[derive(Debug, Serialize)]
struct Outcome {
    case: String,
    passed: bool,
    reason: String,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

impl Test {
    /// Checks all cases.
    ///
    /// # Errors
    /// A case came out differently, or the table makes no sense.
    pub async fn run(self, wanted: &Wanted) -> Result<()> {
        let cases: Cases = serde_saphyr::from_str(&read(&self.file)?)
            .map_err(|e| Error::bad(format!("{}: {}", self.file.display(), e.to_string().trim())))?;
        if cases.cases.is_empty() {
            return Err(Error::bad(format!("{}: no cases", self.file.display())));
        }
        let cluster = Cluster::new(wanted, proposed(&self.roles)?);
        let mut outcomes = Vec::with_capacity(cases.cases.len());
        for (number, case) in (1..).zip(&cases.cases) {
            let decided = case.decide(&cluster).await;
            let verdict = decided.and_then(|(allowed, reason)| case.compare(allowed, &reason));
            let (passed, reason) = match verdict {
                Ok(reason) => (true, reason),
                Err(error) => (false, error.to_string()),
            };
            outcomes.push(Outcome { case: case.title(number), passed, reason });
        }
        say(&match self.format {
            Format::Json => output::json(&outcomes, 4)?,
            Format::Yaml => output::yaml(&outcomes)?,
            Format::Text => outcomes.iter().map(Outcome::line).collect(),
        });
        match outcomes.iter().filter(|outcome| !outcome.passed).count() {
            0 => Ok(()),
            failed => Err(Error::other(format!("{failed} of {} cases came out differently", outcomes.len()))),
        }
    }
}

impl Outcome {
    fn line(&self) -> String {
        let word = if self.passed { "ok   " } else { "WRONG" };
        text::lines(&format!("{word} {}: {}\n", self.case, self.reason)).into_owned()
    }
}

impl Case {
    fn title(&self, number: usize) -> String {
        let who = match (&self.user, &self.roles) {
            (Some(user), _) => user.clone(),
            (None, Some(roles)) => format!("[{}]", roles.join(", ")),
            (None, None) => "nobody".to_owned(),
        };
        let login = self.login.as_ref().map(|login| format!(" as {login}")).unwrap_or_default();
        let what = match self.wish() {
            Ok(Wish::Thing(_, name)) => name.to_owned(),
            Ok(Wish::Labels(_, labels)) => crate::resource::labels_text(labels, true),
            Ok(Wish::Rule(rule)) => format!("{} {}", rule.verb, rule.kind),
            Ok(Wish::Request(role)) => format!("request {role}"),
            Ok(Wish::Review(roles)) => format!("review {}", roles.join(", ")),
            Err(_) => "nothing".to_owned(),
        };
        let name = self.name.clone().unwrap_or_else(|| format!("{who} to {what}{login}"));
        format!("{number} {name}")
    }

    async fn decide(&self, cluster: &Cluster<'_>) -> Result<(bool, String)> {
        let rights = match (&self.user, &self.roles) {
            (Some(user), None) => {
                let user = cluster.user(user).await?;
                let mut traits = Traits::of(&user);
                self.traits.iter().for_each(|(name, values)| traits.set(name, values.clone()));
                let roles = user.spec.as_ref().map(|spec| spec.roles.clone()).unwrap_or_default();
                cluster.role_set(&roles, traits).await?
            }
            (None, Some(roles)) => cluster.role_set(roles, Traits::from(self.traits.clone())).await?,
            _ => return Err(Error::bad("a case needs either user or roles")),
        };
        let account = Account { login: self.login.as_deref(), database: self.db_name.as_deref() };
        match self.wish()? {
            Wish::Thing(kind, name) => {
                let asks = account.asks(kind)?;
                let thing = cluster.reachable(kind, name).await?;
                let target = reach::target(&thing);
                let target = target.ok_or_else(|| Error::other(format!("{} is not reached", thing.title())))?;
                let state = cluster.state(&rights, self.mfa, self.device).await?;
                Ok(ask(&rights, &target, &asks, &state))
            }
            Wish::Labels(kind, labels) => {
                // Without a resource of the cluster, its settings say nothing: the roles alone decide.
                let state = AccessState {
                    mfa_required: rights.mfa_required(0),
                    mfa_verified: self.mfa,
                    device_verified: self.device,
                    device_exempt: false,
                };
                let target = Target { kind, name: "", labels: Labels::fixed(labels) };
                Ok(ask(&rights, &target, &account.asks(kind)?, &state))
            }
            Wish::Rule(rule) => {
                let context = RuleContext::new().with_resource(&rule.resource);
                let context = match &self.user {
                    Some(user) => context.with_user(&cluster.user(user).await?),
                    None => context,
                };
                Ok(told(rights.check_rule(&rule.kind, &rule.verb, &context)))
            }
            Wish::Request(role) => Ok(told(rights.check_request(role, rbac::Wish::Roles))),
            Wish::Review(roles) => {
                let request = AccessRequestSpecV3 { roles: roles.to_vec(), ..Default::default() };
                Ok(told(rights.check_review(&request)))
            }
        }
    }

    fn wish(&self) -> Result<Wish<'_>> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let things = [
            (kind::NODE, &self.node),
            (kind::APP, &self.app),
            (kind::DB, &self.db),
            (kind::KUBE_CLUSTER, &self.kube_cluster),
            (kind::WINDOWS_DESKTOP, &self.windows_desktop),
        ];
        let mut wishes: Vec<Wish<'_>> =
            things.into_iter().filter_map(|(kind, name)| Some(Wish::Thing(kind, name.as_deref()?))).collect();
        let invented = self.labels.is_some() || self.kind.is_some();
        if invented || (wishes.is_empty() && self.login.is_some()) {
            let name = self.kind.as_deref().unwrap_or(kind::NODE);
            let kind =
                reach::reached(name).ok_or_else(|| Error::bad(format!("kind {name:?} is not reached by labels")))?;
            wishes.push(Wish::Labels(kind, self.labels.as_ref().unwrap_or(&NONE)));
        }
        wishes.extend(self.rule.as_ref().map(Wish::Rule));
        wishes.extend(self.request.as_deref().map(Wish::Request));
        wishes.extend(self.review.as_deref().map(Wish::Review));
        match (wishes.pop(), wishes.is_empty()) {
            (Some(wish), true) => Ok(wish),
            (None, _) => Err(Error::bad(
                "a case needs node, app, db, kube_cluster, windows_desktop, labels, rule, request or review",
            )),
            (Some(_), false) => Err(Error::bad("a case is about one thing only")),
        }
    }

    fn compare(&self, allowed: bool, reason: &str) -> Result<String> {
        let word = if allowed { "allowed" } else { "denied" };
        if allowed != (self.expect == Expected::Allow) {
            return Err(Error::other(format!("{word}: {reason}")));
        }
        match &self.because {
            Some(because) if !reason.contains(because) => {
                Err(Error::other(format!("{word}, but not because of {because:?}: {reason}")))
            }
            _ => Ok(format!("{word}: {reason}")),
        }
    }
}

fn ask(rights: &RoleSet, target: &Target<'_>, asks: &[Ask<'_>], state: &AccessState) -> (bool, String) {
    let explanation = rights.explain(target, asks, state);
    match explanation.decision.denial() {
        Some(denial) => (false, denial.explanation()),
        None => {
            let granting = explanation.roles.iter().filter(|role| role.allows()).map(|role| role.role.as_str());
            (true, format!("granted by {}", granting.collect::<Vec<_>>().join(", ")))
        }
    }
}

fn told(decision: Decision) -> (bool, String) {
    match decision {
        Decision::Allow(permit) => (true, format!("granted by role {:?}, {}", permit.role, permit.field)),
        Decision::Deny(denial) => (false, denial.explanation()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ROLES: &str = "\
kind: role
version: v7
metadata: {name: dev}
spec: {allow: {logins: ['{{internal.logins}}'], node_labels: {env: [dev, test]}}}
---
kind: role
version: v7
metadata: {name: frozen}
spec: {deny: {node_labels: {env: test}}}
---
kind: role
version: v7
metadata: {name: dba}
spec:
  allow:
    db_labels: {env: dev}
    db_users: [reader]
    db_names: [orders]
    rules: [{resources: [event], verbs: [list, read]}]
    request: {roles: [dev]}
";

    async fn run(cases: &str) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let (file, roles) = (folder.path().join("cases.yaml"), folder.path().join("roles.yaml"));
        std::fs::write(&file, cases).unwrap();
        std::fs::write(&roles, ROLES).unwrap();
        // Nothing here needs a cluster, and there is none.
        Test { file, roles: vec![roles], format: Format::Text }.run(&Wanted::default()).await
    }

    #[tokio::test]
    async fn proposed_roles_are_tested_without_a_cluster() {
        let cases = "\
cases:
- {roles: [dev], traits: {logins: [root]}, labels: {env: dev}, login: root, expect: allow, because: dev}
- {roles: [dev], traits: {logins: [root]}, labels: {env: prod}, login: root, expect: deny}
- {roles: [dev, frozen], traits: {logins: [root]}, labels: {env: test}, login: root, expect: deny, because: frozen}
";
        run(cases).await.unwrap();
    }

    #[tokio::test]
    async fn databases_rules_requests_and_reviews_are_tested_as_well() {
        let cases = "\
cases:
- {roles: [dba], kind: db, labels: {env: dev}, login: reader, db_name: orders, expect: allow}
- {roles: [dba], kind: db, labels: {env: dev}, login: writer, expect: deny, because: db_users}
- {roles: [dba], kind: app, labels: {env: dev}, expect: deny}
- {roles: [dba], rule: {kind: token, verb: create}, expect: deny}
- {roles: [dba], rule: {kind: event, verb: list}, expect: allow, because: dba}
- {roles: [dba], request: dev, expect: allow}
- {roles: [dba], request: frozen, expect: deny}
- {roles: [dba], review: [dev], expect: deny}
";
        run(cases).await.unwrap();
        for wrong in ["", "node: a, db: b, ", "kind: role, labels: {a: b}, ", "kind: app, login: x, "] {
            let case = format!("cases: [{{roles: [dba], {wrong}expect: deny}}]\n");
            assert!(run(&case).await.is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_case_that_comes_out_differently_fails_the_run() {
        let cases = "\
cases:
- {roles: [dev], traits: {logins: [root]}, labels: {env: dev}, login: root, expect: deny}
- {roles: [dev], traits: {logins: [root]}, labels: {env: dev}, login: eve, expect: deny}
";
        assert_eq!(run(cases).await.unwrap_err().to_string(), "1 of 2 cases came out differently");
    }

    #[tokio::test]
    async fn a_table_with_a_misspelt_key_is_refused() {
        let error = run("cases:\n- {roles: [dev], lables: {env: dev}, expect: allow}\n").await.unwrap_err().to_string();
        assert!(error.contains("lables"), "{error}");
        assert!(run("cases: []\n").await.is_err());
    }
}
