//! One receiver: a thread that takes a batch at each interval, and one that sends what waits.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bufferbane_linux_io::clock;
use bufferbane_store::Trust;

use super::Room;
use super::backoff::{Backoff, share};
use super::config::RemoteConfig;
use super::gather::{Batch, Gather};
use super::giving_up::{Edge, GivingUp};
use super::post::{Client, Verdict};
use super::queue::{self, Queue};
use crate::metrics::{self, Source};
use crate::recorder::trust;
use crate::status::{RemoteStatus, RemoteTally};

/// What waits is made durable so often.
const SYNC: Duration = Duration::from_secs(60);
/// How long the end of the program waits for an answer; a batch whose answer does not come is sent
/// again.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long it waits for the disk.
const LAST_SYNC: Duration = Duration::from_secs(3);
/// Batches that are refused are told at most so often.
const TOLD: Duration = Duration::from_secs(60);

/// What both threads share.
struct Shared {
    config: RemoteConfig,
    source: Source,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    queue: Queue,
    status: RemoteStatus,
    stop: bool,
    /// Another owner may have the queue's files now: they are not to be touched any more.
    left: bool,
}

/// See the module.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    room: Room,
    threads: Vec<JoinHandle<()>>,
}

impl Receiver {
    /// # Errors
    /// When the queue cannot be opened, or a thread not started.
    pub(super) fn start(
        config: &RemoteConfig,
        room: &Room,
        source: Source,
    ) -> std::io::Result<Self> {
        let dir: PathBuf = room.dir.join(config.queue_name());
        let (queue, damaged) = Queue::open(&dir, config.queue_max_bytes, room.min_free_bytes)
            .map_err(|e| std::io::Error::new(e.kind(), format!("{}: {e}", dir.display())))?;
        // Counters go on where they were before a reload.
        let before = source.status.lock().ok();
        let before = before.and_then(|s| s.remote_write.get(&config.name()).cloned());
        let mut status = before.unwrap_or_default();
        status.damaged_batches += damaged;
        if damaged > 0 {
            log::warn!(
                "remote_write {}: {damaged} batches were damaged by an unclean end and are gone",
                config.name()
            );
        }
        let shared = Arc::new(Shared {
            config: config.clone(),
            source,
            inner: Mutex::new(Inner {
                queue,
                status,
                stop: false,
                left: false,
            }),
            changed: Condvar::new(),
        });
        shared.show(&mut shared.lock());
        let mut receiver = Self {
            shared: Arc::clone(&shared),
            room: room.clone(),
            threads: Vec::new(),
        };
        for (name, run) in [
            ("rw-collect", Shared::collect as fn(&Shared)),
            ("rw-send", Shared::send),
        ] {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(name.into());
            match thread.spawn(move || run(&shared)) {
                Ok(thread) => receiver.threads.push(thread),
                Err(e) => {
                    Self::stop(vec![receiver]);
                    return Err(e);
                }
            }
        }
        Ok(receiver)
    }

    /// Whether it is this one, as it is.
    pub(super) fn is(&self, config: &RemoteConfig, room: &Room) -> bool {
        self.shared.config == *config && self.room == *room
    }

    pub(super) fn name(&self) -> String {
        self.shared.config.name()
    }

    /// Ends all of these, in the time of one. What is on its way to a receiver may arrive, and is sent again
    /// if it is used again.
    pub(super) fn stop(receivers: Vec<Self>) {
        for receiver in &receivers {
            receiver.shared.lock().stop = true;
            receiver.shared.changed.notify_all();
        }
        let begin = Instant::now();
        for receiver in receivers {
            for (thread, patience) in receiver.threads.into_iter().zip([LAST_SYNC, FAREWELL]) {
                while !thread.is_finished() && begin.elapsed() < patience {
                    std::thread::sleep(Duration::from_millis(5));
                }
                if thread.is_finished() && thread.join().is_err() {
                    log::error!(
                        "a thread of remote_write {} panicked",
                        receiver.shared.config.name()
                    );
                }
            }
            receiver.shared.lock().left = true;
        }
    }
}

impl Shared {
    /// Nothing is left half done under the lock: what another thread left there is good.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Puts it where status and `/metrics` are made of.
    fn show(&self, inner: &mut Inner) {
        inner.status.queue_batches = inner.queue.len() as u64;
        inner.status.queue_bytes = inner.queue.bytes();
        inner.status.oldest_ms = inner.queue.oldest_ms();
        if !inner.stop
            && let Ok(mut status) = self.source.status.lock()
        {
            let url = self.config.name();
            status.remote_write.insert(url, inner.status.clone());
        }
    }

