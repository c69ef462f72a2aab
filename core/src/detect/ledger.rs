//! Open events: the same trouble of one line is one event, whichever of its series show it, and
//! stays the same one where it comes back within the hold-down. What others show after its end is another trouble.

use heapless::{Deque, Vec};

use super::edge::Edge;
use super::event::{
    Direction, Event, Finding, Kind, MEASURED_BY, Notice, PROBES, Phase, SeriesSet, Value, Values,
    WELL_LINE, set,
};
use super::{MAX_LINES, MAX_SERIES};
use crate::time::Monotonic;

/// Events that are open or may yet come back.
const OPEN: usize = 64;
/// Notices that wait to be polled.
const NOTICES: usize = 48;
/// Room for notices that one step needs at most.
pub(super) const STEP: usize = 24;
const S: u64 = 1_000_000_000;
/// What targets of a line show of a change of the way comes within this time, ns: each is seen with its next probe.
const ONE_CHANGE_NS: u64 = 60 * S;
/// So many changes of ways are told in a day for each line: what comes then is counted in the last of them.
const CHANGES: usize = 4;
const DAY_NS: u64 = 86_400 * S;

#[derive(Clone, Debug)]
struct Open {
    id: u32,
    /// The series that have shown it, as far as they are probed.
    members: SeriesSet,
    /// The series that show it now.
    active: SeriesSet,
    start: Edge,
    /// The latest end of those that no longer do.
    ended: Edge,
    /// What speaks for up and for down.
    weights: (u64, u64),
    /// Whether more of its kind are counted in it, however much later they come that day.
    is_last: bool,
    event: Event,
}

impl Open {
    /// Whether it is the one of its line and kind that goes on now.
    fn lasts(&self, line: u8, kind: Kind) -> bool {
        self.event.line == line && self.event.kind == kind && !self.active.is_empty()
    }

    /// Whether `f` is this trouble: that lasts, or `f` began before its end, or it is back where it was. `f` was found at
    /// `series`; `twins` are all series to the same target.
    fn takes(&self, series: u8, twins: SeriesSet, f: &Finding) -> bool {
        let began_before_its_end = || {
            let grain_ns = f.grain_ns + self.ended.grain_ns;
            f.start.saturating_sub(grain_ns) <= self.ended.at
        };
        let is_back = || match f.kind {
            // These are of the line, whoever shows them.
            Kind::Outage | Kind::Bufferbloat | Kind::UploadDegraded | Kind::DownloadDegraded => {
                true
            }
            // One target may be reached by several series.
            Kind::RoutingFault => self.members.iter().any(|m| twins.contains(m)),
            // Of all that lie behind it, or one too many.
            Kind::RouteChange => {
                self.members.contains(series)
                    || f.start <= self.ended.at.saturating_add(ONE_CHANGE_NS)
                    || self.is_last
            }
            _ => self.members.contains(series),
        };
        !self.active.is_empty() || began_before_its_end() || is_back()
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    hold_down_ns: u64,
    next_id: u32,
    /// The target of each series.
    targets: [u16; MAX_SERIES],
    open: Vec<Open, OPEN>,
    /// When changes of ways were told of each line, of the last day.
    changes: [Deque<Monotonic, CHANGES>; MAX_LINES],
    notices: Deque<Notice, NOTICES>,
    /// Events that there was no room for.
    overflow: u64,
}

impl Ledger {
    pub(crate) const fn new(hold_down_ns: u64) -> Self {
        Self {
            hold_down_ns,
            next_id: 0,
            targets: [0; MAX_SERIES],
            open: Vec::new(),
            changes: [const { Deque::new() }; MAX_LINES],
            notices: Deque::new(),
            overflow: 0,
        }
    }

    pub(crate) const fn set_hold_down(&mut self, hold_down_ns: u64) {
        self.hold_down_ns = hold_down_ns;
    }

    pub(crate) const fn overflow(&self) -> u64 {
        self.overflow
    }

