//! What the daemon's own part in a measurement is: kept like a measurement, so that a bad minute can be
//! shown to be the line's and not ours.

use std::sync::{Arc, Mutex};

use bufferbane_core::sample::{Flags, Sample, Status};
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::{Readings, StampMeter, counters};

use crate::notify;
use crate::probe::Health;

const SECOND_NS: u64 = 1_000_000_000;
const MINUTE_NS: u64 = 60 * SECOND_NS;
/// Between two datagrams over loopback whose stamps are held against each other, ns, and how many make
/// a reading.
const METER_NS: u64 = 250_000_000;
const METERED: u32 = 4;

/// The present minute.
pub(crate) struct Minute {
    /// What the probe thread said last.
    pub(crate) probe: Health,
    /// When it said so.
    seen: Monotonic,
    stuck: bool,
    before: Before,
    send_late: Histogram,
    /// Probes that were marked as sent late.
    sent_late: u64,
    /// Datagrams that reflectors said they had dropped.
    reflector_drops: u64,
    /// What stamps turned out to be worth; measured by a thread of its own.
    stamps: Arc<Mutex<Readings>>,
}

/// What had been counted when the minute began.
struct Before {
    at: Monotonic,
    probe: Health,
    /// Of the process, ns.
    cpu_ns: u64,
    /// Samples lost to ourselves.
    dropped: u64,
}

impl Minute {
    pub(crate) fn new(now: Monotonic) -> Self {
        Self {
            probe: Health::default(),
            seen: now,
            stuck: false,
            before: Before {
                at: now,
                probe: Health::default(),
                cpu_ns: 0,
                dropped: 0,
            },
            send_late: Histogram::new(),
            sent_late: 0,
            reflector_drops: 0,
            stamps: Arc::default(),
        }
    }

    /// Begins to measure what stamps are worth, for as long as this lives.
    pub(crate) fn meter_stamps(&self) {
        let kept = Arc::downgrade(&self.stamps);
        std::thread::spawn(move || {
            let mut meter = match StampMeter::new() {
                Ok(meter) => meter,
                Err(e) => return log::info!("how far time stamps are off is not measured: {e}"),
            };
            while kept.strong_count() > 0 {
                let failed = meter.measure(METERED, METER_NS).err();
                let readings = meter.take();
                if failed.is_some() || readings.is_hopeless() {
                    let why = failed.map(|e| e.to_string());
                    let why = why.as_deref().unwrap_or("no datagram passes loopback");
                    return log::info!("how far time stamps are off is not measured: {why}");
                }
                if let Some(kept) = kept.upgrade()
                    && let Ok(mut kept) = kept.lock()
                {
                    kept.merge(&readings);
                }
            }
        });
    }

    /// The probe thread's report of every second.
    pub(crate) const fn hear(&mut self, probe: Health, now: Monotonic) {
        self.probe = probe;
        self.seen = now;
    }

    pub(crate) fn note(&mut self, sample: &Sample) {
        if sample.status != Status::Unsent {
            self.sent_late += u64::from(sample.flags.contains(Flags::SENT_LATE));
            self.send_late
                .add(u64::try_from(sample.send_late_ns).unwrap_or(0));
        }
    }

    pub(crate) const fn reflector_dropped(&mut self, datagrams: u32) {
        self.reflector_drops += datagrams as u64;
    }

    /// Tells systemd that the daemon lives while both threads do that nobody can do without: the
    /// recorder, by coming here, and the probe thread, by its report of every second.
    pub(crate) fn tell_watchdog(&mut self, now: Monotonic) {
        let silent_ns = now.saturating_since(self.seen);
        let stuck = silent_ns > notify::patience_ns();
        if !stuck {
            notify::alive();
        } else if !self.stuck {
            log::error!(
                "the probe thread has not gone round for {} s; systemd is not told that the daemon \
                 lives, and will start it again",
                silent_ns / SECOND_NS
            );
        }
        self.stuck = stuck;
    }

    pub(crate) const fn is_over(&self, now: Monotonic) -> bool {
        now.saturating_since(self.before.at) >= MINUTE_NS
    }

    /// Whether there is enough of it to be kept although the daemon ends.
    pub(crate) const fn is_worth_keeping(&self, now: Monotonic) -> bool {
        now.saturating_since(self.before.at) >= SECOND_NS
    }

    /// The row of this minute; the next one begins. `dropped` samples have been lost to ourselves since
    /// the start.
    pub(crate) fn take(&mut self, now: Monotonic, dropped: u64) -> bufferbane_store::Health {
        let cpu_ns = counters::process_usage().map_or(0, |u| u.cpu_ns);
        let begun = Before {
            at: now,
            probe: self.probe,
            cpu_ns,
            dropped,
        };
        let began = std::mem::replace(&mut self.before, begun);
        let before = began.probe;
        let since_then = |now: u64, before: u64| now.saturating_sub(before);
        let mut row = bufferbane_store::Health {
            dropped_samples: since_then(dropped, began.dropped),
            socket_drops: since_then(self.probe.socket_drops, before.socket_drops),
            skipped_slots: since_then(self.probe.skipped_slots, before.skipped_slots),
            cpu_ns: since_then(cpu_ns, began.cpu_ns),
            wall_ns: now.saturating_since(began.at),
            sent_late: std::mem::take(&mut self.sent_late),
            unstamped: since_then(self.probe.unstamped, before.unstamped),
            probe_cpu_ns: since_then(self.probe.cpu_ns, before.cpu_ns),
            reflector_drops: std::mem::take(&mut self.reflector_drops),
            ..bufferbane_store::Health::default()
        };
        row.set_send_late(&std::mem::take(&mut self.send_late));
        let readings = self.stamps.lock().map(|mut r| std::mem::take(&mut *r));
        row.stamp_err_ns = readings
            .ok()
            .and_then(|r| r.errors())
            .map(|e| [e.kernel_ns, e.user_ns]);
        row
    }
}
