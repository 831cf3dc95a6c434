//! The short way to write a gRPC service.

/// Implements a service: one row an RPC, with its message, its answer and what makes the answer. The row sees the
/// handlers, the caller and the message under the names at the top.
macro_rules! service {
    (
        $service:ident, |$api:ident, $context:ident, $message:ident|
        unary { $($name:ident($request:ty) -> $response:ty = $answer:expr;)* }
        $(streaming { $($stream:ident($streamed:ty) -> $items:ty = $source:expr;)* })?
    ) => {
        #[tonic::async_trait]
        impl $service for $crate::grpc::Api {
            $(
                #[allow(unused_variables)] // not every answer depends on all of them
                async fn $name(&self, request: tonic::Request<$request>) -> $crate::grpc::Answer<$response> {
                    let (context, $message) = $crate::grpc::open(request)?;
                    let ($api, $context) = (self, &context);
                    $crate::grpc::answer($answer)
                }
            )*
            $($(
                #[allow(unused_variables)] // not every answer depends on all of them
                async fn $stream(
                    &self,
                    request: tonic::Request<$streamed>,
                ) -> $crate::grpc::Answer<$crate::grpc::Items<$items>> {
                    let (context, $message) = $crate::grpc::open(request)?;
                    let ($api, $context) = (self, &context);
                    $crate::grpc::stream($source)
                }
            )*)?
        }
    };
}
pub(super) use service;
