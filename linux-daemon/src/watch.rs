//! Keeps watch: feeds what is recorded to the detectors of core, and makes events for people of what
//! they tell.

mod role;
mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bufferbane_core::clock::Queueing;
use bufferbane_core::detect::cable::Record;
use bufferbane_core::detect::{
    Capacity, Kind, LineState, Load, MAX_LINES, MAX_SERIES, Notice, Phase, Probe, Role,
    SeriesFacts, SeriesState, Thresholds, Watch, clipped,
};
use bufferbane_core::household::Second;
use bufferbane_core::sample::{Sample, SeriesIndex};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, EventId, SeriesInfo, Severity};

use crate::config::timeout_ns;
use crate::episode::Loads;
use crate::recorder::Found;
use role::role;
pub(crate) use role::{is_far, is_far_at};

/// Events that may still change.
const OPEN: usize = 256;

/// What has been told of a notice's event, as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: EventId,
    /// At its worst.
    pub(crate) severity: Severity,
    /// Whether detectors have seen its end, and nothing of it since.
    pub(crate) is_over: bool,
    /// When that began which another has told and this is a part of, ns; `None` where it was told as found.
    pub(crate) part_of_ns: Option<u64>,
}

impl Known {
    /// Told as it was found.
    pub(crate) fn own(id: EventId, event: &Event) -> Self {
        Self {
            id,
            severity: event.severity,
            is_over: event.end_ns.is_some(),
            part_of_ns: None,
        }
    }

    /// Found by detectors, but told by others, as of something that began at `since_ns`.
    pub(crate) fn part(id: EventId, event: &Event, since_ns: u64) -> Self {
        Self {
            part_of_ns: Some(since_ns),
            ..Self::own(id, event)
        }
    }

    /// Whether `event`, which is the same, is there again after its end.
    pub(crate) const fn is_back(&self, event: &Event) -> bool {
        self.is_over && event.end_ns.is_none()
    }
}

/// One series as it is watched.
struct Watched {
    place: u8,
    interface: String,
    target: String,
    /// 4 or 6.
    family: u8,
    near: bool,
}

/// See the module.
pub(crate) struct Watcher {
    watch: Watch<Vec<SeriesState>, Vec<LineState>>,
    series: HashMap<SeriesIndex, Watched>,
    lines: Vec<String>,
    targets: Vec<String>,
    /// What has been told and may change, by its number in the watch.
    told: BTreeMap<u32, Known>,
    full: bool,
    loads: Loads,
    /// Lines that are surely no cables.
    mobile: BTreeSet<u8>,
}

impl Watcher {
    pub(crate) fn new(now: Monotonic, thresholds: Thresholds) -> Self {
        Self {
            watch: Watch::new(
                now,
                thresholds,
                // One by one: clones of an empty one would be written out whole, and their memory with
                // them taken up.
                std::iter::repeat_with(SeriesState::default)
                    .take(MAX_SERIES)
                    .collect(),
                std::iter::repeat_with(LineState::default)
                    .take(MAX_LINES)
                    .collect(),
            ),
            series: HashMap::new(),
            lines: Vec::new(),
            targets: Vec::new(),
            told: BTreeMap::new(),
            full: false,
            loads: Loads::default(),
            mobile: BTreeSet::new(),
        }
    }

    /// A series that is probed from now on.
    pub(crate) fn add(&mut self, now: Monotonic, index: SeriesIndex, info: &SeriesInfo) {
        self.remove(now, index);
        if info.kind.asks_a_service() {
            // What a service takes, or fails to do, is not what the line does.
            return;
        }
        let facts = SeriesFacts {
            line: self.line(&info.interface),
            target: u16::try_from(number(&mut self.targets, &info.target)).unwrap_or(u16::MAX),
            role: role(info),
            family: info.family,
            size: info.size,
            interval_ns: info.interval_ns,
            timeout_ns: timeout_ns(info.interval_ns),
        };
        if info.interface_kind == "cellular" {
            self.mobile.insert(facts.line);
        }
        let Some(place) = self.watch.add_series(now, facts) else {
            if !std::mem::replace(&mut self.full, true) {
                log::warn!(
                    "{} is recorded but not watched: there is room for {MAX_SERIES} series of \
                     {MAX_LINES} interfaces",
                    info.label()
                );
            }
            return;
        };
        let watched = Watched {
            place,
            interface: info.interface.clone(),
            target: info.target.clone(),
            family: info.family,
            near: facts.role != Role::Far,
        };
        self.series.insert(index, watched);
    }

