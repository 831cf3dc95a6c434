//! What a session brings along besides a terminal: forwards, an agent, a display.

use std::sync::Arc;

use client::account::Account;
use client::ssh::ForwardAgent;
use client::ssh::SshOptions;
use client::ssh::forward::{Agent, Display, ForwardPlan, Say, Trust, X11};
use client::{Error, Result};

use crate::args::SshArgs;

/// What the command line asks for.
pub struct Extras {
    /// Ports.
    pub forwards: ForwardPlan,
    /// Whether a refused remote forward ends the session.
    pub exit_on_failure: bool,
    x11: Option<Trust>,
    agent: Option<ForwardAgent>,
}

impl Extras {
    /// Reads the flags and `-o` options; flags win.
    pub fn read(args: &SshArgs, options: &SshOptions) -> Result<Self> {
        let bad = |error: &dyn std::fmt::Display| Error::other(error.to_string());
        let forwards = ForwardPlan {
            local: args.local_forward.iter().map(|f| f.parse()).collect::<Result<_, _>>().map_err(|e| bad(&e))?,
            remote: args.remote_forward.iter().map(|f| f.parse()).collect::<Result<_, _>>().map_err(|e| bad(&e))?,
            dynamic: args.dynamic_forward.iter().map(|f| f.parse()).collect::<Result<_, _>>().map_err(|e| bad(&e))?,
        };
        let life = options.forward_x11_timeout.as_deref().unwrap_or(&args.x11_untrusted_timeout);
        let life =
            wire::duration::from_text(life).map_err(|e| Error::other(format!("--x11-untrusted-timeout: {e}")))?;
        let x11 = if args.x11_trusted {
            Some(Trust::Trusted)
        } else if args.x11_untrusted {
            Some(Trust::Untrusted(life))
        } else if options.forward_x11 == Some(true) {
            let trusted = options.forward_x11_trusted == Some(true);
            Some(if trusted { Trust::Trusted } else { Trust::Untrusted(life) })
        } else {
            None
        };
        let agent = if args.forward_agent { Some(ForwardAgent::System) } else { options.forward_agent };
        let agent = agent.filter(|agent| *agent != ForwardAgent::No);
        Ok(Self { forwards, exit_on_failure: options.exit_on_forward_failure == Some(true), x11, agent })
    }

    /// Whether there is anything that is for one host only.
    pub fn any(&self) -> bool {
        !self.forwards.is_empty() || self.x11.is_some() || self.agent.is_some()
    }

    /// The display, made ready.
    pub async fn x11(&self) -> Result<Option<Arc<X11>>> {
        let Some(trust) = self.x11 else { return Ok(None) };
        let bad = |error: client::ssh::forward::X11Error| Error::other(error.to_string());
        let display = Display::from_environment().map_err(bad)?;
        Ok(Some(Arc::new(X11::prepare(display, trust).await.map_err(bad)?)))
    }

    /// The agent.
    pub fn agent(&self, account: &Account) -> Result<Option<Agent>> {
        match self.agent {
            None | Some(ForwardAgent::No) => Ok(None),
            Some(ForwardAgent::System) => Agent::system().map(Some),
            Some(ForwardAgent::Local) => Agent::local(account).map(Some),
        }
    }
}

/// Tells the user something while a session has the terminal, whose lines may need both characters to end.
pub fn say() -> Say {
    Arc::new(|said| eprint!("{}\r\n", client::text::line(said)))
}
