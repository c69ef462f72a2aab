//! One service: its latest answers, and the troubles that they show.

use heapless::Vec;

use super::super::chance::{Z95, divergence, wilson};
use super::super::event::{Phase, Severity};
use super::super::input::clipped;
use super::change::{Change, Stretch};
use super::excuse::{Excuses, Explains};
use super::trouble::{Rule, Trouble};
use super::{Answer, End, Evidence, Limits, S, SETTLE_NS, ServiceFacts};
use crate::failure::Failure;
use crate::time::Monotonic;

/// Answers that are kept: an hour of one each ten seconds.
const KEPT: usize = 400;
/// What is longer ago says nothing of now, ns.
const WINDOW_NS: u64 = 3600 * S;
/// Shares are of this time, ns: bad answers of a shorter stretch count as if all others of it had been good. And well is
/// what was well for so long.
const OVER_NS: u64 = 60 * S;
/// Minus the log of the chance that answers which are bad as often as is usual show as much. A month has 260000 looks at
/// a resolver that is asked each ten seconds, of which one in ten is a new one; six of six are enough.
const OF_ALL_LOOKS: f64 = 13.0;
/// The same against what is usual for a service itself, of which less is known: what it fails with nothing wrong may come
/// in twos.
const OF_ITS_OWN: f64 = 16.0;
/// Answers that the guess of what is usual stands for, and those after which what is known counts half: a day of one each
/// ten seconds.
const PRIOR: f64 = 200.0;
const MEMORY: f64 = 8640.0;
/// The same for a trouble's being over: what was too soon comes back as the same one.
const OVER: f64 = 10.0;
/// While a trouble is younger than this, ns, as long a time before it is known too, and more answers tell its begin better.
const YOUNG_NS: u64 = WINDOW_NS / 2;
/// Nobody knows of a trouble that no answer has shown for so long, ns.
const STALE_NS: u64 = 900 * S;
/// Failures of half of all questions are critical.
const CRITICAL: f64 = 0.5;
/// Different reasons that are counted.
const REASONS: usize = 8;

/// What [`Past::code`] is where nobody answered: no failure has this number.
const SILENT: u16 = u16::MAX;

/// An answer, as it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    sent: Monotonic,
    /// What it took, ns, where it was a good one.
    took_ns: u32,
    /// Why it was not; 0 where it was.
    code: u16,
    is_settled: bool,
    excused: Option<Explains>,
}

impl Past {
    pub(super) const fn has_failed(&self) -> bool {
        self.code != 0
    }

    pub(super) fn took_ns(&self) -> Option<u32> {
        (self.code == 0).then_some(self.took_ns)
    }

    /// Whether the line explains its failure; of a good one, whether it would explain any.
    pub(super) fn excuses_failure(&self) -> bool {
        match self.excused {
            Some(Explains::All) => true,
            Some(Explains::Silence) => self.code == SILENT,
            Some(Explains::Delay) | None => false,
        }
    }

    pub(super) const fn excuses_delay(&self) -> bool {
        self.excused.is_some()
    }
}

/// A trouble that was told.
#[derive(Clone, Copy, Debug)]
struct Told {
    since: Monotonic,
    severity: Severity,
    /// Its last bad answer, once it is over.
    end: Option<Monotonic>,
    /// See [`Change`].
    lasts_since: Monotonic,
    before: Option<Monotonic>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) facts: ServiceFacts,
    /// In the order of asking.
    past: Vec<Past, KEPT>,
    told: [Option<Told>; Trouble::OF_EACH],
    /// Whether an answer has come to count, or was explained, since the last look.
    is_new: bool,
    /// Nothing before this is looked at: it belongs to trouble that is over.
    done: [Monotonic; Trouble::OF_EACH],
    /// Failures and all answers that were kept and belong to no trouble.
    calm: (f64, f64),
}

impl Asked {
    pub(super) const fn new(facts: ServiceFacts) -> Self {
        Self {
            facts,
            past: Vec::new(),
            told: [None; Trouble::OF_EACH],
            is_new: false,
            done: [Monotonic::ZERO; Trouble::OF_EACH],
            calm: (0.0, 0.0),
        }
    }

