//! The signals that end the daemon or make it read its configuration again.

use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::notify;
use crate::service::Daemon;

/// The signals that the daemon acts on.
#[derive(Debug)]
pub struct Signals {
    caught: signal_hook::iterator::Signals,
    /// SIGHUP came and has not been acted on.
    reload: bool,
}

impl Signals {
    /// Catches them from now on. To be called before the daemon is started: one that comes while it
    /// starts does not end it half-way.
    ///
    /// # Errors
    /// When signals cannot be watched.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            caught: signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?,
            reload: false,
        })
    }

    /// Whether SIGTERM or SIGINT has come. A SIGHUP that came is acted on by [`Signals::obey`].
    pub fn end_came(&mut self) -> bool {
        let mut end = false;
        for signal in self.caught.pending() {
            match signal {
                SIGHUP => self.reload = true,
                _ => end = true,
            }
        }
        end
    }

    /// Runs the daemon until SIGTERM or SIGINT; SIGHUP reads the configuration again. Gives whether
    /// it ended because it was told to.
    pub fn obey(mut self, daemon: &mut Daemon) -> bool {
        notify::ready();
        loop {
            if self.end_came() {
                notify::stopping();
                daemon.stop();
                return true;
            }
            if std::mem::take(&mut self.reload) {
                notify::reloading();
                match daemon.reload() {
                    Ok(()) => log::info!("the configuration was read again"),
                    Err(why) => log::error!("the old configuration goes on: {why}"),
                }
                notify::ready();
            }
            if !daemon.is_running() {
                daemon.stop();
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
