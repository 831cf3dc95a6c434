//! `tsh env`.

use std::collections::BTreeMap;

use client::Result;

use crate::args::{EnvArgs, Format};
use crate::context::Context;
use crate::output::{print, print_as};

/// Prints commands that make a shell's programs use the current login.
pub fn env(context: &Context, args: &EnvArgs) -> Result<i32> {
    if args.unset {
        print("unset TELEPORT_PROXY\nunset TELEPORT_CLUSTER\nunset TELEPORT_KUBE_CLUSTER\nunset KUBECONFIG\n")?;
        return Ok(0);
    }
    let account = context.selection(None).account()?;
    let variables = BTreeMap::from([
        ("TELEPORT_PROXY", account.profile.web_proxy_addr.clone()),
        ("TELEPORT_CLUSTER", account.cluster.clone()),
    ]);
    let text = || variables.iter().rev().map(|(name, value)| format!("export {name}={}\n", quoted(value))).collect();
    print_as(if args.format == Format::Names { Format::Text } else { args.format }, &variables, text)?;
    Ok(0)
}

/// A word for a shell.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '/');
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_one_word() {
        assert_eq!(quoted("proxy.test:3080"), "proxy.test:3080");
        assert_eq!(quoted("a'b;c"), r"'a'\''b;c'");
    }
}