    /// A series is no longer probed.
    pub(crate) fn remove(&mut self, now: Monotonic, index: SeriesIndex) {
        if let Some(w) = self.series.remove(&index) {
            self.watch.remove_series(now, w.place);
            self.full = false;
        }
    }

    /// What became of a probe, with its queueing delay where that is known.
    pub(crate) fn sample(&mut self, sample: &Sample, queueing: Option<Queueing>) {
        if let Some(w) = self.series.get(&sample.series) {
            let mut probe = Probe::of(sample);
            probe.queue_up_ns = queueing.map(|q| clipped(q.up_ns));
            probe.queue_down_ns = queueing.map(|q| clipped(q.down_ns));
            self.watch.handle_probe(w.place, probe);
        }
    }

    /// More became known of one.
    pub(crate) fn revise(&mut self, sample: &Sample) {
        if let Some(w) = self.series.get(&sample.series) {
            self.watch.handle_revision(w.place, Probe::of(sample));
        }
    }

    /// A throughput test loads an interface from `at` on.
    pub(crate) fn load_begins(&mut self, interface: &str, at: Monotonic) {
        let line = self.line(interface);
        self.watch.handle_test_begin(line, at);
    }

    /// And no longer.
    pub(crate) fn load_ends(&mut self, interface: &str, at: Monotonic) {
        let line = self.line(interface);
        self.watch.handle_test_end(line, at);
    }

    /// A packet train is on its way through an interface from `at` on.
    pub(crate) fn train_begins(&mut self, interface: &str, at: Monotonic) {
        let line = self.line(interface);
        self.watch.handle_train_begin(line, at);
    }

    /// And no longer.
    pub(crate) fn train_ends(&mut self, interface: &str, at: Monotonic) {
        let line = self.line(interface);
        self.watch.handle_train_end(line, at);
    }

    /// A packet train found a line to pass at `rate_bps`.
    pub(crate) fn train(
        &mut self,
        at: Monotonic,
        found: &bufferbane_store::Capacity,
        rate_bps: u64,
    ) {
        let line = self.line(&found.interface);
        let found = Capacity {
            at,
            up: found.direction == bufferbane_store::Direction::Up,
            rate_bps,
            by_train: true,
            others_bps: 0,
            speaks_for_ns: Capacity::MOMENT_NS,
        };
        self.watch.handle_capacity(line, found);
    }

    /// What an interface carried over a second; whether that is everybody's traffic, so that little of
    /// it is an idle line.
    pub(crate) fn load(&mut self, interface: &str, second: Second, everybody: bool) {
        let line = self.line(interface);
        let load = Load {
            up_bps: second.up_bps,
            down_bps: second.down_bps,
        };
        let ways = self.watch.handle_load(line, second.at, load, everybody);
        // Where that is not everybody's traffic, only what is surely load.
        if ways.any() || everybody {
            self.loads.add(line, second.at, ways, everybody);
        }
    }

    /// Whether so much over a second is load for an interface's line.
    #[cfg(test)]
    pub(crate) fn is_load(&mut self, interface: &str, second: Second) -> bool {
        let line = self.line(interface);
        let load = Load {
            up_bps: second.up_bps,
            down_bps: second.down_bps,
        };
        self.watch.handle_load(line, second.at, load, true).any()
    }

    /// How much a line was found to carry, what others carried meanwhile, bit/s, and for how long that speaks of it,
    /// ns.
    pub(crate) fn capacity(
        &mut self,
        at: Monotonic,
        found: &bufferbane_store::Capacity,
        others_bps: u64,
        speaks_for_ns: u64,
    ) {
        let line = self.line(&found.interface);
        let Some(rate_bps) = found.sustained_bps else {
            return;
        };
        let found = Capacity {
            at,
            up: found.direction == bufferbane_store::Direction::Up,
            rate_bps,
            by_train: false,
            others_bps,
            speaks_for_ns,
        };
        self.watch.handle_capacity(line, found);
    }

