//! `tsh scp`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::cluster::ClusterClient;
use client::copy::{Copied, Location, Observer, Options, Place, PlaceError, Sources, copy};
use client::ssh::{Destination, Host, Moderated, SshConnection};
use client::{Error, Result, text};

use super::ssh::{connect, find_hosts, with_port};
use crate::args::ScpArgs;
use crate::context::Context;
use crate::progress::Progress;

/// Exit code when something was not copied.
const SOME_FAILED: i32 = 1;

/// Copies files.
pub async fn scp(context: &Context, args: &ScpArgs) -> Result<i32> {
    let (target, sources) = args.paths.split_last().ok_or_else(|| Error::other("the target is missing"))?;
    let target = Location::parse(target)?;
    let sources = sources.iter().map(|source| Location::parse(source)).collect::<Result<Vec<_>, _>>()?;
    let anywhere = |location: &Location| matches!(location, Location::There { .. });
    if !anywhere(&target) && !sources.iter().any(anywhere) {
        return Err(Error::other("neither source nor target is on a host: write [login@]host:path for one of them"));
    }
    let moderated = args.moderated_session_id.as_ref().map(|id| moderated(id, &sources, &target)).transpose()?;
    let (cluster, port) = (args.cluster.as_deref(), args.port);
    let mut hosts = Hosts { context, cluster, port, moderated, open: Vec::new(), unreached: 0 };
    let options = Options { recursive: args.recursive, preserve: args.preserve, resume: args.resume };
    let sources = read_from(&mut hosts, &sources).await?;
    let mut copied = Copied::default();
    for (name, place, path) in write_to(&mut hosts, &target).await? {
        let reporter = Reporter { prefix: name, progress: Progress::new(args.quiet) };
        let result = copy(&sources, &place, &path, options, &reporter).await;
        reporter.progress.finish();
        copied.files += result.files;
        copied.failures += result.failures;
    }
    let unreached = hosts.unreached;
    hosts.close().await;
    Ok(if copied.failures + unreached == 0 { 0 } else { SOME_FAILED })
}

/// The one copy that is to be approved in a session.
fn moderated(session: &str, sources: &[Location], target: &Location) -> Result<Moderated> {
    let session = session.to_owned();
    match (sources, target) {
        ([Location::There { path, .. }], Location::Here(_)) => {
            let location = path.to_string_lossy().into_owned();
            Ok(Moderated { session, download: true, location, filename: String::new() })
        }
        ([Location::Here(source)], Location::There { path, .. }) => {
            let name = source.file_name().ok_or_else(|| Error::other("the source is no file"))?;
            let (location, filename) = (path.to_string_lossy().into_owned(), name.to_string_lossy().into_owned());
            Ok(Moderated { session, download: false, location, filename })
        }
        _ => Err(Error::other("beside a moderated session one file is copied, from this machine to a host or back")),
    }
}

/// The sources, grouped by their places in the order in which they are written.
async fn read_from(hosts: &mut Hosts<'_>, locations: &[Location]) -> Result<Vec<Sources>> {
    let mut sources = Vec::new();
    for location in locations {
        match location {
            Location::Here(path) => sources.push(Sources { place: Place::Here, paths: vec![path.clone()] }),
            Location::There { destination, path } => {
                for (_, place) in hosts.of(destination).await? {
                    sources.push(Sources { place, paths: vec![path.clone()] });
                }
            }
        }
    }
    Ok(sources)
}

/// The targets: more than one where labels name several hosts, each with the name to show then.
async fn write_to(hosts: &mut Hosts<'_>, location: &Location) -> Result<Vec<(Option<String>, Place, PathBuf)>> {
    Ok(match location {
        Location::Here(path) => vec![(None, Place::Here, path.clone())],
        Location::There { destination, path } => {
            let found = hosts.of(destination).await?;
            let several = found.len() > 1;
            found.into_iter().map(|(name, place)| (several.then_some(name), place, path.clone())).collect()
        }
    })
}

/// Connections that are open, so that one serves all that is copied from or to a host.
struct Hosts<'a> {
    context: &'a Context,
    cluster: Option<&'a str>,
    port: Option<u16>,
    /// What moderators have to approve first.
    moderated: Option<Moderated>,
    open: Vec<Open>,
    /// Hosts of a label that could not be reached.
    unreached: u64,
}

struct Open {
    /// Proxy and cluster: hosts of several may be called the same.
    cluster: (String, String),
    host: Host,
    login: String,
    place: Place,
    /// Carries the file server.
    connection: SshConnection,
}

impl Hosts<'_> {
    /// Takes leave of the hosts.
    async fn close(self) {
        for open in self.open {
            open.connection.close().await;
        }
    }

    /// The hosts of a destination with their names.
    async fn of(&mut self, destination: &Destination) -> Result<Vec<(String, Place)>> {
        let login = destination.login.clone().map_or_else(|| self.context.host_login(), Ok)?;
        let target = with_port(destination.target.clone(), self.port);
        let (client, target) = self.context.destination(target, self.cluster).await?;
        let found = find_hosts(&client, target).await?;
        if let [first, _, ..] = found.as_slice() {
            eprintln!("WARNING: {} hosts match, among them {}", found.len(), text::line(&first.name));
        }
        let several = found.len() > 1;
        let mut places = Vec::with_capacity(found.len());
        for host in found {
            match self.place(&client, &host, &login).await {
                Ok(place) => places.push((host.name, place)),
                // The others of a label are still worth reaching.
                Err(error) if several => {
                    eprintln!("ERROR: [{}] {}", text::line(&host.name), text::lines(&error.to_string()));
                    self.unreached += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(places)
    }

    async fn place(&mut self, client: &ClusterClient, host: &Host, login: &str) -> Result<Place> {
        let account = client.account();
        let cluster = (account.proxy_host().to_owned(), account.cluster.clone());
        let known = |open: &&Open| open.cluster == cluster && open.host == *host && open.login == login;
        if let Some(open) = self.open.iter().find(known) {
            return Ok(open.place.clone());
        }
        let connection = connect(client, host, login).await?;
        if self.moderated.is_some() {
            eprintln!("Waiting for the moderators of the session to approve the file transfer...");
        }
        let place = Place::There(Arc::new(connection.sftp(self.moderated.as_ref()).await?));
        let (host, login) = (host.clone(), login.to_owned());
        self.open.push(Open { cluster, host, login, place: place.clone(), connection });
        Ok(place)
    }
}

/// Tells the user what happens.
struct Reporter {
    /// The host, where there are several.
    prefix: Option<String>,
    progress: Progress,
}

impl Observer for Reporter {
    fn begin(&self, name: &Path, size: u64, there: u64) {
        self.progress.begin(self.prefix.as_deref(), name, size, there);
    }

    fn advance(&self, name: &Path, bytes: u64) {
        self.progress.advance(name, bytes);
    }

    fn end(&self, name: &Path) {
        self.progress.end(name);
    }

    fn failed(&self, path: &Path, error: &PlaceError) {
        self.progress.fail(path);
        let host = self.prefix.as_deref().map(|host| format!("[{}] ", text::line(host))).unwrap_or_default();
        eprintln!("ERROR: {host}{}: {}", text::line(&path.to_string_lossy()), text::lines(&error.to_string()));
    }
}
