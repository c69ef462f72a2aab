//! `micro_outage` and `outage`: no answer from anywhere beyond the access line.
//!
//! All series of a line to hosts beyond it are looked at together, in the order their probes were
//! sent. A stretch of them without any answer is an outage if it is too long to be what the loss
//! around it would do now and then.

use heapless::Deque;

use super::event::{Direction, Finding, Kind, SeriesSet, Severity};
use super::input::{Probe, Thresholds};
use super::ledger::Ledger;
use super::nearby::{Nearby, ln_chance};
use crate::sample::Status;
use crate::time::Monotonic;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;
/// What was lost this near to a stretch tells whether the stretch is something of its own, ns.
const AROUND_NS: u64 = 1000 * MS;
/// Stretches that wait until enough is known of what came after them.
const WAITING: usize = 24;
/// Stretches of which it is known what they were.
const KNOWN: usize = 48;
/// Some target beyond the access line is asked this often, ns.
const ASKED_NS: u64 = 3 * S;
/// Losses are counted by this, ns: sixteen seconds back.
const BIN_NS: u64 = 250 * MS;
/// Probes that the long-term loss stands for beside those right before and after a stretch, and
/// beside those of the last sixteen seconds.
const PRIOR: f64 = 2.0;
const PRIOR_WIDE: f64 = 100.0;
/// Log of the chance that makes a stretch something of its own, by what was lost right before and
/// after it, by the seconds before, and by the long-term loss: a line sees tens of millions of probes
/// a month, and none of them should begin a false outage.
const UNLIKELY: f64 = -8.0;
/// The same where more was lost within a second of it, and where one of that is taken for chance.
const UNLIKELY_BESIDE: f64 = -9.0;
const UNLIKELY_BUT_ONE: f64 = -12.0;
const UNLIKELY_WIDE: f64 = -16.0;
const UNLIKELY_EVER: f64 = -20.0;
/// Of the least length of an outage, what the middle between the most and the least that it may have lasted has to be.
const LEAST_MIDDLE_PERCENT: u64 = 65;
/// A stretch of less than a second has less loss than this beside it.
const BESIDE: f64 = 0.3;

/// A stretch without an answer.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// When the last probe before it was sent that was answered.
    before: Monotonic,
    first: Monotonic,
    last: Monotonic,
    /// The latest arrival of an answer to a probe that was sent before it.
    arrival: Monotonic,
    probes: u32,
    unsent: u32,
    up: u32,
    down: u32,
    series: SeriesSet,
    /// Targets, folded to 32 bits.
    targets: u32,
    /// Probes lost by the series that lost most.
    longest: u16,
    /// How many targets might have answered.
    of: u8,
}

/// A stretch that has ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    stretch: Stretch,
    /// When the first probe was sent that was answered again, and when its answer came.
    end: Monotonic,
    answer: Monotonic,
}

/// What a loss was part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// An outage of the line.
    Outage,
    /// Nothing of the line.
    Single,
    /// It is not known yet.
    Unknown,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Outages {
    now: Option<Stretch>,
    runs: [u16; 64],
    answered: Option<(Monotonic, Monotonic)>,
    waiting: Deque<Ended, WAITING>,
    /// Outages, by their first and last lost probe, and how many were lost.
    known: Deque<(Monotonic, Monotonic, u32), KNOWN>,
    /// The outage that lasts or was the last: its kind, bounds and what is known of its direction.
    telling: bool,
    last: Option<(Kind, Monotonic, Monotonic, u32, u32)>,
    pub(crate) nearby: Nearby,
    /// How many targets beyond the access line answer, or did until just now.
    pub(crate) far_targets: u8,
}

impl Outages {
    pub(crate) const fn new() -> Self {
        Self {
            now: None,
            runs: [0; 64],
            answered: None,
            waiting: Deque::new(),
            known: Deque::new(),
            telling: false,
            last: None,
            nearby: Nearby::new(BIN_NS),
            far_targets: 0,
        }
    }

