//! The archive, steps and memory.

use super::*;

/// See the name.
pub async fn the_archive_has_no_gap_and_is_read_from_any_cursor(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    store.archive(&lease, &plain_events(2..=5)).await.expect("archived");
    store.archive(&lease, &[]).await.expect("nothing to do");
    let gap = store.archive(&lease, &plain_events(7..=8)).await;
    assert!(matches!(gap, Err(StoreError::Corrupt(_))), "{gap:?}");
    store.archive(&lease, &plain_events(4..=7)).await.expect("what is there already is skipped");
    store.archive(&lease, &plain_events(2..=3)).await.expect("all of it is there");
    assert_eq!(scene.run(run).await.archived, SeqId::new(7));
    let mut all = vec![event(1, EventKind::Ping)];
    all.extend(plain_events(2..=7));
    for cursor in 0..=8_usize {
        let read = store.events(run, SeqId::new(cursor as u64)).await.expect("readable");
        assert_eq!(read, all[cursor.min(7)..], "after {cursor}");
    }
    assert_eq!(store.events(new_id(), SeqId::START).await.expect("an answer"), []);
}

/// See the name.
pub async fn a_large_archive_is_read_in_parts(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    let frame = Bytes::from(vec![b'x'; APPEND_BATCH_BYTES / 3]);
    let large = |seq| Event { seq: SeqId::new(seq), kind: EventKind::AssistantMessage, frame: frame.clone() };
    let events: Vec<_> = (2..=20).map(large).collect();
    store.archive(&lease, &events).await.expect("archived");
    let mut read = Vec::new();
    let mut cursor = SeqId::new(1);
    loop {
        let part = store.events(run, cursor).await.expect("readable");
        let Some(last) = part.last() else { break };
        assert!(part.iter().map(|event| event.frame.len()).sum::<usize>() <= READ_BYTES);
        cursor = last.seq;
        read.extend(part);
    }
    assert_eq!(read, events);
    let huge = Event { frame: vec![b'y'; READ_BYTES + 1].into(), ..large(21) };
    store.archive(&lease, std::slice::from_ref(&huge)).await.expect("archived");
    assert_eq!(store.events(run, SeqId::new(20)).await.expect("readable"), [huge], "one event is always returned");
}

/// See the name.
pub async fn a_step_without_an_answer_is_replaced(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let first = scene.claim(run).await.lease;
    let lost = scene.begin(&first, 1).await;
    let heir = scene.take_over(run).await;
    let open = heir.open_step.expect("the step is open");
    assert_eq!((open.id, open.number, open.answer), (lost, 1, None));
    let fresh = scene.begin(&heir.lease, 1).await;
    let steps = store.steps(run, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!(steps.iter().map(|step| (step.id, step.status)).collect::<Vec<_>>(), [(fresh, StepStatus::Pending)]);
    scene.answer(&heir.lease, fresh, &[call("a")]).await;
    let again = NewStep { id: new_id(), number: 1, model: ModelHandle::demo(), started_at: now(), answers: None };
    let refused = store.begin_step(&heir.lease, &again).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "an answer is never thrown away: {refused:?}");
}

/// See the name.
pub async fn recorded_results_survive_a_takeover(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let first = scene.claim(run).await.lease;
    let step = scene.begin(&first, 1).await;
    let calls = [call("a"), call("b"), call("c")];
    let record = AnswerRecord { events: plain_events(2..=4), ..answer_record(scene.agent, run, step, &calls) };
    store.record_answer(&first, &record).await.expect("recorded");
    assert_eq!(scene.run(run).await.archived, SeqId::new(4));
    let results = [ToolReturn::success(&calls[0], "A".to_owned()), ToolReturn::error(&calls[2], "C".to_owned())];
    store.record_return(&first, step, 2, &results[1]).await.expect("recorded");
    store.record_return(&first, step, 0, &results[0]).await.expect("recorded");
    let other = ToolReturn::success(&calls[0], "another".to_owned());
    store.record_return(&first, step, 0, &other).await.expect("the first one counts");

    let heir = scene.take_over(run).await;
    let open = heir.open_step.expect("the step is open");
    let answer = open.answer.expect("the answer is recorded");
    assert_eq!((open.id, answer.message_id, answer.usage), (step, record.message.id, record.usage));
    assert_eq!(answer.answer.calls, calls);
    assert_eq!(answer.returns, results);
    let context = store.context(&heir.lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "hello", "assistant"]);
}