    /// Waits until then, or until there is something new; false where the end has come.
    fn wait<'a>(
        &self,
        inner: MutexGuard<'a, Inner>,
        until: Option<Instant>,
    ) -> (MutexGuard<'a, Inner>, bool) {
        let inner = match until {
            _ if inner.stop => inner,
            None => self
                .changed
                .wait(inner)
                .unwrap_or_else(std::sync::PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                let waited = self.changed.wait_timeout(inner, left);
                waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
            }
        };
        let goes_on = !inner.stop;
        (inner, goes_on)
    }

    /// The thread that takes a batch at each interval, and a last one at the end.
    fn collect(&self) {
        let interval = Duration::from_nanos(self.config.interval_ns);
        // Not all routers of a town in the same second after a power cut.
        let mut next = Instant::now() + interval.mul_f64(share());
        let mut sync_at = Instant::now() + SYNC;
        let mut giving_up = GivingUp::default();
        let mut clock_is_right = false;
        let mut goes_on = true;
        while goes_on {
            let mut inner = self.lock();
            let until = next.min(sync_at);
            while goes_on && Instant::now() < until {
                (inner, goes_on) = self.wait(inner, Some(until));
            }
            drop(inner);
            if Instant::now() >= sync_at {
                self.sync(None);
                sync_at = Instant::now() + SYNC;
            }
            if goes_on && Instant::now() < next {
                continue;
            }
            clock_is_right = clock_is_right || self.believes_the_clock();
            if clock_is_right {
                self.take(&mut giving_up);
            }
            while next <= Instant::now() {
                next += interval;
            }
        }
        self.sync(Some(Instant::now() + LAST_SYNC));
    }

    /// Makes what waits durable. Nobody waits for the disk meanwhile.
    fn sync(&self, until: Option<Instant>) {
        let (dir, numbers) = self.lock().queue.unsynced();
        let (durable, all) = queue::sync(&dir, &numbers, until);
        self.lock().queue.synced(&durable);
        if let Err(e) = all {
            log::warn!(
                "remote_write {}: {}: {e}; a power cut may cost batches that wait",
                self.config.name(),
                dir.display()
            );
        }
    }

    /// Whether samples may have the time that the wall clock shows.
    fn believes_the_clock(&self) -> bool {
        let least = if self.config.any_clock {
            Trust::Plausible
        } else {
            Trust::Disciplined
        };
        let believed = trust() >= least;
        let mut inner = self.lock();
        inner.status.waits_for_clock = !believed;
        self.show(&mut inner);
        believed
    }

    /// Takes a batch into the queue.
    fn take(&self, giving_up: &mut GivingUp) {
        let (Some(status), Some(meters)) = (self.source.status(), self.source.meters()) else {
            return;
        };
        let mut gather = Gather::new(&self.config.setup, clock::wall_now() / 1_000_000);
        metrics::tell(&mut gather, &status, &meters);
        drop((status, meters));
        let batch = gather.finish();
        let mut inner = self.lock();
        if inner.left {
            return;
        }
        let (given_up, written) = match &batch {
            Ok(batch) => inner.queue.push(batch),
            Err(_) => (RemoteTally::default(), Ok(())),
        };
        inner.status.given_up.add(given_up);
        let oldest = given_up.batches - u64::from(written.is_err());
        let failed = batch.err().or(written.err()).map(|e| e.to_string());
        if failed.is_some() != inner.status.is_full {
            match &failed {
                Some(e) => log::warn!(
                    "remote_write {}: {e}; new batches are given up until that is over",
                    self.config.name()
                ),
                None => log::info!(
                    "remote_write {}: the queue takes batches again",
                    self.config.name()
                ),
            }
        }
        match giving_up.note(oldest) {
            Some(Edge::Begins) => log::warn!(
                "remote_write {}: queue_max is reached, or little more than min_free is free; it gives up the \
                 oldest of {} batches for each new one",
                self.config.name(),
                inner.queue.len()
            ),
            Some(Edge::Ends(batches)) => log::info!(
                "remote_write {}: the queue has room again; it gave up the oldest {batches} batches",
                self.config.name()
            ),
            None => {}
        }
        inner.status.is_full = failed.is_some();
        self.show(&mut inner);
        self.changed.notify_all();
    }

    /// The thread that sends what waits.
    fn send(&self) {
        let mut client = Client::new(&self.config);
        let mut backoff = Backoff::default();
        let mut inner = self.lock();
        let mut goes_on = !inner.stop;
        let mut told: Option<Instant> = None;
        while goes_on {
            let oldest = inner.queue.oldest().filter(|_| backoff.is_over());
            let Some(number) = oldest else {
                let until = inner.queue.oldest().map(|_| backoff.until);
                (inner, goes_on) = self.wait(inner, until.flatten());
                continue;
            };
            let path = inner.queue.path(number);
            drop(inner);
            let batch = queue::read(&path);
            let verdict = batch.as_ref().map(|b| client.post(b));
            inner = self.lock();
            if inner.left {
                return;
            }
            goes_on = !inner.stop;
            inner.status.protocol = client.protocol().to_owned();
            match (batch.as_ref(), verdict) {
                (Ok(batch), Ok(Verdict::Taken(samples))) => {
                    if backoff.end() {
                        log::info!(
                            "remote_write {}: it takes batches again",
                            self.config.name()
                        );
                    }
                    inner.finish(number, batch, samples);
                    inner.status.waits_because = None;
                }
                (Ok(batch), Ok(Verdict::Refused(samples, why))) => {
                    backoff.end();
                    inner.finish(number, batch, samples);
                    if told.is_none_or(|t| t.elapsed() >= TOLD) {
                        told = Some(Instant::now());
                        log::warn!(
                            "remote_write {}: {why}; {} batches have been refused so far and are dropped",
                            self.config.name(),
                            inner.status.refused.batches
                        );
                    }
                    inner.status.refused_because = Some(why);
                    inner.status.waits_because = None;
                }
                (Ok(_), Ok(Verdict::Later(why, wait))) => {
                    inner.status.retries += 1;
                    if backoff.begin(wait) {
                        log::warn!(
                            "remote_write {}: {why}; batches wait on disk",
                            self.config.name()
                        );
                    }
                    inner.status.waits_because = Some(why);
                }
                (Err(e), _) | (_, Err(e)) => {
                    if !inner.unreadable(number, e.kind()) {
                        let why = format!("{}: {e}", path.display());
                        inner.status.retries += 1;
                        if backoff.begin(None) {
                            log::warn!(
                                "remote_write {}: {why}; batches wait on disk",
                                self.config.name()
                            );
                        }
                        inner.status.waits_because = Some(why);
                    }
                }
            }
            self.show(&mut inner);
        }
    }
}

