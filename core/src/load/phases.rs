//! The three phases of a test: latency alone, under load, and until it is back.

use super::MAX_LOAD_NS;
use crate::time::Monotonic;

/// How long each phase takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseTimes {
    /// Probing alone before, ns.
    pub idle_ns: u64,
    /// Streams run, ns.
    pub load_ns: u64,
    /// Probing alone after, at most, ns; it ends early when latency is back.
    pub recovery_ns: u64,
}

impl PhaseTimes {
    /// For streams that run `load_ns`: three seconds before, and up to ten after.
    #[must_use]
    pub const fn with_load(load_ns: u64) -> Self {
        Self {
            idle_ns: 3_000_000_000,
            load_ns: if load_ns < MAX_LOAD_NS {
                load_ns
            } else {
                MAX_LOAD_NS
            },
            recovery_ns: 10_000_000_000,
        }
    }

    /// What of the load phase counts as steady begins this long after its start, ns: a quarter, at
    /// most two seconds. Before that streams are still finding their rate.
    #[must_use]
    pub const fn ramp_ns(&self) -> u64 {
        let quarter = self.load_ns / 4;
        if quarter < 2_000_000_000 {
            quarter
        } else {
            2_000_000_000
        }
    }
}

/// Where a test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Probes alone.
    Idle,
    /// Streams run.
    Load,
    /// Streams have ended.
    Recovery,
    /// It is over.
    Done,
}

impl Phase {
    /// The word users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Load => "load",
            Self::Recovery => "recovery",
            Self::Done => "done",
        }
    }
}

/// Goes through the phases. The load phase begins when its driver says that streams run.
#[derive(Clone, Copy, Debug)]
pub struct Phases {
    times: PhaseTimes,
    begun: Monotonic,
    load: Option<Monotonic>,
    load_end: Option<Monotonic>,
    done: bool,
}

impl Phases {
    /// The idle phase begins at `now`.
    #[must_use]
    pub const fn new(times: PhaseTimes, now: Monotonic) -> Self {
        Self {
            times,
            begun: now,
            load: None,
            load_end: None,
            done: false,
        }
    }

    /// The phase at present.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match (self.done, self.load, self.load_end) {
            (true, ..) => Phase::Done,
            (_, None, _) => Phase::Idle,
            (_, Some(_), None) => Phase::Load,
            (_, _, Some(_)) => Phase::Recovery,
        }
    }

    /// Whether the idle phase has lasted long enough for streams to be opened.
    #[must_use]
    pub const fn may_load(&self, now: Monotonic) -> bool {
        self.load.is_none() && now.saturating_since(self.begun) >= self.times.idle_ns
    }

    /// The first stream began to carry at `now`.
    pub fn loaded(&mut self, now: Monotonic) {
        self.load.get_or_insert(now);
    }

    /// Whether the streams are to be ended at `now`.
    #[must_use]
    pub fn must_end_load(&self, now: Monotonic) -> bool {
        self.load_end.is_none()
            && self
                .load
                .is_some_and(|l| now.saturating_since(l) >= self.times.load_ns)
    }

    /// The streams were ended at `now`.
    pub fn unloaded(&mut self, now: Monotonic) {
        self.load.get_or_insert(now);
        self.load_end.get_or_insert(now);
    }

    /// Looks at the clock; `back` says whether latency is back. Gives the phase.
    pub fn advance(&mut self, now: Monotonic, back: bool) -> Phase {
        if let Some(end) = self.load_end {
            let over = now.saturating_since(end) >= self.times.recovery_ns;
            self.done |= back || over;
        }
        self.phase()
    }

    /// [`PhaseTimes::ramp_ns`] of the time for which streams ran, which may have been ended early.
    #[must_use]
    pub fn ramp_ns(&self) -> u64 {
        let ran = self.load.zip(self.load_end);
        let ran_ns = ran.map_or(u64::MAX, |(from, to)| to.saturating_since(from));
        PhaseTimes {
            load_ns: self.times.load_ns.min(ran_ns),
            ..self.times
        }
        .ramp_ns()
    }

    /// The times of the phases.
    #[must_use]
    pub const fn times(&self) -> &PhaseTimes {
        &self.times
    }

    /// When the idle phase began.
    #[must_use]
    pub const fn begun(&self) -> Monotonic {
        self.begun
    }

    /// When the load phase began.
    #[must_use]
    pub const fn load(&self) -> Option<Monotonic> {
        self.load
    }

    /// When it ended.
    #[must_use]
    pub const fn load_end(&self) -> Option<Monotonic> {
        self.load_end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    const fn at(ns: u64) -> Monotonic {
        Monotonic::from_nanos(ns)
    }

    #[test]
    fn phases_follow_each_other() {
        let mut p = Phases::new(PhaseTimes::with_load(8 * S), at(S));
        assert_eq!(p.phase(), Phase::Idle);
        assert!(!p.may_load(at(4 * S - 1)) && p.may_load(at(4 * S)));
        p.loaded(at(5 * S));
        assert!(!p.may_load(at(6 * S)));
        assert_eq!(p.advance(at(6 * S), true), Phase::Load);
        assert!(!p.must_end_load(at(13 * S - 1)) && p.must_end_load(at(13 * S)));
        p.unloaded(at(13 * S));
        assert!(!p.must_end_load(at(14 * S)));
        assert_eq!(p.ramp_ns(), 2 * S);
        assert_eq!(p.advance(at(14 * S), false), Phase::Recovery);
        assert_eq!(p.advance(at(15 * S), true), Phase::Done);
        assert_eq!(
            (p.load(), p.load_end()),
            (Some(at(5 * S)), Some(at(13 * S)))
        );
    }

    #[test]
    fn recovery_ends_by_itself_and_a_test_is_bounded() {
        let mut p = Phases::new(PhaseTimes::with_load(600 * S), at(0));
        assert_eq!(p.times().load_ns, MAX_LOAD_NS);
        p.loaded(at(S));
        p.unloaded(at(5 * S));
        assert_eq!(
            p.ramp_ns(),
            S,
            "a quarter of the time for which it was loaded"
        );
        assert_eq!(p.advance(at(15 * S - 1), false), Phase::Recovery);
        assert_eq!(p.advance(at(15 * S), false), Phase::Done);
        assert_eq!(PhaseTimes::with_load(4 * S).ramp_ns(), S);
        assert_eq!(PhaseTimes::with_load(60 * S).ramp_ns(), 2 * S);
    }
}