    /// One probe of a series beyond the access line that has answered before, or does now, in the order they were sent.
    pub(crate) fn step(
        &mut self,
        series: u8,
        target: u16,
        probe: &Probe,
        t: &Thresholds,
        out: &mut At<'_>,
    ) {
        self.nearby.add(probe.sent, !probe.answered());
        let run = &mut self.runs[usize::from(series & 63)];
        if !probe.answered() {
            *run = run.saturating_add(1);
            let run = *run;
            // Silence from the first probe on is that of a line that answered in an earlier run.
            let (before, arrival) = self.answered.unwrap_or((probe.sent, Monotonic::ZERO));
            let s = self.now.get_or_insert(Stretch {
                before,
                first: probe.sent,
                last: probe.sent,
                arrival,
                probes: 0,
                unsent: 0,
                up: 0,
                down: 0,
                series: SeriesSet::default(),
                targets: 0,
                longest: 0,
                of: self.far_targets,
            });
            s.last = probe.sent;
            s.probes += 1;
            s.unsent += u32::from(probe.status == Status::Unsent);
            s.up += u32::from(probe.status == Status::LostUp);
            s.down += u32::from(probe.status == Status::LostDown);
            s.series.insert(series);
            s.targets |= 1 << (target % 32);
            s.longest = s.longest.max(run);
            let s = *s;
            self.ongoing(&s, t, out);
            return;
        }
        *run = 0;
        let arrival = probe
            .sent
            .saturating_add(u64::from(probe.rtt_ns.unwrap_or(0)));
        if let Some(stretch) = self.now.take() {
            self.end(stretch, probe.sent, arrival, t, out);
        }
        let latest = self.answered.map_or(arrival, |(_, a)| a.max(arrival));
        self.answered = Some((probe.sent, latest));
    }

    fn ongoing(&mut self, s: &Stretch, t: &Thresholds, out: &mut At<'_>) {
        if s.last.saturating_since(s.first) < t.outage_ns || !enough(s) {
            return;
        }
        self.telling = true;
        let f = finding(Kind::Outage, Severity::Critical, s, start_of(s), out);
        for series in s.series.iter() {
            out.ledger.raise(out.line, series, f.clone());
        }
    }

    fn end(
        &mut self,
        stretch: Stretch,
        end: Monotonic,
        answer: Monotonic,
        t: &Thresholds,
        out: &mut At<'_>,
    ) {
        if self.telling {
            self.telling = false;
            let to = edge(&stretch, end, answer);
            for series in stretch.series.iter() {
                out.ledger.clear(out.line, series, Kind::Outage, to);
            }
            self.remember(Kind::Outage, &stretch);
            return;
        }
        // It may have lasted from answer to answer, and lasted at least from loss to loss. Offsets within slots put the
        // middle of an outage of four slots, of which three probes are lost, at 2.6 slots at least.
        let at_most = end.saturating_since(stretch.before);
        let at_least = stretch.last.saturating_since(stretch.first);
        let long = at_most >= t.micro_outage_ns
            && (at_most + at_least) / 2 >= t.micro_outage_ns / 100 * LEAST_MIDDLE_PERCENT;
        // Of what lasted when the run began nobody knows the begin, which the edges of a short one are told by.
        let begun = self.answered.is_some() || end.saturating_since(stretch.first) >= t.outage_ns;
        if !long || !begun || !enough(&stretch) {
            return;
        }
        if self.waiting.is_full() {
            self.waiting.pop_front();
        }
        let _ = self.waiting.push_back(Ended {
            stretch,
            end,
            answer,
        });
    }

    /// To be called as time goes on: judges stretches of which enough is known.
    pub(crate) fn settle(&mut self, now: Monotonic, t: &Thresholds, out: &mut At<'_>) {
        while self.settle_next(now, t, out) {}
    }

    /// Judges the oldest of them; `false` where there is none.
    fn settle_next(&mut self, now: Monotonic, t: &Thresholds, out: &mut At<'_>) -> bool {
        let is_known = |e: &Ended| now.saturating_since(e.end) >= AROUND_NS + BIN_NS;
        if !self.waiting.front().is_some_and(is_known) {
            return false;
        }
        let Some(e) = self.waiting.pop_front().filter(|e| self.is_something(e)) else {
            return true;
        };
        let start = start_of(&e.stretch);
        let end = edge(&e.stretch, e.end, e.answer);
        let long = end.saturating_since(start) >= t.outage_ns;
        let (kind, severity) = if long {
            (Kind::Outage, Severity::Critical)
        } else {
            (Kind::MicroOutage, Severity::Warning)
        };
        let f = finding(kind, severity, &e.stretch, start, out);
        if long {
            for series in e.stretch.series.iter() {
                out.ledger.happened(out.line, series, f.clone(), end);
            }
        } else {
            out.ledger.went_dead(out.line, e.stretch.series, &f, end);
        }
        self.remember(kind, &e.stretch);
        true
    }

