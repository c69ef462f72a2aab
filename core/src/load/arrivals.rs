//! When the bytes of one stream came, though TCP hands them over later.
//!
//! What comes behind a hole is handed over all at once when the hole is filled. Where a long queue stands
//! that is seconds later, and a count of what was handed over says of no second what it carried. But the
//! kernel counts segments as they come, and which of them were out of order. Looked at ten times a second
//! that says how much is held back since when; what is handed over later is counted there.

use heapless::Deque;

use super::bins::Bins;
use crate::time::Monotonic;

/// Stretches of time with bytes that are held back. More of them become one.
const WAITING: usize = 32;
/// Held back is no less than so many segments: a look falls between what comes and what is handed over.
const LEAST: u64 = 2;
/// After so many looks with bytes in order only, nothing is held back, whatever the sums say: segments
/// that came twice are counted twice.
const CALM: u8 = 10;

/// Larger segments are those of loopback, as large as what was written and seldom full: of those nobody knows how many
/// bytes came.
const LARGEST: u32 = 16 << 10;

/// What TCP says of a stream that receives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// Segments with data that have come.
    pub all: u32,
    /// Those of them that came out of order.
    pub out_of_order: u32,
    /// Bytes of payload of a full one.
    pub size: u32,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Monotonic,
    /// Bytes handed over by then.
    handed: u64,
    segments: Segments,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    handed: u64,
    last: Option<Look>,
    /// The last look at which everything that had come was handed over.
    whole: Option<Look>,
    /// Whether there may be a hole.
    hole: bool,
    calm: u8,
    /// What is held back: between which looks it came, and how many bytes.
    waiting: Deque<(Monotonic, Monotonic, u64), WAITING>,
}

