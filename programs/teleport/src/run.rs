//! The life of the process: start what is configured, wait, stop.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use auth_service::Auth;
use config::{Config, HostPort};
use dialer::Dialer;
use process::IdentityStore;
use proxy_service::ProxyService;
use ssh_service::{NodeSettings, Presence, SshService};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::auth::{self, AuthProcess};
use crate::diagnostics::{self, Health, Status};
use crate::error::Result;
use crate::logging::LogLevel;
use crate::member::Process;
use crate::reload::{Origin, Reload};
use crate::{debug, logging, metrics, node, proxy};

/// How long sessions may go on after SIGTERM.
const TERM_GRACE: Duration = Duration::from_secs(10);
/// How long sessions may go on after SIGQUIT.
const QUIT_GRACE: Duration = Duration::from_secs(30 * 3600);

/// How long following a new configuration may take.
const RELOAD: Duration = Duration::from_secs(30);

/// How long a node may be unknown to the cluster, as it is while a proxy restarts, before that is reported.
const RECONNECT: Duration = Duration::from_secs(15);

/// What runs.
#[derive(Default)]
struct Services {
    auth: Option<AuthProcess>,
    proxy: Option<ProxyService>,
    ssh: Option<SshService>,
    /// What keeps identities current; ends when this is dropped.
    following: JoinSet<()>,
}

/// Runs the process to its end.
pub fn run(config: Config, origin: Origin) -> Result<()> {
    let level = logging::start(&config.global.log)?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    raise_file_limit();
    if !config.global.cipher_suites.is_empty() {
        pki::tls::choose_cipher_suites(&config.global.cipher_suites)?;
    }
    // Everything that speaks TLS uses this one implementation.
    let provider = (*pki::tls::crypto_provider()).clone();
    let _ = provider.install_default(); // only fails when it is installed already
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(config, origin, level));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(config: Config, origin: Origin, level: LogLevel) -> Result<()> {
    let status = Status::new();
    status.report("process", Health::Starting);
    if let Some(address) = &config.global.diag_addr {
        diagnostics::serve(proxy::socket(address)?, status.clone(), config.metrics.is_none()).await?;
    }
    if let Some(service) = &config.metrics {
        let address = metrics::serve(service, diagnostics::metrics_router(status.clone())).await?;
        info!(%address, "metrics are served");
    }
    write_pid_file(config.global.pid_file.as_deref())?;
    let mut signals = Signals::new()?;
    let mut services = Services::default();
    let running = config.clone();
    let started = tokio::select! {
        started = start(config, &level, &status, &mut services) => started.map(|()| true),
        _ = signals.stop() => {
            info!("stopped before the start was complete");
            Ok(false)
        }
    };
    let grace = match started {
        Ok(true) => {
            status.report("process", Health::Ok);
            let mut reload = Reload { origin, running, level, auth: services.auth(), node: services.node() };
            live(&mut signals, &mut reload).await
        }
        Ok(false) | Err(_) => Duration::ZERO,
    };
    info!("stopping");
    tokio::select! {
        () = services.stop(grace) => {}
        // Whoever asked for patience may change their mind.
        () = signals.stop() => info!("stopping at once"),
    }
    started.map(drop)
}

/// Until a signal ends the process; says how long sessions may go on.
async fn live(signals: &mut Signals, reload: &mut Reload) -> Duration {
    loop {
        match signals.wait().await {
            Wanted::Stop(grace) => return grace,
            Wanted::Reload => {
                if let Some(grace) = reloading(async || signals.wait().await, async || reload.run().await).await {
                    return grace;
                }
            }
        }
    }
}

/// Follows a new configuration, once more if that was asked for meanwhile; how long sessions may go on when the process is
/// to stop instead.
async fn reloading(mut next: impl AsyncFnMut() -> Wanted, mut reload: impl AsyncFnMut()) -> Option<Duration> {
    loop {
        let mut again = false;
        let mut followed = std::pin::pin!(timeout(RELOAD, reload()));
        loop {
            tokio::select! {
                wanted = next() => match wanted {
                    Wanted::Stop(grace) => return Some(grace),
                    // Its file may have changed after it was read.
                    Wanted::Reload => again = true,
                },
                followed = &mut followed => {
                    if followed.is_err() {
                        warn!("the configuration was read again, but could not be followed within 30 s");
                    }
                    break;
                }
            }
        }
        if !again {
            return None;
        }
    }
}

