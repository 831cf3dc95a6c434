//! Folders of the host that are a test's own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::unistd::geteuid;

use crate::command::run;

/// Set where a test runs with folders of its own.
const MARK: &str = "E2E_OWN_FILES";
/// How long a test may take there.
const LIMIT: Duration = Duration::from_secs(300);

/// Puts an empty folder over the one named first.
const PREPARE: &str = r#"
set -e
mount -t tmpfs none "$0"
exec "$@"
"#;

/// Runs the body of the test with this full name, such as `pam::…`, where this folder of the host is empty and the
/// test's own. Only root can do that; for others the test is left out.
///
/// The test's process starts itself once more for that, because a process with threads cannot leave the host's folders.
#[track_caller]
pub fn in_own_folder(test: &str, folder: &Path, body: impl FnOnce()) {
    if std::env::var(MARK).is_ok_and(|mark| mark == test) {
        return body();
    }
    if !geteuid().is_root() {
        eprintln!("{test}: left out, because only root can give it a folder of its own");
        return;
    }
    let own = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-c", PREPARE]).arg(folder).arg(own).args(["--exact", test, "--nocapture"]);
    let ran = run(command.env(MARK, test), b"", LIMIT);
    assert!(ran.code == 0 && ran.stdout.contains("1 passed"), "with a folder of its own: {ran}");
}
