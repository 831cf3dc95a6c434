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
    let identity = context.global.identity.as_deref().map(std::path::absolute).transpose();
    let identity = identity.map_err(Error::io("finding the identity file"))?;
    let config = OpensshConfig {
        home: &context.home,
        identity: identity.as_deref(),
        program: &program,
        clusters: &names,
        login: context.global.login.as_deref(),
        port: args.port,
    };
    print(&config.text(client.account())?)?;
    Ok(0)
}
