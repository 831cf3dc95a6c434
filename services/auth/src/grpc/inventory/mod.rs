//! The inventory: which instances are connected, and what they report about themselves.
//!
//! Every instance keeps one control stream to one Auth Service. Over it go its heartbeats, pings and labels; while it
//! lives, the Auth Service keeps the instance's records alive.

mod control;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{Stream, stream};
use parking_lot::Mutex;
use resources::SystemRole;
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming};
use wire::error::{Error, Result};
use wire::proto::{
    DownstreamInventoryOneOf, DownstreamInventoryPing, InventoryConnectedServiceCounts,
    InventoryConnectedServiceCountsRequest, InventoryPingRequest, InventoryPingResponse, InventoryStatusRequest,
    InventoryStatusSummary, UpstreamInventoryHello, UpstreamInventoryOneOf, downstream_inventory_one_of::Msg as Down,
};
use wire::types::{InstanceControlLogEntry, InstanceFilter, InstanceV1};

use super::Api;
use crate::authz::AuthContext;
use crate::server::Version;
use crate::store::kind;

/// How long an instance may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that may wait for one instance.
const QUEUE: usize = 16;
/// How long a ping stays in the control log of an instance.
const LOG_TTL: Duration = Duration::from_secs(3600);
/// Entries kept in the control log of an instance.
const LOG_LENGTH: usize = 16;

/// The instances connected to this Auth Service.
#[derive(Default)]
pub struct Inventory {
    connected: Mutex<HashMap<String, Vec<Arc<Connected>>>>,
    /// The services of this very process.
    local: Mutex<Option<UpstreamInventoryHello>>,
    next_ping: AtomicU64,
}

/// One control stream.
pub struct Connected {
    hello: UpstreamInventoryHello,
    to_instance: mpsc::Sender<Result<DownstreamInventoryOneOf, Status>>,
    pings: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Inventory {
    /// What the connected instances said about themselves, one entry for each.
    pub fn hellos(&self) -> Vec<UpstreamInventoryHello> {
        let mut hellos: BTreeMap<String, UpstreamInventoryHello> = BTreeMap::new();
        let local = self.local.lock().clone();
        let connected = self.connected.lock();
        for hello in local.iter().chain(connected.values().flatten().map(|stream| &stream.hello)) {
            match hellos.get_mut(&hello.server_id) {
                Some(known) => add_services(known, hello),
                None => drop(hellos.insert(hello.server_id.clone(), hello.clone())),
            }
        }
        hellos.into_values().collect()
    }

    /// A hello with the services of all streams of its instance: one process may keep several, and the Auth Service
    /// runs in a process that may have other services, too.
    fn with_all_services(&self, hello: &UpstreamInventoryHello) -> UpstreamInventoryHello {
        let mut whole = hello.clone();
        if let Some(local) = self.local.lock().as_ref().filter(|local| local.server_id == hello.server_id) {
            add_services(&mut whole, local);
        }
        for stream in self.connected.lock().get(&hello.server_id).into_iter().flatten() {
            add_services(&mut whole, &stream.hello);
        }
        whole
    }

    /// How many instances are connected.
    pub fn len(&self) -> usize {
        self.connected.lock().len()
    }

    /// Whether no instance is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Measures how long an instance takes to answer.
    ///
    /// # Errors
    /// `NotFound` when it has no control stream here; `ConnectionProblem` when it does not answer within 10 s.
    pub async fn ping(&self, server_id: &str) -> Result<(u64, Duration)> {
        if self.local.lock().as_ref().is_some_and(|local| local.server_id == server_id) {
            return Ok((0, Duration::ZERO));
        }
        let stream = self.connected.lock().get(server_id).and_then(|streams| streams.last().cloned());
        let stream =
            stream.ok_or_else(|| Error::not_found(format!("no control stream found for server {server_id:?}")))?;
        let id = self.next_ping.fetch_add(1, Ordering::Relaxed) + 1;
        let (answered, answer) = oneshot::channel();
        stream.pings.lock().insert(id, answered);
        let started = Instant::now();
        let ping = DownstreamInventoryOneOf { msg: Some(Down::Ping(DownstreamInventoryPing { id })) };
        let round_trip = async {
            stream.to_instance.send(Ok(ping)).await.ok()?;
            answer.await.ok()
        };
        let outcome = tokio::time::timeout(PING_TIMEOUT, round_trip).await;
        stream.pings.lock().remove(&id);
        match outcome {
            Ok(Some(())) => Ok((id, started.elapsed())),
            Ok(None) => Err(Error::connection_problem(format!("server {server_id:?} disconnected"))),
            Err(_) => Err(Error::connection_problem(format!("server {server_id:?} did not answer within 10 s"))),
        }
    }

    /// Whether nothing else of the instance is here.
    fn is_only(&self, stream: &Connected) -> bool {
        let id = &stream.hello.server_id;
        let local = self.local.lock().as_ref().is_some_and(|local| local.server_id == *id);
        !local && self.connected.lock().get(id).is_none_or(|streams| streams.len() <= 1)
    }

    fn add(&self, stream: Arc<Connected>) {
        self.connected.lock().entry(stream.hello.server_id.clone()).or_default().push(stream);
    }

    /// Forgets a stream; says whether it was the last one of its instance.
    fn remove(&self, stream: &Arc<Connected>) -> bool {
        let mut connected = self.connected.lock();
        let Some(streams) = connected.get_mut(&stream.hello.server_id) else { return true };
        streams.retain(|other| !Arc::ptr_eq(other, stream));
        let last = streams.is_empty();
        if last {
            connected.remove(&stream.hello.server_id);
        }
        last
    }
}

fn add_services(to: &mut UpstreamInventoryHello, from: &UpstreamInventoryHello) {
    for service in &from.services {
        if !to.services.contains(service) {
            to.services.push(service.clone());
        }
    }
}

impl Connected {
    fn answered(&self, ping: u64) {
        if let Some(waiting) = self.pings.lock().remove(&ping) {
            let _ = waiting.send(());
        }
    }
}

impl Api {
    /// Lists the services of this process as an instance, until the core closes. Services that keep a control stream
    /// of their own need not be named.
    pub fn announce_process(&self, services: &[SystemRole]) {
        let hello = UpstreamInventoryHello {
            version: wire::VERSION.to_owned(),
            server_id: self.auth().host_uuid().to_owned(),
            services: services.iter().map(|role| role.name().to_owned()).collect(),
            hostname: self.auth().node_name().to_owned(),
            ..Default::default()
        };
        *self.inventory().local.lock() = Some(hello.clone());
        let (api, closing) = (self.clone(), self.closing());
        self.auth().tasks().spawn(closing.run_until_cancelled_owned(async move {
            loop {
                control::report(&api, &hello).await;
                tokio::time::sleep(control::report_pause()).await;
            }
        }));
    }
}

/// Serves one control stream.
pub async fn inventory_control_stream(
    api: &Api,
    context: &Arc<AuthContext>,
    incoming: Streaming<UpstreamInventoryOneOf>,
) -> Result<impl Stream<Item = Result<DownstreamInventoryOneOf, Status>> + Send + 'static + use<>> {
    let (to_instance, outgoing) = mpsc::channel(QUEUE);
    let control = control::Control::new(api.clone(), Arc::clone(context), to_instance);
    api.auth().tasks().spawn(control.run(incoming));
    Ok(tokio_stream::wrappers::ReceiverStream::new(outgoing))
}

