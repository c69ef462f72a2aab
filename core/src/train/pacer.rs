//! When trains of one direction of a line are sent, how long they are, and what of their results the
//! detectors are told.
//!
//! A train is so long that it keeps the line busy for [`TARGET_NS`] at the rate known so far, and a
//! share of the line pays for it: so often follows from so long. An eighth of the share is put aside
//! (up to [`RESERVE`] trains), and spent where something looks wrong: then a train follows in
//! [`SOON_NS`] instead of when it is due. In the long run no more than the share is spent, whatever
//! happens.
//!
//! Or trains are sent only where something looks wrong ([`When::AtAlarms`]): one, and before the first of them those by
//! which the line is got to know. What they cost is made up for before the next alarm has one.

use heapless::Vec;
use rand_core::Rng;

use super::estimate::{Estimate, Unknown};
use super::exchange::Plan;
use super::{SPAN_NS, SURE_PERMILLE};
use crate::household;
use crate::limits::MAX_DATAGRAM;
use crate::time::Monotonic;
use crate::wire::train::{MAX_TRAIN, MIN_TRAIN_SIZE};

/// How long a train is to keep the line busy, ns: some more than it needs to be believed.
pub const TARGET_NS: u64 = SPAN_NS / 5 * 6;
/// From one train to the next where something looks wrong, ns.
pub const SOON_NS: u64 = 600_000_000;
/// Trains that can be put aside for that.
pub const RESERVE: u64 = 6;
/// Between trains by which a line is got to know, ns.
const LEARN_NS: u64 = 1_000_000_000;
/// They may be so many; then it is left alone for longer.
const LEARN_TRAINS: u8 = 10;
/// Where no train says anything, the next one comes after this, ns.
const DEAF_NS: u64 = 300_000_000_000;
/// Fewest datagrams of a train.
const FEWEST: u64 = 12;
/// Bytes of the first train.
const FIRST_BYTES: u64 = 8_000;
/// None has more.
const LONGEST_BYTES: u64 = (MAX_TRAIN * 1600) as u64;
/// What a train costs beside its datagrams: asks and reports, bytes.
const ASKS_BYTES: u64 = 800;
/// Rates whose median is what is usual.
const KEPT: usize = 32;
/// So many of them make it.
const ENOUGH: usize = 4;
/// Below this share of what is usual a train is low, %.
const LOW_PERCENT: u64 = 80;
/// So many low trains in a row come soon; then the rest of them may come when they are due.
const LOW_SOON: u8 = 4;
/// So many come soon after something else looked wrong.
const ALARM_SOON: u8 = 3;
/// While others use more than this of the line, no train is sent: their own traffic tells more, %.
const BUSY_PERCENT: u64 = 70;
/// A rate this near to a sustained rate that was seen is that of an empty token bucket, %.
const BUCKET_PERCENT: u64 = 15;
/// While others carry more than this, a line is not got to know by trains at alarms, which would find a part of it, bit/s.
const OTHERS_BPS: u64 = 500_000;
/// How long a sustained rate is remembered, ns.
const BUCKET_NS: u64 = 24 * 3_600_000_000_000;

/// When trains are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Not at all.
    Never,
    /// Where something looks wrong.
    AtAlarms,
    /// All the time, for this share of the line's rate, per million.
    Share(u32),
}

/// What trains of one direction may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// When they are sent.
    pub when: When,
    /// In the long run at most so many bytes per second.
    pub bytes_per_s: u64,
    /// What a frame has beside the datagram: headers of UDP, IP and the link, bytes.
    pub header_bytes: u32,
    /// Largest datagram, as UDP counts it.
    pub most_size: u16,
}

/// A token bucket before the line, as trains that outlasted it have shown it.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    seen: Monotonic,
    sustained_bps: u64,
    /// Whether the train before had seen the same: one may be chance.
    again: bool,
}

