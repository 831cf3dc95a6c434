//! An Auth Service and a Proxy Service, in one process or in two, and the nodes beside them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use regex::Regex;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::AgentSetup;
use crate::browser::Browser;
use crate::client::Client;
use crate::command::{Finished, account, clean_environment, program, run};
use crate::daemon::{Daemon, READY};
use crate::person::Person;
use crate::ports::{free_port, listen};
use crate::waiting::wait_for;

/// The static token with which everything of the cluster may join.
pub const TOKEN: &str = "e2e-static-join-token";
/// How long a command of `tctl` may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A running cluster in a temporary folder.
pub struct Cluster {
    /// The process with the Auth Service, and the Proxy Service unless that has its own.
    pub auth: Daemon,
    /// The process of the Proxy Service in a cluster of several processes.
    pub proxy: Option<Daemon>,
    name: String,
    auth_port: u16,
    web_port: u16,
    made: AtomicUsize,
    // Last, so that the processes end before their files go.
    folder: TempDir,
}

/// What a cluster is told beyond what every one is.
#[derive(Clone, Debug)]
pub struct ClusterSetup {
    name: String,
    apart: bool,
    auth: Value,
    proxy: Value,
    teleport: Value,
    variables: Vec<(String, String)>,
}

impl ClusterSetup {
    /// A cluster of one process and one public port.
    pub fn new(name: &str) -> Self {
        let (auth, proxy, teleport) = (json!({}), json!({}), json!({}));
        Self { name: name.to_owned(), apart: false, auth, proxy, teleport, variables: Vec::new() }
    }

    /// Auth and Proxy Service in a process each; the proxy joins knowing the pin of the cluster's authority.
    pub fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// With these settings of `auth_service`.
    pub fn auth(mut self, settings: &Value) -> Self {
        self.auth = with(self.auth, settings);
        self
    }

    /// With these settings of `proxy_service`.
    pub fn proxy(mut self, settings: &Value) -> Self {
        self.proxy = with(self.proxy, settings);
        self
    }

    /// With these settings of `teleport`, for every process.
    pub fn teleport(mut self, settings: &Value) -> Self {
        self.teleport = with(self.teleport, settings);
        self
    }

    /// With these variables in the environment of the process with the Auth Service.
    pub fn variables(mut self, variables: &[(&str, &str)]) -> Self {
        self.variables.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// Clients and agents use a port per service: an SSH port and a tunnel port beside the public one.
    pub fn separate(self, ssh: u16, tunnel: u16) -> Self {
        self.auth(&json!({ "proxy_listener_mode": "separate" }))
            .proxy(&json!({ "listen_addr": listen(ssh), "tunnel_listen_addr": listen(tunnel) }))
    }

    /// Agents hold one tunnel, and proxies reach them through each other at this port.
    pub fn peering(self, port: u16) -> Self {
        let strategy = json!({ "type": "proxy_peering", "agent_connection_count": 1 });
        self.auth(&json!({ "tunnel_strategy": strategy })).proxy(&json!({ "peer_listen_addr": listen(port) }))
    }

    /// Starts it; ready when this returns.
    #[track_caller]
    pub fn start(self) -> Cluster {
        let (folder, auth_port) = (new_folder(), free_port());
        let web_port = match self.proxy["web_listen_addr"].as_str().and_then(|a| a.rsplit_once(':')) {
            Some((_, port)) => port.parse().expect("a port"),
            None => free_port(),
        };
        let auth_section = with(auth_section(&self.name, auth_port), &self.auth);
        let proxy_section = with(proxy_section(web_port), &self.proxy);
        let beside = if self.apart { json!({ "enabled": false }) } else { proxy_section.clone() };
        let config = json!({
            "version": "v3",
            "teleport": with(common(&folder.path().join("auth"), "main-host"), &self.teleport),
            "auth_service": auth_section,
            "proxy_service": beside,
            "ssh_service": { "enabled": false },
        });
        // The public port shows a certificate of its own making.
        let arguments: &[&str] = if self.apart { &[] } else { &["--insecure"] };
        let (path, diagnostics) = (folder.path(), Some(free_port()));
        let auth = Daemon::start_in(path, "auth", &config, arguments, diagnostics, &self.variables);
        let made = AtomicUsize::new(0);
        let mut cluster = Cluster { auth, proxy: None, name: self.name, auth_port, web_port, made, folder };
        if self.apart {
            cluster.auth.wait_ready();
            let config = cluster.proxy_config("proxy", &proxy_section, &self.teleport);
            cluster.proxy = Some(Daemon::start(cluster.folder.path(), "proxy", &config, &[], Some(free_port())));
        }
        cluster.ready()
    }
}

impl Cluster {
    /// Auth and Proxy Service in one process; ready when this returns.
    #[track_caller]
    pub fn start(name: &str) -> Self {
        ClusterSetup::new(name).start()
    }

