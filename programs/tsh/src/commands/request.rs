//! `tsh request`, and what `tsh login` does with requests.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use client::account::Account;
use client::cluster::ClusterClient;
use client::ssh::parse_labels;
use client::terminal::Echo;
use client::{Error, Result, agent, logout as leave, nodes, requests, text};
use resources::{parse_resource_id, resource_id_text};
use wire::proto::paginated_resource::Resource;
use wire::proto::{ListResourcesRequest, PaginatedResource};
use wire::time::{moment, timestamp};
use wire::types::{
    AccessCapabilities, AccessRequestFilter, AccessRequestScope, AccessRequestSpecV3, AccessRequestV3, AccessReview,
    Metadata, RequestState, ResourceId,
};

use super::{list, status};
use crate::args::{
    Format, RequestCommand, RequestCreateArgs, RequestDropArgs, RequestLsArgs, RequestReviewArgs, RequestSearchArgs,
    RequestShowArgs,
};
use crate::ask::Terminal;
use crate::context::Context;
use crate::output::{print, print_as};
use crate::table::Table;

/// Makes, shows, decides and drops requests.
pub async fn request(context: &Context, command: &RequestCommand) -> Result<i32> {
    match command {
        RequestCommand::Ls(args) => ls(context, args).await?,
        RequestCommand::Show(args) => show(context, args).await?,
        RequestCommand::Create(args) => create(context, args).await?,
        RequestCommand::Review(args) => review(context, args).await?,
        RequestCommand::Search(args) => search(context, args).await?,
        RequestCommand::Drop(args) => drop(context, args).await?,
    }
    Ok(0)
}

async fn ls(context: &Context, args: &RequestLsArgs) -> Result<()> {
    let client = context.client(None).await?;
    let scope = match (args.my_requests, args.reviewable) {
        (true, _) => AccessRequestScope::MyRequests,
        (_, true) => AccessRequestScope::NeedsReview,
        _ => AccessRequestScope::Default,
    };
    let filter = AccessRequestFilter { scope: scope.into(), ..Default::default() };
    let mut found = requests::list(&client, &filter).await?;
    let me = &client.account().username;
    found.retain(|request| {
        let spec = requests::spec(request);
        let mine = !args.my_requests || spec.user == *me;
        let waits = requests::state(request) == RequestState::Pending && spec.user != *me;
        let reviewed = spec.reviews.iter().any(|review| review.author == *me);
        mine && (!args.reviewable || waits && !reviewed) && (!args.suggested || spec.suggested_reviewers.contains(me))
    });
    found.sort_by_key(|request| std::cmp::Reverse(moment(requests::spec(request).created.as_ref())));
    print_as(args.format, &found, || {
        let header = ["ID", "User", "Roles", "Resources", "Created At (UTC)", "Request TTL", "Session TTL", "Status"];
        let mut table = Table::new(&header);
        let now = Utc::now();
        found.iter().for_each(|request| table.row(row(request, now)));
        table.render()
            + "\nhint: use 'tsh request show <request-id>' for additional details\n\
            hint: use 'tsh login --request-id=<request-id>' to login with an approved request\n"
    })
}

fn row(request: &AccessRequestV3, now: DateTime<Utc>) -> [String; 8] {
    let spec = requests::spec(request);
    let left = |end: Option<DateTime<Utc>>| match end.map(|end| end - now) {
        Some(left) if left > TimeDelta::zero() => short(left),
        Some(_) => "expired".to_owned(),
        None => String::new(),
    };
    let ends = request.metadata.as_ref().and_then(|metadata| moment(metadata.expires.as_ref()));
    [
        requests::id(request).to_owned(),
        spec.user.clone(),
        spec.roles.join(","),
        spec.requested_resource_i_ds.iter().map(resource_id_text).collect::<Vec<_>>().join(","),
        moment(spec.created.as_ref()).map(|at| at.format("%d %b %y %H:%M").to_string()).unwrap_or_default(),
        left(ends),
        left(moment(spec.expires.as_ref())),
        requests::state(request).as_str_name().to_owned(),
    ]
}

