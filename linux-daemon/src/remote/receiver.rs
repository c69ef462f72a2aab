//! One receiver: a thread that takes a batch at each interval, and one that sends what waits.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bufferbane_linux_io::clock;
use bufferbane_store::Trust;

use super::Room;
use super::config::RemoteConfig;
use super::gather::{Batch, Gather};
use super::post::{Client, Verdict};
use super::queue::{self, Queue};
use crate::metrics::{self, Source};
use crate::recorder::trust;
use crate::status::{RemoteStatus, RemoteTally};

/// Between two tries: at first, and at most.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// What waits is made durable so often.
const SYNC: Duration = Duration::from_secs(60);
/// How long the end of the program waits for an answer; a batch whose answer does not come is sent
/// again.
const FAREWELL: Duration = Duration::from_millis(500);
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
        let before = before.and_then(|s| s.remote_write.get(config.name()).cloned());
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
            receiver.threads.push(thread.spawn(move || run(&shared))?);
        }
        Ok(receiver)
    }

    /// Whether it is this one, as it is.
    pub(super) fn is(&self, config: &RemoteConfig, room: &Room) -> bool {
        self.shared.config == *config && self.room == *room
    }

    pub(super) fn name(&self) -> &str {
        self.shared.config.name()
    }

    /// Ends it. What is on its way to the receiver may arrive, and is sent again if it is used again.
    pub(super) fn stop(self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        let until = Instant::now() + FAREWELL;
        for thread in self.threads {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            if thread.is_finished() && thread.join().is_err() {
                log::error!(
                    "a thread of remote_write {} panicked",
                    self.shared.config.name()
                );
            }
        }
        let mut inner = self.shared.lock();
        if let Err(e) = inner.queue.sync() {
            log::warn!("remote_write {}: {e}", self.shared.config.name());
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
            let url = self.config.name().to_owned();
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
        let mut clock_is_right = false;
        let mut goes_on = true;
        while goes_on {
            let mut inner = self.lock();
            while goes_on && Instant::now() < next {
                (inner, goes_on) = self.wait(inner, Some(next));
            }
            drop(inner);
            clock_is_right = clock_is_right || self.believes_the_clock();
            if clock_is_right {
                self.take();
            }
            while next <= Instant::now() {
                next += interval;
            }
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
    fn take(&self) {
        let (Some(status), Some(meters)) = (self.source.status(), self.source.meters()) else {
            return;
        };
        let mut gather = Gather::new(&self.config.setup, clock::wall_now() / 1_000_000);
        metrics::tell(&mut gather, &status, &meters);
        drop((status, meters));
        let batch = gather.finish();
        let mut inner = self.lock();
        let (given_up, written) = match &batch {
            Ok(batch) => inner.queue.push(batch),
            Err(_) => (RemoteTally::default(), Ok(())),
        };
        inner.status.given_up.add(given_up);
        let failed = batch.err().or(written.err()).map(|e| e.to_string());
        if failed.is_some() != inner.status.is_full || given_up.batches > 1 {
            match &failed {
                Some(e) => log::warn!(
                    "remote_write {}: {e}; batches are given up until there is room",
                    self.config.name()
                ),
                None => log::info!(
                    "remote_write {}: the queue has room again",
                    self.config.name()
                ),
            }
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
        let mut synced = Instant::now();
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
                    if synced.elapsed() >= SYNC {
                        synced = Instant::now();
                        if let Err(e) = inner.queue.sync() {
                            log::warn!("remote_write {}: {e}", self.config.name());
                        }
                    }
                }
                // It was given up between the two looks at the queue, or its disk fails.
                (Err(_), _) | (_, Err(_)) => {
                    if inner.queue.remove(number).is_some() {
                        inner.status.damaged_batches += 1;
                    }
                }
            }
            self.show(&mut inner);
        }
    }
}

impl Inner {
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

/// When to try again: doubled each time, with chance, so that those who were cut off together do not
/// come back together.
#[derive(Debug, Default)]
struct Backoff {
    wait: Option<Duration>,
    until: Option<Instant>,
}

impl Backoff {
    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }

    /// It failed; whether it had not before. Not before `least` it is tried again.
    fn begin(&mut self, least: Option<Duration>) -> bool {
        let first = self.wait.is_none();
        let wait = self.wait.map_or(FIRST_WAIT, |w| (w * 2).min(LONGEST_WAIT));
        self.wait = Some(wait);
        let wait = wait.mul_f64(0.5 + share() / 2.0);
        self.until = Some(Instant::now() + wait.max(least.unwrap_or_default()));
        first
    }

    /// It went well; whether it had not before.
    fn end(&mut self) -> bool {
        std::mem::take(self).wait.is_some()
    }
}

/// By chance, at least 0 and below 1.
fn share() -> f64 {
    let mut bytes = [0; 4];
    // Without chance all is as well, only less spread out.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rarer_up_to_a_bound_and_obey_the_receiver() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_over() && !backoff.end());
        let mut waits = Vec::new();
        for n in 0..12 {
            let begin = Instant::now();
            assert_eq!(backoff.begin(None), n == 0);
            assert!(!backoff.is_over());
            waits.push(backoff.until.unwrap() - begin);
        }
        assert!(
            waits[0] <= FIRST_WAIT + Duration::from_millis(100),
            "{waits:?}"
        );
        assert!(waits[11] >= LONGEST_WAIT / 2, "{waits:?}");
        assert!(*waits.iter().max().unwrap() <= LONGEST_WAIT + Duration::from_millis(100));
        let begin = Instant::now();
        backoff.begin(Some(Duration::from_secs(600)));
        assert!(backoff.until.unwrap() - begin >= Duration::from_secs(600));
        assert!(backoff.end() && backoff.is_over());
    }
}
