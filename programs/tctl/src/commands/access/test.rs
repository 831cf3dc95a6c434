//! `access test`.
//!
//! The file is YAML or JSON:
//!
//! ```yaml
//! cases:
//! - user: alice              # as stored, or: roles: [dev], traits: {logins: [root]}
//!   node: web1               # as stored, or: labels: {env: prod}
//!   login: root
//!   mfa: true                # a second factor was used; device: true: a trusted device
//!   expect: deny             # or allow
//!   because: no-prod         # what the reason has to contain
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use rbac::{AccessState, Ask, Labels, RoleSet, Target, Traits};
use resources::{AnyResource, Fields, kind};
use serde::Deserialize;
use wire::types::{RoleV6, ServerV2};

use super::subject::Cluster;
use crate::commands::create::check;
use crate::connect::Wanted;
use crate::error::{Error, Result};
use crate::output::{say, text};

const EXAMPLE: &str = "\
Example of a table:
  cases:
  - {user: alice, node: web1, login: root, expect: allow}
  - {roles: [dev], traits: {logins: [root]}, labels: {env: prod}, login: root, expect: deny, because: no-prod}";

/// Check a table of expected decisions, for policies that are tested like code.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLE)]
pub struct Test {
    /// The table: a list `cases` of user or roles, node or labels, login, and expect: allow|deny.
    file: PathBuf,
    /// Roles that count in place of stored ones of the same name.
    #[arg(long, value_name = "FILE")]
    roles: Vec<PathBuf>,
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
    labels: Option<BTreeMap<String, String>>,
    login: Option<String>,
    #[serde(default)]
    mfa: bool,
    #[serde(default)]
    device: bool,
    expect: Expected,
    because: Option<String>,
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
        let mut proposed = Vec::new();
        for path in &self.roles {
            proposed.extend(roles(path)?);
        }
        let cluster = Cluster::new(wanted, proposed);
        let mut failed = 0;
        for (number, case) in (1..).zip(&cases.cases) {
            let decided = case.decide(&cluster).await;
            let verdict = decided.and_then(|(allowed, reason)| case.compare(allowed, &reason));
            let title = case.title(number);
            match verdict {
                Ok(reason) => say(&text::lines(&format!("ok    {title}: {reason}\n"))),
                Err(error) => {
                    failed += 1;
                    say(&text::lines(&format!("WRONG {title}: {error}\n")));
                }
            }
        }
        match failed {
            0 => Ok(()),
            failed => Err(Error::other(format!("{failed} of {} cases came out differently", cases.cases.len()))),
        }
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
        let what = match (&self.node, &self.labels) {
            (Some(node), _) => node.clone(),
            (None, Some(labels)) => crate::resource::labels_text(labels, true),
            (None, None) => "nothing".to_owned(),
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
        let no_labels = BTreeMap::new();
        match (&self.node, &self.labels) {
            (Some(node), None) => {
                let node: ServerV2 = cluster.node(node).await?;
                let state = cluster.state(&rights, self.mfa, self.device).await?;
                Ok(self.ask(&rights, &Target::node(&node), &state))
            }
            (None, labels) if labels.is_some() || self.login.is_some() => {
                let labels = Labels::fixed(labels.as_ref().unwrap_or(&no_labels));
                // Without a server of the cluster, its settings say nothing: the roles alone decide.
                let state = AccessState {
                    mfa_required: rights.mfa_required(0),
                    mfa_verified: self.mfa,
                    device_verified: self.device,
                    device_exempt: false,
                };
                Ok(self.ask(&rights, &Target { kind: kind::NODE, name: "", labels }, &state))
            }
            _ => Err(Error::bad("a case needs either node or labels")),
        }
    }

    fn ask(&self, rights: &RoleSet, target: &Target<'_>, state: &AccessState) -> (bool, String) {
        let asks: Vec<Ask<'_>> = self.login.iter().map(|login| Ask::Login(login)).collect();
        let explanation = rights.explain(target, &asks, state);
        match explanation.decision.denial() {
            Some(denial) => (false, denial.explanation()),
            None => {
                let granting = explanation.roles.iter().filter(|role| role.allows()).map(|role| role.role.as_str());
                (true, format!("granted by {}", granting.collect::<Vec<_>>().join(", ")))
            }
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

fn roles(path: &Path) -> Result<Vec<RoleV6>> {
    let (resources, _) = check(&read(path)?, Fields::Known)?;
    resources
        .into_iter()
        .map(|resource| match resource {
            AnyResource::Role(role) => Ok(*role),
            other => Err(Error::bad(format!("{}: {} is no role", path.display(), other.title()))),
        })
        .collect()
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io(format!("reading {}", path.display())))
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
";

    async fn run(cases: &str) -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let (file, roles) = (folder.path().join("cases.yaml"), folder.path().join("roles.yaml"));
        std::fs::write(&file, cases).unwrap();
        std::fs::write(&roles, ROLES).unwrap();
        // Nothing here needs a cluster, and there is none.
        Test { file, roles: vec![roles] }.run(&Wanted::default()).await
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
