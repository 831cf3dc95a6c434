//! Proxy templates: rules of the user's and the machine's configuration that say which proxy, cluster and host a name
//! on the command line means.
//!
//! They are `proxy_templates` in `config/config.yaml` of the client's folder and in `/etc/tsh.yaml`; the first whose
//! regular expression fits `<host>:<port>` counts, the user's before the machine's. Other keys of these files are left
//! alone.

use std::path::{Path, PathBuf};

use regex::{Captures, Regex};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::home::{Home, read};
use crate::ssh::Target;

/// Environment variable that names another file than `/etc/tsh.yaml`.
pub const GLOBAL_VARIABLE: &str = "TELEPORT_GLOBAL_TSH_CONFIG";
/// Settings of the machine.
const GLOBAL_FILE: &str = "/etc/tsh.yaml";

/// Where a destination leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What is meant.
    pub target: Target,
    /// The cluster, if a rule names one.
    pub cluster: Option<String>,
    /// Another proxy to go through, if a rule names one.
    pub proxy: Option<String>,
    /// Whether a rule has said any of this.
    pub matched: bool,
}

/// The rules.
#[derive(Debug, Default)]
pub struct Templates(Vec<Template>);

#[derive(Debug)]
struct Template {
    pattern: Regex,
    parts: Parts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    proxy_templates: Vec<Written>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Written {
    template: String,
    #[serde(flatten)]
    parts: Parts,
}

/// What a rule says, with `$1` and the like for what its expression has captured.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parts {
    proxy: String,
    host: String,
    cluster: String,
    query: String,
    search: String,
}

impl Templates {
    /// Reads both files; those that are not there say nothing.
    pub fn load(home: &Home) -> Result<Self> {
        let global = std::env::var_os(GLOBAL_VARIABLE).filter(|path| !path.is_empty());
        let global = global.map_or_else(|| PathBuf::from(GLOBAL_FILE), PathBuf::from);
        let mut templates = Vec::new();
        for path in [home.path().join("config").join("config.yaml"), global] {
            if let Some(text) = read(&path)? {
                templates.extend(parse(&text).map_err(|problem| Error::other(format!("{}: {problem}", shown(&path))))?);
            }
        }
        Ok(Self(templates))
    }

    /// Applies the first rule that fits.
    ///
    /// # Errors
    /// When the rule makes a host of it that is none.
    pub fn route(&self, target: Target) -> Result<Route> {
        let unchanged = |target| Route { target, cluster: None, proxy: None, matched: false };
        let Target::Host { host, port } = &target else { return Ok(unchanged(target)) };
        let full = format!("{host}:{}", port.unwrap_or(0));
        let fitting = self.0.iter().find_map(|rule| Some((rule, rule.pattern.captures(&full)?)));
        let Some((rule, captures)) = fitting else { return Ok(unchanged(target)) };
        let some = |text: &str| Some(expanded(&captures, text)).filter(|text| !text.is_empty());
        let parts = &rule.parts;
        let new_target = match (some(&parts.host), some(&parts.query), some(&parts.search)) {
            (Some(host), ..) => {
                let bad = || {
                    Error::other(format!(
                        "proxy template {:?} makes the host {host:?} of {full}",
                        rule.pattern.as_str()
                    ))
                };
                let parsed = crate::ssh::Destination::parse(&host).map_err(|_| bad())?.target;
                match parsed {
                    Target::Host { host, port: new } => {
                        Target::Host { host, port: new.filter(|port| *port != 0).or(*port) }
                    }
                    _ => return Err(bad()),
                }
            }
            (None, None, None) => target,
            (None, query, search) => {
                let words = search.unwrap_or_default();
                let words =
                    words.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
                Target::Search { query: query.unwrap_or_default(), words }
            }
        };
        Ok(Route { target: new_target, cluster: some(&parts.cluster), proxy: some(&parts.proxy), matched: true })
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn expanded(captures: &Captures<'_>, text: &str) -> String {
    let mut expanded = String::new();
    captures.expand(text, &mut expanded);
    expanded
}

fn parse(text: &str) -> Result<Vec<Template>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let settings: Settings = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let rules = settings.proxy_templates.into_iter().enumerate().map(|(index, Written { template, parts })| {
        let bad = |problem: String| format!("proxy_templates[{index}]: {problem}");
        if template.is_empty() {
            return Err(bad("template: expected a regular expression".to_owned()));
        }
        let Parts { proxy, host, cluster, query, search } = &parts;
        if [proxy, host, cluster, query, search].into_iter().all(String::is_empty) {
            return Err(bad("expected at least one of proxy, host, cluster, query, search".to_owned()));
        }
        let pattern = Regex::new(&template).map_err(|error| bad(format!("template: {error}")))?;
        Ok(Template { pattern, parts })
    });
    rules.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const RULES: &str = r"
aliases: {l: 'tsh login'}
proxy_templates:
- template: '^(\w+)\.(leaf\d)\.test:(\d+)$'
  proxy: $2.example.com:443
  host: $1:$3
  cluster: $2
- template: '^(.+)\.by-env:\d+$'
  query: 'labels.env == \u0022$1\u0022'
- template: '^(.+)\.find:\d+$'
  search: $1,linux
- template: '^via:'
  proxy: other.test
";

    fn route(host: &str, port: Option<u16>) -> Route {
        let text = RULES.replace("\\u0022", "\"");
        Templates(parse(&text).unwrap()).route(Target::Host { host: host.into(), port }).unwrap()
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let host = |host: &str, port| Target::Host { host: host.to_owned(), port };
        let leaf = route("web1.leaf2.test", Some(22));
        assert_eq!(leaf.target, host("web1", Some(22)));
        assert_eq!((leaf.cluster.as_deref(), leaf.proxy.as_deref()), (Some("leaf2"), Some("leaf2.example.com:443")));
        assert_eq!(route("web1.leaf2.test", None).target, host("web1", None));
        let query = r#"labels.env == "dev""#.to_owned();
        assert_eq!(route("dev.by-env", None).target, Target::Search { query, words: vec![] });
        let words = vec!["db".to_owned(), "linux".to_owned()];
        assert_eq!(route("db.find", None).target, Target::Search { query: String::new(), words });
        let via = route("via", None);
        assert_eq!((via.target, via.proxy.as_deref()), (host("via", None), Some("other.test")));
        assert!(!route("web1", None).matched);
    }

    #[test]
    fn rules_that_say_nothing_are_refused_with_their_place() {
        for (text, problem) in [
            ("proxy_templates: [{template: x}]", "proxy_templates[0]: expected at least one of"),
            ("proxy_templates: [{host: x}]", "proxy_templates[0]: template"),
            ("proxy_templates: [{template: '(', host: x}]", "proxy_templates[0]: template"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
        assert!(parse("").unwrap().is_empty() && parse("aliases: {}").unwrap().is_empty());
    }
}
