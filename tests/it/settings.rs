//! The command line and the settings: help for people, and refusals that name what to change.

use super::harness::{Process, command, directory, run_to_end, settings};

fn refusal(arguments: &[&str], given: &[(&'static str, &str)]) -> String {
    let settings = given.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let output = run_to_end(arguments, &settings);
    assert!(!output.status.success(), "{arguments:?} with {given:?} was accepted");
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn every_subcommand_has_help() {
    let none = settings([]);
    let all = run_to_end(&["--help"], &none);
    assert!(all.status.success());
    let all = String::from_utf8(all.stdout).expect("UTF-8");
    for subcommand in ["dev", "api", "worker", "migrate"] {
        assert!(all.contains(subcommand), "{subcommand} is not in {all}");
        let help = run_to_end(&[subcommand, "--help"], &none);
        assert!(help.status.success());
        let help = String::from_utf8(help.stdout).expect("UTF-8");
        assert!(help.lines().count() > 5 && help.contains("--config"), "{subcommand}: {help}");
        let named = ["HOLDFAST_MCP_CONFIG", "HOLDFAST_PYTHON", "HOLDFAST_OUTBOUND_ALLOW"];
        assert!(subcommand == "migrate" || named.iter().all(|name| help.contains(name)), "{subcommand}: {help}");
    }
    let help = run_to_end(&["dev", "--help"], &none);
    let help = String::from_utf8(help.stdout).expect("UTF-8");
    for option in ["--listen", "--data-dir", "--throw-away", "HOLDFAST_LISTEN", "HOLDFAST_DATA_DIR"] {
        assert!(help.contains(option), "{option} is not in {help}");
    }
}

#[test]
fn the_distributed_parts_name_the_settings_that_they_lack() {
    for subcommand in ["api", "worker"] {
        let said = refusal(&[subcommand], &[]);
        for missing in ["DATABASE_URL", "AMQP_URL", "REDIS_URL"] {
            assert!(said.contains(missing), "{subcommand} does not name {missing}: {said}");
        }
    }
    assert!(refusal(&["migrate"], &[]).contains("DATABASE_URL"));
}

#[test]
fn a_bad_setting_is_named() {
    let data = directory();
    let home = data.path().display().to_string();
    for (name, value) in [
        ("HOLDFAST_LISTEN", "nonsense"),
        ("HOLDFAST_WORKER_CONCURRENCY", "0"),
        ("HOLDFAST_WORKER_CONCURRENCY", "many"),
        ("HOLDFAST_LEASE_MS", "-1"),
        ("HOLDFAST_LOG_FORMAT", "xml"),
        ("HOLDFAST_DEFAULT_MODEL", "no-slash"),
        ("HOLDFAST_OPENAI_API", "both"),
        ("HOLDFAST_OPENAI_REASONING_SUMMARY", "much"),
        ("HOLDFAST_OPENAI_COMPATIBLE", "local=here"),
        ("OPENAI_BASE_URL", "localhost"),
        ("ANTHROPIC_BASE_URL", "localhost"),
        ("GEMINI_BASE_URL", "ftp://localhost/"),
        ("HOLDFAST_CORS_ORIGINS", "app.example"),
        ("HOLDFAST_MAX_BODY_BYTES", "big"),
        ("HOLDFAST_IMAGE_MAX_BYTES", "0"),
        ("HOLDFAST_MCP_CONFIG", "/no/such/file.json"),
        ("HOLDFAST_OUTBOUND_ALLOW", "http://127.0.0.1/"),
        ("DATABASE_URL", "mysql://localhost/holdfast"),
        ("AMQP_URL", "http://localhost"),
        ("REDIS_URL", "localhost"),
    ] {
        let said = refusal(&["dev"], &[(name, value), ("HOME", &home)]);
        assert!(said.contains(name), "{name}={value} is refused without its name: {said}");
    }
    let secret = "postgres://holdfast:hunter2@127.0.0.1:notaport/holdfast";
    let said = refusal(&["migrate"], &[("DATABASE_URL", secret)]);
    assert!(said.contains("DATABASE_URL") && !said.contains("hunter2"), "a secret is in {said}");
}

#[test]
fn a_key_that_a_server_of_models_needs_is_named_and_not_shown() {
    let servers = "one=http://127.0.0.1:1/v1|KEY_ONE,two=http://127.0.0.1:1/v1|KEY_TWO";
    let given = [("HOLDFAST_OPENAI_COMPATIBLE", servers), ("KEY_ONE", "sesame-one"), ("HOME", "/nowhere")];
    let said = refusal(&["dev"], &given);
    assert!(said.contains("HOLDFAST_OPENAI_COMPATIBLE") && said.contains("KEY_TWO"), "{said}");
    assert!(!said.contains("KEY_ONE") && !said.contains("sesame"), "{said}");
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let data = directory();
    let home = data.path().display().to_string();
    let given = [("HOLDFAST_LEASE_MS", "400"), ("HOLDFAST_HEARTBEAT_MS", "500"), ("HOME", home.as_str())];
    let said = refusal(&["dev"], &given);
    assert!(said.contains("HOLDFAST_LEASE_MS") && said.contains("HOLDFAST_HEARTBEAT_MS"), "{said}");
}

#[test]
fn a_bad_file_names_the_file_and_the_setting() {
    let data = directory();
    let file = data.path().join("holdfast.toml");
    let path = file.display().to_string();
    let home = data.path().display().to_string();
    for (content, named) in [("lease_ms = \"soon\"\n", "lease_ms"), ("leese_ms = 5000\n", "leese_ms"), ("= =\n", "")] {
        std::fs::write(&file, content).expect("writable");
        let said = refusal(&["dev", "--config", &path], &[("HOME", &home)]);
        let names_setting = said.to_lowercase().contains(named);
        assert!(said.contains("holdfast.toml") && names_setting, "{content:?}: {said}");
    }
    let said = refusal(&["dev"], &[("HOLDFAST_CONFIG", "/no/such/file.toml"), ("HOME", &home)]);
    assert!(said.contains("/no/such/file.toml"), "{said}");
}

#[tokio::test]
async fn the_environment_wins_over_the_file() {
    let data = directory();
    let file = data.path().join("holdfast.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:1\"\nkeepalive_ms = 100\n").expect("writable");
    let home = data.path().display().to_string();
    let path = file.display().to_string();
    let settings = settings([
        ("HOLDFAST_CONFIG", &path),
        ("HOLDFAST_LISTEN", "127.0.0.1:0"),
        ("HOLDFAST_DATA_DIR", &home),
        ("HOME", &home),
    ]);
    let mut process = Process::spawn("holdfast", command(&[], &settings));
    let base = process.said("Holdfast is ready at ").await;
    assert!(base.starts_with("http://127.0.0.1:") && !base.ends_with(":1"), "{base}");
}

#[test]
fn nobody_listens_beyond_loopback_without_keys() {
    let data = directory();
    let home = data.path().display().to_string();
    for address in ["0.0.0.0:0", "[::]:0"] {
        let said = refusal(&["dev", "--listen", address], &[("HOME", &home)]);
        assert!(said.contains("set HOLDFAST_API_KEYS") && said.contains(address), "{address}: {said}");
    }
}

#[test]
fn keys_are_never_shown() {
    let said = refusal(&["dev"], &[("HOLDFAST_API_KEYS", "north=secret-one,north=,=secret-two"), ("HOME", "/nowhere")]);
    assert!(said.contains("HOLDFAST_API_KEYS"), "{said}");
    assert!(!said.contains("secret-one") && !said.contains("secret-two"), "a key is in {said}");
}

#[test]
fn the_readme_lists_every_setting() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    for name in holdfast_shared::config::variables().chain(["HOLDFAST_CONFIG"]) {
        assert!(readme.contains(&format!("`{name}`")), "{name} is not in the README");
    }
}
