//! What is left on the disk when a machine loses its power.
//!
//! The process is watched (`strace`) for what it writes and what it makes durable (`fsync`, `fdatasync`). When power
//! fails, names in folders that were not flushed are gone, and so is what was added to a file since it was flushed: it
//! is cut off, or full of zeros. What is overwritten in place or removed counts as done, which is one of the ways that it
//! may be found.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use regex::Regex;

use crate::daemon::Daemon;
use crate::waiting::wait_for;

/// System calls that change files or make changes durable.
const CALLS: &str =
    "trace=openat,write,writev,pwrite64,pwritev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat";
/// How long attaching to a process may take.
const ATTACH: Duration = Duration::from_secs(30);

/// What becomes of bytes that were not flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The file ends before them.
    Cut,
    /// There are zeros in their place.
    Zeros,
}

/// The power of the machine that a process runs on.
pub struct Power {
    tracer: Child,
    trace: PathBuf,
    folder: PathBuf,
    before: HashMap<PathBuf, u64>,
}

impl Power {
    /// Watches a process that keeps its files in `folder`; all that is there counts as durable. `None` where there is no
    /// `strace`.
    #[track_caller]
    pub fn watch(process: &Daemon, folder: &Path, trace: &Path) -> Option<Self> {
        let folder = fs::canonicalize(folder).expect("the folder of a process");
        let mut before = HashMap::new();
        lengths(&folder, &mut before);
        let said = File::create(trace.with_extension("said")).expect("make a file");
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", "0", "-e", CALLS, "-e", "signal=none", "-o"]).arg(trace);
        command.args(["-p", &process.pid().to_string()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let tracer = match command.spawn() {
            Ok(tracer) => tracer,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                assert!(std::env::var_os("TESTS_COMPLETE").is_none(), "strace is missing");
                return None;
            }
            Err(e) => panic!("start strace: {e}"),
        };
        wait_for("strace to attach", ATTACH, || {
            let said = fs::read_to_string(trace.with_extension("said")).unwrap_or_default();
            if said.contains("attached") { Ok(()) } else { Err(said) }
        });
        Some(Self { tracer, trace: trace.to_owned(), folder, before })
    }

    /// Whether all of a file is on the disk by now.
    pub fn is_durable(&self, file: &Path) -> bool {
        let Ok(path) = fs::canonicalize(file) else { return false };
        self.disk().files.get(&path).is_none_or(|state| state.named && state.durable >= state.length)
    }

    /// Takes away what is not durable, after the process has been killed; tells what that was.
    #[track_caller]
    pub fn fail(mut self, loss: Loss) -> Vec<String> {
        self.tracer.wait().expect("the end of strace");
        let mut lost = Vec::new();
        for (path, state) in &self.disk().files {
            let Ok(length) = fs::metadata(path).map(|m| m.len()) else { continue };
            if !state.named {
                fs::remove_file(path).expect("remove a file");
                lost.push(format!("{}", path.display()));
            } else if state.durable < length.min(state.length) {
                let file = File::options().write(true).open(path).expect("open a file");
                file.set_len(state.durable).expect("cut a file");
                if loss == Loss::Zeros {
                    file.write_all_at(&vec![0; usize::try_from(length - state.durable).unwrap_or(0)], state.durable)
                        .expect("write zeros");
                }
                lost.push(format!("{} from {} to {length}", path.display(), state.durable));
            }
        }
        lost
    }

    fn disk(&self) -> Disk {
        let trace = String::from_utf8_lossy(&fs::read(&self.trace).unwrap_or_default()).into_owned();
        let mut disk = Disk::new(&self.folder, &self.before);
        for line in trace.lines() {
            disk.line(line);
        }
        disk
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        self.tracer.kill().ok();
        self.tracer.wait().ok();
    }
}

/// A file as the process has it, and as the disk does.
#[derive(Clone, Debug)]
struct State {
    length: u64,
    durable: u64,
    /// Whether its name is on the disk.
    named: bool,
}

/// What a trace says about the files of a folder.
struct Disk {
    folder: PathBuf,
    files: HashMap<PathBuf, State>,
    /// Calls of threads that have not returned, with the length of the file then.
    under_way: HashMap<String, (String, u64)>,
    call: Regex,
    quoted: Regex,
}

impl Disk {
    fn new(folder: &Path, before: &HashMap<PathBuf, u64>) -> Self {
        let state = |length: &u64| State { length: *length, durable: *length, named: true };
        Self {
            folder: folder.to_owned(),
            files: before.iter().map(|(path, length)| (path.clone(), state(length))).collect(),
            under_way: HashMap::new(),
            call: Regex::new(r"^(\w+)\((.*)\)\s+= (\d+)(?:<(.*)>)?$").expect("a pattern"),
            quoted: Regex::new("\"([^\"]*)\"").expect("a pattern"),
        }
    }

