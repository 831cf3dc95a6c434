//! `devices`: the devices that can be trusted.

use std::fs;
use std::path::Path;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use resources::{AnyResource, Reference, Resource, kind};
use uuid::Uuid;
use wire::types::{DeviceSpec, DeviceV1, LockTarget, Metadata, ResourceHeader};

use super::lock::Terms;
use crate::api::Api;
use crate::error::{Error, Result};
use crate::output::{self, Format, Table, say, text};
use crate::resource::{self, Secrets};

/// Where Linux says what its machine is.
const MACHINE: &str = "/sys/class/dmi/id";
/// The tags of a machine, that of its owner first. Serial numbers can be read by root alone.
const TAGS: [&str; 3] = ["chassis_asset_tag", "product_serial", "board_serial"];
/// What makers write who write nothing, in small letters.
const NO_TAGS: [&str; 7] =
    ["", "none", "default string", "no asset tag", "not specified", "system serial number", "to be filled by o.e.m."];

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
    #[arg(long, value_enum, required_unless_present = "current_device")]
    os: Option<System>,
    /// The tag by which its owner knows it: mostly the serial number.
    #[arg(long, value_name = "TAG", required_unless_present = "current_device")]
    asset_tag: Option<String>,
    /// The machine that this runs on, whatever --os and --asset-tag say.
    #[arg(long)]
    current_device: bool,
    /// Make a token with which it enrols: not part of this build.
    #[arg(long)]
    enroll: bool,
    /// How long that token is good.
    #[arg(long, value_name = "DURATION", requires = "enroll")]
    enroll_ttl: Option<String>,
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
#[command(group(ArgGroup::new("which").required(true).args(["device_id", "asset_tag", "current_device"])))]
pub struct Which {
    /// The id of the device.
    #[arg(long, value_name = "ID")]
    device_id: Option<String>,
    /// The tag of the device.
    #[arg(long, value_name = "TAG")]
    asset_tag: Option<String>,
    /// The machine that this runs on.
    #[arg(long)]
    current_device: bool,
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

/// The tag of the machine that this runs on.
fn current_tag(machine: &Path) -> Result<String> {
    let texts = TAGS.iter().filter_map(|name| fs::read_to_string(machine.join(name)).ok());
    let mut tags = texts.map(|text| text.trim().to_owned());
    tags.find(|tag| !NO_TAGS.contains(&tag.to_lowercase().as_str())).ok_or_else(|| {
        Error::not_found(
            "this machine does not tell its serial number, or to root only: name the device by --asset-tag",
        )
    })
}

impl Add {
    async fn run(self, api: &Api) -> Result<()> {
        if self.enroll {
            return Err(no_enrolment());
        }
        let (os, asset_tag) = match (self.current_device, self.os, self.asset_tag) {
            (false, Some(os), Some(tag)) => (os, tag),
            _ => (System::Linux, current_tag(Path::new(MACHINE))?),
        };
        let os = os.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let mut device = DeviceV1 {
            header: Some(ResourceHeader {
                metadata: Some(Metadata { name: Uuid::new_v4().to_string(), ..Metadata::default() }),
                ..ResourceHeader::default()
            }),
            spec: Some(DeviceSpec { os_type: os, asset_tag: asset_tag.clone(), ..DeviceSpec::default() }),
        };
        device.check_and_set_defaults()?;
        let id = device.name().to_owned();
        resource::register_device(api, device).await?;
        say(&text::lines(&format!("Device {asset_tag}/{id} added to the inventory\n")));
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
        let name = match (&self.device_id, &self.asset_tag) {
            (Some(name), _) | (None, Some(name)) => name.clone(),
            (None, None) => current_tag(Path::new(MACHINE))?,
        };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        devices: Devices,
    }

    #[test]
    fn a_device_is_named_or_the_machine_itself() {
        let read = |line: &str| Line::try_parse_from(line.split(' ')).map_err(|error| error.to_string());
        for fits in
            ["x add --os=linux --asset-tag=t", "x add --current-device", "x rm --current-device", "x rm --device-id=1"]
        {
            read(fits).unwrap();
        }
        for (wrong, named) in [("x add --os=linux", "--asset-tag"), ("x rm", "--current-device")] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_machine_has_the_first_tag_that_says_something() {
        let machine = tempfile::tempdir().unwrap();
        assert!(current_tag(machine.path()).unwrap_err().to_string().contains("--asset-tag"));
        for (name, text) in
            [("chassis_asset_tag", "No Asset Tag\n"), ("board_serial", "B-2\n"), ("product_serial", "S-1\n")]
        {
            fs::write(machine.path().join(name), text).unwrap();
        }
        assert_eq!(current_tag(machine.path()).unwrap(), "S-1");
    }
}
