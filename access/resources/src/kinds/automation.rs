//! Bots, and rules that act by themselves: at login, on access requests, on the audit log.

use wire::{
    accessmonitoringrules::AccessMonitoringRule,
    crownjewel::CrownJewel,
    loginrule::LoginRule,
    machineid::{Bot, BotInstance},
    secreports::{AuditQuery, Report},
    types::Metadata,
};

use super::{default_text, required, table::kinds};
use crate::{Place, Resource, ResourceError, Result, kind, places, resource::NO_METADATA};

kinds! {
    // A bot is stored as a user and a role; this is where its record would be.
    Bot: kind::BOT, "v1", plain_header {
        place: |bot| Place::new(places::BOTS, [bot.name()]),
        defaults: |bot| { bot.spec.get_or_insert_default(); },
        check: |bot| {
            let spec = bot.spec.clone().unwrap_or_default();
            if spec.roles.iter().any(String::is_empty) {
                return Err(ResourceError::field("spec.roles", "must not contain an empty name"));
            }
            match spec.traits.iter().position(|t| t.name.is_empty()) {
                Some(i) => Err(ResourceError::field(format!("spec.traits[{i}].name"), "missing value")),
                None => Ok(()),
            }
        },
    }
    BotInstance: kind::BOT_INSTANCE, "v1", plain_header {
        place: |instance| {
            let bot = instance.spec.as_ref().map_or("", |s| &s.bot_name);
            Place::new(places::BOT_INSTANCES, [bot, instance.name()])
        },
        defaults: |instance| {
            let id = instance.spec.get_or_insert_default().instance_id.clone();
            default_text(&mut instance.metadata_mut().name, &id);
        },
        check: |instance| {
            let spec = instance.spec.clone().unwrap_or_default();
            required(&[("spec.bot_name", &spec.bot_name), ("spec.instance_id", &spec.instance_id)])
        },
    }
    AccessMonitoringRule: kind::ACCESS_MONITORING_RULE, "v1", plain_header {
        place: |rule| Place::new(places::ACCESS_MONITORING_RULES, [rule.name()]),
        defaults: |rule| { rule.spec.get_or_insert_default(); },
        check: |rule| {
            let spec = rule.spec.clone().unwrap_or_default();
            if spec.subjects.is_empty() {
                return Err(ResourceError::field("spec.subjects", "missing kinds such as \"access_request\""));
            }
            required(&[("spec.condition", &spec.condition)])
        },
    }
    CrownJewel: kind::CROWN_JEWEL, "v1", plain_header {
        place: |jewel| Place::new(places::CROWN_JEWELS, [jewel.name()]),
        defaults: |jewel| { jewel.spec.get_or_insert_default(); },
        check: |jewel| {
            let spec = jewel.spec.clone().unwrap_or_default();
            if spec.teleport_matchers.is_empty() && spec.aws_matchers.is_empty() {
                return Err(ResourceError::field("spec", "expected teleport_matchers or aws_matchers"));
            }
            if let Some(i) = spec.teleport_matchers.iter().position(|m| m.kinds.is_empty()) {
                return Err(ResourceError::field(format!("spec.teleport_matchers[{i}].kinds"), "missing kinds"));
            }
            match spec.aws_matchers.iter().position(|m| m.types.is_empty()) {
                Some(i) => Err(ResourceError::field(format!("spec.aws_matchers[{i}].types"), "missing types")),
                None => Ok(()),
            }
        },
    }
    AuditQuery: kind::AUDIT_QUERY, "v1", embedded_header {
        place: |query| Place::new(places::AUDIT_QUERIES, [query.name()]),
        defaults: |query| {
            let name = query.name().to_owned();
            default_text(&mut query.spec.get_or_insert_default().name, &name);
        },
        check: |query| {
            let spec = query.spec.clone().unwrap_or_default();
            required(&[("spec.query", &spec.query)])
        },
    }
    Report: kind::SECURITY_REPORT, "v1", embedded_header {
        place: |report| Place::new(places::SECURITY_REPORTS, [report.name()]),
        defaults: |report| {
            let name = report.name().to_owned();
            default_text(&mut report.spec.get_or_insert_default().name, &name);
        },
        check: |report| {
            let spec = report.spec.clone().unwrap_or_default();
            match spec.audit_queries.is_empty() {
                true => Err(ResourceError::field("spec.audit_queries", "missing queries")),
                false => Ok(()),
            }
        },
    }
}

/// A login rule has neither kind nor sub-kind on the wire: they stand in text only.
impl Resource for LoginRule {
    const KIND: &'static str = kind::LOGIN_RULE;
    const VERSION: &'static str = "v1";

    fn kind(&self) -> &str {
        Self::KIND
    }

    fn sub_kind(&self) -> &'static str {
        ""
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn set_header(&mut self) {
        default_text(&mut self.version, Self::VERSION);
    }

    fn metadata(&self) -> &Metadata {
        self.metadata.as_ref().unwrap_or(&NO_METADATA)
    }

    fn metadata_mut(&mut self) -> &mut Metadata {
        self.metadata.get_or_insert_default()
    }

    fn place(&self) -> Place {
        Place::new(places::LOGIN_RULES, [self.name()])
    }

    fn check_spec(&self) -> Result<()> {
        crate::resource::check_version(self)?;
        match (self.traits_map.is_empty(), self.traits_expression.is_empty()) {
            (true, true) => Err(ResourceError::field("spec", "missing traits_map or traits_expression")),
            (false, false) => Err(ResourceError::field("spec", "traits_map and traits_expression exclude each other")),
            _ => match self.traits_map.iter().find(|(_, list)| list.values.is_empty()) {
                Some((name, _)) => Err(ResourceError::field(format!("spec.traits_map.{name}"), "missing expressions")),
                None => Ok(()),
            },
        }
    }
}
