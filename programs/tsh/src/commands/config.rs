//! `tsh config`.

use client::openssh::OpensshConfig;
use client::{Error, Result, clusters};

use crate::args::ConfigArgs;
use crate::context::Context;
use crate::output::print;

/// Prints configuration for OpenSSH.
pub async fn config(context: &Context, args: &ConfigArgs) -> Result<i32> {
    let client = context.client(None).await?;
    let names: Vec<String> = clusters::list(&client).await?.into_iter().map(|cluster| cluster.cluster_name).collect();
    let program = std::env::current_exe().map_err(Error::io("finding this program"))?;
    let config =
        OpensshConfig { program: &program, clusters: &names, login: context.global.login.as_deref(), port: args.port };
    print(&config.text(client.account())?)?;
    Ok(0)
}