    /// `series` is probed from now on.
    pub(crate) fn add(&mut self, series: u8, target: u16) {
        if let Some(t) = self.targets.get_mut(usize::from(series)) {
            *t = target;
        }
    }

    /// All series to the target of `series`, with that one.
    fn twins(&self, series: u8) -> SeriesSet {
        let own = self.targets.get(usize::from(series));
        let mut twins = SeriesSet::default();
        for n in (0..).zip(&self.targets).filter(|(_, t)| Some(*t) == own) {
            twins.insert(n.0);
        }
        twins
    }

    /// Whether more may yet be told of an event.
    pub(crate) fn may_change(&self, id: u32) -> bool {
        self.open.iter().any(|o| o.id == id)
    }

    pub(crate) fn poll(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.notices.len() + STEP <= NOTICES
    }

    /// One that waits and is no begin is brought up to date instead: under heavy loss an event ends and
    /// goes on more often within a step than there is room for. Nor is a moment told in two halves.
    fn tell(&mut self, id: u32, phase: Phase, event: Event) {
        let mut waiting = self.notices.iter_mut();
        let is_moment = event.kind == Kind::RouteChange;
        if let Some(n) = waiting.find(|n| n.id == id && (n.phase != Phase::Begin || is_moment)) {
            if n.phase != Phase::Begin {
                n.phase = phase;
            }
            n.event = event;
            return;
        }
        if self.notices.push_back(Notice { id, phase, event }).is_err() {
            self.overflow += 1;
        }
    }

    /// `series` of `line` shows this trouble; to be said again whenever more is known of it.
    pub(crate) fn raise(&mut self, line: u8, series: u8, f: Finding) {
        let twins = self.twins(series);
        let found = self
            .open
            .iter_mut()
            .filter(|o| o.event.line == line && o.event.kind == f.kind)
            .filter(|o| o.takes(series, twins, &f))
            // What lasts comes first: so there is one of a line and kind that does.
            .max_by_key(|o| (!o.active.is_empty(), o.id));
        let Some(open) = found else {
            let mut members = SeriesSet::default();
            members.insert(series);
            let mut event = event_of(line, members, &f);
            measured_by(&mut event.values, series);
            return self.begin(members, event, &f);
        };
        let before = open.event.clone();
        open.start = open.start.earlier(f.edge());
        open.weights.0 += f.weights.0;
        open.weights.1 += f.weights.1;
        let e = &mut open.event;
        e.start = open.start.at;
        e.end = None;
        e.severity = e.severity.max(f.severity);
        e.direction = if open.weights == (0, 0) {
            joined(e.direction, f.direction)
        } else {
            Direction::of_weights(open.weights.0, open.weights.1)
        };
        e.series.insert(series);
        open.active.insert(series);
        open.members.insert(series);
        let changes = changes(e) + 1;
        // Who sent most probes knows a share best: what found few of them lost may just have had an unlucky moment.
        // And what makes it worse says how bad it is.
        if f.severity > before.severity || probes(&f.values) >= probes(&e.values) {
            for (name, value) in &f.values {
                set(&mut e.values, name, *value);
            }
            measured_by(&mut e.values, series);
        }
        if f.kind == Kind::RouteChange {
            set(&mut e.values, CHANGED, Value::Number(changes));
        }
        let news = before.end.is_some()
            || before.start != e.start
            || before.severity != e.severity
            || before.direction != e.direction
            || before.series != e.series;
        if news {
            let (id, event) = (open.id, open.event.clone());
            self.tell(id, Phase::Update, event);
        }
    }

    /// `series` no longer shows it, since `end`.
    pub(crate) fn clear(&mut self, line: u8, series: u8, kind: Kind, end: impl Into<Edge>) {
        let found = self
            .open
            .iter_mut()
            .find(|o| o.event.line == line && o.event.kind == kind && o.active.contains(series));
        let Some(open) = found else { return };
        open.active.remove(series);
        open.ended = open.ended.later(end.into());
        if open.active.is_empty() {
            open.event.end = Some(open.ended.at.max(open.event.start));
            let (id, event) = (open.id, open.event.clone());
            self.tell(id, Phase::End, event);
        }
    }