    /// Takes in an answer; one that is late finds its place among the others.
    pub(super) fn add(&mut self, answer: Answer) {
        if self.past.is_full() {
            let oldest = self.past.remove(0);
            self.learn(&oldest);
        }
        let (took_ns, code) = match answer.end {
            End::Answered(ns) => (clipped(ns), 0),
            End::Failed(why) => (0, why.code()),
            End::Silent => (0, SILENT),
        };
        let new = Past {
            sent: answer.sent,
            took_ns,
            code,
            is_settled: false,
            excused: None,
        };
        let place = self.past.iter().rposition(|p| p.sent <= new.sent);
        // There is room.
        let _ = self.past.insert(place.map_or(0, |n| n + 1), new);
    }

    /// An answer is kept no longer: what is usual becomes known.
    fn learn(&mut self, past: &Past) {
        let failing = Trouble::FAILING;
        let told = self.told[failing].filter(|t| t.end.is_none());
        let is_calm = past.sent >= self.done[failing] && told.is_none_or(|t| past.sent < t.since);
        let is_excused = past.excused.is_some_and(|e| e >= Explains::Silence);
        if !past.is_settled || is_excused || !is_calm {
            return;
        }
        let (failed, all) = &mut self.calm;
        *failed += f64::from(u8::from(past.has_failed()));
        *all += 1.0;
        if *all > MEMORY {
            (*failed, *all) = (*failed / 2.0, *all / 2.0);
        }
    }

    /// The share of questions that fails with nothing wrong: half of what is too much at least, which is the guess where
    /// little is known, and at most that.
    fn usual_failures(&self, too_much: f64) -> f64 {
        let (failed, all) = self.calm;
        let least = too_much / 2.0;
        let known = (failed + PRIOR * least) / (all + PRIOR);
        known.clamp(least, too_much)
    }

    /// Lets those count whose time has come. Whether there is something to judge.
    pub(super) fn settle(&mut self, now: Monotonic, excuses: &Excuses) -> bool {
        let horizon = now.saturating_sub(SETTLE_NS);
        let mut is_news = excuses.is_news();
        let (line, timeout_ns) = (self.facts.line, self.facts.timeout_ns);
        for p in self.past.iter_mut().filter(|p| p.sent <= horizon) {
            if !p.is_settled || excuses.is_news() {
                is_news |= !p.is_settled;
                p.is_settled = true;
                // What comes once it is answered is no matter to it.
                let took_ns = p.took_ns().map_or(timeout_ns, u64::from);
                let until = p.sent.saturating_add(took_ns);
                // What was explained once remains so, however long ago its explanation is.
                p.excused = p.excused.max(excuses.of(line, p.sent, until));
            }
        }
        self.is_new = is_news;
        is_news || self.told.iter().flatten().any(|t| t.end.is_none())
    }

    /// When each answer that says something of a trouble was asked for, and whether it is a bad one, the oldest first.
    fn trials(
        &self,
        trouble: Trouble,
        limits: &Limits,
    ) -> impl DoubleEndedIterator<Item = (Monotonic, bool)> {
        let settled = self.past.iter().filter(|p| p.is_settled);
        settled.filter_map(move |p| Some((p.sent, trouble.is_hit(p, limits)?)))
    }

    /// What is new of a trouble by `now`.
    pub(super) fn judge(
        &mut self,
        trouble: Trouble,
        now: Monotonic,
        limits: &Limits,
    ) -> Option<Change> {
        let slot = trouble.slot();
        let before = self.told[slot];
        let change = if let Some(told) = before.filter(|t| t.end.is_none()) {
            self.go_on(trouble, told, now, limits)
        } else {
            self.begin(trouble, before, now, limits)
        };
        if let Some(c) = change {
            self.told[slot] = (!c.explained).then_some(Told {
                since: c.since,
                severity: c.severity,
                end: c.end,
                lasts_since: c.lasts_since,
                before: c.before,
            });
            if let Some(end) = c.end {
                let last = end.max(c.lasts_since);
                self.done[slot] = last.saturating_add(1);
            }
        }
        change
    }

    fn begin(
        &self,
        trouble: Trouble,
        before: Option<Told>,
        now: Monotonic,
        limits: &Limits,
    ) -> Option<Change> {
        let (since, severity) = self.onset(trouble, now, limits)?;
        let back = before.filter(|t| {
            t.end
                .is_some_and(|end| since.saturating_since(end) < limits.hold_down_ns)
        });
        Some(Change {
            phase: back.map_or(Phase::Begin, |_| Phase::Update),
            severity: back.map_or(severity, |t| t.severity.max(severity)),
            since: back.map_or(since, |t| t.since),
            end: None,
            explained: false,
            lasts_since: since,
            before: back.and_then(|t| t.end),
        })
    }

