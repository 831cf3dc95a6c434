//! Files that grow part by part.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, Read, Seek},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;

use crate::{
    Error, FormatError, Result, Seal,
    format::{HEADER_BYTES, PartHeader, PartKind},
    seal::End,
};

/// A file of whole parts that one writer appends to. The writer holds a lock on it for as long as it lives, so that
/// nobody takes a running recording for an abandoned one.
///
/// Disk space is reserved ahead of the data: a full disk is noticed before there is something to lose.
pub(crate) struct PartFile {
    file: File,
    path: PathBuf,
    length: u64,
    reserved: u64,
}

/// How much disk space is reserved at a time.
const RESERVATION: u64 = 192 * 1024;

impl PartFile {
    /// Makes a new file and its folders, locked and with disk space reserved. It gets its name last, so that whoever
    /// finds the name finds the lock.
    pub fn create(path: PathBuf) -> Result<Self> {
        if let Some(folder) = path.parent() {
            make_folders(folder)?;
        }
        let fresh = path.with_extension("reservation");
        let make = || {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create_new(true).mode(0o600).open(&fresh)?;
            file.lock()?;
            reserve_space(&file, 0, RESERVATION)?;
            fs::rename(&fresh, &path)?;
            Ok(file)
        };
        match make() {
            Ok(file) => Ok(Self { file, path, length: 0, reserved: RESERVATION }),
            Err(e) => {
                fs::remove_file(&fresh).ok();
                Err(Error::storage("create", &path)(e))
            }
        }
    }

    /// Takes over an abandoned file; `None` when its writer lives.
    pub fn take_over(path: PathBuf) -> Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(Error::storage("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(Error::storage("lock", &path)(e)),
        }
        let length = file.metadata().map_err(Error::storage("read", &path))?.len();
        Ok(Some(Self { file, path, length, reserved: length }))
    }

    /// Cuts off what follows the first `whole` bytes.
    pub fn truncate(&mut self, whole: u64) -> Result<()> {
        self.file.set_len(whole).map_err(Error::storage("truncate", &self.path))?;
        (self.length, self.reserved) = (whole, whole);
        Ok(())
    }

    /// Appends bytes made of whole parts. On failure the file is as it was before.
    pub fn append(&mut self, parts: &[u8]) -> Result<()> {
        let end = self.length + parts.len() as u64;
        if end > self.reserved {
            self.reserve(end - self.reserved + RESERVATION)?;
        }
        if let Err(e) = self.file.write_all_at(parts, self.length) {
            self.file.set_len(self.length).ok();
            self.reserved = self.length;
            return Err(Error::storage("write to", &self.path)(e));
        }
        self.length = end;
        Ok(())
    }

