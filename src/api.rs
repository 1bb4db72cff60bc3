//! `holdfast api`

use clap::Args;
use holdfast_shared::config::Settings;

use crate::migrate::say;
use crate::{http, shutdown, wiring};

/// Options of the command.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Address to listen on; beyond loopback only with HOLDFAST_API_KEYS [env: HOLDFAST_LISTEN] [default:
    /// 127.0.0.1:8283]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
}

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(settings: &Settings) -> anyhow::Result<()> {
    settings.api.require_keys()?;
    wiring::require_servers(settings)?;
    let shutdown = shutdown::on_signal()?;
    let backends = wiring::connect(settings, None).await?;
    let catalogue = wiring::catalogue(settings)?;
    let (router, hub) = wiring::api(settings, &backends, catalogue, &shutdown)?;
    let (listener, address) = http::bind(settings.api.listen).await?;
    say(&format!("Holdfast API is ready at http://{address}"));
    let relay = backends.relay.run(shutdown.clone());
    let (served, ()) = tokio::join!(http::serve(listener, router, &hub, shutdown.clone()), relay);
    served
}