impl Arrivals {
    /// Nothing has come.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            handed: 0,
            last: None,
            whole: None,
            hole: false,
            calm: 0,
            waiting: Deque::new(),
        }
    }

    /// Until when nothing changes any more in the bins.
    #[must_use]
    pub fn known(&self, now: Monotonic) -> Monotonic {
        let looked = self.last.map_or(now, |l| l.at);
        self.waiting.front().map_or(looked, |(from, ..)| *from)
    }

    /// TCP handed over `bytes` at `now`: counts them into `bins` where they came.
    pub fn take(&mut self, now: Monotonic, bytes: u64, bins: &mut Bins) {
        self.handed = self.handed.saturating_add(bytes);
        let mut left = bytes;
        while let Some((from, to, held)) = self.waiting.front_mut().filter(|_| left > 0) {
            let part = left.min(*held);
            bins.add_since(*from, *to, part);
            (*held, left) = (*held - part, left - part);
            if *held == 0 {
                self.waiting.pop_front();
            }
        }
        if left > 0 {
            bins.add(now, left);
        }
    }

    /// TCP says this at `now`; to be told ten times a second.
    pub fn look(&mut self, now: Monotonic, segments: Segments) {
        let look = Look {
            at: now,
            handed: self.handed,
            segments,
        };
        let Some(before) = self.last.replace(look) else {
            self.whole = Some(look);
            return;
        };
        if segments.out_of_order != before.segments.out_of_order {
            self.hole = true;
            self.calm = 0;
        } else if look.handed > before.handed {
            self.calm = self.calm.saturating_add(1);
        }
        let held = match self.held(&look) {
            Some(held) if self.hole && self.calm < CALM => held,
            _ => {
                self.whole = Some(look);
                self.hole = false;
                self.calm = 0;
                self.waiting.clear();
                return;
            }
        };
        let waiting: u64 = self.waiting.iter().map(|(.., bytes)| *bytes).sum();
        let more = held.saturating_sub(waiting);
        if more == 0 {
            return;
        }
        if self.waiting.is_full()
            && let Some((_, to, bytes)) = self.waiting.back_mut()
        {
            (*to, *bytes) = (now, *bytes + more);
            return;
        }
        let _ = self.waiting.push_back((before.at, now, more));
    }

    /// The stream is over: what is held back has come all the same.
    pub fn finish(&mut self, bins: &mut Bins) {
        while let Some((from, to, bytes)) = self.waiting.pop_front() {
            bins.add_since(from, to, bytes);
        }
    }

    /// Bytes that have come and were not handed over; `None` where there are none.
    fn held(&self, look: &Look) -> Option<u64> {
        let whole = self.whole.filter(|_| look.segments.size <= LARGEST)?;
        // What is sent through a full line is cut into full segments.
        let segment = u64::from(look.segments.size);
        let came = u64::from(look.segments.all.wrapping_sub(whole.segments.all)) * segment;
        let held = came.checked_sub(look.handed - whole.handed)?;
        (held > LEAST * segment).then_some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 1000;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    /// A segment each 10 ms. Those whose number `lost` names come only so many ms later.
    fn stream(end_ms: u64, lost: &[(u64, u64)]) -> (Bins, Arrivals, std::vec::Vec<u32>) {
        let (mut bins, mut arrivals) = (Bins::new(), Arrivals::new());
        bins.begin(at(0));
        let mut truth = std::vec::Vec::new();
        let mut come = std::collections::BTreeSet::new();
        let mut next = 0;
        let mut segments = Segments {
            size: SIZE as u32,
            ..Segments::default()
        };
        for ms in (0..end_ms).step_by(10) {
            let number = ms / 10;
            let late = lost.iter().find(|(n, _)| *n == number);
            let filled = lost.iter().filter(|(n, by)| n * 10 + by == ms);
            let now = filled
                .map(|(n, _)| *n)
                .chain(late.is_none().then_some(number));
            for n in now {
                segments.all += 1;
                segments.out_of_order += u32::from(n != next);
                truth.resize((ms / 100) as usize + 1, 0);
                truth[(ms / 100) as usize] += SIZE as u32;
                come.insert(n);
                let from = next;
                while come.remove(&next) {
                    next += 1;
                }
                if next > from {
                    arrivals.take(at(ms), (next - from) * SIZE, &mut bins);
                }
            }
            if ms % 100 == 90 {
                arrivals.look(at(ms + 5), segments);
            }
        }
        (bins, arrivals, truth)
    }

    fn off(bins: &Bins, truth: &[u32]) -> u64 {
        let pairs = truth.iter().enumerate();
        pairs
            .map(|(i, t)| u64::from(bins.get(i).abs_diff(*t)))
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn of_segments_that_are_seldom_full_nothing_is_held_back() {
        for (size, counted) in [(1448, 41 * 1448), (65_483, 0)] {
            let (mut bins, mut arrivals) = (Bins::new(), Arrivals::new());
            bins.begin(at(0));
            let segments = |all, out_of_order| Segments {
                all,
                out_of_order,
                size,
            };
            arrivals.look(at(5), segments(0, 0));
            arrivals.look(at(105), segments(41, 40));
            arrivals.finish(&mut bins);
            assert_eq!(bins.total(), counted);
        }
    }

    #[test]
    fn what_a_hole_holds_back_is_counted_when_it_came() {
        let (bins, mut arrivals, truth) = stream(6000, &[(200, 1500)]);
        assert!(off(&bins, &truth) <= 3 * SIZE, "{:?}", bins.as_slice());
        assert_eq!(arrivals.known(at(6000)), at(5995));
        let total = bins.total();
        assert_eq!(total, 600 * SIZE);
        arrivals.finish(&mut bins.clone());
        assert_eq!(bins.total(), total);
    }

    #[test]
    fn holes_that_are_filled_one_by_one_and_an_open_one_at_the_end_do_not_matter() {
        let lost = [(200, 600), (205, 1200), (211, 1900), (500, 9999)];
        let (mut bins, mut arrivals, truth) = stream(6000, &lost);
        // The last hole is still open: bins are not final since it began.
        assert!(arrivals.known(at(6000)) <= at(5100));
        arrivals.finish(&mut bins);
        assert!(off(&bins, &truth) <= 3 * SIZE, "{:?}", bins.as_slice());
        let said = bins.total() as i64;
        assert!(
            (said - 599 * SIZE as i64).abs() < 20 * SIZE as i64,
            "{said}"
        );
    }

    proptest! {
        /// Whatever is said of segments, every byte is counted once.
        #[test]
        fn no_byte_is_lost(steps in proptest::collection::vec((0u64..300, 0u64..50_000, any::<u32>(), any::<u32>()), 1..200)) {
            let (mut bins, mut arrivals) = (Bins::new(), Arrivals::new());
            let (mut ms, mut sum) = (0, 0);
            for (step, bytes, all, out_of_order) in steps {
                ms += step;
                sum += bytes;
                arrivals.take(at(ms), bytes, &mut bins);
                arrivals.look(at(ms + 1), Segments { all: all % 5000, out_of_order: out_of_order % 4, size: all % 1500 });
                prop_assert!(arrivals.known(at(ms + 1)) <= at(ms + 1));
            }
            prop_assert_eq!(bins.total(), sum);
        }
    }
}