impl Bucket {
    const fn is_near(&self, bps: u64) -> bool {
        bps.abs_diff(self.sustained_bps) < self.sustained_bps / 100 * BUCKET_PERCENT
    }
}

/// One direction of a line. See the module.
#[derive(Clone, Debug)]
pub struct Pacer {
    up: bool,
    budget: Budget,
    /// The rate that length follows, and budget where no slower one was seen to be sustained.
    rate_bps: Option<u64>,
    /// Bytes of frames of the next train.
    bytes: u64,
    most: u16,
    /// Bytes to be spent when due, and put aside; thousandths.
    due: i64,
    reserve: i64,
    filled_at: Monotonic,
    /// Of its cost, so much has to be there before a train is sent, ‰: not always at the same beat.
    wanted_permille: i64,
    last: Option<Monotonic>,
    /// Trains sent while the line was not known, at alarms because of the last one; all ones: it is.
    learning: u8,
    /// Trains that are to come soon.
    soon: u8,
    low_run: u8,
    usual: Vec<u32, KEPT>,
    oldest: usize,
    bucket: Option<Bucket>,
    spent: u64,
}

impl Pacer {
    /// Trains up, or down, from `now` on.
    #[must_use]
    pub const fn new(up: bool, budget: Budget, now: Monotonic) -> Self {
        Self {
            up,
            budget,
            rate_bps: None,
            bytes: FIRST_BYTES,
            most: MAX_TRAIN as u16,
            due: 0,
            reserve: 0,
            filled_at: now,
            wanted_permille: 1000,
            last: None,
            learning: 0,
            soon: 0,
            low_run: 0,
            usual: Vec::new(),
            oldest: 0,
            bucket: None,
            spent: 0,
        }
    }

    /// Another budget from now on.
    pub const fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// The far end takes no longer trains.
    pub fn set_most(&mut self, most: u16) {
        self.most = most.clamp(1, MAX_TRAIN as u16);
    }

    /// Bytes of frames that trains have cost so far.
    #[must_use]
    pub const fn spent(&self) -> u64 {
        self.spent
    }

    /// The rate that length follows, and budget where no slower one was seen to be sustained, bit/s.
    #[must_use]
    pub const fn rate_bps(&self) -> Option<u64> {
        self.rate_bps
    }

    /// Something looks wrong (a capacity below its baseline, loss, delay): trains come soon.
    pub fn alarm(&mut self) {
        self.soon = self.soon.max(match self.budget.when {
            When::AtAlarms => 1,
            When::Never | When::Share(_) => ALARM_SOON,
        });
    }

    /// The train that is due at `now`, if one is. `others_bps` is what the line carries of others,
    /// where that is known.
    pub fn poll_train(
        &mut self,
        now: Monotonic,
        others_bps: Option<u64>,
        rng: &mut impl Rng,
    ) -> Option<Plan> {
        if self.budget.when == When::Never {
            return None;
        }
        let (count, size) = self.shape();
        let frame = u64::from(size) + u64::from(self.budget.header_bytes);
        let cost = (u64::from(count) * frame + ASKS_BYTES) as i64 * 1000;
        self.fill(now, cost);
        let since = |last: Monotonic| now.saturating_since(last);
        let busy = match (others_bps, self.rate_bps) {
            (Some(others), Some(rate)) => others > rate / 100 * BUSY_PERCENT,
            _ => false,
        };
        if busy {
            return None;
        }
        if self.budget.when == When::AtAlarms {
            if !self.take_at_alarm(now, cost, others_bps) {
                return None;
            }
        } else if self.is_learning() {
            let wait_ns = if self.learning >= LEARN_TRAINS {
                DEAF_NS
            } else {
                LEARN_NS
            };
            if self.last.is_some_and(|last| since(last) < wait_ns) {
                return None;
            }
            self.learning = self.learning.saturating_add(1).min(LEARN_TRAINS);
            // Paid for later: until then nothing else is due.
            self.due -= cost;
        } else if self.soon > 0 && self.reserve >= cost {
            if self.last.is_some_and(|last| since(last) < SOON_NS) {
                return None;
            }
            self.soon -= 1;
            self.reserve -= cost;
        } else if self.due >= cost / 1000 * self.wanted_permille {
            self.due -= cost;
            self.wanted_permille = 850 + i64::from(rng.next_u32() % 300);
        } else {
            return None;
        }
        self.spent += (cost / 1000) as u64;
        self.last = Some(now);
        Some(Plan {
            up: self.up,
            count,
            size,
        })
    }

