//! What to do about a failure of a connection: found out by asking the proxy who it is.

use dialer::DialError;
use dialer::webapi::RequestError;

use crate::account::{Account, Selection};
use crate::cluster::{of_another_cluster, ping, web_verify};
use crate::error::Error;
use crate::ssh::SshError;

/// Adds advice to the error of a command, where there is any. Anything else comes back as it is.
pub async fn advise(error: Error, selection: &Selection) -> Error {
    if let Error::Ssh(SshError::Unreachable { status, .. }) = &error
        && status.code() == tonic::Code::NotFound
    {
        return Error::other(format!("{error}: 'tsh ls' lists the hosts you may see"));
    }
    let account = selection.account().ok();
    match error.dial() {
        Some(dial) if is_of_addresses(dial) => Error::other(format!("{}: {}", error, reachability(dial))),
        Some(DialError::Tls { .. } | DialError::Protocol { .. } | DialError::NoAuthority(_)) => match &account {
            Some(account) => identity(error, account).await,
            None => untrusted(error),
        },
        None if error.is_broken_call() => match &account {
            Some(account) => identity(error, account).await,
            None => error,
        },
        _ => error,
    }
}

/// Whether a dial failed before anybody spoke.
fn is_of_addresses(dial: &DialError) -> bool {
    matches!(dial, DialError::Connect { .. } | DialError::Resolve { .. } | DialError::Timeout { .. })
}

fn reachability(dial: &DialError) -> &'static str {
    match dial {
        DialError::Resolve { .. } => "is the proxy's address right (--proxy, 'tsh status')?",
        DialError::Connect { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused => {
            "nothing listens there: is the proxy running, and are its address and port right (--proxy, 'tsh status')?"
        }
        _ => "is the network up, and is the proxy's address right (--proxy, 'tsh status')?",
    }
}

/// The proxy was reached and did not take what it was shown, or showed what is not believed.
async fn identity(error: Error, account: &Account) -> Error {
    let address = &account.profile.web_proxy_addr;
    let found = match ping(address, web_verify(account.insecure, &account.keys.tls_authorities())).await {
        Ok(found) => found,
        Err(Error::Web(RequestError::Dial(dial))) if dial.tls_error().is_some() => return untrusted(Error::Dial(dial)),
        Err(_) => return error,
    };
    if !found.cluster_name.is_empty() && found.cluster_name != account.root_cluster() {
        return Error::NotLoggedIn(of_another_cluster(account, &found.cluster_name));
    }
    Error::other(format!(
        "{error}: the proxy at {address} answers and is of your cluster, but does not take your credentials; its \
         authorities may have been rotated: log in again with 'tsh login --proxy={address}'"
    ))
}

/// A certificate that nobody known vouches for.
fn untrusted(error: Error) -> Error {
    Error::other(format!(
        "{error}: the proxy's certificate is not trusted on this machine (--insecure goes on without that, for tests)"
    ))
}