/// Counts of all instances; the connected ones in full for the administrator.
pub async fn get_inventory_status(
    api: &Api,
    context: &AuthContext,
    message: InventoryStatusRequest,
) -> Result<InventoryStatusSummary> {
    let mut summary = InventoryStatusSummary::default();
    if message.connected {
        if !context.is_admin() {
            return Err(Error::access_denied(
                "access denied: connected instances are listed on the Auth Service's machine only",
            ));
        }
        summary.connected = api.inventory().hellos();
    }
    let count = |counts: &mut BTreeMap<String, u32>, key: &str| {
        let entry = counts.entry(key.to_owned()).or_default();
        *entry = entry.saturating_add(1);
    };
    for instance in api.auth().store().list::<kind::Instance>().await? {
        let Some(spec) = &instance.spec else { continue };
        summary.instance_count = summary.instance_count.saturating_add(1);
        count(&mut summary.version_counts, &spec.version);
        count(&mut summary.upgrader_counts, &spec.external_upgrader);
        spec.services.iter().for_each(|service| count(&mut summary.service_counts, service));
    }
    Ok(summary)
}

/// How many connected instances run each service.
pub async fn get_connected_service_counts(
    api: &Api,
    _: &AuthContext,
    _: InventoryConnectedServiceCountsRequest,
) -> Result<InventoryConnectedServiceCounts> {
    let mut service_counts: BTreeMap<String, u64> = BTreeMap::new();
    for service in api.inventory().hellos().into_iter().flat_map(|hello| hello.services) {
        *service_counts.entry(service).or_default() += 1;
    }
    Ok(InventoryConnectedServiceCounts { service_counts })
}

pub async fn ping_inventory(
    api: &Api,
    _: &AuthContext,
    message: InventoryPingRequest,
) -> Result<InventoryPingResponse> {
    let server_id = super::named(&message.server_id, "ServerID")?;
    let (id, duration) = api.inventory().ping(server_id).await?;
    if message.control_log {
        log_ping(api, server_id, id).await?;
    }
    Ok(InventoryPingResponse { duration: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX) })
}

pub async fn get_instances(
    api: &Api,
    _: &AuthContext,
    filter: InstanceFilter,
) -> Result<impl Stream<Item = Result<InstanceV1, Status>> + Send + 'static + use<>> {
    let instances = api.auth().store().list::<kind::Instance>().await?;
    let found: Vec<_> = instances.into_iter().filter(|instance| matches(&filter, instance)).collect();
    Ok(stream::iter(found.into_iter().map(|instance| Ok(InstanceV1::clone(&instance)))))
}

