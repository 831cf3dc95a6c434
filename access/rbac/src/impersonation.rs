//! Acting as somebody else: certificates for another user or for other roles.

use serde_json::{Value as Json, json};
use wire::types::{ImpersonateConditions, UserV2};

use crate::{
    decision::{Cause, Decision, Denial, Permit},
    language::{Dialect, Expression},
    role_set::RoleSet,
    rules::RuleContext,
    template::Matcher,
};

/// Who somebody wants to act as.
#[derive(Clone, Copy, Debug)]
pub struct Impersonated<'a> {
    /// The other user.
    pub user: &'a UserV2,
    /// The roles of the certificate.
    pub roles: &'a [String],
}

impl RoleSet {
    /// Whether the identity may get certificates as another user with certain roles. A role that allows it lists the
    /// user and every one of the roles, and its condition holds; a role that denies lists the user or one of the roles.
    pub fn check_impersonation(&self, as_whom: Impersonated<'_>, context: &RuleContext) -> Decision {
        let name = as_whom.user.metadata.as_ref().map_or("", |m| m.name.as_str());
        let roles: Vec<Json> = as_whom.roles.iter().map(|role| json!({"metadata": {"name": role}})).collect();
        let message =
            format!("access denied: cannot impersonate user {name:?} with roles {}", as_whom.roles.join(", "));
        let context = context.clone().with_impersonate_user(as_whom.user);
        let allows = |conditions: &ImpersonateConditions| {
            let users = self.listed(&conditions.users, name, false);
            let all = as_whom.roles.iter().all(|role| self.listed(&conditions.roles, role, false));
            let applies = |role: &Json| holds(&conditions.r#where, &context.clone().with_impersonate_role(role));
            users && all && if roles.is_empty() { applies(&Json::Null) } else { roles.iter().all(applies) }
        };
        self.decide_impersonation(&message, Some(name), as_whom.roles, allows)
    }

    /// Whether the identity may get certificates of its own user with other roles: what machines do. Only entries
    /// that list roles and no users count.
    pub fn check_role_impersonation(&self, roles: &[String]) -> Decision {
        let message = format!("access denied: cannot impersonate roles {}", roles.join(", "));
        let allowed = |role: &String| {
            self.roles().iter().any(|r| {
                let conditions = r.allow_conditions().impersonate.as_ref();
                conditions.is_some_and(|c| c.users.is_empty() && self.listed(&c.roles, role, false))
            })
        };
        let every = roles.iter().all(allowed) && !roles.is_empty();
        self.decide_impersonation(&message, None, roles, |conditions| every && conditions.users.is_empty())
    }

    fn decide_impersonation(
        &self,
        message: &str,
        user: Option<&str>,
        roles: &[String],
        allows: impl Fn(&ImpersonateConditions) -> bool,
    ) -> Decision {
        for role in self.roles() {
            let Some(deny) = &role.deny_conditions().impersonate else { continue };
            let denies_user = user.is_some_and(|user| self.listed(&deny.users, user, true));
            if denies_user || roles.iter().any(|r| self.listed(&deny.roles, r, true)) {
                let denial = Denial::new(Cause::Denied, message);
                return Decision::Deny(denial.by(
                    role.name(),
                    "deny.impersonate",
                    "lists the user or one of the roles",
                ));
            }
        }
        let granting = self.roles().iter().find(|r| r.allow_conditions().impersonate.as_ref().is_some_and(&allows));
        match granting {
            Some(role) => Decision::Allow(Permit { role: role.name().to_owned(), field: "allow.impersonate".into() }),
            None => {
                Decision::Deny(Denial::new(Cause::NotGranted, message).because("no role allows this impersonation"))
            }
        }
    }

    /// Whether a name is in a list of matchers; what cannot be parsed counts as `otherwise`.
    fn listed(&self, matchers: &[String], name: &str, otherwise: bool) -> bool {
        matchers.iter().any(|text| match Matcher::with_traits(text, self.traits()) {
            Ok(matcher) => matcher.matches(name),
            Err(_) => otherwise,
        })
    }
}

fn holds(condition: &str, context: &RuleContext) -> bool {
    match condition.trim() {
        "" => true,
        text => Expression::parse(text, Dialect::Where).is_ok_and(|e| e.holds(context).unwrap_or(false)),
    }
}