    /// It happened, and is over.
    pub(crate) fn happened(&mut self, line: u8, series: u8, f: Finding, end: Monotonic) {
        let kind = f.kind;
        // Each outage has edges of its own and is told by itself.
        if kind == Kind::MicroOutage {
            let mut members = SeriesSet::default();
            members.insert(series);
            let mut event = event_of(line, members, &f);
            event.end = Some(end);
            let id = self.next_id;
            self.next_id += 1;
            self.tell(id, Phase::Begin, event);
            return;
        }
        self.raise(line, series, f);
        self.clear(line, series, kind, end);
    }

    /// Sets a direction that became known only after the event was told.
    pub(crate) fn learn_direction(&mut self, line: u8, kind: Kind, direction: Option<Direction>) {
        let of_kind = self.open.iter_mut();
        let latest = of_kind
            .filter(|o| o.event.line == line && o.event.kind == kind)
            .max_by_key(|o| o.id);
        if let Some(open) = latest.filter(|o| o.event.direction != direction) {
            open.event.direction = direction;
            let (id, event) = (open.id, open.event.clone());
            self.tell(id, Phase::Update, event);
        }
    }

    /// The series that show this trouble of a line now.
    pub(crate) fn active(&self, line: u8, kind: Kind) -> SeriesSet {
        let mut of_kind = self.open.iter();
        let lasts = of_kind.find(|o| o.lasts(line, kind));
        lasts.map_or_else(SeriesSet::default, |o| o.active)
    }

    /// Sets a figure of an event that lasts, to be told with what is next told of it.
    pub(crate) fn note(&mut self, line: u8, kind: Kind, name: &'static str, value: Value) {
        let mut of_kind = self.open.iter_mut();
        if let Some(o) = of_kind.find(|o| o.lasts(line, kind)) {
            set(&mut o.event.values, name, value);
        }
    }

    /// The series that events name of which more may be told.
    pub(crate) fn named(&self) -> SeriesSet {
        let mut named = SeriesSet::default();
        let open = self.open.iter().map(|o| o.event.series);
        for set in open.chain(self.notices.iter().map(|n| n.event.series)) {
            for series in set.iter() {
                named.insert(series);
            }
        }
        named
    }

    /// Forgets what has been over for longer than the hold-down.
    pub(crate) fn forget(&mut self, now: Monotonic) {
        let hold_ns = self.hold_down_ns;
        self.open.retain(|o| {
            // The last of a day takes what comes that day, and no more.
            let day = if o.is_last {
                o.event.start.saturating_add(DAY_NS)
            } else {
                Monotonic::ZERO
            };
            !o.active.is_empty()
                || o.event
                    .end
                    .is_none_or(|end| now < end.saturating_add(hold_ns).max(day))
        });
    }

    /// Forgets what a line that none of its series is left of has shown, so that another may have its number; `false`
    /// where something that names it is yet to be told.
    pub(crate) fn forget_line(&mut self, line: u8) -> bool {
        let waits = |n: &Notice| n.event.line == line || is_well(&n.event, line);
        let lasts =
            |o: &Open| !o.active.is_empty() && (o.event.line == line || is_well(&o.event, line));
        if self.notices.iter().any(waits) || self.open.iter().any(lasts) {
            return false;
        }
        self.open.retain(|o| o.event.line != line);
        if let Some(changes) = self.changes.get_mut(usize::from(line)) {
            changes.clear();
        }
        true
    }

    /// Ends what a series shows that is no longer probed.
    pub(crate) fn withdraw(&mut self, line: u8, series: u8, now: Monotonic) {
        for kind in Kind::ALL {
            self.clear(line, series, kind, now);
        }
        // Another may take its place.
        for open in &mut self.open {
            open.members.remove(series);
        }
    }

