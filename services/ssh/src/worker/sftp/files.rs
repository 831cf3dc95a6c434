//! What SFTP requests do to files.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, ReadDir};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::{UtimensatFlags, futimens, utimensat};
use nix::sys::statvfs::{FsFlags, Statvfs, fstatvfs, statvfs};
use nix::sys::time::TimeSpec;

use super::only::{About, Only};
use super::packet::{Malformed, Parts, Reply};
use super::{Attributes, Performed};
use crate::worker::sockets::describe;

/// Files and folders a client may have open at once.
const MAX_OPEN: usize = 1000;
/// The longest block read at once.
const MAX_READ: u32 = 255 * 1024;
/// Names sent in one answer.
const NAMES: usize = 128;

// Kinds of packets, draft-ietf-secsh-filexfer-02 §3.
const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRIBUTES: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// How a request ended, §7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Code {
    Ok = 0,
    EndOfFile = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// Numbers of actions in the audit log.
mod action {
    pub const OPEN: i32 = 1;
    pub const SETSTAT: i32 = 7;
    pub const FSETSTAT: i32 = 8;
    pub const READDIR: i32 = 10;
    pub const REMOVE: i32 = 11;
    pub const MKDIR: i32 = 12;
    pub const RMDIR: i32 = 13;
    pub const RENAME: i32 = 16;
    pub const READLINK: i32 = 17;
    pub const SYMLINK: i32 = 18;
    pub const LINK: i32 = 19;
}

/// Flags of an open, §6.3.
mod flag {
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const APPEND: u32 = 4;
    pub const CREATE: u32 = 8;
    pub const TRUNCATE: u32 = 16;
    pub const EXCLUSIVE: u32 = 32;
}

/// Why there is no answer but a status.
enum Failed {
    Io(io::Error),
    Status(Code, &'static str),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Errno> for Failed {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<Malformed> for Failed {
    fn from(_: Malformed) -> Self {
        Self::Status(Code::BadMessage, "malformed request")
    }
}

type Answer = Result<Reply, Failed>;

enum Open {
    File { file: File, path: PathBuf, appends: bool },
    Folder { entries: ReadDir, path: PathBuf },
}

/// What one client has open.
pub(super) struct Files<R> {
    open: HashMap<u32, Open>,
    next: u32,
    home: PathBuf,
    /// Names of users and groups that were looked up.
    names: Names,
    /// The one file that anything may be done to; `None`: all are.
    only: Option<Only>,
    report: R,
}

#[derive(Default)]
struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl<R: FnMut(Performed)> Files<R> {
    pub fn new(only: Option<Only>, report: R) -> io::Result<Self> {
        let home = std::env::current_dir()?;
        Ok(Self { open: HashMap::new(), next: 0, home, names: Names::default(), only, report })
    }

    /// Whether a request is about something else than the one file.
    fn is_forbidden(&self, kind: u8, request: &[u8]) -> bool {
        let Some(only) = &self.only else { return false };
        let mut parts = Parts(request);
        let path = |parts: &mut Parts<'_>| Some(self.absolute(&path_of(parts.string().ok()?)));
        let allowed = match kind {
            1 => Some(true),
            3 => path(&mut parts).and_then(|path| Some(only.allows(kind, &About::Path(&path, parts.number().ok()?)))),
            7 | 9 | 17 => path(&mut parts).map(|path| only.allows(kind, &About::Path(&path, 0))),
            200 => parts.string().ok().map(|name| only.allows(kind, &About::Extension(name))),
            _ => Some(only.allows(kind, &About::Other)),
        };
        allowed != Some(true)
    }

    /// The answer to a request, without its length.
    pub fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let mut parts = Parts(request);
        let (Ok(kind), Ok(id)) = (parts.byte(), parts.number()) else {
            return status(0, Code::BadMessage, "malformed request").0;
        };
        if self.is_forbidden(kind, parts.0) {
            return status(id, Code::PermissionDenied, "not part of the approved file transfer").0;
        }
        let answer = match kind {
            1 => return version().0, // the number is the client's version
            3 => self.open(id, &mut parts),
            4 => self.close(id, &mut parts),
            5 => self.read(id, &mut parts),
            6 => self.write(id, &mut parts),
            7 => self.stat(id, &mut parts, |p| fs::symlink_metadata(p)),
            8 => self.fstat(id, &mut parts),
            9 => self.setstat(id, &mut parts, true),
            10 => self.fsetstat(id, &mut parts),
            11 => self.opendir(id, &mut parts),
            12 => self.readdir(id, &mut parts),
            13 => self.one_path(id, &mut parts, action::REMOVE, |path| fs::remove_file(path)),
            14 => self.mkdir(id, &mut parts),
            15 => self.one_path(id, &mut parts, action::RMDIR, |path| fs::remove_dir(path)),
            16 => self.realpath(id, &mut parts),
            17 => self.stat(id, &mut parts, |p| fs::metadata(p)),
            18 => self.two_paths(id, &mut parts, action::RENAME, rename_without_replacing),
            19 => self.readlink(id, &mut parts),
            20 => self.symlink(id, &mut parts),
            200 => self.extended(id, &mut parts),
            _ => Err(Failed::Status(Code::Unsupported, "unknown request")),
        };
        match answer {
            Ok(reply) => reply.0,
            Err(Failed::Status(code, text)) => status(id, code, text).0,
            Err(Failed::Io(error)) => status(id, code_of(&error), &describe(&error)).0,
        }
    }

