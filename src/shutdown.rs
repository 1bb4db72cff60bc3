//! How the program is told to stop.

use tokio_util::sync::CancellationToken;

/// A token that fires at SIGTERM or Ctrl-C. A second Ctrl-C ends the process at once.
pub(crate) fn on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let token = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let fired = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: open streams are closed, runs are handed back");
        fired.cancel();
        interrupt.recv().await;
        std::process::exit(130);
    });
    Ok(token)
}