    /// Whether there may be a train of this cost because something looks wrong; it counts then.
    fn take_at_alarm(&mut self, now: Monotonic, cost: i64, others_bps: Option<u64>) -> bool {
        let is_just_after = self
            .last
            .is_some_and(|last| now.saturating_since(last) < SOON_NS);
        if self.soon == 0 || is_just_after {
            return false;
        }
        if self.is_learning() {
            let is_first = self.learning == 0;
            if others_bps.is_some_and(|o| o > OTHERS_BPS) || (is_first && self.reserve < 0) {
                return false;
            }
            self.learning += 1;
            if self.learning == LEARN_TRAINS {
                // Where no train says anything, the next alarm may try again.
                (self.learning, self.soon) = (0, 0);
            }
        } else {
            if self.reserve < 0 {
                return false;
            }
            self.soon -= 1;
        }
        self.reserve -= cost;
        true
    }

    /// What a train has said, while the line carried `others_bps` of others. Gives the rate that the
    /// detectors are to be told, where the train is a word about the line: a low one is not where it
    /// was unsure, or others, or a token bucket, may be why.
    pub fn handle_result(
        &mut self,
        now: Monotonic,
        result: Result<Estimate, Unknown>,
        others_bps: Option<u64>,
    ) -> Option<u64> {
        let e = match result {
            Ok(e) => e,
            Err(why) => {
                if why != Unknown::TooFew && self.is_learning() {
                    // Perhaps it was only too short: a line may let some packets pass in one batch.
                    self.bytes = (self.bytes * 2).min(LONGEST_BYTES);
                }
                self.soon = self.soon.max(u8::from(self.low_run > 0));
                return None;
            }
        };
        let sure = e.confidence_permille >= SURE_PERMILLE;
        let was_learning = self.is_learning();
        let was_longest = self.bytes == LONGEST_BYTES;
        if sure || self.is_learning() || e.span_ns < SPAN_NS {
            self.resize(&e);
        }
        if self.budget.when == When::AtAlarms && was_learning {
            // What fast lines carry is known as well as a train can tell.
            if was_longest {
                self.learning = u8::MAX;
            }
            // The train that the alarm asked for was this one.
            if was_longest || (sure && !self.is_learning()) {
                self.soon = 0;
            }
        }
        if !sure {
            self.soon = self.soon.max(u8::from(self.low_run > 0));
            return None;
        }
        if let Some(sustained) = e.sustained_bps {
            let again = self.bucket.is_some_and(|b| b.is_near(sustained));
            self.bucket = Some(Bucket {
                seen: now,
                sustained_bps: sustained,
                again,
            });
        }
        let usual = self.usual_bps();
        let is_low = usual.is_some_and(|u| e.burst_bps < u / 100 * LOW_PERCENT);
        if !is_low {
            if self.low_run > 0 {
                // Whether it is over is worth another look.
                self.soon = self.soon.max(1);
            }
            self.low_run = 0;
            self.remember(e.burst_bps);
            return Some(e.burst_bps);
        }
        let emptied = self.bucket.is_some_and(|b| {
            b.again && now.saturating_since(b.seen) < BUCKET_NS && b.is_near(e.burst_bps)
        });
        let with_others = e.burst_bps.saturating_add(others_bps.unwrap_or(0));
        let shared = others_bps.is_some_and(|o| household::shared(o, e.burst_bps))
            && usual.is_some_and(|u| with_others >= u / 100 * LOW_PERCENT);
        if emptied || shared {
            return None;
        }
        self.low_run = self.low_run.saturating_add(1);
        if self.low_run <= LOW_SOON {
            self.soon = self.soon.max(1);
        }
        self.remember(e.burst_bps);
        Some(e.burst_bps)
    }

