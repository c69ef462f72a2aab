//! What of the configuration takes a restart to change.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::Config;
use crate::stamp::StampConfig;

/// As it was started; no client's key, so that one which is taken away stays nowhere.
pub(crate) struct Fixed {
    listen: Vec<SocketAddr>,
    control_socket: Option<PathBuf>,
    transmit_stamps: bool,
    stamp: Option<StampConfig>,
    sessions: u16,
    failed_opens_per_second: u32,
}

impl Fixed {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            listen: config.listen.clone(),
            control_socket: config.control_socket.clone(),
            transmit_stamps: config.transmit_stamps,
            stamp: config.stamp.clone(),
            sessions: config.limits.sessions,
            failed_opens_per_second: config.limits.failed_opens_per_second,
        }
    }

    /// Sessions that there is room for.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.into()
    }

    /// What is otherwise in `new`, one line each.
    pub(crate) fn differs(&self, new: &Config) -> Vec<String> {
        let changed = [
            ("reflector.listen", self.listen != new.listen),
            (
                "reflector.control_socket",
                self.control_socket != new.control_socket,
            ),
            (
                "reflector.transmit_stamps",
                self.transmit_stamps != new.transmit_stamps,
            ),
            ("stamp", self.stamp != new.stamp),
            ("limits.sessions", self.sessions != new.limits.sessions),
            (
                "limits.failed_opens_per_second",
                self.failed_opens_per_second != new.limits.failed_opens_per_second,
            ),
        ];
        changed
            .iter()
            .filter(|(_, changed)| *changed)
            .map(|(key, _)| format!("{key} has changed: that takes a restart"))
            .collect()
    }
}
