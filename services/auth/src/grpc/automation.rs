//! Rules that act by themselves, and saved questions to the audit log: one row an RPC.

use wire::accessmonitoringrules::access_monitoring_rules_service_server::AccessMonitoringRulesService;
use wire::crownjewel::crown_jewel_service_server::CrownJewelService;
use wire::loginrule::login_rule_service_server::LoginRuleService;
use wire::secreports::sec_reports_service_server::SecReportsService;
use wire::{accessmonitoringrules, crownjewel, loginrule, secreports};

use super::kinds;
use super::rpcs::service;
use crate::Write;
use crate::store::kind;

service! {
    AccessMonitoringRulesService, |api, context, message|
    unary {
        create_access_monitoring_rule(accessmonitoringrules::CreateAccessMonitoringRuleRequest) -> accessmonitoringrules::AccessMonitoringRule =
            kinds::write::<kind::AccessMonitoringRule>(api, context, message.rule, Write::Create).await;
        update_access_monitoring_rule(accessmonitoringrules::UpdateAccessMonitoringRuleRequest) -> accessmonitoringrules::AccessMonitoringRule =
            kinds::write::<kind::AccessMonitoringRule>(api, context, message.rule, Write::Update).await;
        upsert_access_monitoring_rule(accessmonitoringrules::UpsertAccessMonitoringRuleRequest) -> accessmonitoringrules::AccessMonitoringRule =
            kinds::write::<kind::AccessMonitoringRule>(api, context, message.rule, Write::Upsert).await;
        get_access_monitoring_rule(accessmonitoringrules::GetAccessMonitoringRuleRequest) -> accessmonitoringrules::AccessMonitoringRule =
            kinds::get::<kind::AccessMonitoringRule>(api, &message.name).await;
        list_access_monitoring_rules(accessmonitoringrules::ListAccessMonitoringRulesRequest) -> accessmonitoringrules::ListAccessMonitoringRulesResponse =
            kinds::page::<kind::AccessMonitoringRule>(api, message.page_size, &message.page_token).await.map(|(rules, next)| accessmonitoringrules::ListAccessMonitoringRulesResponse { rules, next_page_token: next });
        delete_access_monitoring_rule(accessmonitoringrules::DeleteAccessMonitoringRuleRequest) -> () =
            kinds::delete::<kind::AccessMonitoringRule>(api, context, &message.name).await;
        list_access_monitoring_rules_with_filter(accessmonitoringrules::ListAccessMonitoringRulesWithFilterRequest) -> accessmonitoringrules::ListAccessMonitoringRulesWithFilterResponse =
            monitoring_rules(api, &message).await;
    }
}

service! {
    CrownJewelService, |api, context, message|
    unary {
        create_crown_jewel(crownjewel::CreateCrownJewelRequest) -> crownjewel::CrownJewel =
            kinds::write::<kind::CrownJewel>(api, context, message.crown_jewel, Write::Create).await;
        update_crown_jewel(crownjewel::UpdateCrownJewelRequest) -> crownjewel::CrownJewel =
            kinds::write::<kind::CrownJewel>(api, context, message.crown_jewel, Write::Update).await;
        upsert_crown_jewel(crownjewel::UpsertCrownJewelRequest) -> crownjewel::CrownJewel =
            kinds::write::<kind::CrownJewel>(api, context, message.crown_jewel, Write::Upsert).await;
        get_crown_jewel(crownjewel::GetCrownJewelRequest) -> crownjewel::CrownJewel =
            kinds::get::<kind::CrownJewel>(api, &message.name).await;
        list_crown_jewels(crownjewel::ListCrownJewelsRequest) -> crownjewel::ListCrownJewelsResponse =
            kinds::page::<kind::CrownJewel>(api, message.page_size, &message.page_token).await.map(|(crown_jewels, next)| crownjewel::ListCrownJewelsResponse { crown_jewels, next_page_token: next });
        delete_crown_jewel(crownjewel::DeleteCrownJewelRequest) -> () =
            kinds::delete::<kind::CrownJewel>(api, context, &message.name).await;
    }
}

