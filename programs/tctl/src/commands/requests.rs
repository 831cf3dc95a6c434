//! `requests`: requests of users for more access.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use resources::{Resource as _, parse_resource_id, resource_id_text};
use wire::client::turn_page;
use wire::proto::{AccessRequestSort, ListAccessRequestsRequest, RequestId, RequestStateSetter};
use wire::time::{moment, timestamp};
use wire::types::{
    AccessCapabilitiesRequest, AccessRequestFilter, AccessRequestSpecV3, AccessRequestV3, AccessReview,
    AccessReviewSubmission, RequestState,
};
use wire::wrappers::{LabelValues, StringValues};

use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{self, Format, Table, say, text, time};

/// Requests on one page.
const PAGE: i32 = 500;

/// Requests of users for more access.
#[derive(Debug, Subcommand)]
pub enum Requests {
    /// List requests.
    #[command(alias = "list")]
    Ls(Ls),
    /// Show requests with everything in them.
    Get(Get),
    /// Approve requests.
    Approve(Decide),
    /// Deny requests.
    Deny(Decide),
    /// Make a request in the name of a user.
    Create(Create),
    /// Remove requests: what they gave is not renewed.
    #[command(aliases = ["del", "delete"])]
    Rm(Ids),
    /// Review a request in the name of a user.
    Review(Review),
    /// Show the reviews of a request.
    Reviews(Get),
    /// Show what a user could ask for.
    #[command(alias = "caps")]
    Capabilities(Capabilities),
}

