//! What is shown of the recorder while it runs: the status, the meters, and how well it does itself.

use std::sync::Mutex;

use bufferbane_core::clock::Queueing;
use bufferbane_core::sample::Sample;
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::{clock, counters};
use bufferbane_store::{Event, EventId, Severity, Writer};

use super::{Fact, Recorder, trust, wall};
use crate::metrics::Meters;
use crate::notify;
use crate::status::{SizeStatus, Status, StoreStatus};

impl Recorder {
    pub(super) fn each_second(&mut self, now: Monotonic) {
        let trusted = trust();
        if trusted > self.trust
            && let Some(w) = &mut self.writer
        {
            self.trust = trusted;
            w.anchor(now, clock::wall_now(), trusted);
        }
        if self.minute.is_over(now) {
            self.write_health(now);
        }
        self.sum_up_reflector_drops(now);
        self.look_at_host(now, false, counters::host_counters);
        self.note_unwatched(now);
        self.minute.tell_watchdog(now);
        self.alerts.tick();
        let zone = &self.settings.zone;
        self.watcher
            .local_time(wall::local_offset_ns(now, trusted, zone));
        for live in self.live.values_mut() {
            live.next_second();
        }
        if let Ok(mut meters) = self.meters.lock() {
            meters.health(self.minute.probe);
            for (interface, reading) in self.households.readings() {
                meters.carried(interface, reading);
            }
            meters.radios(self.households.radios().now());
        }
        let usage = counters::process_usage().ok();
        let store = StoreStatus {
            // Known since the start.
            path: String::new(),
            file_bytes: self.writer.as_ref().map_or(0, Writer::file_bytes),
            uncommitted_samples: self.writer.as_ref().map_or(0, Writer::uncommitted),
            dropped_samples: self.dropped_in_all(),
            full: self.open_events.contains_key("store_full"),
        };
        let Ok(mut status) = self.status.lock() else {
            return;
        };
        status.series = self.live.values().cloned().collect();
        status.load = self.households.carried(now);
        let path = std::mem::take(&mut status.store.path);
        status.store = StoreStatus { path, ..store };
        status.held = self.held.status(now);
        let wall_ns = clock::wall_now();
        let wall_of = |at: Monotonic| wall_ns.saturating_sub_unsigned(now.saturating_since(at));
        status.sizes = self
            .sizes
            .known()
            .map(|known| SizeStatus {
                size: known.size.clone(),
                first_ns: wall_of(known.first),
                last_ns: wall_of(known.last),
                searches: known.searches,
            })
            .collect();
        status.size_search_bytes = self.sizes.bytes();
        status.size_search_month_bytes = self.sizes.month_bytes(now);
        status.close_look_month_bytes = self.walks.close_month_bytes(now);
        status.close_looks_skipped = self.walks.close_skipped();
        self.walks.set_rooms(status.close_look_rooms.clone());
        status.wifi = self
            .households
            .radios()
            .now()
            .map(|(name, radio)| (name.to_owned(), radio))
            .collect();
        status.queue_length = self.reports.slots() as u64;
        status.cpu_ns = usage.as_ref().map_or(0, |u| u.cpu_ns);
        status.resident_bytes = usage.as_ref().map_or(0, |u| u.resident_bytes);
        status.drops = self
            .minute
            .probe
            .drops
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(r, n)| (r.as_str().to_owned(), n))
            .collect();
        let lost = status
            .series
            .iter()
            .filter(|s| s.last_second.lost > 0)
            .count();
        notify::status(&format!(
            "{} series, {lost} with loss just now",
            status.series.len()
        ));
    }

    /// Counts something.
    pub(super) fn meter(&self, count: impl FnOnce(&mut Meters)) {
        if let Ok(mut meters) = self.meters.lock() {
            count(&mut meters);
        }
    }

    /// Samples lost to ourselves since the start: on the way to the recorder, in it, and for want of
    /// room in the store.
    fn dropped_in_all(&self) -> u64 {
        let shed = self.writer.as_ref().map_or(0, Writer::shed);
        self.dropped + self.minute.probe.dropped_reports + shed
    }

    pub(super) fn write_health(&mut self, now: Monotonic) {
        let row = self.minute.take(now, self.dropped_in_all());
        let dropped = row.dropped_samples;
        if let Some(w) = &mut self.writer
            && let Err(e) = w.health(now, &row)
        {
            log::error!("a minute of the daemon's own health is not recorded: {e}");
        }
        if dropped > 0 {
            let fact = Fact {
                values: vec![("samples", dropped.into())],
                kind: "samples_dropped",
                severity: Severity::Warning,
                interface: String::new(),
                target: None,
                text: format!(
                    "{dropped} samples were dropped: the recorder did not keep up, or could not write \
                     them for too long"
                ),
            };
            self.fact(now, None, fact, false);
        }
    }

    pub(super) fn note_live(&mut self, sample: &Sample, queueing: Option<Queueing>) {
        self.minute.note(sample);
        self.meter(|m| m.sample(sample, queueing));
        if let Some(live) = self.live.get_mut(&sample.series) {
            live.add(sample, queueing);
        }
    }
}

/// Shows an event to those who look at the daemon now, and counts it.
pub(super) fn note(status: &Mutex<Status>, meters: &Mutex<Meters>, id: EventId, event: &Event) {
    if let Ok(mut meters) = meters.lock() {
        meters.event(id, event);
    }
    if let Ok(mut status) = status.lock() {
        status.note(id, event, clock::wall_now());
    }
}
