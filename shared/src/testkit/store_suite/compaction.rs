//! Compactions.

use super::*;

/// See the name.
pub async fn a_compaction_puts_a_summary_before_what_stays(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("one").await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    let said = |text: &str| user(scene.agent, text);
    let messages = vec![said("two"), said("three"), said("four")];
    store.commit_step(&lease, &step_commit(step, messages, plain_events(2..=3)), None).await.expect("committed");
    let waiting = scene.accept("waits").await;
    let before = store.context(&lease).await.expect("readable").messages;
    assert_eq!(texts(&before), ["system", "one", "two", "three", "four"]);

    let stats = CompactionStats {
        trigger: CompactionTrigger::PostStepContextCheck,
        context_tokens_before: Some(100),
        context_tokens_after: Some(40),
        context_window: 110,
        messages_count_before: 5,
        messages_count_after: 4,
    };
    let summary = message(scene.agent, Body::Summary(Summary { text: "in short".to_owned(), stats }));
    let compaction = Compaction {
        summary: Message { run_id: Some(run), step_id: Some(step), ..summary },
        dropped: before[1..3].iter().map(|message| message.id).collect(),
        at: now(),
        run_usage: RunUsage { context_tokens: Some(40), ..RunUsage::default() },
        events: plain_events(4..=4),
    };
    store.compact(&lease, &compaction).await.expect("compacted");
    store.compact(&lease, &compaction).await.expect("compacted before");
    let after = store.context(&lease).await.expect("readable").messages;
    assert_eq!(texts(&after), ["system", "summary", "three", "four"]);
    assert_eq!(after[0].id, before[0].id);
    assert!(store.context(&lease).await.expect("readable").system_text().contains("- 3 earlier messages"));
    let compacted = scene.run(run).await;
    assert_eq!((compacted.archived, compacted.usage), (SeqId::new(4), compaction.run_usage));
    let history = scene.history().await;
    assert_eq!(texts(&history), ["system", "one", "two", "waits", "summary", "three", "four"]);

    scene.settle(&lease).await;
    let next = scene.claim(waiting).await.lease;
    let context = store.context(&next).await.expect("readable").messages;
    assert_eq!(texts(&context), ["system", "summary", "three", "four", "waits"]);
    let all: Vec<_> = context[1..].iter().map(|message| message.id).collect();
    let again = Compaction {
        summary: Message { id: new_id(), ..compaction.summary.clone() },
        dropped: all,
        at: now(),
        run_usage: RunUsage { context_tokens: Some(40), ..RunUsage::default() },
        events: Vec::new(),
    };
    store.compact(&next, &again).await.expect("compacted");
    assert_eq!(texts(&store.context(&next).await.expect("readable").messages), ["system", "summary"]);
    assert_fenced(store.compact(&lease, &again).await);
}