/// List requests.
#[derive(Args, Debug)]
pub struct Ls {
    /// By what to order them.
    #[arg(long, value_enum, default_value_t)]
    sort_index: SortIndex,
    /// In which direction.
    #[arg(long, value_parser = ["ascending", "descending"], default_value = "descending")]
    sort_order: String,
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum SortIndex {
    #[default]
    Created,
    State,
}

/// Show requests.
#[derive(Args, Debug)]
pub struct Get {
    /// Ids of the requests, with commas between.
    #[arg(value_delimiter = ',', required = true)]
    ids: Vec<String>,
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Requests by id.
#[derive(Args, Debug)]
pub struct Ids {
    /// Ids of the requests, with commas between.
    #[arg(value_delimiter = ',', required = true)]
    ids: Vec<String>,
    /// Also those that give access right now; here they are removed without it as well.
    #[arg(short, long)]
    force: bool,
}

/// Approve or deny requests.
#[derive(Args, Debug)]
pub struct Decide {
    /// Ids of the requests, with commas between.
    #[arg(value_delimiter = ',', required = true)]
    ids: Vec<String>,
    /// In whose name this is decided, for the audit log.
    #[arg(long, value_name = "NAME")]
    delegator: Option<String>,
    /// Why; the user reads it.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Notes to keep with the decision: key=value,key=value.
    #[arg(long, value_delimiter = ',', value_name = "NOTES")]
    annotations: Vec<String>,
    /// Only these of the roles that were asked for.
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    roles: Vec<String>,
    /// When access begins, in RFC 3339.
    #[arg(long, value_name = "TIME")]
    assume_start_time: Option<String>,
}

/// Make a request in the name of a user.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["roles", "resource"])))]
pub struct Create {
    /// The user.
    user: String,
    /// Roles to ask for.
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    roles: Vec<String>,
    /// A resource to ask for; may be given several times.
    #[arg(long, value_name = "/CLUSTER/KIND/NAME")]
    resource: Vec<String>,
    /// Why.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Only check it, and show what would be made.
    #[arg(long)]
    dry_run: bool,
}

/// Review a request in the name of a user.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("verdict").required(true).args(["approve", "deny"])))]
pub struct Review {
    /// Id of the request.
    id: String,
    /// The reviewer.
    #[arg(long, value_name = "USER")]
    author: String,
    /// Approve it.
    #[arg(long)]
    approve: bool,
    /// Deny it.
    #[arg(long)]
    deny: bool,
    /// Why.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// Show what a user could ask for.
#[derive(Args, Debug)]
pub struct Capabilities {
    /// The user.
    user: String,
    /// How to show it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Requests {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Ls(command) => command.run(api).await,
            Self::Get(command) => command.run(api, false).await,
            Self::Reviews(command) => command.run(api, true).await,
            Self::Approve(command) => command.run(api, RequestState::Approved).await,
            Self::Deny(command) => command.run(api, RequestState::Denied).await,
            Self::Create(command) => command.run(api).await,
            Self::Rm(command) => command.remove(api).await,
            Self::Review(command) => command.run(api).await,
            Self::Capabilities(command) => command.run(api).await,
        }
    }
}

impl Ls {
    async fn run(self, api: &Api) -> Result<()> {
        let sort = match self.sort_index {
            SortIndex::Created => AccessRequestSort::Created,
            SortIndex::State => AccessRequestSort::State,
        };
        let found = list(api, AccessRequestFilter::default(), sort, self.sort_order == "descending").await?;
        show(&found, self.format, || {
            let headers =
                ["Token", "Requestor", "Metadata", "Created At (UTC)", "Status", "Request Reason", "Resolve Reason"];
            let mut table = Table::new(headers);
            for request in &found {
                let spec = spec(request);
                table.row([
                    request.name().to_owned(),
                    spec.user.clone(),
                    what(&spec),
                    moment(spec.created.as_ref())
                        .map(|at| at.format("%d %b %y %H:%M UTC").to_string())
                        .unwrap_or_default(),
                    state(&spec).to_owned(),
                    quoted(&spec.request_reason),
                    quoted(&spec.resolve_reason),
                ]);
            }
            table.fitted()
        })
    }
}

impl Get {
    async fn run(self, api: &Api, reviews: bool) -> Result<()> {
        let mut found = Vec::new();
        for id in &self.ids {
            found.push(get(api, id).await?);
        }
        match reviews {
            true => show(&found, self.format, || found.iter().map(reviews_text).collect()),
            false => show(&found, self.format, || found.iter().map(details).collect::<Vec<_>>().join("\n")),
        }
    }
}

impl Decide {
    async fn run(self, api: &Api, state: RequestState) -> Result<()> {
        let wish = RequestStateSetter {
            state: state.into(),
            delegator: self.delegator.clone().unwrap_or_default(),
            reason: self.reason.clone(),
            annotations: annotations(&self.annotations)?,
            roles: self.roles.clone(),
            assume_start_time: self.assume_start_time.as_deref().map(start).transpose()?,
            ..Default::default()
        };
        for id in &self.ids {
            let wish = RequestStateSetter { id: id.clone(), ..wish.clone() };
            api.auth().set_access_request_state(wish).within("deciding about the access request").await?;
            say(&format!("Access request {id:?} has been {}.\n", state.as_str_name().to_lowercase()));
        }
        Ok(())
    }
}

impl Create {
    async fn run(self, api: &Api) -> Result<()> {
        let parse = |text: &String| parse_resource_id(text).map_err(|e| Error::bad(format!("--resource: {e}")));
        let request = AccessRequestV3 {
            spec: Some(AccessRequestSpecV3 {
                user: self.user.clone(),
                roles: self.roles.clone(),
                requested_resource_i_ds: self.resource.iter().map(parse).collect::<Result<_>>()?,
                request_reason: self.reason.clone(),
                dry_run: self.dry_run,
                ..Default::default()
            }),
            ..Default::default()
        };
        let made = api.auth().create_access_request_v2(request).within("making the access request").await?;
        match self.dry_run {
            true => say(&details(&made)),
            false => say(&format!("{}\n", made.name())),
        }
        Ok(())
    }
}

impl Ids {
    async fn remove(self, api: &Api) -> Result<()> {
        for id in &self.ids {
            let request = RequestId { id: id.clone() };
            api.auth().delete_access_request(request).within("removing the access request").await?;
            say(&format!("Access request {id:?} has been deleted.\n"));
        }
        Ok(())
    }
}

impl Review {
    async fn run(self, api: &Api) -> Result<()> {
        let verdict = if self.approve { RequestState::Approved } else { RequestState::Denied };
        let review = AccessReview {
            author: self.author.clone(),
            proposed_state: verdict.into(),
            reason: self.reason.clone(),
            ..Default::default()
        };
        let submission = AccessReviewSubmission { request_id: self.id.clone(), review: Some(review) };
        let request = api.auth().submit_access_review(submission).within("reviewing the access request").await?;
        say(&format!("Successfully submitted review.  Request state: {}\n", state(&spec(&request))));
        Ok(())
    }
}

impl Capabilities {
    async fn run(self, api: &Api) -> Result<()> {
        let asked = AccessCapabilitiesRequest {
            user: self.user.clone(),
            requestable_roles: true,
            suggested_reviewers: true,
            ..Default::default()
        };
        let found = api.auth().get_access_capabilities(asked).within("asking what the user could ask for").await?;
        match self.format {
            Format::Json => say(&output::json(&found, 4)?),
            Format::Yaml => say(&output::yaml(&found)?),
            Format::Text => {
                let list = |names: &[String]| if names.is_empty() { "[none]".to_owned() } else { names.join(", ") };
                say(&format!(
                    "Requestable Roles:   {}\nSuggested Reviewers: {}\nReason Required:     {}\n",
                    text::line(&list(&found.requestable_roles)),
                    text::line(&list(&found.suggested_reviewers)),
                    found.require_reason,
                ));
            }
        }
        Ok(())
    }
}

async fn list(
    api: &Api,
    filter: AccessRequestFilter,
    sort: AccessRequestSort,
    descending: bool,
) -> Result<Vec<AccessRequestV3>> {
    let mut page = ListAccessRequestsRequest {
        filter: Some(filter),
        sort: sort.into(),
        descending,
        limit: PAGE,
        start_key: String::new(),
    };
    let mut found = Vec::new();
    loop {
        let answer = api.auth().list_access_requests(page.clone()).within("listing access requests").await?;
        found.extend(answer.access_requests);
        if !turn_page(&mut page.start_key, answer.next_key)? {
            return Ok(found);
        }
    }
}

async fn get(api: &Api, id: &str) -> Result<AccessRequestV3> {
    let filter = AccessRequestFilter { id: id.to_owned(), ..Default::default() };
    let found = list(api, filter, AccessRequestSort::Default, false).await?;
    let found = found.into_iter().find(|request| request.name() == id);
    found.ok_or_else(|| Error::not_found(format!("access request {id:?} not found")))
}

fn show(found: &[AccessRequestV3], format: Format, table: impl FnOnce() -> String) -> Result<()> {
    let all: Vec<resources::AnyResource> = found.iter().cloned().map(Into::into).collect();
    say(&output::resources(&all, format, table)?);
    Ok(())
}

fn spec(request: &AccessRequestV3) -> AccessRequestSpecV3 {
    request.spec.clone().unwrap_or_default()
}

fn state(spec: &AccessRequestSpecV3) -> &'static str {
    RequestState::try_from(spec.state).unwrap_or_default().as_str_name()
}

