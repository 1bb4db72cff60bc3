//! Logs. Fields are named by domain (`run.id`, `lease.epoch`); prompts, tool output and secrets are never in them.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Settings, SettingsError};

/// Starts logging to standard error. Later calls change nothing.
///
/// # Errors
/// The filter is not one.
pub fn start(settings: &Settings) -> Result<(), SettingsError> {
    // The client libraries of the models and of MCP log what comes in, which may hold prompts and results of tools, and
    // URLs with secrets; we log errors ourselves.
    let filter =
        EnvFilter::try_new(format!("{},genai=off,rmcp=off", settings.log)).map_err(|error| SettingsError::Invalid {
            name: "HOLDFAST_LOG".to_owned(),
            problem: format!("expected a filter such as 'info' or 'holdfast_worker=debug': {error}"),
        })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start, as tests make it, keeps the first subscriber.
    let _ = match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
