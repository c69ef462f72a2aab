//! When datagrams leave: at a rate, in short bursts.
//!
//! A host cannot wake for each datagram of a fast test, so what a rate makes in a millisecond leaves
//! together. Slower than that each leaves alone.

use crate::time::Monotonic;

/// What is sent together is no more than the rate makes in this time, ns, but for the first datagram.
const BURST_NS: u64 = 1_000_000;
/// A sender that was held up makes up for so much, ns; what is beyond that is left out, so that a
/// stall of the host does not become a burst that overflows the line.
const MAKE_UP_NS: u64 = 10_000_000;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bps: u64,
    bits: u64,
    burst: u64,
    /// When datagram 0 was due, and with what was left out, would have been.
    begun: Monotonic,
    /// Datagrams of bursts so far, and how many of the last are still to be sent.
    due: u64,
    left: u64,
    next_at: Monotonic,
}

impl Pace {
    /// Datagrams of `size` bytes at `bps` bits per second, none of which is 0, from `now` on.
    #[must_use]
    pub fn new(bps: u64, size: u16, now: Monotonic) -> Self {
        let (bps, bits) = (bps.max(1), 8 * u64::from(size.max(1)));
        let in_burst = u128::from(bps) * u128::from(BURST_NS) / 1_000_000_000 / u128::from(bits);
        Self {
            bps,
            bits,
            burst: u64::try_from(in_burst).unwrap_or(u64::MAX).max(1),
            begun: now,
            due: 0,
            left: 0,
            next_at: now,
        }
    }

    /// Whether another datagram is to be sent at `now`. To be asked until it is not.
    pub fn poll(&mut self, now: Monotonic) -> bool {
        if self.left == 0 {
            if now < self.next_at {
                return false;
            }
            let late_ns = now.saturating_since(self.time_of(self.due));
            let left_out_ns = late_ns.saturating_sub(MAKE_UP_NS);
            self.begun = self.begun.saturating_add(left_out_ns);
            self.due = self.due.saturating_add(self.burst);
            self.left = self.burst;
            // What is made up for comes at no more than twice the rate.
            let half_ns = self.ns_of(self.burst) / 2;
            let next = self.time_of(self.due);
            self.next_at = next.max(now.saturating_add(half_ns));
        }
        self.left -= 1;
        true
    }

    /// Whether there are more datagrams of a burst to be sent, at whatever time.
    #[must_use]
    pub const fn is_in_burst(&self) -> bool {
        self.left > 0
    }

    /// When [`Pace::poll`] is next needed; that is past while a burst is not all polled.
    #[must_use]
    pub const fn poll_timeout(&self) -> Monotonic {
        if self.is_in_burst() {
            return Monotonic::ZERO;
        }
        self.next_at
    }

    fn ns_of(&self, datagrams: u64) -> u64 {
        let ns = u128::from(datagrams) * u128::from(self.bits) * 1_000_000_000;
        u64::try_from(ns / u128::from(self.bps)).unwrap_or(u64::MAX)
    }

    fn time_of(&self, datagram: u64) -> Monotonic {
        self.begun.saturating_add(self.ns_of(datagram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    fn at(ns: u64) -> Monotonic {
        Monotonic::from_nanos(ns)
    }

    /// What leaves in a second of a driver that comes when it is asked to, and its largest burst.
    fn second(bps: u64, size: u16) -> (u64, u64) {
        let mut pace = Pace::new(bps, size, at(7));
        let (mut sent, mut largest) = (0, 0);
        let mut now = at(7);
        while now < at(7 + S) {
            let mut burst = 0;
            while pace.poll(now) {
                burst += 1;
            }
            sent += burst;
            largest = largest.max(burst);
            now = pace.poll_timeout().max(at(now.as_nanos() + 1));
        }
        (sent, largest)
    }

    #[test]
    fn a_second_has_the_datagrams_of_the_rate_and_a_burst_those_of_a_millisecond() {
        assert_eq!(second(960_000, 1200), (100, 1));
        assert_eq!(second(9_600_000, 1200), (1000, 1));
        assert_eq!(second(96_000_000, 1200), (10_000, 10));
        assert_eq!(second(960_000_000, 1200), (100_000, 100));
    }

    #[test]
    fn a_stall_is_made_up_for_slowly_and_a_long_one_not_wholly() {
        let sent_after = |stall_ns: u64| {
            let mut pace = Pace::new(96_000_000, 1200, at(0));
            assert!(pace.poll(at(0)));
            let (mut sent, mut most_in_ms, mut now) = (1, 0, stall_ns);
            while now < S {
                let mut in_ms = 0;
                for _ in 0..10 {
                    now += 100_000;
                    while pace.poll(at(now)) {
                        in_ms += 1;
                    }
                }
                most_in_ms = most_in_ms.max(in_ms);
                sent += in_ms;
            }
            (sent, most_in_ms)
        };
        // Ten in a millisecond; what a stall held up comes at twice that.
        let (sent, most_in_ms) = sent_after(8_000_000);
        assert!((9_990..=10_010).contains(&sent), "{sent}");
        assert!((20..=30).contains(&most_in_ms), "{most_in_ms}");
        // Of half a second only 10 ms are made up for.
        let (sent, most_in_ms) = sent_after(S / 2);
        assert!((5_090..=5_130).contains(&sent), "{sent}");
        assert!((20..=30).contains(&most_in_ms), "{most_in_ms}");
    }

    proptest! {
        /// However the driver comes by, no more leaves than the rate allows, and a burst at the begin.
        #[test]
        fn the_rate_is_never_exceeded(bps in 1u64..2_000_000_000, size in 128u16..1453, steps in proptest::collection::vec(0u64..30_000_000, 1..200)) {
            let mut pace = Pace::new(bps, size, at(0));
            let (mut now, mut bits) = (0, 0u128);
            for step in steps {
                now += step;
                while pace.poll(at(now)) {
                    bits += 8 * u128::from(size);
                }
                let most = u128::from(bps) * u128::from(now + BURST_NS) / u128::from(S) + 8 * u128::from(size);
                prop_assert!(bits <= most, "{} of {} bits at {} ns", bits, most, now);
                prop_assert!(pace.poll_timeout() > at(now));
            }
        }
    }
}
