//! A stream in the contract's short notation, and the relations that hold in every stream (api/02 §3 to §8): which ids are
//! shared, what a delta must carry, how a stream ends.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::client::{Frame, assert_whole, stored, superseded};

/// How a run's stream shows what the model makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Whole messages.
    Steps,
    /// Deltas.
    Tokens,
}

impl Mode {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Steps, Self::Tokens];
}

/// A slice of a message: what a reader puts together from its frames.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Slice {
    /// `message_type`
    pub kind: String,
    /// The message.
    pub id: String,
    /// The slice.
    pub otid: String,
    /// The step.
    pub step: String,
    /// The text, for those that have one.
    pub text: String,
    /// The calls, for those that have some: id, name, arguments.
    pub calls: Vec<Called>,
    /// The entries of `tool_returns`.
    pub returns: Vec<Value>,
    /// Whether the stream said later that it is void.
    pub is_void: bool,
}

/// A call as a reader puts it together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Called {
    /// Its id.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments, JSON text.
    pub arguments: String,
}

impl Slice {
    /// Its letter in the notation.
    fn letter(&self) -> String {
        let letter = match self.kind.as_str() {
            "reasoning_message" => "R",
            "hidden_reasoning_message" => "H",
            "assistant_message" => "A",
            "tool_call_message" => "C",
            "approval_request_message" => "Q",
            "tool_return_message" if self.returns.iter().any(|one| one["status"] == "error") => "T!",
            "tool_return_message" => "T",
            other => other.trim_end_matches("_message"),
        };
        letter.to_owned()
    }
}

/// The notation: `P` ping, `V` a ping that declares messages void, `R` reasoning, `H` hidden reasoning, `A` assistant,
/// `C` calls, `Q` approval request, `T` results, `T!` results with a failed one, `event` and `summary` a compaction, `S:x`
/// the stop reason, `U` usage, `E:x` the error. Frames of one slice count once; `[DONE]` is not written down.
pub fn notation(frames: &[Frame]) -> String {
    let frames = stored(frames);
    let mut slices = slices(&frames).into_iter();
    let mut last = None;
    let mut letters = Vec::new();
    for frame in frames.iter().filter(|frame| !frame.is_done()) {
        let json = frame.json();
        let key = slice_key(&json);
        match frame.kind().as_str() {
            "ping" if json["superseded_message_ids"].is_array() => letters.push("V".to_owned()),
            "ping" => letters.push("P".to_owned()),
            "stop_reason" => letters.push(format!("S:{}", text(&json, "stop_reason"))),
            "usage_statistics" => letters.push("U".to_owned()),
            "error_message" => letters.push(format!("E:{}", text(&json, "error_type"))),
            _ if last == Some(key.clone()) => {}
            _ => letters.extend(slices.next().map(|slice| slice.letter())),
        }
        last = Some(key);
    }
    letters.join(" ")
}

/// Asserts the sequence of a stream.
pub fn assert_notation(frames: &[Frame], expected: &str) {
    let told: Vec<_> = frames.iter().map(|frame| frame.raw.trim_end()).collect();
    assert_eq!(notation(frames), expected, "in\n{}", told.join("\n"));
}

/// Puts the frames together to slices, in the order in which they began.
pub fn slices(frames: &[Frame]) -> Vec<Slice> {
    let void = superseded(frames);
    let mut slices: Vec<Slice> = Vec::new();
    let mut last = None;
    for json in stored(frames).iter().map(Frame::json).filter(is_message) {
        let key = slice_key(&json);
        if last.as_ref() != Some(&key) {
            slices.push(Slice {
                kind: text(&json, "message_type").to_owned(),
                id: text(&json, "id").to_owned(),
                otid: text(&json, "otid").to_owned(),
                step: text(&json, "step_id").to_owned(),
                is_void: void.iter().any(|id| json["id"] == id.as_str()),
                ..Slice::default()
            });
            last = Some(key);
        }
        if let Some(slice) = slices.last_mut() {
            add(slice, &json);
        }
    }
    slices
}

