//! What must never be written down: passwords, codes, tokens and keys, in no log at any level, in no event, in no answer.

use std::fs;
use std::path::Path;
use std::time::Duration;

use e2e::{AgentSetup, ClusterSetup, account, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// Everything that is text in a folder, with its place.
fn texts(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            texts(&path, found);
        } else if path.extension().is_some_and(|e| e == "log" || e == "jsonl" || e == "spool") {
            found.push((path.display().to_string(), String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()));
        }
    }
}

/// A long piece from the middle of a PEM text, which is in nothing else.
fn middle(pem: &str) -> Option<String> {
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-') && line.len() > 30).collect();
    lines.get(lines.len() / 2).map(|line| (*line).to_owned())
}

/// The private keys in a file.
fn private_keys(text: &str) -> Vec<String> {
    let keys =
        text.split("-----BEGIN ").filter(|part| part.split('\n').next().is_some_and(|l| l.contains("PRIVATE KEY")));
    keys.filter_map(|part| middle(part.split("-----END").next().unwrap_or_default())).collect()
}

#[test]
fn secrets_are_in_no_log_and_no_event_whatever_the_level() {
    let log = json!({ "output": "stderr", "severity": "TRACE" });
    let mut cluster = ClusterSetup::new("discreet.test").teleport(&json!({ "log": log })).start();
    let token = cluster.tctl(&["tokens", "add", "--type=node", "--format=text"]).succeeded().stdout.trim().to_owned();
    let mut node = cluster.agent(&AgentSetup::node("node1").token(&token).talkative());
    let invitation = cluster.invite("bob", &["access"]);
    let mut alice = cluster.user("alice", &["access", "editor", "auditor"]);
    let client = cluster.client();
    let mut said = String::new();
    let code = alice.code();
    let (exit, shown) = client.try_login("alice", "wrong-horse-9-alice", &code);
    assert_ne!(exit, 0, "{shown}");
    said.push_str(&shown);
    let code = alice.code();
    let (exit, shown) = client.try_login("alice", &alice.password, &code);
    assert_eq!(exit, 0, "{shown}");
    said.push_str(&shown);

    let target = format!("{}@node1", account());
    for mode in ["node-sync", "proxy-sync"] {
        cluster.create(&json!({
            "kind": "session_recording_config", "version": "v2", "metadata": { "name": "session-recording-config" },
            "spec": { "mode": mode, "encryption": { "enabled": true } },
        }));
        let ran = client.tsh(&["--debug", "ssh", &target, "true"]);
        said.push_str(&ran.said());
        let mut shell = client.terminal(&["ssh", &target]);
        shell.expect(r"[$#%>] ?");
        shell.type_line("exit");
        shell.finish();
    }
    let browser = cluster.browser();
    let session = browser.send(
        "POST",
        "/v1/webapi/sessions/web",
        &json!({
            "user": "alice", "pass": alice.password, "second_factor_token": alice.code(),
        }),
    );
    let bearer = session.json()["token"].as_str().unwrap().to_owned();
    let identity = fs::read_to_string(cluster.sign_identity("alice", "1h")).unwrap();
    let authorities = cluster.tctl(&["get", "cert_authorities", "--with-secrets", "--format=json"]).succeeded().stdout;
    cluster.tctl(&["users", "reset", "bob"]).succeeded();
    cluster.auth.restart();
    cluster.wait_ready();
    wait_for("the node to be back", LIMIT, || {
        let ran = client.tsh(&["ssh", &target, "true"]);
        if ran.code == 0 { Ok(()) } else { Err(ran) }
    });
    node.stop();

    let mut secrets: Vec<(&str, String)> = vec![
        ("password", alice.password.clone()),
        ("another's attempt", "wrong-horse-9-alice".into()),
        ("seed of one-time codes", alice.seed()),
        ("invitation", invitation),
        ("join token", token),
        ("static join token", e2e::TOKEN.into()),
        ("bearer token", bearer),
        ("private key", "PRIVATE KEY-----".into()),
    ];
    secrets.extend(private_keys(&identity).into_iter().map(|key| ("key of an identity file", key)));
    let mut in_profile = Vec::new();
    collect_keys(&client.home().join(".tsh/keys"), &mut in_profile);
    assert!(!in_profile.is_empty(), "the login has a key");
    secrets.extend(in_profile.into_iter().map(|key| ("key of a login", key)));
    let authorities: Value = serde_json::from_str(&authorities).unwrap();
    let mut of_authorities = Vec::new();
    encoded_keys(&authorities, &mut of_authorities);
    assert!(of_authorities.len() > 5, "authorities have keys");
    secrets.extend(of_authorities.into_iter().map(|key| ("key of an authority", key)));

    let mut written = vec![("tsh".to_owned(), said)];
    texts(&cluster.path(""), &mut written);
    assert!(written.iter().any(|(_, text)| text.contains("TRACE") || text.contains("TRAC")), "the logs are complete");
    for (place, text) in &written {
        for (what, secret) in secrets.iter().filter(|(_, secret)| secret.len() >= 8) {
            assert!(!text.contains(secret.as_str()), "{what} is in {place}");
        }
    }
}

/// The private keys of a profile.
fn collect_keys(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_keys(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.extend(private_keys(&text));
        }
    }
}

/// Keys in the JSON of authorities: base64 of PEM.
fn encoded_keys(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name.ends_with("key") && name != "public_key" && text.len() > 120 => {
                        found.push(text[text.len() - 70..text.len() - 10].to_owned());
                    }
                    _ => encoded_keys(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| encoded_keys(item, found)),
        _ => {}
    }
}
