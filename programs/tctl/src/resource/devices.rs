//! Devices: the calls name them by id and speak of systems in numbers.

use resources::{AnyResource, Reference, Resource};
use wire::devicetrust;
use wire::devicetrust::{
    CreateDeviceRequest, DeleteDeviceRequest, Device, DeviceEnrollStatus, DeviceView, FindDevicesRequest,
    ListDevicesRequest, OsType, UpsertDeviceRequest,
};
use wire::types::{DeviceCredential, DeviceSpec, DeviceV1};

use super::any;
use crate::api::{Api, Call};
use crate::error::{Error, Result};

/// Resources of one page.
const PAGE: i32 = 1000;

const SYSTEMS: [(OsType, &str); 3] = [(OsType::Linux, "linux"), (OsType::Macos, "macos"), (OsType::Windows, "windows")];

/// The devices that a reference names, by id or by tag.
pub async fn get(api: &Api, reference: &Reference) -> Result<Vec<AnyResource>> {
    if let Some(name) = &reference.name {
        return Ok(any(find(api, name).await?.iter().map(shown)));
    }
    let mut all = Vec::new();
    let mut request =
        ListDevicesRequest { page_size: PAGE, view: DeviceView::Resource as i32, ..ListDevicesRequest::default() };
    loop {
        let page = api.devices().list_devices(request.clone()).within("listing devices").await?;
        all.extend(any(page.devices.iter().map(shown)));
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

/// Registers a device.
pub async fn register(api: &Api, device: DeviceV1) -> Result<()> {
    put(api, device, false, "registering the device").await
}

/// Registers a device, or changes the one there is if it `exists`.
pub async fn put(api: &Api, device: DeviceV1, exists: bool, what: &str) -> Result<()> {
    let spec = device.spec.clone().unwrap_or_default();
    let os = SYSTEMS.iter().find(|(_, word)| *word == spec.os_type).map_or(OsType::Unspecified, |(os, _)| *os);
    let enrolled = spec.enroll_status == "enrolled";
    let status = if enrolled { DeviceEnrollStatus::Enrolled } else { DeviceEnrollStatus::NotEnrolled };
    let told = Device {
        id: device.name().to_owned(),
        os_type: os as i32,
        asset_tag: spec.asset_tag,
        enroll_status: status as i32,
        credential: spec.credential.map(|c| devicetrust::DeviceCredential {
            id: c.id,
            public_key_der: c.public_key_der,
            tpm_ekcert_serial: c.tpm_ekcert_serial,
            tpm_ak_public: c.tpm_ak_public,
            ..Default::default()
        }),
        owner: spec.owner,
        ..Device::default()
    };
    let (device, create_as_resource) = (Some(told), true);
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

fn shown(device: &Device) -> DeviceV1 {
    let os = SYSTEMS.iter().find(|(os, _)| *os as i32 == device.os_type).map_or("", |(_, word)| *word);
    let enrolled = device.enroll_status == DeviceEnrollStatus::Enrolled as i32;
    let mut record = DeviceV1 {
        spec: Some(DeviceSpec {
            os_type: os.to_owned(),
            asset_tag: device.asset_tag.clone(),
            create_time: device.create_time,
            update_time: device.update_time,
            enroll_status: if enrolled { "enrolled" } else { "not_enrolled" }.to_owned(),
            credential: device.credential.as_ref().map(|c| DeviceCredential {
                id: c.id.clone(),
                public_key_der: c.public_key_der.clone(),
                tpm_ekcert_serial: c.tpm_ekcert_serial.clone(),
                tpm_ak_public: c.tpm_ak_public.clone(),
                ..Default::default()
            }),
            owner: device.owner.clone(),
            ..DeviceSpec::default()
        }),
        ..DeviceV1::default()
    };
    device.id.clone_into(&mut record.metadata_mut().name);
    record.set_defaults();
    record
}
