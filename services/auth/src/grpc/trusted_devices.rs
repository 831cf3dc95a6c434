//! The inventory of devices that can be trusted: `teleport.devicetrust.v1.DeviceTrustService`.
//!
//! A device is stored in the form in which people write it; the calls speak of the other form, in which the name is an
//! id and words are numbers.

use resources::Resource;
use wire::devicetrust::device_trust_service_server::DeviceTrustService;
use wire::devicetrust::{
    CreateDeviceRequest, DeleteDeviceRequest, Device, DeviceEnrollStatus, DeviceView, FindDevicesRequest,
    FindDevicesResponse, GetDeviceRequest, ListDevicesRequest, ListDevicesResponse, OsType, UpsertDeviceRequest,
};
use wire::error::{Error, Result};
use wire::types::{DeviceCredential, DeviceSpec, DeviceV1, Metadata};
use wire::{devicetrust, time};

use super::rpcs::service;
use super::{Api, kinds, named, required};
use crate::Write;
use crate::authz::AuthContext;
use crate::store::kind;

service! {
    DeviceTrustService, |api, context, message|
    unary {
        create_device(CreateDeviceRequest) -> Device = create(api, context, message).await;
        upsert_device(UpsertDeviceRequest) -> Device =
            write(api, context, required(message.device, "device")?, Write::Upsert).await;
        delete_device(DeleteDeviceRequest) -> () =
            kinds::delete::<kind::Device>(api, context, &message.device_id).await;
        find_devices(FindDevicesRequest) -> FindDevicesResponse = find(api, &message).await;
        get_device(GetDeviceRequest) -> Device =
            kinds::get::<kind::Device>(api, &message.device_id).await.map(|device| told(&device));
        list_devices(ListDevicesRequest) -> ListDevicesResponse = list(api, &message).await;
    }
}

async fn create(api: &Api, context: &AuthContext, message: CreateDeviceRequest) -> Result<Device> {
    if message.create_enroll_token {
        return Err(Error::not_implemented("devices cannot be enrolled by this build yet"));
    }
    let mut device = required(message.device, "device")?;
    if !message.create_as_resource {
        // Only whoever writes resources chooses ids and states.
        device =
            Device { os_type: device.os_type, asset_tag: device.asset_tag, source: device.source, ..Device::default() };
    }
    write(api, context, device, Write::Create).await
}

/// A system knows each of its devices once, by its tag.
async fn write(api: &Api, context: &AuthContext, device: Device, write: Write) -> Result<Device> {
    let mut record = record(device)?;
    let now = Some(time::timestamp(api.auth().now()));
    let spec = record.spec.get_or_insert_default();
    spec.update_time = now;
    if spec.create_time.is_none() {
        spec.create_time = now;
    }
    let (os, tag) = (spec.os_type.clone(), spec.asset_tag.clone());
    let id = record.name().to_owned();
    for known in api.auth().store().cached_list::<kind::Device>() {
        let same = known.spec.as_ref().is_some_and(|spec| spec.os_type == os && spec.asset_tag == tag);
        if same && known.name() != id {
            return Err(Error::already_exists(format!(
                "device {tag:?} ({os}) already exists, its id is {:?}",
                known.name()
            )));
        }
    }
    kinds::write::<kind::Device>(api, context, record, write).await.map(|device| told(&device))
}

async fn find(api: &Api, message: &FindDevicesRequest) -> Result<FindDevicesResponse> {
    let wanted = named(&message.id_or_tag, "id_or_tag")?;
    let all = kinds::list::<kind::Device>(api).await?;
    let is = |device: &&DeviceV1| {
        device.name() == wanted || device.spec.as_ref().is_some_and(|spec| spec.asset_tag == wanted)
    };
    Ok(FindDevicesResponse { devices: all.iter().filter(is).map(told).collect() })
}

async fn list(api: &Api, message: &ListDevicesRequest) -> Result<ListDevicesResponse> {
    let (found, next_page_token) = kinds::page::<kind::Device>(api, message.page_size, &message.page_token).await?;
    let mut devices: Vec<Device> = found.iter().map(told).collect();
    if message.view != DeviceView::Resource as i32 {
        devices.iter_mut().for_each(|device| device.collected_data.clear());
    }
    Ok(ListDevicesResponse { devices, next_page_token })
}

const SYSTEMS: [(OsType, &str); 3] = [(OsType::Linux, "linux"), (OsType::Macos, "macos"), (OsType::Windows, "windows")];

fn record(device: Device) -> Result<DeviceV1> {
    let os = SYSTEMS.iter().find(|(os, _)| *os as i32 == device.os_type).map(|(_, word)| *word);
    let os = os.ok_or_else(|| Error::bad_parameter("device os_type: expected linux, macos or windows"))?;
    let enrolled = device.enroll_status == DeviceEnrollStatus::Enrolled as i32;
    let mut record = DeviceV1 {
        spec: Some(DeviceSpec {
            os_type: os.to_owned(),
            asset_tag: device.asset_tag,
            create_time: device.create_time,
            update_time: device.update_time,
            enroll_status: if enrolled { "enrolled" } else { "not_enrolled" }.to_owned(),
            credential: device.credential.map(|c| DeviceCredential {
                id: c.id,
                public_key_der: c.public_key_der,
                tpm_ekcert_serial: c.tpm_ekcert_serial,
                tpm_ak_public: c.tpm_ak_public,
                ..DeviceCredential::default()
            }),
            owner: device.owner,
            ..DeviceSpec::default()
        }),
        ..DeviceV1::default()
    };
    *record.metadata_mut() = Metadata { name: device.id, ..Metadata::default() };
    record.set_defaults();
    Ok(record)
}

fn told(record: &DeviceV1) -> Device {
    let spec = record.spec.clone().unwrap_or_default();
    let os = SYSTEMS.iter().find(|(_, word)| *word == spec.os_type).map_or(OsType::Unspecified, |(os, _)| *os);
    let status =
        if spec.enroll_status == "enrolled" { DeviceEnrollStatus::Enrolled } else { DeviceEnrollStatus::NotEnrolled };
    Device {
        api_version: record.version().to_owned(),
        id: record.name().to_owned(),
        os_type: os as i32,
        asset_tag: spec.asset_tag,
        create_time: spec.create_time,
        update_time: spec.update_time,
        enroll_status: status as i32,
        credential: spec.credential.map(|c| devicetrust::DeviceCredential {
            id: c.id,
            public_key_der: c.public_key_der,
            tpm_ekcert_serial: c.tpm_ekcert_serial,
            tpm_ak_public: c.tpm_ak_public,
            ..devicetrust::DeviceCredential::default()
        }),
        owner: spec.owner,
        ..Device::default()
    }
}
