//! Where people who log in come from: GitHub, OpenID Connect, SAML; and services that log people in with us.

use wire::types::{GithubConnectorV3, OidcConnectorV3, SamlConnectorV2, SamlIdPServiceProviderV1};

use super::{check_url, default_text, required, table::kinds};
use crate::{Place, Resource, ResourceError, Result, kind, places};

/// Names that stand for ways to log in without a connector.
const RESERVED: [&str; 3] = ["local", "passwordless", "headless"];

const NANOSECONDS: i64 = 1_000_000_000;

kinds! {
    GithubConnectorV3: kind::GITHUB, "v3", plain_header {
        place: |connector| Place::new(places::GITHUB_CONNECTORS, [connector.name()]),
        defaults: |connector| {
            let spec = connector.spec.get_or_insert_default();
            default_text(&mut spec.endpoint_url, "https://github.com");
            default_text(&mut spec.api_endpoint_url, "https://api.github.com");
        },
        check: check_github,
    }
    OidcConnectorV3: kind::OIDC, "v3", plain_header {
        place: |connector| Place::new(places::OIDC_CONNECTORS, [connector.name()]),
        defaults: |connector| { connector.spec.get_or_insert_default(); },
        check: check_oidc,
    }
    SamlConnectorV2: kind::SAML, "v2", plain_header {
        place: |connector| Place::new(places::SAML_CONNECTORS, [connector.name()]),
        defaults: |connector| {
            let spec = connector.spec.get_or_insert_default();
            let acs = spec.assertion_consumer_service.clone();
            default_text(&mut spec.audience, &acs);
            default_text(&mut spec.service_provider_issuer, &acs);
        },
        check: check_saml,
    }
    SamlIdPServiceProviderV1: kind::SAML_IDP_SERVICE_PROVIDER, "v1", embedded_header {
        place: |provider| Place::new(places::SAML_SERVICE_PROVIDERS, [provider.name()]),
        defaults: |provider| { provider.spec.get_or_insert_default(); },
        check: |provider| {
            let spec = provider.spec.clone().unwrap_or_default();
            if spec.entity_descriptor.is_empty() {
                required(&[("spec.entity_id", &spec.entity_id), ("spec.acs_url", &spec.acsurl)])?;
                check_url("spec.acs_url", &spec.acsurl)?;
            }
            match spec.attribute_mapping.iter().position(|m| m.name.is_empty() || m.value.is_empty()) {
                Some(i) => {
                    let path = format!("spec.attribute_mapping[{i}]");
                    Err(ResourceError::field(path, "a mapping needs name and value"))
                }
                None => Ok(()),
            }
        },
    }
}

fn check_name(name: &str) -> Result<()> {
    if RESERVED.contains(&name) {
        let text = format!("{name:?} stands for a way to log in without a connector and cannot be its name");
        return Err(ResourceError::field("metadata.name", text));
    }
    Ok(())
}

fn check_github(connector: &GithubConnectorV3) -> Result<()> {
    check_name(connector.name())?;
    let spec = connector.spec.clone().unwrap_or_default();
    required(&[("spec.client_id", &spec.client_id), ("spec.redirect_url", &spec.redirect_url)])?;
    check_url("spec.redirect_url", &spec.redirect_url)?;
    check_url("spec.endpoint_url", &spec.endpoint_url)?;
    check_url("spec.api_endpoint_url", &spec.api_endpoint_url)?;
    if spec.teams_to_logins.is_empty() && spec.teams_to_roles.is_empty() {
        return Err(ResourceError::field("spec.teams_to_roles", "missing mappings from teams to roles"));
    }
    check_roles("spec.teams_to_roles", spec.teams_to_roles.iter().map(|m| m.roles.as_slice()))
}

fn check_oidc(connector: &OidcConnectorV3) -> Result<()> {
    check_name(connector.name())?;
    let spec = connector.spec.clone().unwrap_or_default();
    required(&[("spec.issuer_url", &spec.issuer_url), ("spec.client_id", &spec.client_id)])?;
    check_url("spec.issuer_url", &spec.issuer_url)?;
    let urls = spec.redirect_ur_ls.unwrap_or_default().values;
    if urls.is_empty() {
        return Err(ResourceError::field("spec.redirect_url", "missing value"));
    }
    urls.iter().try_for_each(|url| check_url("spec.redirect_url", url))?;
    if !spec.google_service_account_uri.is_empty() && !spec.google_service_account.is_empty() {
        let text = "must not be set together with google_service_account_uri";
        return Err(ResourceError::field("spec.google_service_account", text));
    }
    let google = !spec.google_service_account_uri.is_empty() || !spec.google_service_account.is_empty();
    if google {
        required(&[("spec.google_admin_email", &spec.google_admin_email)])?;
    }
    if let Some(age) = spec.max_age
        && (age.value < 0 || age.value % NANOSECONDS != 0)
    {
        return Err(ResourceError::field("spec.max_age", "expected whole seconds, at least 0"));
    }
    check_roles("spec.claims_to_roles", spec.claims_to_roles.iter().map(|m| m.roles.as_slice()))
}

fn check_saml(connector: &SamlConnectorV2) -> Result<()> {
    check_name(connector.name())?;
    let spec = connector.spec.clone().unwrap_or_default();
    required(&[("spec.acs", &spec.assertion_consumer_service)])?;
    check_url("spec.acs", &spec.assertion_consumer_service)?;
    if spec.entity_descriptor.is_empty() && spec.entity_descriptor_url.is_empty() {
        required(&[("spec.issuer", &spec.issuer), ("spec.sso", &spec.sso), ("spec.cert", &spec.cert)]).map_err(
            |e| ResourceError::invalid(format!("{e}: set it, or entity_descriptor, or entity_descriptor_url")),
        )?;
    }
    if !spec.entity_descriptor_url.is_empty() {
        check_url("spec.entity_descriptor_url", &spec.entity_descriptor_url)?;
    }
    if spec.attributes_to_roles.is_empty() {
        return Err(ResourceError::field("spec.attributes_to_roles", "missing mappings from attributes to roles"));
    }
    if spec.allow_idp_initiated && !spec.assertion_consumer_service.ends_with(&format!("/{}", connector.name())) {
        let text = format!("must end in /{} when allow_idp_initiated is set", connector.name());
        return Err(ResourceError::field("spec.acs", text));
    }
    check_roles("spec.attributes_to_roles", spec.attributes_to_roles.iter().map(|m| m.roles.as_slice()))
}

/// Every mapping names roles.
fn check_roles<'a>(path: &str, mut mappings: impl Iterator<Item = &'a [String]>) -> Result<()> {
    match mappings.position(|roles| roles.is_empty() || roles.iter().any(String::is_empty)) {
        Some(i) => Err(ResourceError::field(format!("{path}[{i}].roles"), "missing the names of roles")),
        None => Ok(()),
    }
}
