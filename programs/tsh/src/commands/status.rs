//! `tsh status`.

use std::fmt::Write;

use chrono::Utc;
use client::account::Account;
use client::status::{LoginStatus, Status};
use client::{Error, Result, text};
use serde::Serialize;

use crate::args::{Format, StatusArgs};
use crate::context::Context;
use crate::output::{print, print_as};

/// Variables that say which login commands use.
const VARIABLES: [&str; 6] =
    ["TELEPORT_PROXY", "TELEPORT_CLUSTER", "TELEPORT_SITE", "TELEPORT_USER", "TELEPORT_LOGIN", "TELEPORT_AUTH"];

/// Width of the names in front.
const NAMES: usize = 20;

/// The whole answer in JSON and YAML.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    status: &'a Status,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    environment: serde_json::Map<String, serde_json::Value>,
}

/// Shows the logins.
pub fn status(context: &Context, args: &StatusArgs) -> Result<i32> {
    let status = Status::read(&context.selection(None))?;
    let set = VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?.into())));
    let report = Report { status: &status, environment: set.collect() };
    if args.format != Format::Text {
        print_as(args.format, &report, String::new)?;
        return Ok(0);
    }
    let Some(active) = &status.active else {
        return Err(Error::NotLoggedIn("not logged in".to_owned()));
    };
    let others = status.profiles.iter().map(|login| format!("\n{}", login_text(login, ' ', args.verbose)));
    print(&std::iter::once(login_text(active, '>', args.verbose)).chain(others).collect::<String>())?;
    if active.valid_until <= Utc::now() {
        return Err(Error::NotLoggedIn("the active login has expired: use 'tsh login'".to_owned()));
    }
    Ok(0)
}

/// What is shown after a login.
pub fn active_text(account: &Account, verbose: bool) -> Result<String> {
    Ok(login_text(&LoginStatus::of(account)?, '>', verbose))
}

fn login_text(login: &LoginStatus, mark: char, verbose: bool) -> String {
    let kubernetes = if login.kubernetes_enabled { "enabled" } else { "disabled" };
    let until = login.valid_until.format("%Y-%m-%d %H:%M:%S +0000 UTC");
    let traits = login.traits.iter().filter(|(_, values)| verbose && !values.is_empty());
    let traits: Vec<String> = traits.map(|(name, values)| format!("{name}: {}", values.join(","))).collect();
    let rows = [
        ("Profile URL:", login.profile_url.clone()),
        ("Logged in as:", login.username.clone()),
        ("Active requests:", login.active_requests.join(", ")),
        ("Cluster:", login.cluster.clone()),
        ("Roles:", login.roles.join(", ")),
        ("Traits:", traits.join("; ")),
        ("Logins:", login.logins.join(", ")),
        ("Kubernetes:", kubernetes.to_owned()),
        ("Kubernetes cluster:", login.kubernetes_cluster.clone()),
        ("Kubernetes users:", login.kubernetes_users.join(", ")),
        ("Kubernetes groups:", login.kubernetes_groups.join(", ")),
        ("Allowed Resources:", login.allowed_resources.join(", ")),
        ("Valid until:", format!("{until} [{}]", login.remaining(Utc::now()))),
        ("Extensions:", login.extensions.join(", ")),
    ];
    let mut shown = String::new();
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        let lead = if shown.is_empty() { mark } else { ' ' };
        // Writing to a string cannot fail.
        let _ = writeln!(shown, "{lead} {name:NAMES$}{}", text::line(value));
    }
    shown
}
