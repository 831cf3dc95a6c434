//! `devices`: the devices that can be trusted.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use resources::{AnyResource, Reference, Resource, kind};
use uuid::Uuid;
use wire::types::{DeviceSpec, DeviceV1, LockTarget, Metadata, ResourceHeader};

use super::lock::Terms;
use crate::api::Api;
use crate::error::{Error, Result};
use crate::output::{self, Format, Table, say, text};
use crate::resource::{self, Secrets};

/// Devices that can be trusted.
#[derive(Debug, Subcommand)]
pub enum Devices {
    /// Register a device.
    Add(Add),
    /// List devices.
    #[command(alias = "list")]
    Ls(Ls),
    /// Remove a device.
    #[command(aliases = ["del", "delete"])]
    Rm(Which),
    /// Keep a device out.
    Lock(Lock),
    /// Make a token with which a device enrols: not part of this build.
    Enroll(Which),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum System {
    Linux,
    Macos,
    Windows,
}

/// Register a device.
#[derive(Args, Debug)]
pub struct Add {
    /// Its operating system.
    #[arg(long, value_enum)]
    os: System,
    /// The tag by which its owner knows it: mostly the serial number.
    #[arg(long, value_name = "TAG")]
    asset_tag: String,
    /// Make a token with which it enrols: not part of this build.
    #[arg(long)]
    enroll: bool,
}

/// List devices.
#[derive(Args, Debug)]
pub struct Ls {
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A device.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true).args(["device_id", "asset_tag"])))]
pub struct Which {
    /// The id of the device.
    #[arg(long, value_name = "ID")]
    device_id: Option<String>,
    /// The tag of the device.
    #[arg(long, value_name = "TAG")]
    asset_tag: Option<String>,
}

/// Keep a device out.
#[derive(Args, Debug)]
pub struct Lock {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    terms: Terms,
}

impl Devices {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Add(command) => command.run(api).await,
            Self::Ls(command) => command.run(api).await,
            Self::Rm(command) => command.remove(api).await,
            Self::Lock(command) => command.run(api).await,
            Self::Enroll(_) => Err(no_enrolment()),
        }
    }
}

fn no_enrolment() -> Error {
    Error::not_built("enrolment of devices is not part of this build yet: 'tctl create' a device with its key instead")
}

impl Add {
    async fn run(self, api: &Api) -> Result<()> {
        if self.enroll {
            return Err(no_enrolment());
        }
        let os = self.os.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut device = DeviceV1 {
            header: Some(ResourceHeader {
                metadata: Some(Metadata { name: Uuid::new_v4().to_string(), ..Metadata::default() }),
                ..ResourceHeader::default()
            }),
            spec: Some(DeviceSpec { os_type: os, asset_tag: self.asset_tag.clone(), ..DeviceSpec::default() }),
        };
        device.check_and_set_defaults()?;
        let id = device.name().to_owned();
        resource::register_device(api, device).await?;
        say(&text::lines(&format!("Device {}/{id} added to the inventory\n", self.asset_tag)));
        Ok(())
    }
}

impl Ls {
    async fn run(self, api: &Api) -> Result<()> {
        let reference = Reference { kind: kind::DEVICE.to_owned(), sub_kind: None, name: None };
        let found = resource::get(api, &reference, Secrets::Hidden).await?;
        say(&output::resources(&found, self.format, || {
            let mut table = Table::new(["Asset Tag", "OS", "Enroll Status", "Device ID"]);
            for resource in &found {
                if let AnyResource::Device(device) = resource {
                    let spec = device.spec.clone().unwrap_or_default();
                    table.row([spec.asset_tag, spec.os_type, spec.enroll_status, device.name().to_owned()]);
                }
            }
            table.fitted()
        })?);
        Ok(())
    }
}

impl Which {
    /// The id of the one device that is meant.
    async fn id(&self, api: &Api) -> Result<String> {
        let name = self.device_id.clone().or_else(|| self.asset_tag.clone()).unwrap_or_default();
        let reference = Reference { kind: kind::DEVICE.to_owned(), sub_kind: None, name: Some(name.clone()) };
        let mut found = resource::get(api, &reference, Secrets::Hidden).await?.into_iter();
        match (found.next(), found.next()) {
            (Some(AnyResource::Device(device)), None) => Ok(device.name().to_owned()),
            (Some(_), Some(_)) => Err(Error::bad(format!("several devices have the tag {name:?}: use --device-id"))),
            _ => Err(Error::not_found(format!("device {name:?} not found"))),
        }
    }

    async fn remove(self, api: &Api) -> Result<()> {
        let id = self.id(api).await?;
        let reference = Reference { kind: kind::DEVICE.to_owned(), sub_kind: None, name: Some(id.clone()) };
        resource::remove(api, &reference).await?;
        say(&format!("Device {id:?} removed\n"));
        Ok(())
    }
}

impl Lock {
    async fn run(self, api: &Api) -> Result<()> {
        let device = self.which.id(api).await?;
        self.terms.lock(api, LockTarget { device, ..LockTarget::default() }).await
    }
}