    fn is_learning(&self) -> bool {
        self.learning != u8::MAX
    }

    fn resize(&mut self, e: &Estimate) {
        if e.span_ns >= SPAN_NS {
            if self.is_learning() {
                self.learning = u8::MAX;
            }
        } else if self.is_learning() {
            self.rate_bps = Some(e.burst_bps);
            self.bytes = (self.bytes * 2).min(LONGEST_BYTES);
            return;
        }
        self.rate_bps = Some(e.burst_bps);
        let wanted = u64::try_from(u128::from(e.burst_bps) * u128::from(TARGET_NS) / 8_000_000_000);
        // One train that passed too fast does not make the next one ten times as long.
        self.bytes = wanted.unwrap_or(u64::MAX).min(self.bytes * 2);
    }

    /// Datagrams of the next train, and bytes of each as UDP counts them.
    fn shape(&self) -> (u16, u16) {
        let header = u64::from(self.budget.header_bytes);
        let most_size = u64::from(self.budget.most_size).min(MAX_DATAGRAM as u64);
        let least = FEWEST.min(u64::from(self.most));
        let count = self.bytes.div_ceil(most_size + header);
        let count = count.clamp(least, u64::from(self.most));
        let size = (self.bytes / count).saturating_sub(header);
        let size = size.clamp(MIN_TRAIN_SIZE as u64, most_size.max(MIN_TRAIN_SIZE as u64));
        (count as u16, size as u16)
    }

    fn fill(&mut self, now: Monotonic, cost: i64) {
        let ns = now.saturating_since(self.filled_at);
        self.filled_at = now;
        let room = (cost * RESERVE as i64 - self.reserve).max(0);
        let share_ppm = match self.budget.when {
            When::Never => return,
            When::AtAlarms => {
                self.reserve += income(u128::from(self.budget.bytes_per_s), ns).min(room);
                return;
            }
            When::Share(ppm) => ppm,
        };
        let Some(rate_bps) = self.rate_bps else {
            return;
        };
        // A share of what the line carries in the long run, where trains have shown that.
        let bucket = self
            .bucket
            .filter(|b| now.saturating_since(b.seen) < BUCKET_NS);
        let carries_bps = bucket.map_or(rate_bps, |b| rate_bps.min(b.sustained_bps));
        let share = u128::from(carries_bps / 8) * u128::from(share_ppm) / 1_000_000;
        let per_s = share.min(u128::from(self.budget.bytes_per_s));
        let income = income(per_s, ns);
        let aside = (income / 8).min(room);
        self.reserve += aside;
        self.due = (self.due + income - aside).min(cost / 2 * 3);
    }

    fn usual_bps(&self) -> Option<u64> {
        let mut sorted = self.usual.clone();
        sorted.sort_unstable();
        (sorted.len() >= ENOUGH).then(|| u64::from(sorted[sorted.len() / 2]) * 1000)
    }

    fn remember(&mut self, rate_bps: u64) {
        let kbps = u32::try_from(rate_bps / 1000).unwrap_or(u32::MAX);
        if let Err(kbps) = self.usual.push(kbps) {
            self.usual[self.oldest] = kbps;
            self.oldest = (self.oldest + 1) % KEPT;
        }
    }
}

/// Thousandths of bytes that so many a second are in this time. After a long silence no more than what can be kept counts.
fn income(per_s: u128, ns: u64) -> i64 {
    let income = per_s * 1000 * u128::from(ns) / 1_000_000_000;
    i64::try_from(income)
        .unwrap_or(i64::MAX / 4)
        .min(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