    /// What an interface was found to carry before this run, each with its local time, in the order of
    /// time.
    pub(crate) fn recall(&mut self, interface: &str, past: Vec<(Option<u64>, Found)>) {
        let line = self.line(interface);
        let past = past.into_iter().filter_map(|(local_ns, before)| {
            let found = before.capacity;
            let by_train = found.method == bufferbane_store::Method::Train;
            let rate_bps = if by_train {
                found.burst_bps
            } else {
                found.sustained_bps?
            };
            let found = Capacity {
                at: Monotonic::from_nanos(u64::try_from(before.at_ns).ok()?),
                up: found.direction == bufferbane_store::Direction::Up,
                rate_bps,
                by_train,
                others_bps: before.others_bps,
                speaks_for_ns: Capacity::MOMENT_NS,
            };
            Some((local_ns, found))
        });
        self.watch.handle_past_capacities(line, past);
    }

    fn line(&mut self, interface: &str) -> u8 {
        u8::try_from(number(&mut self.lines, interface)).unwrap_or(u8::MAX)
    }

    /// Local time is monotonic time plus this, where the clock can be believed.
    pub(crate) const fn local_time(&mut self, offset_ns: Option<i64>) {
        self.watch.handle_local_time(offset_ns);
    }

    /// What is new by now.
    pub(crate) fn news(&mut self, now: Monotonic) -> Vec<Notice> {
        let mut news = Vec::new();
        loop {
            let more = self.watch.handle_timeout(now);
            news.extend(std::iter::from_fn(|| self.watch.poll_notice()));
            if !more {
                return news;
            }
        }
    }

    /// What lines that may be cables have shown, with their interfaces.
    pub(crate) fn records(&mut self) -> Vec<(String, Record)> {
        let records = std::iter::from_fn(|| self.watch.poll_record());
        records
            .filter(|r| !self.mobile.contains(&r.line))
            .filter_map(|r| Some((self.lines.get(usize::from(r.line))?.clone(), r)))
            .collect()
    }

    /// Recording ends: all that was summed up is told.
    pub(crate) fn end(&mut self, now: Monotonic) {
        self.watch.handle_end(now);
    }

    /// A series beyond the access line that shows a notice's event, where one does.
    pub(crate) fn seen_at(&self, notice: &Notice) -> Option<SeriesIndex> {
        let shows = |w: &Watched| !w.near && notice.event.series.contains(w.place);
        let all = self.series.iter().filter(|(_, w)| shows(w));
        all.map(|(index, _)| *index).min()
    }

    /// Whether half of the targets beyond the access line show a notice's event, so that it is of the line and not of
    /// one of them.
    pub(crate) fn is_of_line(&self, notice: &Notice) -> bool {
        // Of an outage all are, whoever is named.
        if matches!(notice.event.kind, Kind::Outage | Kind::MicroOutage) {
            return true;
        }
        let line = self.lines.get(usize::from(notice.event.line));
        let far = self.series.values().filter(|w| !w.near);
        let of_line: BTreeSet<(&str, bool)> = far
            .filter(|w| Some(&w.interface) == line)
            .map(|w| (w.target.as_str(), notice.event.series.contains(w.place)))
            .collect();
        let all: BTreeSet<&str> = of_line.iter().map(|t| t.0).collect();
        let showing = of_line.iter().filter(|t| t.1).count();
        // Who asks nobody but the gateway hears of the line from it alone.
        2 * showing >= all.len()
    }

    /// What was told of it before, unless this is new.
    pub(crate) fn told_before(&self, notice: &Notice) -> Option<Known> {
        self.told
            .get(&notice.id)
            .copied()
            .filter(|_| notice.phase != Phase::Begin)
    }

    /// This is told of it from now on.
    pub(crate) fn remember(&mut self, notice: &Notice, known: Known) {
        self.told.insert(notice.id, known);
        if self.told.len() > OPEN {
            let watch = &self.watch;
            self.told
                .retain(|id, known| !known.is_over || watch.may_change(*id));
        }
        // Only where ends could not be told, which the watch counts.
        if self.told.len() > OPEN {
            self.told.pop_first();
        }
    }
}

fn number(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|n| n == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests;
