//! The attributes of an identity's subject.

use chrono::{DateTime, SecondsFormat, Utc};
use der::asn1::ObjectIdentifier;

use super::Identity;
use super::traits::{go_json, traits_from_text, traits_to_json};
use crate::Error;
use crate::x509::{DistinguishedName, oid};

/// The private attributes.
mod attribute {
    use super::ObjectIdentifier;

    const fn private(text: &str) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(text)
    }

    pub const KUBERNETES_USER: ObjectIdentifier = private("1.3.9999.1.1");
    pub const KUBERNETES_GROUP: ObjectIdentifier = private("1.3.9999.1.2");
    pub const KUBERNETES_CLUSTER: ObjectIdentifier = private("1.3.9999.1.3");
    pub const APP_SESSION_ID: ObjectIdentifier = private("1.3.9999.1.4");
    pub const APP_CLUSTER: ObjectIdentifier = private("1.3.9999.1.5");
    pub const APP_PUBLIC_ADDR: ObjectIdentifier = private("1.3.9999.1.6");
    pub const TELEPORT_CLUSTER: ObjectIdentifier = private("1.3.9999.1.7");
    pub const MFA_VERIFIED: ObjectIdentifier = private("1.3.9999.1.8");
    pub const LOGIN_IP: ObjectIdentifier = private("1.3.9999.1.9");
    pub const APP_NAME: ObjectIdentifier = private("1.3.9999.1.10");
    pub const APP_AWS_ROLE_ARN: ObjectIdentifier = private("1.3.9999.1.11");
    pub const AWS_ROLE_ARN: ObjectIdentifier = private("1.3.9999.1.12");
    pub const RENEWABLE: ObjectIdentifier = private("1.3.9999.1.13");
    pub const GENERATION: ObjectIdentifier = private("1.3.9999.1.14");
    pub const PRIVATE_KEY_POLICY: ObjectIdentifier = private("1.3.9999.1.15");
    pub const APP_AZURE_IDENTITY: ObjectIdentifier = private("1.3.9999.1.16");
    pub const AZURE_IDENTITY: ObjectIdentifier = private("1.3.9999.1.17");
    pub const APP_GCP_SERVICE_ACCOUNT: ObjectIdentifier = private("1.3.9999.1.18");
    pub const GCP_SERVICE_ACCOUNT: ObjectIdentifier = private("1.3.9999.1.19");
    pub const USER_TYPE: ObjectIdentifier = private("1.3.9999.1.20");
    pub const DATABASE_SERVICE: ObjectIdentifier = private("1.3.9999.2.1");
    pub const DATABASE_PROTOCOL: ObjectIdentifier = private("1.3.9999.2.2");
    pub const DATABASE_USERNAME: ObjectIdentifier = private("1.3.9999.2.3");
    pub const DATABASE_DATABASE: ObjectIdentifier = private("1.3.9999.2.4");
    pub const DATABASE_NAME: ObjectIdentifier = private("1.3.9999.2.5");
    pub const DATABASE_USER: ObjectIdentifier = private("1.3.9999.2.6");
    pub const IMPERSONATOR: ObjectIdentifier = private("1.3.9999.2.7");
    pub const ACTIVE_REQUEST: ObjectIdentifier = private("1.3.9999.2.8");
    pub const DISALLOW_REISSUE: ObjectIdentifier = private("1.3.9999.2.9");
    pub const ALLOWED_RESOURCES: ObjectIdentifier = private("1.3.9999.2.10");
    pub const SYSTEM_ROLE: ObjectIdentifier = private("1.3.9999.2.11");
    pub const PREVIOUS_IDENTITY_EXPIRES: ObjectIdentifier = private("1.3.9999.2.12");
    pub const CONNECTION_DIAGNOSTIC_ID: ObjectIdentifier = private("1.3.9999.2.13");
    pub const PINNED_IP: ObjectIdentifier = private("1.3.9999.2.15");
    pub const BOT_NAME: ObjectIdentifier = private("1.3.9999.2.18");
    pub const DATABASE_ROLE: ObjectIdentifier = private("1.3.9999.2.19");
    pub const BOT_INSTANCE_ID: ObjectIdentifier = private("1.3.9999.2.20");
    pub const JOIN_ATTRIBUTES: ObjectIdentifier = private("1.3.9999.2.21");
    pub const DEVICE_ID: ObjectIdentifier = private("1.3.9999.3.1");
    pub const DEVICE_ASSET_TAG: ObjectIdentifier = private("1.3.9999.3.2");
    pub const DEVICE_CREDENTIAL_ID: ObjectIdentifier = private("1.3.9999.3.3");
}

