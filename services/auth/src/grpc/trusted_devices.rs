//! The inventory of devices that can be trusted: `teleport.devicetrust.v1.DeviceTrustService`.
//!
//! A device is stored in the form in which people write it; the calls speak of the other form, in which the name is an
//! id and words are numbers.

use resources::{Resource as _, device_message, device_record};
use wire::devicetrust::device_trust_service_server::DeviceTrustService;
use wire::devicetrust::{
    CreateDeviceRequest, DeleteDeviceRequest, Device, DeviceView, FindDevicesRequest, FindDevicesResponse,
    GetDeviceRequest, ListDevicesRequest, ListDevicesResponse, UpsertDeviceRequest,
};
use wire::error::{Error, Result};
use wire::time;
use wire::types::DeviceV1;

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
            kinds::get::<kind::Device>(api, &message.device_id).await.map(|device| device_message(&device));
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
    let mut record = device_record(device);
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
    kinds::write::<kind::Device>(api, context, record, write).await.map(|device| device_message(&device))
}

async fn find(api: &Api, message: &FindDevicesRequest) -> Result<FindDevicesResponse> {
    let wanted = named(&message.id_or_tag, "id_or_tag")?;
    let all = kinds::list::<kind::Device>(api).await?;
    let is = |device: &&DeviceV1| {
        device.name() == wanted || device.spec.as_ref().is_some_and(|spec| spec.asset_tag == wanted)
    };
    Ok(FindDevicesResponse { devices: all.iter().filter(is).map(device_message).collect() })
}

async fn list(api: &Api, message: &ListDevicesRequest) -> Result<ListDevicesResponse> {
    let (found, next_page_token) = kinds::page::<kind::Device>(api, message.page_size, &message.page_token).await?;
    let mut devices: Vec<Device> = found.iter().map(device_message).collect();
    if message.view != DeviceView::Resource as i32 {
        devices.iter_mut().for_each(|device| device.collected_data.clear());
    }
    Ok(ListDevicesResponse { devices, next_page_token })
}
