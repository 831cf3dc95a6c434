//! Which releases of clients are served.
//!
//! A client names its release in the `version` metadata of every call. Clients of this major release and of the one
//! before are served; the lower bound has the pre-release `aa`, which sorts before every alpha.

use std::cmp::Ordering;

/// Set to `yes`, this environment variable lets clients of any release in.
pub const ALLOW_OLD_CLIENTS: &str = "TELEPORT_UNSTABLE_ALLOW_OLD_CLIENTS";

/// A semantic version (semver.org 2.0.0) without its build metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    core: [u64; 3],
    pre: Vec<String>,
}

impl Version {
    /// Reads `17.0.0-dev.1+build`; a leading `v` is allowed.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        if text.len() > 128 {
            return None;
        }
        let text = text.split('+').next()?;
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let mut numbers = core.split('.').map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        });
        let core = [numbers.next()??, numbers.next()??, numbers.next()??];
        if numbers.next().is_some() {
            return None;
        }
        let pre: Vec<String> = pre.map(|pre| pre.split('.').map(str::to_owned).collect()).unwrap_or_default();
        let sound = |part: &String| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        pre.iter().all(sound).then_some(Self { core, pre })
    }

    /// The first number.
    pub fn major(&self) -> u64 {
        self.core[0]
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.core.cmp(&other.core).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => compare_pre_releases(&self.pre, &other.pre),
        })
    }
}

/// What the version metadata of a call says about the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Served.
    Supported,
    /// Refused: too old. Administrators are told by an alert.
    TooOld,
    /// Refused: not a version.
    Unreadable,
}

/// Judges the `version` metadata of a call; a call without any is served.
pub fn judge(metadata: Option<&str>) -> Verdict {
    let Some(text) = metadata else { return Verdict::Supported };
    let (Some(client), Some(oldest)) = (Version::parse(text), Version::parse(wire::MIN_CLIENT_VERSION)) else {
        return Verdict::Unreadable;
    };
    if client < oldest { Verdict::TooOld } else { Verdict::Supported }
}

/// Which program a `user-agent` stands for, as the alert about too old clients names it.
pub fn program(user_agent: &str) -> &'static str {
    for program in ["tsh", "tbot", "tctl"] {
        let rest = user_agent.find(program).map(|at| &user_agent[at + program.len()..]);
        let numbered = rest
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| rest.bytes().next().is_some_and(|first| first.is_ascii_digit()));
        if numbered {
            return program;
        }
    }
    "agents"
}

fn compare_pre_releases(left: &[String], right: &[String]) -> Ordering {
    for (left, right) in left.iter().zip(right) {
        let order = match (left.parse::<u64>(), right.parse::<u64>()) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => left.cmp(right),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    left.len().cmp(&right.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn versions_order_by_the_rules_of_semver() {
        let ordered = ["16.0.0-aa", "16.0.0-alpha.1", "16.0.0-alpha.2", "16.0.0-dev", "16.0.0", "16.4.1", "17.0.0-dev"];
        for pair in ordered.windows(2) {
            assert!(Version::parse(pair[0]).unwrap() < Version::parse(pair[1]).unwrap(), "{pair:?}");
        }
        assert_eq!(Version::parse("v17.0.0+git.1"), Version::parse("17.0.0"));
    }

    #[test]
    fn one_major_behind_is_served_and_older_is_not() {
        for served in ["16.0.0-alpha.1", "16.4.9", "17.0.0-dev", "99.0.0"] {
            assert_eq!(judge(Some(served)), Verdict::Supported, "{served}");
        }
        assert_eq!(judge(None), Verdict::Supported);
        assert_eq!(judge(Some("15.9.9")), Verdict::TooOld);
        for text in ["", "17", "1.2.3.4", "a.b.c", "1.2.x", "1.2.3-", "-1.2.3", "1.2.3-ä", "9".repeat(200).as_str()] {
            assert_eq!(judge(Some(text)), Verdict::Unreadable, "{text}");
        }
    }

    #[test]
    fn programs_are_told_by_their_user_agent() {
        assert_eq!(program("tsh/14.0.0 grpc-go/1.60"), "tsh");
        assert_eq!(program("grpc-go/1.60"), "agents");
        assert_eq!(program("tctl/x"), "agents");
    }
}