    fn open(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let path = path_of(parts.string()?);
        let (flags, attributes) = (parts.number()?, parts.attributes()?);
        let opened = self.room().and_then(|()| open_file(&path, flags, &attributes));
        self.tell(action::OPEN, &path, |p| (p.flags, p.attributes) = (flags, some(attributes)), opened.as_ref().err());
        let appends = flags & flag::APPEND != 0;
        Ok(self.keep(id, Open::File { file: opened?, path, appends }))
    }

    fn opendir(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let path = path_of(parts.string()?);
        let entries = self.room().and_then(|()| fs::read_dir(&path));
        self.tell(action::READDIR, &path, |_| {}, entries.as_ref().err());
        Ok(self.keep(id, Open::Folder { entries: entries?, path }))
    }

    fn room(&self) -> io::Result<()> {
        if self.open.len() < MAX_OPEN { Ok(()) } else { Err(Errno::EMFILE.into()) }
    }

    fn keep(&mut self, id: u32, open: Open) -> Reply {
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let handle = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(handle, open);
        let mut reply = Reply::new(HANDLE, id);
        reply.string(&handle.to_be_bytes());
        reply
    }

    fn close(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let handle = handle_of(parts)?;
        self.open.remove(&handle).ok_or(NO_HANDLE)?;
        Ok(ok(id))
    }

