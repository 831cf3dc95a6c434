//! Section `ssh_service`.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};

use crate::{HostPort, Labels, section::Section};

const SSH_PORT: u16 = 3022;

/// The SSH Service of this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Ssh {
    /// Whether it runs.
    pub enabled: bool,
    /// Where it listens when it joined the Auth Service directly.
    pub listen_addr: HostPort,
    /// Whether the file names the address.
    pub listen_addr_is_set: bool,
    /// Addresses under which it is reached.
    pub public_addrs: Vec<HostPort>,
    /// Labels of this server.
    pub labels: Labels,
    /// Whether sessions read `~/.tsh/environment`.
    pub permit_user_env: bool,
    /// Whether clients may forward ports.
    pub port_forwarding: bool,
    /// Whether clients may copy files.
    pub file_copy: bool,
    /// Whether users of this host are made on demand.
    pub create_host_user: bool,
    /// Forwarding of graphical programs.
    pub x11: Option<X11>,
    /// Pluggable authentication modules.
    pub pam: Option<Pam>,
    /// Recording of what sessions' processes do.
    pub enhanced_recording: Option<EnhancedRecording>,
}

/// Forwarding of graphical programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X11 {
    /// First display number used.
    pub display_offset: u32,
    /// Last display number used.
    pub max_display: u32,
}

/// Pluggable authentication modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pam {
    /// File below `/etc/pam.d`.
    pub service_name: String,
    /// Whether its `auth` rules run as well.
    pub use_auth: bool,
    /// Variables set for the modules; values may have templates of user traits.
    pub environment: BTreeMap<String, String>,
}

/// Recording of what sessions' processes do, as the kernel tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnhancedRecording {
    /// Pages of memory for programs that were run and are not taken yet.
    pub command_buffer_pages: u32,
    /// The same for files that were opened.
    pub disk_buffer_pages: u32,
    /// The same for connections that were made.
    pub network_buffer_pages: u32,
    /// Where control groups of the second version are, or are to be mounted.
    pub cgroup_path: PathBuf,
    /// The folder below it that has the sessions' groups.
    pub root_path: PathBuf,
}

pub(crate) fn read(section: &Section<'_>) -> Ssh {
    section.ignore_with_warning("restricted_session", "was removed and has no effect");
    let enhanced_recording = section.section("enhanced_recording", read_enhanced_recording);
    if let Some(namespace) = section.text("namespace").filter(|name| name != "default") {
        section.reject("namespace", format!("expected default, found {namespace:?}"));
    }
    Ssh {
        enabled: section.flag("enabled").unwrap_or(true),
        listen_addr: section.address("listen_addr", SSH_PORT).unwrap_or_else(|| HostPort::new("0.0.0.0", SSH_PORT)),
        listen_addr_is_set: section.has("listen_addr"),
        public_addrs: section.addresses("public_addr", SSH_PORT),
        labels: Labels::read(section, "labels", "commands"),
        permit_user_env: section.flag("permit_user_env").unwrap_or(false),
        port_forwarding: section.flag("port_forwarding").unwrap_or(true),
        file_copy: section.flag("ssh_file_copy").unwrap_or(true),
        create_host_user: !section.flag("disable_create_host_user").unwrap_or(false),
        x11: section.section("x11", read_x11),
        pam: read_pam(section),
        enhanced_recording,
    }
}

fn read_x11(section: &Section<'_>) -> Option<X11> {
    let enabled = section.flag("enabled").unwrap_or(false);
    let display_offset: u32 = section.number("display_offset").unwrap_or(10);
    let most = display_offset.saturating_add(1000);
    let max_display = section.number("max_display").unwrap_or(most);
    if max_display < display_offset {
        let message =
            format!("max_display must not be smaller than display_offset {display_offset}, found {max_display}");
        section.reject("max_display", message);
    }
    enabled.then_some(X11 { display_offset, max_display })
}

fn read_pam(section: &Section<'_>) -> Option<Pam> {
    let (enabled, pam) = section.section("pam", |pam| {
        let read = Pam {
            service_name: pam.text("service_name").unwrap_or_else(|| "sshd".to_owned()),
            use_auth: pam.flag("use_pam_auth").unwrap_or(false),
            environment: pam.labels("environment").into_iter().collect(),
        };
        (pam.flag("enabled").unwrap_or(false), read)
    });
    enabled.then_some(pam)
}

/// The most pages of memory for one buffer: 256 MiB where a page has 4 KiB.
const MAX_BUFFER_PAGES: u32 = 65_536;

fn read_enhanced_recording(section: &Section<'_>) -> Option<EnhancedRecording> {
    let pages = |key, default| match section.number::<u32>(key) {
        Some(pages) if !(1..=MAX_BUFFER_PAGES).contains(&pages) => {
            let message = format!("expected 1 to {MAX_BUFFER_PAGES} pages of memory, found {pages}");
            section.reject(key, message);
            default
        }
        pages => pages.unwrap_or(default),
    };
    let recording = EnhancedRecording {
        command_buffer_pages: pages("command_buffer_size", 8),
        disk_buffer_pages: pages("disk_buffer_size", 128),
        network_buffer_pages: pages("network_buffer_size", 8),
        cgroup_path: section.path("cgroup_path").unwrap_or_else(|| "/cgroup2".into()),
        // `/teleport` means the same as `teleport`.
        root_path: section.text("root_path").map_or_else(|| "teleport".into(), |path| path.trim_matches('/').into()),
    };
    if !recording.cgroup_path.is_absolute() {
        let message = format!("expected an absolute path, found {:?}", recording.cgroup_path.display().to_string());
        section.reject("cgroup_path", message);
    }
    let mut steps = recording.root_path.components().peekable();
    if steps.peek().is_none() || steps.any(|step| !matches!(step, Component::Normal(_))) {
        let found = recording.root_path.display().to_string();
        section.reject("root_path", format!("expected a folder below cgroup_path, such as teleport, found {found:?}"));
    }
    section.flag("enabled").unwrap_or(false).then_some(recording)
}
