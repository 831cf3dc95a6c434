//! `tsh mfa`.

use chrono::{DateTime, SecondsFormat, Utc};
use client::terminal::Echo;
use client::{Error, Result, mfa as factors, text};
use qrcodegen::{QrCode, QrCodeEcc};

use crate::args::{DeviceKind, MfaAddArgs, MfaCommand, MfaLsArgs};
use crate::ask::Terminal;
use crate::context::Context;
use crate::output::{print, print_as};
use crate::table::Table;

/// Longest name of a device.
const LONGEST_NAME: usize = 30;

/// Lists, adds and removes second factors.
pub async fn mfa(context: &Context, command: &MfaCommand) -> Result<i32> {
    match command {
        MfaCommand::Ls(args) => list(context, args).await?,
        MfaCommand::Add(args) => add(context, args).await?,
        MfaCommand::Rm(args) => {
            let client = context.client(None).await?;
            factors::remove(&client, &args.name, &mut Terminal::default()).await?;
            print(&format!("MFA device {:?} removed.\n", text::line(&args.name)))?;
        }
    }
    Ok(0)
}

async fn list(context: &Context, args: &MfaLsArgs) -> Result<()> {
    let devices = factors::devices(&context.client(None).await?).await?;
    print_as(args.format, &devices, || {
        let header: &[&str] = if args.verbose {
            &["Name", "ID", "Type", "Added at", "Last used"]
        } else {
            &["Name", "Type", "Added at", "Last used"]
        };
        let mut table = Table::new(header);
        for device in &devices {
            let mut row = vec![device.name.clone()];
            row.extend(args.verbose.then(|| device.id.clone()));
            row.extend([device.kind.to_owned(), moment(device.added_at), moment(device.last_used)]);
            table.row(row);
        }
        table.render()
    })
}

async fn add(context: &Context, args: &MfaAddArgs) -> Result<()> {
    if args.kind != DeviceKind::Totp || args.allow_passwordless {
        return Err(Error::other(
            "this build can register authenticator applications (--type=TOTP) only; add security keys in the browser",
        ));
    }
    let mut terminal = Terminal::default();
    let name = match &args.name {
        Some(name) => name.clone(),
        None => terminal.ask("Enter device name: ", Echo::On)?.trim().to_owned(),
    };
    if name.is_empty() || name.chars().count() > LONGEST_NAME {
        return Err(Error::other(format!("device name {name:?}: expected 1 to {LONGEST_NAME} characters")));
    }
    let client = context.client(None).await?;
    let totp = factors::begin_totp(&client, &mut terminal).await?;
    let code = QrCode::encode_text(&totp.address, QrCodeEcc::Low);
    let code = code.map(|code| drawn(&code)).unwrap_or_default();
    print(&format!(
        "{code}\nScan the code with your authenticator application, or enter this there:\n\n  secret: {}\n  digits: {}, \
         a new code every {} s\n\n",
        *totp.secret, totp.digits, totp.period
    ))?;
    let shown = terminal.ask("Enter one-time code of the new device: ", Echo::Off)?;
    let device = factors::add_totp(&client, &name, &totp, shown.trim()).await?;
    print(&format!("MFA device {:?} added.\n", text::line(&device.name)))
}

fn moment(moment: Option<DateTime<Utc>>) -> String {
    moment.map(|moment| moment.to_rfc3339_opts(SecondsFormat::Secs, true)).unwrap_or_default()
}

/// A QR code for a terminal, light on dark or dark on light: two rows of it in each line, with an edge.
fn drawn(code: &QrCode) -> String {
    const EDGE: i32 = 2;
    let size = code.size();
    let mut lines = String::new();
    for y in (-EDGE..size + EDGE).step_by(2) {
        // Black on white, whatever the terminal has.
        lines.push_str("\x1b[30;47m");
        for x in -EDGE..size + EDGE {
            lines.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '\u{2588}',
                (true, false) => '\u{2580}',
                (false, true) => '\u{2584}',
                (false, false) => ' ',
            });
        }
        lines.push_str("\x1b[0m\n");
    }
    lines
}
