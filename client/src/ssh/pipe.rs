//! A raw connection to a host on the standard streams, for OpenSSH's `ProxyCommand`.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::{Either, select};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::lent::LentAgent;
use super::road::Road;
use super::stdio::{Input, Output};
use super::{Host, SshError};
use crate::cluster::ClusterClient;
use crate::error::{Error, Result};
use crate::proxy_stream::ProxyFailure;

/// How long the host may take to hear of the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes read at once.
const CHUNK: usize = tunnel::ssh::CHANNEL_PACKET as usize;

/// Carries bytes between the standard streams and a host until either side ends. `login` is the account that OpenSSH
/// logs in to, where it says so.
pub async fn pipe(client: &ClusterClient, host: &Host, login: Option<&str>) -> Result<()> {
    let agent = Arc::new(LentAgent::new(client, &client.account().keys.ssh_certificate, login)?);
    let stream = Road::to(client, host, agent).await.map_err(|error| failed(host, &error))?;
    let told = stream.closed();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut input = Input::stdin();
    let up = async {
        while let Some(bytes) = input.next().await {
            if writer.write_all(&bytes).await.is_err() {
                return; // the reader learns why
            }
        }
        // The host hangs up when its client does.
        let _ = writer.shutdown().await;
    };
    let down = async move {
        let mut output = Output::stdout();
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            buffer.reserve(CHUNK);
            match reader.read_buf(&mut buffer).await {
                Ok(0) => return written(output.finish().await),
                Ok(_) => {
                    let bytes: Bytes = buffer.split().freeze();
                    if output.write(bytes).await.is_err() {
                        return written(output.finish().await);
                    }
                }
                Err(error) => {
                    // What came before the end is still for OpenSSH.
                    written(output.finish().await)?;
                    return Err(failed(host, &error));
                }
            }
        }
    };
    let ended = match select(pin!(down), pin!(up)).await {
        Either::Left((ended, _)) => ended,
        Either::Right(((), down)) => down.await,
    };
    if let Some(told) = told {
        let _ = timeout(FAREWELL, told.cancelled()).await; // the host may be out of reach
    }
    ended
}

/// OpenSSH closes its end when it is done, which is no failure.
fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("writing to standard output")(error)),
        _ => Ok(()),
    }
}

fn failed(host: &Host, error: &io::Error) -> Error {
    let host = host.name.clone();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ProxyFailure>()) {
        Some(failure) => SshError::Unreachable { host, status: Box::new(failure.0.clone()) }.into(),
        None => SshError::Lost { host, reason: error.to_string() }.into(),
    }
}