const TRUE: &str = "true";

/// Builds the subject; attributes come in the order in which other issuers write them.
pub(super) fn write(identity: &Identity) -> Result<DistinguishedName, Error> {
    if identity.username.is_empty() {
        return Err(Error::MissingUsername);
    }
    if identity.groups.is_empty() {
        return Err(Error::MissingGroups);
    }
    let mut name = Writer(DistinguishedName::new());
    name.set(oid::ORGANIZATION, &identity.groups);
    name.set(oid::ORGANIZATIONAL_UNIT, &identity.usage);
    name.set(oid::LOCALITY, &identity.principals);
    name.0.push(oid::STREET_ADDRESS, &identity.route_to_cluster);
    name.0.push(oid::POSTAL_CODE, traits_to_json(identity.traits.as_ref()));
    name.0.push(oid::COMMON_NAME, &identity.username);
    write_targets(&mut name, identity);
    write_login(&mut name, identity);
    write_database(&mut name, identity);
    write_provenance(&mut name, identity);
    Ok(name.0)
}

fn write_targets(name: &mut Writer, identity: &Identity) {
    let app = &identity.route_to_app;
    name.each(attribute::SYSTEM_ROLE, &identity.system_roles);
    name.each(attribute::KUBERNETES_USER, &identity.kubernetes_users);
    name.each(attribute::KUBERNETES_GROUP, &identity.kubernetes_groups);
    name.text(attribute::KUBERNETES_CLUSTER, &identity.kubernetes_cluster);
    name.text(attribute::APP_SESSION_ID, &app.session_id);
    name.text(attribute::APP_PUBLIC_ADDR, &app.public_addr);
    name.text(attribute::APP_CLUSTER, &app.cluster_name);
    name.text(attribute::APP_NAME, &app.name);
    name.text(attribute::APP_AWS_ROLE_ARN, &app.aws_role_arn);
    name.each(attribute::AWS_ROLE_ARN, &identity.aws_role_arns);
    name.text(attribute::APP_AZURE_IDENTITY, &app.azure_identity);
    name.each(attribute::AZURE_IDENTITY, &identity.azure_identities);
    name.text(attribute::APP_GCP_SERVICE_ACCOUNT, &app.gcp_service_account);
    name.each(attribute::GCP_SERVICE_ACCOUNT, &identity.gcp_service_accounts);
}

fn write_login(name: &mut Writer, identity: &Identity) {
    name.flag(attribute::RENEWABLE, identity.renewable);
    name.text(attribute::TELEPORT_CLUSTER, &identity.teleport_cluster);
    name.text(attribute::MFA_VERIFIED, &identity.mfa_verified);
    if let Some(expires) = identity.previous_identity_expires {
        name.text(attribute::PREVIOUS_IDENTITY_EXPIRES, &rfc3339(expires));
    }
    name.text(attribute::LOGIN_IP, &identity.login_ip);
    name.text(attribute::PINNED_IP, &identity.pinned_ip);
}

fn write_database(name: &mut Writer, identity: &Identity) {
    let database = &identity.route_to_database;
    name.text(attribute::DATABASE_SERVICE, &database.service_name);
    name.text(attribute::DATABASE_PROTOCOL, &database.protocol);
    name.text(attribute::DATABASE_USERNAME, &database.username);
    name.text(attribute::DATABASE_DATABASE, &database.database);
    name.each(attribute::DATABASE_ROLE, &database.roles);
    name.each(attribute::DATABASE_NAME, &identity.database_names);
    name.each(attribute::DATABASE_USER, &identity.database_users);
}

