//! From samples to events: what a bad line looks like, told apart.
//!
//! ```text
//! probes ─▶ settle ─▶ outage ─▶ losses ─▶ packet_loss, loss_burst, periodic_loss
//!  (any      (order   (line)  ├▶ queue  ─▶ latency_spike, bufferbloat
//!  order)    of send)         ├▶ jitter ─▶ high_jitter            ├─▶ ledger ─▶ Notice
//!                             ├▶ route, peak, capacity            │  (one trouble,
//!                             ├▶ compare ─▶ routing_fault, ...    │   one event)
//!                             └▶ cable ─▶ Record ─▶ what cable lines do
//! ```
//!
//! What services answer is not what the line does, and is heard by [`service`] alone.
//!
//! [`Watch`] is fed with what became of each probe in whatever order that becomes known
//! ([`Watch::handle_probe`], [`Watch::handle_revision`]), with load and capacity, and with the time
//! ([`Watch::handle_timeout`]); it gives [`Notice`]s. Everything is decided some seconds late, when
//! nothing can change any more, but with edges as exact as the probes. All memory is that of
//! [`SeriesState`] and [`LineState`], which the caller provides: nothing grows.
//!
//! What keeps it honest: a rate is told only when the lower end of its 95 % interval is above the
//! threshold ([`Thresholds`]); losses that an outage explains are not loss, runs that scattered loss
//! explains are not bursts, delay that load explains is not a spike, another path's delay is not one
//! either; our own tests count for bufferbloat only; what one of both ends may have dropped itself counts
//! for nothing; and where load is not known, nothing is said of it.

mod baseline;
pub mod cable;
mod capacity;
mod chance;
mod compare;
mod edge;
mod ending;
mod event;
mod input;
mod jitter;
mod ledger;
mod line;
mod losses;
mod marks;
mod mixed;
mod nearby;
mod outage;
mod peak;
mod periodic;
mod queue;
mod rate;
mod route;
mod scale;
mod series;
pub mod service;
mod settle;
mod sustained;
pub mod verdict;

use core::ops::DerefMut;

pub use event::{
    Direction, Event, Kind, MEASURED_BY, Notice, Phase, SeriesSet, Severity, Value, Values,
    WELL_LINE,
};
pub use input::{
    Capacity, Load, LoadedWays, PastHour, Probe, Role, SeriesFacts, Thresholds, clipped,
};

use compare::{Trouble, each_second as compare, others};
use heapless::Vec;
use ledger::Ledger;
use line::LineWatch;
use outage::At;
use series::Watched;

use crate::sample::Status;
use crate::time::Monotonic;

/// Most series of one watch.
pub const MAX_SERIES: usize = 64;
/// Most lines of one watch.
pub const MAX_LINES: usize = 16;

const S: u64 = 1_000_000_000;
/// What may be of one far target and not of the line, and how such a target suffers.
const OF_SOME: [(Kind, Trouble); 3] = [
    (Kind::PacketLoss, Trouble::Loss),
    (Kind::LatencySpike, Trouble::Slow),
    (Kind::HighJitter, Trouble::Slow),
];
/// After a probe's time-out, this long is waited for its direction, ns.
const DIRECTION_NS: u64 = S / 2;

/// Room for one series.
#[derive(Clone, Debug, Default)]
pub struct SeriesState(Option<Watched>);

/// Room for one line.
#[derive(Clone, Debug, Default)]
pub struct LineState(Option<LineWatch>);

// What a year takes is what the first second takes.
const _: () = assert!(size_of::<SeriesState>() <= 64 << 10);
const _: () = assert!(size_of::<LineState>() <= 16 << 10);

/// See the module.
#[derive(Debug)]
pub struct Watch<S, L> {
    thresholds: Thresholds,
    series: S,
    lines: L,
    ledger: Ledger,
    hold_ns: u64,
    second_at: Monotonic,
    /// From monotonic time to local time, ns.
    local_offset_ns: Option<i64>,
    late: u64,
}

// With all that it can have, states and what waits to be told.
const _: () = assert!(
    MAX_SERIES * size_of::<SeriesState>()
        + MAX_LINES * size_of::<LineState>()
        + size_of::<Watch<&mut [SeriesState], &mut [LineState]>>()
        <= 4 << 20
);