    /// Probing ends: judges all stretches by what was seen, and of one that lasts tells the begin. What was sent
    /// `unknown_ns` ago and later may yet be answered. Whether there is more to tell than there is room for.
    pub(crate) fn finish(
        &mut self,
        now: Monotonic,
        unknown_ns: u64,
        t: &Thresholds,
        out: &mut At<'_>,
    ) -> bool {
        let all = now.saturating_add(AROUND_NS + BIN_NS);
        while self.settle_next(all, t, out) {
            if !out.ledger.has_room() {
                return true;
            }
        }
        let Some(s) = self.now.filter(|_| !self.telling) else {
            return false;
        };
        let lasted = Ended {
            stretch: s,
            end: s.last,
            answer: s.last,
        };
        let long = s.last.saturating_since(s.first) >= t.micro_outage_ns && enough(&s);
        // Where nobody is asked any more, nobody is silent.
        let lasts = now.saturating_since(s.last) <= unknown_ns + ASKED_NS;
        if long && lasts && self.answered.is_some() && self.is_something(&lasted) {
            self.telling = true;
            let start = start_of(&s);
            let f = finding(Kind::MicroOutage, Severity::Warning, &s, start, out);
            for series in s.series.iter() {
                out.ledger.raise(out.line, series, f.clone());
            }
        }
        !out.ledger.has_room()
    }

    /// Whether the losses around a stretch do not explain it.
    fn is_something(&self, e: &Ended) -> bool {
        let (first, end) = (e.stretch.first, e.end);
        let own = f64::from(e.stretch.probes);
        let usual = self.nearby.usual();
        let around = |from, to| self.nearby.between(from, to);
        let in_a_row = |near, weight| ln_chance((own, own), near, usual, weight);
        // Other outages are not loss either.
        let outages: u32 = self
            .known
            .iter()
            .filter(|(from, ..)| *from >= self.nearby.since())
            .map(|(.., probes)| *probes)
            .sum();
        let (lost, all) = around(Monotonic::ZERO, end.saturating_add(AROUND_NS));
        let not = own + f64::from(outages);
        let wide = ((lost - not).max(0.0), (all - not).max(0.0));
        // Between losses a short stretch is part of them, however unlikely.
        let short = end.saturating_since(first) < S;
        let apart = |by_chance: f64, limit: f64| {
            let (near, chance) = self.beside(e, by_chance);
            (!short || near < BESIDE) && chance < limit
        };
        let (lost, _) = around(
            first.saturating_sub(AROUND_NS),
            end.saturating_add(AROUND_NS),
        );
        let alone = lost <= own;
        (apart(0.0, if alone { UNLIKELY } else { UNLIKELY_BESIDE }) || apart(1.0, UNLIKELY_BUT_ONE))
            && in_a_row(wide, PRIOR_WIDE) < UNLIKELY_WIDE
            && own * libm::log(usual) < UNLIKELY_EVER
    }

    /// The largest share that was lost right before or after a stretch, or both, and the log of the largest
    /// chance that it is part of that: a burst of losses may begin or end with it, or end right beside it.
    /// So many of them on each side are there `by_chance`.
    fn beside(&self, e: &Ended, by_chance: f64) -> (f64, f64) {
        let (first, end) = (e.stretch.first, e.end);
        let own = f64::from(e.stretch.probes);
        let usual = self.nearby.usual();
        let around = |from, to| self.nearby.between(from, to);
        let (mut near, mut chance) = (0.0f64, f64::NEG_INFINITY);
        for ns in [BIN_NS, 2 * BIN_NS, AROUND_NS] {
            let before = around(first.saturating_sub(ns), first.saturating_sub(BIN_NS));
            let after = around(end.saturating_add(BIN_NS), end.saturating_add(ns));
            let (lost, all) = around(first.saturating_sub(ns), end.saturating_add(ns));
            let both = (lost - own, (all - own).max(0.0));
            for (lost, all) in [before, after, both] {
                let side = ((lost - by_chance).max(0.0), all);
                near = near.max((side.0 + PRIOR * usual) / (side.1 + PRIOR));
                chance = chance.max(ln_chance((own, own), side, usual, PRIOR));
            }
        }
        (near, chance)
    }

    fn remember(&mut self, kind: Kind, s: &Stretch) {
        if self.known.is_full() {
            self.known.pop_front();
        }
        let _ = self.known.push_back((s.first, s.last, s.probes));
        self.nearby.except(s.probes);
        self.last = Some((kind, s.first, s.last, s.up, s.down));
    }

