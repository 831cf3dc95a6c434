//! The log.

use std::fs::OpenOptions;
use std::sync::{Arc, Mutex, PoisonError};

use config::{Log, LogFormat, LogOutput, Severity};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::error::{Failure, Result};

/// The log of this process, whose severity can be changed while it runs. Clones share it.
#[derive(Clone)]
pub struct LogLevel {
    current: Arc<Mutex<Severity>>,
    apply: Arc<dyn Fn(EnvFilter) -> Result<()> + Send + Sync>,
}

impl LogLevel {
    /// A severity that nothing follows.
    #[cfg(test)]
    pub fn unconnected(severity: Severity) -> Self {
        Self { current: Arc::new(Mutex::new(severity)), apply: Arc::new(|_| Ok(())) }
    }

    /// What is logged at present.
    pub fn get(&self) -> Severity {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs down to this severity from now on.
    ///
    /// # Errors
    /// When the log has ended.
    pub fn set(&self, severity: Severity) -> Result<()> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (self.apply)(filter(severity)?)?;
        *current = severity;
        Ok(())
    }
}

/// Sends the log where the configuration says.
pub fn start(log: &Log) -> Result<LogLevel> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(log.severity)?)
        .with_ansi(false)
        .with_writer(writer(&log.output)?);
    let apply: Arc<dyn Fn(EnvFilter) -> Result<()> + Send + Sync> = match log.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Arc::new(move |filter| handle.reload(filter).map_err(Failure::new))
        }
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Arc::new(move |filter| handle.reload(filter).map_err(Failure::new))
        }
    };
    Ok(LogLevel { current: Arc::new(Mutex::new(log.severity)), apply })
}

fn filter(severity: Severity) -> Result<EnvFilter> {
    let level = match severity {
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
    EnvFilter::builder().parse(directives).map_err(Failure::new)
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
