//! What an organisation says about its fleet: discovery, integrations, installers, labels, upgrade windows, and what
//! people see in the web interface and on their devices.

use std::net::Ipv4Addr;

use uuid::Uuid;
use wire::{
    discoveryconfig::DiscoveryConfig,
    types::{
        ClusterMaintenanceConfigV1, DeviceV1, InstallerV1, IntegrationV1, OktaImportRuleV1, ServerInfoV1, UiConfigV1,
        integration_spec_v1::SubKindSpec,
    },
    userprovisioning::StaticHostUser,
    vnet::VnetConfig,
};

use super::{check_labels, default_text, not_negative, one_of, required, table::kinds};
use crate::{Place, Resource, ResourceError, Result, kind, places};

/// Lines that a terminal in the browser keeps.
const SCROLLBACK: i32 = 1000;
/// Days on which agents may be upgraded: what is written may be longer (`Monday`).
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// The operating systems of devices that can be trusted.
const DEVICE_SYSTEMS: [&str; 3] = ["linux", "macos", "windows"];

kinds! {
    ServerInfoV1: kind::SERVER_INFO, "v1", plain_header {
        place: |info| Place::new(places::SERVER_INFOS, [info.name()]),
        defaults: |info| { info.spec.get_or_insert_default(); },
        check: |info| check_labels("spec.new_labels", info.spec.iter().flat_map(|spec| spec.new_labels.keys())),
    }
    InstallerV1: kind::INSTALLER, "v1", plain_header {
        place: |installer| Place::new(places::INSTALLERS, [installer.name()]),
        defaults: |installer| { installer.spec.get_or_insert_default(); },
        check: |installer| required(&[("spec.script", installer.spec.as_ref().map_or("", |s| &s.script))]),
    }
    UiConfigV1: kind::UI_CONFIG, "v1", embedded_header, once "ui-config" {
        place: |_| Place::new(places::CLUSTER_CONFIGURATION, ["ui"]),
        defaults: |config| {
            let spec = config.spec.get_or_insert_default();
            default_text(&mut spec.show_resources, "requestable");
            if spec.scrollback_lines == 0 {
                spec.scrollback_lines = SCROLLBACK;
            }
        },
        check: |config| {
            let spec = config.spec.clone().unwrap_or_default();
            not_negative(&[("spec.scrollback_lines", spec.scrollback_lines.into())])?;
            one_of("spec.show_resources", &spec.show_resources, &["requestable", "accessible_only"])
        },
    }
    ClusterMaintenanceConfigV1: kind::CLUSTER_MAINTENANCE_CONFIG, "v1", embedded_header, once "cluster-maintenance-config" {
        place: |_| Place::new(places::CLUSTER_CONFIGURATION, ["maintenance"]),
        defaults: |config| { config.spec.get_or_insert_default(); },
        check: check_maintenance,
    }
    VnetConfig: kind::VNET_CONFIG, "v1", plain_header, once "vnet-config" {
        place: |_| Place::new(places::VNET, ["config"]),
        defaults: |config| {
            default_text(&mut config.spec.get_or_insert_default().ipv4_cidr_range, "100.64.0.0/10");
        },
        check: |config| {
            let spec = config.spec.clone().unwrap_or_default();
            check_ipv4_range("spec.ipv4_cidr_range", &spec.ipv4_cidr_range)?;
            match spec.custom_dns_zones.iter().position(|zone| zone.suffix.is_empty()) {
                Some(i) => Err(ResourceError::field(format!("spec.custom_dns_zones[{i}].suffix"), "missing value")),
                None => Ok(()),
            }
        },
    }
    DiscoveryConfig: kind::DISCOVERY_CONFIG, "v1", embedded_header {
        place: |config| Place::new(places::DISCOVERY_CONFIGS, [config.name()]),
        defaults: |config| { config.spec.get_or_insert_default(); },
        check: |config| {
            let spec = config.spec.clone().unwrap_or_default();
            required(&[("spec.discovery_group", &spec.discovery_group)])
        },
    }
    IntegrationV1: kind::INTEGRATION, "v1", embedded_header {
        place: |integration| Place::new(places::INTEGRATIONS, [integration.name()]),
        defaults: |integration| {
            let sub_kind = match integration.spec.get_or_insert_default().sub_kind_spec {
                Some(SubKindSpec::Awsoidc(_)) => "aws-oidc",
                Some(SubKindSpec::AzureOidc(_)) => "azure-oidc",
                None => "",
            };
            default_text(&mut integration.header.get_or_insert_default().sub_kind, sub_kind);
        },
        check: check_integration,
    }
    OktaImportRuleV1: kind::OKTA_IMPORT_RULE, "v1", embedded_header {
        place: |rule| Place::new(places::OKTA_IMPORT_RULES, [rule.name()]),
        defaults: |rule| { rule.spec.get_or_insert_default(); },
        check: |rule| {
            let spec = rule.spec.clone().unwrap_or_default();
            match spec.mappings.iter().position(|m| m.r#match.is_empty() || m.add_labels.is_empty()) {
                Some(i) => {
                    Err(ResourceError::field(format!("spec.mappings[{i}]"), "a mapping needs match and add_labels"))
                }
                None if spec.mappings.is_empty() => Err(ResourceError::field("spec.mappings", "missing mappings")),
                None => Ok(()),
            }
        },
    }
    DeviceV1: kind::DEVICE, "v1", embedded_header {
        place: |device| Place::new(places::DEVICES, [device.name()]),
        defaults: |device| {
            default_text(&mut device.spec.get_or_insert_default().enroll_status, "not_enrolled");
            if device.name().is_empty() {
                device.metadata_mut().name = Uuid::new_v4().to_string();
            }
        },
        check: |device| {
            let spec = device.spec.clone().unwrap_or_default();
            required(&[("spec.os_type", &spec.os_type), ("spec.asset_tag", &spec.asset_tag)])?;
            one_of("spec.os_type", &spec.os_type, &DEVICE_SYSTEMS)?;
            one_of("spec.enroll_status", &spec.enroll_status, &["enrolled", "not_enrolled"])
        },
    }
    StaticHostUser: kind::STATIC_HOST_USER, "v1", plain_header {
        place: |user| Place::new(places::STATIC_HOST_USERS, [user.name()]),
        defaults: |user| { user.spec.get_or_insert_default(); },
        check: |user| {
            let spec = user.spec.clone().unwrap_or_default();
            required(&[("spec.login", &spec.login)])?;
            for (path, id) in [("spec.uid", &spec.uid), ("spec.gid", &spec.gid)] {
                if !id.is_empty() && id.parse::<u32>().is_err() {
                    return Err(ResourceError::field(path, format!("{id:?} is not a number")));
                }
            }
            match spec.node_labels.is_none() && spec.node_labels_expression.is_empty() {
                true => Err(ResourceError::field("spec.node_labels", "missing labels of the servers it is for")),
                false => Ok(()),
            }
        },
    }
}