service! {
    LoginRuleService, |api, context, message|
    unary {
        create_login_rule(loginrule::CreateLoginRuleRequest) -> loginrule::LoginRule =
            kinds::write::<kind::LoginRule>(api, context, message.login_rule, Write::Create).await;
        upsert_login_rule(loginrule::UpsertLoginRuleRequest) -> loginrule::LoginRule =
            kinds::write::<kind::LoginRule>(api, context, message.login_rule, Write::Upsert).await;
        get_login_rule(loginrule::GetLoginRuleRequest) -> loginrule::LoginRule =
            kinds::get::<kind::LoginRule>(api, &message.name).await;
        list_login_rules(loginrule::ListLoginRulesRequest) -> loginrule::ListLoginRulesResponse =
            kinds::page::<kind::LoginRule>(api, message.page_size, &message.page_token).await.map(|(login_rules, next)| loginrule::ListLoginRulesResponse { login_rules, next_page_token: next });
        delete_login_rule(loginrule::DeleteLoginRuleRequest) -> () =
            kinds::delete::<kind::LoginRule>(api, context, &message.name).await;
    }
}

service! {
    SecReportsService, |api, context, message|
    unary {
        upsert_audit_query(secreports::UpsertAuditQueryRequest) -> () =
            kinds::write::<kind::AuditQuery>(api, context, message.audit_query, Write::Upsert).await.map(drop);
        get_audit_query(secreports::GetAuditQueryRequest) -> secreports::AuditQuery =
            kinds::get::<kind::AuditQuery>(api, &message.name).await;
        list_audit_queries(secreports::ListAuditQueriesRequest) -> secreports::ListAuditQueriesResponse =
            kinds::page::<kind::AuditQuery>(api, message.page_size, &message.page_token).await.map(|(queries, next)| secreports::ListAuditQueriesResponse { queries, next_page_token: next });
        delete_audit_query(secreports::DeleteAuditQueryRequest) -> () =
            kinds::delete::<kind::AuditQuery>(api, context, &message.name).await;
        upsert_report(secreports::UpsertReportRequest) -> () =
            kinds::write::<kind::SecurityReport>(api, context, message.report, Write::Upsert).await.map(drop);
        get_report(secreports::GetReportRequest) -> secreports::Report =
            kinds::get::<kind::SecurityReport>(api, &message.name).await;
        list_reports(secreports::ListReportsRequest) -> secreports::ListReportsResponse =
            kinds::page::<kind::SecurityReport>(api, message.page_size, &message.page_token).await.map(|(reports, next)| secreports::ListReportsResponse { reports, next_page_token: next });
        delete_report(secreports::DeleteReportRequest) -> () =
            kinds::delete::<kind::SecurityReport>(api, context, &message.name).await;
    }
}

/// One page of the rules about some subjects, or with some notification.
async fn monitoring_rules(
    api: &super::Api,
    message: &accessmonitoringrules::ListAccessMonitoringRulesWithFilterRequest,
) -> wire::error::Result<accessmonitoringrules::ListAccessMonitoringRulesWithFilterResponse> {
    let wanted = |rule: &accessmonitoringrules::AccessMonitoringRule| {
        let Some(spec) = &rule.spec else { return false };
        let notification = spec.notification.as_ref().map_or("", |n| &n.name);
        message.subjects.iter().all(|subject| spec.subjects.contains(subject))
            && (message.notification_name.is_empty() || message.notification_name == notification)
    };
    let found =
        kinds::page_of::<kind::AccessMonitoringRule>(api, message.page_size, &message.page_token, wanted).await?;
    let (rules, next_page_token) = found;
    Ok(accessmonitoringrules::ListAccessMonitoringRulesWithFilterResponse { rules, next_page_token })
}
