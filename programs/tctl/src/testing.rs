//! An Auth Service of a few calls, in memory.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use dialer::webapi::JsonClient;
use dialer::{BoxStream, Connect, DialError, channel};
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status};
use wire::client::api_channel;
use wire::proto::auth_service_server::{AuthService, AuthServiceServer};
use wire::proto::{CreateResetPasswordTokenRequest, Event, GetRoleRequest, Operation, UpsertRoleRequest, Watch};
use wire::types::{RoleV6, UserTokenV3, UserV2};
use wire::users::users_service_server::{UsersService, UsersServiceServer};
use wire::users::{
    CreateUserRequest, CreateUserResponse, DeleteUserRequest, GetUserRequest, GetUserResponse, UpdateUserRequest,
    UpdateUserResponse,
};

use crate::api::Api;

/// What the service holds and how it behaves. Calls it does not have are answered with "unimplemented".
#[derive(Default)]
pub struct State {
    /// Users.
    pub users: Vec<UserV2>,
    /// Roles.
    pub roles: Vec<RoleV6>,
    /// Whether links can be made.
    pub links: bool,
    /// How many more updates find that somebody else was faster.
    pub races: usize,
    /// Names of roles that are not taken.
    pub refused: Vec<&'static str>,
}

/// A handle on the service.
#[derive(Clone, Default)]
pub struct Service(pub Arc<Mutex<State>>);

impl Service {
    /// A service with this state.
    pub fn with(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Starts it. It ends with the test.
    pub fn api(&self) -> Api {
        let (connect, incoming) = mpsc::unbounded_channel::<DuplexStream>();
        let server = tonic::transport::Server::builder()
            .add_service(UsersServiceServer::new(self.clone()))
            .add_service(AuthServiceServer::new(self.clone()))
            .serve_with_incoming(UnboundedReceiverStream::new(incoming).map(Ok::<_, io::Error>));
        tokio::spawn(server);
        let connect = Arc::new(InMemory(connect));
        let http = JsonClient::new(Arc::clone(&connect) as Arc<dyn Connect>, "auth");
        Api::new("main.test", api_channel(channel(connect, None)), http)
    }
}

struct InMemory(mpsc::UnboundedSender<DuplexStream>);

#[async_trait]
impl Connect for InMemory {
    async fn connect(&self) -> Result<BoxStream, DialError> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.0.send(theirs).map_err(|_| DialError::NoAddress)?;
        Ok(Box::new(ours))
    }
}

fn name(user: Option<&UserV2>) -> String {
    user.and_then(|user| user.metadata.as_ref()).map(|m| m.name.clone()).unwrap_or_default()
}

fn role_name(role: &RoleV6) -> &str {
    role.metadata.as_ref().map_or("", |m| m.name.as_str())
}

#[tonic::async_trait]
impl UsersService for Service {
    async fn create_user(&self, request: Request<CreateUserRequest>) -> Result<Response<CreateUserResponse>, Status> {
        let user = request.into_inner().user;
        self.0.lock().users.extend(user.clone());
        Ok(Response::new(CreateUserResponse { user }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let wanted = request.into_inner().name;
        let user = self.0.lock().users.iter().find(|user| name(Some(user)) == wanted).cloned();
        user.map(|user| Response::new(GetUserResponse { user: Some(user) })).ok_or_else(|| Status::not_found("user"))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Result<Response<UpdateUserResponse>, Status> {
        let user = request.into_inner().user;
        let mut state = self.0.lock();
        if state.races > 0 {
            state.races -= 1;
            return Err(Status::failed_precondition("revision does not match"));
        }
        let wanted = name(user.as_ref());
        state.users.retain(|known| name(Some(known)) != wanted);
        state.users.extend(user.clone());
        Ok(Response::new(UpdateUserResponse { user }))
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Result<Response<()>, Status> {
        let wanted = request.into_inner().name;
        self.0.lock().users.retain(|user| name(Some(user)) != wanted);
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl AuthService for Service {
    /// A watch of one change, which is closed after it.
    async fn watch_events(&self, _: Request<Watch>) -> Result<Response<tonic::codegen::BoxStream<Event>>, Status> {
        let event = |kind: Operation| Ok(Event { r#type: kind.into(), ..Event::default() });
        Ok(Response::new(Box::pin(tokio_stream::iter([event(Operation::Init), event(Operation::Put)]))))
    }

    async fn create_reset_password_token(
        &self,
        _: Request<CreateResetPasswordTokenRequest>,
    ) -> Result<Response<UserTokenV3>, Status> {
        match self.0.lock().links {
            true => Ok(Response::new(UserTokenV3::default())),
            false => Err(Status::invalid_argument("no proxy is known")),
        }
    }

    async fn get_role(&self, request: Request<GetRoleRequest>) -> Result<Response<RoleV6>, Status> {
        let wanted = request.into_inner().name;
        let role = self.0.lock().roles.iter().find(|role| role_name(role) == wanted).cloned();
        role.map(Response::new).ok_or_else(|| Status::not_found("role"))
    }

    async fn upsert_role_v2(&self, request: Request<UpsertRoleRequest>) -> Result<Response<RoleV6>, Status> {
        let role = request.into_inner().role.unwrap_or_default();
        let mut state = self.0.lock();
        if state.refused.contains(&role_name(&role)) {
            return Err(Status::permission_denied("access denied"));
        }
        state.roles.retain(|known| role_name(known) != role_name(&role));
        state.roles.push(role.clone());
        Ok(Response::new(role))
    }
}
