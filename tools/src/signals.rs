//! Ctrl-C, and the polite request to stop that service managers send.

use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{CliError, Code};

/// Which of them came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// A service manager's request.
    Terminate,
}

/// Waits for either.
pub(crate) async fn stopped() -> Result<Stop, CliError> {
    let listen = |kind| {
        signal(kind)
            .map_err(|error| CliError::new(Code::Failed, format!("cannot listen for signals: {error}")))
    };
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => Stop::Interrupt,
        _ = terminate.recv() => Stop::Terminate,
    })
}

/// Makes Ctrl-C end the process with the exit code of the contract: for commands that have nothing to tidy up.
pub(crate) fn exit_on_interrupt() {
    in_background(|| process::exit(i32::from(Code::Interrupted.exit())));
}

/// A flag that is raised once the process is asked to stop: for commands that tidy up.
pub(crate) fn stop_flag() -> &'static AtomicBool {
    static STOPPED: OnceLock<AtomicBool> = OnceLock::new();
    let flag = STOPPED.get_or_init(AtomicBool::default);
    in_background(move || flag.store(true, Ordering::Relaxed));
    flag
}

/// Without it a signal has its default effect, which is to end the process: good enough.
fn in_background(then: impl FnOnce() + Send + 'static) {
    let _ = thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
        if runtime.block_on(stopped()).is_ok() {
            then();
        }
    });
}
