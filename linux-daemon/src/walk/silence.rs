//! Uplinks that have fallen silent.

use std::collections::BTreeMap;

use bufferbane_core::sample::SeriesIndex;
use bufferbane_core::time::Monotonic;

use super::concerned::About;
use super::worker::Thoroughness;
use super::{S, Walks};

/// An uplink is silent if nobody beyond it has answered for this many slots of its fastest series: what is shorter can
/// be no outage.
const SILENT_SLOTS: u64 = 3;
/// And for as long as an answer may take to be known, ns: two slots (that of a stream may come with the next one), at
/// least and at most so much.
const KNOWN_SLOTS: u64 = 2;
const KNOWN_NS: (u64, u64) = (S / 4, S);

/// How long nobody may have answered, ns.
fn patience_ns(interval_ns: u64) -> u64 {
    let known_ns = KNOWN_SLOTS.saturating_mul(interval_ns);
    let known_ns = known_ns.clamp(KNOWN_NS.0, KNOWN_NS.1);
    SILENT_SLOTS
        .saturating_mul(interval_ns)
        .saturating_add(known_ns)
}

/// A series that says whether an uplink is silent.
#[derive(Debug)]
pub(super) struct Ear {
    pub(super) interface: String,
    pub(super) interval_ns: u64,
    pub(super) heard: Option<Monotonic>,
}

impl Walks {
    /// A series' probe was answered at `at`.
    pub(super) fn heard(&mut self, index: SeriesIndex, at: Monotonic) {
        if let Some(ear) = self.ears.get_mut(&index) {
            ear.heard = ear.heard.max(Some(at));
        }
    }

    /// Notices uplinks that have fallen silent, before probes count as lost.
    pub(super) fn listen(&mut self, now: Monotonic) {
        let mut heard: BTreeMap<&str, (Monotonic, u64)> = BTreeMap::new();
        for ear in self.ears.values() {
            if let Some(at) = ear.heard {
                let of = heard.entry(&ear.interface).or_insert((at, ear.interval_ns));
                *of = (of.0.max(at), of.1.min(ear.interval_ns));
            }
        }
        let mut fallen = Vec::new();
        for (interface, (at, interval_ns)) in heard {
            let Some(line) = self.lines.get_mut(interface) else {
                continue;
            };
            let silent = now.saturating_since(at) > patience_ns(interval_ns);
            if silent && !line.silent {
                fallen.push(interface.to_owned());
            } else if !silent {
                self.close.is_heard(interface);
            }
            line.silent = silent;
        }
        for interface in fallen {
            let ear = |(_, e): &(&SeriesIndex, &Ear)| e.interface == interface;
            let ears = self.ears.iter().filter(ear).map(|(index, _)| *index);
            let about = About::all(&interface, ears.min().into());
            if let Some(key) = self.worst(about) {
                self.ask(now, key, Vec::new(), Thoroughness::Quick);
            }
            let hosts = self.concerned(about);
            self.close.falls_silent(now, &interface, hosts);
        }
    }
}