    /// Takes in a line: thread, call, result; or the first or second half of that.
    fn line(&mut self, line: &str) {
        let Some((thread, call)) = line.split_once(' ') else { return };
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix("<unfinished ...>") {
            let length = self.described(begun).map_or(0, |path| self.files.get(&path).map_or(0, |s| s.length));
            self.under_way.insert(thread.to_owned(), (begun.trim_end().to_owned(), length));
        } else if let Some(rest) = call.strip_prefix("<... ") {
            let Some((_, rest)) = rest.split_once(" resumed>") else { return };
            if let Some((begun, length)) = self.under_way.remove(thread) {
                self.done(&format!("{begun}{rest}"), Some(length));
            }
        } else {
            self.done(call, None);
        }
    }

    /// Takes in a call that has returned; `begun` is the length of its file when it was made.
    fn done(&mut self, call: &str, begun: Option<u64>) {
        let Some(parts) = self.call.captures(call) else { return };
        let text = |at: usize| parts.get(at).map_or("", |part| part.as_str()).to_owned();
        let (name, arguments, result, opened) = (text(1), text(2), text(3), text(4));
        let result: u64 = result.parse().unwrap_or(0);
        match name.as_str() {
            "openat" => self.opened(Path::new(&opened), &arguments),
            "fsync" | "fdatasync" => self.flushed(&arguments, begun),
            "rename" | "renameat" | "renameat2" => self.moved(&arguments, true),
            "link" | "linkat" => self.moved(&arguments, false),
            _ => {
                let Some(path) = self.described(call) else { return };
                let Some(state) = self.files.get_mut(&path) else { return };
                let last: u64 = arguments.rsplit(", ").next().and_then(|n| n.parse().ok()).unwrap_or(0);
                match name.as_str() {
                    "pwrite64" | "pwritev" => state.length = state.length.max(last + result),
                    "ftruncate" => (state.length, state.durable) = (last, state.durable.min(last)),
                    _ => state.length += result,
                }
            }
        }
    }

    fn opened(&mut self, path: &Path, arguments: &str) {
        if !path.starts_with(&self.folder) || !arguments.contains("O_CREAT") {
            return;
        }
        let new = State { length: 0, durable: 0, named: false };
        let state = self.files.entry(path.to_owned()).or_insert(new);
        if arguments.contains("O_TRUNC") {
            (state.length, state.durable) = (0, 0);
        }
    }

    fn flushed(&mut self, arguments: &str, begun: Option<u64>) {
        let Some(path) = self.described(&format!("f({arguments}")) else { return };
        match self.files.get_mut(&path) {
            Some(state) => state.durable = state.durable.max(begun.unwrap_or(state.length).min(state.length)),
            None => {
                self.files
                    .iter_mut()
                    .filter(|(file, _)| file.parent() == Some(&path))
                    .for_each(|(_, s)| s.named = true);
            }
        }
    }

    /// A name that stands for a file from now on. Where it stood for another, the file keeps a name either way.
    fn moved(&mut self, arguments: &str, renamed: bool) {
        let names: Vec<PathBuf> = self.quoted.captures_iter(arguments).map(|name| PathBuf::from(&name[1])).collect();
        let [from, to] = names.as_slice() else { return };
        let state = if renamed { self.files.remove(from) } else { self.files.get(from).cloned() };
        if let Some(state) = state {
            let named = self.files.get(to).is_some_and(|before| before.named);
            self.files.insert(to.clone(), State { named, ..state });
        }
    }

    /// The file that the first argument of a call stands for, such as `9</var/lib/file>`.
    fn described(&self, call: &str) -> Option<PathBuf> {
        let (_, arguments) = call.split_once('(')?;
        let (_, rest) = arguments.split_once('<')?;
        let path = PathBuf::from(rest.split_once('>')?.0);
        path.starts_with(&self.folder).then_some(path)
    }
}

/// The lengths of the files in a folder and below.
fn lengths(folder: &Path, found: &mut HashMap<PathBuf, u64>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(data) if data.is_dir() => lengths(&entry.path(), found),
            Ok(data) if data.is_file() => drop(found.insert(entry.path(), data.len())),
            _ => {}
        }
    }
}
