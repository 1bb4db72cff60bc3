//! Traces: one for each request, through the outbox and the queue to the worker's attempts, steps, model calls and tool
//! calls. They are sent by OTLP over HTTP to a collector, if the settings name one.
//!
//! A trace crosses processes as W3C `traceparent`: in the request's header, in the run's row, in the queue's message.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use crate::config::SettingsError;

/// The variable that names the collector: the standard's own.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The header, and the key wherever a trace is carried.
pub const TRACEPARENT: &str = "traceparent";

/// Sends spans, in a thread of its own.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Starts sending to `{endpoint}/v1/traces`.
    ///
    /// # Errors
    /// The endpoint is no URL.
    pub fn start(endpoint: &str) -> Result<Self, SettingsError> {
        let invalid = |problem: String| SettingsError::Invalid { name: ENDPOINT.to_owned(), problem };
        let is_http = reqwest::Url::parse(endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !is_http {
            return Err(invalid("expected the URL of a collector, such as http://127.0.0.1:4318".to_owned()));
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        // `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over the name.
        let resource = Resource::builder()
            .with_service_name(std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| "holdfast".to_owned()))
            .build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    /// What hands our own spans to the exporter. Those of libraries stay out: they may name what clients sent.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let ours = ["holdfast", "holdfast_api", "holdfast_shared", "holdfast_worker"];
        let filter = Targets::new().with_targets(ours.map(|target| (target, Level::INFO)));
        // Events stay in the log: a span is what took time.
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("holdfast"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(filter)
    }

    /// Sends what waits.
    pub(super) fn stop(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// The trace that the current span is part of; none if no traces are sent.
#[must_use]
pub fn current() -> Option<String> {
    let context = Span::current().context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// Makes a span part of a trace that began elsewhere. What is no trace changes nothing.
pub fn join(span: &Span, trace: Option<&str>) {
    let Some(trace) = trace else { return };
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), trace.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    if context.span().span_context().is_valid() {
        // It is an error to come after the span's first child; every caller has just made it.
        let _ = span.set_parent(context);
    }
}
