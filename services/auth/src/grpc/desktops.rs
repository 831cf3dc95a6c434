//! Windows desktops.

use resources::{Resource, SystemRole};
use wire::error::{Error, Result};
use wire::proto::{DeleteWindowsDesktopRequest, WindowsDesktopCertRequest, WindowsDesktopCertResponse};
use wire::types::{WindowsDesktopFilter, WindowsDesktopV3};

use super::{Api, databases, kinds, named};
use crate::Write;
use crate::authz::AuthContext;
use crate::store::kind;

/// The desktops that the caller's roles reach, all or those of an agent or of a name.
///
/// # Errors
/// `NotFound` when a name was given and there is no such desktop.
pub async fn list(api: &Api, context: &AuthContext, filter: &WindowsDesktopFilter) -> Result<Vec<WindowsDesktopV3>> {
    let mut found = kinds::list_reached::<kind::WindowsDesktop>(api, context).await?;
    found.retain(|desktop| {
        (filter.name.is_empty() || filter.name == desktop.name())
            && (filter.host_id.is_empty() || filter.host_id == host(desktop))
    });
    if found.is_empty() && !filter.name.is_empty() {
        return Err(Error::not_found(format!("windows_desktop {:?} not found", filter.name)));
    }
    Ok(found)
}

/// Writes a desktop. An agent writes those that it found.
pub async fn write(api: &Api, context: &AuthContext, desktop: WindowsDesktopV3, write: Write) -> Result<()> {
    require_agent(context, host(&desktop))?;
    kinds::write_reached::<kind::WindowsDesktop>(api, context, desktop, write).await.map(drop)
}

/// Removes a desktop as one agent knows it, or as all of them do.
pub async fn delete(api: &Api, context: &AuthContext, message: &DeleteWindowsDesktopRequest) -> Result<()> {
    let name = named(&message.name, "Name")?;
    let filter = WindowsDesktopFilter { name: name.to_owned(), host_id: message.host_id.clone() };
    for desktop in list(api, context, &filter).await? {
        require_agent(context, host(&desktop))?;
        kinds::delete::<kind::WindowsDesktop>(api, context, &kinds::two_part(host(&desktop), name)?).await?;
    }
    Ok(())
}

/// Removes the record of an agent.
pub async fn delete_service(api: &Api, context: &AuthContext, name: &str) -> Result<()> {
    require_agent(context, named(name, "Name")?)?;
    kinds::delete::<kind::WindowsDesktopService>(api, context, name).await
}

/// Signs the certificate with which a session on a desktop begins.
pub async fn generate_certificate(api: &Api, message: WindowsDesktopCertRequest) -> Result<WindowsDesktopCertResponse> {
    let (request, ttl) = databases::request(message.csr, message.ttl)?;
    let cert = api.auth().sign_for_desktop(&request, &message.crl_endpoint, ttl).await?;
    Ok(WindowsDesktopCertResponse { cert })
}

fn host(desktop: &WindowsDesktopV3) -> &str {
    desktop.spec.as_ref().map_or("", |spec| &spec.host_id)
}

fn require_agent(context: &AuthContext, host_id: &str) -> Result<()> {
    let agent = context.has_role(SystemRole::WindowsDesktop) && !context.is_admin();
    if agent { context.require_own_server(host_id) } else { Ok(()) }
}
