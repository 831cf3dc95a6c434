//! Sections of services that this build does not have yet: their form is checked, enabling them is refused.
//!
//! The tables say which keys there are and what kind of value each takes. A service that is built gets a
//! module of its own and leaves this one.

use crate::{global::Server, section::Section};

/// The kind of value a key takes.
pub(crate) enum Shape {
    Text,
    Flag,
    Number,
    Duration,
    Address(u16),
    Texts,
    OneOrMore,
    Labels,
    Map(Keys),
    Maps(Keys),
    Any,
}

type Keys = &'static [(&'static str, Shape)];

/// Checks the form of the named keys of a section.
pub(crate) fn check(section: &Section<'_>, keys: Keys) {
    for (key, shape) in keys {
        match shape {
            Shape::Text => drop(section.text(key)),
            Shape::Flag => drop(section.flag(key)),
            Shape::Number => drop(section.number::<i64>(key)),
            Shape::Duration => drop(section.duration(key)),
            Shape::Address(port) => drop(section.address(key, *port)),
            Shape::Texts => drop(section.texts(key)),
            Shape::OneOrMore => drop(section.one_or_more_texts(key)),
            Shape::Labels => drop(section.labels(key)),
            Shape::Map(keys) => section.section(key, |inner| check(inner, keys)),
            Shape::Maps(keys) => drop(section.sections(key, |inner| check(inner, keys))),
            Shape::Any => section.ignore(key),
        }
    }
}

/// Reads all services that are not built and refuses those that are enabled.
pub(crate) fn read(root: &Section<'_>, server: Option<&Server>, local_auth: bool) {
    for (name, keys) in SERVICES {
        root.section(name, |section| {
            let enabled = section.flag("enabled").unwrap_or(false);
            check(section, keys);
            match *name {
                "app_service" => drop(section.sections("apps", check_app)),
                "db_service" => drop(section.sections("databases", check_database)),
                _ => {}
            }
            if !enabled {
                return;
            }
            section.reject("enabled", format!("{name} is not part of this build yet"));
            let needs_proxy = ["app_service", "db_service", "discovery_service"].contains(name);
            if needs_proxy && !local_auth && matches!(server, Some(Server::Auth(_))) {
                section.reject_all(format!(
                    "when {name} is enabled, proxy_server must be specified instead of auth_server"
                ));
            }
        });
    }
}

fn check_app(app: &Section<'_>) {
    check(app, APP);
    let (name, uri, cloud) = (app.text("name"), app.text("uri"), app.text("cloud"));
    match &name {
        None => app.reject("name", "app has no name, expected a DNS label"),
        Some(name) if !is_dns_label(name) => {
            let message = format!(
                "app name {name:?} is not a DNS label: expected lower-case letters, digits and dashes, \
                 beginning with a letter"
            );
            app.reject("name", message);
        }
        Some(_) => {}
    }
    if uri.is_none() && cloud.is_none() {
        app.reject("uri", "app has no uri, expected the address of the application");
    }
}

fn check_database(database: &Section<'_>) {
    check(database, DATABASE);
    for key in ["name", "protocol", "uri"] {
        if !database.has(key) {
            database.reject(key, format!("database has no {key}"));
        }
    }
}

/// RFC 1035 §2.3.1, in lower case.
fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(inner)
}

const COMMANDS: Keys = &[("name", Shape::Text), ("command", Shape::Texts), ("period", Shape::Duration)];
const KEY_PAIRS: Keys = &[("key_file", Shape::Text), ("cert_file", Shape::Text)];
const ASSUME_ROLE: Keys = &[("assume_role_arn", Shape::Text), ("external_id", Shape::Text)];
const RESOURCES: Keys = &[("labels", Shape::Any), ("aws", Shape::Map(ASSUME_ROLE))];

const APP: Keys = &[
    ("name", Shape::Text),
    ("uri", Shape::Text),
    ("public_addr", Shape::Text),
    ("description", Shape::Text),
    ("labels", Shape::Labels),
    ("commands", Shape::Maps(COMMANDS)),
    ("insecure_skip_verify", Shape::Flag),
    ("rewrite", Shape::Map(&[("redirect", Shape::Texts), ("headers", Shape::Texts), ("jwt_claims", Shape::Text)])),
    ("aws", Shape::Map(&[("external_id", Shape::Text)])),
    ("cloud", Shape::Text),
];

