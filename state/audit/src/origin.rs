//! Whether an event's sender may speak of what the event describes.

use wire::events::OneOf;

use crate::{Error, EventExt, Result};

/// Checks that an event sent by the host `sender` speaks of that host: a server speaks of itself, a proxy also of
/// servers whose sessions it forwards. Events that name no server pass.
///
/// # Errors
///
/// [`Error::ForeignOrigin`].
pub fn check(event: &OneOf, sender: &str, sender_is_proxy: bool) -> Result<()> {
    let Some(server) = event.server() else { return Ok(()) };
    let itself = !sender.is_empty() && server.server_id == sender;
    let forwarded = sender_is_proxy && !sender.is_empty() && server.forwarded_by == sender;
    if itself || forwarded { Ok(()) } else { Err(Error::ForeignOrigin) }
}

#[cfg(test)]
mod tests {
    use wire::events::{Exec, ServerMetadata, Subsystem};

    use super::*;
    use crate::codes;

    #[test]
    fn a_server_speaks_of_itself_and_a_proxy_of_what_it_forwards() {
        let of = |id: &str, by: &str| {
            let server = ServerMetadata { server_id: id.into(), forwarded_by: by.into(), ..Default::default() };
            codes::EXEC.event(Exec { server: Some(server), ..Default::default() })
        };
        for (id, by, proxy, allowed) in [
            ("me", "", false, true),
            ("other", "", false, false),
            ("other", "me", false, false),
            ("other", "me", true, true),
            ("", "", false, false),
        ] {
            assert_eq!(check(&of(id, by), "me", proxy).is_ok(), allowed, "{id} {by} {proxy}");
        }
        assert!(check(&of("", ""), "", true).is_err());
        assert!(check(&codes::SUBSYSTEM.event(Subsystem::default()), "me", false).is_ok());
    }
}
