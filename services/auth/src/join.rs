//! How new instances become part of the cluster.

use audit::codes;
use resources::SystemRole;
use wire::{
    error::{Error, Result},
    events, proto,
    types::{ProvisionTokenV2, RegisterUsingTokenRequest},
};

use crate::{
    Auth, Caller, HostCertRequest,
    tokens::{self, METHOD_TOKEN},
};

/// How many names of one sort a request may ask for.
const MAX_NAMES: usize = 64;

/// Longest token, in bytes.
const MAX_TOKEN: usize = 1024;

/// Longest name in a request, in bytes: what DNS allows.
const MAX_NAME: usize = 255;

impl Auth {
    /// Lets an instance in that shows a join token, and signs its keys.
    ///
    /// # Errors
    /// `AccessDenied` for bad tokens, `BadParameter` for roles the token does not allow and malformed requests.
    pub async fn register_using_token(
        &self,
        caller: &Caller,
        request: RegisterUsingTokenRequest,
    ) -> Result<proto::Certs> {
        check_form(&request)?;
        let remote_addr = self.joining_address(caller, &request);
        let token = self.find_token(&request.token)?;
        let result = match &token {
            Some(token) => self.register(token, &request, &remote_addr).await,
            None => Err(unknown_token(&request)),
        };
        self.emit_join(&request, token.as_ref(), &remote_addr, result.as_ref().err()).await?;
        result
    }

    async fn register(
        &self,
        token: &ProvisionTokenV2,
        request: &RegisterUsingTokenRequest,
        remote_addr: &str,
    ) -> Result<proto::Certs> {
        let spec = token.spec.clone().unwrap_or_default();
        if !matches!(spec.join_method.as_str(), "" | METHOD_TOKEN) {
            return Err(Error::access_denied(format!(
                "this token is for the join method {:?}, which this way of joining or this version does not support",
                spec.join_method
            )));
        }
        let granted: Vec<SystemRole> = spec.roles.iter().filter_map(|role| role.parse().ok()).collect();
        let role = check_role(request, &granted)?;
        if role == SystemRole::Bot {
            return Err(Error::not_implemented(
                "bots cannot join yet: this version of the Auth Service has no machine identities",
            ));
        }
        if request.expires.is_some() {
            return Err(Error::bad_parameter("'expires' cannot be set for host certificates"));
        }
        let services = granted.into_iter().filter(|role| role.is_local_service());
        let system_roles = if role == SystemRole::Instance { services.collect() } else { Vec::new() };
        self.generate_host_certs(HostCertRequest {
            host_id: request.host_id.clone(),
            node_name: request.node_name.clone(),
            role,
            additional_principals: request.additional_principals.clone(),
            dns_names: request.dns_names.clone(),
            public_tls_key: text(&request.public_tls_key, "public_tls_key")?,
            public_ssh_key: text(&request.public_ssh_key, "public_ssh_key")?,
            remote_addr: remote_addr.to_owned(),
            system_roles,
            serving: false,
        })
        .await
    }

    /// The address of who joins: a proxy says it for those who join through it, and is believed.
    fn joining_address(&self, caller: &Caller, request: &RegisterUsingTokenRequest) -> String {
        if caller.has_role(SystemRole::Proxy)
            && !request.remote_addr.is_empty()
            && request.remote_addr.len() <= MAX_NAME
        {
            return request.remote_addr.clone();
        }
        caller.remote_addr.map(|addr| addr.to_string()).unwrap_or_default()
    }

    async fn emit_join(
        &self,
        request: &RegisterUsingTokenRequest,
        token: Option<&ProvisionTokenV2>,
        remote_addr: &str,
        error: Option<&Error>,
    ) -> Result<()> {
        let reason = error.map(|e| e.message.clone()).unwrap_or_default();
        let spec = token.and_then(|token| token.spec.clone()).unwrap_or_default();
        let code = if error.is_none() { codes::INSTANCE_JOIN } else { codes::INSTANCE_JOIN_FAILURE };
        self.emit(code.event(events::InstanceJoin {
            status: Some(events::Status { success: error.is_none(), error: reason.clone(), user_message: reason }),
            host_id: request.host_id.clone(),
            node_name: request.node_name.clone(),
            role: request.role.clone(),
            method: if spec.join_method.is_empty() { METHOD_TOKEN.to_owned() } else { spec.join_method },
            token_name: token.map_or_else(|| tokens::mask(&request.token), tokens::safe_name),
            token_expires: token.and_then(|token| token.metadata.as_ref()).and_then(|m| m.expires),
            connection: Some(events::ConnectionMetadata { remote_addr: remote_addr.to_owned(), ..Default::default() }),
            ..Default::default()
        }))
        .await
    }
}

/// The role that is asked for, when the token grants it.
fn check_role(request: &RegisterUsingTokenRequest, granted: &[SystemRole]) -> Result<SystemRole> {
    let refused = |role: &str| {
        Error::bad_parameter(format!(
            "node {:?} [{}] can not join the cluster, the token does not allow {role:?} role",
            request.node_name, request.host_id
        ))
    };
    let role: SystemRole = request.role.parse().map_err(|_| refused(&request.role))?;
    let allowed = match role {
        SystemRole::Instance => granted.iter().any(|role| role.is_local_service()),
        role => granted.contains(&role),
    };
    let joins = role.is_local_service() || matches!(role, SystemRole::Instance | SystemRole::Bot);
    if allowed && joins { Ok(role) } else { Err(refused(role.name())) }
}

/// Refuses what no instance sends: names end up on terminals, in certificates and in storage keys.
fn check_form(request: &RegisterUsingTokenRequest) -> Result<()> {
    if request.token.is_empty() {
        return Err(Error::bad_parameter("missing parameter Token"));
    }
    if request.host_id.is_empty() && !request.role.eq_ignore_ascii_case(SystemRole::Bot.name()) {
        return Err(Error::bad_parameter("missing parameter HostID"));
    }
    if request.token.len() > MAX_TOKEN {
        return Err(Error::bad_parameter(format!("token: longer than {MAX_TOKEN} bytes")));
    }
    check_name("role", &request.role)?;
    check_name("host id", &request.host_id)?;
    check_name("node name", &request.node_name)?;
    check_names("additional principals", &request.additional_principals)?;
    check_names("DNS names", &request.dns_names)
}

/// Refuses long lists and unusable names.
pub(crate) fn check_names(what: &str, names: &[String]) -> Result<()> {
    if names.len() > MAX_NAMES {
        return Err(Error::bad_parameter(format!("too many {what}: at most {MAX_NAMES} are allowed")));
    }
    names.iter().try_for_each(|name| check_name(what, name))
}

/// Refuses names that are too long or hold what could be mistaken for something else.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    if name.len() > MAX_NAME {
        return Err(Error::bad_parameter(format!("{what}: longer than {MAX_NAME} bytes")));
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '/' | '\\' | ',' | '"')) {
        return Err(Error::bad_parameter(format!("{what}: {name:?} holds characters that names cannot have")));
    }
    Ok(())
}

fn text(bytes: &[u8], what: &str) -> Result<String> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::bad_parameter(format!("{what}: expected text")))?;
    if text.is_empty() { Err(Error::bad_parameter(format!("missing parameter {what}"))) } else { Ok(text.to_owned()) }
}

fn unknown_token(request: &RegisterUsingTokenRequest) -> Error {
    Error::access_denied(format!(
        "{:?} can not join the cluster with role {:?}, token expired or not found",
        request.node_name, request.role
    ))
}
