//! `auth rotate`.

use clap::{Args, ValueEnum};
use pki::authority::CaType;
use wire::trust::RotateCertAuthorityRequest;

use crate::api::{Api, Call};
use crate::error::Result;
use crate::output::{say, time};

/// Replace the keys of an authority, step by step.
#[derive(Args, Debug)]
pub struct Rotate {
    /// Which authority.
    #[arg(long = "type", value_name = "TYPE")]
    authority: CaType,
    /// Where to go.
    #[arg(long, value_enum)]
    phase: Option<Phase>,
    /// Go on only when told to.
    #[arg(long)]
    manual: bool,
    /// How long old certificates are accepted.
    #[arg(long, value_name = "DURATION", default_value = "30h")]
    grace_period: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Phase {
    Init,
    #[value(name = "update_clients")]
    UpdateClients,
    #[value(name = "update_servers")]
    UpdateServers,
    Standby,
    Rollback,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::UpdateClients => "update_clients",
            Self::UpdateServers => "update_servers",
            Self::Standby => "standby",
            Self::Rollback => "rollback",
        }
    }
}

impl Rotate {
    /// Takes the step.
    pub async fn run(self, api: &Api) -> Result<()> {
        let request = self.request()?;
        let phase = self.phase.map(Phase::name);
        api.trust().rotate_cert_authority(request).within("rotating the authority").await?;
        say(&match phase {
            Some(phase) => format!("Rotation phase of the {} authority has been set to {phase:?}\n", self.authority),
            None => format!("Rotation of the {} authority has been started\n", self.authority),
        });
        Ok(())
    }

    fn request(&self) -> Result<RotateCertAuthorityRequest> {
        let grace = time::lifetime(&self.grace_period)?;
        Ok(RotateCertAuthorityRequest {
            r#type: self.authority.as_str().to_owned(),
            grace_period: prost_types::Duration::try_from(grace).ok(),
            target_phase: self.phase.map(Phase::name).unwrap_or_default().to_owned(),
            mode: if self.manual { "manual" } else { "auto" }.to_owned(),
            schedule: None,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        rotate: Rotate,
    }

    #[test]
    fn a_step_is_asked_for_as_written() {
        let line = Line::try_parse_from(["rotate", "--type=user", "--phase=update_clients", "--manual"]).unwrap();
        let request = line.rotate.request().unwrap();
        assert_eq!((&*request.r#type, &*request.target_phase, &*request.mode), ("user", "update_clients", "manual"));
        assert_eq!(request.grace_period.unwrap().seconds, 30 * 3600);
        let said = Line::try_parse_from(["rotate", "--type=user", "--phase=next"]).unwrap_err().to_string();
        assert!(said.contains("next") && said.contains("update_servers"), "{said}");
        let said = Line::try_parse_from(["rotate", "--type=bogus"]).unwrap_err().to_string();
        assert!(said.contains("bogus"), "{said}");
    }
}
