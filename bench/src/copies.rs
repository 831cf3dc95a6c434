//! Copies over SFTP: many small files, and one large one, both ways.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::load::Parties;
use crate::{line, median, medians, seconds, timed};

/// Small files, in folders of a hundred, and their length.
const FILES: usize = 10_000;
const LENGTH: usize = 1024;
/// Length of the large file.
const LARGE: u64 = 1 << 30;
/// Runs of each copy.
const RUNS: usize = 3;

impl Parties<'_> {
    /// Copies to the node and back with `tsh scp`, and with OpenSSH's `scp` through its jump host.
    pub fn copies(&self) {
        let folder = tempfile::Builder::new().prefix("bench-copies-").tempdir().expect("make a temporary folder");
        let small = folder.path().join("small");
        for index in 0..FILES {
            let place = small.join((index / 100).to_string());
            fs::create_dir_all(&place).expect("make a folder");
            fs::write(place.join(index.to_string()), vec![b'x'; LENGTH]).expect("write a file");
        }
        let large = folder.path().join("large");
        let file = fs::File::create(&large).expect("make a file");
        file.set_len(LARGE).expect("size a file");
        let (to, from) = (folder.path().join("to"), folder.path().join("from"));
        for (what, source) in [("10,000 files of 1 KiB", &small), ("one file of 1 GiB", &large)] {
            self.copy(&format!("scp to the node, {what}"), source, &to, Direction::Up);
            self.copy(&format!("scp from the node, {what}"), source, &from, Direction::Down);
        }
    }

    fn copy(&self, what: &str, source: &Path, target: &Path, direction: Direction) {
        let place = |host: &str, path: &Path, there: bool| match there {
            true => format!("{host}:{}", path.display()),
            false => path.display().to_string(),
        };
        let paths = |host: &str| {
            let up = direction == Direction::Up;
            [place(host, source, !up), place(host, target, up)]
        };
        let ours = || {
            clear(target);
            let [from, to] = paths(self.target);
            timed(&mut self.client.command(&["scp", "-q", "-r", &from, &to]))
        };
        let Some(openssh) = self.openssh else {
            return line(what, &seconds(median(RUNS, ours)), "no OpenSSH beside it");
        };
        let theirs = || {
            clear(target);
            let [from, to] = paths("target");
            let mut command = Command::new("scp");
            timed(command.arg("-F").arg(openssh.configuration()).args(["-q", "-r", &from, &to]))
        };
        let (ours, theirs) = medians(RUNS, ours, theirs);
        line(what, &seconds(ours), &ratio(ours, theirs));
        clear(target);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

fn clear(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path)); // it may not be there
}

fn ratio(ours: Duration, theirs: Duration) -> String {
    format!("{:.2} × scp through a jump host ({})", ours.as_secs_f64() / theirs.as_secs_f64(), seconds(theirs))
}
