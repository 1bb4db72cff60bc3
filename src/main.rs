//! The program: one file for each command, and the wiring that knows both services.

mod api;
mod dev;
mod http;
mod migrate;
mod openapi;
mod sandbox;
mod shutdown;
mod wiring;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use holdfast_shared::config::Settings;
use holdfast_shared::telemetry;

/// Runs AI agents in the background so that their work survives everything: a closed laptop, a dropped connection, a
/// killed worker, a restarted broker. Speaks the Letta agents API.
///
/// Without a command it does what `dev` does.
#[derive(Parser)]
#[command(name = "holdfast", version, after_help = SETTINGS_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Command {
    /// API, worker, store, queue and event log in one process, with its data in a directory: for a first minute and
    /// for a single machine
    ///
    /// Needs no server. Its data survives kill -9; start it again and its runs go on.
    #[command(after_help = SETTINGS_HELP)]
    Dev(dev::Options),
    /// The API service of a distributed installation
    ///
    /// Accepts requests, enqueues runs, fans events out. Any number of them; needs DATABASE_URL, AMQP_URL and
    /// REDIS_URL.
    #[command(after_help = SETTINGS_HELP)]
    Api(api::Options),
    /// A worker of a distributed installation
    ///
    /// Claims runs and executes them. Any number of them; needs DATABASE_URL, AMQP_URL and REDIS_URL. SIGTERM drains
    /// it: runs are handed to other workers at their next step.
    #[command(after_help = SETTINGS_HELP)]
    Worker,
    /// Bring the database of a distributed installation up to date
    ///
    /// Needs DATABASE_URL. Run it before the API and the workers of a new version start; running it again is harmless.
    Migrate,
    /// Write the OpenAPI description of the API to standard output
    ///
    /// A running server has it at /openapi.json, and as a page at /docs.
    Openapi,
    /// What a worker starts to execute a Python tool; of no use to people
    #[command(hide = true)]
    SandboxExec(sandbox::Options),
}

#[derive(Args)]
struct Common {
    /// Settings file (TOML); variables of the environment win over it
    #[arg(long, global = true, env = "HOLDFAST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

const SETTINGS_HELP: &str = "\
Settings come from the environment, or in lower case and without HOLDFAST_ from the settings file. The most used:
  OPENAI_BASE_URL, OPENAI_API_KEY   an OpenAI-compatible server; its models are called openai/NAME
  HOLDFAST_DEFAULT_MODEL            model of agents that name none [default: holdfast/demo]
  HOLDFAST_API_KEYS                 bearer keys: KEY or TENANT=KEY, comma-separated; needed beyond loopback
  DATABASE_URL, AMQP_URL, REDIS_URL Postgres, RabbitMQ and Redis of a distributed installation
  HOLDFAST_MCP_CONFIG               file of MCP servers whose tools agents may have
  HOLDFAST_PYTHON                   interpreter of Python tools, which run in a sandbox [default: python3]
  HOLDFAST_OUTBOUND_ALLOW           what HTTP tools and images may reach besides public addresses
  HOLDFAST_LOG                      which log lines are written [default: info]
  OTEL_EXPORTER_OTLP_ENDPOINT       a collector that traces are sent to by OTLP over HTTP
README.md lists all of them.";

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfast: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let command = cli.command.unwrap_or_else(|| Command::Dev(dev::Options::default()));
    // A sandbox has no settings, and no thread but this one.
    if let Command::SandboxExec(options) = &command {
        return sandbox::run(options);
    }
    if let Command::Openapi = &command {
        return openapi::run().map(|()| ExitCode::SUCCESS);
    }
    // Several crates speak TLS; they all use this provider. A second installation cannot happen here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Settings::load(cli.common.config.as_deref(), &overrides(&command))?;
    let telemetry = telemetry::start(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = match command {
        Command::Dev(options) => runtime.block_on(dev::run(&settings, &options)),
        Command::Api(_) => runtime.block_on(api::run(&settings)),
        Command::Worker => runtime.block_on(worker::run(&settings)),
        Command::Migrate => runtime.block_on(migrate::run(&settings)),
        Command::SandboxExec(options) => return sandbox::run(&options),
        Command::Openapi => openapi::run(),
    };
    telemetry.stop();
    result.map(|()| ExitCode::SUCCESS)
}

/// What the command line says about settings.
fn overrides(command: &Command) -> holdfast_shared::config::Overrides {
    use holdfast_shared::config::Overrides;
    match command {
        Command::Dev(options) => Overrides { listen: options.listen.clone(), data_dir: options.data_dir.clone() },
        Command::Api(options) => Overrides { listen: options.listen.clone(), data_dir: None },
        Command::Worker | Command::Migrate | Command::Openapi | Command::SandboxExec(_) => Overrides::default(),
    }
}