fn write_provenance(name: &mut Writer, identity: &Identity) {
    name.text(attribute::IMPERSONATOR, &identity.impersonator);
    name.each(attribute::ACTIVE_REQUEST, &identity.active_requests);
    name.flag(attribute::DISALLOW_REISSUE, identity.disallow_reissue);
    if identity.generation > 0 {
        name.text(attribute::GENERATION, &identity.generation.to_string());
    }
    name.text(attribute::BOT_NAME, &identity.bot_name);
    name.text(attribute::BOT_INSTANCE_ID, &identity.bot_instance_id);
    if !identity.allowed_resource_ids.is_empty() {
        name.text(attribute::ALLOWED_RESOURCES, &go_json(&identity.allowed_resource_ids));
    }
    name.text(attribute::PRIVATE_KEY_POLICY, &identity.private_key_policy);
    name.text(attribute::CONNECTION_DIAGNOSTIC_ID, &identity.connection_diagnostic_id);
    name.text(attribute::DEVICE_ID, &identity.device.device_id);
    name.text(attribute::DEVICE_ASSET_TAG, &identity.device.asset_tag);
    name.text(attribute::DEVICE_CREDENTIAL_ID, &identity.device.credential_id);
    name.text(attribute::USER_TYPE, &identity.user_type);
    name.text(attribute::JOIN_ATTRIBUTES, &identity.join_attributes);
}

