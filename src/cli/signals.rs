//! SIGTERM and Ctrl-C: the first asks to stop, a second exits at once (nothing is lost by it).

use std::time::Duration;

/// Hears them from when it was made.
pub(super) struct Signals(crossbeam_channel::Receiver<()>);

impl Signals {
    pub(super) fn listen() -> Result<Signals, String> {
        let (tell, told) = crossbeam_channel::bounded(1);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let listen = move || {
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let (Ok(mut term), Ok(mut interrupt)) =
                    (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
                else {
                    return;
                };
                for told_before in [false, true] {
                    tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
                    if told_before {
                        std::process::exit(1);
                    }
                    let _ = tell.send(());
                }
            });
        };
        std::thread::Builder::new().name("weir-signals".into()).spawn(listen).map_err(|error| error.to_string())?;
        Ok(Signals(told))
    }

    /// True when a stop was asked for within `wait`.
    pub(super) fn wait(&self, wait: Duration) -> bool {
        self.0.recv_timeout(wait).is_ok()
    }
}
