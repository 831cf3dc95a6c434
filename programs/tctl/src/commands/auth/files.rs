//! Where signed credentials go: files of their owner, or an archive.

use std::borrow::Cow;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::Utc;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::tar;
use crate::error::{Error, Result};
use crate::output::{complain, raw};

/// What to write, by what is added to the path of the output.
#[derive(Default)]
pub struct Files(Vec<(Cow<'static, str>, Zeroizing<Vec<u8>>)>);

impl Files {
    /// Adds a file.
    pub fn add(&mut self, suffix: impl Into<Cow<'static, str>>, content: impl Into<Vec<u8>>) {
        self.0.push((suffix.into(), Zeroizing::new(content.into())));
    }

    /// One file.
    pub fn one(suffix: impl Into<Cow<'static, str>>, content: impl Into<Vec<u8>>) -> Self {
        let mut files = Self::default();
        files.add(suffix, content);
        files
    }
}

/// Where to write.
#[derive(Debug)]
pub struct Target {
    /// Path to which suffixes are added.
    pub path: PathBuf,
    /// Replace what is there without asking.
    pub overwrite: bool,
    /// Write an archive to standard output.
    pub tar: bool,
}

impl Target {
    /// Makes sure that files with these suffixes may be written, before any work is done for them.
    ///
    /// # Errors
    /// A file exists and nobody agreed to replace it.
    pub fn check<S: AsRef<str>>(&self, suffixes: &[S]) -> Result<()> {
        if self.tar || self.overwrite {
            return Ok(());
        }
        let there: Vec<String> = suffixes
            .iter()
            .map(|suffix| self.file(suffix.as_ref()))
            .filter(|path| path.symlink_metadata().is_ok())
            .map(|path| path.display().to_string())
            .collect();
        if there.is_empty() || agreed(&there.join(", ")) {
            return Ok(());
        }
        Err(Error::bad(format!("{} would be overwritten: choose another --out, or add --overwrite", there.join(", "))))
    }

    /// Writes the files; the paths written, none for an archive.
    pub fn write(&self, files: &Files) -> Result<Vec<PathBuf>> {
        if self.tar {
            let base = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let named: Vec<(String, &[u8])> =
                files.0.iter().map(|(suffix, content)| (format!("{base}{suffix}"), content.as_slice())).collect();
            raw(&tar::archive(named.iter().map(|(name, content)| (name.as_str(), *content)), Utc::now().timestamp())?);
            return Ok(Vec::new());
        }
        let mut written = Vec::new();
        if files.0.iter().any(|(suffix, _)| suffix.starts_with('/')) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path);
            made.map_err(Error::io(format!("making the folder {}", self.path.display())))?;
        }
        for (suffix, content) in &files.0 {
            let path = self.file(suffix);
            write_private(&path, content)?;
            written.push(path);
        }
        Ok(written)
    }

    fn file(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}

/// Asks whoever sits at the terminal; nobody there is no.
fn agreed(paths: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    let _ = write!(io::stderr(), "Overwrite {paths}? (y/N) ");
    let mut answer = String::new();
    if io::stdin().read_line(&mut answer).is_err() {
        return false;
    }
    let yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !yes {
        complain("nothing was written");
    }
    yes
}

/// Writes a whole file or nothing, readable by its owner only.
fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let failed = || Error::io(format!("writing {}", path.display()));
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", Uuid::new_v4().simple()));
    let temporary = PathBuf::from(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(failed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn target(path: PathBuf, overwrite: bool) -> Target {
        Target { path, overwrite, tar: false }
    }

    #[test]
    fn what_exists_is_kept_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id");
        fs::write(folder.path().join("id.crt"), "mine").unwrap();
        let error = target(path.clone(), false).check(&[".key", ".crt"]).unwrap_err().to_string();
        assert!(error.contains("id.crt") && error.contains("--overwrite") && !error.contains("id.key"), "{error}");
        target(path.clone(), false).check(&[".key"]).unwrap();
        target(path, true).check(&[".key", ".crt"]).unwrap();
    }

    #[test]
    fn files_are_for_their_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Files::one(".key", "k");
        files.add(".crt", "c");
        let written = target(folder.path().join("id"), true).write(&files).unwrap();
        assert_eq!(written.len(), 2);
        for path in written {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