fn add(slice: &mut Slice, json: &Value) {
    for name in ["content", "reasoning", "hidden_reasoning", "summary"] {
        slice.text.push_str(text(json, name));
    }
    slice.returns.extend(json["tool_returns"].as_array().into_iter().flatten().cloned());
    let calls = match &json["tool_calls"] {
        Value::Array(whole) => whole.clone(),
        Value::Object(_) => vec![json["tool_calls"].clone()],
        _ => Vec::new(),
    };
    for call in calls {
        let id = text(&call, "tool_call_id");
        let place = slice.calls.iter().position(|known| known.id == id).unwrap_or_else(|| {
            slice.calls.push(Called { id: id.to_owned(), ..Called::default() });
            slice.calls.len() - 1
        });
        let known = &mut slice.calls[place];
        if known.name.is_empty() {
            text(&call, "name").clone_into(&mut known.name);
        }
        known.arguments.push_str(text(&call, "arguments"));
    }
}

fn slice_key(json: &Value) -> (String, String) {
    (text(json, "message_type").to_owned(), text(json, "otid").to_owned())
}

fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_default()
}

/// Whether a frame belongs to a message.
fn is_message(json: &Value) -> bool {
    let kind = text(json, "message_type");
    kind.ends_with("_message") && kind != "error_message"
}

/// The status of a run that stopped for this reason (api/02 §5).
pub fn status_after(stop_reason: &str) -> &'static str {
    match stop_reason {
        "end_turn" | "requires_approval" | "max_steps" | "tool_rule" => "completed",
        "cancelled" => "cancelled",
        _ => "failed",
    }
}

/// Asserts what holds in every whole stream of a background run.
pub fn assert_related(frames: &[Frame], mode: Mode) {
    assert_whole(frames, 0);
    let frames = stored(frames);
    let run = frames[0].run_id().expect("the first frame names the run");
    for json in frames.iter().map(Frame::json).filter(|json| is_message(json) || json["message_type"] == "ping") {
        assert_fields(&json, mode);
    }
    let usage = frames.iter().map(Frame::json).find(|json| json["message_type"] == "usage_statistics").expect("usage");
    assert_eq!(usage["run_ids"], json!([run]), "{usage}");
    let sum = usage["prompt_tokens"].as_u64().zip(usage["completion_tokens"].as_u64()).map(|(one, other)| one + other);
    assert!(sum.is_some() && usage["total_tokens"].as_u64() == sum, "{usage}");
    let error = frames.iter().map(Frame::json).find(|json| json["message_type"] == "error_message");
    let told = error.iter().all(|error| error["run_id"] == run.as_str() && error["message"].is_string());
    assert!(told, "{error:?}");
    let slices: Vec<_> = slices(&frames).into_iter().filter(|slice| !slice.is_void).collect();
    assert_slices(&slices, mode);
    assert_steps(&slices, mode);
}

fn assert_fields(json: &Value, mode: Mode) {
    let has = |names: &[&str]| names.iter().all(|name| json.get(name).is_some());
    let common = ["id", "date", "message_type", "name", "otid", "sender_id", "step_id", "is_err", "seq_id", "run_id"];
    assert!(has(&common) && json["id"].is_string() && json["date"].is_string(), "a common field lacks: {json}");
    let kind = text(json, "message_type");
    assert_eq!(json["step_id"].is_string(), kind != "ping", "{json}");
    match kind {
        "ping" => assert!(json["otid"].is_null(), "{json}"),
        "assistant_message" => assert!(json["content"].as_str().is_some_and(|new| !new.is_empty()), "{json}"),
        "reasoning_message" => {
            assert!(json["reasoning"].as_str().is_some_and(|new| !new.is_empty()) && has(&["signature"]), "{json}");
            assert!(["reasoner_model", "non_reasoner_model"].contains(&text(json, "source")), "{json}");
        }
        "hidden_reasoning_message" => {
            let is_told = json["hidden_reasoning"].is_string();
            assert_eq!(text(json, "state"), if is_told { "redacted" } else { "omitted" }, "{json}");
        }
        "tool_call_message" | "approval_request_message" => assert_calls(json, mode),
        "tool_return_message" => {
            let first = &json["tool_returns"][0];
            assert!(json["tool_return"].is_string() && has(&["stdout", "stderr"]), "{json}");
            for name in ["status", "tool_call_id", "stdout", "stderr"] {
                assert_eq!(json[name], first[name], "the first result is not repeated: {json}");
            }
            assert!(json["name"].is_string(), "{json}");
        }
        _ => {}
    }
}