/// See the name.
pub async fn a_memory_edit_is_applied_once(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    scene.answer(&lease, step, &[call("a")]).await;
    let edit = |blocks: &[Block]| {
        let human = blocks.iter().find(|block| block.label == "human").expect("the block");
        let value = format!("{}!", human.value);
        let edited = Block { value: value.clone(), ..human.clone() };
        let added = block("added", "later");
        let kept = blocks.iter().filter(|block| block.id != human.id && block.label != "persona").cloned();
        let blocks = kept.chain([edited, added]).collect();
        EditOutcome { blocks: Some(blocks), tool_return: ToolReturn::success(&call("a"), value) }
    };
    let system = scene.history().await[0].clone();
    let first = store.edit_memory(&lease, step, 0, "a", now(), &edit).await.expect("edited");
    let heir = scene.take_over(run).await.lease;
    let second = store.edit_memory(&heir, step, 0, "a", now(), &edit).await.expect("edited before");
    assert_eq!((first.text.as_str(), &first), ("Unknown.!", &second));
    let blocks = scene.agent().await.blocks;
    let seen: Vec<_> = blocks.iter().map(|block| (block.label.as_str(), block.value.as_str())).collect();
    assert_eq!(seen, [("human", "Unknown.!"), ("added", "later")], "one changed, one new, one gone");
    let context = store.context(&heir).await.expect("readable");
    assert_eq!(context.messages[0].id, system.id);
    assert_eq!(context.messages[0].body, system.body, "the run keeps the prompt that it began with, also at an heir");
    let Body::System(stored) = &scene.history().await[0].body else { panic!("the system message is the first") };
    assert!(stored.text().contains("Unknown.!") && stored.text().contains("- 0 earlier messages"), "{stored:?}");
    scene.settle(&heir).await;
    let next = scene.accept("next").await;
    let next = scene.claim(next).await.lease;
    let context = store.context(&next).await.expect("readable");
    assert!(context.system_text().contains("Unknown.!"), "the next run sees it: {}", context.system_text());
}

/// See the name.
pub async fn a_failed_memory_edit_changes_nothing_but_is_recorded(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    let step = scene.begin(&lease, 1).await;
    scene.answer(&lease, step, &[call("a")]).await;
    let before = scene.agent().await.blocks;
    let edit = |_: &[Block]| EditOutcome { blocks: None, tool_return: ToolReturn::error(&call("a"), "no".to_owned()) };
    let told = store.edit_memory(&lease, step, 0, "a", now(), &edit).await.expect("an answer");
    assert_eq!(told.status, ToolStatus::Error);
    assert_eq!(scene.agent().await.blocks, before);
    let open = scene.take_over(run).await.open_step.expect("the step is open");
    assert_eq!(open.answer.map(|answer| answer.returns), Some(vec![told]));
}

/// See the name.
pub async fn a_committed_step_is_whole_and_resets_the_attempts(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    scene.claim(run).await;
    let second = scene.take_over(run).await;
    assert_eq!(second.attempts, 2);
    let step = scene.begin(&second.lease, 1).await;
    scene.answer(&second.lease, step, &[call("a")]).await;
    let result = ToolReturn::success(&call("a"), "A".to_owned());
    store.record_return(&second.lease, step, 0, &result).await.expect("recorded");
    let tool =
        Message { run_id: Some(run), step_id: Some(step), ..message(scene.agent, Body::ToolReturns(vec![result])) };
    let commit = step_commit(step, vec![tool.clone()], plain_events(2..=3));
    let entries = store.commit_step(&second.lease, &commit, None).await.expect("committed");
    assert_eq!(entries, []);

    let stored = scene.run(run).await;
    assert_eq!((stored.usage, stored.ttft_ns, stored.archived), (commit.run_usage, Some(5), SeqId::new(3)));
    let steps = store.steps(run, &first_page(Order::Ascending)).await.expect("readable");
    assert_eq!((steps[0].id, steps[0].status, steps[0].usage), (step, StepStatus::Success, commit.usage));
    assert_eq!((steps[0].agent_id, steps[0].run_id, steps[0].number), (scene.agent, run, 1));
    assert_eq!((steps[0].timing.llm_request_ns, steps[0].timing.step_ns), (Some(10), Some(20)));
    assert_eq!(store.events(run, SeqId::new(1)).await.expect("readable"), commit.events);

    let third = scene.take_over(run).await;
    assert_eq!((third.attempts, third.steps_done, third.open_step), (1, 1, None));
    let context = store.context(&third.lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "hello", "assistant", "tool"]);
    assert_eq!(context.messages.last(), Some(&tool));
    assert_eq!(context.agent.message_ids.len(), 4);

    let next = scene.begin(&third.lease, 2).await;
    let later = StepCommit { ttft_ns: Some(77), ..step_commit(next, Vec::new(), Vec::new()) };
    store.commit_step(&third.lease, &later, None).await.expect("committed");
    assert_eq!(scene.run(run).await.ttft_ns, Some(5), "the first time counts");
}

