//! The two forms of a device: the record that people write, named by an id and with words for systems and states, and
//! the message of `teleport.devicetrust.v1`, in which these are numbers.

use wire::devicetrust::{self, Device, DeviceEnrollStatus, OsType};
use wire::types::{DeviceCredential, DeviceSpec, DeviceV1};

use crate::Resource;

const SYSTEMS: [(OsType, &str); 3] = [(OsType::Linux, "linux"), (OsType::Macos, "macos"), (OsType::Windows, "windows")];
const ENROLLED: &str = "enrolled";
const NOT_ENROLLED: &str = "not_enrolled";

/// The record of a device. Collected data is no part of it, and a system that is not known is left open: whoever
/// stores a record checks it.
pub fn device_record(device: Device) -> DeviceV1 {
    let os = SYSTEMS.iter().find(|(os, _)| *os as i32 == device.os_type).map_or("", |(_, word)| *word);
    let enrolled = device.enroll_status == DeviceEnrollStatus::Enrolled as i32;
    let mut record = DeviceV1 {
        spec: Some(DeviceSpec {
            os_type: os.to_owned(),
            asset_tag: device.asset_tag,
            create_time: device.create_time,
            update_time: device.update_time,
            enroll_status: if enrolled { ENROLLED } else { NOT_ENROLLED }.to_owned(),
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
    record.metadata_mut().name = device.id;
    record.set_defaults();
    record
}

/// The message of a device. A system that is not known is left open.
pub fn device_message(record: &DeviceV1) -> Device {
    let spec = record.spec.clone().unwrap_or_default();
    let os = SYSTEMS.iter().find(|(_, word)| *word == spec.os_type).map_or(OsType::Unspecified, |(os, _)| *os);
    let status =
        if spec.enroll_status == ENROLLED { DeviceEnrollStatus::Enrolled } else { DeviceEnrollStatus::NotEnrolled };
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let device = Device {
            id: "1".into(),
            os_type: OsType::Macos as i32,
            asset_tag: "t".into(),
            enroll_status: DeviceEnrollStatus::Enrolled as i32,
            owner: "alice".into(),
            ..Device::default()
        };
        let record = device_record(device.clone());
        assert_eq!(record.spec.as_ref().unwrap().os_type, "macos");
        let told = device_message(&record);
        assert_eq!(Device { api_version: String::new(), ..told }, device);
    }

    #[test]
    fn a_device_of_an_unknown_system_is_shown_and_not_stored() {
        let mut record = device_record(Device { os_type: 99, asset_tag: "t".into(), ..Device::default() });
        let spec = record.spec.clone().unwrap();
        assert_eq!((spec.os_type.as_str(), spec.asset_tag.as_str()), ("", "t"));
        assert!(record.check_and_set_defaults().unwrap_err().to_string().contains("os_type"));
    }
}
