//! `tsh play`.

use std::io::{self, BufWriter};
use std::time::Duration;

use client::play::{Pace, Recording, Speed, TextForm, export, play as show};
use client::{Error, Result};

use crate::args::{PlayArgs, PlayForm};
use crate::context::Context;

/// Plays a recording.
pub async fn play(context: &Context, args: &PlayArgs) -> Result<i32> {
    let speed: Speed = args.speed.parse().map_err(|error| Error::other(format!("--speed: {error}")))?;
    let recording = match Recording::file(&args.session) {
        Some(file) => file,
        None => Recording::session(context.client(args.cluster.as_deref()).await?, &args.session)?,
    };
    let form = match args.format {
        PlayForm::Pty => {
            let pace = Pace { speed, skip_idle: args.skip_idle_time, from: Duration::ZERO };
            show(&recording, pace).await?;
            return Ok(0);
        }
        PlayForm::Json => TextForm::Json,
        PlayForm::Yaml => TextForm::Yaml,
        PlayForm::Text => TextForm::Text,
    };
    export(&recording, form, BufWriter::new(io::stdout())).await?;
    Ok(0)
}
