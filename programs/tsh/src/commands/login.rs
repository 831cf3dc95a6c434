//! `tsh login`, `tsh logout`.

use std::path::{Path, PathBuf};

use chrono::Utc;
use client::account::Account;
use client::home::{Privacy, write};
use client::login::{LoginRequest, login as log_in, select_cluster};
use client::terminal::Echo;
use client::{Error, Result, agent, logout as leave};

use super::request::{self, AtLogin};
use super::status;
use crate::args::LoginArgs;
use crate::ask::Terminal;
use crate::context::Context;
use crate::output::print;

/// Forms of identity files.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    File,
    Openssh,
}

/// Logs in, or selects a cluster of a login that exists.
pub async fn login(context: &Context, args: &LoginArgs) -> Result<i32> {
    if args.kube_cluster.is_some() {
        return Err(Error::other("--kube-cluster is not part of this build yet"));
    }
    let wanted = AtLogin {
        id: args.request_id.as_deref(),
        roles: args.request_roles.as_deref().filter(|roles| *roles != "no"),
        reason: args.request_reason.as_deref(),
        reviewers: &args.request_reviewers,
        nowait: args.request_nowait,
        refused: args.request_roles.as_deref() == Some("no"),
    };
    if args.out.is_some() && (wanted.id.is_some() || wanted.roles.is_some()) {
        return Err(Error::other("an access request cannot go into a file: leave out --out, or the request"));
    }
    if context.global.identity.is_some() {
        return Err(Error::other("an identity file takes the place of a login: leave out -i to log in"));
    }
    let add_keys = context.add_keys()?;
    let selection = context.selection(None);
    let form = match args.format.as_str() {
        "file" => Form::File,
        "openssh" => Form::Openssh,
        "kubernetes" => return Err(Error::other("--format=kubernetes is not part of this build yet")),
        other => return Err(Error::other(format!("invalid identity format: {other}"))),
    };
    if args.out.is_none()
        && let Ok(account) = selection.valid_account(Utc::now())
    {
        return again(context, account, args, &wanted).await;
    }
    let request = context.login_request(&selection)?;
    let request = request.ok_or_else(|| Error::other("no proxy is known: say where it is with --proxy=<address>"))?;
    let home = request.home.clone().filter(|_| args.out.is_none());
    let request = LoginRequest { cluster: args.cluster.clone(), home, ..request };
    let mut terminal = Terminal::default();
    if let Some(out) = &args.out {
        may_write(out, form, args.overwrite, &mut terminal)?;
    }
    let login = log_in(&request, &mut terminal).await?;
    match &args.out {
        Some(out) => write_identity(&login.account, out, form)?,
        None => {
            login.save()?;
            agent::add(&login.account, add_keys).await?;
            let account = request::after_login(context, login.account, &wanted, &mut terminal).await?;
            print(&status::active_text(&account, args.verbose)?)?;
        }
    }
    for alert in &login.alerts {
        eprintln!("{alert}");
    }
    Ok(0)
}

/// Whoever is logged in already may select another cluster, or just see the login.
async fn again(context: &Context, account: Account, args: &LoginArgs, wanted: &AtLogin<'_>) -> Result<i32> {
    let account = match &args.cluster {
        Some(cluster) if *cluster != account.cluster => select_cluster(&account, cluster).await?,
        _ => {
            account.profile.save(&context.home, true)?;
            account
        }
    };
    let account = request::at_login(context, account, wanted).await?;
    print(&status::active_text(&account, args.verbose)?)?;
    Ok(0)
}

/// Files of an identity.
fn files(out: &Path, form: Form) -> Vec<PathBuf> {
    let mut certificate = out.as_os_str().to_owned();
    certificate.push("-cert.pub");
    match form {
        Form::File => vec![out.to_owned()],
        Form::Openssh => vec![out.to_owned(), certificate.into()],
    }
}

fn may_write(out: &Path, form: Form, overwrite: bool, terminal: &mut Terminal) -> Result<()> {
    let Some(existing) = files(out, form).into_iter().find(|file| file.exists()) else { return Ok(()) };
    if overwrite {
        return Ok(());
    }
    let question = format!("{} exists. Replace it? [y/N]: ", existing.display());
    match terminal.ask(&question, Echo::On) {
        Ok(answer) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Error::other(format!("{} exists: use --overwrite to replace it", existing.display()))),
    }
}

fn write_identity(account: &Account, out: &Path, form: Form) -> Result<()> {
    let keys = &account.keys;
    match form {
        Form::File => {
            let file = keys.to_identity_file();
            file.write(out).map_err(|e| Error::other(format!("writing {}: {e}", out.display())))?;
        }
        Form::Openssh => {
            let (key, certificate) = keys.to_openssh()?;
            for (file, text) in files(out, form).iter().zip([key.as_bytes(), certificate.as_bytes()]) {
                write(file, text, Privacy::Secret)?;
            }
        }
    }
    print(&format!("The credentials have been written to {}.\n", out.display()))
}

/// Forgets logins.
pub async fn logout(context: &Context) -> Result<i32> {
    match &context.global.proxy {
        None => {
            agent::remove(None).await;
            leave::everywhere(&context.home)?;
            print("Logged out everywhere.\n")?;
        }
        Some(proxy) => {
            let host = client::profile::host(proxy);
            agent::remove(Some(host)).await;
            if !leave::from_proxy(&context.home, host)? {
                return Err(Error::NotLoggedIn(format!("not logged in at {proxy}")));
            }
            print(&format!("Logged out from {host}.\n"))?;
        }
    }
    Ok(0)
}
