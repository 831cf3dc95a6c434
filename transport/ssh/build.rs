//! Takes the source of russh that cargo downloaded for this build, applies our patches to a copy of it in
//! `OUT_DIR`, and stops the build with the file and the reason if anything does not fit.

use std::env;
use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

const UPSTREAM: &str = "russh";
const VERSION: &str = "0.65.1";
/// In the order in which they are applied.
const PATCHES: [&str; 12] = [
    "patches/1-extensions.patch",
    "patches/2-flow-control.patch",
    "patches/3-rejection-reason.patch",
    "patches/4-fewer-copies.patch",
    "patches/5-smaller-sessions.patch",
    "patches/6-rsa-signatures.patch",
    "patches/7-later-answers.patch",
    "patches/8-data-of-streams.patch",
    "patches/9-agent-in-order.patch",
    "patches/10-bulk-data.patch",
    "patches/11-rsa-verification.patch",
    "patches/12-ml-kem.patch",
];

type Result<T> = std::result::Result<T, String>;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for patch in PATCHES {
        println!("cargo::rerun-if-changed={patch}");
    }
    if let Err(error) = prepare() {
        println!("cargo::error={error}");
        std::process::exit(1);
    }
}

fn prepare() -> Result<()> {
    let source = upstream_source()?;
    let target = PathBuf::from(variable("OUT_DIR")?).join(UPSTREAM);
    if target.exists() {
        fs::remove_dir_all(&target).map_err(|e| format!("cannot clear {}: {e}", target.display()))?;
    }
    copy_folder(&source.join("src"), &target)?;
    for patch in PATCHES {
        let text = fs::read_to_string(patch).map_err(|e| format!("cannot read {patch}: {e}"))?;
        for file_patch in split_by_file(&text) {
            apply(file_patch, &target).map_err(|e| format!("{patch}: {e}"))?;
        }
    }
    leave_out_tests(&target)
}

/// The folder of the upstream crate: where cargo says it is, else where cargo keeps what it downloads. (Cargo cannot
/// say as long as some crate of the workspace has not been downloaded yet.)
fn upstream_source() -> Result<PathBuf> {
    let asked = source_from_metadata();
    match asked {
        Ok(folder) => Ok(folder),
        Err(reason) => source_from_registry()
            .ok_or_else(|| format!("the source of {UPSTREAM} {VERSION} is not in cargo's registry ({reason})")),
    }
}

fn source_from_metadata() -> Result<PathBuf> {
    let output = Command::new(variable("CARGO")?)
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .args(["--filter-platform", &variable("TARGET")?])
        .output()
        .map_err(|e| format!("cannot run cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == UPSTREAM && package["version"] == VERSION)
        .and_then(|package| package["manifest_path"].as_str())
        .and_then(|manifest| Path::new(manifest).parent())
        .map(Path::to_path_buf)
        .ok_or_else(|| format!("cargo metadata does not list {UPSTREAM} {VERSION}"))
}

fn source_from_registry() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))?;
    fs::read_dir(home.join("registry/src"))
        .ok()?
        .flatten()
        .map(|registry| registry.path().join(format!("{UPSTREAM}-{VERSION}")))
        .find(|folder| folder.join("src").is_dir())
}

/// Does something to every file of a folder and its subfolders.
fn for_each_file(folder: &Path, action: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            for_each_file(&entry.path(), action)?;
        } else {
            action(&entry.path())?;
        }
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for_each_file(from, &mut |file| {
        let failed = |e: &dyn Display| format!("cannot copy {}: {e}", file.display());
        let target = to.join(file.strip_prefix(from).map_err(|e| failed(&e))?);
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        }
        // Read and write instead of fs::copy: vendored sources can be read-only.
        let content = fs::read(file).map_err(|e| failed(&e))?;
        fs::write(&target, content).map_err(|e| failed(&e))
    })
}

/// Takes upstream's own unit tests out of the build. They need crates that nothing else needs, and some test what the
/// patches change; what the patches promise is tested in `tests/`.
fn leave_out_tests(folder: &Path) -> Result<()> {
    for_each_file(folder, &mut |file| {
        let failed = |e: std::io::Error| format!("cannot rewrite {}: {e}", file.display());
        let text = fs::read_to_string(file).map_err(failed)?;
        let text = text
            .replace("#[cfg(test)]", "#[cfg(any())]")
            .replace("#[cfg(all(test,", "#[cfg(all(any(),")
            .replace("#[test]", "#[cfg(any())]");
        fs::write(file, text).map_err(failed)
    })
}

/// Cuts a patch in git's form into the patches of its files.
fn split_by_file(patch: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = patch.match_indices("\n--- a/").map(|(at, _)| at + 1).collect();
    if patch.starts_with("--- a/") {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([patch.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| &patch[start..end]).collect()
}

fn apply(file_patch: &str, folder: &Path) -> Result<()> {
    let name =
        file_patch.lines().next().and_then(|line| line.strip_prefix("--- a/")).ok_or("a part has no `--- a/` line")?;
    let file = folder.join(name);
    let hunks = diffy::Patch::from_str(file_patch).map_err(|e| format!("the part for {name} is no patch: {e}"))?;
    let original = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound && file_patch.contains("\n@@ -0,0 ") => String::new(),
        Err(e) => return Err(format!("cannot read {name} of {UPSTREAM}: {e}")),
    };
    let patched =
        diffy::apply(&original, &hunks).map_err(|e| format!("does not fit {name} of {UPSTREAM} {VERSION}: {e}"))?;
    fs::write(&file, patched).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|e| format!("{name}: {e}"))
}