    /// Appends the first `whole` bytes of another file.
    pub fn append_from(&mut self, other: &Path, whole: u64) -> Result<()> {
        let mut source = File::open(other).map_err(Error::storage("open", other))?.take(whole);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match source.read(&mut buffer).map_err(Error::storage("read", other))? {
                0 => return Ok(()),
                n => self.append(&buffer[..n])?,
            }
        }
    }

    /// Adds the part that ends a recording with sealed parts.
    pub fn end(&mut self, seal: &Seal) -> Result<()> {
        let path = self.path.clone();
        let failed = Error::storage("read", &path);
        match tally(&self.file, self.length).map_err(failed)? {
            Some(end) => self.append(&seal.end(&end)?),
            None => Ok(()),
        }
    }

    /// Puts everything appended so far on disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::storage("write to", &self.path))
    }

    /// Ends the file durably and moves it to `path`, which must not exist unless `replace` says so.
    pub fn finish(self, path: &Path, replace: bool) -> Result<()> {
        let fail = |e| Error::storage("complete", path)(e);
        self.file.set_len(self.length).and_then(|()| self.file.sync_all()).map_err(fail)?;
        if replace {
            fs::rename(&self.path, path).map_err(fail)?;
        } else {
            // A link is refused when the name is taken, where a rename would overwrite.
            match fs::hard_link(&self.path, path) {
                Ok(()) => fs::remove_file(&self.path).map_err(fail)?,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists || path.exists() => return Err(fail(e)),
                // Some file systems know no links.
                Err(_) => fs::rename(&self.path, path).map_err(fail)?,
            }
        }
        path.parent().map_or(Ok(()), sync_folder)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder the file is in.
    pub fn folder(&self) -> PathBuf {
        self.path.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Length of the whole parts in the file.
    pub fn len(&self) -> u64 {
        self.length
    }

    fn reserve(&mut self, bytes: u64) -> Result<()> {
        reserve_space(&self.file, self.reserved, bytes).map_err(Error::storage("reserve space for", &self.path))?;
        self.reserved += bytes;
        Ok(())
    }
}

/// Reserves blocks without changing the file's size. File systems that cannot do it say so, and are let off.
#[cfg(target_os = "linux")]
fn reserve_space(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    use nix::{
        errno::Errno,
        fcntl::{FallocateFlags, fallocate},
    };
    let (Ok(from), Ok(bytes)) = (i64::try_from(from), i64::try_from(bytes)) else {
        return Err(io::ErrorKind::FileTooLarge.into());
    };
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, bytes) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve_space(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

/// Makes folders that only their owner writes to.
pub(crate) fn make_folders(folder: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(Error::storage("make folder", folder))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(Error::storage("write to", folder))
}

/// The end of a recording of this length; `None` when no part of it is sealed.
fn tally(file: &File, length: u64) -> io::Result<Option<End>> {
    let (mut offset, mut sealed, mut header) = (0, false, [0; HEADER_BYTES]);
    while offset + HEADER_BYTES as u64 <= length {
        file.read_exact_at(&mut header, offset)?;
        let part = PartHeader::from_bytes(&header).map_err(io::Error::other)?;
        sealed |= part.kind == PartKind::Sealed;
        offset = offset.saturating_add(part.length());
    }
    if !sealed {
        return Ok(None);
    }
    let mut context = digest::Context::new(&digest::SHA256);
    let (mut offset, mut buffer) = (0, vec![0; 256 * 1024]);
    while offset < length {
        let most = buffer.len().min(usize::try_from(length - offset).unwrap_or(usize::MAX));
        let piece = &mut buffer[..most];
        file.read_exact_at(piece, offset)?;
        context.update(piece);
        offset += most as u64;
    }
    Ok(Some(End::after(length, context)))
}

/// How many bytes at the start of a file are whole parts, by their headers alone, but for a part that ends a recording:
/// more may have come since.
pub(crate) fn whole_by_headers(file: &File) -> Result<u64, FormatError> {
    let size = file.metadata().map_err(FormatError::Read)?.len();
    let (mut offset, mut header) = (0_u64, [0; HEADER_BYTES]);
    while offset + HEADER_BYTES as u64 <= size {
        file.read_exact_at(&mut header, offset).map_err(FormatError::Read)?;
        let Ok(part) = PartHeader::from_bytes(&header) else { break };
        match offset.checked_add(part.length()) {
            Some(end) if end <= size && part.kind != PartKind::End => offset = end,
            _ => break,
        }
    }
    Ok(offset)
}

/// A file's content up to a bound that somebody else moves ahead.
pub(crate) struct Bounded {
    file: File,
    position: u64,
    bound: Box<dyn Fn() -> u64 + Send + Sync>,
}

impl Bounded {
    /// Reads `file` from its start up to whatever `bound` says at the time.
    pub fn new(file: File, bound: impl Fn() -> u64 + Send + Sync + 'static) -> BufReader<Self> {
        BufReader::with_capacity(32 * 1024, Self { file, position: 0, bound: Box::new(bound) })
    }
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = (self.bound)().saturating_sub(self.position);
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..most], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// The numbered files `<n>.part` of a folder, in order.
pub(crate) fn numbered_parts(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut parts = Vec::new();
    for name in names_in(folder)? {
        if let Some(number) = name.strip_suffix(".part").and_then(|n| n.parse().ok()) {
            parts.push((number, folder.join(name)));
        }
    }
    parts.sort();
    Ok(parts)
}

/// The names in a folder, in no order; none when it does not exist.
pub(crate) fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::storage("list", folder)(e)),
    };
    Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::storage("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Removes the folder `<upload>/<session>` of an upload, with what is left in it.
pub(crate) fn remove_upload(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::storage("remove", folder)(e)),
        _ => {}
    }
    // The upload's own folder may hold another session in theory; then it stays.
    if let Some(upload) = folder.parent() {
        fs::remove_dir(upload).ok();
    }
    Ok(())
}

/// A buffered reader from the start of a file.
pub(crate) fn from_start(mut file: File) -> io::Result<BufReader<File>> {
    file.rewind()?;
    Ok(BufReader::with_capacity(32 * 1024, file))
}