fn assert_calls(json: &Value, mode: Mode) {
    let first = &json["tool_call"];
    assert!(first["tool_call_id"].is_string(), "the call's id is on every frame: {json}");
    match mode {
        Mode::Tokens => assert_eq!(&json["tool_calls"], first, "a delta is no list: {json}"),
        Mode::Steps => {
            assert_eq!(&json["tool_calls"][0], first, "{json}");
            let calls = json["tool_calls"].as_array().expect("a list");
            let is_whole = |call: &Value| call["name"].is_string() && call["arguments"].is_string();
            assert!(calls.iter().all(is_whole), "{json}");
        }
    }
}

fn assert_slices(slices: &[Slice], mode: Mode) {
    let mut seen = BTreeSet::new();
    let mut steps = BTreeMap::new();
    for slice in slices {
        let is_new = seen.insert((&slice.kind, &slice.otid));
        // Deltas of gated and free calls may alternate, as the model makes them.
        let may_come_back = mode == Mode::Tokens && !slice.calls.is_empty();
        assert!(is_new || may_come_back, "a slice went on after another had begun: {slice:?}");
        assert!(slice.id.starts_with("message-") || slice.kind == "event_message", "{slice:?}");
        let step = steps.entry(&slice.id).or_insert(&slice.step);
        assert_eq!(*step, &slice.step, "a message in two steps: {slice:?}");
        let mut ids: Vec<_> = slice.calls.iter().map(|call| &call.id).collect();
        ids.sort();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{slice:?}");
        assert!(slice.calls.iter().all(|call| !call.name.is_empty()), "a call without a name: {slice:?}");
    }
}

fn assert_steps(slices: &[Slice], mode: Mode) {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    // A compaction is shown before the answer that it makes room for, or after a step.
    let compactions = ["event_message", "summary_message"];
    let slices: Vec<_> = slices.iter().filter(|slice| !compactions.contains(&slice.kind.as_str())).collect();
    for of_step in slices.chunk_by(|one, other| one.step == other.step) {
        assert!(done.insert(&of_step[0].step), "a step went on after another had begun: {}", of_step[0].step);
        let of = |kind: &str| of_step.iter().filter(|slice| slice.kind == kind).collect::<Vec<_>>();
        let (calls, asked, results) =
            (of("tool_call_message"), of("approval_request_message"), of("tool_return_message"));
        assert!(results.len() <= 1, "results come once: {results:?}");
        let answer_ids: BTreeSet<_> =
            of_step.iter().filter(|slice| slice.returns.is_empty()).map(|slice| &slice.id).collect();
        // Text belongs to the request of calls that wait, unless it was shown before these were known.
        let may_be_two = !asked.is_empty() && (!calls.is_empty() || mode == Mode::Tokens);
        let messages = if may_be_two { 2 } else { 1 };
        assert!(answer_ids.len() <= messages, "an answer is one message: {of_step:#?}");
        let Some(results) = results.first() else { continue };
        assert!(!answer_ids.contains(&results.id), "results are a message of their own: {results:?}");
        assert_eq!(of_step.last().map(|slice| &slice.kind), Some(&results.kind), "results end a step");
        if let ([calls], []) = (calls.as_slice(), asked.as_slice()) {
            let called: Vec<_> = calls.calls.iter().map(|call| call.id.as_str()).collect();
            let answered: Vec<_> = results.returns.iter().map(|one| text(one, "tool_call_id")).collect();
            assert_eq!(answered, called, "each call has its result, in the order of the calls");
        }
    }
}

/// The checkers must be able to fail.
mod checkers {
    use super::{Frame, Mode, Value, assert_related, json, notation};

