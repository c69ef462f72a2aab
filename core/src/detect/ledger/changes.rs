//! Changes of ways: what many targets show of one, and how many a day tells. A way that flaps would have an event for
//! each change; the last event of a day counts what comes after it instead.

use heapless::Deque;

use super::super::MAX_LINES;
use super::super::event::{Value, Values, set};
use crate::time::Monotonic;

const S: u64 = 1_000_000_000;
/// What targets of a line show of a change of the way comes within this time, ns: each is seen with its next probe.
const ONE_CHANGE_NS: u64 = 60 * S;
/// So many changes of ways are told in a day for each line: what comes then is counted in the last of them.
const A_DAY: usize = 4;
const DAY_NS: u64 = 86_400 * S;
/// How often the way has changed, as an event of it says.
const CHANGED: &str = "changes";

/// When changes of ways were told of each line, of the last day.
#[derive(Clone, Debug)]
pub(super) struct Changes([Deque<Monotonic, A_DAY>; MAX_LINES]);

impl Changes {
    pub(super) const fn new() -> Self {
        Self([const { Deque::new() }; MAX_LINES])
    }

    /// Whether a change that is told at `at` is the last of its line for a day.
    pub(super) fn is_last_of_day(&mut self, line: u8, at: Monotonic) -> bool {
        let Some(told) = self.0.get_mut(usize::from(line)) else {
            return false;
        };
        while told
            .front()
            .is_some_and(|t| at.saturating_since(*t) >= DAY_NS)
        {
            told.pop_front();
        }
        let _ = told.push_back(at);
        told.is_full()
    }

    /// Another line may have this number now.
    pub(super) fn forget_line(&mut self, line: u8) {
        if let Some(told) = self.0.get_mut(usize::from(line)) {
            told.clear();
        }
    }
}

/// Whether what a target shows at `at` is of the change that others showed until `ended`.
pub(super) fn is_of_one(ended: Monotonic, at: Monotonic) -> bool {
    at <= ended.saturating_add(ONE_CHANGE_NS)
}

/// Until when the last event of a day, which began at `start`, takes what comes.
pub(super) const fn day_after(start: Monotonic) -> Monotonic {
    start.saturating_add(DAY_NS)
}

/// How often the way has changed, as the figures of an event say.
pub(super) fn times(values: &Values) -> u64 {
    match values.iter().find(|(name, _)| *name == CHANGED) {
        Some((_, Value::Number(n))) => *n,
        _ => 1,
    }
}

/// Says so in the figures of an event.
pub(super) fn set_times(values: &mut Values, times: u64) {
    set(values, CHANGED, Value::Number(times));
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::super::super::event::{Finding, Kind, Phase, Severity};
    use super::super::Ledger;
    use super::*;

    /// Lets the ways to these series change at these seconds; gives begin, end, series and count of each event.
    fn routes(changes: &[(u64, u8)]) -> vec::Vec<(u64, u64, vec::Vec<u8>, u64)> {
        let mut ledger = Ledger::new(300 * S);
        let mut told = std::collections::BTreeMap::new();
        for (s, series) in changes {
            let at = Monotonic::from_nanos(s * S);
            ledger.forget(at.saturating_add(5 * S));
            let f = Finding::new(Kind::RouteChange, Severity::Info, at);
            ledger.happened(0, *series, f, at);
            while let Some(n) = ledger.poll() {
                // A moment has its end from the begin on.
                assert!(n.event.end.is_some(), "{n:?}");
                assert_eq!(n.phase == Phase::Begin, !told.contains_key(&n.id));
                told.insert(n.id, n.event);
            }
        }
        assert_eq!(ledger.overflow(), 0);
        let seconds = |t: Monotonic| t.as_nanos() / S;
        told.into_values()
            .map(|e| {
                let end = e.end.map_or(0, seconds);
                let times = times(&e.values);
                (seconds(e.start), end, e.series.iter().collect(), times)
            })
            .collect()
    }

    #[test]
    fn one_change_of_many_ways_is_one_event_and_so_is_a_way_that_flaps() {
        // Three targets at once, each of which is seen a moment later.
        let once = routes(&[(100, 1), (101, 2), (130, 3)]);
        assert_eq!(once, [(100, 130, vec![1, 2, 3], 3)]);
        // Each is told by itself where they are apart.
        let apart = routes(&[(100, 1), (200, 2), (550, 1)]);
        assert_eq!(
            apart,
            [
                (100, 100, vec![1], 1),
                (200, 200, vec![2], 1),
                (550, 550, vec![1], 1)
            ]
        );
        // Ten ways that change every five seconds for an hour.
        let mut flaps = vec::Vec::new();
        for s in (100..3700).step_by(5) {
            flaps.extend((1..=10).map(|series| (s, series)));
        }
        let flaps = routes(&flaps);
        assert_eq!(flaps, [(100, 3695, (1..=10).collect(), 7200)]);
    }

    #[test]
    fn four_changes_of_ways_are_told_in_a_day_and_more_are_counted() {
        // Every ten minutes for two days, of two targets in turn.
        let all: vec::Vec<(u64, u8)> = (0..288).map(|n| (600 * n, 1 + n as u8 % 2)).collect();
        let told = routes(&all);
        let counts: vec::Vec<u64> = told.iter().map(|t| t.3).collect();
        assert_eq!(counts.iter().sum::<u64>(), 288);
        assert_eq!(told.len(), 8, "{told:?}");
        assert_eq!(counts[..3], [1, 1, 1]);
        assert!(counts[3] > 100, "{told:?}");
    }
}