const DATABASE: Keys = &[
    ("name", Shape::Text),
    ("description", Shape::Text),
    ("protocol", Shape::Text),
    ("uri", Shape::Text),
    ("ca_cert_file", Shape::Text),
    (
        "tls",
        Shape::Map(&[
            ("mode", Shape::Text),
            ("server_name", Shape::Text),
            ("ca_cert_file", Shape::Text),
            ("trust_system_cert_pool", Shape::Flag),
        ]),
    ),
    ("mysql", Shape::Map(&[("server_version", Shape::Text)])),
    ("static_labels", Shape::Labels),
    ("dynamic_labels", Shape::Maps(COMMANDS)),
    ("aws", Shape::Map(DATABASE_AWS)),
    ("gcp", Shape::Map(&[("project_id", Shape::Text), ("instance_id", Shape::Text)])),
    (
        "ad",
        Shape::Map(&[
            ("keytab_file", Shape::Text),
            ("krb5_file", Shape::Text),
            ("domain", Shape::Text),
            ("spn", Shape::Text),
            ("ldap_cert", Shape::Text),
            ("kdc_host_name", Shape::Text),
        ]),
    ),
    ("azure", Shape::Map(&[("resource_id", Shape::Text), ("is_flexi_server", Shape::Flag)])),
    ("admin_user", Shape::Map(&[("name", Shape::Text), ("default_database", Shape::Text)])),
    ("oracle", Shape::Map(&[("audit_user", Shape::Text)])),
];

const DATABASE_AWS: Keys = &[
    ("region", Shape::Text),
    ("account_id", Shape::Text),
    ("assume_role_arn", Shape::Text),
    ("external_id", Shape::Text),
    ("session_tags", Shape::Labels),
    ("redshift", Shape::Map(&[("cluster_id", Shape::Text)])),
    ("redshift_serverless", Shape::Map(&[("workgroup_name", Shape::Text), ("endpoint_name", Shape::Text)])),
    ("rds", Shape::Map(&[("instance_id", Shape::Text), ("cluster_id", Shape::Text)])),
    ("elasticache", Shape::Map(&[("replication_group_id", Shape::Text)])),
    ("memorydb", Shape::Map(&[("cluster_name", Shape::Text)])),
    ("secret_store", Shape::Map(&[("key_prefix", Shape::Text), ("kms_key_id", Shape::Text)])),
];

const INSTALL: Keys = &[
    (
        "join_params",
        Shape::Map(&[
            ("token_name", Shape::Text),
            ("method", Shape::Text),
            ("azure", Shape::Map(&[("client_id", Shape::Text)])),
        ]),
    ),
    ("script_name", Shape::Text),
    ("install_teleport", Shape::Flag),
    ("sshd_config", Shape::Text),
    ("public_proxy_addr", Shape::Text),
    ("azure", Shape::Map(&[("client_id", Shape::Text)])),
    ("enroll_mode", Shape::Text),
];

const AWS_MATCHER: Keys = &[
    ("types", Shape::Texts),
    ("regions", Shape::Texts),
    ("assume_role_arn", Shape::Text),
    ("external_id", Shape::Text),
    ("tags", Shape::Any),
    ("install", Shape::Map(INSTALL)),
    ("ssm", Shape::Map(&[("document_name", Shape::Text)])),
    ("integration", Shape::Text),
    ("kube_app_discovery", Shape::Flag),
    ("setup_access_for_arn", Shape::Text),
];

const AZURE_MATCHER: Keys = &[
    ("subscriptions", Shape::Texts),
    ("resource_groups", Shape::Texts),
    ("types", Shape::Texts),
    ("regions", Shape::Texts),
    ("tags", Shape::Any),
    ("install", Shape::Map(INSTALL)),
];

const GCP_MATCHER: Keys = &[
    ("types", Shape::Texts),
    ("locations", Shape::Texts),
    ("labels", Shape::Any),
    ("tags", Shape::Any),
    ("project_ids", Shape::Texts),
    ("service_accounts", Shape::Texts),
    ("install", Shape::Map(INSTALL)),
];

