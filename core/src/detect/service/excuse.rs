//! What a line did, by which what its services did is explained.

use heapless::Vec;

use super::super::event::Kind;
use super::SETTLE_NS;
use crate::own_tests;
use crate::time::Monotonic;

/// Stretches that are remembered.
const KEPT: usize = 48;
/// Trains of one line that are remembered, and so short that no more of them meet a question before it counts: they come
/// often, and are not to take the room of what else the line did.
const TRAINS_KEPT: usize = 8;
/// Edges of the line's troubles are known no better, and a resolver takes a moment to find its own again, ns.
const AROUND_NS: u64 = 10_000_000_000;

/// Whose a stretch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The event with this number.
    Event(u32),
    /// A throughput test of our own.
    Test,
    /// A packet train of our own.
    Train,
}

impl Why {
    /// How long before its begin and after its end a question may meet it, ns.
    const fn around_ns(self) -> (u64, u64) {
        match self {
            Self::Event(_) => (AROUND_NS, AROUND_NS),
            Self::Test => (own_tests::BEFORE_NS, own_tests::AFTER_NS),
            Self::Train => (own_tests::AROUND_TRAIN_NS, own_tests::AROUND_TRAIN_NS),
        }
    }
}

/// What it explains, each more than those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Explains {
    /// That answers are slow.
    Delay,
    /// That nobody answers, and that answers are slow: who refuses was reached.
    Silence,
    /// That answers fail or are missing, and that they are slow.
    All,
}

impl Explains {
    /// What an event of the line explains; `None` where it is nothing that a service would show.
    #[must_use]
    pub const fn of(kind: Kind) -> Option<Self> {
        match kind {
            // A resolver that asks others through the same line says that it could not.
            Kind::Outage | Kind::MicroOutage | Kind::LossBurst => Some(Self::All),
            Kind::PacketLoss | Kind::PeriodicLoss => Some(Self::Silence),
            Kind::Bufferbloat | Kind::LatencySpike | Kind::HighJitter => Some(Self::Delay),
            _ => None,
        }
    }
}

/// What a line did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineTrouble {
    /// Which line.
    pub line: u8,
    /// Whose it is; it takes the place of what was told of the same event before.
    pub why: Why,
    /// Since when.
    pub from: Monotonic,
    /// Until when; `None` while it lasts.
    pub to: Option<Monotonic>,
    /// What it explains.
    pub explains: Explains,
}

impl LineTrouble {
    fn meets(&self, from: Monotonic, to: Monotonic) -> bool {
        let (before_ns, after_ns) = self.why.around_ns();
        let is_before = self
            .to
            .is_some_and(|end| end.saturating_add(after_ns) < from);
        to.saturating_add(before_ns) >= self.from && !is_before
    }
}

/// All that is remembered of it.
#[derive(Clone, Debug)]
pub(super) struct Excuses {
    all: Vec<LineTrouble, KEPT>,
    is_news: bool,
}

impl Excuses {
    pub(super) const fn new() -> Self {
        Self {
            all: Vec::new(),
            is_news: false,
        }
    }

    /// Takes in what a line did, as is known `now`.
    pub(super) fn add(&mut self, now: Monotonic, new: LineTrouble) {
        self.is_news = true;
        let is_same = |t: &LineTrouble| t.line == new.line && t.why == new.why;
        let told = self.all.iter().filter(|t| is_same(t)).count();
        let latest = self.all.iter_mut().filter(|t| is_same(t));
        let latest = latest.max_by_key(|t| t.from);
        match (new.why, latest) {
            (_, None) => self.push(new),
            (Why::Event(_), Some(t)) => match t.to {
                Some(end) if new.to.is_none_or(|to| to > end.saturating_add(AROUND_NS)) => {
                    // It has come back within the hold-down: what is between is not explained.
                    let settled = now.saturating_sub(SETTLE_NS);
                    let back = new.to.map_or(settled, |to| to.min(settled)).max(end);
                    self.push(LineTrouble { from: back, ..new });
                }
                _ => {
                    t.to = new.to;
                    t.from = if told == 1 { new.from } else { t.from };
                }
            },
            // One of our own that is under way goes on.
            (_, Some(LineTrouble { to: None, .. })) => {}
            (_, Some(_)) => self.push(new),
        }
    }