    /// Where all places are taken, what has been over for longest makes room: it would be told anew, if it came back.
    fn make_room(&mut self) {
        if !self.open.is_full() {
            return;
        }
        let all = self.open.iter().enumerate();
        let over = all.filter(|(_, o)| o.active.is_empty());
        if let Some((n, _)) = over.min_by_key(|(_, o)| o.ended.at) {
            self.open.swap_remove(n);
        }
    }

    /// Whether a change of ways that is told at `at` is the last of its line for a day.
    fn is_last_of_day(&mut self, line: u8, at: Monotonic) -> bool {
        let Some(told) = self.changes.get_mut(usize::from(line)) else {
            return false;
        };
        while told
            .front()
            .is_some_and(|t| at.saturating_since(*t) >= DAY_NS)
        {
            told.pop_front();
        }
        let _ = told.push_back(at);
        told.is_full()
    }

    fn begin(&mut self, active: SeriesSet, event: Event, f: &Finding) {
        let id = self.next_id;
        self.next_id += 1;
        self.make_room();
        if self.open.is_full() {
            self.overflow += 1;
            return;
        }
        let is_last = f.kind == Kind::RouteChange && self.is_last_of_day(event.line, f.start);
        let _ = self.open.push(Open {
            id,
            is_last,
            members: active,
            active,
            start: f.edge(),
            ended: Monotonic::ZERO.into(),
            weights: f.weights,
            event: event.clone(),
        });
        self.tell(id, Phase::Begin, event);
    }
}

/// How often the way has changed, as an event of it says.
const CHANGED: &str = "changes";

fn changes(e: &Event) -> u64 {
    match e.values.iter().find(|(name, _)| *name == CHANGED) {
        Some((_, Value::Number(n))) => *n,
        _ => 1,
    }
}

/// How many probes figures are of; 0 where that is not said.
fn probes(values: &Values) -> u64 {
    match values.iter().find(|(name, _)| *name == PROBES) {
        Some((_, Value::Number(n))) => *n,
        _ => 0,
    }
}

/// Notes whose figures they are, where they are of so many probes of one series.
fn measured_by(values: &mut Values, series: u8) {
    if values.iter().any(|(name, _)| *name == "loss") && probes(values) > 0 {
        set(values, MEASURED_BY, Value::Number(series.into()));
    }
}

fn event_of(line: u8, series: SeriesSet, f: &Finding) -> Event {
    Event {
        kind: f.kind,
        severity: f.severity,
        direction: f.direction,
        line,
        series,
        start: f.start,
        end: None,
        values: f.values.clone(),
    }
}

/// Whether an event holds its line against this one, which is well.
fn is_well(event: &Event, line: u8) -> bool {
    let mut values = event.values.iter();
    values.any(|v| *v == (WELL_LINE, Value::Number(line.into())))
}

/// What two series that saw the same trouble know together of its direction.
fn joined(a: Option<Direction>, b: Option<Direction>) -> Option<Direction> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Some(Direction::Both),
        (a, b) => b.or(a),
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::super::event::Severity;
    use super::*;

    /// A hundred bursts in a step are one event: its begin, and how it stands in the end.
    #[test]
    fn what_comes_back_at_once_takes_the_room_of_two_notices() {
        const MS: u64 = 1_000_000;
        let mut ledger = Ledger::new(300_000 * MS);
        let at = |n: u64| Monotonic::from_nanos(n * MS);
        for n in 0..100 {
            let f = Finding::new(Kind::LossBurst, Severity::Warning, at(100 * n));
            ledger.happened(0, 3, f, at(100 * n + 50));
        }
        // Outages are told each by itself.
        for n in 0..10 {
            let f = Finding::new(Kind::MicroOutage, Severity::Warning, at(n));
            ledger.happened(0, 3, f, at(n + 1));
        }
        assert_eq!(ledger.overflow(), 0);
        let told: std::vec::Vec<Notice> = core::iter::from_fn(|| ledger.poll()).collect();
        assert_eq!(told.len(), 2 + 10);
        let of_burst: std::vec::Vec<_> = told
            .iter()
            .filter(|n| n.event.kind == Kind::LossBurst)
            .map(|n| (n.phase, n.event.end))
            .collect();
        assert_eq!(
            of_burst,
            [(Phase::Begin, None), (Phase::End, Some(at(9950)))]
        );
    }

