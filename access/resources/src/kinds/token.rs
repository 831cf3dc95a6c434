use wire::types::{ProvisionTokenSpecV2, ProvisionTokenV1, ProvisionTokenV2, StaticTokensV2, TokenRule};

use super::{default_number, default_text, one_of, required};
use crate::{
    Place, Resource, ResourceError, Result, SystemRole, kind, places,
    resource::{check_version, plain_header},
};

/// How a new instance can prove itself.
pub const JOIN_METHODS: [&str; 11] =
    ["token", "ec2", "iam", "github", "circleci", "kubernetes", "azure", "gitlab", "gcp", "spacelift", "tpm"];

/// Life of an EC2 identity document, in nanoseconds.
const DEFAULT_IID_TTL: i64 = 5 * 60 * 1_000_000_000;

impl Resource for ProvisionTokenV2 {
    const KIND: &'static str = kind::TOKEN;
    const VERSION: &'static str = "v2";
    plain_header!();

    fn place(&self) -> Place {
        places::token(self.name())
    }

    fn set_spec_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        canonical_roles(&mut spec.roles);
        let method = if spec.allow.is_empty() { "token" } else { "ec2" };
        default_text(&mut spec.join_method, method);
        if spec.join_method == "ec2" {
            default_number(&mut spec.awsiidttl, DEFAULT_IID_TTL);
        }
        if let Some(kubernetes) = &mut spec.kubernetes {
            default_text(&mut kubernetes.r#type, "in_cluster");
        }
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        check_roles("spec.roles", &spec.roles)?;
        let is_bot = spec.roles.iter().any(|r| r == SystemRole::Bot.name());
        match (is_bot, spec.bot_name.is_empty()) {
            (true, true) => {
                return Err(ResourceError::field("spec.bot_name", "token with role \"Bot\" must set bot_name"));
            }
            (false, false) => {
                return Err(ResourceError::field("spec.bot_name", "can only be set on a token with role \"Bot\""));
            }
            _ => {}
        }
        one_of("spec.join_method", &spec.join_method, &JOIN_METHODS)?;
        check_method(&spec)
    }
}

impl Resource for StaticTokensV2 {
    const KIND: &'static str = kind::STATIC_TOKENS;
    const VERSION: &'static str = "v2";
    const SINGLETON: Option<&'static str> = Some("static-tokens");
    plain_header!();

    fn place(&self) -> Place {
        places::static_tokens()
    }

    fn set_spec_defaults(&mut self) {
        for token in &mut self.spec.get_or_insert_default().static_tokens {
            canonical_roles(&mut token.roles);
        }
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        for (i, ProvisionTokenV1 { roles, token, .. }) in self.spec.iter().flat_map(|s| &s.static_tokens).enumerate() {
            check_roles(&format!("spec.static_tokens[{i}].roles"), roles)?;
            required(&[("spec.static_tokens.token", token)])?;
        }
        Ok(())
    }
}

/// Role names in their canonical spelling; names that are no role stay as they are and are refused later.
fn canonical_roles(roles: &mut [String]) {
    for role in roles {
        if let Ok(known) = role.parse::<SystemRole>() {
            known.name().clone_into(role);
        }
    }
}

fn check_roles(path: &str, roles: &[String]) -> Result<()> {
    if roles.is_empty() {
        return Err(ResourceError::field(path, "provisioning token is missing roles"));
    }
    match roles.iter().find_map(|role| role.parse::<SystemRole>().err()) {
        Some(unknown) => Err(ResourceError::field(path, unknown.to_string())),
        None => Ok(()),
    }
}

/// The part of the spec that a join method needs.
fn check_method(spec: &ProvisionTokenSpecV2) -> Result<()> {
    match spec.join_method.as_str() {
        "ec2" => check_ec2(&spec.allow),
        "iam" => check_iam(&spec.allow),
        method if !spec.allow.is_empty() => {
            Err(ResourceError::field("spec.allow", format!("is not supported by join method {method:?}")))
        }
        "token" => Ok(()),
        method => check_rules(method, provider_rules(method, spec)),
    }
}

