//! Devices: the calls name them by id and speak of systems in numbers.

use resources::{AnyResource, Reference, device_message, device_record};
use wire::client::turn_page;
use wire::devicetrust::{
    CreateDeviceRequest, DeleteDeviceRequest, Device, DeviceView, FindDevicesRequest, ListDevicesRequest,
    UpsertDeviceRequest,
};
use wire::types::DeviceV1;

use crate::api::{Api, Call};
use crate::error::{Error, Result};

/// Resources of one page.
const PAGE: i32 = 1000;

/// The devices that a reference names, by id or by tag.
pub async fn get(api: &Api, reference: &Reference) -> Result<Vec<AnyResource>> {
    if let Some(name) = &reference.name {
        return Ok(find(api, name).await?.into_iter().map(shown).collect());
    }
    let mut all = Vec::new();
    let mut request =
        ListDevicesRequest { page_size: PAGE, view: DeviceView::Resource as i32, ..ListDevicesRequest::default() };
    loop {
        let page = api.devices().list_devices(request.clone()).within("listing devices").await?;
        all.extend(page.devices.into_iter().map(shown));
        if !turn_page(&mut request.page_token, page.next_page_token)? {
            return Ok(all);
        }
    }
}

/// Registers a device.
pub async fn register(api: &Api, device: DeviceV1) -> Result<()> {
    put(api, device, false, "registering the device").await
}

/// Registers a device, or changes the one there is if it `exists`.
pub async fn put(api: &Api, device: DeviceV1, exists: bool, what: &str) -> Result<()> {
    let (device, create_as_resource) = (Some(device_message(&device)), true);
    match exists {
        true => api.devices().upsert_device(UpsertDeviceRequest { device, create_as_resource }).within(what).await,
        false => {
            let request = CreateDeviceRequest { device, create_as_resource, ..Default::default() };
            api.devices().create_device(request).within(what).await
        }
    }
    .map(drop)
}

/// Removes the device of an id or a tag.
pub async fn remove(api: &Api, reference: &Reference) -> Result<()> {
    let name = reference.name.clone().unwrap_or_default();
    let found = find(api, &name).await?;
    let [device] = found.as_slice() else {
        return Err(Error::bad(format!("{name:?} means {} devices: give an id", found.len())));
    };
    let request = DeleteDeviceRequest { device_id: device.id.clone() };
    api.devices().delete_device(request).within("removing a device").await
}

async fn find(api: &Api, id_or_tag: &str) -> Result<Vec<Device>> {
    let request = FindDevicesRequest { id_or_tag: id_or_tag.to_owned() };
    let found = api.devices().find_devices(request).within("reading a device").await?.devices;
    match found.is_empty() {
        true => Err(Error::not_found(format!("device {id_or_tag:?} not found"))),
        false => Ok(found),
    }
}

fn shown(device: Device) -> AnyResource {
    device_record(device).into()
}
