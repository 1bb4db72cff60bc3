//! Serving the API.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use holdfast_api::fanout::Hub;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long answers that are under way may take after the streams have been closed.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Binds the address of the API.
pub(crate) async fn bind(listen: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; choose another address with --listen or HOLDFAST_LISTEN")
    })?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Serves until `shutdown`, then closes the streams, so that their readers resume elsewhere, and lets answers finish.
pub(crate) async fn serve(
    listener: TcpListener,
    router: holdfast_api::Router,
    hub: &Hub,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let stopping = shutdown.clone();
    let server = holdfast_api::serve(listener, router, async move { stopping.cancelled().await });
    let mut server = std::pin::pin!(server);
    let watch = hub.keep_watch(shutdown.clone());
    let served = tokio::select! {
        result = &mut server => Some(result),
        () = async { tokio::join!(watch, shutdown.cancelled()); } => None,
    };
    hub.close();
    match served {
        Some(result) => result.context("the HTTP server failed"),
        None => match tokio::time::timeout(LAST_ANSWERS, server).await {
            Ok(result) => result.context("the HTTP server failed"),
            Err(_late) => Ok(()),
        },
    }
}