    /// A further Auth Service on the same storage.
    pub fn another_auth(&self, host: &str, storage: &Value) -> Daemon {
        self.another_auth_with(host, storage, &json!({}), &[])
    }

    /// The same, with these settings of `auth_service` and these variables in its environment.
    pub fn another_auth_with(
        &self,
        host: &str,
        storage: &Value,
        settings: &Value,
        variables: &[(String, String)],
    ) -> Daemon {
        let config = json!({
            "version": "v3",
            "teleport": with(common(&self.path(host), host), &json!({ "storage": storage })),
            "auth_service": with(auth_section(&self.name, free_port()), settings),
            "proxy_service": { "enabled": false },
            "ssh_service": { "enabled": false },
        });
        Daemon::start_in(self.folder.path(), host, &config, &[], Some(free_port()), variables)
    }

    /// Auth and Proxy Service in a process each.
    #[track_caller]
    pub fn start_apart(name: &str) -> Self {
        ClusterSetup::new(name).apart().start()
    }

    /// A further proxy of a cluster of several processes, with these settings beside its addresses.
    pub fn another_proxy(&self, name: &str, settings: &Value) -> (Daemon, String) {
        let port = free_port();
        let config = self.proxy_config(name, &with(proxy_section(port), settings), &json!({}));
        let daemon = Daemon::start(self.folder.path(), name, &config, &[], Some(free_port()));
        (daemon, listen(port))
    }

    fn proxy_config(&self, name: &str, section: &Value, more: &Value) -> Value {
        let mut teleport = with(common(&self.path(name), &format!("{name}-host")), more);
        teleport["auth_server"] = json!(self.auth_address());
        teleport["join_params"] = json!({ "method": "token", "token_name": TOKEN });
        teleport["ca_pin"] = json!(self.pin());
        json!({
            "version": "v3",
            "teleport": teleport,
            "auth_service": { "enabled": false },
            "proxy_service": section,
            "ssh_service": { "enabled": false },
        })
    }

    #[track_caller]
    fn ready(mut self) -> Self {
        self.wait_ready();
        self
    }

    /// Waits until the processes are ready and the public port answers.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        self.auth.wait_ready();
        if let Some(proxy) = &mut self.proxy {
            proxy.wait_ready();
        }
        wait_for("the public port", READY, || self.browser().try_get("/webapi/ping"));
    }

    /// The name of the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Host and port of the one public door.
    pub fn address(&self) -> String {
        listen(self.web_port)
    }

    /// Host and port of the Auth Service.
    pub fn auth_address(&self) -> String {
        listen(self.auth_port)
    }

    /// Somebody's browser at the public door.
    pub fn browser(&self) -> Browser {
        Browser::new(&format!("https://{}", self.address()))
    }

    /// A path in the cluster's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in the cluster's folder that was not given before.
    pub fn new_path(&self, what: &str) -> PathBuf {
        self.path(&format!("{what}-{}", self.made.fetch_add(1, Ordering::Relaxed)))
    }