impl<S, L> Watch<S, L>
where
    S: DerefMut<Target = [SeriesState]>,
    L: DerefMut<Target = [LineState]>,
{
    /// A watch with room for as many series and lines as there are states, at most [`MAX_SERIES`] and
    /// [`MAX_LINES`].
    pub fn new(now: Monotonic, thresholds: Thresholds, series: S, lines: L) -> Self {
        Self {
            thresholds,
            series,
            lines,
            ledger: Ledger::new(thresholds.hold_down_ns),
            hold_ns: DIRECTION_NS,
            second_at: now.saturating_add(self::S - now.as_nanos() % self::S),
            local_offset_ns: None,
            late: 0,
        }
    }

    /// Other thresholds from now on; what has been told stays, and is over as they say.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.thresholds = thresholds;
        self.ledger.set_hold_down(thresholds.hold_down_ns);
        for s in self.series.iter_mut().filter_map(|s| s.0.as_mut()) {
            s.set(&thresholds);
        }
    }

    /// A new series: its place, by which it is fed; `None` where there is no room.
    pub fn add_series(&mut self, now: Monotonic, facts: SeriesFacts) -> Option<u8> {
        let line = self
            .lines
            .get_mut(usize::from(facts.line))
            .filter(|_| usize::from(facts.line) < MAX_LINES)?;
        // One that no event names of which more may be told, if there is one.
        let named = self.ledger.named();
        let all = self.series.iter().take(MAX_SERIES).enumerate();
        let free = all.filter(|(_, s)| s.0.is_none()).map(|(n, _)| n);
        let place = free.min_by_key(|n| named.contains(*n as u8))?;
        line.0.get_or_insert_with(LineWatch::new);
        let watched = Watched::new(facts, &self.thresholds, now);
        self.series[place] = SeriesState(Some(watched));
        self.ledger.add(place as u8, facts.target);
        self.hold_ns = self.hold_ns.max(facts.timeout_ns + DIRECTION_NS);
        Some(place as u8)
    }

    /// A series stands for something else than was known when it began.
    pub fn set_role(&mut self, place: u8, role: Role) {
        if let Some(s) = watched(&mut self.series, place) {
            s.set_role(role);
        }
    }

    /// A series answered in an earlier run: if it is silent from its first probe on, that is trouble like any other, though
    /// it is not known when it began. Of one that never answered silence says nothing.
    pub fn handle_past_answer(&mut self, place: u8) {
        if let Some(s) = watched(&mut self.series, place) {
            s.recall();
        }
    }

    /// How an hour before this run was: to be told once for each, in the order of time, and before the first probe.
    pub fn handle_past_hour(&mut self, place: u8, hour: &PastHour) {
        if let Some(s) = watched(&mut self.series, place) {
            s.recall_hour(hour);
        }
    }

    /// Whether a series goes beyond the access line, or to its far end, as far as is known by now: what has a private
    /// address and takes its time is far all the same.
    #[must_use]
    pub fn is_far(&self, place: u8) -> bool {
        let state = self.series.get(usize::from(place));
        state
            .and_then(|s| s.0.as_ref())
            .is_some_and(Watched::is_far)
    }

    /// A series is no longer probed: what it alone showed is over.
    pub fn remove_series(&mut self, now: Monotonic, place: u8) {
        let Some(state) = self.series.get_mut(usize::from(place)) else {
            return;
        };
        if let Some(s) = state.0.take() {
            self.ledger.withdraw(s.line(), place, now);
            if let Some(l) = line_of(&mut self.lines, s.line()) {
                l.cable.forget(place);
            }
        }
    }

    /// Makes room: a line that none of its series is left of is forgotten, and another may have its number; `false` where
    /// it is in use, or something that names it is yet to be told or over ([`Watch::poll_notice`],
    /// [`Watch::poll_record`]).
    pub fn remove_line(&mut self, now: Monotonic, line: u8) -> bool {
        let mut series = self.series.iter().filter_map(|s| s.0.as_ref());
        if series.any(|s| s.line() == line) {
            return false;
        }
        for (up, by_train) in [(true, false), (true, true), (false, false), (false, true)] {
            self.ledger
                .withdraw(line, capacity_witness(up, by_train), now);
        }
        let Some(state) = self.lines.get_mut(usize::from(line)) else {
            return false;
        };
        let is_polled = state.0.as_ref().is_none_or(|l| l.cable.is_polled());
        if !is_polled || !self.ledger.forget_line(line) {
            return false;
        }
        state.0 = None;
        true
    }

    /// What became of a probe.
    pub fn handle_probe(&mut self, place: u8, probe: Probe) {
        if probe.status == Status::Duplicate {
            return;
        }
        if let Some(s) = watched(&mut self.series, place) {
            if s.settle.is_full() {
                // Faster than there is room for: decide what is oldest now.
                self.late += 1;
                self.release(place);
            }
            if let Some(s) = watched(&mut self.series, place) {
                s.settle.insert(probe);
            }
        }
    }

    /// More became known of a probe.
    pub fn handle_revision(&mut self, place: u8, probe: Probe) {
        let Some(s) = watched(&mut self.series, place) else {
            return;
        };
        if s.settle.revise(&probe) {
            return;
        }
        let line = s.line();
        if let Some(l) = line_of(&mut self.lines, line) {
            let mut at = At {
                ledger: &mut self.ledger,
                line,
                near: &l.near,
            };
            l.outages.learn(&probe, &mut at);
        }
    }

    /// What a line carried over the second up to `at`, to be told in the order of time; not to be called where it
    /// is not known. Without `everybody` that is only what is known of it, so that little says nothing. Gives
    /// which ways it is load, which is much for this line.
    pub fn handle_load(
        &mut self,
        line: u8,
        at: Monotonic,
        load: Load,
        everybody: bool,
    ) -> LoadedWays {
        line_of(&mut self.lines, line)
            .map_or(LoadedWays::default(), |l| l.load(at, load, everybody))
    }

    /// How much a line was found to carry.
    pub fn handle_capacity(&mut self, line: u8, c: Capacity) {
        let local_ns = self.local_ns(c.at);
        let Some(l) = line_of(&mut self.lines, line) else {
            return;
        };
        // Either method is a witness of its own: an event lasts while one of them shows it.
        let witness = capacity_witness(c.up, c.by_train);
        match l.capacity(local_ns, &c, &self.thresholds) {
            Some(Ok(f)) => self.ledger.raise(line, witness, f),
            Some(Err((kind, at))) => self.ledger.clear(line, witness, kind, at),
            None => {}
        }
    }

    /// How much a line was found to carry before this run, in the order of time: that makes the
    /// baselines that what is found now is held against, and nothing is told of it. Each with its local
    /// time, ns since a local midnight, where that is known; `at` may be of another clock than what
    /// comes later. To be called once for each line, before [`Watch::handle_capacity`].
    pub fn handle_past_capacities(
        &mut self,
        line: u8,
        past: impl IntoIterator<Item = (Option<u64>, Capacity)>,
    ) {
        let line = usize::from(line);
        let Some(l) = self.lines.get_mut(line).filter(|_| line < MAX_LINES) else {
            return;
        };
        let l = l.0.get_or_insert_with(LineWatch::new);
        for (local_ns, c) in past {
            l.past_capacity(local_ns, &c, &self.thresholds);
        }
        l.end_past();
    }

    /// A throughput test of our own loads a line from `at` on, until [`Watch::handle_test_end`]: what is
    /// sent meanwhile counts for bufferbloat only. To be told before the test's end, and within the
    /// time-out of the series; probes may come before or after.
    pub fn handle_test_begin(&mut self, line: u8, at: Monotonic) {
        let line = usize::from(line);
        if let Some(l) = self.lines.get_mut(line).filter(|_| line < MAX_LINES) {
            l.0.get_or_insert_with(LineWatch::new).tests.begin(at);
        }
    }

    /// The test that loaded a line is over.
    pub fn handle_test_end(&mut self, line: u8, at: Monotonic) {
        if let Some(l) = line_of(&mut self.lines, line) {
            l.tests.end(at);
        }
    }

    /// A packet train of our own is on its way on a line from `at` on: what meets it counts as what is
    /// sent during a test, but for a moment only.
    pub fn handle_train_begin(&mut self, line: u8, at: Monotonic) {
        let line = usize::from(line);
        if let Some(l) = self.lines.get_mut(line).filter(|_| line < MAX_LINES) {
            l.0.get_or_insert_with(LineWatch::new).tests.begin_train(at);
        }
    }

    /// It no longer is.
    pub fn handle_train_end(&mut self, line: u8, at: Monotonic) {
        if let Some(l) = line_of(&mut self.lines, line) {
            l.tests.end_train(at);
        }
    }

    /// Local time is monotonic time plus this; `None` while it is not known.
    pub const fn handle_local_time(&mut self, offset_ns: Option<i64>) {
        self.local_offset_ns = offset_ns;
    }

    /// Decides what can be decided by now. Whether there is more to do once notices have been polled.
    pub fn handle_timeout(&mut self, now: Monotonic) -> bool {
        self.decide(now.saturating_sub(self.hold_ns))
    }

    /// The same of what was sent until `horizon`.
    fn decide(&mut self, horizon: Monotonic) -> bool {
        loop {
            if !self.ledger.has_room() {
                return true;
            }
            let next = self.first_held().filter(|(sent, _)| *sent <= horizon);
            let until = next.map_or(horizon, |(sent, _)| sent);
            if self.second_at <= until {
                let at = self.second_at;
                self.second_at = if until.saturating_since(at) > 3600 * self::S {
                    // Nothing was probed for long: there is nothing to catch up with.
                    Monotonic::from_nanos(until.as_nanos() - until.as_nanos() % self::S)
                } else {
                    at.saturating_add(self::S)
                };
                self.each_second(at);
                continue;
            }
            match next {
                Some((_, place)) => self.release(place),
                None => return false,
            }
        }
    }

    /// The next notice.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.ledger.poll()
    }

    /// Whether more may yet be told of the event with this number: it lasts, or may come back.
    #[must_use]
    pub fn may_change(&self, id: u32) -> bool {
        self.ledger.may_change(id)
    }

    /// The next record of what a line that may be a cable shows: see [`cable`].
    pub fn poll_record(&mut self) -> Option<cable::Record> {
        let mut lines = self.lines.iter_mut().enumerate();
        lines.find_map(|(n, l)| l.0.as_mut()?.cable.poll(n as u8))
    }

    /// Events that could not be told, and probes that had to be judged before all was known of them.
    #[must_use]
    pub const fn shortfalls(&self) -> (u64, u64) {
        (self.ledger.overflow(), self.late)
    }

    fn local_ns(&self, at: Monotonic) -> Option<u64> {
        let offset_ns = self.local_offset_ns?;
        at.as_nanos().checked_add_signed(offset_ns)
    }

    /// When the oldest of the probes that are held was sent, and its series.
    fn first_held(&self) -> Option<(Monotonic, u8)> {
        let all = self.series.iter().enumerate();
        all.filter_map(|(i, s)| Some((s.0.as_ref()?.settle.first()?, i as u8)))
            .min()
    }

    /// Hands the oldest probe of a series to its detectors.
    fn release(&mut self, place: u8) {
        let t = self.thresholds;
        let Some(probe) = self.take_settled(place) else {
            return;
        };
        let Some(s) = watched(&mut self.series, place) else {
            return;
        };
        let far = s.is_far();
        let Some(l) = line_of(&mut self.lines, s.line()) else {
            return;
        };
        // What a near host is slow to answer is not the access line's queue.
        let way = if far { l.way(&probe, &t) } else { probe.way() };
        let state = (l.busy(probe.sent), way, l.jittery);
        let local_ns = self.local_ns(probe.sent);
        if let Some(s) = watched(&mut self.series, place) {
            s.step(place, &probe, state, local_ns, &t, &mut self.ledger);
        }
    }

    /// The oldest probe of a series, of which its line has heard then; `None` where nobody knows whether it says anything
    /// of the line.
    fn take_settled(&mut self, place: u8) -> Option<Probe> {
        let t = self.thresholds;
        let s = watched(&mut self.series, place)?;
        // Neither a loss nor none, where nobody knows that it is the line's.
        let mut probe = s.settle.pop().filter(|p| !p.dropped)?;
        let (far, in_house, facts) = (s.is_far(), s.is_in_house(), *s.facts());
        let alive = s.losses.is_alive();
        let l = line_of(&mut self.lines, facts.line)?;
        probe.in_test |=
            l.tests.touch(probe.sent, probe.sent) || l.tests.meets_train(probe.sent, probe.sent);
        if in_house {
            // The way out does not lead through it.
        } else if !far {
            l.near.add(probe.sent, probe.answered());
        } else if (alive || probe.answered()) && !probe.in_test {
            let LineWatch { outages, near, .. } = l;
            let mut at = At {
                ledger: &mut self.ledger,
                line: facts.line,
                near,
            };
            outages.step(place, facts.target, &probe, &t, &mut at);
            l.cable.step(place, &facts, &probe);
        }
        Some(probe)
    }

    fn each_second(&mut self, now: Monotonic) {
        let t = self.thresholds;
        let local_ns = self.local_ns(now);
        for (n, l) in self.lines.iter_mut().enumerate() {
            if let Some(LineWatch { outages, near, .. }) = &mut l.0 {
                let mut at = At {
                    ledger: &mut self.ledger,
                    line: n as u8,
                    near,
                };
                outages.settle(now, &t, &mut at);
            }
            if let Some(l) = &mut l.0 {
                cable::each_second(l, now);
                for (up, by_train, watch) in [
                    (true, false, &mut l.up),
                    (false, false, &mut l.down),
                    (true, true, &mut l.up_trains),
                    (false, true, &mut l.down_trains),
                ] {
                    if let Some((kind, at)) = watch.each_second(now, up) {
                        let me = capacity_witness(up, by_train);
                        self.ledger.clear(n as u8, me, kind, at);
                    }
                }
                l.jittery = self
                    .series
                    .iter()
                    .filter_map(|s| s.0.as_ref())
                    .any(|s| usize::from(s.line()) == n && s.is_jittery());
            }
        }
        for (n, s) in self.series.iter_mut().enumerate() {
            let Some(s) = &mut s.0 else { continue };
            if let Some(l) = line_of(&mut self.lines, s.line()) {
                s.each_second(n as u8, now, local_ns, &l.outages, &t, &mut self.ledger);
            }
        }
        let mut all: Vec<(u8, &mut Watched), MAX_SERIES> = self
            .series
            .iter_mut()
            .take(MAX_SERIES)
            .enumerate()
            .filter_map(|(n, s)| Some((n as u8, s.0.as_mut()?)))
            .collect();
        for (n, l) in self.lines.iter_mut().enumerate() {
            if let Some(l) = &mut l.0 {
                let (told, ledger) = (&mut l.told, &mut self.ledger);
                compare(n as u8, now, t.differ_for_ns, told, &mut all, ledger);
            }
        }
        for (n, l) in self.lines.iter_mut().enumerate() {
            let line = n as u8;
            let Some(l) = &mut l.0 else { continue };
            for (kind, trouble) in OF_SOME {
                let members = self.ledger.active(line, kind);
                let found = (!members.is_empty())
                    .then(|| others(line, now, trouble, members, &mut all))
                    .flatten();
                if let Some(others) = found {
                    let word = Value::Word(others.as_str());
                    self.ledger.note(line, kind, "others", word);
                }
            }
            let mut targets = Vec::<u16, MAX_SERIES>::new();
            let of_line = all.iter().map(|(_, s)| &**s);
            for s in of_line.filter(|s| s.line() == line && s.is_far() && s.losses.is_alive()) {
                if !targets.contains(&s.facts().target) {
                    let _ = targets.push(s.facts().target);
                }
            }
            l.outages.far_targets = targets.len() as u8;
        }
        self.ledger.forget(now);
    }
}

/// Who says that a line carries less: the last places of a set of series, which few watches fill.
const fn capacity_witness(up: bool, by_train: bool) -> u8 {
    MAX_SERIES as u8 - 1 - (by_train as u8 * 2 + !up as u8)
}

fn watched(series: &mut [SeriesState], place: u8) -> Option<&mut Watched> {
    series.get_mut(usize::from(place))?.0.as_mut()
}

fn line_of(lines: &mut [LineState], line: u8) -> Option<&mut LineWatch> {
    lines.get_mut(usize::from(line))?.0.as_mut()
}