    fn go_on(
        &self,
        trouble: Trouble,
        told: Told,
        now: Monotonic,
        limits: &Limits,
    ) -> Option<Change> {
        let over = |end, explained| {
            Some(Change {
                phase: Phase::End,
                severity: told.severity,
                since: told.since,
                end: Some(end),
                explained,
                lasts_since: told.lasts_since,
                before: told.before,
            })
        };
        let from = told.lasts_since;
        // Its first bad answer is found to say nothing.
        let first = self.past.iter().find(|p| p.sent == from);
        if first.is_some_and(|p| trouble.is_hit(p, limits).is_none()) {
            // Where it has only not come back, what was before is its own.
            let end = told.before.unwrap_or(from);
            return over(end, told.before.is_none());
        }
        if let Some(end) = self.offset(trouble, from, now, limits) {
            return over(end, false);
        }
        if !self.is_new {
            return None;
        }
        let (since, severity) = self.onset(trouble, now, limits)?;
        // Where it is later, the trouble has become worse since.
        let is_young = now.saturating_since(from) < YOUNG_NS;
        let lasts_since = if is_young { since.min(from) } else { from };
        if severity <= told.severity && lasts_since == from {
            return None;
        }
        Some(Change {
            phase: Phase::Update,
            severity: severity.max(told.severity),
            since: told.since.min(lasts_since),
            end: None,
            explained: false,
            lasts_since,
            before: told.before,
        })
    }

    /// Where the stretch up to now began in which a trouble is sure, and how bad it is. Of several it is the one before
    /// which the share was most clearly another.
    fn onset(
        &self,
        trouble: Trouble,
        now: Monotonic,
        limits: &Limits,
    ) -> Option<(Monotonic, Severity)> {
        let not_before = self.done[trouble.slot()].max(now.saturating_sub(WINDOW_NS));
        let new = || {
            let trials = self.trials(trouble, limits).rev();
            trials.take_while(move |(at, _)| *at >= not_before)
        };
        let Rule::Share { usual, least } = trouble.rule(limits) else {
            return onset_of_drops(new(), limits).map(|at| (at, Severity::Warning));
        };
        let of_itself = (trouble == Trouble::DnsFailing).then(|| self.usual_failures(usual));
        let in_all = counts(new());
        let (mut bad, mut all) = (0, 0);
        let mut best: Option<(f64, Monotonic, Severity)> = None;
        for (at, is_bad) in new() {
            all += 1;
            bad += u32::from(is_bad);
            if !is_bad {
                continue;
            }
            let (n, k) = (f64::from(all), f64::from(bad));
            let surely = wilson(k, n, Z95).0;
            let covers_ns = u64::from(bad) * self.facts.interval_ns;
            let is_chance = |usual, sure| n * divergence(k / n, usual) <= sure;
            let is_sure = !is_chance(usual, OF_ALL_LOOKS)
                || of_itself.is_some_and(|usual| !is_chance(usual, OF_ITS_OWN));
            let is_enough = is_sure
                && k >= least * n
                && surely > usual
                && covers_ns as f64 > least * OVER_NS as f64;
            if !is_enough {
                continue;
            }
            let score =
                log_likelihood((bad, all)) + log_likelihood((in_all.0 - bad, in_all.1 - all));
            // Where all were bad as far as is known, the first of them.
            if best.is_none_or(|(s, ..)| score >= s) {
                let severity = if !trouble.is_slow() && surely > CRITICAL {
                    Severity::Critical
                } else {
                    Severity::Warning
                };
                best = Some((score, at, severity));
            }
        }
        best.map(|(_, at, severity)| (at, severity))
    }

