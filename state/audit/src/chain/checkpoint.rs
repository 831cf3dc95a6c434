//! Signed statements about how far the log has come.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    str::FromStr,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::digest;
use crate::{Error, Result};

/// Signs checkpoints in the name of the cluster.
pub trait Signer: Send + Sync {
    /// What tells the key from others.
    fn key_id(&self) -> String;
    /// The signature over a message; `None` when the key cannot be used.
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>>;
}

/// A checkpoint in few words, to be kept where whoever changes the log cannot reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The checkpoint's number, counted from 1.
    pub number: u64,
    /// Its SHA-256, hexadecimal.
    pub digest: String,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.digest)
    }
}

/// Reads what [`Display`](fmt::Display) writes.
impl FromStr for Anchor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parsed = text.split_once(':').and_then(|(number, digest)| {
            let whole = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
            whole.then_some(Self { number: number.parse().ok()?, digest: digest.to_lowercase() })
        });
        parsed.ok_or_else(|| Error::Invalid(format!("{text:?} is no checkpoint, expected NUMBER:DIGEST")))
    }
}

/// How far a file had come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileState {
    pub lines: u64,
    pub bytes: u64,
    /// Hexadecimal.
    pub head: String,
    /// Stretches of lines, `from..to`, that did not pass through the chain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adopted: Vec<(u64, u64)>,
}

/// What a checkpoint says; files that are not named have not changed since the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Statement {
    pub version: u32,
    pub cluster: String,
    pub host: String,
    pub number: u64,
    pub time: String,
    /// Digest of the checkpoint before, empty for the first.
    pub previous: String,
    pub files: BTreeMap<String, FileState>,
    /// Files that were removed because of their age.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// A checkpoint as it stands in its file, one line each. The statement is kept as the text that was signed.
#[derive(Serialize, Deserialize)]
pub(super) struct Signed {
    pub statement: String,
    pub key: String,
    pub signature: String,
}

/// Precedes a statement when it is signed, so that the signature is good for nothing else.
pub(super) const PURPOSE: &str = "teleport audit log checkpoint\n";
pub(super) const FILE: &str = "checkpoints.jsonl";

impl Signed {
    pub fn anchor(&self, number: u64) -> Anchor {
        Anchor { number, digest: hex::encode(digest(&[self.statement.as_bytes()])) }
    }

    pub fn statement(&self) -> Option<Statement> {
        serde_json::from_str(&self.statement).ok()
    }
}

/// The checkpoints of a folder, open for more.
pub(crate) struct Checkpoints {
    path: PathBuf,
    host: String,
    last: Option<Anchor>,
}

impl Checkpoints {
    /// Opens the checkpoints of the log in `folder` and removes what a crash left of a last one. The cluster's storage
    /// knows of every checkpoint that was made, so that none can be taken away in this guise.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let read = |line: &[u8]| {
            let signed: Signed = serde_json::from_slice(line).ok()?;
            let number = signed.statement()?.number;
            Some(signed.anchor(number))
        };
        let last = last_line(&path, read).map_err(|e| Error::storage("read", &path, e))?;
        let host = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { path, host, last })
    }

    /// The latest checkpoint.
    pub fn last(&self) -> Option<&Anchor> {
        self.last.as_ref()
    }

    /// Signs and stores a checkpoint that follows the latest, or `known` when that is what the cluster remembers: then
    /// the gap stays visible for ever.
    pub fn add(
        &mut self,
        signer: &dyn Signer,
        cluster: &str,
        now: DateTime<Utc>,
        known: Option<&Anchor>,
        files: BTreeMap<String, FileState>,
        removed: Vec<String>,
    ) -> Result<Anchor> {
        let before = match (known, &self.last) {
            (Some(known), Some(last)) if last.number > known.number => Some(last.clone()),
            (Some(known), _) => Some(known.clone()),
            (None, last) => last.clone(),
        };
        let statement = Statement {
            version: 1,
            cluster: cluster.to_owned(),
            host: self.host.clone(),
            number: before.as_ref().map_or(0, |anchor| anchor.number) + 1,
            time: now.to_rfc3339_opts(SecondsFormat::Millis, true),
            previous: before.map(|anchor| anchor.digest).unwrap_or_default(),
            files,
            removed,
        };
        let failed = |what: &str| Error::Invalid(format!("audit log checkpoint {}: {what}", statement.number));
        let text = serde_json::to_string(&statement).map_err(|e| failed(&e.to_string()))?;
        let signature = signer
            .sign(format!("{PURPOSE}{text}").as_bytes())
            .ok_or_else(|| failed("the key of the cluster cannot sign"))?;
        let signed = Signed { statement: text, key: signer.key_id(), signature: STANDARD.encode(signature) };
        let mut line = serde_json::to_string(&signed).map_err(|e| failed(&e.to_string()))?;
        line.push('\n');
        self.append(line.as_bytes()).map_err(|e| Error::storage("write to", &self.path, e))?;
        let anchor = signed.anchor(statement.number);
        self.last = Some(anchor.clone());
        Ok(anchor)
    }

    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.path)?;
        let before = file.metadata()?.len();
        let written = file.write_all(line).and_then(|()| file.sync_data()).and_then(|()| match self.path.parent() {
            // The name of a new file has to be durable as well.
            Some(folder) if before == 0 => File::open(folder)?.sync_all(),
            _ => Ok(()),
        });
        if written.is_err() {
            // Half a line would be taken for a checkpoint that somebody damaged.
            file.set_len(before).ok();
        }
        written
    }
}

/// What `read` makes of the last line of a file; what follows it is cut off. So is a last line that cannot be read, as
/// power can fail in the middle of one; more of them were made by somebody, and stay.
fn last_line<T>(path: &Path, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let (start, Some(line)) = end_of(&file)? else { return Ok(None) };
    if let Some(found) = read(&line) {
        return Ok(Some(found));
    }
    file.set_len(start)?;
    Ok(end_of(&file)?.1.and_then(|line| read(&line)))
}

/// The last whole line of a file and where it begins; half a line after it is cut off. A line may be as long as the file.
fn end_of(file: &File) -> io::Result<(u64, Option<Vec<u8>>)> {
    let size = file.metadata()?.len();
    let mut step = TAIL;
    loop {
        let start = size.saturating_sub(step);
        let mut tail = vec![0; usize::try_from(size - start).unwrap_or(0)];
        file.read_exact_at(&mut tail, start)?;
        let whole = tail.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let before = tail.get(..whole.saturating_sub(1)).unwrap_or_default();
        let line = before.iter().rposition(|b| *b == b'\n').map(|at| at + 1);
        match line {
            None if start > 0 => step *= 8,
            line => {
                file.set_len(start + whole as u64)?;
                let begin = line.unwrap_or(0);
                let found = before.get(begin..).unwrap_or_default();
                return Ok((start + begin as u64, (!found.is_empty()).then(|| found.to_vec())));
            }
        }
    }
}

/// How much of the end of a file is looked at first.
const TAIL: u64 = 64 * 1024;
