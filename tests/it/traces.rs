//! Traces, as a collector gets them: one from the request through the queue to the worker's calls.

use std::collections::BTreeMap;

use holdfast_shared::testkit::http_server::{HttpServer, Reply};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message as _;
use serde_json::json;

use super::client::stop_reason;
use super::harness::{Cluster, Dev, Settings, background, directory, settings};
use super::scripted_model::script::Answer;
use super::scripted_model::{Kind, ScriptedModel};

/// What the prompt, the argument and the result of the tool contain, and no span may.
const PRIVATE: &str = "fjord-4711";
/// The trace and the span of a client that traces its own work.
const CLIENTS: (&str, &str) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");

async fn collector() -> HttpServer {
    HttpServer::start(|_| Reply::of(200, "application/x-protobuf", "")).await
}

fn sent_to(collector: &HttpServer) -> Settings {
    settings([("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url(""))])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The spans that came, of all processes.
fn spans(collector: &HttpServer) -> Vec<Span> {
    let received = collector.received();
    let requests = received.iter().filter(|request| request.target == "/v1/traces");
    let exports = requests.map(|request| ExportTraceServiceRequest::decode(&*request.body).expect("OTLP"));
    let resources = exports.flat_map(|export| export.resource_spans);
    resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

fn attributes(span: &Span) -> BTreeMap<String, String> {
    let text = |value: AnyValue| match value {
        AnyValue::StringValue(text) => text,
        other => format!("{other:?}"),
    };
    let values = span.attributes.iter().map(|pair| (pair.key.clone(), pair.value.clone().and_then(|any| any.value)));
    values.map(|(key, value)| (key, value.map(text).unwrap_or_default())).collect()
}

/// The one span with this name that hangs on another one.
fn child<'a>(spans: &'a [Span], parent: &[u8], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.parent_span_id == parent && span.name == name).collect();
    let names: Vec<(&str, String)> = spans.iter().map(|span| (span.name.as_str(), hex(&span.parent_span_id))).collect();
    assert_eq!(found.len(), 1, "{name} below {}: {names:?}", hex(parent));
    found[0]
}

/// Lets an agent call a tool and then answer, in a trace of the client's, and answers the run's id.
async fn traced_run(client: &super::client::Client, model: &ScriptedModel) -> String {
    let insert = Answer::call("memory_insert", &json!({"label": "human", "new_string": PRIVATE}));
    let script = model.script(Kind::Chat, [insert, Answer::text("Noted.")]);
    let body = json!({"name": "t", "model": script.handle, "memory_blocks": [{"label": "human", "value": "Ada."}]});
    let agent = client.post("/v1/agents/", &body).await.ok();
    let agent = agent["id"].as_str().expect("an id");
    let traceparent = format!("00-{}-{}-01", CLIENTS.0, CLIENTS.1);
    let client = client.with_header("traceparent", &traceparent);
    let frames = client.send(agent, &background(&format!("I like {PRIVATE}."))).await.read_to_end().await;
    assert_eq!(stop_reason(&frames), "end_turn");
    script.assert_used_up();
    frames[0].run_id().expect("a run")
}

/// Asserts what a collector must have got of a traced run.
fn assert_traced(collector: &HttpServer, run: &str) {
    let all = spans(collector);
    let trace: Vec<Span> = all.iter().filter(|span| hex(&span.trace_id) == CLIENTS.0).cloned().collect();
    let client = (0..8).map(|at| u8::from_str_radix(&CLIENTS.1[2 * at..2 * at + 2], 16).expect("hex"));
    let request = child(&trace, &client.collect::<Vec<u8>>(), "POST /v1/agents/{agent_id}/messages/stream");
    assert_eq!(request.kind, SpanKind::Server as i32);
    assert!(attributes(request)["http.response.status_code"].contains("200"), "{:?}", attributes(request));
    let attempt = child(&trace, &request.span_id, "attempt");
    assert_eq!(attributes(attempt)["run.id"], run);
    let steps: Vec<&Span> =
        trace.iter().filter(|span| span.parent_span_id == attempt.span_id && span.name == "step").collect();
    assert_eq!(steps.len(), 2);
    assert!(steps.iter().all(|step| attributes(step)["step.id"].starts_with("step-")));
    for step in &steps {
        child(&trace, &step.span_id, "model call");
    }
    let call = child(&trace, &steps[0].span_id, "tool call");
    assert_eq!(attributes(call)["tool.name"], "memory_insert");
    assert!(call.status.as_ref().is_none_or(|status| status.code != StatusCode::Error as i32));
    for span in &all {
        assert!(!format!("{span:?}").contains(PRIVATE), "a span tells what was said: {span:?}");
    }
}

#[tokio::test]
async fn a_trace_leads_from_the_request_to_the_tool_in_one_process() {
    let (collector, model, data) = (collector().await, ScriptedModel::start().await, directory());
    let mut own = Kind::Chat.settings(&model);
    own.extend(sent_to(&collector));
    let mut dev = Dev::start_with(data.path(), own).await;
    let run = traced_run(&dev.client, &model).await;
    dev.process.signal("TERM");
    assert!(dev.process.ended().await.success());
    assert_traced(&collector, &run);
}

#[tokio::test]
async fn a_trace_leads_from_the_request_to_the_tool_through_the_broker() {
    let (collector, model) = (collector().await, ScriptedModel::start().await);
    let mut own = Kind::Chat.settings(&model);
    own.extend(sent_to(&collector));
    let mut cluster = Cluster::start_with(1, 1, own).await;
    let run = traced_run(&cluster.client(0), &model).await;
    for process in [&mut cluster.workers[0], &mut cluster.apis[0].process] {
        process.signal("TERM");
        assert!(process.ended().await.success());
    }
    assert_traced(&collector, &run);
}

#[tokio::test]
async fn a_collector_that_is_not_there_disturbs_nothing() {
    let data = directory();
    let own = settings([("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")]);
    let mut dev = Dev::start_with(data.path(), own).await;
    let agent = dev.client.create_agent().await;
    let frames = dev.client.send(&agent, &background("hello")).await.read_to_end().await;
    assert_eq!(stop_reason(&frames), "end_turn");
    dev.process.signal("TERM");
    assert!(dev.process.ended().await.success());
}
