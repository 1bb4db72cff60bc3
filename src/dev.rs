//! `holdfast dev`

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use holdfast_shared::config::Settings;
use holdfast_shared::domain::lease::TakeoverAfter;
use holdfast_shared::models::Catalogue;
use tokio_util::sync::CancellationToken;

use crate::migrate::say;
use crate::{http, shutdown, wiring};

/// Options of the command.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Address to listen on; port 0 picks a free one [env: HOLDFAST_LISTEN] [default: 127.0.0.1:8283]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
    /// Directory for all data; it is made if missing [env: HOLDFAST_DATA_DIR] [default: ~/.local/share/holdfast]
    #[arg(long, value_name = "DIR", conflicts_with = "throw_away")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keep the data in a temporary directory and remove it at the end
    #[arg(long)]
    pub(crate) throw_away: bool,
}

/// Runs everything until SIGTERM or Ctrl-C, then drains.
pub(crate) async fn run(settings: &Settings, options: &Options) -> anyhow::Result<()> {
    settings.api.require_keys()?;
    let shutdown = shutdown::on_signal()?;
    let directory = Directory::open(settings, options)?;
    let backends = wiring::connect(settings, Some(directory.path())).await?;
    if settings.database_url.is_none() {
        // The hints of the last process are gone with it.
        backends.store.rescue(TakeoverAfter(settings.worker.lease), Duration::ZERO).await?;
    }
    let catalogue = wiring::catalogue(settings)?;
    let (router, hub) = wiring::api(settings, &backends, Arc::clone(&catalogue), &shutdown)?;
    let worker = wiring::worker(settings, &backends, Arc::clone(&catalogue)).await?;
    let (listener, address) = http::bind(settings.api.listen).await?;
    let drained = CancellationToken::new();
    let relay = backends.relay.run(drained.clone());
    let serve = async {
        let served = http::serve(listener, router, &hub, shutdown.clone()).await;
        shutdown.cancel();
        served
    };
    let work = async {
        let result = worker.run(shutdown.clone(), || {}).await;
        shutdown.cancel();
        drained.cancel();
        result
    };
    let greet = greet(address, &directory, &catalogue);
    let (served, worked, (), ()) = tokio::join!(serve, work, relay, greet);
    worked?;
    served
}

/// Where the data is, and for how long.
enum Directory {
    /// Stays. The lock keeps a second process out.
    Kept { path: PathBuf, _lock: File },
    /// Goes with the process.
    ThrownAway(tempfile::TempDir),
}

impl Directory {
    fn open(settings: &Settings, options: &Options) -> anyhow::Result<Self> {
        if options.throw_away {
            let directory = tempfile::Builder::new().prefix("holdfast-").tempdir();
            return Ok(Self::ThrownAway(directory.context("cannot make a temporary directory")?));
        }
        let path = settings
            .data_dir
            .clone()
            .context("there is no home directory to keep data in; name one with --data-dir or HOLDFAST_DATA_DIR")?;
        std::fs::create_dir_all(&path).with_context(|| {
            format!("cannot make the data directory {}; name another with --data-dir", path.display())
        })?;
        let lock = File::create(path.join("lock"))
            .with_context(|| format!("cannot write to the data directory {}", path.display()))?;
        if lock.try_lock().is_err() {
            bail!(
                "the data directory {} is in use by another holdfast; stop it, or name another directory with --data-dir",
                path.display()
            );
        }
        Ok(Self::Kept { path, _lock: lock })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept { path, .. } => path,
            Self::ThrownAway(directory) => directory.path(),
        }
    }
}

/// Says what is there and what to try.
async fn greet(address: SocketAddr, directory: &Directory, catalogue: &Catalogue) {
    let models: Vec<String> = catalogue.list().await.iter().map(|model| model.handle.to_string()).collect();
    let note = match directory {
        Directory::Kept { .. } => "",
        Directory::ThrownAway(_) => " (removed when this process ends)",
    };
    say(&format!(
        "\
Holdfast is ready at http://{address}

  data    {path}{note}
  models  {models}; new agents use {default}

Try it in another terminal:

  AGENT=$(curl -s http://{address}/v1/agents/ -H 'content-type: application/json' -d '{{\"name\":\"first\"}}' | grep -o 'agent-[0-9a-f-]*' | head -n 1)
  curl -N http://{address}/v1/agents/$AGENT/messages/stream -H 'content-type: application/json' -d '{{\"input\":\"Hello [[demo tokens=40 delay_ms=250]]\",\"background\":true,\"stream_tokens\":true}}'

Cut it off with Ctrl-C, then read on from where you were; RUN and N are the last run_id and seq_id that you saw:

  curl -N 'http://{address}/v1/runs/RUN/stream?starting_after=N'
",
        path = directory.path().display(),
        models = models.join(", "),
        default = catalogue.default_model(),
    ));
}
