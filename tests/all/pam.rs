//! Sessions that go through the host's PAM.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use e2e::{AgentSetup, Cluster, Finished, account, in_own_folder, wait_for};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
const FOLDER: &str = "/etc/pam.d";

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
