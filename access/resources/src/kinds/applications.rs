//! Applications, and the agents that serve them.

use wire::types::{AppServerV3, AppSpecV3, AppV3, UserGroupV1};

use super::{check_labels, default_text, one_of, required, table::kinds};
use crate::{Place, ResourceError, Result, kind, places};

/// What an application learns about its user.
const JWT_CLAIMS: [&str; 4] = ["roles-and-traits", "roles", "traits", "none"];
/// Whose console an application is.
const CLOUDS: [&str; 3] = ["AWS", "Azure", "GCP"];
/// Begins names that a proxy uses for Kubernetes: an application with such an address could never be reached.
const KUBERNETES_PREFIX: &str = "kube-teleport-proxy-alpn.";

kinds! {
    AppV3: kind::APP, "v3", plain_header {
        place: |app| Place::new(places::APPS, [app.name()]),
        defaults: |app| fill(app.spec.get_or_insert_default()),
        check: |app| check(&app.spec.clone().unwrap_or_default(), ""),
    }
    AppServerV3: kind::APP_SERVER, "v3", plain_header {
        place: |server| {
            let host = server.spec.as_ref().map_or("", |s| &s.host_id);
            Place::new(places::APP_SERVERS, [host, server.name()])
        },
        defaults: |server| {
            let spec = server.spec.get_or_insert_default();
            if let Some(app) = &mut spec.app {
                app.set_defaults();
            }
            let name = spec.app.as_ref().map(|app| app.name().to_owned()).unwrap_or_default();
            default_text(&mut server.metadata_mut().name, &name);
        },
        check: |server| {
            let spec = server.spec.clone().unwrap_or_default();
            required(&[("spec.host_id", &spec.host_id)])?;
            match &spec.app {
                Some(app) => app.check().map_err(|e| e.within("spec.app")),
                None => Err(ResourceError::field("spec.app", "missing the application that is served")),
            }
        },
    }
    UserGroupV1: kind::USER_GROUP, "v1", embedded_header {
        place: |group| Place::new(places::USER_GROUPS, [group.name()]),
        defaults: |group| { group.spec.get_or_insert_default(); },
        check: |_| Ok(()),
    }
}

fn fill(spec: &mut AppSpecV3) {
    if spec.uri.is_empty() && !spec.cloud.is_empty() {
        spec.uri = format!("cloud://{}", spec.cloud);
    }
}

fn check(spec: &AppSpecV3, path: &str) -> Result<()> {
    let field = |name: &str| format!("{path}spec.{name}");
    required(&[(&field("uri"), &spec.uri)])?;
    one_of(&field("cloud"), &spec.cloud, &CLOUDS)?;
    check_labels(&field("dynamic_labels"), spec.dynamic_labels.keys())?;
    if !spec.uri.contains("://") {
        let text = format!("{:?} has no scheme: expected a URI such as \"http://localhost:8080\"", spec.uri);
        return Err(ResourceError::field(field("uri"), text));
    }
    if spec.public_addr.contains("://") || spec.public_addr.contains('/') {
        let text = format!("{:?} is not a host name: expected a name such as \"app.example.com\"", spec.public_addr);
        return Err(ResourceError::field(field("public_addr"), text));
    }
    if spec.public_addr.starts_with(KUBERNETES_PREFIX) {
        let text = format!("{:?} begins with {KUBERNETES_PREFIX:?}, which is reserved", spec.public_addr);
        return Err(ResourceError::field(field("public_addr"), text));
    }
    let rewrite = spec.rewrite.clone().unwrap_or_default();
    one_of(&field("rewrite.jwt_claims"), &rewrite.jwt_claims, &JWT_CLAIMS)?;
    match rewrite.headers.iter().position(|header| header.name.is_empty()) {
        Some(i) => Err(ResourceError::field(field(&format!("rewrite.headers[{i}].name")), "missing value")),
        None => Ok(()),
    }
}