/// Seconds precision and `Z`, as certificates carry it.
pub(crate) fn rfc3339(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

struct Writer(DistinguishedName);

impl Writer {
    /// Several values in one relative name.
    fn set(&mut self, attribute: ObjectIdentifier, values: &[String]) {
        let mut distinct: Vec<&String> = Vec::with_capacity(values.len());
        for value in values {
            if !distinct.contains(&value) {
                distinct.push(value);
            }
        }
        self.0.push_set(attribute, distinct);
    }

    /// One relative name per value.
    fn each(&mut self, attribute: ObjectIdentifier, values: &[String]) {
        for value in values {
            self.0.push(attribute, value);
        }
    }

    fn text(&mut self, attribute: ObjectIdentifier, value: &str) {
        if !value.is_empty() {
            self.0.push(attribute, value);
        }
    }

    fn flag(&mut self, attribute: ObjectIdentifier, set: bool) {
        if set {
            self.0.push(attribute, TRUE);
        }
    }
}

pub(super) fn read(name: &DistinguishedName) -> Result<Identity, Error> {
    let all = |attribute| name.values(attribute).map(str::to_owned).collect::<Vec<_>>();
    let mut identity = Identity {
        username: name.values(oid::COMMON_NAME).last().unwrap_or_default().to_owned(),
        groups: all(oid::ORGANIZATION),
        usage: all(oid::ORGANIZATIONAL_UNIT),
        principals: all(oid::LOCALITY),
        route_to_cluster: name.first(oid::STREET_ADDRESS).unwrap_or_default().to_owned(),
        ..Identity::default()
    };
    if identity.username.is_empty() {
        return Err(Error::MissingUsername);
    }
    if identity.groups.is_empty() {
        return Err(Error::MissingGroups);
    }
    if let Some(text) = name.first(oid::POSTAL_CODE) {
        identity.traits = traits_from_text(text).map_err(|reason| unreadable("traits", reason))?;
    }
    for (attribute, value) in name.iter() {
        let known = read_text(&mut identity, attribute, value) || read_list(&mut identity, attribute, value);
        if !known {
            read_parsed(&mut identity, attribute, value)?;
        }
    }
    Ok(identity)
}

fn unreadable(attribute: &'static str, reason: impl std::fmt::Display) -> Error {
    Error::IdentityAttribute { attribute, reason: reason.to_string() }
}

/// Attributes with one plain value; a repeated one replaces the one before.
fn read_text(identity: &mut Identity, attribute: ObjectIdentifier, value: &str) -> bool {
    let app = &mut identity.route_to_app;
    let database = &mut identity.route_to_database;
    let field = match attribute {
        attribute::KUBERNETES_CLUSTER => &mut identity.kubernetes_cluster,
        attribute::APP_SESSION_ID => &mut app.session_id,
        attribute::APP_CLUSTER => &mut app.cluster_name,
        attribute::APP_PUBLIC_ADDR => &mut app.public_addr,
        attribute::APP_NAME => &mut app.name,
        attribute::APP_AWS_ROLE_ARN => &mut app.aws_role_arn,
        attribute::APP_AZURE_IDENTITY => &mut app.azure_identity,
        attribute::APP_GCP_SERVICE_ACCOUNT => &mut app.gcp_service_account,
        attribute::TELEPORT_CLUSTER => &mut identity.teleport_cluster,
        attribute::MFA_VERIFIED => &mut identity.mfa_verified,
        attribute::LOGIN_IP => &mut identity.login_ip,
        attribute::PINNED_IP => &mut identity.pinned_ip,
        attribute::PRIVATE_KEY_POLICY => &mut identity.private_key_policy,
        attribute::USER_TYPE => &mut identity.user_type,
        attribute::DATABASE_SERVICE => &mut database.service_name,
        attribute::DATABASE_PROTOCOL => &mut database.protocol,
        attribute::DATABASE_USERNAME => &mut database.username,
        attribute::DATABASE_DATABASE => &mut database.database,
        attribute::IMPERSONATOR => &mut identity.impersonator,
        attribute::CONNECTION_DIAGNOSTIC_ID => &mut identity.connection_diagnostic_id,
        attribute::BOT_NAME => &mut identity.bot_name,
        attribute::BOT_INSTANCE_ID => &mut identity.bot_instance_id,
        attribute::JOIN_ATTRIBUTES => &mut identity.join_attributes,
        attribute::DEVICE_ID => &mut identity.device.device_id,
        attribute::DEVICE_ASSET_TAG => &mut identity.device.asset_tag,
        attribute::DEVICE_CREDENTIAL_ID => &mut identity.device.credential_id,
        _ => return false,
    };
    value.clone_into(field);
    true
}

/// Attributes of which there may be several.
fn read_list(identity: &mut Identity, attribute: ObjectIdentifier, value: &str) -> bool {
    let list = match attribute {
        attribute::KUBERNETES_USER => &mut identity.kubernetes_users,
        attribute::KUBERNETES_GROUP => &mut identity.kubernetes_groups,
        attribute::AWS_ROLE_ARN => &mut identity.aws_role_arns,
        attribute::AZURE_IDENTITY => &mut identity.azure_identities,
        attribute::GCP_SERVICE_ACCOUNT => &mut identity.gcp_service_accounts,
        attribute::DATABASE_NAME => &mut identity.database_names,
        attribute::DATABASE_USER => &mut identity.database_users,
        attribute::DATABASE_ROLE => &mut identity.route_to_database.roles,
        attribute::ACTIVE_REQUEST => &mut identity.active_requests,
        attribute::SYSTEM_ROLE => &mut identity.system_roles,
        _ => return false,
    };
    list.push(value.to_owned());
    true
}

/// Attributes whose value has a form of its own.
fn read_parsed(identity: &mut Identity, attribute: ObjectIdentifier, value: &str) -> Result<(), Error> {
    match attribute {
        attribute::RENEWABLE => identity.renewable = value == TRUE,
        attribute::DISALLOW_REISSUE => identity.disallow_reissue = value == TRUE,
        attribute::GENERATION => {
            identity.generation = value.parse().map_err(|reason| unreadable("generation", reason))?;
        }
        attribute::PREVIOUS_IDENTITY_EXPIRES => {
            let expires = DateTime::parse_from_rfc3339(value)
                .map_err(|reason| unreadable("expiry of the previous identity", reason))?;
            identity.previous_identity_expires = Some(expires.to_utc());
        }
        attribute::ALLOWED_RESOURCES => {
            identity.allowed_resource_ids = serde_json::from_str::<Option<Vec<String>>>(value)
                .map_err(|reason| unreadable("allowed resources", reason))?
                .unwrap_or_default();
        }
        _ => {}
    }
    Ok(())
}