/// A duration in the largest units: `2d3h`, `1h5m`, `45s`.
fn short(left: TimeDelta) -> String {
    match (left.num_days(), left.num_hours() % 24, left.num_minutes() % 60) {
        (0, 0, 0) => format!("{}s", left.num_seconds()),
        (0, 0, minutes) => format!("{minutes}m"),
        (0, hours, minutes) => format!("{hours}h{minutes}m"),
        (days, hours, _) => format!("{days}d{hours}h"),
    }
}

async fn show(context: &Context, args: &RequestShowArgs) -> Result<()> {
    let client = context.client(None).await?;
    let request = requests::get(&client, &args.id).await?;
    print_as(args.format, &request, || details(&request))
}

/// All about a request, for people.
fn details(request: &AccessRequestV3) -> String {
    let spec = requests::spec(request);
    let or_none = |list: String, none: &str| if list.is_empty() { none.to_owned() } else { list };
    let at = |moment: Option<DateTime<Utc>>| {
        moment.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true)).unwrap_or_default()
    };
    let mut reviewers: Vec<String> = spec.reviews.iter().map(|review| review.author.clone()).collect();
    let suggested = spec.suggested_reviewers.iter().filter(|name| !reviewers.contains(name));
    let suggested: Vec<String> = suggested.map(|name| format!("{name} (suggested)")).collect();
    reviewers.extend(suggested);
    let ids = spec.requested_resource_i_ds.iter().map(resource_id_text).collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        ("Request ID", requests::id(request).to_owned()),
        ("Username", spec.user.clone()),
        ("Roles", or_none(spec.roles.join(", "), "[none]")),
    ];
    if !ids.is_empty() {
        lines.push(("Resources", ids));
    }
    lines.push(("Reason", or_none(spec.request_reason.clone(), "[none]")));
    lines.push(("Reviewers", or_none(reviewers.join(", "), "[none]")));
    lines.push(("Access Expires", at(moment(spec.expires.as_ref()))));
    if spec.assume_start_time.is_some() {
        lines.push(("Assume Start Time", at(moment(spec.assume_start_time.as_ref()))));
    }
    lines.push(("Status", requests::state(request).as_str_name().to_owned()));
    if !spec.resolve_reason.is_empty() {
        lines.push(("Resolve Reason", spec.resolve_reason.clone()));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    let shown = lines.iter().map(|(name, value)| format!("{:width$} {}\n", format!("{name}:"), text::line(value)));
    let mut shown: String = shown.collect();
    for review in &spec.reviews {
        let verdict = RequestState::try_from(review.proposed_state).unwrap_or_default().as_str_name();
        let when = at(moment(review.created.as_ref()));
        shown += &format!("\n{} {verdict} at {when}", text::line(&review.author));
        if !review.reason.is_empty() {
            shown += &format!(": {}", text::line(&review.reason));
        }
    }
    if !spec.reviews.is_empty() {
        shown.push('\n');
    }
    shown
}

async fn create(context: &Context, args: &RequestCreateArgs) -> Result<()> {
    let client = context.client(None).await?;
    let wish = wish(&client, args, Utc::now())?;
    let request = requests::create(&client, wish).await?;
    print(&format!("Creating request...\n{}\n", details(&request)))?;
    if args.nowait {
        return print(&format!(
            "hint: use 'tsh login --request-id={}' to login with the request once it is approved\n",
            requests::id(&request)
        ));
    }
    use_when_approved(context, &client, request, print).await.map(std::mem::drop)
}