/// Starts the configured services, each needing those before it.
async fn start(config: Config, level: &LogLevel, status: &Status, services: &mut Services) -> Result<()> {
    let data_dir = config.global.data_dir.clone();
    let host_uuid = process::host_uuid(&data_dir)?;
    let store = Arc::new(IdentityStore::open(&data_dir).await?);
    if config.debug_service {
        debug::serve(&data_dir, level.clone());
    }
    let dialer = Dialer::from_env()?;
    let mut process = Process { config, host_uuid, store, dialer, auth: None, local_auth: Vec::new() };
    if process.config.auth.enabled {
        let (store, uuid) = (&process.store, &process.host_uuid);
        let auth = auth::start(&process.config, store, uuid, process.exchange(), status).await?;
        services.following.spawn(auth::keep_admin_current(auth.auth.clone(), process.store.clone()));
        process.auth = Some(auth.auth.clone());
        process.local_auth = auth.addresses.iter().map(local).collect();
        services.auth = Some(auth);
        status.report_service("auth_service");
    }
    if process.config.proxy.enabled {
        let (proxy, identities) = proxy::start(&process).await?;
        services.following.spawn(identities.follow());
        status.count_tunnels(proxy.tunnel_count());
        services.proxy = Some(proxy);
        status.report_service("proxy_service");
    }
    if process.config.ssh.enabled {
        let (node, identities) = node::start(&process).await?;
        services.following.spawn(identities.follow());
        status.report("node", Health::Starting);
        tokio::spawn(follow_presence(node.presence(), status.clone()));
        status.count_lost(node.lost_events());
        services.ssh = Some(node);
        status.report_service("ssh_service");
    }
    Ok(())
}

/// Where this process reaches a listener of its own.
fn local(address: &std::net::SocketAddr) -> HostPort {
    let ip = if address.ip().is_unspecified() { [127, 0, 0, 1].into() } else { address.ip() };
    HostPort { host: ip.to_string(), port: address.port() }
}

/// Reports how the node is doing for as long as it runs.
async fn follow_presence(mut presence: watch::Receiver<Presence>, status: Status) {
    let mut missing = Health::Starting;
    loop {
        let now = *presence.borrow_and_update();
        if now == Presence::Known {
            missing = Health::Degraded;
            status.report("node", Health::Ok);
        } else if let Ok(Ok(())) = timeout(RECONNECT, presence.changed()).await {
            continue;
        } else {
            status.report("node", missing);
        }
        if presence.changed().await.is_err() {
            return;
        }
    }
}

impl Services {
    fn auth(&self) -> Option<Auth> {
        self.auth.as_ref().map(|auth| auth.auth.clone())
    }

    fn node(&self) -> Option<NodeSettings> {
        self.ssh.as_ref().map(SshService::settings)
    }

    /// Stops in the reverse order of the start, so that nothing loses what it needs.
    async fn stop(mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.following.shutdown().await;
        if let Some(ssh) = self.ssh {
            ssh.stop(grace).await;
        }
        if let Some(proxy) = self.proxy {
            proxy.stop(deadline.saturating_duration_since(Instant::now())).await;
        }
        if let Some(auth) = self.auth {
            auth.auth.shutdown().await;
            auth.backend.close().await;
        }
    }
}

/// The signals that the process listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
enum Wanted {
    /// To stop; sessions may go on for so long.
    Stop(Duration),
    /// To read the configuration again.
    Reload,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn wait(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::Stop(TERM_GRACE),
            _ = self.interrupt.recv() => Wanted::Stop(Duration::from_secs(1)),
            _ = self.quit.recv() => Wanted::Stop(QUIT_GRACE),
            _ = self.hang_up.recv() => Wanted::Reload,
        }
    }

    /// Waits for the end. There is nothing to reload before the start is complete.
    async fn stop(&mut self) {
        while matches!(self.wait().await, Wanted::Reload) {}
    }
}

fn write_pid_file(path: Option<&Path>) -> Result<()> {
    if let Some(path) = path {
        fs::write(path, std::process::id().to_string())?;
    }
    Ok(())
}

/// Ten thousand agents are ten thousand sockets.
fn raise_file_limit() {
    if let Err(error) = ssh_service::os::process::raise_file_limit() {
        warn!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::pending;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_process_that_follows_its_configuration_can_still_be_stopped() {
        let (signals, mut wanted) = mpsc::channel(4);
        signals.send(Wanted::Stop(TERM_GRACE)).await.unwrap();
        let stopped = reloading(async || wanted.recv().await.unwrap(), async || pending().await).await;
        assert_eq!(stopped, Some(TERM_GRACE));
    }

    #[tokio::test]
    async fn a_configuration_that_changes_while_it_is_followed_is_read_again() {
        let (signals, mut wanted) = mpsc::channel(4);
        let mut reads = 0;
        let reload = async || {
            reads += 1;
            if reads == 1 {
                signals.send(Wanted::Reload).await.unwrap();
                while signals.capacity() < signals.max_capacity() {
                    tokio::task::yield_now().await;
                }
            }
        };
        assert_eq!(reloading(async || wanted.recv().await.unwrap(), reload).await, None);
        assert_eq!(reads, 2);
    }
}
