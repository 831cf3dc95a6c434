use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that carries bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for S {}

/// A connection, whatever it goes through.
pub type BoxStream = Box<dyn ByteStream>;

/// A TLS connection, whatever it goes through.
pub type TlsStream = tokio_rustls::client::TlsStream<BoxStream>;

impl std::fmt::Debug for dyn ByteStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByteStream")
    }
}
