//! russh with the parts of the SSH connection protocol that it leaves out: channels, channel requests and global
//! requests of any name, in both directions, and the text of a refused channel (RFC 4254 §4, §5).
//!
//! The code is upstream's [russh](https://docs.rs/russh) 0.65.1, taken from the crate that cargo downloaded, with our
//! `patches/` applied by the build script; nothing of it is kept in this repository but those. What they add is
//! described at the items they add. In short:
//!
//! | what | send | receive |
//! | --- | --- | --- |
//! | channel of any type | `Handle::channel_open_extension` | `Handler::channel_open_extension` (server), `Handler::server_channel_open_extension` (client) |
//! | why it was refused | `ChannelOpenHandle::reject_with` | `Error::ChannelOpenFailure` with a [`ChannelOpenRejection`] |
//! | channel request of any name | [`Channel::request`] | [`ChannelMsg::Request`] and `Handler::channel_request` |
//! | its answer | [`Channel::reply`] | [`ChannelMsg::Success`], [`ChannelMsg::Failure`] |
//! | global request of any name | `Handle::send_global_request` | `Handler::global_request` |
//!
//! The second patch repairs flow control, without which connections that carry many channels would not do: the peer of
//! a channel gets room when data was *taken* from the channel, so that a channel nobody reads stops its own sender and
//! nothing else; and a connection is read while its output waits. The third lets a server say why it refuses a login.
//! The fourth hands data of channels on in the memory of the packet that it came in. The fifth halves what an idle
//! connection holds, the sixth signs with RSA keys by AWS-LC. The seventh lets a server answer a global request in a task
//! (`Session::answer_later`), so that a forward which takes its time holds up nothing else. The eighth lets data be taken from a
//! [`ChannelStream`] in the memory that it came in, the tenth lets it be given so. The ninth has a request for agent forwarding
//! answered in the order of its channel's requests. The last two verify RSA signatures and compute ML-KEM by AWS-LC.
//!
//! When upstream offers the same, this crate goes away and `russh` in the workspace names the crate directly.

// Upstream's code is judged by upstream's rules.
#![allow(clippy::all, missing_docs, unsafe_code, unused)]
#![allow(macro_expanded_macro_exports_accessed_by_absolute_paths)]

include!(concat!(env!("OUT_DIR"), "/russh/lib_inner.rs"));
