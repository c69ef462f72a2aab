//! Push by Prometheus remote-write: what `/metrics` tells, sent to receivers at intervals.
//!
//! ```text
//! recorder ─▶ meters ─▶ collect thread ─▶ queue (files) ─▶ send thread ─▶ receiver
//! ```
//!
//! Each receiver has two threads and a queue of its own, so that one that is slow or away holds up
//! neither the others nor the taking of the next batch. Nobody else waits for any of them: what is
//! counted is copied under the same lock, and for as short a time, as for `/metrics`.

mod backoff;
mod config;
mod gather;
mod giving_up;
mod post;
mod proto;
mod queue;
mod receiver;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use config::RemoteConfig;
pub(crate) use config::read;
use receiver::Receiver;

use crate::metrics::Source;

/// What of the whole configuration the queues need, beside each receiver's own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Room {
    /// Where they are: beside the store.
    dir: PathBuf,
    /// Bytes that stay free on the file system.
    min_free_bytes: u64,
}

/// All receivers. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Remotes {
    source: Source,
    running: Arc<Mutex<Vec<Receiver>>>,
}

impl Remotes {
    /// None yet.
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            running: Arc::default(),
        }
    }

    /// Goes on with these; one that stays the same is not interrupted. Queues are beside `store`.
    pub(crate) fn set(&self, configs: &[RemoteConfig], store: &Path, min_free_bytes: u64) {
        let Ok(mut running) = self.running.lock() else {
            return;
        };
        let room = Room {
            dir: store.with_extension("remote-write"),
            min_free_bytes,
        };
        let (mut stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut *running)
            .into_iter()
            .partition(|r| configs.iter().any(|c| r.is(c, &room)));
        let names: Vec<String> = go.iter().map(Receiver::name).collect();
        Receiver::stop(go);
        for name in names {
            let goes_on = configs.iter().any(|c| c.name() == name);
            if !goes_on && let Ok(mut status) = self.source.status.lock() {
                status.remote_write.remove(&name);
            }
        }
        for config in configs {
            if stay.iter().any(|r| r.is(config, &room)) {
                continue;
            }
            match Receiver::start(config, &room, self.source.clone()) {
                Ok(receiver) => stay.push(receiver),
                Err(e) => log::error!(
                    "remote_write {}: {e}; nothing is pushed there",
                    config.name()
                ),
            }
        }
        warn_of_left_queues(&room.dir, configs);
        *running = stay;
    }

    /// Takes a last batch for each, and ends. What was not sent stays on disk for the next start.
    pub(crate) fn stop(&self) {
        let running = self.running.lock().map(|mut r| std::mem::take(&mut *r));
        Receiver::stop(running.unwrap_or_default());
    }
}

/// Says which queues nobody will send: their receivers are not configured any more.
fn warn_of_left_queues(dir: &Path, configs: &[RemoteConfig]) {
    let ours: Vec<String> = configs.iter().map(RemoteConfig::queue_name).collect();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !ours.iter().any(|name| entry.file_name() == name.as_str()) {
            log::warn!(
                "{} is the queue of a receiver that is not configured any more; remove it, or \
                 configure its url again",
                entry.path().display()
            );
        }
    }
}