    fn read(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let (file, ..) = file_of(&self.open, handle_of(parts)?)?;
        let (offset, length) = (parts.long()?, parts.number()?.min(MAX_READ));
        // The block is read to where it stands in the answer.
        let mut reply = Reply::new(DATA, id);
        reply.number(0);
        let start = reply.0.len();
        reply.0.resize(start + length as usize, 0);
        let mut filled = 0;
        while filled < length as usize {
            let rest = reply.0.get_mut(start + filled..).unwrap_or_default();
            match file.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        if filled == 0 && length > 0 {
            return Err(Failed::Status(Code::EndOfFile, "end of file"));
        }
        reply.0.truncate(start + filled);
        let count = u32::try_from(filled).unwrap_or(MAX_READ).to_be_bytes();
        if let Some(place) = reply.0.get_mut(start - 4..start) {
            place.copy_from_slice(&count);
        }
        Ok(reply)
    }

    fn write(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let (mut file, _, appends) = file_of(&self.open, handle_of(parts)?)?;
        let (offset, data) = (parts.long()?, parts.string()?);
        if appends {
            io::Write::write_all(&mut file, data)?;
        } else {
            file.write_all_at(data, offset)?;
        }
        Ok(ok(id))
    }

    fn stat(&self, id: u32, parts: &mut Parts<'_>, look: fn(&Path) -> io::Result<Metadata>) -> Answer {
        let found = look(&path_of(parts.string()?))?;
        let mut reply = Reply::new(ATTRIBUTES, id);
        reply.attributes(&attributes_of(&found));
        Ok(reply)
    }

    fn fstat(&self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let (file, ..) = file_of(&self.open, handle_of(parts)?)?;
        let mut reply = Reply::new(ATTRIBUTES, id);
        reply.attributes(&attributes_of(&file.metadata()?));
        Ok(reply)
    }

    fn setstat(&mut self, id: u32, parts: &mut Parts<'_>, follow: bool) -> Answer {
        let path = path_of(parts.string()?);
        let attributes = parts.attributes()?;
        let done = set_attributes(&path, &attributes, follow);
        self.tell(action::SETSTAT, &path, |p| p.attributes = some(attributes), done.as_ref().err());
        done.map(|()| ok(id)).map_err(Failed::from)
    }

    fn fsetstat(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let handle = handle_of(parts)?;
        let attributes = parts.attributes()?;
        let (file, path, _) = file_of(&self.open, handle)?;
        let (path, done) = (path.to_owned(), set_open_attributes(file, &attributes));
        self.tell(action::FSETSTAT, &path, |p| p.attributes = some(attributes), done.as_ref().err());
        done.map(|()| ok(id)).map_err(Failed::from)
    }

    fn readdir(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let handle = handle_of(parts)?;
        let Some(Open::Folder { entries, path }) = self.open.get_mut(&handle) else { return Err(NO_HANDLE) };
        let mut found = Vec::new();
        for entry in entries.by_ref().take(NAMES) {
            let name = entry?.file_name();
            // A file that was removed meanwhile is still listed, without attributes.
            let metadata = fs::symlink_metadata(path.join(&name)).ok();
            found.push((name, metadata));
        }
        if found.is_empty() {
            return Err(Failed::Status(Code::EndOfFile, "end of folder"));
        }
        let mut reply = Reply::new(NAME, id);
        reply.number(u32::try_from(found.len()).unwrap_or(0));
        for (name, metadata) in found {
            let attributes = metadata.as_ref().map(attributes_of).unwrap_or_default();
            reply.string(name.as_bytes());
            reply.string(&self.names.line(&name, metadata.as_ref()));
            reply.attributes(&attributes);
        }
        Ok(reply)
    }

    fn mkdir(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let path = path_of(parts.string()?);
        let attributes = parts.attributes()?;
        let mode = attributes.permissions.unwrap_or(0o777) & 0o7777;
        let made = fs::DirBuilder::new().mode(mode).create(&path);
        self.tell(action::MKDIR, &path, |p| p.attributes = some(attributes), made.as_ref().err());
        made.map(|()| ok(id)).map_err(Failed::from)
    }

    fn realpath(&self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let path = path_of(parts.string()?);
        let resolved = fs::canonicalize(&path).unwrap_or_else(|_| self.absolute(&path));
        Ok(one_name(id, resolved.as_os_str()))
    }

    fn readlink(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let path = path_of(parts.string()?);
        let target = fs::read_link(&path);
        self.tell(action::READLINK, &path, |_| {}, target.as_ref().err());
        Ok(one_name(id, target?.as_os_str()))
    }

    /// OpenSSH sends the target first, other than the draft says, and everybody follows it.
    fn symlink(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        let (target, path) = (path_of(parts.string()?), path_of(parts.string()?));
        let made = std::os::unix::fs::symlink(&target, &path);
        // The text of a link is told as it is: it need not name anything.
        let text = target.to_string_lossy().into_owned();
        self.tell(action::SYMLINK, &path, |p| p.target = text, made.as_ref().err());
        made.map(|()| ok(id)).map_err(Failed::from)
    }

    fn one_path(
        &mut self,
        id: u32,
        parts: &mut Parts<'_>,
        action: i32,
        act: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Answer {
        let path = path_of(parts.string()?);
        let done = act(&path);
        self.tell(action, &path, |_| {}, done.as_ref().err());
        done.map(|()| ok(id)).map_err(Failed::from)
    }

    fn two_paths(
        &mut self,
        id: u32,
        parts: &mut Parts<'_>,
        action: i32,
        act: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> Answer {
        let (from, to) = (path_of(parts.string()?), path_of(parts.string()?));
        let done = act(&from, &to);
        let target = self.absolute(&to).to_string_lossy().into_owned();
        self.tell(action, &from, |p| p.target = target, done.as_ref().err());
        done.map(|()| ok(id)).map_err(Failed::from)
    }

    /// Requests of OpenSSH's PROTOCOL file.
    fn extended(&mut self, id: u32, parts: &mut Parts<'_>) -> Answer {
        match parts.string()? {
            b"posix-rename@openssh.com" => self.two_paths(id, parts, action::RENAME, |a, b| fs::rename(a, b)),
            b"hardlink@openssh.com" => self.two_paths(id, parts, action::LINK, |a, b| fs::hard_link(a, b)),
            b"lsetstat@openssh.com" => self.setstat(id, parts, false),
            b"fsync@openssh.com" => {
                let (file, ..) = file_of(&self.open, handle_of(parts)?)?;
                file.sync_all()?;
                Ok(ok(id))
            }
            b"statvfs@openssh.com" => Ok(file_system(id, &statvfs(&path_of(parts.string()?))?)),
            b"fstatvfs@openssh.com" => {
                let (file, ..) = file_of(&self.open, handle_of(parts)?)?;
                Ok(file_system(id, &fstatvfs(file.as_fd())?))
            }
            b"limits@openssh.com" => {
                let mut reply = Reply::new(EXTENDED_REPLY, id);
                let longest = super::MAX_PACKET as u64;
                for limit in [longest, u64::from(MAX_READ), u64::from(MAX_READ), MAX_OPEN as u64] {
                    reply.long(limit);
                }
                Ok(reply)
            }
            b"expand-path@openssh.com" => {
                let path = parts.string()?;
                let expanded = match path.strip_prefix(b"~") {
                    Some(rest) if rest.is_empty() || rest.starts_with(b"/") => {
                        self.home.join(OsStr::from_bytes(rest.strip_prefix(b"/").unwrap_or(rest)))
                    }
                    Some(_) => return Err(Failed::Status(Code::Failure, "only one's own home folder is known")),
                    None => self.absolute(&path_of(path)),
                };
                Ok(one_name(id, expanded.as_os_str()))
            }
            _ => Err(Failed::Status(Code::Unsupported, "unknown request")),
        }
    }

    /// A path from the root, without `.` and `..`, whether or not it exists.
    fn absolute(&self, path: &Path) -> PathBuf {
        let mut absolute = PathBuf::from("/");
        for component in self.home.join(path).components() {
            match component {
                Component::Normal(name) => absolute.push(name),
                Component::ParentDir => drop(absolute.pop()),
                _ => {}
            }
        }
        absolute
    }

    /// Says in the audit log what was done.
    fn tell(&mut self, action: i32, path: &Path, add: impl FnOnce(&mut Performed), error: Option<&io::Error>) {
        let path = self.absolute(path).to_string_lossy().into_owned();
        let error = error.map(describe).unwrap_or_default();
        let mut performed = Performed { action, path, error, ..Performed::default() };
        add(&mut performed);
        (self.report)(performed);
    }
}

const NO_HANDLE: Failed = Failed::Status(Code::Failure, "no such handle");

fn path_of(bytes: &[u8]) -> PathBuf {
    let bytes = if bytes.is_empty() { b"." } else { bytes };
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn handle_of(parts: &mut Parts<'_>) -> Result<u32, Failed> {
    let bytes: [u8; 4] = parts.string()?.try_into().map_err(|_| NO_HANDLE)?;
    Ok(u32::from_be_bytes(bytes))
}

fn file_of(open: &HashMap<u32, Open>, handle: u32) -> Result<(&File, &Path, bool), Failed> {
    match open.get(&handle) {
        Some(Open::File { file, path, appends }) => Ok((file, path, *appends)),
        _ => Err(NO_HANDLE),
    }
}

fn some(attributes: Attributes) -> Option<Attributes> {
    (attributes != Attributes::default()).then_some(attributes)
}

fn open_file(path: &Path, flags: u32, attributes: &Attributes) -> io::Result<File> {
    let has = |flag| flags & flag != 0;
    let mut options = OpenOptions::new();
    options.read(has(flag::READ) || !has(flag::WRITE | flag::APPEND));
    options.write(has(flag::WRITE)).append(has(flag::APPEND));
    options.create(has(flag::CREATE)).truncate(has(flag::TRUNCATE) && !has(flag::APPEND));
    options.create_new(has(flag::CREATE) && has(flag::EXCLUSIVE));
    options.mode(attributes.permissions.unwrap_or(0o666) & 0o7777);
    options.open(path)
}

fn set_attributes(path: &Path, attributes: &Attributes, follow: bool) -> io::Result<()> {
    if let Some(size) = attributes.size {
        OpenOptions::new().write(true).open(path)?.set_len(size)?;
    }
    if let Some(permissions) = attributes.permissions.filter(|_| follow) {
        fs::set_permissions(path, fs::Permissions::from_mode(permissions & 0o7777))?;
    }
    if let Some((access, modification)) = attributes.times {
        let flags = if follow { UtimensatFlags::FollowSymlink } else { UtimensatFlags::NoFollowSymlink };
        utimensat(AT_FDCWD, path, &moment(access), &moment(modification), flags)?;
    }
    match attributes.owner {
        Some((user, group)) if follow => std::os::unix::fs::chown(path, Some(user), Some(group)),
        Some((user, group)) => std::os::unix::fs::lchown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

fn set_open_attributes(file: &File, attributes: &Attributes) -> io::Result<()> {
    if let Some(size) = attributes.size {
        file.set_len(size)?;
    }
    if let Some(permissions) = attributes.permissions {
        file.set_permissions(fs::Permissions::from_mode(permissions & 0o7777))?;
    }
    if let Some((access, modification)) = attributes.times {
        futimens(file.as_fd(), &moment(access), &moment(modification))?;
    }
    match attributes.owner {
        Some((user, group)) => std::os::unix::fs::fchown(file, Some(user), Some(group)),
        None => Ok(()),
    }
}

fn moment(seconds: u32) -> TimeSpec {
    TimeSpec::new(i64::from(seconds), 0)
}

/// Renames as version 3 of the protocol says: nothing is replaced.
fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        // File systems without the flag: between looking and renaming, somebody may make the file.
        Err(Errno::EINVAL | Errno::ENOSYS) => match fs::symlink_metadata(to) {
            Ok(_) => Err(Errno::EEXIST.into()),
            Err(_) => fs::rename(from, to),
        },
        result => result.map_err(io::Error::from),
    }
}

fn attributes_of(metadata: &Metadata) -> Attributes {
    let seconds = |time: i64| u32::try_from(time).unwrap_or(0);
    Attributes {
        size: Some(metadata.len()),
        owner: Some((metadata.uid(), metadata.gid())),
        permissions: Some(metadata.mode()),
        times: Some((seconds(metadata.atime()), seconds(metadata.mtime()))),
    }
}

fn version() -> Reply {
    let mut reply = Reply::new(VERSION, 3);
    for (name, version) in [
        ("posix-rename@openssh.com", "1"),
        ("statvfs@openssh.com", "2"),
        ("fstatvfs@openssh.com", "2"),
        ("hardlink@openssh.com", "1"),
        ("fsync@openssh.com", "1"),
        ("lsetstat@openssh.com", "1"),
        ("limits@openssh.com", "1"),
        ("expand-path@openssh.com", "1"),
    ] {
        reply.string(name.as_bytes());
        reply.string(version.as_bytes());
    }
    reply
}

fn status(id: u32, code: Code, text: &str) -> Reply {
    let mut reply = Reply::new(STATUS, id);
    reply.number(code as u32);
    reply.string(text.as_bytes());
    reply.string(b"en");
    reply
}

fn ok(id: u32) -> Reply {
    status(id, Code::Ok, "")
}

fn code_of(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::NotFound => Code::NoSuchFile,
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        io::ErrorKind::Unsupported => Code::Unsupported,
        _ => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOTDIR | Errno::ELOOP) => Code::NoSuchFile,
            _ => Code::Failure,
        },
    }
}

fn one_name(id: u32, name: &OsStr) -> Reply {
    let mut reply = Reply::new(NAME, id);
    reply.number(1);
    reply.string(name.as_bytes());
    reply.string(name.as_bytes());
    reply.attributes(&Attributes::default());
    reply
}

fn file_system(id: u32, found: &Statvfs) -> Reply {
    let mut flags = 0;
    for (flag, value) in [(FsFlags::ST_RDONLY, 1), (FsFlags::ST_NOSUID, 2)] {
        if found.flags().contains(flag) {
            flags |= value;
        }
    }
    let mut reply = Reply::new(EXTENDED_REPLY, id);
    for number in [
        found.block_size(),
        found.fragment_size(),
        found.blocks(),
        found.blocks_free(),
        found.blocks_available(),
        found.files(),
        found.files_free(),
        found.files_available(),
        found.filesystem_id(),
        flags,
        found.name_max(),
    ] {
        reply.long(number);
    }
    reply
}

impl Names {
    /// A line as `ls -l` prints it; clients show it as it is.
    fn line(&mut self, name: &OsStr, metadata: Option<&Metadata>) -> Vec<u8> {
        let Some(metadata) = metadata else { return name.as_bytes().to_vec() };
        let user = self.users.entry(metadata.uid()).or_insert_with_key(|id| {
            let found = nix::unistd::User::from_uid((*id).into()).ok().flatten();
            found.map_or_else(|| id.to_string(), |user| user.name)
        });
        let group = self.groups.entry(metadata.gid()).or_insert_with_key(|id| {
            let found = nix::unistd::Group::from_gid((*id).into()).ok().flatten();
            found.map_or_else(|| id.to_string(), |group| group.name)
        });
        let changed = chrono::DateTime::from_timestamp(metadata.mtime(), 0).unwrap_or_default();
        let age = chrono::Utc::now().signed_duration_since(changed).num_days();
        let form = if (0..180).contains(&age) { "%b %e %H:%M" } else { "%b %e  %Y" };
        let changed = changed.with_timezone(&chrono::Local).format(form);
        let (mode, links, size) = (mode_text(metadata.mode()), metadata.nlink(), metadata.len());
        let mut line = format!("{mode} {links:>4} {user:<8} {group:<8} {size:>8} {changed} ").into_bytes();
        line.extend_from_slice(name.as_bytes());
        line
    }
}

fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => set,
            (false, true) => unset,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}
