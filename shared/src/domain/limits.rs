//! Every limit that is not a setting, in one place. Settings have their defaults in `config`.

use std::time::Duration;

/// Most bytes of event frames in one append, and in one stored segment.
pub const APPEND_BATCH_BYTES: usize = 256 * 1024;
/// Most events in one append.
pub const APPEND_BATCH_EVENTS: usize = 512;
/// Encoded events that a writer may hold before it stops reading from the model.
pub const WRITER_QUEUE_EVENTS: usize = 1024;
/// Bytes of events not yet archived that a writer holds; beyond it they are archived in mid-step.
pub const UNARCHIVED_BYTES: usize = 1024 * 1024;
/// Batches that a reader may fall behind the live tail before it is served from the log.
pub const LIVE_BATCHES: usize = 32;
/// Bytes that one read of the log or the archive may return.
pub const READ_BYTES: usize = 512 * 1024;
/// Events that one read of the log may return.
pub const READ_EVENTS: usize = 2048;
/// Most characters of a failed tool's error text (api/05 §5).
pub const TOOL_ERROR_CHARS: usize = 1000;
/// Most characters of a tool's result before it is cut (api/04 §2, `return_char_limit`).
pub const TOOL_RETURN_CHARS: usize = 50_000;
/// Most bytes of a Python tool's source. A request waits while it is parsed, and hostile text parses slowly.
pub const PYTHON_SOURCE_BYTES: usize = 128 * 1024;
/// Most bytes of the files that a Python tool writes.
pub const PYTHON_FILES_BYTES: u64 = 64 * 1024 * 1024;
/// Most threads of a Python tool, where the kernel counts them for the sandbox alone.
pub const PYTHON_THREADS: u64 = 128;
/// Most files and the like that a Python tool may have open.
pub const PYTHON_OPEN_FILES: u64 = 256;
/// Most lines that are kept of what a Python tool prints, of standard output and standard error each.
pub const PRINTED_LINES: usize = 10_000;
/// Most bytes of an exception's text and of its trace, each.
pub const PYTHON_TRACE_BYTES: usize = 16 * 1024;
/// Default limit of a memory block in characters (api/04 §1.2).
pub const BLOCK_CHARS: u64 = 100_000;
/// Most characters of the label of a memory block: it is a tag in the prompt, and a key in the databases.
pub const BLOCK_LABEL_CHARS: usize = 256;
/// Bytes of the answer of an HTTP tool that are read; a result of a million characters fits.
pub const HTTP_TOOL_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes of an image in the result of a tool.
pub const TOOL_IMAGE_BYTES: usize = 10 * 1024 * 1024;
/// Longest name of an MCP server, as the names of its tools begin with it.
pub const MCP_SERVER_NAME_CHARS: usize = 32;
/// Most time of a call of an MCP tool where the operator does not say (api/05 §5).
pub const MCP_CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Most time until an MCP server is ready, and until it has listed its tools.
pub const MCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before the first new try to reach an MCP server; it doubles each time.
pub const MCP_RETRY_MIN: Duration = Duration::from_millis(200);
/// Longest pause between two tries to reach an MCP server.
pub const MCP_RETRY_MAX: Duration = Duration::from_secs(60);
/// Most tools of one MCP server; more are left out.
pub const MCP_TOOLS: usize = 256;
/// Most pages of one list of tools.
pub const MCP_PAGES: usize = 64;
/// Most bytes of the schema of an MCP tool; one with more is left out.
pub const MCP_SCHEMA_BYTES: usize = 64 * 1024;
/// Characters of the description of an MCP tool that are kept.
pub const MCP_DESCRIPTION_CHARS: usize = 8000;
/// Notices of progress of one call that wait to be passed on.
pub const MCP_PROGRESS_QUEUE: usize = 64;
/// Most images that one request names by their URLs.
pub const IMAGE_URLS: usize = 32;
/// Images of one request that are fetched at the same time.
pub const IMAGE_FETCHES: usize = 8;
/// Longest `callback_url`.
pub const CALLBACK_URL_BYTES: usize = 2048;
/// Shortest key that signs callbacks.
pub const CALLBACK_SECRET_BYTES: usize = 16;
/// Most time of a try of a callback (api/03 §7).
pub const CALLBACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a callback is left to the worker that took it; then another one takes it.
pub const CALLBACK_TAKEN: Duration = Duration::from_secs(10);
/// Pause after the first failed try of a callback; it grows fourfold each time.
pub const CALLBACK_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two tries of a callback.
pub const CALLBACK_PAUSE_MAX: Duration = Duration::from_secs(60 * 60);
/// Callbacks that one worker sends at the same time.
pub const CALLBACKS: usize = 32;
/// Callbacks that one worker sends to one receiver at the same time, so that a slow one does not hold up others.
pub const CALLBACKS_TO_ONE: usize = 4;
/// Most different words of a search.
pub const SEARCH_WORDS: usize = 32;
/// Most tags that a client puts on a step.
pub const STEP_TAGS: usize = 64;
/// Steps of a run that does not say (api/01 §1).
pub const DEFAULT_MAX_STEPS: u32 = 50;
/// The longest that a delivery is held; brokers take it away after 30 minutes by default.
pub const DELIVERY_HELD: Duration = Duration::from_secs(20 * 60);

const _: () = assert!(APPEND_BATCH_BYTES <= READ_BYTES, "one read returns at least one batch");
const _: () = assert!(UNARCHIVED_BYTES >= 2 * APPEND_BATCH_BYTES, "a full batch fits twice before an archive write");
const _: () = assert!(CALLBACK_TAKEN.as_secs() >= 2 * CALLBACK_TIMEOUT.as_secs(), "nobody takes what is being sent");
const _: () = assert!(CALLBACKS > CALLBACKS_TO_ONE, "there is room beside one receiver");
