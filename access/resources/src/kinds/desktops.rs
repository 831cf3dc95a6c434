//! Windows desktops, and the agents that serve them.

use wire::types::{WindowsDesktopServiceV3, WindowsDesktopV3};

use super::{required, table::kinds};
use crate::{Place, ResourceError, kind, places};

/// The widest and highest screen there is, in pixels.
const LARGEST_SCREEN: u32 = 8192;

kinds! {
    WindowsDesktopV3: kind::WINDOWS_DESKTOP, "v3", embedded_header {
        place: |desktop| {
            let host = desktop.spec.as_ref().map_or("", |s| &s.host_id);
            Place::new(places::WINDOWS_DESKTOPS, [host, desktop.name()])
        },
        defaults: |desktop| { desktop.spec.get_or_insert_default(); },
        check: |desktop| {
            let spec = desktop.spec.clone().unwrap_or_default();
            required(&[("spec.addr", &spec.addr), ("spec.host_id", &spec.host_id)])?;
            let name = desktop.name();
            if name.contains('.') {
                let text = format!("{name:?} contains a dot, which host names of desktops cannot have");
                return Err(ResourceError::field("metadata.name", text));
            }
            match spec.screen_size {
                Some(size) if size.width > LARGEST_SCREEN || size.height > LARGEST_SCREEN => {
                    let text = format!("is larger than {LARGEST_SCREEN} x {LARGEST_SCREEN}");
                    Err(ResourceError::field("spec.screen_size", text))
                }
                _ => Ok(()),
            }
        },
    }
    WindowsDesktopServiceV3: kind::WINDOWS_DESKTOP_SERVICE, "v3", embedded_header {
        place: |service| Place::new(places::WINDOWS_DESKTOP_SERVICES, [service.name()]),
        defaults: |service| { service.spec.get_or_insert_default(); },
        check: |service| {
            let spec = service.spec.clone().unwrap_or_default();
            required(&[("spec.addr", &spec.addr), ("spec.teleport_version", &spec.teleport_version)])
        },
    }
}
