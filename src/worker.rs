//! `holdfast worker`

use holdfast_shared::config::Settings;
use tokio_util::sync::CancellationToken;

use crate::migrate::say;
use crate::{shutdown, wiring};

/// Works until SIGTERM or Ctrl-C, then drains.
pub(crate) async fn run(settings: &Settings) -> anyhow::Result<()> {
    wiring::require_servers(settings)?;
    let shutdown = shutdown::on_signal()?;
    let backends = wiring::connect(settings, None).await?;
    let worker = wiring::worker(settings, &backends, wiring::catalogue(settings)?).await?;
    // The relay outlives the worker's drain, so that runs which are handed back get their hint at once.
    let drained = CancellationToken::new();
    let relay = backends.relay.run(drained.clone());
    let work = async {
        let ready = || say(&format!("Holdfast worker is ready: {}", worker.id()));
        let result = worker.run(shutdown, ready).await;
        drained.cancel();
        result
    };
    let (result, ()) = tokio::join!(work, relay);
    Ok(result?)
}
