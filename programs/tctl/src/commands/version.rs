//! `version`.

/// The version of this program.
pub fn text() -> String {
    format!("Teleport v{} ({}-{})\n", wire::VERSION, std::env::consts::OS, std::env::consts::ARCH)
}
