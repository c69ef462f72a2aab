//! What is counted of series, interfaces and events.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bufferbane_core::clock::Queueing;
use bufferbane_core::sample::{Flags, Sample, SeriesIndex, Status};
use bufferbane_store::{Event, EventId, SeriesInfo};

use super::buckets::Buckets;
use crate::probe::Health;
use crate::radio::Radio;

/// Series that are kept, with those that are no longer probed: more than can be probed at a time.
const KEPT_SERIES: usize = 1024;

/// What tells a series from others. Its address is not in it: a name server moves, and a provider's
/// first hop changes, and the series stays the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) interface: String,
    pub(super) target: String,
    pub(super) kind: &'static str,
    pub(super) family: u8,
    pub(super) dscp: u8,
    pub(super) size: u16,
}

impl Labels {
    fn of(info: &SeriesInfo) -> Self {
        Self {
            interface: info.interface.clone(),
            target: info.target.clone(),
            kind: info.kind.as_str(),
            family: info.family,
            dscp: info.dscp,
            size: info.size,
        }
    }
}

/// What became of the probes of a series since the daemon started.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Answered in time.
    pub(super) received: u64,
    /// Not answered in time.
    pub(super) lost: u64,
    /// Of these, those of which the far end said that it never had them.
    pub(super) lost_up: u64,
    /// And those of which it said that it had them.
    pub(super) lost_down: u64,
    /// Of the lost, those that were answered after all.
    pub(super) late: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) unsent: u64,
    pub(super) rtt: Buckets,
    pub(super) queue_up: Buckets,
    pub(super) queue_down: Buckets,
}

/// A series.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) labels: Arc<Labels>,
    pub(super) counts: Counts,
}

/// The counters of an interface at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The interface's index: another one has counters of its own.
    pub(crate) index: u32,
    /// Bytes sent.
    pub(crate) up_bytes: u64,
    /// Bytes received.
    pub(crate) down_bytes: u64,
}

/// What an interface carried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    read: Reading,
    /// Since it was first read, bytes.
    pub(super) up_bytes: u64,
    pub(super) down_bytes: u64,
}

/// Events of one kind at one interface.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Events {
    /// Begun since the start.
    pub(super) begun: u64,
    /// Of these, not over.
    pub(super) open: u64,
}

/// An event's interface, empty where it is the host, and its kind.
pub(super) type Place = (String, String);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meters {
    pub(super) series: Vec<Series>,
    /// Which of them the samples that come belong to.
    probed: HashMap<SeriesIndex, usize>,
    pub(super) carried: BTreeMap<String, Carried>,
    /// Wi-Fi interfaces that are connected.
    pub(super) radios: BTreeMap<String, Radio>,
    pub(super) events: BTreeMap<Place, Events>,
    open: BTreeMap<u64, Place>,
    /// The number after the highest one of any event.
    next_event: u64,
    /// What the probe thread said last.
    pub(super) probe: Health,
}

impl Meters {
    /// Samples of `index` belong to this series from now on.
    pub(crate) fn begin(&mut self, index: SeriesIndex, info: &SeriesInfo) {
        let labels = Labels::of(info);
        self.probed.remove(&index);
        let known = self.series.iter().position(|s| *s.labels == labels);
        let place = known.unwrap_or_else(|| self.room());
        if known.is_none() {
            let series = Series {
                labels: Arc::new(labels),
                counts: Counts::default(),
            };
            match self.series.get_mut(place) {
                Some(room) => *room = series,
                None => self.series.push(series),
            }
        }
        self.probed.insert(index, place);
    }

    /// Where another series goes: behind the others, or in the place of one that is not probed any more.
    fn room(&self) -> usize {
        let end = self.series.len();
        if end < KEPT_SERIES {
            return end;
        }
        let is_free = |n: &usize| !self.probed.values().any(|p| p == n);
        (0..end).find(is_free).unwrap_or(end)
    }

