//! `access explain`.

use std::path::PathBuf;

use chrono::Utc;
use clap::Args;
use rbac::{Ask, Decision, Explanation, FieldCheck, LockSubject, RoleSet, RuleContext, Wish};
use resources::{Reference, Resource, kind};
use serde::Serialize;
use wire::proto::GetLocksRequest;
use wire::types::{AccessRequestSpecV3, LockV2, UserV2};

use super::reach::{self, Account};
use super::subject::{Cluster, proposed};
use crate::api::Call;
use crate::connect::Wanted;
use crate::error::{Error, Result};
use crate::output::{self, Format, Table, say, text};
use crate::resource::{self, Secrets};

/// Verbs of resources that are not reached but managed.
const VERBS: [&str; 5] = ["list", "read", "create", "update", "delete"];

/// Show which rule lets a user at a resource or keeps them out, field by field.
#[derive(Args, Debug)]
pub struct Explain {
    /// Name of the user.
    user: String,
    /// The resource, as kind/name: a node, app, db, kube_cluster or windows_desktop to reach, or anything to manage.
    resource: Reference,
    /// The account on the node, in the database or on the desktop.
    login: Option<String>,
    /// The database.
    #[arg(long, value_name = "NAME")]
    db_name: Option<String>,
    /// Roles that count in place of stored ones of the same name.
    #[arg(long, value_name = "FILE")]
    roles: Vec<PathBuf>,
    /// As if a second factor was used for the session.
    #[arg(long)]
    mfa: bool,
    /// As if the user's device was a trusted one.
    #[arg(long)]
    device: bool,
    /// How to show it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// The answer for programs.
#[derive(Debug, Serialize)]
struct Answer {
    allowed: bool,
    reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<RoleView>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verbs: Vec<VerbView>,
    /// Whether locks were looked at: some may not see them.
    locks_checked: bool,
    /// Whether access lists were looked at: some may not see them.
    lists_checked: bool,
}

#[derive(Debug, Serialize)]
struct RoleView {
    role: String,
    effect: &'static str,
    fields: Vec<FieldView>,
}

#[derive(Debug, Serialize)]
struct FieldView {
    field: String,
    fits: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct VerbView {
    verb: &'static str,
    allowed: bool,
    reason: String,
}

impl Explain {
    /// Shows it.
    pub async fn run(self, wanted: &Wanted) -> Result<()> {
        let cluster = Cluster::new(wanted, proposed(&self.roles)?);
        let user = cluster.user(&self.user).await?;
        let (rights, lists_seen) = cluster.rights(&user).await?;
        let account = Account { login: self.login.as_deref(), database: self.db_name.as_deref() };
        let mut answer = match reach::reached(&self.resource.kind) {
            Some(kind) => self.reach(&cluster, &user, &rights, (kind, &account.asks(kind)?)).await?,
            None => {
                account.asks(&self.resource.kind)?;
                self.rules(&cluster, &user, &rights).await?
            }
        };
        answer.lists_checked = lists_seen;
        say(&match self.format {
            Format::Text => answer.text(&self),
            Format::Json => output::json(&answer, 4)?,
            Format::Yaml => output::yaml(&answer)?,
        });
        Ok(())
    }