    /// The last bad answer of a trouble that is over: the one between two shares that tell most more than one
    /// (maximum likelihood), once it is sure that the second is no trouble.
    fn offset(
        &self,
        trouble: Trouble,
        since: Monotonic,
        now: Monotonic,
        limits: &Limits,
    ) -> Option<Monotonic> {
        let of_it = || {
            self.trials(trouble, limits)
                .filter(move |(at, _)| *at >= since)
        };
        let known = now.saturating_sub(SETTLE_NS);
        let last_bad = of_it().rev().find(|t| t.1).map_or(since, |t| t.0);
        let last = of_it().next_back().map_or(since, |t| t.0);
        if known.saturating_since(last) >= STALE_NS {
            return Some(last_bad);
        }
        let Rule::Share { usual, least } = trouble.rule(limits) else {
            // As of a connection that is held.
            let calm_ns = known.saturating_since(last_bad);
            return (calm_ns >= limits.drops.within_ns).then_some(last_bad);
        };
        if !self.is_new {
            return None;
        }
        let (bad, all) = counts(of_it());
        let (mut bad_by, mut all_by) = (0, 0);
        let mut best: Option<(f64, Monotonic, [Counts; 2])> = None;
        for (at, is_bad) in of_it() {
            all_by += 1;
            if is_bad {
                bad_by += 1;
                let halves = [(bad_by, all_by), (bad - bad_by, all - all_by)];
                let score = halves.into_iter().map(log_likelihood).sum();
                if best.is_none_or(|(s, ..)| score > s) {
                    best = Some((score, at, halves));
                }
            }
        }
        let (_, end, [(bad_by, all_by), (bad_after, after)]) = best?;
        if u64::from(after) * self.facts.interval_ns < OVER_NS {
            return None;
        }
        let share_after = f64::from(bad_after) / f64::from(after);
        let share = (f64::from(bad_by) / f64::from(all_by)).clamp(usual, 0.95);
        let calm = f64::from(after) * divergence(1.0 - share_after, 1.0 - share);
        (calm > OVER && share_after < least).then_some(end)
    }

    /// What speaks for a trouble in a stretch; what others did is known elsewhere.
    pub(super) fn evidence(&self, trouble: Trouble, stretch: Stretch, limits: &Limits) -> Evidence {
        let mut e = Evidence::default();
        let mut took_ns: Vec<u32, KEPT> = Vec::new();
        let mut reasons: Vec<(u16, u32), REASONS> = Vec::new();
        for p in self.within(stretch) {
            let Some(is_bad) = trouble.is_hit(p, limits) else {
                continue;
            };
            e.asked += 1;
            e.bad += u32::from(is_bad);
            if let Some(ns) = p.took_ns() {
                // There is room for what all of them took.
                let _ = took_ns.push(ns);
            }
            match p.code {
                0 => {}
                SILENT => e.silent += 1,
                code => match reasons.iter_mut().find(|(c, _)| *c == code) {
                    Some((_, n)) => *n += 1,
                    // A ninth reason is not the most frequent one.
                    None => drop(reasons.push((code, 1))),
                },
            }
        }
        took_ns.sort_unstable();
        e.median_ns = took_ns.get(took_ns.len() / 2).map(|ns| u64::from(*ns));
        let most = reasons.iter().max_by_key(|(_, n)| *n);
        if let Some((code, n)) = most {
            (e.failure, e.failures) = (Failure::from_code(*code), *n);
        }
        e
    }

    /// How many answers of a stretch were bad in any way, and of how many.
    pub(super) fn bad_of(&self, stretch: Stretch, limits: &Limits) -> (u32, u32) {
        let of = Trouble::of(self.facts.asks);
        let told = self.within(stretch).filter(|p| match p.has_failed() {
            true => !p.excuses_failure(),
            false => !p.excuses_delay(),
        });
        counts(told.map(|p| (p.sent, of.iter().any(|t| t.is_hit(p, limits) == Some(true)))))
    }

    fn within(&self, stretch: Stretch) -> impl Iterator<Item = &Past> {
        let settled = self.past.iter().filter(|p| p.is_settled);
        settled.filter(move |p| (stretch.from..=stretch.to).contains(&p.sent))
    }
}

/// The bad ones, and all.
type Counts = (u32, u32);

fn counts(trials: impl Iterator<Item = (Monotonic, bool)>) -> Counts {
    trials.fold((0, 0), |(bad, all), (_, is)| (bad + u32::from(is), all + 1))
}

/// How likely it is that so many of all are bad, at the share that makes it likeliest: its log.
fn log_likelihood((bad, all): Counts) -> f64 {
    let part = |n: u32| match n {
        0 => 0.0,
        n => f64::from(n) * libm::log(f64::from(n) / f64::from(all)),
    };
    part(bad) + part(all - bad)
}

/// The first of the latest bad ones, the latest first, that are as many as make trouble within its time.
fn onset_of_drops(
    trials: impl Iterator<Item = (Monotonic, bool)>,
    limits: &Limits,
) -> Option<Monotonic> {
    let mut bad = trials.filter(|t| t.1).map(|t| t.0);
    let last = bad.next()?;
    let from = last.saturating_sub(limits.drops.within_ns);
    let (mut drops, mut first) = (1, last);
    for at in bad.take_while(|at| *at >= from) {
        (drops, first) = (drops + 1, at);
    }
    (drops >= limits.drops.drops).then_some(first)
}
