//! Reading and writing a network connection. What passes through a tunnel stays in the memory that it is in.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;
use tunnel::TunnelStream;

/// The next data, nothing at the end. A connection that is no tunnel is read into `buffer`, about `chunk` bytes at once.
pub(crate) fn poll_take<S: AsyncRead + Unpin + 'static>(
    network: &mut S,
    context: &mut Context<'_>,
    buffer: &mut BytesMut,
    chunk: usize,
) -> Poll<io::Result<Bytes>> {
    if let Some(tunnel) = as_tunnel(network) {
        return tunnel.poll_data(context).map(|data| Ok(data.unwrap_or_default()));
    }
    buffer.reserve(chunk);
    ready!(poll_read_buf(Pin::new(network), context, buffer))?;
    Poll::Ready(Ok(buffer.split().freeze()))
}

/// Writes a part of `data` and takes it off.
pub(crate) fn poll_give<S: AsyncWrite + Unpin + 'static>(
    network: &mut S,
    context: &mut Context<'_>,
    data: &mut Bytes,
) -> Poll<io::Result<()>> {
    let written = match as_tunnel(network) {
        Some(tunnel) => ready!(tunnel.poll_write_bytes(context, data))?,
        None => {
            let written = ready!(Pin::new(network).poll_write(context, data))?;
            data.advance(written);
            written
        }
    };
    Poll::Ready(if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) })
}

fn as_tunnel<S: 'static>(network: &mut S) -> Option<&mut TunnelStream> {
    (network as &mut dyn Any).downcast_mut()
}
