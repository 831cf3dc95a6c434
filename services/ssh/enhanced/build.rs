//! Compiles the programs that the kernel runs, where there is a compiler for them.
//!
//! A build without clang succeeds: enhanced recording is then refused when it is enabled, with the reason found here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What the kernel runs.
const SOURCE: &str = "bpf/sessions.bpf.c";
/// Names another compiler than the `clang` of the path.
const COMPILER: &str = "TELEPORT_BPF_CLANG";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed={COMPILER}");
    let folder = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let text = match compile(&folder) {
        Ok(object) => format!("Ok(::aya::include_bytes_aligned!({:?}))", object.display().to_string()),
        Err(reason) => {
            println!("cargo::warning=enhanced session recording will not be available: {reason}");
            format!("Err({reason:?})")
        }
    };
    if let Err(error) = fs::write(folder.join("programs.rs"), text) {
        println!("cargo::error=writing to {}: {error}", folder.display());
    }
}

/// Compiles for the kernel of the processor that is built for; says why not in one line.
fn compile(folder: &Path) -> Result<PathBuf, String> {
    let system = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let processor = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if system != "linux" || !["x86_64", "aarch64"].contains(&processor.as_str()) {
        return Err(format!("it needs Linux on x86_64 or aarch64, and this was built for {system} on {processor}"));
    }
    let compiler = env::var(COMPILER).unwrap_or_else(|_| "clang".to_owned());
    let object = folder.join("sessions.bpf.o");
    let output = Command::new(&compiler)
        // Names, not paths of the machine that builds, belong in the debug information; it is needed for its types.
        .args(["-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-fdebug-compilation-dir=."])
        .arg(format!("-DTARGET_{processor}"))
        .args(["-c", SOURCE, "-o"])
        .arg(&object)
        .output()
        .map_err(|e| format!("running {compiler}, which compiles what the kernel runs: {e}"))?;
    if output.status.success() {
        return Ok(object);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| line.contains("error")).or(said.lines().next()).unwrap_or_default();
    Err(format!("{compiler} does not compile {SOURCE}: {first}"))
}
