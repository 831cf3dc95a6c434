//! Sessions that go through the host's PAM.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use e2e::{AgentSetup, Cluster, Finished, account, free_port, in_own_folder, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
const FOLDER: &str = "/etc/pam.d";
/// Number of the group `daemon`.
const DAEMON: &str = "1";

/// A script that PAM runs.
fn script(path: &Path, text: &str) -> String {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn pam_opens_and_closes_sessions_and_its_refusals_are_heard() {
    in_own_folder("pam::pam_opens_and_closes_sessions_and_its_refusals_are_heard", Path::new(FOLDER), || {
        let cluster = Cluster::start("pam.test");
        let (said, closed) = (cluster.path("said"), cluster.path("closed"));
        let check = script(&cluster.path("check"), &format!("test ! -e {}", closed.display()));
        let told = format!(
            "echo $PAM_TYPE $PAM_USER $TELEPORT_USERNAME $TELEPORT_LOGIN $TELEPORT_ROLES $TEAM >> {}",
            said.display()
        );
        let tell = script(&cluster.path("tell"), &told);
        let ask = script(&cluster.path("ask"), r#"read word; test "$word" = open-sesame"#);
        fs::write(cluster.path("limits"), "* - nofile 777\nroot - nofile 777\n").unwrap();
        fs::write(cluster.path("variables"), "MARK DEFAULT=by-pam\n").unwrap();
        let sessions = format!(
            "account required pam_exec.so {check}\nsession required pam_exec.so {tell}\n\
             session required pam_limits.so conf={}\nsession required pam_env.so conffile={}\n",
            cluster.path("limits").display(),
            cluster.path("variables").display()
        );
        fs::write(format!("{FOLDER}/e2e"), &sessions).unwrap();
        let asking = format!("auth required pam_exec.so expose_authtok {ask}\n{sessions}");
        fs::write(format!("{FOLDER}/e2e-asking"), asking).unwrap();

        let pam = |service: &str, auth: bool| {
            let environment = json!({"TEAM": "{{external.team}}", "NOTHING": "{{external.nothing}}"});
            json!({"pam": {"enabled": true, "service_name": service, "use_pam_auth": auth, "environment": environment}})
        };
        let _node = cluster.agent(&AgentSetup::node("node1").ssh(&pam("e2e", false)));
        let _asking = cluster.agent(&AgentSetup::node("node2").ssh(&pam("e2e-asking", true)));
        let mut alice = cluster.user("alice", &["access"]);
        let me = account();
        let mut user = cluster.tctl(&["get", "users/alice", "--format=json"]).json()[0].take();
        user["spec"]["traits"]["team"] = json!(["red", "blue"]);
        cluster.create(&user);
        let client = cluster.login(&mut alice);
        let node1 = format!("{me}@node1");

        // A command: variables and limits are those of the modules, the status is its own, and the session is closed.
        let line = "echo mark=$MARK files=$(ulimit -Sn) team=$TEAM user=$TELEPORT_USERNAME; exit 3";
        let ran = client.tsh(&["ssh", &node1, line]);
        assert_eq!((ran.code, ran.stdout.trim()), (3, "mark=by-pam files=777 team=red blue user=alice"), "{ran}");
        let heard = |what: &str| {
            let line = format!("{what} {me} alice {me} access red blue");
            wait_for(&line, LIMIT, || match fs::read_to_string(&said).unwrap_or_default() {
                text if text.lines().any(|l| l == line) => Ok(()),
                text => Err(text),
            });
        };
        heard("open_session");
        heard("close_session");
        let killed = client.tsh(&["ssh", &node1, "kill -TERM $$"]);
        assert_eq!(killed.code, 128 + 15, "{killed}");

        // A terminal: the shell is the leader of its session, and questions are put there.
        let mut terminal = client.terminal(&["ssh", &node1]);
        terminal.type_line("echo tty-$(tty) leads-$(ps -o sid= -p $$ | tr -d ' ')-$$ $MARK");
        let shown = terminal.expect(r"tty-/dev/pts/\d+ leads-(\d+-\d+) by-pam");
        assert!(shown.split_once('-').is_some_and(|(session, process)| session == process), "{shown}");
        terminal.type_line("exit 4");
        assert_eq!(terminal.finish().0, 4);
        let mut asked = client.terminal(&["ssh", &format!("{me}@node2")]);
        asked.expect("Password: ");
        asked.type_line("open-sesame");
        asked.expect(r"[#$] ");
        asked.type_line("echo in-$((6*7)); exit");
        asked.expect("in-42");
        asked.finish();
        let mut wrong = client.terminal(&["ssh", &format!("{me}@node2")]);
        wrong.expect("Password: ");
        wrong.type_line("sesame");
        let (code, shown) = wrong.finish();
        assert!(
            code == 255 && shown.contains("Failed to launch: PAM service \"e2e-asking\": authentication"),
            "{shown}"
        );
        let unasked = client.tsh(&["ssh", &format!("{me}@node2"), "true"]).refused();
        assert!(unasked.stderr.contains("authentication") && unasked.stderr.contains("no terminal"), "{unasked}");

        // Files and forwarded ports go through it as well.
        let copied = cluster.path("copied");
        let copy = |to: &Path| client.tsh(&["scp", "-q", "/etc/hostname", &format!("{node1}:{}", to.display())]);
        copy(&copied).succeeded();
        assert_eq!(fs::read(&copied).unwrap(), fs::read("/etc/hostname").unwrap());

        // The host is closed: everybody is told, and so is the audit log.
        fs::write(&closed, "").unwrap();
        let refused = |ran: Finished| {
            let ran = ran.refused();
            assert!(ran.said().contains("PAM service \"e2e\": account"), "{ran}");
        };
        refused(client.tsh(&["ssh", &node1, "true"]));
        refused(copy(&cluster.path("not-copied")));
        assert!(!cluster.path("not-copied").exists());
        let (code, shown) = client.terminal(&["ssh", &node1]).finish();
        assert!(code == 255 && shown.contains("Failed to launch: PAM service \"e2e\": account"), "{shown}");
        let event = cluster.wait_event("auth", &[("code", "T3007W"), ("user", "alice")]);
        assert!(event["error"].as_str().unwrap().contains("PAM service"), "{event}");
    });
}

/// How often a script has written this line.
fn count(said: &Path, line: &str) -> usize {
    fs::read_to_string(said).unwrap_or_default().lines().filter(|said| *said == line).count()
}

/// A script that says what PAM asks of it, and lets sessions be opened when the file is there.
fn slow(cluster: &Cluster, said: &Path, open: &Path) -> String {
    let text = format!(
        "echo $PAM_TYPE >> {}\ntest $PAM_TYPE = close_session && exit 0\n\
         for i in $(seq 900); do test -e {} && exit 0; sleep 0.1; done",
        said.display(),
        open.display()
    );
    script(&cluster.path("slow"), &text)
}

#[test]
fn a_process_that_nobody_waits_for_any_more_is_not_started() {
    in_own_folder("pam::a_process_that_nobody_waits_for_any_more_is_not_started", Path::new(FOLDER), || {
        let cluster = Cluster::start("slow-pam.test");
        let (said, open) = (cluster.path("said"), cluster.path("open"));
        let slow = slow(&cluster, &said, &open);
        let service = format!("account required pam_permit.so\nsession required pam_exec.so {slow}\n");
        fs::write(format!("{FOLDER}/e2e"), service).unwrap();
        let pam = json!({"pam": {"enabled": true, "service_name": "e2e"}});
        let _node = cluster.agent(&AgentSetup::node("node1").ssh(&pam));
        let mut alice = cluster.user("alice", &["access"]);
        let client = cluster.login(&mut alice);
        let node1 = format!("{}@node1", account());
        let said = |line: &str, times: usize| {
            wait_for(&format!("{line} no. {times}"), LIMIT, || match count(&said, line) {
                found if found >= times => Ok(()),
                found => Err(found),
            });
        };

        let ran = cluster.path("ran");
        let mut leaving = client.spawn(&["--no-resume", "ssh", &node1, &format!("touch {}", ran.display())]);
        said("open_session", 1);
        leaving.kill().unwrap();
        leaving.wait().unwrap();
        cluster.wait_event("exec", &[("user", "alice"), ("exitError", "the client went away")]);
        fs::write(&open, "").unwrap();
        said("close_session", 1);
        assert!(!ran.exists(), "nothing runs for a client that is gone");
        fs::remove_file(&open).unwrap();

        // What a client says ahead of time is heard in the end.
        let mut early = client.spawn(&["ssh", &node1, "cat"]);
        early.stdin.take().unwrap().write_all(b"said early").unwrap();
        said("open_session", 2);
        fs::write(&open, "").unwrap();
        let mut heard = String::new();
        early.stdout.take().unwrap().read_to_string(&mut heard).unwrap();
        assert!(early.wait().unwrap().success() && heard == "said early", "{heard}");
        said("close_session", 2);
    });
}

/// A line of a process's status; empty when there is no such process.
fn status(process: &str, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().to_owned()
}

/// The groups of a worker that opens sockets for this node, by way of one that asks PAM.
fn groups_of_worker(node: u32) -> Option<String> {
    let mut processes =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let found = processes.find(|process| {
        let line = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let asks_pam = status(process, "PPid:");
        line.split('\0').any(|word| word == "sockets") && status(&asks_pam, "PPid:") == node.to_string()
    });
    found.map(|worker| status(&worker, "Groups:"))
}

#[test]
fn forwards_have_the_groups_that_pam_gives_the_user() {
    in_own_folder("pam::forwards_have_the_groups_that_pam_gives_the_user", Path::new(FOLDER), || {
        let cluster = Cluster::start("groups.test");
        // A file of this test's own in place of the host's, as all of the folder is.
        let groups = cluster.path("groups");
        fs::write(&groups, "*;*;root;Al0000-2400;daemon\n").unwrap();
        let mounted = Command::new("mount").arg("--bind").arg(&groups).arg("/etc/security/group.conf").status();
        assert!(mounted.unwrap().success());
        let service = "auth optional pam_group.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
        fs::write(format!("{FOLDER}/e2e"), service).unwrap();
        let pam = json!({"pam": {"enabled": true, "service_name": "e2e"}});
        let node = cluster.agent(&AgentSetup::node("node1").ssh(&pam));
        let mut alice = cluster.user("alice", &["access"]);
        let client = cluster.login(&mut alice);
        let node1 = format!("{}@node1", account());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (near, far) = (free_port(), listener.local_addr().unwrap().port());
        let forward = format!("{near}:127.0.0.1:{far}");
        let mut running = client.spawn(&["ssh", "-L", &forward, &node1, "id -G; sleep 600"]);
        let mut groups = String::new();
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut groups).unwrap();
        assert!(groups.split_whitespace().any(|group| group == DAEMON), "those of the command: {groups}");
        let _forwarded = wait_for("the forward", LIMIT, || TcpStream::connect(("127.0.0.1", near)));
        let groups = wait_for("the worker", LIMIT, || groups_of_worker(node.pid()).ok_or("none"));
        assert!(groups.split_whitespace().any(|group| group == DAEMON), "those of the worker: {groups}");
        running.kill().unwrap();
        running.wait().unwrap();
    });
}

#[test]
fn a_forward_that_pam_is_slow_to_allow_holds_up_nothing_else_on_its_connection() {
    in_own_folder(
        "pam::a_forward_that_pam_is_slow_to_allow_holds_up_nothing_else_on_its_connection",
        Path::new(FOLDER),
        || {
            let cluster = Cluster::start("patient.test");
            let (opened, open) = (cluster.path("opened"), cluster.path("open"));
            let slow = slow(&cluster, &opened, &open);
            let service = format!("account required pam_permit.so\nsession required pam_exec.so {slow}\n");
            fs::write(format!("{FOLDER}/e2e"), service).unwrap();
            let pam = json!({"pam": {"enabled": true, "service_name": "e2e"}});
            let _node = cluster.agent(&AgentSetup::node("node1").ssh(&pam));
            let mut alice = cluster.user("alice", &["access"]);
            let client = cluster.login(&mut alice);
            let (configuration, socket) = (client.home().join("ssh_config"), client.home().join("control"));
            fs::write(&configuration, client.tsh(&["config"]).succeeded().stdout).unwrap();
            let target = format!("{}@node1.patient.test", account());
            let ssh = |arguments: &[&str]| {
                let mut command = Command::new("ssh");
                command.arg("-F").arg(&configuration).args(["-o", "BatchMode=yes", "-S"]).arg(&socket).args(arguments);
                command.env_clear().envs(client.environment()).stdin(Stdio::piped()).stdout(Stdio::piped());
                command.spawn().unwrap()
            };
            fs::write(&open, "").unwrap();
            let mut running = ssh(&["-M", &target, "cat"]);
            let (mut typed, shown) = (running.stdin.take().unwrap(), lines(running.stdout.take().unwrap()));
            let mut repeats = |line: &str| {
                typed.write_all(format!("{line}\n").as_bytes()).unwrap();
                assert_eq!(shown.recv_timeout(LIMIT).unwrap(), line);
            };
            repeats("before");
            fs::remove_file(&open).unwrap();
            let port = free_port();
            let mut forward = ssh(&["-O", "forward", "-R", &format!("127.0.0.1:{port}:127.0.0.1:1"), &target]);
            wait_for("PAM to be asked about the forward", LIMIT, || match count(&opened, "open_session") {
                2.. => Ok(()),
                times => Err(times),
            });
            repeats("meanwhile");
            assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
            fs::write(&open, "").unwrap();
            wait_for("the forward", LIMIT, || TcpStream::connect(("127.0.0.1", port)));
            repeats("after");
            assert!(forward.wait().unwrap().success());
            running.kill().unwrap();
            running.wait().unwrap();
        },
    );
}

/// The lines of a program, as they come.
fn lines(source: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            let _ = sender.send(line); // the test may be over
        }
    });
    lines
}