    /// What the losses of one series between two instants were part of.
    pub(crate) fn part(&self, first: Monotonic, last: Monotonic) -> Part {
        // A loss of its own may lie right before or after.
        let mostly = |a: Monotonic, b: Monotonic| {
            let common_ns = last.min(b).saturating_since(first.max(a));
            first.max(a) <= last.min(b) && 2 * common_ns >= last.saturating_since(first)
        };
        if self.known.iter().rev().any(|(a, b, _)| mostly(*a, *b)) {
            return Part::Outage;
        }
        let open = self
            .waiting
            .iter()
            .any(|e| mostly(e.stretch.first, e.stretch.last));
        if open || self.now.is_some_and(|s| first >= s.first) {
            Part::Unknown
        } else {
            Part::Single
        }
    }

    /// Whether the line was dead for some of the time between two instants of some seconds ago.
    pub(crate) fn touch(&self, from: Monotonic, to: Monotonic) -> bool {
        let known = self.known.iter().map(|(a, b, _)| (*a, *b));
        let open = self
            .waiting
            .iter()
            .map(|e| (e.stretch.first, e.stretch.last));
        let lasting = self.now.map(|s| (s.first, s.last));
        known
            .chain(open)
            .chain(lasting)
            .any(|(a, b)| a <= to && from <= b)
    }

    /// A loss of long ago has got its direction.
    pub(crate) fn learn(&mut self, probe: &Probe, out: &mut At<'_>) {
        let Some((kind, first, last, up, down)) = &mut self.last else {
            return;
        };
        if probe.sent < *first || probe.sent > *last {
            return;
        }
        *up += u32::from(probe.status == Status::LostUp);
        *down += u32::from(probe.status == Status::LostDown);
        let direction = direction_of(*up, *down);
        if *kind == Kind::Outage {
            out.ledger.learn_direction(out.line, *kind, direction);
        }
    }
}

/// Where detectors of a line tell.
pub(crate) struct At<'a> {
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) line: u8,
    /// What is known of the near gateway.
    pub(crate) near: &'a Near,
}

/// The latest probes of what is near: when, and whether they were answered.
#[derive(Clone, Debug)]
pub(crate) struct Near(Deque<(Monotonic, bool), 64>);

impl Near {
    pub(crate) const fn new() -> Self {
        Self(Deque::new())
    }

    pub(crate) fn add(&mut self, at: Monotonic, answered: bool) {
        if self.0.is_full() {
            self.0.pop_front();
        }
        let _ = self.0.push_back((at, answered));
    }

    /// How it was between two instants.
    fn state(&self, from: Monotonic, to: Monotonic) -> &'static str {
        let mut within = self
            .0
            .iter()
            .filter(|(at, _)| (from..=to).contains(at))
            .map(|(_, answered)| *answered);
        match within.next() {
            None => "unknown",
            Some(first) if first || within.any(|a| a) => "well",
            Some(_) => "down",
        }
    }
}

/// Three probes of one series, or three targets.
const fn enough(s: &Stretch) -> bool {
    s.longest >= 3 || s.targets.count_ones() >= 3
}

/// A request that is lost on the way up was never seen at the far end, whatever became of the way
/// down: so losses upward say "nothing came through", and only those downward name a direction.
fn direction_of(up: u32, down: u32) -> Option<Direction> {
    (down > 0 && down >= 4 * up).then_some(Direction::Down)
}

/// The line still worked when the last answer came.
fn start_of(s: &Stretch) -> Monotonic {
    s.first.max(s.arrival)
}

/// Where only the way down was cut, the first answer shows its end; else the first answered request.
fn edge(s: &Stretch, end: Monotonic, answer: Monotonic) -> Monotonic {
    if direction_of(s.up, s.down) == Some(Direction::Down) {
        answer
    } else {
        end
    }
}

fn finding(kind: Kind, severity: Severity, s: &Stretch, start: Monotonic, out: &At<'_>) -> Finding {
    Finding::new(kind, severity, start)
        .direction(direction_of(s.up, s.down))
        .number("probes", u64::from(s.probes))
        .number("unsent", u64::from(s.unsent))
        .number("targets_lost", u64::from(s.targets.count_ones()))
        .number("far_targets", s.of.max(s.targets.count_ones() as u8).into())
        .word("gateway", out.near.state(s.first, s.last))
}

#[cfg(test)]
mod tests;