    fn push(&mut self, new: LineTrouble) {
        if new.why == Why::Train {
            let of_line = |t: &LineTrouble| t.why == Why::Train && t.line == new.line;
            let trains = self.all.iter().enumerate().filter(|(_, t)| of_line(t));
            if trains.clone().count() >= TRAINS_KEPT
                && let Some((n, _)) = trains.min_by_key(|(_, t)| t.from)
            {
                self.all.swap_remove(n);
            }
        }
        if self.all.is_full() {
            // What was over first; one that lasts only if all do.
            let of = |t: &LineTrouble| t.to.unwrap_or(Monotonic::from_nanos(u64::MAX));
            let oldest = self.all.iter().enumerate().min_by_key(|(_, t)| of(t));
            if let Some(n) = oldest.map(|(n, _)| n) {
                self.all.swap_remove(n);
            }
        }
        // There is room.
        let _ = self.all.push(new);
    }

    /// What lasted is over.
    pub(super) fn end(&mut self, line: u8, why: Why, at: Monotonic) {
        let is = |t: &&mut LineTrouble| t.line == line && t.why == why && t.to.is_none();
        if let Some(t) = self.all.iter_mut().find(is) {
            t.to = Some(at);
        }
    }

    /// A number is another line's from now on.
    pub(super) fn forget_line(&mut self, line: u8) {
        self.all.retain(|t| t.line != line);
    }

    /// Whether there is something new since [`Excuses::forget_news`].
    pub(super) const fn is_news(&self) -> bool {
        self.is_news
    }

    pub(super) const fn forget_news(&mut self) {
        self.is_news = false;
    }

    /// What is explained of a question that was under way on a line from then to then.
    pub(super) fn of(&self, line: u8, from: Monotonic, to: Monotonic) -> Option<Explains> {
        let met = self
            .all
            .iter()
            .filter(|t| t.line == line && t.meets(from, to));
        met.map(|t| t.explains).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn at(s: u64) -> Monotonic {
        Monotonic::from_nanos(s * S)
    }

    /// As detectors tell it: an event that comes back keeps its begin.
    #[test]
    fn between_an_event_and_its_coming_back_nothing_is_explained() {
        let mut all = Excuses::new();
        let mut tell = |now, to: Option<u64>| {
            let burst = LineTrouble {
                line: 0,
                why: Why::Event(1),
                from: at(1000),
                to: to.map(at),
                explains: Explains::All,
            };
            all.add(at(now), burst);
        };
        tell(1003, None);
        tell(1003, Some(1001));
        tell(1203, None);
        tell(1260, None);
        tell(1303, Some(1290));
        let at_s = |s| all.of(0, at(s), at(s + 6)).is_some();
        let explained = [985, 1000, 1011, 1020, 1100, 1160, 1190, 1300, 1310].map(at_s);
        assert_eq!(
            explained,
            [true, true, true, false, false, false, true, true, false]
        );
    }

    /// A stretch that lasts is not forgotten for those that are over.
    #[test]
    fn what_is_over_first_makes_room() {
        let mut all = Excuses::new();
        for n in 0..100 {
            let test = LineTrouble {
                line: 0,
                why: Why::Event(n),
                from: at(1000 + 100 * u64::from(n)),
                to: (n > 0).then(|| at(1010 + 100 * u64::from(n))),
                explains: Explains::Delay,
            };
            all.add(at(20_000), test);
        }
        assert_eq!(all.all.len(), KEPT);
        assert!(all.of(0, at(1500), at(1501)).is_some());
        assert!(all.of(1, at(1500), at(1501)).is_none());
    }

    /// However many trains come: what else the line did is remembered, and between them nothing is explained.
    #[test]
    fn trains_explain_what_meets_them_and_take_no_room_of_events() {
        let mut all = Excuses::new();
        let trouble = |why, from, to| LineTrouble {
            line: 0,
            why,
            from,
            to,
            explains: Explains::Delay,
        };
        let event = trouble(Why::Event(1), at(900), Some(at(950)));
        all.add(at(960), event);
        for n in 0..200 {
            let begin = at(1000 + 5 * n);
            all.add(begin, trouble(Why::Train, begin, None));
            all.end(0, Why::Train, begin.saturating_add(S / 16));
        }
        assert_eq!(all.all.len(), 1 + TRAINS_KEPT);
        let met = |ms: u64| {
            let from = Monotonic::from_nanos(ms * S / 1000);
            all.of(0, from, from.saturating_add(S / 50)).is_some()
        };
        let around = [1_994_870, 1_994_890, 1_995_050, 1_995_160, 1_995_170].map(met);
        assert_eq!(around, [false, true, true, true, false]);
        assert!(met(930_000) && !met(961_000));
    }
}
