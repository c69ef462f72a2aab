//! Where what is shown and told comes from.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::Meters;
use crate::status::Status;

/// What the daemon counts, for whoever shows it.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) status: Arc<Mutex<Status>>,
    pub(crate) meters: Arc<Mutex<Meters>>,
    pub(crate) started: Instant,
}

impl Source {
    /// The status of this moment; `None` where the daemon is failing.
    pub(crate) fn status(&self) -> Option<Status> {
        let mut status = self.status.lock().ok()?.clone();
        status.uptime_s = self.started.elapsed().as_secs();
        Some(status)
    }

    /// What has been counted by now. The recorder goes on counting while that is written.
    pub(crate) fn meters(&self) -> Option<Meters> {
        Some(self.meters.lock().ok()?.clone())
    }
}