fn wish(client: &ClusterClient, args: &RequestCreateArgs, now: DateTime<Utc>) -> Result<AccessRequestV3> {
    let until = |name: &str, text: &Option<String>| match text {
        Some(text) => ends(now, text).map(Some).map_err(|e| Error::other(format!("--{name}: {e}"))),
        None => Ok(None),
    };
    let parse = |text: &String| parse_resource_id(text).map_err(|e| Error::other(format!("--resource: {e}")));
    let resources = args.resource.iter().map(parse).collect::<Result<Vec<ResourceId>>>()?;
    Ok(AccessRequestV3 {
        metadata: Some(Metadata {
            expires: until("request-ttl", &args.request_ttl)?.map(timestamp),
            ..Default::default()
        }),
        spec: Some(AccessRequestSpecV3 {
            user: client.account().username.clone(),
            roles: args.roles.clone(),
            request_reason: args.reason.clone(),
            suggested_reviewers: args.reviewers.clone(),
            requested_resource_i_ds: resources,
            max_duration: until("max-duration", &args.max_duration)?.map(timestamp),
            session_ttl: until("session-ttl", &args.session_ttl)?.map(timestamp),
            assume_start_time: args.assume_start_time.as_deref().map(start).transpose()?,
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn ends(now: DateTime<Utc>, text: &str) -> Result<DateTime<Utc>, String> {
    let length = wire::duration::from_text(text).map_err(|e| e.to_string())?;
    let length = TimeDelta::from_std(length).map_err(|_| "too long".to_owned())?;
    now.checked_add_signed(length).ok_or_else(|| "too long".to_owned())
}

fn start(text: &str) -> Result<prost_types::Timestamp> {
    let at = DateTime::parse_from_rfc3339(text).map_err(|_| {
        Error::other(format!("--assume-start-time: {text:?} is no moment, expected the form 2006-01-02T15:04:05Z"))
    })?;
    Ok(timestamp(at.with_timezone(&Utc)))
}

/// Waits for the decision, and takes the roles into the login when it is an approval; says so with `say`.
pub(super) async fn use_when_approved(
    context: &Context,
    client: &ClusterClient,
    request: AccessRequestV3,
    say: impl Fn(&str) -> Result<()>,
) -> Result<Account> {
    let id = requests::id(&request).to_owned();
    let decided = match requests::state(&request) {
        RequestState::None | RequestState::Pending => {
            say("Waiting for request approval...\n")?;
            requests::decision(client, &id).await?
        }
        _ => request,
    };
    let spec = requests::spec(&decided);
    let reason = match spec.resolve_reason.as_str() {
        "" => String::new(),
        reason => format!(": {}", text::line(reason)),
    };
    match requests::state(&decided) {
        RequestState::Approved => {}
        RequestState::Promoted => {
            return Err(Error::other("the request became a membership of an access list: log in again to use it"));
        }
        state => {
            let state = state.as_str_name().to_lowercase();
            return Err(Error::other(format!("access request {id:?} was {state}{reason}")));
        }
    }
    if let Some(start) = moment(spec.assume_start_time.as_ref()).filter(|start| *start > Utc::now()) {
        let start = start.to_rfc3339_opts(SecondsFormat::Secs, true);
        return Err(Error::other(format!(
            "the request is approved{reason}, for use from {start} on: 'tsh login --request-id={id}'"
        )));
    }
    say(&format!("Approval received{reason}, getting updated certificates...\n\n"))?;
    let account = requests::assume(client, &[id]).await?;
    agent::add(&account, context.add_keys()?).await?;
    Ok(account)
}

/// What `tsh login` does with its flags about requests: the login that holds what was approved, or the same.
pub async fn at_login(context: &Context, account: Account, wanted: &AtLogin<'_>) -> Result<Account> {
    if wanted.id.is_none() && wanted.roles.is_none() {
        return Ok(account);
    }
    let client = ClusterClient::new(account.clone()).await?;
    let request = match (wanted.id, wanted.roles) {
        (Some(id), _) => requests::get(&client, id).await?,
        (None, Some(roles)) => {
            let args = RequestCreateArgs {
                roles: roles.split(',').map(|role| role.trim().to_owned()).filter(|role| !role.is_empty()).collect(),
                resource: Vec::new(),
                reason: wanted.reason.unwrap_or_default().to_owned(),
                reviewers: wanted.reviewers.to_vec(),
                nowait: wanted.nowait,
                session_ttl: None,
                request_ttl: None,
                max_duration: None,
                assume_start_time: None,
            };
            let request = requests::create(&client, wish(&client, &args, Utc::now())?).await?;
            print(&format!("Creating request...\n{}\n", details(&request)))?;
            if wanted.nowait {
                return Ok(account);
            }
            request
        }
        (None, None) => return Ok(account),
    };
    use_when_approved(context, &client, request, print).await
}

/// What the user's roles ask of every login: a request for all roles that may be asked for. A login that does not get
/// them is no login.
pub async fn after_login(
    context: &Context,
    account: Account,
    wanted: &AtLogin<'_>,
    terminal: &mut Terminal,
) -> Result<Account> {
    if wanted.id.is_some() || wanted.roles.is_some() || wanted.refused {
        return at_login(context, account, wanted).await;
    }
    let may = requests::capabilities(&ClusterClient::new(account.clone()).await?).await?;
    if !may.auto_request {
        return Ok(account);
    }
    // Known from here on: a fault before it takes nobody's login away.
    let host = client::profile::host(&account.profile.web_proxy_addr).to_owned();
    let made = automatic(context, account, &may, wanted, terminal).await;
    if made.is_err() {
        agent::remove(Some(&host)).await;
        leave::from_proxy(&context.home, &host)?;
    }
    made
}

async fn automatic(
    context: &Context,
    account: Account,
    may: &AccessCapabilities,
    wanted: &AtLogin<'_>,
    terminal: &mut Terminal,
) -> Result<Account> {
    let mut reason = wanted.reason.unwrap_or_default().to_owned();
    if may.require_reason && reason.trim().is_empty() {
        let prompt = match text::line(&may.request_prompt) {
            prompt if prompt.is_empty() => "Reason of the access request".to_owned(),
            prompt => prompt.to_string(),
        };
        let answer = terminal.ask(&format!("{prompt}: "), Echo::On).map_err(|error| {
            Error::other(format!(
                "your roles ask for a reason at login: give it with --request-reason ({prompt}): {error}"
            ))
        })?;
        reason = answer.trim().to_owned();
        if reason.is_empty() {
            return Err(Error::other("your roles ask for a reason at login: give it with --request-reason"));
        }
    }
    let wanted = AtLogin { roles: Some(ALL_ROLES), reason: Some(&reason), ..*wanted };
    at_login(context, account, &wanted).await
}

/// The flags of `tsh login` about requests.
pub struct AtLogin<'a> {
    /// A request that was made.
    pub id: Option<&'a str>,
    /// Roles to ask for.
    pub roles: Option<&'a str>,
    /// Why.
    pub reason: Option<&'a str>,
    /// Who should review it.
    pub reviewers: &'a [String],
    /// Whether not to wait.
    pub nowait: bool,
    /// Whether to ask for nothing, whatever the roles say.
    pub refused: bool,
}

/// Stands for every role that may be asked for.
const ALL_ROLES: &str = "*";

async fn review(context: &Context, args: &RequestReviewArgs) -> Result<()> {
    let client = context.client(None).await?;
    let verdict = if args.approve { RequestState::Approved } else { RequestState::Denied };
    let review = AccessReview {
        author: client.account().username.clone(),
        proposed_state: verdict.into(),
        reason: args.reason.clone(),
        assume_start_time: args.assume_start_time.as_deref().map(start).transpose()?,
        ..Default::default()
    };
    let request = requests::review(&client, &args.id, review).await?;
    let state = requests::state(&request);
    print("Successfully submitted review.  ")?;
    if state != RequestState::Pending {
        return print(&format!("Request state: {}\n", state.as_str_name()));
    }
    let reviews = requests::spec(&request).reviews;
    let count = |state: RequestState| reviews.iter().filter(|review| review.proposed_state == state as i32).count();
    let (approvals, denials) = (count(RequestState::Approved), count(RequestState::Denied));
    print(&format!("Request state: PENDING ({approvals} approvals, {denials} denials so far)\n"))
}

async fn search(context: &Context, args: &RequestSearchArgs) -> Result<()> {
    let client = context.client(None).await?;
    let labels = match args.labels.as_deref().filter(|labels| !labels.is_empty()) {
        Some(text) => parse_labels(text)
            .ok_or_else(|| Error::other(format!("labels {text:?}: expected name=value,name=value")))?,
        None => Default::default(),
    };
    let listed = match args.kind.as_str() {
        "node" | "windows_desktop" | "user_group" => args.kind.clone(),
        "db" | "app" => format!("{}_server", args.kind),
        "kube_cluster" => "kube_server".to_owned(),
        other => {
            return Err(Error::other(format!(
                "--kind={other}: expected node, db, app, kube_cluster, windows_desktop or user_group"
            )));
        }
    };
    let question = ListResourcesRequest {
        resource_type: listed,
        labels: labels.into_iter().collect(),
        search_keywords: args.search.iter().map(|word| word.trim().to_owned()).filter(|w| !w.is_empty()).collect(),
        predicate_expression: args.query.clone(),
        ..Default::default()
    };
    let cluster = client.account().cluster.clone();
    let found = requests::search(&client, question).await?;
    let mut found: Vec<Found> = found.iter().filter_map(|item| Found::of(&cluster, item)).collect();
    found.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    found.dedup_by(|a, b| a.id == b.id);
    if args.format != Format::Text {
        let ids: Vec<&str> = found.iter().map(|one| one.id.as_str()).collect();
        return print_as(args.format, &ids, String::new);
    }
    let mut table = Table::new(&["Name", "Labels", "Resource ID"]).fit_terminal(false);
    for one in &found {
        table.row([&one.name, &list::labels(&one.labels, args.verbose), &one.id]);
    }
    let mut text = table.render();
    if !found.is_empty() {
        let resources: Vec<String> = found.iter().map(|one| format!("--resource {}", text::line(&one.id))).collect();
        text += &format!(
            "\nTo request access to these resources, run\n> tsh request create {} \\\n    --reason <request reason>\n",
            resources.join(" ")
        );
    }
    print(&text)
}

/// A resource that may be asked for.
struct Found {
    name: String,
    id: String,
    labels: std::collections::BTreeMap<String, String>,
}

impl Found {
    fn of(cluster: &str, item: &PaginatedResource) -> Option<Self> {
        let (kind, name, shown, labels) = match item.resource.as_ref()? {
            Resource::Node(node) => {
                ("node", nodes::id(node).to_owned(), nodes::hostname(node).to_owned(), nodes::all_labels(node))
            }
            Resource::AppServer(server) => plain("app", server.spec.as_ref()?.app.as_ref()?),
            Resource::DatabaseServer(server) => plain("db", server.spec.as_ref()?.database.as_ref()?),
            Resource::KubernetesServer(server) => plain("kube_cluster", server.spec.as_ref()?.cluster.as_ref()?),
            Resource::WindowsDesktop(desktop) => plain("windows_desktop", &**desktop),
            Resource::UserGroup(group) => plain("user_group", &**group),
            _ => return None,
        };
        let id = ResourceId {
            cluster_name: cluster.to_owned(),
            kind: kind.to_owned(),
            name,
            sub_resource_name: String::new(),
        };
        Some(Self { name: shown, id: resource_id_text(&id), labels })
    }
}

type Named = (&'static str, String, String, std::collections::BTreeMap<String, String>);

fn plain(kind: &'static str, resource: &impl resources::Resource) -> Named {
    (kind, resource.name().to_owned(), resource.name().to_owned(), resource.metadata().labels.clone())
}

async fn drop(context: &Context, args: &RequestDropArgs) -> Result<()> {
    let client = context.client(None).await?;
    let held = client.account().identity()?.active_requests;
    if let Some(id) = args.ids.iter().find(|id| !held.contains(id)) {
        return Err(Error::other(format!("access request {id:?} is not part of this login")));
    }
    let all = ["*".to_owned()];
    let account = requests::drop(&client, if args.ids.is_empty() { &all } else { &args.ids }).await?;
    agent::add(&account, context.add_keys()?).await?;
    print(&status::active_text(&account, false)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn durations_are_shown_in_their_largest_units() {
        let shown = |seconds| short(TimeDelta::seconds(seconds));
        assert_eq!([shown(59), shown(300), shown(3900), shown(190_000)], ["59s", "5m", "1h5m", "2d4h"]);
    }

    #[test]
    fn a_request_is_shown_with_its_reviews_and_without_control_characters() {
        let request: AccessRequestV3 = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "r1"},
            "spec": {"user": "ann", "roles": ["dba"], "state": 1, "request_reason": "why\u{1b}[2J",
                "suggested_reviewers": ["bob", "eve"],
                "reviews": [{"author": "bob", "proposed_state": 2, "reason": "fine"}]}
        }))
        .unwrap();
        let shown = details(&request);
        assert!(shown.contains("bob, eve (suggested)") && shown.contains("bob APPROVED"), "{shown}");
        assert!(shown.contains("Status:") && shown.contains("PENDING") && !shown.contains('\u{1b}'), "{shown}");
    }
}
