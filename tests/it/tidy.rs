//! House rules that no compiler holds: the direction of imports, words that are not used, files that stay readable.
//! The checks are functions of a path and a text, so that they are tested on samples that break the rules.

use std::path::{Path, PathBuf};

/// Most lines of a source file.
const MOST_LINES: usize = 1000;

/// Modules of `shared` and what they must not import: `domain ← wire ← ports ← store, backends`.
const LAYERS: [(&str, &[&str]); 5] = [
    ("domain", &["wire", "ports", "store", "backends", "config", "models", "relay", "telemetry", "testkit"]),
    ("wire", &["ports", "store", "backends", "config", "models", "relay", "telemetry", "testkit"]),
    ("ports", &["store", "backends", "config", "relay", "telemetry", "testkit"]),
    ("store", &["backends", "relay"]),
    ("backends", &["store", "relay"]),
];

/// Crates and the crates of this workspace that they must not know.
const CRATES: [(&str, &[&str]); 3] = [
    ("api", &["holdfast_worker", "holdfast"]),
    ("worker", &["holdfast_api", "holdfast"]),
    ("shared", &["holdfast_api", "holdfast_worker", "holdfast"]),
];

/// What the domain does not do: I/O, reading a clock, drawing random numbers.
const NOT_IN_DOMAIN: [&str; 7] = ["tokio::", "std::fs", "std::net", "std::env", "Instant::now", "new_v4", "rand::"];

/// Where the wall clock comes in, and nowhere else; tests may do as they like.
const SEAMS: &str = "shared/src/ports/seams.rs";
const ONLY_IN_SEAMS: [&str; 2] = ["Utc::now(", "SystemTime::now("];

/// Words that are nowhere, with the reason.
const BANNED: [(&str, &str); 3] = [
    (concat!("unbounded", "_channel"), "every queue has a limit"),
    (concat!("mpsc::", "unbounded", "("), "every queue has a limit"),
    (concat!("#[", "ignore"), "a test that does not run says nothing: assert what is, and say that it is wrong"),
];

/// What is wrong with a source file, one sentence each.
fn faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if text.lines().count() > MOST_LINES {
        faults.push(format!("{path} has more than {MOST_LINES} lines: look for the seam"));
    }
    let code = without_comments(text);
    for (word, reason) in BANNED {
        if code.contains(word) {
            faults.push(format!("{path} uses `{word}`: {reason}"));
        }
    }
    let product = code.split("#[cfg(test)]").next().unwrap_or_default();
    if path != SEAMS && path.contains("/src/") && !path.contains("/testkit/") {
        let used = ONLY_IN_SEAMS.iter().filter(|word| product.contains(*word));
        faults.extend(used.map(|word| format!("{path} uses `{word}`: ask `Seams`, which tests control")));
    }
    for (member, strangers) in CRATES {
        if path.starts_with(&format!("{member}/")) {
            let known = strangers.iter().filter(|stranger| imports(&code, stranger));
            faults.extend(known.map(|stranger| format!("{path} imports {stranger}: {member} must not know it")));
        }
    }
    let Some(module) = path.strip_prefix("shared/src/") else { return faults };
    for (layer, strangers) in LAYERS {
        if module.starts_with(&format!("{layer}/")) || module == format!("{layer}.rs") {
            let used = used_layers(module, &code);
            let wrong = used.iter().filter(|used| strangers.contains(&used.as_str()));
            faults.extend(wrong.map(|used| format!("{path} imports {used}: {layer} comes before it")));
        }
    }
    if module.starts_with("domain/") {
        let done = NOT_IN_DOMAIN.iter().filter(|word| code.contains(*word));
        faults.extend(done.map(|word| format!("{path} uses `{word}`: the domain takes such things as arguments")));
    }
    faults
}

/// What is wrong with a member's manifest.
fn manifest_faults(member: &str, text: &str) -> Vec<String> {
    let Some((_, strangers)) = CRATES.iter().find(|(name, _)| *name == member) else { return Vec::new() };
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.split(['.', ' ', '=']).next());
    let known = names.filter(|name| strangers.contains(&name.replace('-', "_").as_str()));
    known.map(|name| format!("{member}/Cargo.toml depends on {name}: {member} must not know it")).collect()
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether code names a crate, as a path's first part.
fn imports(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|before| !before.is_alphanumeric() && before != '_' && before != ':')
    })
}