/// See the name.
pub async fn writes_may_be_repeated_after_a_lost_confirmation(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let run = scene.accept("hello").await;
    let lease = scene.claim(run).await.lease;
    let new_step = NewStep { id: new_id(), number: 1, model: ModelHandle::demo(), started_at: now(), answers: None };
    let record =
        AnswerRecord { events: plain_events(2..=3), ..answer_record(scene.agent, run, new_step.id, &[call("a")]) };
    let result = ToolReturn::success(&call("a"), "A".to_owned());
    let tool = Message {
        run_id: Some(run),
        step_id: Some(new_step.id),
        ..message(scene.agent, Body::ToolReturns(vec![result.clone()]))
    };
    let commit = step_commit(new_step.id, vec![tool], plain_events(4..=5));
    for _ in 0..2 {
        store.begin_step(&lease, &new_step).await.expect("begun");
    }
    for _ in 0..2 {
        store.record_answer(&lease, &record).await.expect("recorded");
    }
    for _ in 0..2 {
        store.record_return(&lease, new_step.id, 0, &result).await.expect("recorded");
    }
    for _ in 0..2 {
        store.commit_step(&lease, &commit, None).await.expect("committed");
    }
    assert_eq!(texts(&scene.history().await), ["system", "hello", "assistant", "tool"]);
    assert_eq!(store.events(run, SeqId::START).await.expect("readable").len(), 5);
    let failed = StepCommit { status: StepStatus::Failed, ..commit };
    let refused = store.commit_step(&lease, &failed, None).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
}

/// See the name.
pub async fn the_input_of_a_run_enters_the_context_with_its_claim(store: SharedStore) {
    let scene = Scene::new(&store).await;
    let first = scene.accept("one").await;
    let lease = scene.claim(first).await.lease;
    let second = scene.accept("two").await;
    let third = scene.accept("three").await;
    assert_eq!(texts(&store.context(&lease).await.expect("readable").messages), ["system", "one"]);
    let step = scene.begin(&lease, 1).await;
    scene.answer(&lease, step, &[]).await;
    store.commit_step(&lease, &step_commit(step, Vec::new(), Vec::new()), None).await.expect("committed");
    scene.settle(&lease).await;
    let lease = scene.claim(second).await.lease;
    let context = store.context(&lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "one", "assistant", "two"]);
    let lease = scene.take_over(second).await.lease;
    assert_eq!(store.context(&lease).await.expect("readable"), context, "a takeover brings nothing in again");
    scene.settle(&lease).await;
    let lease = scene.claim(third).await.lease;
    let context = store.context(&lease).await.expect("readable");
    assert_eq!(texts(&context.messages), ["system", "one", "assistant", "two", "three"]);
    assert_eq!(scene.history().await, context.messages);
}

/// See the name.
pub async fn an_agent_that_clears_its_context_starts_each_run_empty(store: SharedStore) {
    let settings = AgentSettings { message_buffer_autoclear: true, ..default_settings() };
    let scene = Scene::with_settings(&store, settings).await;
    for text in ["one", "two"] {
        let run = scene.accept(text).await;
        let lease = scene.claim(run).await.lease;
        let context = store.context(&lease).await.expect("readable");
        assert_eq!(texts(&context.messages), ["system", text]);
        let lease = scene.take_over(run).await.lease;
        assert_eq!(store.context(&lease).await.expect("readable"), context);
        scene.settle(&lease).await;
    }
    assert_eq!(texts(&scene.history().await), ["system", "one", "two"]);
}
