//! What a cable line does that others do not, and what it does as others do, kept in a form that can
//! be added up.
//!
//! ```text
//! probes with directions ─┬▶ grants                      ┐
//!                         └▶ seconds ─┬▶ losses, channel ├─▶ Record, one an hour ─▶ judge ─▶ Finding
//! load of seconds ──────────────────▶ ┴▶ buffer          ┘   (kept in the store)      ▲
//!                                              events, the modem that answers ────────┘
//! ```
//!
//! A line's own series are looked at while probes come, so that nobody has to read them again. Of each
//! hour there remain a few sums ([`Record`]); [`judge()`] adds up those of any time and says what they
//! show, together with the events of that time.

mod buffer;
mod channel;
mod grants;
mod judge;
mod sums;

use heapless::Deque;

use super::input::{Load, Probe, SeriesFacts};
use super::line::LineWatch;
use super::scale::Scales;
use crate::sample::Status;
use crate::time::Monotonic;
use buffer::BufferWatch;
pub use buffer::Loaded;
pub use channel::Channel;
use channel::ChannelWatch;
use grants::GrantWatch;
pub use grants::Grants;
pub use judge::{Finding, FindingKind, MAX_FINDINGS, Seen, Told, judge};

const S: u64 = 1_000_000_000;
/// A second is judged this much later, when it is known whether the line was dead: seconds.
const LATER: u64 = 6;
const SECONDS: usize = 16;
/// Sums begin anew after this, ns.
const HOUR_NS: u64 = 3600 * S;
/// What is summed up is told this often once something is known, and until then, ns.
const TOLD_EVERY_NS: u64 = 300 * S;
const FIRST_TOLD_NS: u64 = 60 * S;
/// A series that has been silent for this long is no witness, ns.
const SILENT_NS: u64 = 60 * S;
/// From this size on a packet is a large one, bytes.
const LARGE: u16 = 800;
/// Waiting in a queue for longer than this says nothing of grants, ns.
const QUEUED_NS: u32 = 8_000_000;
/// A line is loaded upward from this share of the most it was seen to carry, and this, bit/s.
const FULL: f64 = 0.6;
const LEAST_BPS: u64 = 500_000;
/// What is told waits in so many places.
const WAITING: usize = 8;

/// Losses of an hour that neither an outage nor load explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Probes.
    pub probes: u64,
    /// Lost on the way up.
    pub up: u64,
    /// Lost on the way down.
    pub down: u64,
    /// Probes of seconds in which it was known what the line carried, and that it was little.
    pub idle: u64,
}

/// What a stretch showed, in sums that can be added up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// Departures on a grid.
    Grants(Grants),
    /// Losses.
    Loss(Loss),
    /// A while in which an even share was lost.
    Channel(Channel),
    /// The upstream queue under load.
    Loaded(Loaded),
    /// The line is a cable, by a person's word: no detector tells this.
    Said,
}

/// What a stretch of a line showed. One of the same line, kind and begin takes the place of an
/// earlier one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// The line.
    pub line: u8,
    /// From when on.
    pub since: Monotonic,
    /// Until when.
    pub until: Monotonic,
    /// What.
    pub reading: Reading,
}

/// The series that speaks for its line: the fastest whose far end tells directions.
#[derive(Clone, Copy, Debug)]
struct Witness {
    place: u8,
    target: u16,
    interval_ns: u64,
    seen: Monotonic,
    lost_up: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    number: u64,
    losses: channel::Losses,
    in_rows: u32,
    queues: u32,
    sum_us: u32,
    top_us: u32,
}

/// One line under watch. See the module.
#[derive(Clone, Debug)]
pub(crate) struct CableWatch {
    witness: Option<Witness>,
    seconds: [Bucket; SECONDS],
    grants: GrantWatch,
    channel: ChannelWatch,
    buffer: BufferWatch,
    loss: Loss,
    since: Option<Monotonic>,
    told_at: Monotonic,
    is_told: bool,
    news: Deque<(Monotonic, Monotonic, Reading), WAITING>,
}