impl Inner {
    /// A batch could not be read; whether that is the end of it. Else it may be readable later.
    fn unreadable(&mut self, number: u64, kind: ErrorKind) -> bool {
        match kind {
            ErrorKind::InvalidData => {
                if self.queue.remove(number).is_some() {
                    self.status.damaged_batches += 1;
                }
                true
            }
            // It was given up between the two looks at the queue, or removed by hand.
            ErrorKind::NotFound => {
                self.queue.remove(number);
                true
            }
            _ => false,
        }
    }

    /// The receiver has had a batch, and has taken so many of its samples.
    fn finish(&mut self, number: u64, batch: &Batch, taken: u32) {
        // One that was given up meanwhile is counted as such.
        if self.queue.remove(number).is_none() {
            return;
        }
        let all = u64::from(batch.samples);
        self.status.taken.samples += u64::from(taken);
        self.status.refused.samples += all.saturating_sub(u64::from(taken));
        if taken < batch.samples {
            self.status.refused.batches += 1;
        } else {
            self.status.taken.batches += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(dir: &std::path::Path) -> Inner {
        let (mut queue, _) = Queue::open(dir, 1 << 20, 0).unwrap();
        for n in 0..3 {
            let batch = Batch {
                at_ms: n.into(),
                samples: n,
                body: vec![7; 50],
            };
            queue.push(&batch).1.unwrap();
        }
        Inner {
            queue,
            status: RemoteStatus::default(),
            stop: false,
            left: false,
        }
    }

    #[test]
    fn a_disk_that_fails_for_a_while_costs_no_batch() {
        let dir = tempfile::tempdir().unwrap();
        let mut inner = inner(dir.path());
        for errno in [
            nix::libc::EMFILE,
            nix::libc::ENOMEM,
            nix::libc::EIO,
            nix::libc::EACCES,
        ] {
            let kind = std::io::Error::from_raw_os_error(errno).kind();
            assert!(!inner.unreadable(0, kind), "{kind:?}");
        }
        assert_eq!((inner.queue.len(), inner.status.damaged_batches), (3, 0));
        assert!(inner.unreadable(0, ErrorKind::NotFound));
        assert_eq!((inner.queue.len(), inner.status.damaged_batches), (2, 0));
        assert!(inner.unreadable(1, ErrorKind::InvalidData));
        assert_eq!((inner.queue.len(), inner.status.damaged_batches), (1, 1));
    }
}