fn check_maintenance(config: &ClusterMaintenanceConfigV1) -> Result<()> {
    let Some(window) = config.spec.as_ref().and_then(|spec| spec.agent_upgrades.as_ref()) else { return Ok(()) };
    if window.utc_start_hour > 23 {
        let text = format!("{} is no hour of a day: expected 0 to 23", window.utc_start_hour);
        return Err(ResourceError::field("spec.agent_upgrades.utc_start_hour", text));
    }
    let is_day = |word: &str| {
        let lower = word.to_ascii_lowercase();
        let full = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
        DAYS.contains(&lower.as_str()) || full.contains(&lower.as_str())
    };
    match window.weekdays.iter().find(|day| !is_day(day)) {
        Some(day) => {
            let text = format!("{day:?} is no day of the week: expected Mon, Tue, Wed, Thu, Fri, Sat or Sun");
            Err(ResourceError::field("spec.agent_upgrades.weekdays", text))
        }
        None => Ok(()),
    }
}

fn check_ipv4_range(path: &str, text: &str) -> Result<()> {
    let valid = text.split_once('/').is_some_and(|(address, bits)| {
        address.parse::<Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 32)
    });
    if valid {
        return Ok(());
    }
    Err(ResourceError::field(path, format!("{text:?} is no IPv4 range: expected one such as \"100.64.0.0/10\"")))
}

fn check_integration(integration: &IntegrationV1) -> Result<()> {
    let wanted = match integration.spec.as_ref().and_then(|spec| spec.sub_kind_spec.as_ref()) {
        Some(SubKindSpec::Awsoidc(spec)) => {
            required(&[("spec.aws_oidc.role_arn", &spec.role_arn)])?;
            if !spec.role_arn.starts_with("arn:") {
                let text = format!("{:?} is no ARN of a role", spec.role_arn);
                return Err(ResourceError::field("spec.aws_oidc.role_arn", text));
            }
            "aws-oidc"
        }
        Some(SubKindSpec::AzureOidc(spec)) => {
            let fields =
                [("spec.azure_oidc.tenant_id", &*spec.tenant_id), ("spec.azure_oidc.client_id", &*spec.client_id)];
            required(&fields)?;
            "azure-oidc"
        }
        None => return Err(ResourceError::field("spec", "expected aws_oidc or azure_oidc")),
    };
    if integration.sub_kind() == wanted {
        return Ok(());
    }
    let text = format!("{:?} does not fit the spec: expected {wanted:?}", integration.sub_kind());
    Err(ResourceError::field("sub_kind", text))
}