// As long as a line is watched, and for as many as there are.
const _: () = assert!(size_of::<CableWatch>() <= 7 << 10);

impl CableWatch {
    pub(crate) fn new() -> Self {
        Self {
            witness: None,
            seconds: [Bucket::default(); SECONDS],
            grants: GrantWatch::new(),
            channel: ChannelWatch::default(),
            buffer: BufferWatch::new(),
            loss: Loss::default(),
            since: None,
            told_at: Monotonic::ZERO,
            is_told: false,
            news: Deque::new(),
        }
    }

    /// A series is no longer probed.
    pub(crate) fn forget(&mut self, place: u8) {
        self.witness = self.witness.filter(|w| w.place != place);
    }

    /// A probe of a series beyond the access line that no test of our own touches, in the order they
    /// were sent.
    pub(crate) fn step(&mut self, place: u8, facts: &SeriesFacts, probe: &Probe) {
        if let Some(raw_up_ns) = probe.raw_up_ns.filter(|_| probe.answered()) {
            self.elect(place, facts, probe.sent);
            if self.witness.is_some_and(|w| w.place == place)
                && probe.queue_up_ns.is_none_or(|q| q <= QUEUED_NS)
            {
                self.grants.add(probe.sent, raw_up_ns);
            }
        }
        let Some(witness) = self.witness.filter(|w| w.target == facts.target) else {
            return;
        };
        let is_witness = witness.place == place;
        let (up, down) = match probe.status {
            Status::LostUp => (1, 0),
            Status::LostDown => (0, 1),
            _ if probe.answered() && probe.raw_up_ns.is_some() => (0, 0),
            // What became of it is not known.
            _ => return,
        };
        let in_row = is_witness && witness.lost_up && up > 0;
        if let Some(w) = self.witness.as_mut().filter(|_| is_witness) {
            w.lost_up = up > 0;
        }
        let b = self.bucket(probe.sent);
        let l = &mut b.losses;
        let (all, lost) = if probe.size() >= LARGE {
            (&mut l.large, &mut l.large_up)
        } else {
            (&mut l.small, &mut l.small_up)
        };
        *all += 1;
        *lost += up;
        l.down += down;
        b.in_rows += u32::from(in_row);
        if let Some(queue_ns) = probe.queue_up_ns.filter(|_| is_witness) {
            let queue_us = queue_ns / 1000;
            b.queues += 1;
            b.sum_us = b.sum_us.saturating_add(queue_us);
            b.top_us = b.top_us.max(queue_us);
        }
    }

    fn elect(&mut self, place: u8, facts: &SeriesFacts, at: Monotonic) {
        match &mut self.witness {
            Some(w) if w.place == place => w.seen = at,
            Some(w)
                if w.interval_ns <= facts.interval_ns
                    && at.saturating_since(w.seen) < SILENT_NS => {}
            other => {
                *other = Some(Witness {
                    place,
                    target: facts.target,
                    interval_ns: facts.interval_ns,
                    seen: at,
                    lost_up: false,
                });
            }
        }
    }

    fn bucket(&mut self, at: Monotonic) -> &mut Bucket {
        let number = at.as_nanos() / S;
        let b = &mut self.seconds[(number % SECONDS as u64) as usize];
        if b.number != number {
            *b = Bucket {
                number,
                ..Bucket::default()
            };
        }
        b
    }

    /// Once a second, when all probes up to `now` have been seen: judges the one that is old enough.
    /// `was_dead` says whether it was part of an outage, `load` what the line carried in it, and `scales`
    /// what is much for it.
    pub(crate) fn each_second(
        &mut self,
        now: Monotonic,
        was_dead: impl Fn(Monotonic, Monotonic) -> bool,
        load: impl Fn(u64) -> Option<Load>,
        scales: &Scales,
    ) {
        let Some(second) = (now.as_nanos() / S).checked_sub(LATER) else {
            return;
        };
        let since = *self.since.get_or_insert(now);
        let b = self.seconds[(second % SECONDS as u64) as usize];
        let from = Monotonic::from_nanos(second * S);
        let is_there = b.number == second && b.losses.small + b.losses.large > 0;
        let is_good = is_there && !was_dead(from, from.saturating_add(S));
        self.judge(second, is_good.then_some(b), load(second), scales);

        let over = now.saturating_since(since) >= HOUR_NS;
        let wait_ns = if self.is_told {
            TOLD_EVERY_NS
        } else {
            FIRST_TOLD_NS
        };
        if over || now.saturating_since(self.told_at.max(since)) >= wait_ns {
            self.told_at = now;
            self.tell(now, over);
        }
    }