    /// Lets a kind of trouble last for each of these series and times in seconds; series 2 and 3 have one target. Gives
    /// begin, end and series of each event in the end.
    fn told(kind: Kind, spells: &[(u8, u64, u64)]) -> std::vec::Vec<(u64, u64, std::vec::Vec<u8>)> {
        let mut ledger = Ledger::new(300 * S);
        for (series, target) in [(1, 101), (2, 102), (3, 102)] {
            ledger.add(series, target);
        }
        let at = |s: u64| Monotonic::from_nanos(s * S);
        let mut all = std::collections::BTreeMap::new();
        for s in 0..2000 {
            for (series, from, to) in spells {
                if s == *to {
                    ledger.clear(0, *series, kind, at(s));
                }
                // It is known only after some seconds.
                if s == from + 8 && s < *to {
                    ledger.raise(0, *series, Finding::new(kind, Severity::Warning, at(*from)));
                }
            }
            ledger.forget(at(s));
            while let Some(n) = ledger.poll() {
                all.insert(n.id, n.event);
            }
        }
        assert_eq!(ledger.overflow(), 0);
        let seconds = |t: Monotonic| t.as_nanos() / S;
        all.into_values()
            .map(|e| {
                let end = e.end.map_or(0, seconds);
                (seconds(e.start), end, e.series.iter().collect())
            })
            .collect()
    }

    #[test]
    fn after_its_end_trouble_is_back_where_it_was_and_elsewhere_it_is_another() {
        use Kind::{Bufferbloat, PacketLoss, RoutingFault};
        // One target is bad, and when that is over another one.
        for kind in [PacketLoss, RoutingFault] {
            let two = told(kind, &[(1, 100, 140), (2, 200, 240)]);
            assert_eq!(two, [(100, 140, vec![1]), (200, 240, vec![2])], "{kind:?}");
            // And the first one again, beside the other or after it.
            let two = told(kind, &[(1, 100, 140), (2, 200, 240), (1, 300, 340)]);
            assert_eq!(two, [(100, 340, vec![1]), (200, 240, vec![2])], "{kind:?}");
            let two = told(kind, &[(1, 100, 140), (2, 200, 340), (1, 300, 320)]);
            assert_eq!(
                two,
                [(100, 140, vec![1]), (200, 340, vec![1, 2])],
                "{kind:?}"
            );
            // The other began before the first was over.
            let one = told(kind, &[(1, 100, 140), (2, 138, 240)]);
            assert_eq!(one, [(100, 240, vec![1, 2])], "{kind:?}");
            // It is back.
            let one = told(kind, &[(1, 100, 140), (1, 430, 440)]);
            assert_eq!(one, [(100, 440, vec![1])], "{kind:?}");
        }
        // A target is reached by two series: it is the same fault, but others' losses are losses of their own.
        let spells = [(2, 100, 140), (3, 200, 240)];
        assert_eq!(told(RoutingFault, &spells).len(), 1);
        assert_eq!(told(PacketLoss, &spells).len(), 2);
        // What loads a line delays all that pass it.
        assert_eq!(told(Bufferbloat, &[(1, 100, 140), (2, 200, 240)]).len(), 1);
    }

    /// The place of a series that is probed no more is another's.
    #[test]
    fn what_the_next_series_of_a_place_shows_is_another_trouble() {
        let mut ledger = Ledger::new(300 * S);
        let at = |s: u64| Monotonic::from_nanos(s * S);
        for (s, target) in [(100, 101), (200, 102)] {
            ledger.add(1, target);
            let f = Finding::new(Kind::PacketLoss, Severity::Warning, at(s));
            ledger.raise(0, 1, f);
            ledger.withdraw(0, 1, at(s + 20));
        }
        let told = core::iter::from_fn(|| ledger.poll());
        let begins = told.filter(|n| n.phase == Phase::Begin);
        assert_eq!(begins.count(), 2);
    }

