//! The SSH Service of this process.

use auth_service::SystemRole;
use process::HostIdentity;
use ssh_service::{EnhancedRecording, Features, NodeConfig, PerKind, Reach, SshService};

use crate::error::{Failure, Result};
use crate::member::{Names, Process};
use crate::proxy::{algorithms, socket, ssh_identity};
use crate::rotation::Identities;

/// The program that runs, even after its file was replaced by a newer one.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// The command that makes this program a worker of a node.
pub const WORKER: &str = "worker";

/// Starts the node; returns when it can be reached.
pub async fn start(process: &Process) -> Result<(SshService, Identities)> {
    let ssh = &process.config.ssh;
    let principals = ssh.public_addrs.iter().map(|a| a.host.clone());
    let advertised = process.config.global.advertise.iter().map(|a| a.host.to_string());
    let names = Names { principals: principals.chain(advertised).collect(), dns_names: Vec::new() };
    let member = process.member(SystemRole::Node, names).await?;
    let identity = ssh_identity(&member.identity)?;
    let (reach, address) = match member.tunnel.clone() {
        Some(dialer) => (Reach::Tunnel { dialer }, None),
        None => {
            let listen = socket(&ssh.listen_addr)?;
            let mut address = listen;
            if let Some(advertise) = &process.config.global.advertise
                && let Ok(ip) = advertise.host.to_string().parse()
            {
                address.set_ip(ip);
            }
            (Reach::Listener { address: listen }, Some(address))
        }
    };
    let config = NodeConfig {
        host_uuid: process.host_uuid.clone(),
        hostname: process.config.global.nodename.clone(),
        cluster: member.identity.cluster.clone(),
        labels: ssh.labels.clone(),
        address,
        public_addrs: ssh.public_addrs.iter().map(ToString::to_string).collect(),
        algorithms: algorithms(&process.config.global),
        max_connections: usize::try_from(process.config.global.limits.max_connections).unwrap_or(usize::MAX),
        rates: crate::proxy::rates(&process.config.global),
        features: features(ssh),
        pam: ssh.pam.as_ref().map(ssh_service::Pam::new).transpose().map_err(Failure::new)?,
        enhanced_recording: ssh.enhanced_recording.as_ref().map(enhanced_recording),
        worker: vec![THIS_PROGRAM.into(), WORKER.into()],
    };
    let data_dir = &process.config.global.data_dir;
    let service = SshService::start(config, identity, member.channel.clone(), data_dir, reach).await?;
    let show = service.identity_setter();
    let serve = Box::new(move |renewed: &HostIdentity| {
        show(ssh_identity(renewed)?);
        Ok(())
    });
    let identities = process.identities(member, service.cache().clone(), serve);
    Ok((service, identities))
}

fn enhanced_recording(set: &config::EnhancedRecording) -> EnhancedRecording {
    EnhancedRecording {
        pages: PerKind {
            command: set.command_buffer_pages,
            disk: set.disk_buffer_pages,
            network: set.network_buffer_pages,
        },
        cgroup_path: set.cgroup_path.clone(),
        root_path: set.root_path.clone(),
    }
}

/// What the administrator of the node allows.
pub fn features(ssh: &config::Ssh) -> Features {
    Features {
        port_forwarding: ssh.port_forwarding,
        file_copy: ssh.file_copy,
        user_environment: ssh.permit_user_env,
        host_users: ssh.create_host_user,
        displays: ssh.x11.map(|x11| (x11.display_offset, x11.max_display)),
    }
}
