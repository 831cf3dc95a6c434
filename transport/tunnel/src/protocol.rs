//! The names of channels and requests on a tunnel connection, and the texts that go with refusals.

/// Keeps a tunnel registered; opened by the agent.
pub const HEARTBEAT_CHANNEL: &str = "teleport-heartbeat";
/// Carries the list of proxies; opened by the proxy.
pub const DISCOVERY_CHANNEL: &str = "teleport-discovery";
/// One byte stream; opened by either side.
pub const TRANSPORT_CHANNEL: &str = "teleport-transport";

/// On a heartbeat channel: the agent is alive.
pub const PING_REQUEST: &str = "ping";
/// On a discovery channel: the list of proxies.
pub const DISCOVERY_REQUEST: &str = "discovery";
/// On a transport channel: what to connect to.
pub const DIAL_REQUEST: &str = "teleport-transport-dial";
/// On an accepted transport channel: was the target reached through a tunnel?
pub const CONNECTION_TYPE_REQUEST: &str = "x-teleport-connection-type";
/// Global: which version does the Auth Service of the agent's cluster have?
pub const VERSION_REQUEST: &str = "x-teleport-version";
/// Global: the proxy goes away, connect elsewhere.
pub const RECONNECT_REQUEST: &str = "reconnect@goteleport.com";

/// The text of a refused session channel.
pub const NO_SESSIONS_HERE: &str =
    "Cannot open new SSH session on reverse tunnel. Are you connecting to the right port?";
/// The text with which a draining agent refuses new streams.
pub const DRAINING: &str = "agent connection is draining";
/// The stream of extended data that carries the text of a refused dial.
pub const STDERR: u32 = 1;