    /// Runs a command of `tctl` on the host of the Auth Service.
    #[track_caller]
    pub fn tctl(&self, arguments: &[&str]) -> Finished {
        self.tctl_at(&self.auth, arguments)
    }

    /// The same on the host of one of several Auth Services.
    #[track_caller]
    pub fn tctl_at(&self, auth: &Daemon, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program("tctl"));
        command.arg("-c").arg(auth.config()).args(arguments).env_clear().envs(clean_environment());
        run(&mut command, b"", LIMIT)
    }

    /// Runs a command of `tctl` anywhere, with an identity file, through the public port.
    #[track_caller]
    pub fn tctl_with(&self, identity: &Path, arguments: &[&str]) -> Finished {
        let mut command = Command::new(program("tctl"));
        command.args(["--insecure", "--auth-server", &self.address(), "-i"]).arg(identity).args(arguments);
        run(command.env_clear().envs(clean_environment()), b"", LIMIT)
    }

    /// Makes or replaces a resource.
    #[track_caller]
    pub fn create(&self, resource: &Value) {
        let file = self.new_path("resource.yaml");
        std::fs::write(&file, serde_saphyr::to_string(resource).expect("write a resource")).expect("write a file");
        self.tctl(&["create", "-f", &file.display().to_string()]).succeeded();
    }

    /// The pin of the cluster's authority, from `tctl status`.
    #[track_caller]
    pub fn pin(&self) -> String {
        let shown = self.tctl(&["status"]).succeeded();
        let pin = Regex::new("sha256:[0-9a-f]{64}").expect("a pattern");
        pin.find(&shown.stdout).unwrap_or_else(|| panic!("expected a pin in {shown}")).as_str().to_owned()
    }

    /// Starts a node without waiting for it to join.
    pub fn start_agent(&self, setup: &AgentSetup) -> Daemon {
        let folder = self.folder.path();
        let config = setup.config(&folder.display().to_string(), &self.auth_address(), &self.address(), TOKEN);
        // The public port shows a certificate of its own making; the Auth Service's is known by its pin.
        let arguments: &[&str] = if setup.direct { &[] } else { &["--insecure"] };
        let diagnostics = setup.diagnostics.then(free_port);
        Daemon::start_in(folder, &setup.name, &config, arguments, diagnostics, &setup.variables)
    }

    /// Starts a node and waits until the cluster knows it.
    #[track_caller]
    pub fn agent(&self, setup: &AgentSetup) -> Daemon {
        let mut agent = self.start_agent(setup);
        wait_for(&format!("{} to join", setup.name), READY, || {
            assert!(agent.exit_code().is_none(), "{} ended", setup.name);
            if self.nodes().contains(&setup.name) { Ok(()) } else { Err("not listed") }
        });
        agent
    }

    /// Host names of the nodes the cluster knows.
    #[track_caller]
    pub fn nodes(&self) -> Vec<String> {
        let listed = self.tctl(&["get", "nodes", "--format=json"]).json();
        let all = listed.as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(|n| n["spec"]["hostname"].as_str().map(str::to_owned)).collect()
    }

    /// Makes a user who may log in on servers as the account of this run; the token of their invitation.
    #[track_caller]
    pub fn invite(&self, name: &str, roles: &[&str]) -> String {
        let (roles, logins) = (format!("--roles={}", roles.join(",")), format!("--logins={}", account()));
        let shown = self.tctl(&["users", "add", name, &roles, &logins]).succeeded();
        let link = Regex::new("/web/invite/([0-9a-f]+)").expect("a pattern");
        link.captures(&shown.stdout).unwrap_or_else(|| panic!("expected a link in {shown}"))[1].to_owned()
    }

    /// Makes this cluster trust another, whose users with the role `access` become visitors here; or no more.
    #[track_caller]
    pub fn trust(&self, root: &Self, enabled: bool) {
        let token = "e2e-token-for-leaves";
        if enabled && root.tctl(&["get", &format!("token/{token}")]).code != 0 {
            root.tctl(&["tokens", "add", "--type=trusted_cluster", "--ttl=1h", &format!("--value={token}")])
                .succeeded();
        }
        self.create(&json!({
            "kind": "role", "version": "v7", "metadata": { "name": "visitor" },
            "spec": { "allow": { "logins": [account()], "node_labels": { "*": "*" } } },
        }));
        self.create(&json!({
            "kind": "trusted_cluster", "version": "v2", "metadata": { "name": root.name() },
            "spec": {
                "enabled": enabled, "token": token, "web_proxy_addr": root.address(), "tunnel_addr": root.address(),
                "role_map": [{ "remote": "access", "local": ["visitor"] }],
            },
        }));
        if enabled {
            wait_for("the leaf to be online", Duration::from_secs(15), || {
                let shown = root.tctl(&["get", &format!("rc/{}", self.name), "--format=json"]);
                if shown.code == 0 && shown.stdout.contains("\"online\"") { Ok(()) } else { Err(shown) }
            });
        }
    }

    /// Makes a user, who then sets password and second factor on the sign-up page.
    #[track_caller]
    pub fn user(&self, name: &str, roles: &[&str]) -> Person {
        let invitation = self.invite(name, roles);
        let mut browser = self.browser();
        let address = browser.open_invitation(&invitation);
        let mut person = Person::new(name, &format!("correct-horse-7-{name}"), &address);
        let code = person.code();
        let answer = browser.accept_invitation(&invitation, &person.password, &code);
        assert!(answer.status == 200, "sign-up of {name}: {} {}", answer.status, answer.body);
        person
    }

    /// A `tsh` that has never been used.
    pub fn client(&self) -> Client {
        Client::new(&self.address(), &self.new_path("home"))
    }

    /// A `tsh` into which this person has logged in.
    #[track_caller]
    pub fn login(&self, person: &mut Person) -> Client {
        let client = self.client();
        client.login(person);
        client
    }

    /// Signs an identity file for a user.
    #[track_caller]
    pub fn sign_identity(&self, user: &str, ttl: &str) -> PathBuf {
        let file = self.new_path("identity");
        let (user, out, ttl) = (format!("--user={user}"), format!("--out={}", file.display()), format!("--ttl={ttl}"));
        self.tctl(&["auth", "sign", &user, &out, &ttl]).succeeded();
        file
    }

    /// A `tsh` with an identity file.
    pub fn client_with(&self, identity: &Path) -> Client {
        Client::with_identity(&self.address(), &self.new_path("home"), identity)
    }

    /// The folder with the audit log.
    pub(crate) fn audit_folder(&self) -> PathBuf {
        self.path("auth").join("log")
    }
}

fn new_folder() -> TempDir {
    let mut folder = tempfile::Builder::new().prefix("e2e-").tempdir().expect("make a temporary folder");
    folder.disable_cleanup(std::env::var_os("E2E_KEEP").is_some());
    folder
}

/// A section with further settings.
pub(crate) fn with(mut section: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        section[key] = value.clone();
    }
    section
}

fn common(data: &Path, node: &str) -> Value {
    json!({ "nodename": node, "data_dir": data, "log": { "output": "stderr", "severity": "INFO" } })
}

fn auth_section(name: &str, port: u16) -> Value {
    json!({
        "enabled": true,
        "cluster_name": name,
        "listen_addr": listen(port),
        "proxy_listener_mode": "multiplex",
        "tokens": [format!("node,proxy:{TOKEN}")],
        "authentication": { "type": "local", "second_factor": "otp" },
    })
}

fn proxy_section(port: u16) -> Value {
    let address = listen(port);
    json!({ "enabled": true, "web_listen_addr": address, "tunnel_listen_addr": address, "public_addr": address })
}