/// What is asked for, in one cell.
fn what(spec: &AccessRequestSpecV3) -> String {
    let mut parts = vec![format!("roles={}", spec.roles.join(","))];
    if !spec.requested_resource_i_ds.is_empty() {
        let ids: Vec<String> = spec.requested_resource_i_ds.iter().map(resource_id_text).collect();
        parts.push(format!("resources=[{}]", ids.join(",")));
    }
    parts.join(" ")
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("{text:?}") }
}

/// All about a request.
fn details(request: &AccessRequestV3) -> String {
    let spec = spec(request);
    let at = |at: Option<DateTime<Utc>>| at.map(time::exact).unwrap_or_default();
    let ids: Vec<String> = spec.requested_resource_i_ds.iter().map(resource_id_text).collect();
    let ends = moment(request.metadata().expires.as_ref());
    let lines = [
        ("Token", request.name().to_owned()),
        ("Requestor", spec.user.clone()),
        ("Roles", spec.roles.join(", ")),
        ("Resources", ids.join(", ")),
        ("Created", at(moment(spec.created.as_ref()))),
        ("Expires", at(ends)),
        ("Access Expires", at(moment(spec.expires.as_ref()))),
        ("Access Begins", at(moment(spec.assume_start_time.as_ref()))),
        ("Suggested Reviewers", spec.suggested_reviewers.join(", ")),
        ("Status", state(&spec).to_owned()),
        ("Request Reason", spec.request_reason.clone()),
        ("Resolve Reason", spec.resolve_reason.clone()),
    ];
    let shown = lines.iter().filter(|(_, value)| !value.is_empty());
    let shown: String =
        shown.map(|(name, value)| format!("{:<20} {}\n", format!("{name}:"), text::line(value))).collect();
    shown + &reviews_text(request)
}