    /// They no longer come.
    pub(crate) fn end(&mut self, index: SeriesIndex) {
        self.probed.remove(&index);
    }

    /// Each series, and whether it is probed at present.
    pub(super) fn series(&self) -> impl Iterator<Item = (&Series, bool)> {
        let is_probed = |n: usize| self.probed.values().any(|p| *p == n);
        self.series
            .iter()
            .enumerate()
            .map(move |(n, s)| (s, is_probed(n)))
    }

    fn counts(&mut self, index: SeriesIndex) -> Option<&mut Counts> {
        let place = self.probed.get(&index)?;
        self.series.get_mut(*place).map(|s| &mut s.counts)
    }

    /// What became of a probe, with its queueing delay where that is known.
    pub(crate) fn sample(&mut self, sample: &Sample, queueing: Option<Queueing>) {
        let Some(c) = self.counts(sample.series) else {
            return;
        };
        match sample.status {
            Status::Ok => c.received += 1,
            Status::Late => {
                c.lost += 1;
                c.late += 1;
            }
            Status::Lost | Status::LostUp | Status::LostDown => c.lost += 1,
            Status::Duplicate => {
                c.duplicated += 1;
                return;
            }
            Status::Unsent => c.unsent += 1,
        }
        c.reordered += u64::from(sample.flags.contains(Flags::REORDERED));
        c.learn(sample);
        if let Some(q) = queueing {
            c.queue_up.add(q.up_ns);
            c.queue_down.add(q.down_ns);
        }
    }

    /// More became known of one that was lost.
    pub(crate) fn revise(&mut self, sample: &Sample) {
        if let Some(c) = self.counts(sample.series) {
            c.late += u64::from(sample.status == Status::Late);
            c.learn(sample);
        }
    }

    /// How Wi-Fi interfaces hear their access points now; those that are not named are not connected.
    pub(crate) fn radios<'a>(&mut self, radios: impl Iterator<Item = (&'a str, Radio)>) {
        self.radios.clear();
        self.radios
            .extend(radios.map(|(name, radio)| (name.to_owned(), radio)));
    }

    /// What an interface has carried by now. What it carried while nobody read, or before it came back
    /// with another index, is not known.
    pub(crate) fn carried(&mut self, interface: &str, read: Reading) {
        if let Some(c) = self.carried.get_mut(interface) {
            let before = std::mem::replace(&mut c.read, read);
            if before.index == read.index {
                c.up_bytes += read.up_bytes.saturating_sub(before.up_bytes);
                c.down_bytes += read.down_bytes.saturating_sub(before.down_bytes);
            }
        } else {
            let first = Carried {
                read,
                up_bytes: 0,
                down_bytes: 0,
            };
            self.carried.insert(interface.to_owned(), first);
        }
    }

    /// An event began, or what is known of it changed.
    pub(crate) fn event(&mut self, id: EventId, event: &Event) {
        let place = (event.interface.clone(), event.kind.clone());
        if id.0 >= self.next_event {
            self.next_event = id.0 + 1;
            self.events.entry(place.clone()).or_default().begun += 1;
        }
        if event.end_ns.is_none() {
            // It may be back.
            if self.open.insert(id.0, place.clone()).is_none() {
                self.events.entry(place).or_default().open += 1;
            }
        } else if let Some(place) = self.open.remove(&id.0)
            && let Some(events) = self.events.get_mut(&place)
        {
            events.open -= 1;
        }
    }

    /// The probe thread's report of every second.
    pub(crate) const fn health(&mut self, health: Health) {
        self.probe = health;
    }
}

impl Counts {
    /// What a sample tells as soon as it is known, at first or later.
    fn learn(&mut self, sample: &Sample) {
        match sample.status {
            Status::LostUp => self.lost_up += 1,
            Status::LostDown => self.lost_down += 1,
            _ => {}
        }
        if let Some(rtt_ns) = sample.rtt_ns {
            self.rtt.add(rtt_ns);
        }
    }
}
