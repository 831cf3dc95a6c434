//! The control groups that tell sessions apart.
//!
//! Below `<cgroup_path>/<root_path>` every run of a node has a folder with a random name, which it keeps locked; a
//! folder that can be locked belongs to a run that is over, and is removed at the next start. A session is a folder in
//! that of its run, named by the session's id.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::Error;

/// `statfs` of the second version of control groups, see include/uapi/linux/magic.h.
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// The file of a group that lists its processes, and takes them in.
const PROCESSES: &str = "cgroup.procs";
/// How often a group's processes are moved away while they go on making new ones.
const ATTEMPTS: usize = 20;
/// Groups that were made within a session's own: more than this, and deeper, are left where they are.
const MAX_DEPTH: usize = 16;
/// Another node that starts at this moment is waited for this often.
const LOCK_ATTEMPTS: usize = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The groups of one run of a node.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Where control groups are mounted.
    mounted: PathBuf,
    /// This run's.
    run: PathBuf,
    /// Says that the run is not over.
    _lock: File,
}

/// A session's group; removed when dropped.
#[derive(Debug)]
pub(crate) struct Group {
    /// Its folder.
    pub folder: PathBuf,
    mounted: PathBuf,
    /// Its number within the kernel.
    pub id: u64,
}

impl Tree {
    /// Makes this run's folder, and removes those of runs that are over.
    pub fn open(mounted: &Path, root: &Path) -> Result<Self, Error> {
        mount_at(mounted)?;
        let base = mounted.join(root);
        let failed = |error: io::Error| Error::Groups { folder: base.clone(), error };
        fs::create_dir_all(&base).map_err(failed)?;
        let starting = lock_patiently(&base).map_err(failed)?;
        remove_finished(&base, mounted);
        let run = base.join(Uuid::new_v4().to_string());
        fs::create_dir(&run).map_err(failed)?;
        let lock = File::open(&run).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| failed(e.into()))?;
        drop(starting);
        Ok(Self { mounted: mounted.to_owned(), run, _lock: lock })
    }

    /// Makes the group of a session.
    pub fn group(&self, session: Uuid) -> io::Result<Group> {
        let folder = self.run.join(session.to_string());
        fs::create_dir(&folder)?;
        // The number of a group is that of its folder, since Linux 5.5.
        let id = match fs::metadata(&folder) {
            Ok(metadata) => metadata.ino(),
            Err(error) => {
                let _ = fs::remove_dir(&folder); // the error that counts is the other one
                return Err(error);
            }
        };
        Ok(Group { folder, mounted: self.mounted.clone(), id })
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        remove(&self.run, &self.mounted, 0);
    }
}

impl Group {
    /// What a process writes `0` to in order to belong to the group from then on.
    pub fn entrance(&self) -> io::Result<File> {
        File::options().write(true).open(self.folder.join(PROCESSES))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.folder, &self.mounted, 0);
    }
}

/// Mounts control groups at a folder that has nothing in it.
fn mount_at(folder: &Path) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Mount { folder: folder.to_owned(), error };
    fs::create_dir_all(folder).map_err(failed)?;
    if is_cgroup2(folder).map_err(failed)? {
        return Ok(());
    }
    if fs::read_dir(folder).map_err(failed)?.next().is_some() {
        return Err(Error::NotGroups(folder.to_owned()));
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("cgroup2", folder, "cgroup2", flags, None).map_err(|e| failed(e.into()))?;
    debug!(folder = %folder.display(), "control groups mounted");
    Ok(())
}

fn is_cgroup2(folder: &Path) -> io::Result<bool> {
    // The type of the field differs between processors.
    #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
    let kind = i64::try_from(statfs(folder)?.f_type);
    Ok(kind.is_ok_and(|kind| kind == CGROUP2_MAGIC))
}

/// Locks the folder of all runs, so that two nodes that start at the same time do not take each other's for over.
fn lock_patiently(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    for _ in 0..LOCK_ATTEMPTS {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "waited 5 s for another node that starts"))
}

/// Removes the folders of runs that are over: nobody has them locked.
fn remove_finished(base: &Path, mounted: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_none_or(|name| Uuid::parse_str(name).is_err()) {
            continue;
        }
        let folder = entry.path();
        let is_over =
            File::open(&folder).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if is_over {
            debug!(folder = %folder.display(), "removing the groups of a run that is over");
            remove(&folder, mounted, 0);
        }
    }
}

/// Removes a group and those below it. Processes that are left in them go on elsewhere.
fn remove(folder: &Path, mounted: &Path, depth: usize) {
    if let (true, Ok(entries)) = (depth < MAX_DEPTH, fs::read_dir(folder)) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&entry.path(), mounted, depth + 1);
            }
        }
    }
    let outside = mounted.join(PROCESSES);
    for _ in 0..ATTEMPTS {
        for process in fs::read_to_string(folder.join(PROCESSES)).unwrap_or_default().lines() {
            let _ = fs::write(&outside, process); // it may be gone by now
        }
        match fs::remove_dir(folder) {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(_) => {}
        }
    }
    // The next start tries again.
    warn!(folder = %folder.display(), "control group not removed: processes go on in it");
}
