//! The MySQL client/server protocol: the error that a server sends in place of its greeting.

/// `ER_NOT_SUPPORTED_YET`.
const NOT_SUPPORTED_YET: u16 = 1235;

/// An ERR packet. Before the greeting no capabilities are agreed, so it carries no SQL state.
pub(super) fn error(message: &str) -> Vec<u8> {
    let mut payload = vec![0xff];
    payload.extend(NOT_SUPPORTED_YET.to_le_bytes());
    payload.extend(message.as_bytes());
    let length = u32::try_from(payload.len()).unwrap_or_default().to_le_bytes();
    let mut packet = vec![length[0], length[1], length[2], 0];
    packet.extend(payload);
    packet
}