/// The modules at the root of the crate that a module's code names, by `crate::` or by enough `super::`.
fn used_layers(module: &str, code: &str) -> Vec<String> {
    let name = module.trim_end_matches(".rs").trim_end_matches("/mod");
    let to_root = "super::".repeat(name.split('/').count());
    let mut used = Vec::new();
    for root in ["crate::", to_root.as_str()] {
        for (at, _) in code.match_indices(root) {
            // A module written inside the file needs one `super::` more.
            used.extend(first_names(code[at + root.len()..].trim_start_matches("super::")));
        }
    }
    used
}

/// `wire` of `wire::sse`, and `wire` and `ports` of `{wire::sse, ports}`.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else { return vec![identifier(path)] };
    let (mut depth, mut starts) = (0, vec![0]);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    starts.into_iter().map(|at| identifier(group[at..].trim_start())).collect()
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("a readable directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn sources_keep_the_house_rules() {
    let mut files = Vec::new();
    for directory in ["src", "api", "worker", "shared", "tests"] {
        sources(&root().join(directory), &mut files);
    }
    assert!(files.len() > 30, "only {} files found", files.len());
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let path = file.strip_prefix(root()).expect("inside").to_string_lossy().replace('\\', "/");
        found.extend(faults(&path, &text));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn manifests_keep_the_direction() {
    let mut found = Vec::new();
    for (member, _) in CRATES {
        let text = std::fs::read_to_string(root().join(member).join("Cargo.toml")).expect("readable");
        found.extend(manifest_faults(member, &text));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_checker_finds_what_breaks_the_rules() {
    for (path, text) in [
        ("shared/src/domain/run.rs", "use crate::wire::sse;"),
        ("shared/src/domain/run.rs", "use crate::{domain::ids, ports::{store, seams}};"),
        ("shared/src/domain/run.rs", "use super::super::wire::sse;"),
        ("shared/src/domain/run.rs", "let now = std::time::Instant::now();"),
        ("worker/src/claim.rs", "let now = chrono::Utc::now();"),
        ("shared/src/wire/event.rs", "fn f(store: &dyn crate::ports::store::Store) {}"),
        ("shared/src/ports/store.rs", "use crate::store::runs;"),
        ("shared/src/store/mod.rs", "use crate::backends::redis;"),
        ("shared/src/store/sqlite/runs.rs", "use super::super::super::backends::embedded;"),
        ("shared/src/backends/redis/keys.rs", "use crate::store::runs;"),
        ("api/src/lib.rs", "use holdfast_worker::claim;"),
        ("worker/src/lib.rs", "let x = holdfast_api::build();"),
        ("shared/src/lib.rs", "pub use holdfast_api as api; use holdfast_api::x;"),
        ("worker/src/lib.rs", concat!("let (a, b) = futures::channel::mpsc::", "unbounded();")),
        ("tests/it/x.rs", concat!("#[", "ignore = \"slow\"]")),
        ("src/main.rs", &"\n".repeat(MOST_LINES + 1)),
    ] {
        assert_eq!(faults(path, text).len(), 1, "{path}: {text:.60}: {:?}", faults(path, text));
    }
    assert_eq!(manifest_faults("api", "[dependencies]\nholdfast-worker.workspace = true").len(), 1);
    assert_eq!(manifest_faults("worker", "[dependencies]\nholdfast-api = { path = \"../api\" }").len(), 1);
}

#[test]
fn the_checker_leaves_good_code_alone() {
    for (path, text) in [
        ("shared/src/ports/event_log.rs", "use crate::domain::ids::RunId; use crate::wire::sse; use super::store::X;"),
        ("shared/src/store/mod.rs", "use crate::ports::store::Store; mod runs;"),
        ("shared/src/domain/run.rs", "//! See crate::wire and tokio::time.\nuse super::ids::RunId;"),
        ("api/src/lib.rs", "use holdfast_shared::wire;"),
        ("worker/src/claim.rs", "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { chrono::Utc::now(); } }"),
        ("shared/src/ports/seams.rs", "chrono::Utc::now()"),
        ("src/main.rs", "use holdfast_api::x; use holdfast_worker::y;"),
    ] {
        assert!(faults(path, text).is_empty(), "{path}: {:?}", faults(path, text));
    }
    let own = "[package]\nname = \"holdfast-api\"\n[dependencies]\nholdfast-shared.workspace = true";
    assert!(manifest_faults("api", own).is_empty());
}
