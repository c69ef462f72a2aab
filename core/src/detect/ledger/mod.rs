//! Open events: the same trouble of one line is one event, whichever of its series show it, and
//! stays the same one where it comes back within the hold-down. What others show after its end is another trouble.

mod changes;

use heapless::{Deque, Vec};

use super::MAX_SERIES;
use super::edge::{Beside, Edge};
use super::event::{
    Direction, Event, Finding, Kind, LOST, MEASURED_BY, Notice, PROBES, Phase, SeriesSet, Value,
    Values, WELL_LINE, WITHIN_NS, set,
};
use crate::time::Monotonic;
use changes::Changes;

/// Events that are open or may yet come back.
const OPEN: usize = 64;
/// Notices that wait to be polled.
const NOTICES: usize = 48;
/// Room for notices that one step needs at most.
pub(super) const STEP: usize = 24;

#[derive(Clone, Debug)]
struct Open {
    id: u32,
    /// The series that have shown it, as far as they are probed.
    members: SeriesSet,
    /// The series that show it now.
    active: SeriesSet,
    start: Edge,
    /// The series that told that, and still shows it.
    begun_by: Option<u8>,
    /// Who else tells a begin, and where: the one that would be right if that were not.
    begun_beside: Option<(u8, Edge)>,
    /// The latest end of those that no longer do.
    ended: Option<Edge>,
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

    /// `series` tells that it began there. Whether it is the one that told it before and knows better by now, of a
    /// period, what lay on it: then that moves both ways, but not beyond where another tells it.
    fn begins(&mut self, kind: Kind, series: u8, edge: Edge) -> bool {
        let knows_better = kind == Kind::PeriodicLoss && self.begun_by == Some(series);
        if knows_better {
            let beside = self.begun_beside.filter(|b| edge.earlier(b.1) != edge);
            self.start = edge;
            if let Some((other, other_edge)) = beside {
                (self.start, self.begun_by) = (other_edge, Some(other));
                self.begun_beside = Some((series, edge));
            }
        } else if self.start.earlier(edge) != self.start {
            self.begun_beside = self.begun_by.map(|by| (by, self.start));
            (self.start, self.begun_by) = (edge, Some(series));
        } else {
            let is_next = |b: (u8, Edge)| b.0 == series || b.1.earlier(edge) != b.1;
            if self.begun_beside.is_none_or(is_next) {
                self.begun_beside = Some((series, edge));
            }
        }
        knows_better
    }

    fn ended_at(&self) -> Monotonic {
        self.ended.map_or(Monotonic::ZERO, |e| e.at)
    }