    async fn reach(
        &self,
        cluster: &Cluster<'_>,
        user: &UserV2,
        rights: &RoleSet,
        (kind, asks): (&str, &[Ask<'_>]),
    ) -> Result<Answer> {
        let name =
            self.resource.name.as_deref().ok_or_else(|| Error::bad(format!("which one? expected {kind}/<name>")))?;
        let found = cluster.reachable(kind, name).await?;
        let target = reach::target(&found).ok_or_else(|| Error::other(format!("{} is not reached", found.title())))?;
        let state = cluster.state(rights, self.mfa, self.device).await?;
        let mut answer = Answer::of(&rights.explain(&target, asks, &state));
        let mut subject = LockSubject {
            user: user.name().to_owned(),
            roles: rights.names().map(str::to_owned).collect(),
            ..Default::default()
        };
        let api = cluster.api().await?;
        if kind == kind::NODE {
            subject.login = self.login.clone();
            subject.servers = vec![(target.name.to_owned(), Some(api.cluster().to_owned()))];
        }
        let request = GetLocksRequest { in_force_only: true, ..Default::default() };
        let locks = match api.auth().get_locks(request).within("listing locks").await {
            Ok(answer) => answer.locks,
            // Who may not see locks gets the answer of the roles, and is told so.
            Err(error) if error.kind() == wire::error::ErrorKind::AccessDenied => {
                answer.locks_checked = false;
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        if let Some(lock) = lock_on(&locks, &subject) {
            answer.allowed = false;
            answer.reason = rbac::lock_denial(lock).message;
        }
        Ok(answer)
    }

    async fn rules(&self, cluster: &Cluster<'_>, user: &UserV2, rights: &RoleSet) -> Result<Answer> {
        let mut context = RuleContext::new().with_user(user);
        if self.resource.name.is_some() {
            let found = resource::get(cluster.api().await?, &self.resource, Secrets::Hidden).await?;
            if let Some(resource) = found.first() {
                context = context.with_resource(resource);
            }
        }
        let rule = |verb| VerbView::of(verb, rights.check_rule(&self.resource.kind, verb, &context));
        let mut verbs: Vec<VerbView> = VERBS.into_iter().map(rule).collect();
        if let (kind::ROLE, Some(role)) = (self.resource.kind.as_str(), &self.resource.name) {
            // A role is also something that one may ask for, and that others give.
            let request = AccessRequestSpecV3 { roles: vec![role.clone()], ..Default::default() };
            verbs.push(VerbView::of("request", rights.check_request(role, Wish::Roles)));
            verbs.push(VerbView::of("search_as", rights.check_request(role, Wish::Resources)));
            verbs.push(VerbView::of("review", rights.check_review(&request)));
        }
        let allowed: Vec<&str> = verbs.iter().filter(|v| v.allowed).map(|v| v.verb).collect();
        let reason = if allowed.is_empty() { "no verb is allowed".to_owned() } else { allowed.join(", ") };
        let allowed = !allowed.is_empty();
        Ok(Answer { allowed, reason, roles: Vec::new(), verbs, locks_checked: true, lists_checked: true })
    }
}

fn lock_on<'a>(locks: &'a [LockV2], subject: &LockSubject) -> Option<&'a LockV2> {
    let (targets, now) = (rbac::lock_targets(subject), Utc::now());
    locks
        .iter()
        .find(|lock| rbac::lock_in_force(lock, now) && targets.iter().any(|target| rbac::lock_matches(lock, target)))
}

impl VerbView {
    fn of(verb: &'static str, decision: Decision) -> Self {
        match decision {
            Decision::Allow(permit) => {
                Self { verb, allowed: true, reason: format!("role {:?}, {}", permit.role, permit.field) }
            }
            Decision::Deny(denial) => Self { verb, allowed: false, reason: denial.explanation() },
        }
    }
}

impl Answer {
    fn of(explanation: &Explanation) -> Self {
        let roles: Vec<RoleView> = explanation.roles.iter().map(RoleView::of).collect();
        let granting: Vec<&str> = roles.iter().filter(|r| r.effect == "allows").map(|r| r.role.as_str()).collect();
        let reason = match explanation.decision.denial() {
            Some(denial) => denial.explanation(),
            None => format!("granted by {}", granting.join(", ")),
        };
        let allowed = explanation.decision.is_allowed();
        Self { allowed, reason, roles, verbs: Vec::new(), locks_checked: true, lists_checked: true }
    }

    fn text(&self, asked: &Explain) -> String {
        let word = if self.allowed { "ALLOWED" } else { "DENIED" };
        let login = asked.login.as_ref().map(|login| format!(" as {login}")).unwrap_or_default();
        let head = format!("{word}: {} to {}{login}: {}\n", asked.user, asked.resource, self.reason);
        let mut out = text::lines(&head).into_owned();
        if !self.locks_checked {
            out.push_str("Locks were not looked at: your own roles do not let you read them.\n");
        }
        if !self.lists_checked {
            out.push_str("Access lists were not looked at: your own roles do not let you read them.\n");
        }
        if !self.verbs.is_empty() {
            let mut table = Table::new(["Verb", "Allowed", "Why"]);
            for view in &self.verbs {
                table.row([view.verb.to_owned(), yes(view.allowed), view.reason.clone()]);
            }
            out.push_str(&format!("\n{}", table.full()));
        }
        if !self.roles.is_empty() {
            let mut table = Table::new(["Role", "Effect", "Field", "Fits", "Why"]);
            for role in &self.roles {
                for (at, field) in role.fields.iter().enumerate() {
                    let (name, effect) = if at == 0 { (role.role.as_str(), role.effect) } else { ("", "") };
                    let detail = field.detail.clone();
                    table.row([name.to_owned(), effect.to_owned(), field.field.clone(), yes(field.fits), detail]);
                }
            }
            out.push_str(&format!("\n{}", table.full()));
        }
        out
    }
}

fn yes(fits: bool) -> String {
    if fits { "yes" } else { "no" }.to_owned()
}

impl RoleView {
    fn of(role: &rbac::RoleExplanation) -> Self {
        let effect = match (role.denies(), role.allows(), &role.objection) {
            (true, ..) => "denies",
            (false, true, Some(_)) => "objects",
            (false, true, None) => "allows",
            (false, false, _) => "-",
        };
        let field = |check: &FieldCheck| FieldView {
            field: check.field.clone(),
            fits: check.passed,
            detail: check.detail.clone(),
        };
        // A field of deny that does not fit says nothing.
        let fields = role.allow.iter().chain(role.deny.iter().filter(|check| check.passed)).map(field);
        let objection = role.objection.iter().map(|option| FieldView {
            field: option.clone(),
            fits: false,
            detail: "asks for more than was proved".to_owned(),
        });
        Self { role: role.role.clone(), effect, fields: fields.chain(objection).collect() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rbac::{AccessState, Target, Traits};
    use resources::{AnyResource, Fields, parse_documents};
    use wire::types::{LockSpecV2, LockTarget};

    use super::*;

    fn rights(text: &str) -> RoleSet {
        let roles = parse_documents(text, Fields::Known).unwrap().into_iter().filter_map(|r| match r {
            AnyResource::Role(role) => Some(*role),
            _ => None,
        });
        RoleSet::compile(roles, Traits::default())
    }

    #[test]
    fn the_deciding_role_and_field_are_shown() {
        let rights = rights(
            "{kind: role, version: v7, metadata: {name: dev}, spec: {allow: {logins: [root], node_labels: {env: prod}}}}\n---\n\
             {kind: role, version: v7, metadata: {name: no-prod}, spec: {deny: {node_labels: {env: prod}}}}\n",
        );
        let labels = [("env".to_owned(), "prod".to_owned())].into();
        let target = Target { kind: kind::NODE, name: "1", labels: rbac::Labels::fixed(&labels) };
        let answer = Answer::of(&rights.explain(&target, &[Ask::Login("root")], &AccessState::VISIBLE));
        let asked = Explain {
            user: "ann".into(),
            resource: "node/web".parse().unwrap(),
            login: Some("root".into()),
            db_name: None,
            roles: Vec::new(),
            mfa: false,
            device: false,
            format: Format::Text,
        };
        let text = answer.text(&asked);
        assert!(text.starts_with("DENIED: ann to node/web as root: ") && text.contains("no-prod"), "{text}");
        assert!(text.contains("dev") && text.contains("allow.logins"), "{text}");
        assert!(text.contains("no-prod") && text.contains("deny.node_labels"), "{text}");
    }

    #[test]
    fn a_lock_stands_before_the_roles() {
        let target = LockTarget { login: "root".into(), ..Default::default() };
        let spec = LockSpecV2 { target: Some(target), message: "on fire".into(), ..Default::default() };
        let locks = [LockV2 { spec: Some(spec), ..Default::default() }];
        let subject = |login: &str| LockSubject { user: "ann".into(), login: Some(login.into()), ..Default::default() };
        assert!(lock_on(&locks, &subject("root")).is_some());
        assert!(lock_on(&locks, &subject("ann")).is_none());
    }
}