    /// A stream of a step with a call, and its answer.
    fn stream() -> Vec<Value> {
        let message = |seq: u32, kind: &str, id: &str, otid: &str, own: Value| {
            let mut json = json!({
                "id": id, "date": "2026-01-15T10:00:00+00:00", "name": null, "message_type": kind, "otid": otid,
                "sender_id": null, "step_id": "step-1", "is_err": null, "seq_id": seq, "run_id": "run-1",
            });
            json.as_object_mut().expect("an object").extend(own.as_object().expect("an object").clone());
            json
        };
        let delta = |arguments: &str| {
            let call = json!({"name": "look", "arguments": arguments, "tool_call_id": "call_1"});
            json!({"tool_call": call, "tool_calls": call})
        };
        let result = json!({
            "type": "tool", "tool_return": "x", "status": "success", "tool_call_id": "call_1", "stdout": null,
            "stderr": null,
        });
        let mut returned = result.clone();
        returned["tool_returns"] = json!([result]);
        returned["name"] = json!("look");
        returned.as_object_mut().expect("an object").remove("type");
        let mut said = message(6, "assistant_message", "message-3", "d", json!({"content": "Seen."}));
        said["step_id"] = json!("step-2");
        let mut ping = message(1, "ping", "ping-1", "", json!({"otid": null}));
        ping["step_id"] = Value::Null;
        vec![
            ping,
            message(2, "assistant_message", "message-1", "a", json!({"content": "Let me look."})),
            message(3, "tool_call_message", "message-1", "b", delta("{")),
            message(4, "tool_call_message", "message-1", "b", delta("}")),
            message(5, "tool_return_message", "message-2", "c", returned),
            said,
            json!({"message_type": "stop_reason", "stop_reason": "end_turn"}),
            json!({
                "message_type": "usage_statistics", "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
                "step_count": 2, "run_ids": ["run-1"],
            }),
        ]
    }

    fn frames(payloads: &[Value]) -> Vec<Frame> {
        let payloads = payloads.iter().map(ToString::to_string).chain(["[DONE]".to_owned()]);
        payloads.map(|payload| Frame { raw: format!("data: {payload}\n\n") }).collect()
    }

    #[test]
    fn a_good_stream_passes() {
        let good = frames(&stream());
        assert_related(&good, Mode::Tokens);
        assert_eq!(notation(&good), "P A C T A S:end_turn U");
    }

    #[test]
    fn every_broken_relation_is_found() {
        let breaks: [(&str, usize, &str, Value); 14] = [
            ("a field lacks", 1, "sender_id", json!("remove")),
            ("an empty delta", 1, "content", json!("")),
            ("a message without a step", 1, "step_id", Value::Null),
            ("a message in two steps", 1, "step_id", json!("step-2")),
            ("a delta without its id", 3, "/tool_call/tool_call_id", Value::Null),
            ("a delta that is a list", 3, "tool_calls", json!([])),
            ("an answer of two messages", 2, "id", json!("message-9")),
            ("results in the answer's message", 4, "id", json!("message-1")),
            ("a result of no call", 4, "/tool_returns/0/tool_call_id", json!("call_2")),
            ("a result that is not repeated", 4, "status", json!("error")),
            ("a step that goes on later", 5, "step_id", json!("step-1")),
            ("a sum that is none", 7, "total_tokens", json!(8)),
            ("usage of another run", 7, "run_ids", json!(["run-2"])),
            ("a slice that comes back", 5, "otid", json!("a")),
        ];
        for (what, place, field, value) in breaks {
            let mut broken = stream();
            let frame = &mut broken[place];
            match frame.pointer_mut(field) {
                Some(inner) => *inner = value,
                None if value == "remove" => drop(frame.as_object_mut().expect("an object").remove(field)),
                None => frame[field] = value,
            }
            let broken = frames(&broken);
            assert!(std::panic::catch_unwind(|| assert_related(&broken, Mode::Tokens)).is_err(), "{what} passes");
        }
        let good = frames(&stream());
        assert!(
            std::panic::catch_unwind(|| assert_related(&good, Mode::Steps)).is_err(),
            "deltas pass for whole calls"
        );
    }
}
