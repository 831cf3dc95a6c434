//! The log.

use std::fs::OpenOptions;
use std::sync::Mutex;

use config::{Log, LogFormat, LogOutput, Severity};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::error::{Failure, Result};

/// Sends the log where the configuration says.
pub fn start(log: &Log) -> Result<()> {
    let level = match log.severity {
        Severity::Error => LevelFilter::ERROR,
        Severity::Warn => LevelFilter::WARN,
        Severity::Info => LevelFilter::INFO,
        Severity::Debug => LevelFilter::DEBUG,
        Severity::Trace => LevelFilter::TRACE,
    };
    // Libraries below the services are as loud as their own authors like; only trouble is wanted from them.
    let quiet = if level > LevelFilter::INFO { "info" } else { "warn" };
    let directives = format!(
        "{level},russh={quiet},h2={quiet},hyper={quiet},hyper_util={quiet},rustls={quiet},tower={quiet},tonic={quiet}"
    );
    let filter = EnvFilter::builder().parse(directives).map_err(Failure::new)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer(&log.output)?);
    match log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
        LogFormat::Text => builder.init(),
    }
    Ok(())
}

fn writer(output: &LogOutput) -> Result<BoxMakeWriter> {
    Ok(match output {
        LogOutput::Stderr => BoxMakeWriter::new(std::io::stderr),
        LogOutput::Stdout => BoxMakeWriter::new(std::io::stdout),
        LogOutput::Syslog => return Err(Failure("teleport.log.output: syslog is not part of this build yet".into())),
        LogOutput::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.map_err(|e| Failure(format!("opening the log {}: {e}", path.display())))?;
            BoxMakeWriter::new(Mutex::new(file))
        }
    })
}