const DESKTOP: Keys = &[
    ("listen_addr", Shape::Address(3028)),
    ("public_addr", Shape::OneOrMore),
    ("labels", Shape::Labels),
    ("show_desktop_wallpaper", Shape::Flag),
    ("pki_domain", Shape::Text),
    (
        "ldap",
        Shape::Map(&[
            ("addr", Shape::Text),
            ("domain", Shape::Text),
            ("username", Shape::Text),
            ("sid", Shape::Text),
            ("insecure_skip_verify", Shape::Flag),
            ("server_name", Shape::Text),
            ("der_ca_file", Shape::Text),
            ("ldap_ca_cert", Shape::Text),
        ]),
    ),
    (
        "discovery",
        Shape::Map(&[("base_dn", Shape::Text), ("filters", Shape::Texts), ("label_attributes", Shape::Texts)]),
    ),
    (
        "static_hosts",
        Shape::Maps(&[("name", Shape::Text), ("addr", Shape::Text), ("labels", Shape::Labels), ("ad", Shape::Flag)]),
    ),
    ("hosts", Shape::Texts),
    ("non_ad_hosts", Shape::Texts),
    ("host_labels", Shape::Maps(&[("match", Shape::Text), ("labels", Shape::Labels)])),
];

const JAMF: Keys = &[
    ("name", Shape::Text),
    ("sync_delay", Shape::Duration),
    ("exit_on_sync", Shape::Flag),
    ("api_endpoint", Shape::Text),
    ("username", Shape::Text),
    ("password_file", Shape::Text),
    ("client_id", Shape::Text),
    ("client_secret_file", Shape::Text),
    (
        "inventory",
        Shape::Maps(&[
            ("filter_rsql", Shape::Text),
            ("sync_period_partial", Shape::Duration),
            ("sync_period_full", Shape::Duration),
            ("on_missing", Shape::Text),
            ("page_size", Shape::Number),
        ]),
    ),
];

const OKTA: Keys = &[
    ("listen_addr", Shape::Text),
    ("api_endpoint", Shape::Text),
    ("api_token_path", Shape::Text),
    ("sync_period", Shape::Duration),
    (
        "sync",
        Shape::Map(&[
            ("app_group_sync_period", Shape::Duration),
            ("sync_access_lists", Shape::Flag),
            ("default_owners", Shape::Texts),
            ("group_filters", Shape::Texts),
            ("app_filters", Shape::Texts),
        ]),
    ),
];

const SERVICES: &[(&str, Keys)] = &[
    (
        "kubernetes_service",
        &[
            ("listen_addr", Shape::Address(3026)),
            ("public_addr", Shape::OneOrMore),
            ("kubeconfig_file", Shape::Text),
            ("kube_cluster_name", Shape::Text),
            ("labels", Shape::Labels),
            ("commands", Shape::Maps(COMMANDS)),
            ("resources", Shape::Maps(RESOURCES)),
        ],
    ),
    ("app_service", &[("listen_addr", Shape::Text), ("debug_app", Shape::Flag), ("resources", Shape::Maps(RESOURCES))]),
    (
        "db_service",
        &[
            ("listen_addr", Shape::Text),
            ("resources", Shape::Maps(RESOURCES)),
            ("aws", Shape::Maps(AWS_MATCHER)),
            ("azure", Shape::Maps(AZURE_MATCHER)),
        ],
    ),
    ("windows_desktop_service", DESKTOP),
    (
        "discovery_service",
        &[
            ("listen_addr", Shape::Text),
            ("discovery_group", Shape::Text),
            ("poll_interval", Shape::Duration),
            ("aws", Shape::Maps(AWS_MATCHER)),
            ("azure", Shape::Maps(AZURE_MATCHER)),
            ("gcp", Shape::Maps(GCP_MATCHER)),
            (
                "kubernetes",
                Shape::Maps(&[("types", Shape::Texts), ("namespaces", Shape::Texts), ("labels", Shape::Any)]),
            ),
            (
                "access_graph",
                Shape::Map(&[(
                    "aws",
                    Shape::Maps(&[
                        ("regions", Shape::Texts),
                        ("assume_role_arn", Shape::Text),
                        ("external_id", Shape::Text),
                    ]),
                )]),
            ),
        ],
    ),
    (
        "tracing_service",
        &[
            ("listen_addr", Shape::Text),
            ("exporter_url", Shape::Text),
            ("sampling_rate_per_million", Shape::Number),
            ("keypairs", Shape::Maps(KEY_PAIRS)),
            ("ca_certs", Shape::Texts),
        ],
    ),
    ("jamf_service", JAMF),
    ("okta_service", OKTA),
    ("plugin_service", &[("listen_addr", Shape::Text), ("plugins", Shape::Any)]),
    ("access_graph", &[("endpoint", Shape::Text), ("ca", Shape::Text), ("insecure", Shape::Flag)]),
];
