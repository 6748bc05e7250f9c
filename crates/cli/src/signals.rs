//! Signals that do not end a command.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use windlass::Result;

/// A flag that SIGUSR1 sets from now on; never set where there is no such signal.
pub fn on_user_signal() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, flag.clone())
        .map_err(|e| windlass::Error::new(windlass::Code::Failed, format!("no handler for SIGUSR1: {e}")))?;
    Ok(flag)
}
