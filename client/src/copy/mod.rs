//! Copying files and folders between this machine and hosts, with the rules of `scp`.
//!
//! * A target that is a folder gets the sources under their names; any other is the copy itself.
//! * Links are followed; what is neither file nor folder is not copied.
//! * A failure with one file does not keep the others from being copied.
//!
//! Several files are under way side by side, and several reads and writes in each, so that neither many small files
//! nor a large one wait for a slow line more than once. Writes of a file are sent in order: what an interrupted copy
//! leaves behind is its beginning, and [`Options::resume`] goes on from there.

mod glob;
mod location;
mod place;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;

use crate::sftp::{Attributes, Pending};
use place::OpenFile;

pub use location::Location;
pub use place::{Place, PlaceError};

/// Files that are copied side by side.
const FILES_AT_ONCE: usize = 16;
/// Bytes of one file that are under way in each direction.
const UNDER_WAY: u32 = 4 << 20;
/// Fewest and most requests for one file that are under way in each direction.
const REQUESTS: std::ops::RangeInclusive<u32> = 4..=64;
/// Folders in folders that are followed: more of them are a link that leads back.
const DEEPEST: usize = 64;

/// How things are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Folders with all that is in them.
    pub recursive: bool,
    /// Permissions and times as well.
    pub preserve: bool,
    /// Where the target has the beginning of a file, only the rest of it.
    pub resume: bool,
}

/// Hears what happens.
pub trait Observer {
    /// A file of so many bytes begins, or goes on after those that are there already.
    fn begin(&self, name: &Path, size: u64, there: u64);
    /// So many bytes of it have arrived.
    fn advance(&self, name: &Path, bytes: u64);
    /// It has arrived.
    fn end(&self, name: &Path);
    /// Something was not copied.
    fn failed(&self, path: &Path, error: &PlaceError);
}

/// Things to copy from one place.
pub struct Sources {
    /// The place.
    pub place: Place,
    /// Paths there, with patterns where the place is a host.
    pub paths: Vec<PathBuf>,
}

/// What came of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files that have arrived.
    pub files: u64,
    /// Things that have not.
    pub failures: u64,
}

/// Copies everything to a path at a place.
pub async fn copy(
    sources: &[Sources],
    target: &Place,
    path: &Path,
    options: Options,
    observer: &dyn Observer,
) -> Copied {
    let mut copied = Copied::default();
    let mut groups = Vec::with_capacity(sources.len());
    // All sources are looked at first: nothing is made at the target for one that is not there.
    for source in sources {
        let mut found = Vec::new();
        for wanted in &source.paths {
            match find(&source.place, wanted, options).await {
                Ok(paths) => {
                    for (path, like) in paths {
                        match like {
                            Ok(like) => found.push((path, like)),
                            Err(error) => copied.fail(observer, &path, &error),
                        }
                    }
                }
                Err(error) => copied.fail(observer, wanted, &error),
            }
        }
        groups.push((&source.place, found));
    }
    let count: usize = groups.iter().map(|(_, found)| found.len()).sum();
    let into_folder = match decide(target, path, count + copied.failures as usize).await {
        Ok(into_folder) => into_folder,
        Err(_) if count == 0 => return copied,
        Err(error) => {
            copied.fail(observer, path, &error);
            return copied;
        }
    };
    for (source, found) in groups {
        let mut walk = Walk::new(Engine { source, target, options, observer });
        for (from, like) in found {
            let name = base_name(&from).filter(|_| into_folder);
            let to = name.map_or_else(|| path.to_owned(), |name| path.join(name));
            if like.is_folder() {
                walk.folder(from, to, like).await;
            } else {
                walk.start(from, to, like).await;
            }
        }
        let result = walk.finish().await;
        copied.files += result.files;
        copied.failures += result.failures;
    }
    copied
}

/// A path, and what is there.
type Found = (PathBuf, Result<Attributes, PlaceError>);

/// The files that a source stands for.
async fn find(place: &Place, wanted: &Path, options: Options) -> Result<Vec<Found>, PlaceError> {
    let paths = match place {
        // Those of this machine have been expanded by the shell.
        Place::Here => vec![wanted.to_owned()],
        Place::There(_) => glob::expand(place, wanted).await?,
    };
    let look = |path: PathBuf| async move {
        let like = match place.stat(&path).await {
            Ok(like) if like.is_folder() && !options.recursive => {
                Err(PlaceError::Other("is a directory: -r copies directories (recursive)".to_owned()))
            }
            other => other,
        };
        (path, like)
    };
    Ok(futures::stream::iter(paths).map(look).buffered(FILES_AT_ONCE).collect().await)
}

