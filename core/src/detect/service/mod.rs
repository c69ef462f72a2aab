//! From what services answer to their troubles: `dns_slow`, `dns_failing` and `tcp_unstable`.
//!
//! ```text
//! answers ─▶ kept by the time of asking ─▶ settled after 20 s ─▶ trouble ─▶ others? ─▶ News
//! events, tests and trains of the line ─▶ excuse ──────┘
//! ```
//!
//! [`Services`] is fed with what became of each question ([`Services::handle_answer`]), with what the line did
//! ([`Services::handle_line`]) and with the time ([`Services::handle_timeout`]). What the line explains is neither a
//! trial nor a hit: a resolver's trouble is never the line's, and the line's never the resolver's. So that the line's
//! detectors have spoken by then, an answer counts 20 s after its question, and what the line is found to explain still
//! later takes the trouble back.
//!
//! A share (of failures, of slow answers) is told only when the answers are too many to be chance, in the whole stretch
//! since the first that counts; failures to open a connection are counted as those of connections that are held are.
//! Edges are the first and the last bad answer. What comes back within the hold-down is the same trouble. All memory is
//! that of [`ServiceState`], which the caller provides: nothing grows.

mod asked;
mod change;
mod excuse;
mod trouble;

use core::ops::DerefMut;

use heapless::Deque;

pub use excuse::{Explains, LineTrouble, Why};
pub use trouble::Trouble;

use super::event::{Phase, Severity};
use crate::failure::Failure;
use crate::held;
use crate::time::Monotonic;
use asked::Asked;
use change::Stretch;
use excuse::Excuses;

/// Most services of one watch.
pub const MAX_SERVICES: usize = 64;

const S: u64 = 1_000_000_000;
/// An answer counts so long after its question, ns: the line's detectors tell an outage within 10 s and a time-out.
pub const SETTLE_NS: u64 = 20 * S;
/// News that wait to be polled.
const NEWS: usize = 32;
/// Of another service so many answers at the same moments say whether it is well.
const ENOUGH: u32 = 3;

/// What is asked of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// A resolver for a name.
    Dns,
    /// A connection.
    Tcp,
}

/// What is known of a service when it is asked for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceFacts {
    /// The line (interface) it is asked through.
    pub line: u8,
    /// The same number for all series of one target.
    pub target: u16,
    /// The same number for all that one host answers: over UDP and over TCP a resolver is one.
    pub host: u16,
    /// What it is asked.
    pub asks: Asks,
    /// Whether a resolver is asked over TCP, and not over UDP.
    pub over_tcp: bool,
    /// Length of a slot, ns.
    pub interval_ns: u64,
    /// When a question is given up, ns.
    pub timeout_ns: u64,
}

/// How a question ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was answered after so long, ns.
    Answered(u64),
    /// The answer was a refusal, or none of this question's.
    Failed(Failure),
    /// Nobody answered.
    Silent,
}

/// What became of a question. One that could not be sent says nothing of the service, and is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it was asked.
    pub sent: Monotonic,
    /// How it ended.
    pub end: End,
}

/// From where on trouble is told. The defaults are those of the documentation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// `dns_slow`: half of the answers take longer, ns.
    pub dns_slow_ns: u64,
    /// `dns_failing`: share of the questions.
    pub dns_failing: f64,
    /// `tcp_unstable`: half of the connections take longer to open, ns.
    pub tcp_slow_ns: u64,
    /// `tcp_unstable`: so many do not open.
    pub drops: held::Limit,
    /// The same trouble within this is the same one, ns.
    pub hold_down_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            dns_slow_ns: S / 5,
            dns_failing: 0.1,
            tcp_slow_ns: S / 2,
            drops: held::Limit::default(),
            hold_down_ns: 300 * S,
        }
    }
}

/// What speaks for a trouble, since it came back where it did, of its last 400 answers and the last hour of it at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Questions: of slow ones those that were answered.
    pub asked: u32,
    /// Of these, slow or failed.
    pub bad: u32,
    /// Of these, answered by nobody.
    pub silent: u32,
    /// The most frequent reason of those that failed with one.
    pub failure: Option<Failure>,
    /// How many failed with that.
    pub failures: u32,
    /// Median of what answers took, ns.
    pub median_ns: Option<u64>,
    /// Whether all other services of the kind, on this line at these moments, were well; `None` where there is none.
    pub only: Option<bool>,
    /// Whether the same resolver was well when it was asked over the other one of UDP and TCP at these moments; `None`
    /// where it was not asked so.
    pub other_way: Option<bool>,
}

/// Something to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// The service's place.
    pub place: u8,
    /// What.
    pub trouble: Trouble,
    /// What is new: a trouble of this service and kind begins, is worse or back, or is over.
    pub phase: Phase,
    /// How bad, at its worst.
    pub severity: Severity,
    /// Its first bad answer was asked for then.
    pub since: Monotonic,
    /// Its last one, where it is over.
    pub end: Option<Monotonic>,
    /// Over because the line was found to explain it.
    pub explained: bool,
    /// What speaks for it.
    pub evidence: Evidence,
}

/// Room for one service.
#[derive(Clone, Debug, Default)]
pub struct ServiceState(Option<Asked>);

// What a year takes is what the first second takes.
const _: () = assert!(size_of::<ServiceState>() <= 8 << 10);

