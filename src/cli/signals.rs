//! Signals: the first one asks the work to stop, the second one ends it.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};
use crate::stop::Stop;

/// Turns SIGINT and SIGTERM into a request to stop.
pub(super) fn listen(stop: Stop) -> Result<()> {
    let cannot = |e| Error::from_io("cannot listen to signals", e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    tokio::spawn(async move {
        let mut seen = false;
        loop {
            let (name, code) = tokio::select! {
                _ = interrupt.recv() => ("SIGINT", 130),
                _ = terminate.recv() => ("SIGTERM", 143),
            };
            if seen {
                std::process::exit(code);
            }
            seen = true;
            stop.request(
                Error::failed(format!("stopped by {name}")).hint("nothing half done is left; run it again"),
            );
        }
    });
    Ok(())
}
