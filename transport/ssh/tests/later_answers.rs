//! Global requests that a server answers in a task.
#![allow(clippy::unwrap_used)]

mod common;

use common::{connect, key, server_config, soon};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::server::{Auth, LaterAnswer};
use russh::{Error, GlobalRequestReply, client, server};
use tokio::sync::mpsc;

const KEEP_ALIVE: &str = "keepalive@openssh.com";

struct Near;

impl client::Handler for Near {
    type Error = Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, Error> {
        Ok(true)
    }
}

/// Answers requests to listen when somebody says so.
struct Far(mpsc::UnboundedSender<LaterAnswer>);

impl server::Handler for Far {
    type Error = Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Error> {
        Ok(Auth::Accept)
    }

    async fn tcpip_forward(&mut self, _: &str, _: &mut u32, session: &mut server::Session) -> Result<bool, Error> {
        let _ = self.0.send(session.answer_later());
        Ok(false)
    }

    async fn global_request(
        &mut self,
        _: &str,
        _: bool,
        _: &[u8],
        _: &mut server::Session,
    ) -> Result<GlobalRequestReply, Error> {
        Ok(GlobalRequestReply::Success(b"at once".to_vec()))
    }
}

#[tokio::test]
async fn answers_that_come_late_keep_the_order_of_the_requests_and_hold_up_nothing_else() {
    let (sender, mut asked) = mpsc::unbounded_channel();
    let (mut near, _far) =
        soon(connect(client::Config::default(), Near, server_config(key(Algorithm::Ed25519)), Far(sender)))
            .await
            .unwrap();
    assert!(soon(near.authenticate_none("user")).await.unwrap().success());
    let (done, mut order) = mpsc::unbounded_channel();
    // In the order in which they are sent; the client matches answers to them by their order.
    let first = async {
        let port = near.tcpip_forward("", 0).await.unwrap();
        done.send(format!("port {port}")).unwrap();
    };
    let second = async {
        assert!(matches!(near.tcpip_forward("", 1).await, Err(Error::RequestDenied)));
        done.send("refused".to_owned()).unwrap();
    };
    let third = async {
        let answer = near.send_global_request(KEEP_ALIVE, b"", true).await.unwrap().unwrap();
        done.send(String::from_utf8_lossy(&answer).into_owned()).unwrap();
    };
    let answering = async {
        let (first, second) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
        // The connection goes on meanwhile.
        let channel = near.channel_open_session().await;
        assert!(matches!(channel, Err(Error::ChannelOpenFailure(_))));
        drop(second);
        tokio::task::yield_now().await;
        first.send(GlobalRequestReply::Success(4022u32.to_be_bytes().to_vec()));
    };
    soon(async { tokio::join!(biased; first, second, third, answering) }).await;
    let mut told = Vec::new();
    while let Ok(what) = order.try_recv() {
        told.push(what);
    }
    assert_eq!(told, ["port 4022", "refused", "at once"]);
}
