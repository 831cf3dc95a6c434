//! Options of OpenSSH's client on the command line (`-o`): those that mean something here, and those that are let pass.

use std::fmt;

/// What `-o` options ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshOptions {
    /// `ForwardAgent`.
    pub forward_agent: Option<ForwardAgent>,
    /// `RequestTTY`: `Some(true)` for a terminal in any case, `Some(false)` for none.
    pub request_tty: Option<bool>,
    /// `AddKeysToAgent`.
    pub add_keys_to_agent: Option<bool>,
    /// `ExitOnForwardFailure`.
    pub exit_on_forward_failure: Option<bool>,
    /// `ForwardX11`.
    pub forward_x11: Option<bool>,
    /// `ForwardX11Trusted`.
    pub forward_x11_trusted: Option<bool>,
    /// `ForwardX11Timeout`, as written.
    pub forward_x11_timeout: Option<String>,
    /// Known options without effect here.
    pub ignored: Vec<String>,
}

/// Which agent is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardAgent {
    /// None.
    No,
    /// The one that `SSH_AUTH_SOCK` names.
    System,
    /// One with the user's certificate.
    Local,
}

/// An option that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("option {option:?}: {problem}")]
pub struct OptionError {
    option: String,
    problem: String,
}

/// Options of OpenSSH's `ssh_config(5)` without effect here.
const IGNORED: &[&str] = &[
    "AddressFamily",
    "BatchMode",
    "BindAddress",
    "BindInterface",
    "CanonicalDomains",
    "CanonicalizeFallbackLocal",
    "CanonicalizeHostname",
    "CanonicalizeMaxDots",
    "CanonicalizePermittedCNAMEs",
    "CASignatureAlgorithms",
    "CertificateFile",
    "ChallengeResponseAuthentication",
    "CheckHostIP",
    "Cipher",
    "Ciphers",
    "ClearAllForwardings",
    "Compression",
    "CompressionLevel",
    "ConnectTimeout",
    "ConnectionAttempts",
    "ControlMaster",
    "ControlPath",
    "ControlPersist",
    "DynamicForward",
    "EnableSSHKeysign",
    "EscapeChar",
    "FingerprintHash",
    "GatewayPorts",
    "GlobalKnownHostsFile",
    "GSSAPIAuthentication",
    "GSSAPIDelegateCredentials",
    "HashKnownHosts",
    "Host",
    "HostKeyAlgorithms",
    "HostKeyAlias",
    "HostName",
    "HostbasedAcceptedAlgorithms",
    "HostbasedAuthentication",
    "HostbasedKeyTypes",
    "IPQoS",
    "IdentitiesOnly",
    "IdentityAgent",
    "IdentityFile",
    "IgnoreUnknown",
    "Include",
    "KbdInteractiveAuthentication",
    "KbdInteractiveDevices",
    "KexAlgorithms",
    "KnownHostsCommand",
    "LocalCommand",
    "LocalForward",
    "LogLevel",
    "LogVerbose",
    "MACs",
    "Match",
    "NoHostAuthenticationForLocalhost",
    "NumberOfPasswordPrompts",
    "PKCS11Provider",
    "PasswordAuthentication",
    "PermitLocalCommand",
    "PermitRemoteOpen",
    "Port",
    "PreferredAuthentications",
    "Protocol",
    "ProxyCommand",
    "ProxyJump",
    "ProxyUseFdpass",
    "PubkeyAcceptedAlgorithms",
    "PubkeyAcceptedKeyTypes",
    "PubkeyAuthentication",
    "RSAAuthentication",
    "RekeyLimit",
    "RemoteCommand",
    "RemoteForward",
    "RevokedHostKeys",
    "RhostsRSAAuthentication",
    "SecurityKeyProvider",
    "SendEnv",
    "ServerAliveCountMax",
    "ServerAliveInterval",
    "SessionType",
    "SetEnv",
    "StdinNull",
    "StreamLocalBindMask",
    "StreamLocalBindUnlink",
    "SyslogFacility",
    "TCPKeepAlive",
    "Tunnel",
    "TunnelDevice",
    "UpdateHostKeys",
    "UsePrivilegedPort",
    "User",
    "UserKnownHostsFile",
    "VerifyHostKeyDNS",
    "VisualHostKey",
    "XAuthLocation",
];

