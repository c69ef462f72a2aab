//! What tests may still move this month.

use std::path::Path;

use bufferbane_store::{LoadTest, Reader};

use super::Kind;

/// A month, for the budget, ns.
pub(crate) const MONTH_NS: u64 = 30 * 86_400 * 1_000_000_000;
/// What the next test will move is what the last of its uplink moved, so many of them: upward twice,
/// downward once.
const LAST: usize = 3;

/// Why no test may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) why: String,
    /// How long that lasts, ns, where time alone ends it.
    pub(super) for_ns: Option<u64>,
}

impl Held {
    fn unknown(why: String) -> Self {
        Self { why, for_ns: None }
    }
}

/// What one test moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spent {
    /// When it began, ns since 1970.
    pub(super) at_ns: i64,
    pub(super) interface: String,
    pub(super) reflector: String,
    /// What it loaded, where it ran by itself and has a result.
    pub(super) scheduled: Option<Kind>,
    /// Received at either end.
    pub(super) bytes: u64,
}

impl Spent {
    pub(super) fn of(at_ns: i64, test: &LoadTest) -> Self {
        let kind = if test.kind == Kind::Down.as_str() {
            Kind::Down
        } else {
            Kind::Up
        };
        Self {
            at_ns,
            interface: test.interface.clone(),
            reflector: test.reflector.clone(),
            scheduled: (test.asked_by == super::BY_SCHEDULE).then_some(kind),
            bytes: test.ways.iter().map(|w| w.bytes).sum(),
        }
    }
}

/// The tests that the store holds of the month before `wall_ns`, and of what a clock that was wrong
/// takes for later, the oldest first.
pub(super) fn read(store: &Path, wall_ns: i64) -> Result<Vec<Spent>, String> {
    let from_ns = wall_ns.saturating_sub_unsigned(MONTH_NS);
    let tests = Reader::open(store)
        .map_err(|e| e.to_string())
        .and_then(|r| r.tests(from_ns, i64::MAX).map_err(|e| e.to_string()));
    let mut spent: Vec<Spent> = tests?
        .iter()
        .map(|(_, at_ns, test)| Spent::of(*at_ns, test))
        .collect();
    spent.sort_by_key(|s| s.at_ns);
    Ok(spent)
}

/// The month's bytes of one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// What all of it may move; `None`: it is cellular, and nobody said how much.
    pub(super) all: Option<u64>,
    /// What its probes move by themselves, and its packet trains may.
    pub(super) probes: u64,
}

impl Budget {
    /// Whether another test may run at `wall_ns` after those that were `spent` in the month before, of
    /// this uplink; else why not.
    ///
    /// Between two tests there is as much time as makes tests like those last use the month up evenly.
    pub(super) fn check<'a>(
        self,
        spent: impl DoubleEndedIterator<Item = &'a Spent> + Clone,
        wall_ns: i64,
    ) -> Result<(), Held> {
        let Some(all) = self.all else {
            return Err(Held::unknown(
                "it is cellular: no test by itself without a monthly_budget of its own".into(),
            ));
        };
        let left = all.saturating_sub(self.probes);
        if left == 0 {
            return Err(Held::unknown(format!(
                "the monthly budget of {} is used up by probes and packet trains alone: {}",
                size(all),
                size(self.probes)
            )));
        }
        let used: u64 = spent.clone().map(|s| s.bytes).sum();
        let last: Vec<u64> = spent.clone().rev().take(LAST).map(|s| s.bytes).collect();
        let most = last.iter().copied().max().unwrap_or(0);
        if used.saturating_add(most) > left {
            return Err(Held::unknown(format!(
                "the monthly budget of {} is used up: {} for probes and packet trains, {} by tests of the last 30 days",
                size(all),
                size(self.probes),
                size(used)
            )));
        }
        let mean = last.iter().sum::<u64>() / last.len().max(1) as u64;
        let gap_ns = u128::from(MONTH_NS) * u128::from(mean) / u128::from(left);
        let latest = spent.map(|s| s.at_ns).filter(|at| *at <= wall_ns).max();
        let since = latest.map(|at| wall_ns.abs_diff(at));
        match since {
            Some(since_ns) if u128::from(since_ns) < gap_ns => {
                let wait_ns = u64::try_from(gap_ns - u128::from(since_ns)).unwrap_or(u64::MAX);
                Err(Held {
                    why: format!(
                        "the monthly budget of {} allows the next in {}",
                        size(all),
                        bufferbane_config::format_duration(whole_seconds(wait_ns))
                    ),
                    for_ns: Some(wait_ns),
                })
            }
            _ => Ok(()),
        }
    }
}

fn whole_seconds(ns: u64) -> u64 {
    ns.div_ceil(1_000_000_000).saturating_mul(1_000_000_000)
}

/// `12.3 GiB`, as budgets are written.
fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_NS: i64 = 86_400 * 1_000_000_000;

    fn spent(day: i64, mib: u64) -> Spent {
        Spent {
            at_ns: day * DAY_NS,
            interface: "eth0".into(),
            reflector: "vienna".into(),
            scheduled: Some(Kind::Up),
            bytes: mib << 20,
        }
    }

    fn check(all: Option<u64>, probes: u64, tests: &[Spent], day: i64) -> Result<(), Held> {
        let mib = |n: u64| n << 20;
        let budget = Budget {
            all: all.map(mib),
            probes: mib(probes),
        };
        budget.check(tests.iter(), day * DAY_NS)
    }

    #[test]
    fn tests_stay_apart_as_the_budget_has_it() {
        let tests = [spent(100, 10)];
        // Ten of them make the month: one in three days.
        let held = check(Some(100), 0, &tests, 102).unwrap_err();
        assert!(held.why.contains("next in"), "{held:?}");
        assert_eq!(held.for_ns, Some(DAY_NS as u64));
        assert_eq!(check(Some(100), 0, &tests, 103), Ok(()));
        // Probes take half.
        assert!(check(Some(100), 50, &tests, 103).is_err());
        assert_eq!(check(Some(100), 50, &tests, 106), Ok(()));
        assert_eq!(check(Some(100), 0, &[], 0), Ok(()));
    }

    #[test]
    fn what_is_used_up_is_used_up() {
        let tests: Vec<Spent> = (0..3).map(|d| spent(100 + d, 30)).collect();
        let why = check(Some(110), 0, &tests, 125).unwrap_err().why;
        assert!(why.contains("used up") && why.contains("90.0 MiB"), "{why}");
        assert_eq!(check(Some(120), 0, &tests, 125), Ok(()));
        let why = check(Some(100), 100, &[], 0).unwrap_err().why;
        assert!(why.contains("by probes and packet trains alone"), "{why}");
        let why = check(None, 0, &[], 0).unwrap_err().why;
        assert!(why.contains("cellular"), "{why}");
    }

    #[test]
    fn a_clock_that_was_put_back_holds_no_test_up_for_long() {
        assert_eq!(check(Some(100), 0, &[spent(4000, 10)], 100), Ok(()));
    }
}
