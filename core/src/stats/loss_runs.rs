//! Runs of consecutive losses (loss periods, RFC 3357), of any length, mergeable across borders.

use crate::time::Monotonic;
use crate::varint::{Reader, Writer};

/// Classes of run lengths: 1, 2–3, 4–7, … ; the last holds everything from 2^23 on.
pub const LENGTH_CLASSES: usize = 24;

/// One run of losses: how many, and from the first lost probe's send time to the last one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Consecutive probes lost.
    pub packets: u64,
    /// When the first of them was sent.
    pub first: Monotonic,
    /// When the last of them was sent.
    pub last: Monotonic,
}

impl Run {
    fn one(sent: Monotonic) -> Self {
        Self {
            packets: 1,
            first: sent,
            last: sent,
        }
    }

    /// How long it lasted, ns: from the first lost probe to the last; 0 for a single one.
    #[must_use]
    pub const fn duration_ns(&self) -> u64 {
        self.last.saturating_since(self.first)
    }

    fn join(self, later: Self) -> Self {
        match (self.packets, later.packets) {
            (0, _) => later,
            (_, 0) => self,
            _ => Self {
                packets: self.packets.saturating_add(later.packets),
                first: self.first,
                last: later.last,
            },
        }
    }
}

/// The runs within a stretch of a series, and what its ends look like, so that two stretches that
/// follow each other can be joined without breaking a run at the border.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossRuns {
    /// Runs with an answered probe on either side.
    inner: u64,
    classes: [u32; LENGTH_CLASSES],
    longest: Run,
    lead: Run,
    trail: Run,
    /// Whether any probe was answered: otherwise `lead` is everything there is.
    answered: bool,
}

impl LossRuns {
    /// No run.
    #[must_use]
    pub const fn new() -> Self {
        const NONE: Run = Run {
            packets: 0,
            first: Monotonic::ZERO,
            last: Monotonic::ZERO,
        };
        Self {
            inner: 0,
            classes: [0; LENGTH_CLASSES],
            longest: NONE,
            lead: NONE,
            trail: NONE,
            answered: false,
        }
    }

    /// The next probe of the series was lost.
    pub fn lost(&mut self, sent: Monotonic) {
        if self.answered {
            self.trail = self.trail.join(Run::one(sent));
        } else {
            self.lead = self.lead.join(Run::one(sent));
        }
    }

    /// The next probe of the series was answered.
    pub fn answered(&mut self) {
        if self.answered {
            let run = core::mem::take(&mut self.trail);
            self.close(run);
        }
        self.answered = true;
    }

    /// Appends a stretch that follows this one.
    pub fn merge(&mut self, later: &Self) {
        if !later.answered {
            if self.answered {
                self.trail = self.trail.join(later.lead);
            } else {
                self.lead = self.lead.join(later.lead);
            }
            return;
        }
        if self.answered {
            let border = self.trail.join(later.lead);
            self.close(border);
        } else {
            self.lead = self.lead.join(later.lead);
        }
        self.trail = later.trail;
        self.answered = true;
        self.inner = self.inner.saturating_add(later.inner);
        for (a, b) in self.classes.iter_mut().zip(&later.classes) {
            *a = a.saturating_add(*b);
        }
        if later.longest.packets > self.longest.packets {
            self.longest = later.longest;
        }
    }

