//! Logs and traces. Fields are named by domain (`run.id`, `lease.epoch`); prompts, tool output and secrets are never in
//! them.

use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry};

use crate::config::{LogFormat, Settings, SettingsError};

pub mod traces;

use traces::Exporter;

/// What must be stopped at the end of the program, so that the last spans are sent.
#[must_use]
#[derive(Debug)]
pub struct Telemetry {
    exporter: Option<Exporter>,
}

impl Telemetry {
    /// Sends what is not sent yet, and waits for it a few seconds at most. Not to be called inside of a runtime.
    pub fn stop(self) {
        if let Some(exporter) = self.exporter {
            exporter.stop();
        }
    }
}

/// Starts logging to standard error, and sending traces if the settings name a collector. Later calls change nothing. Not
/// to be called inside of a runtime.
///
/// # Errors
/// The filter is not one, or the collector's URL is none.
pub fn start(settings: &Settings) -> Result<Telemetry, SettingsError> {
    // The client libraries of the models and of MCP log what comes in, which may hold prompts and results of tools, and
    // URLs with secrets; we log errors ourselves. The exporter must not report its own requests.
    let filter =
        EnvFilter::try_new(format!("{},genai=off,rmcp=off,opentelemetry=warn", settings.log)).map_err(|error| {
            SettingsError::Invalid {
                name: "HOLDFAST_LOG".to_owned(),
                problem: format!("expected a filter such as 'info' or 'holdfast_worker=debug': {error}"),
            }
        })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let exporter = settings.otlp_endpoint.as_deref().map(Exporter::start).transpose()?;
    let spans = exporter.as_ref().map(Exporter::layer::<Registry>);
    // A line says itself what it is about; the spans around it would say it again, and more than people read.
    let filter = filter.and(filter_fn(|what: &Metadata<'_>| what.is_event()));
    // A second start, as tests make it, keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(spans).with(lines.with_filter(filter)).try_init();
    Ok(Telemetry { exporter })
}
