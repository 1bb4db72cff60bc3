//! Any cursor of any run resumes to exactly the rest, byte for byte: in both stream modes and both ways to run the program,
//! while the run is going on and after it, with filters, with and without pings, in whatever way the cursor is named.
//! Cases are drawn; a failure tells the seed, and HOLDFAST_TEST_SEED draws the same cases again.

use std::time::{SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use serde_json::{Value, json};

use super::client::{Client, Frame, assert_same_bytes, assert_whole, stored};
use super::harness::{Cluster, Dev, directory, settings};

/// Agents that run at the same time.
const AGENTS: u64 = 6;
/// Runs of each agent, one after the other.
const RUNS: u64 = 4;
/// Readers of each run while it is going on, and after it.
const READERS: u64 = 6;
/// Beyond the last number of every run here.
const BEYOND: u64 = 60;

const DIRECTIVES: [&str; 7] = [
    "hello",
    "[[demo tokens=40 delay_ms=4]]",
    "[[demo tokens=12 delay_ms=15]]",
    r#"[[demo tool=memory_insert {"label":"human","new_string":"She likes fjords."}]]"#,
    r#"[[demo tool=memory_insert {"label":"human","new_string":"A."} tool=memory_insert {"label":"human","new_string":"B."}]]"#,
    r#"[[demo tool=memory_replace {"label":"human","old_string":"no such text","new_string":"x"}]]"#,
    "[[demo error=500]]",
];

/// Draws numbers (splitmix64).
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.draw() % end
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).expect("small")]
    }

    /// A generator of its own for somebody who draws at the same time.
    fn branch(&mut self) -> Self {
        Self(self.draw())
    }
}

fn request(random: &mut Random) -> Value {
    let filters = [
        Value::Null,
        Value::Null,
        json!(["assistant_message"]),
        json!(["tool_call_message", "tool_return_message"]),
        json!(["reasoning_message"]),
        json!([]),
    ];
    json!({
        "input": random.one_of(&DIRECTIVES),
        "background": true,
        "stream_tokens": random.flip(),
        "include_pings": random.flip(),
        "include_return_message_types": random.one_of(&filters),
    })
}

/// Reads after a cursor, which is named in one of the ways there are.
async fn read(client: &Client, run: &str, cursor: i64, random: &mut Random) -> Vec<Frame> {
    let (path, pings) = (format!("/v1/runs/{run}/stream"), random.flip());
    let stream = match random.below(4) {
        0 => client.stream_get(&format!("{path}?starting_after={cursor}&include_pings={pings}"), &[]).await,
        1 if cursor >= 0 => client.stream_get(&path, &[("last-event-id", &cursor.to_string())]).await,
        _ => client.stream_post(&path, &json!({"starting_after": cursor, "include_pings": pings})).await,
    };
    stream.read_to_end().await
}

/// What a reader after a cursor must get: what is numbered higher, and the end.
fn rest(whole: &[Frame], cursor: i64) -> Vec<Frame> {
    let end = whole.iter().position(|frame| frame.kind() == "stop_reason").expect("an end");
    let is_after = |frame: &Frame| frame.seq_id().is_some_and(|seq| i64::try_from(seq).expect("small") > cursor);
    whole[..end].iter().filter(|frame| is_after(frame)).chain(&whole[end..]).cloned().collect()
}

/// The frames without keepalives: pings that are not the run's own.
fn without_keepalives(frames: &[Frame], whole: &[Frame]) -> Vec<Frame> {
    frames.iter().filter(|frame| frame.kind() != "ping" || whole.contains(frame)).cloned().collect()
}

async fn check(clients: &[Client], agent: &str, mut random: Random) -> u64 {
    let body = request(&mut random);
    let mut stream = random.one_of(clients).send(agent, &body).await;
    let listed = random.one_of(clients).get(&format!("/v1/runs/?agent_id={agent}&limit=1")).await.ok();
    let run = listed[0]["id"].as_str().expect("a run").to_owned();
    for _ in 0..random.below(6) {
        let _frame_or_end = stream.next().await;
    }
    let live: Vec<_> = (0..READERS).map(|_| random.branch()).collect();
    let live = live.into_iter().map(|mut random| {
        let run = &run;
        async move {
            let cursor = i64::try_from(random.below(BEYOND)).expect("small") - 1;
            let client = random.one_of(clients);
            (cursor, read(client, run, cursor, &mut random).await)
        }
    });
    let (whole, live) = tokio::join!(stream.read_to_end(), join_all(live));
    let whole = stored(&whole);
    let last = whole.iter().filter_map(Frame::seq_id).max().unwrap_or_default();
    assert!(last < BEYOND, "a run has more frames than the test draws cursors for");
    if body["include_return_message_types"].is_null() {
        assert_whole(&whole, 0);
    }
    let is_right = |cursor: i64, frames: &[Frame]| {
        let found = without_keepalives(frames, &whole);
        let wanted = rest(&whole, cursor);
        assert_same_bytes(&found, &wanted);
    };
    for (cursor, frames) in &live {
        is_right(*cursor, frames);
    }
    let last = i64::try_from(last).expect("small");
    let drawn = (0..READERS).map(|_| i64::try_from(random.below(BEYOND)).expect("small")).collect::<Vec<_>>();
    let ends = [-1, 0, last - 1, last, last + 1, i64::MAX];
    for cursor in drawn.into_iter().chain(ends) {
        let client = random.one_of(clients);
        is_right(cursor, &read(client, &run, cursor, &mut random).await);
    }
    2 * READERS + ends.len() as u64
}

/// Draws runs and cursors for a server or several.
async fn check_all(clients: &[Client]) {
    let given =
        std::env::var("HOLDFAST_TEST_SEED").ok().map(|seed| seed.parse().expect("HOLDFAST_TEST_SEED is a number"));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
    let seed = given.unwrap_or_else(now);
    eprintln!("HOLDFAST_TEST_SEED={seed}");
    let mut random = Random(seed);
    let agents = (0..AGENTS).map(|_| random.branch()).collect::<Vec<_>>();
    let checked = join_all(agents.into_iter().map(|mut random| async move {
        let body = json!({
            "name": "cursors", "model_settings": {"parallel_tool_calls": true},
            "memory_blocks": [{"label": "human", "value": "The human's name is Ada."}],
        });
        let agent = clients[0].post("/v1/agents/", &body).await.ok()["id"].as_str().expect("an id").to_owned();
        let mut cases = 0;
        for _ in 0..RUNS {
            cases += check(clients, &agent, random.branch()).await;
        }
        cases
    }));
    let cases: u64 = checked.await.into_iter().sum();
    assert!(cases >= 400, "only {cases} cases");
}

#[tokio::test]
async fn any_cursor_resumes_to_exactly_the_rest_in_one_process() {
    let data = directory();
    let dev = Dev::start_with(data.path(), settings([("HOLDFAST_KEEPALIVE_MS", "20")])).await;
    check_all(std::slice::from_ref(&dev.client)).await;
}

#[tokio::test]
async fn any_cursor_resumes_to_exactly_the_rest_in_a_cluster() {
    let cluster = Cluster::start_with(2, 2, settings([("HOLDFAST_KEEPALIVE_MS", "20")])).await;
    check_all(&[cluster.client(0), cluster.client(1)]).await;
}