    /// How many runs, those at the ends included.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.inner
            .saturating_add((self.lead.packets > 0) as u64)
            .saturating_add((self.trail.packets > 0) as u64)
    }

    /// The longest run, those at the ends included; the first of equals.
    #[must_use]
    pub fn longest(&self) -> Run {
        let mut longest = self.lead;
        for run in [self.longest, self.trail] {
            if run.packets > longest.packets {
                longest = run;
            }
        }
        longest
    }

    /// How many runs of 2^i to 2^(i+1)-1 losses there are, those at the ends included.
    #[must_use]
    pub fn length_classes(&self) -> [u32; LENGTH_CLASSES] {
        let mut classes = self.classes;
        for run in [self.lead, self.trail] {
            if run.packets > 0 {
                let class = &mut classes[class_of(run.packets)];
                *class = class.saturating_add(1);
            }
        }
        classes
    }

    fn close(&mut self, run: Run) {
        if run.packets == 0 {
            return;
        }
        self.inner = self.inner.saturating_add(1);
        self.classes[class_of(run.packets)] = self.classes[class_of(run.packets)].saturating_add(1);
        if run.packets > self.longest.packets {
            self.longest = run;
        }
    }

    /// Writes it, all as varints.
    pub fn encode(&self, out: &mut Writer<'_>) {
        out.u8(u8::from(self.answered));
        for run in [&self.lead, &self.trail, &self.longest] {
            out.unsigned(run.packets);
            if run.packets > 0 {
                out.unsigned(run.first.as_nanos());
                out.unsigned(run.last.saturating_since(run.first));
            }
        }
        out.unsigned(self.inner);
        if self.inner > 0 {
            let used = self
                .classes
                .iter()
                .rposition(|n| *n > 0)
                .map_or(0, |i| i + 1);
            out.unsigned(used as u64);
            self.classes[..used]
                .iter()
                .for_each(|n| out.unsigned(u64::from(*n)));
        }
    }

    /// Reads what [`LossRuns::encode`] wrote.
    #[must_use]
    pub fn decode(input: &mut Reader<'_>) -> Option<Self> {
        let mut runs = Self {
            answered: input.u8()? != 0,
            ..Self::default()
        };
        for run in [&mut runs.lead, &mut runs.trail, &mut runs.longest] {
            run.packets = input.unsigned()?;
            if run.packets > 0 {
                run.first = Monotonic::from_nanos(input.unsigned()?);
                run.last = run.first.saturating_add(input.unsigned()?);
            }
        }
        runs.inner = input.unsigned()?;
        if runs.inner > 0 {
            let used = usize::try_from(input.unsigned()?)
                .ok()
                .filter(|n| *n <= LENGTH_CLASSES)?;
            for n in &mut runs.classes[..used] {
                *n = u32::try_from(input.unsigned()?).ok()?;
            }
        }
        // Without an answer there is nothing but one run, from the begin on.
        let is_one = runs.trail.packets == 0 && runs.longest.packets == 0 && runs.inner == 0;
        (runs.answered || is_one).then_some(runs)
    }
}

fn class_of(packets: u64) -> usize {
    (packets.max(1).ilog2() as usize).min(LENGTH_CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn build(lost: &[bool], from: usize) -> LossRuns {
        let mut r = LossRuns::default();
        for (i, l) in lost.iter().enumerate() {
            if *l {
                r.lost(Monotonic::from_nanos((from + i) as u64))
            } else {
                r.answered()
            }
        }
        r
    }

    fn naive(lost: &[bool]) -> Vec<u64> {
        lost.split(|l| !*l)
            .map(|r| r.len() as u64)
            .filter(|n| *n > 0)
            .collect()
    }

    proptest! {
        #[test]
        fn a_border_breaks_no_run(
            lost in proptest::collection::vec(prop::bool::weighted(0.8), 0..200),
            cuts in proptest::collection::vec(0usize..200, 0..4),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(lost.len())).collect();
            cuts.extend([0, lost.len()]);
            cuts.sort_unstable();
            let mut joined = LossRuns::default();
            for pair in cuts.windows(2) {
                let mut bytes = [0; 512];
                let mut w = Writer::new(&mut bytes);
                build(&lost[pair[0]..pair[1]], pair[0]).encode(&mut w);
                let len = w.finish().unwrap();
                joined.merge(&LossRuns::decode(&mut Reader::new(&bytes[..len])).unwrap());
            }
            prop_assert_eq!(joined, build(&lost, 0));
            let runs = naive(&lost);
            prop_assert_eq!(joined.count(), runs.len() as u64);
            prop_assert_eq!(joined.longest().packets, runs.iter().copied().max().unwrap_or(0));
            prop_assert_eq!(joined.longest().duration_ns(), joined.longest().packets.saturating_sub(1));
            prop_assert_eq!(joined.length_classes().iter().sum::<u32>() as usize, runs.len());
        }
    }
}
