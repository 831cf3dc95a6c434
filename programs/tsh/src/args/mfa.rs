//! Commands about second factors.

use clap::{Args, Subcommand, ValueEnum};

use super::Format;

/// `tsh mfa`.
#[derive(Debug, Args)]
pub struct MfaArgs {
    /// What to do
    #[command(subcommand)]
    pub command: MfaCommand,
}

/// What to do with second factors.
#[derive(Debug, Subcommand)]
pub enum MfaCommand {
    /// List devices
    Ls(MfaLsArgs),
    /// Register a device
    Add(MfaAddArgs),
    /// Remove a device
    Rm(MfaRmArgs),
}

/// `tsh mfa ls`.
#[derive(Debug, Args)]
pub struct MfaLsArgs {
    /// Show ids
    #[arg(short, long)]
    pub verbose: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

/// `tsh mfa add`.
#[derive(Debug, Args)]
pub struct MfaAddArgs {
    /// What to call it; asked for if it is not given
    #[arg(long)]
    pub name: Option<String>,
    /// What it is: TOTP is an authenticator application
    #[arg(long = "type", value_enum, ignore_case = true, default_value = "totp", value_name = "TYPE")]
    pub kind: DeviceKind,
    /// Let it log in without a password
    #[arg(long, hide = true)]
    pub allow_passwordless: bool,
}

/// Kinds of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceKind {
    /// An authenticator application
    Totp,
    /// A security key
    Webauthn,
    /// A fingerprint reader
    #[value(name = "touchid", hide = true)]
    TouchId,
}

/// `tsh mfa rm`.
#[derive(Debug, Args)]
pub struct MfaRmArgs {
    /// Name or id of the device
    pub name: String,
}