    /// A line that never has a quiet minute: each event of what has been told and is over gives way to what is new.
    #[test]
    fn what_is_new_is_told_however_much_is_over() {
        let mut ledger = Ledger::new(300 * S);
        let mut begins = 0;
        for n in 0..3 * OPEN as u64 {
            let at = Monotonic::from_nanos(n * S);
            let f = Finding::new(Kind::LossBurst, Severity::Warning, at);
            ledger.happened((n / 64) as u8, n as u8 % 64, f, at);
            begins += core::iter::from_fn(|| ledger.poll())
                .filter(|n| n.phase == Phase::Begin)
                .count();
        }
        assert_eq!((begins, ledger.overflow()), (3 * OPEN, 0));
        assert!(ledger.may_change(3 * OPEN as u32 - 1) && !ledger.may_change(0));
    }

    /// Lets the ways to these series change at these seconds; gives begin, end, series and count of each event.
    fn routes(changes: &[(u64, u8)]) -> vec::Vec<(u64, u64, vec::Vec<u8>, u64)> {
        let mut ledger = Ledger::new(300 * S);
        let mut told = std::collections::BTreeMap::new();
        for (s, series) in changes {
            let at = Monotonic::from_nanos(s * S);
            ledger.forget(at.saturating_add(5 * S));
            let f = Finding::new(Kind::RouteChange, Severity::Info, at);
            ledger.happened(0, *series, f, at);
            while let Some(n) = ledger.poll() {
                // A moment has its end from the begin on.
                assert!(n.event.end.is_some(), "{n:?}");
                assert_eq!(n.phase == Phase::Begin, !told.contains_key(&n.id));
                told.insert(n.id, n.event);
            }
        }
        assert_eq!(ledger.overflow(), 0);
        let seconds = |t: Monotonic| t.as_nanos() / S;
        told.into_values()
            .map(|e| {
                let end = e.end.map_or(0, seconds);
                let times = super::changes(&e);
                (seconds(e.start), end, e.series.iter().collect(), times)
            })
            .collect()
    }

    #[test]
    fn one_change_of_many_ways_is_one_event_and_so_is_a_way_that_flaps() {
        // Three targets at once, each of which is seen a moment later.
        let once = routes(&[(100, 1), (101, 2), (130, 3)]);
        assert_eq!(once, [(100, 130, vec![1, 2, 3], 3)]);
        // Each is told by itself where they are apart.
        let apart = routes(&[(100, 1), (200, 2), (550, 1)]);
        assert_eq!(
            apart,
            [
                (100, 100, vec![1], 1),
                (200, 200, vec![2], 1),
                (550, 550, vec![1], 1)
            ]
        );
        // Ten ways that change every five seconds for an hour.
        let mut flaps = vec::Vec::new();
        for s in (100..3700).step_by(5) {
            flaps.extend((1..=10).map(|series| (s, series)));
        }
        let flaps = routes(&flaps);
        assert_eq!(flaps, [(100, 3695, (1..=10).collect(), 7200)]);
    }

    #[test]
    fn four_changes_of_ways_are_told_in_a_day_and_more_are_counted() {
        // Every ten minutes for two days, of two targets in turn.
        let all: vec::Vec<(u64, u8)> = (0..288).map(|n| (600 * n, 1 + n as u8 % 2)).collect();
        let told = routes(&all);
        let counts: vec::Vec<u64> = told.iter().map(|t| t.3).collect();
        assert_eq!(counts.iter().sum::<u64>(), 288);
        assert_eq!(told.len(), 8, "{told:?}");
        assert_eq!(counts[..3], [1, 1, 1]);
        assert!(counts[3] > 100, "{told:?}");
    }
}