    fn judge(&mut self, second: u64, bucket: Option<Bucket>, load: Option<Load>, scales: &Scales) {
        let full_bps = LEAST_BPS.max((FULL * scales.most_up_bps() as f64) as u64);
        let full = load.filter(|l| l.up_bps >= full_bps);
        self.buffer.step(
            bucket
                .zip(full)
                .filter(|(b, _)| b.queues > 0)
                .map(|(b, load)| buffer::Second {
                    top_us: b.top_us,
                    mean_us: b.sum_us / b.queues,
                    rate_kbps: u32::try_from(load.up_bps / 1000).unwrap_or(u32::MAX),
                    drops: (b.losses.small_up + b.losses.large_up).saturating_sub(b.in_rows),
                    in_rows: b.in_rows,
                }),
        );
        let loaded = load.is_some_and(|l| scales.loaded(l.up_bps, l.down_bps).any());
        let idle = bucket.map(|b| b.losses).filter(|_| !loaded);
        if let Some(l) = idle {
            let probes = u64::from(l.small + l.large);
            self.loss.probes += probes;
            self.loss.up += u64::from(l.small_up + l.large_up);
            self.loss.down += u64::from(l.down);
            self.loss.idle += if load.is_some() { probes } else { 0 };
        }
        if let Some((first, last, c)) = self.channel.step(second, idle) {
            let at = |second: u64| Monotonic::from_nanos(second * S);
            self.push(at(first), at(last + 1), Reading::Channel(c));
        }
    }

    /// Tells what has been summed up; and begins anew where the stretch is over.
    pub(crate) fn tell(&mut self, now: Monotonic, over: bool) {
        let Some(since) = self.since else {
            return;
        };
        let loss = (self.loss.probes > 0).then_some(Reading::Loss(self.loss));
        let grants = self.grants.found().map(Reading::Grants);
        let loaded = self.buffer.found(over).map(Reading::Loaded);
        for reading in [loss, grants, loaded].into_iter().flatten() {
            self.push(since, now, reading);
            self.is_told = true;
        }
        if over {
            self.grants = GrantWatch::new();
            self.loss = Loss::default();
            self.since = Some(now);
            self.is_told = false;
        }
    }

    fn push(&mut self, since: Monotonic, until: Monotonic, reading: Reading) {
        if self.news.is_full() {
            self.news.pop_front();
        }
        let _ = self.news.push_back((since, until, reading));
    }

    /// Whether nothing waits to be polled.
    pub(crate) fn is_polled(&self) -> bool {
        self.news.is_empty()
    }

    pub(crate) fn poll(&mut self, line: u8) -> Option<Record> {
        let (since, until, reading) = self.news.pop_front()?;
        Some(Record {
            line,
            since,
            until,
            reading,
        })
    }
}

/// Lets a line's watch judge the second that is due.
pub(crate) fn each_second(line: &mut LineWatch, now: Monotonic) {
    let LineWatch {
        cable,
        outages,
        loads,
        scales,
        ..
    } = line;
    let load = |second: u64| {
        // A second's load is told at its end.
        let (from, to) = (second * S, (second + 1) * S);
        let within = |(at, _): &&(Monotonic, Load)| (from + 1..=to).contains(&at.as_nanos());
        loads.iter().find(within).map(|(_, l)| *l)
    };
    cable.each_second(now, |from, to| outages.touch(from, to), load, scales);
}
