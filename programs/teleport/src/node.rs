//! The SSH Service of this process.

use std::sync::Arc;

use auth_service::SystemRole;
use process::TunnelDialer;
use ssh_service::{NodeConfig, Reach, SshService};

use crate::error::Result;
use crate::member::{Names, Process};
use crate::proxy::{socket, ssh_identity};

/// Starts the node; returns when it can be reached.
pub async fn start(process: &Process) -> Result<SshService> {
    let ssh = &process.config.ssh;
    let principals = ssh.public_addrs.iter().map(|a| a.host.clone());
    let advertised = process.config.global.advertise.iter().map(|a| a.host.to_string());
    let names = Names { principals: principals.chain(advertised).collect(), dns_names: Vec::new() };
    let member = process.member(SystemRole::Node, names).await?;
    let identity = ssh_identity(&member.identity)?;
    let (reach, address) = match member.proxy {
        Some(proxy) => {
            let dialer = TunnelDialer::new(proxy, process.dialer.clone());
            (Reach::Tunnel { dialer: Arc::new(dialer) }, None)
        }
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
    };
    Ok(SshService::start(config, identity, member.channel, &process.config.global.data_dir, reach).await?)
}
