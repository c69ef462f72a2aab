//! An uplink whose ways are walked, and what waits for its thread.

use std::collections::VecDeque;
use std::sync::mpsc::TryRecvError;

use bufferbane_core::time::Monotonic;
use bufferbane_store::EventId;

use super::budget::Looks;
use super::worker::{Errand, Thoroughness, Walked, Worker};
use crate::errands::Key;
use crate::scout::Way;

/// An uplink.
pub(super) struct Line {
    /// Gone where its thread has ended, which takes a fault of ours.
    pub(super) worker: Option<Worker>,
    pub(super) looks: Looks,
    /// Its silence has been noticed.
    pub(super) silent: bool,
    /// What waits for the thread, because something looks wrong.
    pub(super) asked: VecDeque<Asked>,
    /// What the thread does.
    pub(super) out: Option<Asked>,
    /// Why its ways cannot be walked, as it was said last.
    pub(super) trouble: Option<String>,
}

impl Line {
    pub(super) const fn new(now: Monotonic, worker: Worker) -> Self {
        Self {
            worker: Some(worker),
            looks: Looks::new(now),
            silent: false,
            asked: VecDeque::new(),
            out: None,
            trouble: None,
        }
    }

    pub(super) fn send(&mut self, now: Monotonic, way: Way, asked: Asked) {
        let errand = Errand {
            way,
            key: asked.key.clone(),
            urgent: asked.events.is_some(),
            how: asked.how,
        };
        let Some(worker) = &self.worker else {
            return;
        };
        // The thread has nothing to do; that it has ended is noticed when it is listened to.
        if worker.errands.try_send(errand).is_ok() {
            let begun = Some(now);
            self.out = Some(Asked { begun, ..asked });
        }
    }

    /// What the thread has come back with.
    pub(super) fn back(&mut self, interface: &str) -> Option<(Asked, Walked)> {
        match self.worker.as_ref()?.returns.try_recv() {
            Ok(walked) => Some((self.out.take()?, walked)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                log::error!(
                    "paths through {interface} are no longer walked: the thread that did has ended, which is \
                     a fault of this program; please report it with what the journal says before, and restart"
                );
                self.worker = None;
                self.out = None;
                self.asked.clear();
                None
            }
        }
    }

    pub(super) fn hurry(&self, hurry: bool) {
        if let Some(worker) = &self.worker {
            worker.hurry(hurry);
        }
    }
}

/// A walk that was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) key: Key,
    /// `None` where nothing looks wrong.
    pub(super) events: Option<Vec<EventId>>,
    pub(super) how: Thoroughness,
    /// When the thread was given it.
    pub(super) begun: Option<Monotonic>,
}