/// Whether the target is a folder that things are copied into.
async fn decide(target: &Place, path: &Path, sources: usize) -> Result<bool, PlaceError> {
    match target.stat(path).await {
        Ok(found) if found.is_folder() => Ok(true),
        Ok(_) if sources > 1 || names_folder(path) => Err(PlaceError::Other("is not a directory".to_owned())),
        Ok(_) => Ok(false),
        Err(error) if error.is_not_found() && sources <= 1 && !names_folder(path) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a path is written as that of a folder.
fn names_folder(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/")
}

/// What a source is called in the folder it is copied into; `None` for one whose content is meant.
fn base_name(path: &Path) -> Option<&OsStr> {
    let bytes = path.as_os_str().as_bytes();
    if bytes == b"." || bytes.ends_with(b"/.") { None } else { path.file_name() }
}

impl Copied {
    fn fail(&mut self, observer: &dyn Observer, path: &Path, error: &PlaceError) {
        self.failures += 1;
        observer.failed(path, error);
    }
}

/// Copies from one place to another.
#[derive(Clone, Copy)]
struct Engine<'a> {
    source: &'a Place,
    target: &'a Place,
    options: Options,
    observer: &'a dyn Observer,
}

/// A folder to be copied.
struct Folder {
    from: PathBuf,
    to: PathBuf,
    like: Attributes,
    depth: usize,
}

/// A file that did or did not arrive.
struct Done {
    from: PathBuf,
    result: Result<(), PlaceError>,
}

/// All that is copied from one place.
struct Walk<'a> {
    engine: Engine<'a>,
    running: FuturesUnordered<LocalBoxFuture<'a, Done>>,
    copied: Copied,
    /// Folders that were made, with what they are to be like; those inside of others after them.
    made: Vec<(PathBuf, Attributes)>,
    /// Nothing more can be done.
    over: bool,
}