async fn log_ping(api: &Api, server_id: &str, id: u64) -> Result<()> {
    let now = api.auth().now();
    let changed = api.auth().store().change::<kind::Instance>(server_id, |instance| {
        let log = &mut instance.spec.get_or_insert_default().control_log;
        log.push(InstanceControlLogEntry {
            r#type: "control-log-ping".to_owned(),
            id,
            time: Some(wire::time::timestamp(now)),
            ttl: i64::try_from(LOG_TTL.as_nanos()).unwrap_or(i64::MAX),
            ..Default::default()
        });
        let surplus = log.len().saturating_sub(LOG_LENGTH);
        log.drain(..surplus);
        Ok(())
    });
    changed.await.map(drop)
}

fn matches(filter: &InstanceFilter, instance: &InstanceV1) -> bool {
    let name = instance.header.as_ref().and_then(|header| header.metadata.as_ref()).map_or("", |m| m.name.as_str());
    let spec = instance.spec.clone().unwrap_or_default();
    let equals = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
    let version = Version::parse(&spec.version);
    let compares = |wanted: &str, order: std::cmp::Ordering| {
        wanted.is_empty()
            || Version::parse(wanted).zip(version.clone()).is_some_and(|(wanted, own)| own.cmp(&wanted) == order)
    };
    equals(&filter.server_id, name)
        && equals(filter.version.trim_start_matches('v'), spec.version.trim_start_matches('v'))
        && equals(&filter.external_upgrader, &spec.external_upgrader)
        && (!filter.no_ext_upgrader || spec.external_upgrader.is_empty())
        && filter.services.iter().all(|service| spec.services.contains(service))
        && compares(&filter.older_than_version, std::cmp::Ordering::Less)
        && compares(&filter.newer_than_version, std::cmp::Ordering::Greater)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use wire::types::InstanceSpecV1;

    use super::*;

    #[test]
    fn instances_are_filtered_by_version_service_and_upgrader() {
        let spec = InstanceSpecV1 {
            version: "16.4.0".to_owned(),
            services: vec!["Node".to_owned()],
            external_upgrader: "unit".to_owned(),
            ..Default::default()
        };
        let instance = InstanceV1 { spec: Some(spec), ..Default::default() };
        let all = InstanceFilter::default();
        assert!(matches(&all, &instance));
        assert!(matches(&InstanceFilter { older_than_version: "17.0.0".to_owned(), ..all.clone() }, &instance));
        assert!(!matches(&InstanceFilter { newer_than_version: "17.0.0".to_owned(), ..all.clone() }, &instance));
        assert!(!matches(&InstanceFilter { services: vec!["Db".to_owned()], ..all.clone() }, &instance));
        assert!(!matches(&InstanceFilter { no_ext_upgrader: true, ..all.clone() }, &instance));
        assert!(matches(&InstanceFilter { version: "v16.4.0".to_owned(), ..all }, &instance));
    }

    #[test]
    fn a_process_with_several_streams_is_one_instance_with_all_its_services() {
        let inventory = Inventory::default();
        let hello = |service: &str| UpstreamInventoryHello {
            server_id: "s1".to_owned(),
            services: vec![service.to_owned()],
            ..Default::default()
        };
        *inventory.local.lock() = Some(hello("Auth"));
        let (to_instance, _outgoing) = mpsc::channel(1);
        for service in ["Node", "Proxy"] {
            let to_instance = to_instance.clone();
            inventory.add(Arc::new(Connected { hello: hello(service), to_instance, pings: Mutex::default() }));
        }
        let hellos = inventory.hellos();
        assert_eq!(hellos.len(), 1);
        assert_eq!(hellos[0].services, ["Auth", "Node", "Proxy"]);
        assert_eq!(inventory.with_all_services(&hello("Node")).services, ["Node", "Auth", "Proxy"]);
    }

    #[tokio::test]
    async fn only_connected_instances_can_be_pinged() {
        let inventory = Inventory::default();
        let (to_instance, mut outgoing) = mpsc::channel(1);
        let hello = UpstreamInventoryHello { server_id: "s1".to_owned(), ..Default::default() };
        let stream = Arc::new(Connected { hello, to_instance, pings: Mutex::default() });
        inventory.add(Arc::clone(&stream));
        let answer = async {
            let Some(Ok(DownstreamInventoryOneOf { msg: Some(Down::Ping(ping)) })) = outgoing.recv().await else {
                panic!("no ping");
            };
            stream.answered(ping.id);
        };
        let (pinged, ()) = tokio::join!(inventory.ping("s1"), answer);
        assert!(pinged.is_ok());
        assert!(inventory.remove(&stream));
        assert_eq!(inventory.ping("s1").await.unwrap_err().kind, wire::error::ErrorKind::NotFound);
    }
}
