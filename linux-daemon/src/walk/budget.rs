//! How often ways are walked out of turn: because something looks wrong, or to confirm that one is another.

use bufferbane_core::time::Monotonic;

/// How often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// So many walks may follow each other at once.
    pub(super) at_once: u32,
    /// In the long run there is one in this time, ns.
    pub(super) each_ns: u64,
}

/// Looks through an uplink: six an hour.
const LOOKS: Limit = Limit {
    at_once: 3,
    each_ns: 600_000_000_000,
};
/// Walks to a target that confirm another: routers that answer from other addresses each time are nothing
/// that a second walk confirms.
pub(super) const CONFIRMING: Limit = Limit {
    at_once: 2,
    each_ns: 900_000_000_000,
};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    limit: Limit,
    left: u32,
    /// Since when the next walk is being saved for.
    since: Monotonic,
}

impl Budget {
    pub(super) const fn new(limit: Limit, now: Monotonic) -> Self {
        Self {
            limit,
            left: limit.at_once,
            since: now,
        }
    }

    /// Whether there may be another walk at `now`; it counts then.
    pub(super) fn take(&mut self, now: Monotonic) -> bool {
        let Limit { at_once, each_ns } = self.limit;
        let saved = now.saturating_since(self.since) / each_ns;
        self.since = self.since.saturating_add(saved * each_ns);
        self.left = u32::try_from(saved)
            .unwrap_or(at_once)
            .saturating_add(self.left)
            .min(at_once);
        if self.left == at_once {
            self.since = now;
        }
        let any = self.left > 0;
        self.left -= u32::from(any);
        any
    }
}

/// Looks through an uplink. Those because of a silence have a budget of their own: most lines pause now and then, and
/// that is to leave something for events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks {
    for_events: Budget,
    for_silence: Budget,
}

impl Looks {
    pub(super) const fn new(now: Monotonic) -> Self {
        Self {
            for_events: Budget::new(LOOKS, now),
            for_silence: Budget::new(LOOKS, now),
        }
    }

    /// Whether there may be another look at `now`, for an event or because of a silence; it counts then.
    pub(super) fn take(&mut self, now: Monotonic, is_for_event: bool) -> bool {
        match is_for_event {
            true => self.for_events.take(now),
            false => self.for_silence.take(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_stretch_has_more_than_its_share(
            gaps in proptest::collection::vec(0u64..2_000, 1..200),
            limit in prop_oneof![Just(LOOKS), Just(CONFIRMING)],
        ) {
            let mut now = Monotonic::from_nanos(5);
            let mut budget = Budget::new(limit, now);
            let mut taken = Vec::new();
            for gap in gaps {
                now = now.saturating_add(gap * 1_000_000_000);
                let before = taken.last().copied();
                if budget.take(now) {
                    taken.push(now);
                } else {
                    // Whoever has waited for long enough is not refused.
                    let waited = before.map(|b: Monotonic| now.saturating_since(b));
                    prop_assert!(waited.is_some_and(|ns| ns < limit.each_ns));
                }
            }
            for (i, from) in taken.iter().enumerate() {
                for (n, to) in taken[i..].iter().enumerate() {
                    let allowed = u64::from(limit.at_once) + to.saturating_since(*from) / limit.each_ns;
                    prop_assert!((n as u64) < allowed);
                }
            }
        }
    }
}