impl Engine<'_> {
    async fn enter(&self, folder: &Folder) -> Result<Vec<(std::ffi::OsString, Attributes)>, PlaceError> {
        self.target.make_folder(&folder.to, folder.like.mode).await?;
        self.source.entries(&folder.from).await
    }

    /// What an entry of a folder is, links followed.
    async fn entry(&self, from: &Path, like: Attributes, depth: usize) -> Result<Attributes, PlaceError> {
        let like = if like.is_folder() || (like.mode.is_some() && like.is_regular()) {
            like
        } else {
            self.source.stat(from).await?
        };
        if like.is_folder() && depth >= DEEPEST {
            return Err(PlaceError::Other("too many directories in directories: a link may lead back".to_owned()));
        }
        Ok(like)
    }

    async fn file(self, from: PathBuf, to: PathBuf, like: Attributes) -> Done {
        let result = self.try_file(&from, &to, like).await;
        Done { from, result }
    }

    async fn try_file(&self, from: &Path, to: &Path, like: Attributes) -> Result<(), PlaceError> {
        if !like.is_regular() {
            return Err(PlaceError::Other("is not a regular file".to_owned()));
        }
        if self.source.is_same_file(from, self.target, to).await {
            return Err(PlaceError::Other(format!("{} is the same file", to.display())));
        }
        let size = like.size.unwrap_or(0);
        let there = if self.options.resume { self.there(to, size).await? } else { 0 };
        let source = self.source.open_to_read(from).await?;
        let target = self.target.open_to_write(to, like.mode, there > 0).await.map_err(|error| at(to, error))?;
        self.observer.begin(from, size, there);
        let transfer = Transfer {
            source: &source,
            target: &target,
            chunk: self.source.read_chunk().min(self.target.write_chunk()),
            advance: &|bytes| self.observer.advance(from, bytes),
        };
        let copied = match transfer.run(there, size).await {
            Ok(()) if self.options.preserve => target.set_like(like).await,
            other => other,
        };
        // Full disks of some hosts are only noticed now.
        let closed = target.close().await;
        let released = source.close().await;
        copied.and(closed).map_err(|error| at(to, error)).and(released)?;
        self.observer.end(from);
        Ok(())
    }

    /// How much of a file the target has already.
    async fn there(&self, to: &Path, size: u64) -> Result<u64, PlaceError> {
        match self.target.stat(to).await {
            Ok(found) if found.size.unwrap_or(0) > size => Err(PlaceError::Other(format!(
                "{} is larger: it is no beginning that could be gone on with",
                to.display()
            ))),
            Ok(found) => Ok(found.size.unwrap_or(0)),
            Err(error) if error.is_not_found() => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// Names the target in an error of it.
fn at(to: &Path, error: PlaceError) -> PlaceError {
    if error.is_final() { error } else { PlaceError::Other(format!("to {}: {error}", to.display())) }
}

impl<'a> Walk<'a> {
    fn new(engine: Engine<'a>) -> Self {
        let (running, copied) = (FuturesUnordered::new(), Copied::default());
        Self { engine, running, copied, made: Vec::new(), over: false }
    }

    /// Begins with all that is in a folder.
    async fn folder(&mut self, from: PathBuf, to: PathBuf, like: Attributes) {
        let mut waiting = vec![Folder { from, to, like, depth: 0 }];
        while let Some(folder) = waiting.pop() {
            if self.over {
                return;
            }
            let entries = match self.engine.enter(&folder).await {
                Ok(entries) => entries,
                Err(error) => {
                    self.fail(&folder.from, &error);
                    continue;
                }
            };
            for (name, like) in entries {
                let (from, to) = (folder.from.join(&name), folder.to.join(&name));
                match self.engine.entry(&from, like, folder.depth).await {
                    Ok(like) if like.is_folder() => {
                        waiting.push(Folder { from, to, like, depth: folder.depth + 1 });
                    }
                    Ok(like) => self.start(from, to, like).await,
                    Err(error) => self.fail(&from, &error),
                }
            }
            self.made.push((folder.to, folder.like));
        }
    }

    /// Begins with a file, once there is room for it.
    async fn start(&mut self, from: PathBuf, to: PathBuf, like: Attributes) {
        while self.running.len() >= FILES_AT_ONCE {
            self.wait().await;
        }
        if !self.over {
            self.running.push(Box::pin(self.engine.file(from, to, like)));
        }
    }

    async fn wait(&mut self) {
        match self.running.next().await {
            Some(Done { result: Ok(()), .. }) => self.copied.files += 1,
            Some(Done { from, result: Err(error) }) => self.fail(&from, &error),
            None => {}
        }
    }

    fn fail(&mut self, path: &Path, error: &PlaceError) {
        // When a connection is lost, all that was under way fails for the same reason.
        if self.over {
            self.copied.failures += 1;
        } else {
            self.copied.fail(self.engine.observer, path, error);
        }
        self.over |= error.is_final();
    }

    async fn finish(mut self) -> Copied {
        while !self.running.is_empty() {
            self.wait().await;
        }
        if self.engine.options.preserve {
            // From the inside: whatever is written in a folder changes its time.
            for (path, like) in std::mem::take(&mut self.made).into_iter().rev() {
                if let Err(error) = self.engine.target.finish_folder(&path, like).await {
                    self.fail(&path, &error);
                }
            }
        }
        self.copied
    }
}

/// The bytes of one file.
struct Transfer<'a> {
    source: &'a OpenFile,
    target: &'a OpenFile,
    chunk: u32,
    advance: &'a dyn Fn(u64),
}

impl Transfer<'_> {
    /// Copies what follows the first `start` bytes. The size is what the source said about itself: a file that grows
    /// meanwhile is copied as far as that, one that says it has nothing is read to its end.
    async fn run(&self, start: u64, size: u64) -> Result<(), PlaceError> {
        let depth = (UNDER_WAY / self.chunk).clamp(*REQUESTS.start(), *REQUESTS.end()) as usize;
        let (mut reads, mut writes) = (VecDeque::new(), VecDeque::new());
        let (mut asked, mut at) = (start, start);
        loop {
            while reads.len() < depth && asked < size {
                let length = u32::try_from(size - asked).unwrap_or(u32::MAX).min(self.chunk);
                reads.push_back((length, self.source.begin_read(asked, length).await?));
                asked += u64::from(length);
            }
            let Some((length, reading)) = reads.pop_front() else { break };
            let bytes = self.source.finish_read(reading, at, length).await?;
            let arrived = bytes.len() as u64;
            if arrived > 0 {
                self.target.write(at, bytes, &mut writes).await?;
            }
            at += arrived;
            (self.advance)(arrived);
            if arrived < u64::from(length) {
                return Err(PlaceError::Other("has become shorter while it was copied".to_owned()));
            }
            while writes.len() >= depth
                && let Some(write) = writes.pop_front()
            {
                write.done().await?;
            }
        }
        if size == 0 {
            self.to_the_end(at, &mut writes).await?;
        }
        for write in writes {
            write.done().await?;
        }
        Ok(())
    }

    /// Copies whatever there is: files of the kernel do not know their size.
    async fn to_the_end(&self, start: u64, writes: &mut VecDeque<Pending>) -> Result<(), PlaceError> {
        let mut at = start;
        loop {
            let reading = self.source.begin_read(at, self.chunk).await?;
            let bytes = self.source.finish_read(reading, at, self.chunk).await?;
            if bytes.is_empty() {
                return Ok(());
            }
            let arrived = bytes.len() as u64;
            self.target.write(at, bytes, writes).await?;
            while let Some(write) = writes.pop_front() {
                write.done().await?;
            }
            at += arrived;
            (self.advance)(arrived);
        }
    }
}

#[cfg(test)]
mod tests;