impl SshOptions {
    /// Reads options as they follow `-o`: `Name=value` or `Name value`.
    pub fn parse<S: AsRef<str>>(options: &[S]) -> Result<Self, OptionError> {
        let mut parsed = Self::default();
        for option in options {
            parsed.add(option.as_ref())?;
        }
        Ok(parsed)
    }

    fn add(&mut self, option: &str) -> Result<(), OptionError> {
        let bad = |problem: &dyn fmt::Display| OptionError { option: option.to_owned(), problem: problem.to_string() };
        let text = option.trim();
        let (name, value) = text.split_once(|c: char| c == '=' || c.is_whitespace()).unwrap_or((text, ""));
        let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace()).trim_end();
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        if value.is_empty() {
            return Err(bad(&"it needs a value, as in Name=value"));
        }
        let yes_or_no = || match value.to_ascii_lowercase().as_str() {
            "yes" | "true" => Ok(true),
            "no" | "false" => Ok(false),
            _ => Err(bad(&"expected yes or no")),
        };
        match name.to_ascii_lowercase().as_str() {
            "forwardagent" => {
                self.forward_agent = Some(match value.to_ascii_lowercase().as_str() {
                    "local" => ForwardAgent::Local,
                    "yes" | "true" => ForwardAgent::System,
                    "no" | "false" => ForwardAgent::No,
                    _ => return Err(bad(&"expected yes, no or local")),
                });
            }
            "requesttty" => {
                self.request_tty = match value.to_ascii_lowercase().as_str() {
                    "auto" => None,
                    "force" => Some(true),
                    _ => Some(yes_or_no().map_err(|_| bad(&"expected yes, no, force or auto"))?),
                };
            }
            "stricthostkeychecking" => match value.to_ascii_lowercase().as_str() {
                // Hosts are always checked, against the cluster's authorities.
                "yes" | "true" => {}
                "no" | "false" | "off" | "ask" | "accept-new" => {
                    self.ignored.push("StrictHostKeyChecking (hosts are always verified)".to_owned());
                }
                _ => return Err(bad(&"expected yes, no, ask or accept-new")),
            },
            "addkeystoagent" => {
                self.add_keys_to_agent = match value.to_ascii_lowercase().as_str() {
                    "ask" | "confirm" => None,
                    _ => Some(yes_or_no()?),
                };
            }
            "exitonforwardfailure" => self.exit_on_forward_failure = Some(yes_or_no()?),
            "forwardx11" => self.forward_x11 = Some(yes_or_no()?),
            "forwardx11trusted" => self.forward_x11_trusted = Some(yes_or_no()?),
            "forwardx11timeout" => self.forward_x11_timeout = Some(value.to_owned()),
            name => {
                let known = IGNORED.iter().find(|known| known.eq_ignore_ascii_case(name));
                let known = known.ok_or_else(|| bad(&"there is no such option"))?;
                self.ignored.push((*known).to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn options_are_taken_ignored_or_refused_by_name() {
        let options =
            SshOptions::parse(&["ForwardAgent yes", "RequestTTY=force", "SendEnv=FOO", "serveraliveinterval 5"])
                .unwrap();
        assert_eq!(options.forward_agent, Some(ForwardAgent::System));
        assert_eq!(options.request_tty, Some(true));
        assert_eq!(options.ignored, ["SendEnv", "ServerAliveInterval"]);
        for bad in ["NoSuchOption=1", "ForwardAgent=perhaps", "RequestTTY", "", "StrictHostKeyChecking=x"] {
            let error = SshOptions::parse(&[bad]).unwrap_err().to_string();
            assert!(error.starts_with("option "), "{error}");
        }
    }
}