fn check_ec2(rules: &[TokenRule]) -> Result<()> {
    if rules.is_empty() {
        return Err(ResourceError::field("spec.allow", "the ec2 join method needs at least one rule"));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("spec.allow[{i}]");
        if !rule.awsarn.is_empty() {
            return Err(ResourceError::field(path, "aws_arn is only for the iam join method"));
        }
        if rule.aws_account.is_empty() && rule.aws_role.is_empty() {
            return Err(ResourceError::field(path, "needs aws_account or aws_role"));
        }
    }
    Ok(())
}

fn check_iam(rules: &[TokenRule]) -> Result<()> {
    if rules.is_empty() {
        return Err(ResourceError::field("spec.allow", "the iam join method needs at least one rule"));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = format!("spec.allow[{i}]");
        if !rule.aws_role.is_empty() || !rule.aws_regions.is_empty() {
            return Err(ResourceError::field(path, "aws_role and aws_regions are only for the ec2 join method"));
        }
        if rule.aws_account.is_empty() && rule.awsarn.is_empty() {
            return Err(ResourceError::field(path, "needs aws_account or aws_arn"));
        }
    }
    Ok(())
}

/// For each rule whether it restricts anything, and what it needs; `None` when the provider's part is missing.
type Rules = Option<(Vec<bool>, &'static str)>;

fn provider_rules(method: &str, spec: &ProvisionTokenSpecV2) -> Rules {
    let any = |texts: &[&String]| texts.iter().any(|t| !t.is_empty());
    match method {
        "github" => spec.git_hub.as_ref().map(|p| {
            let rules = p.allow.iter().map(|r| any(&[&r.repository, &r.repository_owner, &r.sub])).collect();
            (rules, "repository, repository_owner or sub")
        }),
        "gitlab" => spec.git_lab.as_ref().map(|p| {
            let rules = p.allow.iter();
            let rules =
                rules.map(|r| any(&[&r.sub, &r.namespace_path, &r.project_path, &r.ci_config_ref_uri])).collect();
            (rules, "namespace_path, project_path, ci_config_ref_uri or sub")
        }),
        "circleci" => spec.circle_ci.as_ref().filter(|p| !p.organization_id.is_empty()).map(|p| {
            (p.allow.iter().map(|r| any(&[&r.project_id, &r.context_id])).collect(), "project_id or context_id")
        }),
        "kubernetes" => spec.kubernetes.as_ref().map(|p| {
            let rules = p.allow.iter().map(|r| r.service_account.split(':').filter(|s| !s.is_empty()).count() == 2);
            (rules.collect(), "service_account as namespace:name")
        }),
        "azure" => {
            spec.azure.as_ref().map(|p| (p.allow.iter().map(|r| any(&[&r.subscription])).collect(), "subscription"))
        }
        "gcp" => {
            spec.gcp.as_ref().map(|p| (p.allow.iter().map(|r| !r.project_i_ds.is_empty()).collect(), "project_ids"))
        }
        "spacelift" => spec
            .spacelift
            .as_ref()
            .filter(|p| !p.hostname.is_empty())
            .map(|p| (p.allow.iter().map(|r| any(&[&r.space_id, &r.caller_id])).collect(), "space_id or caller_id")),
        "tpm" => spec.tpm.as_ref().map(|p| {
            let rules = p.allow.iter().map(|r| any(&[&r.ek_public_hash, &r.ek_certificate_serial])).collect();
            (rules, "ek_public_hash or ek_certificate_serial")
        }),
        _ => None,
    }
}

fn check_rules(method: &str, rules: Rules) -> Result<()> {
    let path = format!("spec.{method}");
    let Some((rules, needs)) = rules else {
        let problem = format!("must be set, with all that join method {method:?} needs");
        return Err(ResourceError::field(path, problem));
    };
    if rules.is_empty() {
        return Err(ResourceError::field(format!("{path}.allow"), "needs at least one rule"));
    }
    match rules.iter().position(|ok| !ok) {
        Some(i) => Err(ResourceError::field(format!("{path}.allow[{i}]"), format!("needs {needs}"))),
        None => Ok(()),
    }
}