/// See the module.
#[derive(Debug)]
pub struct Services<S> {
    limits: Limits,
    services: S,
    excuses: Excuses,
    news: Deque<News, NEWS>,
    second_at: Monotonic,
    /// The next of a second that could not be told whole.
    next: usize,
}

const _: () = assert!(
    MAX_SERVICES * size_of::<ServiceState>() + size_of::<Services<&mut [ServiceState]>>()
        <= 512 << 10
);

impl<T> Services<T>
where
    T: DerefMut<Target = [ServiceState]>,
{
    /// A watch with room for as many services as there are states, at most [`MAX_SERVICES`].
    pub const fn new(now: Monotonic, limits: Limits, services: T) -> Self {
        Self {
            limits,
            services,
            excuses: Excuses::new(),
            news: Deque::new(),
            second_at: now,
            next: 0,
        }
    }

    /// Other limits from now on.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// A new service: its place, by which it is fed; `None` where there is no room.
    pub fn add(&mut self, facts: ServiceFacts) -> Option<u8> {
        let mut all = self.services.iter_mut().take(MAX_SERVICES).enumerate();
        let (place, room) = all.find(|(_, s)| s.0.is_none())?;
        *room = ServiceState(Some(Asked::new(facts)));
        Some(place as u8)
    }

    /// A service is asked no more. What it showed is over; whoever was told of it knows that by himself.
    pub fn remove(&mut self, place: u8) {
        if let Some(state) = self.services.get_mut(usize::from(place)) {
            state.0 = None;
        }
    }

    /// What became of a question.
    pub fn handle_answer(&mut self, place: u8, answer: Answer) {
        if let Some(Some(asked)) = self.services.get_mut(usize::from(place)).map(|s| &mut s.0) {
            asked.add(answer);
        }
    }

    /// What a line did: what is asked then, or just before and after, is not the services' fault.
    pub fn handle_line(&mut self, now: Monotonic, trouble: LineTrouble) {
        self.excuses.add(now, trouble);
    }

    /// What a line was told to bear, and still does, is over.
    pub fn handle_line_end(&mut self, line: u8, why: Why, at: Monotonic) {
        self.excuses.end(line, why, at);
    }

    /// A line's number is given to another one: what is remembered of it is of no use any more.
    pub fn forget_line(&mut self, line: u8) {
        self.excuses.forget_line(line);
    }

    /// Decides what can be decided by now. Whether there is more to do once news have been polled.
    pub fn handle_timeout(&mut self, now: Monotonic) -> bool {
        if now < self.second_at {
            return false;
        }
        while self.next < self.services.len().min(MAX_SERVICES) {
            if self.news.len() + Trouble::OF_EACH > NEWS {
                return true;
            }
            self.decide(self.next, now);
            self.next += 1;
        }
        self.next = 0;
        self.excuses.forget_news();
        self.second_at = now.saturating_add(self::S);
        false
    }

    /// The next news.
    pub fn poll_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    fn decide(&mut self, place: usize, now: Monotonic) {
        let Some(asked) = self.services.get_mut(place).and_then(|s| s.0.as_mut()) else {
            return;
        };
        let facts = asked.facts;
        if !asked.settle(now, &self.excuses) {
            return;
        }
        for trouble in Trouble::of(facts.asks) {
            let Some(asked) = self.services.get_mut(place).and_then(|s| s.0.as_mut()) else {
                return;
            };
            let Some(change) = asked.judge(trouble, now, &self.limits) else {
                continue;
            };
            let stretch = change.stretch(now);
            let mut evidence = asked.evidence(trouble, stretch, &self.limits);
            let is_other = |o: &ServiceFacts| o.target != facts.target && o.host != facts.host;
            let is_other_way = |o: &ServiceFacts| {
                facts.asks == Asks::Dns && o.host == facts.host && o.over_tcp != facts.over_tcp
            };
            evidence.only = self.are_well(place, &is_other, stretch, &evidence);
            evidence.other_way = self.are_well(place, &is_other_way, stretch, &evidence);
            let news = News {
                place: place as u8,
                trouble,
                phase: change.phase,
                severity: change.severity,
                since: change.since,
                end: change.end,
                explained: change.explained,
                evidence,
            };
            // There is room for each of its troubles.
            let _ = self.news.push_back(news);
        }
    }

    /// Whether `others` of the kind, on the line of the one at `place`, were all well while that one was not.
    fn are_well(
        &self,
        place: usize,
        others: &dyn Fn(&ServiceFacts) -> bool,
        stretch: Stretch,
        evidence: &Evidence,
    ) -> Option<bool> {
        let facts = self.services.get(place)?.0.as_ref()?.facts;
        let others = self.services.iter().enumerate().filter_map(|(n, s)| {
            let o = s.0.as_ref().filter(|_| n != place)?;
            let is_like = o.facts.line == facts.line && o.facts.asks == facts.asks;
            (is_like && others(&o.facts)).then_some(o)
        });
        let counts = others.map(|o| o.bad_of(stretch, &self.limits));
        // One whose share of bad answers is half as high is not well either.
        let well = |(bad, of): (u32, u32)| {
            2 * u64::from(bad) * u64::from(evidence.asked) < u64::from(evidence.bad) * u64::from(of)
        };
        let told = counts.filter(|(_, of)| *of >= ENOUGH).map(well);
        told.reduce(|a, b| a && b)
    }
}

#[cfg(test)]
mod tests;