    /// Whether `f` is this trouble: that lasts, or `f` began before its end, or it is back where it was. `f` was found at
    /// `series`; `twins` are all series to the same target.
    fn takes(&self, series: u8, twins: SeriesSet, f: &Finding) -> bool {
        let began_before_its_end = || {
            self.ended.is_some_and(|e| {
                let grain_ns = f.grain_ns + e.grain_ns;
                f.start.saturating_sub(grain_ns) <= e.at
            })
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
                    || changes::is_of_one(self.ended_at(), f.start)
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
    changes: Changes,
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
            changes: Changes::new(),
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
        let knows_better = open.begins(f.kind, series, f.edge());
        open.weights.0 += f.weights.0;
        open.weights.1 += f.weights.1;
        let e = &mut open.event;
        e.start = open.start.at;
        e.end = None;
        e.severity = e.severity.max(f.severity);
        e.direction = if knows_better {
            f.direction.or(e.direction)
        } else if open.weights == (0, 0) {
            joined(e.direction, f.direction)
        } else {
            Direction::of_weights(open.weights.0, open.weights.1)
        };
        e.series.insert(series);
        open.active.insert(series);
        open.members.insert(series);
        let times = changes::times(&e.values) + 1;
        // Who sent most probes knows a share best: what found few of them lost may just have had an unlucky moment.
        // The longest run of losses says most of a burst, and what makes it worse says how bad it is.
        let weighs_more = weight(&f.values) >= weight(&e.values);
        if f.severity > before.severity || weighs_more || is_of_more_than_all(&before, series, &f) {
            for (name, value) in &f.values {
                set(&mut e.values, name, *value);
            }
            measured_by(&mut e.values, series);
        }
        if f.kind == Kind::RouteChange {
            changes::set_times(&mut e.values, times);
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

    /// What is known of begin and end of trouble of a line that lasts.
    pub(crate) fn edges(&self, line: u8, kind: Kind) -> Beside {
        let mut of_kind = self.open.iter();
        let lasts = of_kind.find(|o| o.lasts(line, kind));
        lasts.map_or_else(Beside::default, |o| Beside {
            begin: Some(o.start),
            end: o.ended,
        })
    }

    /// `series` no longer shows it, since `end`.
    pub(crate) fn clear(&mut self, line: u8, series: u8, kind: Kind, end: impl Into<Edge>) {
        let found = self
            .open
            .iter_mut()
            .find(|o| o.event.line == line && o.event.kind == kind && o.active.contains(series));
        let Some(open) = found else { return };
        open.active.remove(series);
        open.begun_by = open.begun_by.filter(|s| *s != series);
        let end = end.into();
        let ended = open.ended.map_or(end, |e| e.later(end));
        open.ended = Some(ended);
        if open.active.is_empty() {
            open.event.end = Some(ended.at.max(open.event.start));
            let (id, event) = (open.id, open.event.clone());
            self.tell(id, Phase::End, event);
        }
    }

    /// It happened, and is over.
    pub(crate) fn happened(&mut self, line: u8, series: u8, f: Finding, end: Monotonic) {
        let kind = f.kind;
        self.raise(line, series, f);
        self.clear(line, series, kind, end);
    }

    /// A short outage, which all these series showed: each has edges of its own and is told by itself.
    pub(crate) fn went_dead(&mut self, line: u8, series: SeriesSet, f: &Finding, end: Monotonic) {
        let mut event = event_of(line, series, f);
        event.end = Some(end);
        let id = self.next_id;
        self.next_id += 1;
        self.tell(id, Phase::Begin, event);
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
                changes::day_after(o.event.start)
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
        self.changes.forget_line(line);
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
        if let Some((n, _)) = over.min_by_key(|(_, o)| o.ended_at()) {
            self.open.swap_remove(n);
        }
    }

    fn begin(&mut self, active: SeriesSet, event: Event, f: &Finding) {
        let id = self.next_id;
        self.next_id += 1;
        self.make_room();
        if self.open.is_full() {
            self.overflow += 1;
            return;
        }
        let is_last =
            f.kind == Kind::RouteChange && self.changes.is_last_of_day(event.line, f.start);
        let _ = self.open.push(Open {
            id,
            is_last,
            members: active,
            active,
            start: f.edge(),
            begun_by: active.iter().next(),
            begun_beside: None,
            ended: None,
            weights: f.weights,
            event: event.clone(),
        });
        self.tell(id, Phase::Begin, event);
    }
}

/// A number among the values; 0 where there is none.
fn number(values: &Values, name: &str) -> u64 {
    match values.iter().find(|(n, _)| *n == name) {
        Some((_, Value::Number(n))) => *n,
        _ => 0,
    }
}

/// How much figures say: of how many probes they are, or of how many that were lost in a row.
fn weight(values: &Values) -> u64 {
    number(values, PROBES).max(number(values, LOST))
}

/// Whether the figures of `e`, of `series`, reach back to before its begin, which those of `f` do not.
fn is_of_more_than_all(e: &Event, series: u8, f: &Finding) -> bool {
    let is_its = e
        .values
        .contains(&(MEASURED_BY, Value::Number(series.into())));
    let all_ns = f.start.saturating_since(e.start) + number(&f.values, WITHIN_NS);
    is_its && number(&e.values, WITHIN_NS) > all_ns
}

/// Notes whose figures they are, where they are of so many probes of one series.
fn measured_by(values: &mut Values, series: u8) {
    if values.iter().any(|(name, _)| *name == "loss") && number(values, PROBES) > 0 {
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
mod tests;
