//! Keeps watch: feeds what is recorded to the detectors of core, and makes events for people of what
//! they tell.

mod role;
mod told;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use bufferbane_core::clock::Queueing;
use bufferbane_core::detect::cable::Record;
use bufferbane_core::detect::{
    Capacity, Kind, LineState, Load, MAX_LINES, MAX_SERIES, Notice, PastHour, Phase, Probe, Role,
    SeriesFacts, SeriesState, Thresholds, Watch, clipped,
};
use bufferbane_core::household::Second;
use bufferbane_core::sample::{Sample, SeriesIndex};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, EventId, SeriesInfo, Severity};

use crate::config::timeout_ns;
use crate::episode::Loads;
use crate::numbers::Numbers;
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

type Detectors = Watch<Vec<SeriesState>, Vec<LineState>>;

/// One series as it is watched.
struct Watched {
    place: u8,
    line: u8,
    info: SeriesInfo,
    role: Role,
}

/// See the module.
pub(crate) struct Watcher {
    watch: Detectors,
    series: HashMap<SeriesIndex, Watched>,
    /// Those that are gone, by whose names events may still be told: one of a place at most.
    gone: Vec<Watched>,
    /// Those that there was no room for; there may be later.
    unwatched: BTreeMap<SeriesIndex, SeriesInfo>,
    lines: Numbers,
    targets: Numbers,
    /// The next hops of default routes, by interface.
    next_hops: BTreeSet<(String, IpAddr)>,
    /// What has been told and may change, by its number in the watch.
    told: BTreeMap<u32, Known>,
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
            gone: Vec::new(),
            unwatched: BTreeMap::new(),
            lines: Numbers::default(),
            targets: Numbers::default(),
            next_hops: BTreeSet::new(),
            told: BTreeMap::new(),
            loads: Loads::default(),
            mobile: BTreeSet::new(),
        }
    }

    /// From where on trouble is told from now on.
    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.watch.set_thresholds(thresholds);
    }

    /// These are the next hops of the default routes, by interface, from now on.
    pub(crate) fn set_next_hops(&mut self, next_hops: BTreeSet<(String, IpAddr)>) {
        self.next_hops = next_hops;
        for w in self.series.values_mut() {
            let role = role(&w.info, &self.next_hops);
            if w.role != role {
                w.role = role;
                self.watch.set_role(w.place, role);
            }
        }
    }

    /// A series that is probed from now on.
    pub(crate) fn add(&mut self, now: Monotonic, index: SeriesIndex, info: &SeriesInfo) {
        self.remove(now, index);
        if info.kind.asks_a_service() {
            // What a service takes, or fails to do, is not what the line does.
            return;
        }
        if !self.watch(now, index, info) {
            if self.unwatched.is_empty() {
                log::warn!("{}", unwatched(info));
            }
            self.unwatched.insert(index, info.clone());
        }
    }

    /// Watches a series, if there is room.
    fn watch(&mut self, now: Monotonic, index: SeriesIndex, info: &SeriesInfo) -> bool {
        let Some(line) = self.line_of_series(now, &info.interface) else {
            return false;
        };
        let facts = SeriesFacts {
            line,
            target: self.targets.of(&info.target),
            role: role(info, &self.next_hops),
            family: info.family,
            size: info.size,
            interval_ns: info.interval_ns,
            timeout_ns: timeout_ns(info.interval_ns),
        };
        let Some(place) = self.watch.add_series(now, facts) else {
            return false;
        };
        self.gone.retain(|g| g.place != place);
        if info.interface_kind == "cellular" {
            self.mobile.insert(line);
        }
        let watched = Watched {
            place,
            line,
            info: info.clone(),
            role: facts.role,
        };
        self.series.insert(index, watched);
        true
    }

    /// The series that are recorded and not watched for want of room, and that in words.
    pub(crate) fn unwatched(&self) -> impl Iterator<Item = (&SeriesInfo, String)> {
        self.unwatched.values().map(|info| (info, unwatched(info)))
    }

    /// A series is no longer probed.
    pub(crate) fn remove(&mut self, now: Monotonic, index: SeriesIndex) {
        self.unwatched.remove(&index);
        if let Some(w) = self.series.remove(&index) {
            self.watch.remove_series(now, w.place);
            self.gone.retain(|g| g.place != w.place);
            self.gone.push(w);
        }
    }

    /// A series answered before this run, and these hours were so, in the order of time.
    pub(crate) fn answered_before(
        &mut self,
        index: SeriesIndex,
        hours: impl Iterator<Item = PastHour>,
    ) {
        if let Some(w) = self.series.get(&index) {
            self.watch.handle_past_answer(w.place);
            for hour in hours {
                self.watch.handle_past_hour(w.place, &hour);
            }
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
        if let Some(line) = self.line(interface) {
            self.watch.handle_test_begin(line, at);
        }
    }

    /// And no longer.
    pub(crate) fn load_ends(&mut self, interface: &str, at: Monotonic) {
        if let Some(line) = self.line(interface) {
            self.watch.handle_test_end(line, at);
        }
    }

    /// A packet train is on its way through an interface from `at` on.
    pub(crate) fn train_begins(&mut self, interface: &str, at: Monotonic) {
        if let Some(line) = self.line(interface) {
            self.watch.handle_train_begin(line, at);
        }
    }

    /// And no longer.
    pub(crate) fn train_ends(&mut self, interface: &str, at: Monotonic) {
        if let Some(line) = self.line(interface) {
            self.watch.handle_train_end(line, at);
        }
    }

    /// A packet train found a line to pass at `rate_bps`.
    pub(crate) fn train(
        &mut self,
        at: Monotonic,
        found: &bufferbane_store::Capacity,
        rate_bps: u64,
    ) {
        let Some(line) = self.line(&found.interface) else {
            return;
        };
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
        let Some(line) = self.line(interface) else {
            return;
        };
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
        let Some(line) = self.line(interface) else {
            return false;
        };
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
        let (Some(line), Some(rate_bps)) = (self.line(&found.interface), found.sustained_bps)
        else {
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
        let Some(line) = self.line(interface) else {
            return;
        };
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

    /// The number of an interface's line, where it has one or there is one left.
    fn line(&mut self, interface: &str) -> Option<u8> {
        if self.lines.find(interface).is_none() && self.lines.count() >= MAX_LINES {
            return None;
        }
        u8::try_from(self.lines.of(interface)).ok()
    }

    /// The same for one that is probed: where there is none left it gets that of one that is no longer.
    fn line_of_series(&mut self, now: Monotonic, interface: &str) -> Option<u8> {
        if let Some(line) = self.line(interface) {
            return Some(line);
        }
        let used: BTreeSet<u8> = self.series.values().map(|w| w.line).collect();
        let unused =
            (0..MAX_LINES as u8).find(|n| !used.contains(n) && self.watch.remove_line(now, *n))?;
        self.lines.free(unused.into());
        self.loads.forget(unused);
        self.mobile.remove(&unused);
        self.line(interface)
    }

    /// Local time is monotonic time plus this, where the clock can be believed.
    pub(crate) const fn local_time(&mut self, offset_ns: Option<i64>) {
        self.watch.handle_local_time(offset_ns);
    }

    /// What is new by now.
    pub(crate) fn news(&mut self, now: Monotonic) -> Vec<Notice> {
        let news = self.notices(|w| w.handle_timeout(now));
        let unwatched = std::mem::take(&mut self.unwatched);
        for (index, info) in unwatched {
            if !self.watch(now, index, &info) {
                self.unwatched.insert(index, info);
            }
        }
        news
    }

    /// What lines that may be cables have shown, with their interfaces.
    pub(crate) fn records(&mut self) -> Vec<(String, Record)> {
        let records = std::iter::from_fn(|| self.watch.poll_record());
        records
            .filter(|r| !self.mobile.contains(&r.line))
            .filter_map(|r| Some((self.lines.name(r.line.into())?.to_owned(), r)))
            .collect()
    }

    /// Recording ends: what there is to tell by what was seen, and all that was summed up is told as records.
    pub(crate) fn end(&mut self, now: Monotonic) -> Vec<Notice> {
        self.notices(|w| w.handle_end(now))
    }

    /// What there is to tell while `handle` says that there is more.
    fn notices(&mut self, handle: impl Fn(&mut Detectors) -> bool) -> Vec<Notice> {
        let mut news = Vec::new();
        loop {
            let more = handle(&mut self.watch);
            news.extend(std::iter::from_fn(|| self.watch.poll_notice()));
            if !more {
                return news;
            }
        }
    }

    /// A series beyond the access line that shows a notice's event, where one does.
    pub(crate) fn seen_at(&self, notice: &Notice) -> Option<SeriesIndex> {
        let shows = |w: &Watched| w.role == Role::Far && notice.event.series.contains(w.place);
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
        let far = self.series.values().filter(|w| w.role == Role::Far);
        let of_line: BTreeSet<(&str, bool)> = far
            .filter(|w| w.line == notice.event.line)
            .map(|w| {
                (
                    w.info.target.as_str(),
                    notice.event.series.contains(w.place),
                )
            })
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

/// What a store has of `notices` of series that are watched in this order: for what judges events, to be held against
/// lines that know what they did.
#[must_use]
pub fn events_of(series: &[SeriesInfo], notices: &[Notice]) -> Vec<Event> {
    let mut watcher = Watcher::new(Monotonic::ZERO, Thresholds::default());
    for (n, info) in (0..).zip(series) {
        watcher.add(Monotonic::ZERO, SeriesIndex(n), info);
    }
    notices.iter().map(|n| watcher.event(0, n)).collect()
}

/// That a series is recorded only.
fn unwatched(info: &SeriesInfo) -> String {
    format!(
        "{} is recorded but not watched, so that no trouble of it is told: there is room for {MAX_SERIES} series of \
         {MAX_LINES} interfaces at a time",
        info.label()
    )
}

#[cfg(test)]
mod tests;
