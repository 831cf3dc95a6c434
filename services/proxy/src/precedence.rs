//! Who is let in first when everybody comes back at once.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

/// For how long after its start a proxy lets agents in first.
const RETURN: Duration = Duration::from_secs(3);
/// Once no agent has been on its way in for so long, most are there.
const PAUSE: Duration = Duration::from_millis(100);

/// The order in which clients of a proxy that has just started are let in. A session begins or goes on only where the
/// tunnel to its host is there again; handshakes with everybody at once would keep all of them waiting for longer, and let
/// sessions be tried in vain. The web is open at once.
#[derive(Debug)]
pub(crate) struct Precedence {
    end: Instant,
    /// How many agents are on their way in.
    agents: watch::Sender<usize>,
}

/// An agent on its way in, as long as this is kept.
#[derive(Debug)]
pub(crate) struct Arriving<'a>(&'a watch::Sender<usize>);

impl Precedence {
    /// The order of a proxy that starts now.
    pub(crate) fn starting() -> Self {
        Self { end: Instant::now() + RETURN, agents: watch::Sender::new(0) }
    }

    /// Counts an agent that is on its way in.
    pub(crate) fn agent(&self) -> Arriving<'_> {
        self.agents.send_modify(|count| *count += 1);
        Arriving(&self.agents)
    }

    /// Waits until a client that is no agent may come in.
    pub(crate) async fn other(&self) {
        if Instant::now() >= self.end {
            return;
        }
        let mut agents = self.agents.subscribe();
        let nobody_comes = async {
            // Neither fails: the sender lives as long as this.
            while agents.wait_for(|count| *count == 0).await.is_ok() {
                if timeout(PAUSE, agents.wait_for(|count| *count > 0)).await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout_at(self.end, nobody_comes).await; // then they come all the same
    }
}

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn agents_come_in_first_as_long_as_the_proxy_is_new() {
        let order = Precedence::starting();
        let start = Instant::now();
        // Agents that come one after the other are waited for, and a little longer.
        let agents = async {
            for _ in 0..3 {
                let _arriving = order.agent();
                sleep(PAUSE * 4).await;
            }
        };
        tokio::join!(order.other(), agents);
        assert_eq!(start.elapsed(), PAUSE * 13);
        // One that does not get on keeps nobody waiting for ever.
        let _arriving = order.agent();
        order.other().await;
        assert_eq!(start.elapsed(), RETURN);
        order.other().await;
        assert_eq!(start.elapsed(), RETURN);
    }
}