fn reviews_text(request: &AccessRequestV3) -> String {
    let mut table = Table::new(["Reviewer", "Proposed State", "Created", "Reason"]);
    let reviews = spec(request).reviews;
    for review in &reviews {
        table.row([
            review.author.clone(),
            RequestState::try_from(review.proposed_state).unwrap_or_default().as_str_name().to_owned(),
            moment(review.created.as_ref()).map(time::exact).unwrap_or_default(),
            quoted(&review.reason),
        ]);
    }
    if reviews.is_empty() { String::new() } else { table.full() }
}

fn annotations(notes: &[String]) -> Result<Option<LabelValues>> {
    let mut values: BTreeMap<String, StringValues> = BTreeMap::new();
    for note in notes {
        let (key, value) = note
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| Error::bad(format!("--annotations: expected key=value, found {note:?}")))?;
        values.entry(key.trim().to_owned()).or_default().values.push(value.trim().to_owned());
    }
    Ok((!values.is_empty()).then_some(LabelValues { values }))
}

fn start(text: &str) -> Result<prost_types::Timestamp> {
    Ok(timestamp(time::rfc3339(text).map_err(|e| Error::bad(format!("--assume-start-time: {e}")))?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        requests: Requests,
    }

    #[test]
    fn notes_with_the_same_key_are_one_list() {
        let notes = ["a=1", "b=2", "a=3"].map(str::to_owned);
        let values = annotations(&notes).unwrap().unwrap().values;
        assert_eq!((values["a"].values.clone(), values["b"].values.len()), (vec!["1".to_owned(), "3".to_owned()], 1));
        assert!(annotations(&["x".to_owned()]).unwrap_err().to_string().contains("key=value"));
        assert!(annotations(&[]).unwrap().is_none());
    }

    #[test]
    fn a_request_names_roles_or_resources_and_a_review_one_verdict() {
        let parse = |line: &str| Line::try_parse_from(line.split(' '));
        assert!(parse("x create ann").unwrap_err().to_string().contains("--roles"));
        assert!(parse("x create ann --roles=a,b --reason=r").is_ok());
        assert!(parse("x review id --author=bob").unwrap_err().to_string().contains("--approve"));
        assert!(parse("x review id --author=bob --approve --deny").is_err());
        assert!(parse("x approve a,b --roles=x").is_ok() && parse("x caps ann").is_ok());
    }

    #[test]
    fn a_request_is_shown_on_one_line() {
        let request: AccessRequestV3 = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "r"}, "spec": {"user": "ann", "roles": ["a", "b"], "state": 1,
                "resource_ids": [{"cluster": "one", "kind": "node", "name": "n"}]}
        }))
        .unwrap();
        assert_eq!(what(&spec(&request)), "roles=a,b resources=[/one/node/n]");
        assert_eq!(state(&spec(&request)), "PENDING");
    }
}
