//! Open events: the same trouble of one line is one event, whichever of its series show it, and
//! stays the same one where it comes back within the hold-down.

use heapless::{Deque, Vec};

use super::edge::Edge;
use super::event::{Direction, Event, Finding, Kind, Notice, Phase, SeriesSet, set};
use crate::time::Monotonic;

/// Events that are open or may yet come back.
const OPEN: usize = 64;
/// Notices that wait to be polled.
const NOTICES: usize = 48;
/// Room for notices that one step needs at most.
pub(super) const STEP: usize = 24;

#[derive(Clone, Debug)]
struct Open {
    id: u32,
    /// The series that show it now.
    active: SeriesSet,
    start: Edge,
    /// The latest end of those that no longer do.
    ended: Edge,
    /// What speaks for up and for down.
    weights: (u64, u64),
    event: Event,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    hold_down_ns: u64,
    next_id: u32,
    open: Vec<Open, OPEN>,
    notices: Deque<Notice, NOTICES>,
    /// Events that there was no room for.
    overflow: u64,
}

impl Ledger {
    pub(crate) const fn new(hold_down_ns: u64) -> Self {
        Self {
            hold_down_ns,
            next_id: 0,
            open: Vec::new(),
            notices: Deque::new(),
            overflow: 0,
        }
    }

    pub(crate) const fn overflow(&self) -> u64 {
        self.overflow
    }

    pub(crate) fn poll(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.notices.len() + STEP <= NOTICES
    }

    /// One that waits and is no begin is brought up to date instead: under heavy loss an event ends and
    /// goes on more often within a step than there is room for.
    fn tell(&mut self, id: u32, phase: Phase, event: Event) {
        let mut waiting = self.notices.iter_mut();
        if let Some(n) = waiting.find(|n| n.id == id && n.phase != Phase::Begin) {
            (n.phase, n.event) = (phase, event);
            return;
        }
        if self.notices.push_back(Notice { id, phase, event }).is_err() {
            self.overflow += 1;
        }
    }

    /// `series` of `line` shows this trouble; to be said again whenever more is known of it.
    pub(crate) fn raise(&mut self, line: u8, series: u8, f: Finding) {
        let found = self
            .open
            .iter_mut()
            .find(|o| o.event.line == line && o.event.kind == f.kind);
        let Some(open) = found else {
            let mut members = SeriesSet::default();
            members.insert(series);
            let event = event_of(line, members, &f);
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
        for (name, value) in &f.values {
            set(&mut e.values, name, *value);
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
            .find(|o| o.event.line == line && o.event.kind == kind);
        let Some(open) = found.filter(|o| o.active.contains(series)) else {
            return;
        };
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
        if matches!(kind, Kind::MicroOutage | Kind::RouteChange) {
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
        let found = self
            .open
            .iter_mut()
            .find(|o| o.event.line == line && o.event.kind == kind);
        if let Some(open) = found.filter(|o| o.event.direction != direction) {
            open.event.direction = direction;
            let (id, event) = (open.id, open.event.clone());
            self.tell(id, Phase::Update, event);
        }
    }

    /// Forgets what has been over for longer than the hold-down.
    pub(crate) fn forget(&mut self, now: Monotonic) {
        let hold_ns = self.hold_down_ns;
        self.open.retain(|o| {
            !o.active.is_empty()
                || o.event
                    .end
                    .is_none_or(|end| now.saturating_since(end) < hold_ns)
        });
    }

    /// Ends what a series shows that is no longer probed.
    pub(crate) fn withdraw(&mut self, line: u8, series: u8, now: Monotonic) {
        for kind in Kind::ALL {
            self.clear(line, series, kind, now);
        }
    }

    fn begin(&mut self, active: SeriesSet, event: Event, f: &Finding) {
        let id = self.next_id;
        self.next_id += 1;
        if self.open.is_full() {
            self.overflow += 1;
            return;
        }
        let _ = self.open.push(Open {
            id,
            active,
            start: f.edge(),
            ended: Monotonic::ZERO.into(),
            weights: f.weights,
            event: event.clone(),
        });
        self.tell(id, Phase::Begin, event);
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

/// What two series that saw the same trouble know together of its direction.
fn joined(a: Option<Direction>, b: Option<Direction>) -> Option<Direction> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Some(Direction::Both),
        (a, b) => b.or(a),
    }
}

#[cfg(test)]
mod tests {
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
}
