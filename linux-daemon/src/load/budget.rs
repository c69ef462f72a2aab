//! What tests may still move this month.

use std::cmp::Reverse;

use bufferbane_core::time::Monotonic;
use bufferbane_store::{LoadTest, Reader, TestWay};

use super::Path;
use super::turn::Turn;
use crate::recorder::told_rates_bps;

/// A month, for the budget, ns.
pub(crate) const MONTH_NS: u64 = 30 * 86_400 * 1_000_000_000;

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
    /// How long ago it began, ns; `None`: by a clock that was wrong then, or is now, so that nobody
    /// knows.
    pub(super) age_ns: Option<u64>,
    pub(super) interface: String,
    pub(super) reflector: String,
    /// What it loaded, where it ran by itself and has a result.
    pub(super) scheduled: Option<Turn>,
    /// What it found the line to carry, bit/s, where it says that; and what others carried meanwhile, as far as that
    /// is known.
    pub(super) rate_bps: Option<u64>,
    pub(super) others_bps: u64,
    /// Received at either end.
    pub(super) bytes: u64,
}

impl Spent {
    fn of(age_ns: Option<u64>, test: &LoadTest) -> Self {
        let rates = told_rates_bps(test);
        Self {
            age_ns,
            interface: test.interface.clone(),
            reflector: test.reflector.clone(),
            scheduled: (test.asked_by == super::BY_SCHEDULE).then(|| Turn::of(test)),
            rate_bps: rates.map(|(found, _)| found),
            others_bps: rates.map_or(0, |(_, others)| others),
            bytes: test.ways.iter().map(TestWay::moved_bytes).sum(),
        }
    }
}

/// A test of this run: the store does not hold it where it failed, or is not written yet.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// When it began, as the store would have it; of one that failed, about.
    begun: Monotonic,
    /// Its age is known when it is asked for.
    spent: Spent,
}

impl Made {
    pub(super) fn of(test: &LoadTest) -> Self {
        Self {
            begun: Monotonic::from_nanos(test.start_ns),
            spent: Spent::of(None, test),
        }
    }

    /// One that failed at `at` and moved so much.
    pub(super) fn failed(at: Monotonic, path: &Path, bytes: u64) -> Self {
        Self {
            begun: at,
            spent: Spent {
                age_ns: None,
                interface: path.interface.clone(),
                reflector: path.reflector.clone(),
                scheduled: None,
                rate_bps: None,
                others_bps: 0,
                bytes,
            },
        }
    }

    /// Whether it counts no longer.
    pub(super) fn is_old(&self, now: Monotonic) -> bool {
        now.saturating_since(self.begun) > MONTH_NS
    }
}

/// What clocks show.
#[derive(Clone, Debug)]
pub(super) struct Now {
    /// Since boot.
    pub(super) mono: Monotonic,
    /// ns since 1970, where the clock can be right.
    pub(super) wall_ns: Option<i64>,
    /// Of this boot, where it is known.
    pub(super) boot_id: Option<String>,
}

/// A test in the store.
struct Kept {
    /// When it began, ns since boot, if that was this one.
    begun_ns: Option<u64>,
    /// ns since 1970, as far as that is known, if it was an earlier one.
    wall_ns: i64,
    spent: Spent,
}

/// The tests of the last month, the oldest first: those that the store holds and those of this run. Of the
/// store's no more are read, however many years it holds.
pub(super) fn read(
    store: &std::path::Path,
    now: &Now,
    made: &[Made],
) -> Result<Vec<Spent>, String> {
    let failed = |e: &dyn std::fmt::Display| e.to_string();
    let reader = Reader::open(store).map_err(|e| failed(&e))?;
    let boots = reader.boots().map_err(|e| failed(&e))?;
    let is_this = |id: &String| now.boot_id.as_ref() == Some(id);
    let this_boot = boots.iter().find(|(_, id)| is_this(id)).map(|(n, _)| *n);
    let mut kept: Vec<Kept> = Vec::new();
    if let Some(boot) = this_boot {
        let since_ns = now.mono.as_nanos().saturating_sub(MONTH_NS);
        let tests = reader.tests_of_boot(boot, since_ns);
        kept.extend(tests.map_err(|e| failed(&e))?.iter().map(|test| Kept {
            begun_ns: Some(test.start_ns),
            wall_ns: 0,
            spent: Spent::of(None, test),
        }));
    }
    let last_ns = match now.wall_ns {
        Some(wall_ns) => Some(wall_ns),
        None => {
            let last = reader.last_test_before(this_boot.unwrap_or(u32::MAX));
            last.map_err(|e| failed(&e))?
        }
    };
    if let Some(last_ns) = last_ns {
        let since_ns = last_ns.saturating_sub_unsigned(MONTH_NS);
        let tests = reader.tests(since_ns, i64::MAX).map_err(|e| failed(&e))?;
        let of_before = tests.iter().filter(|(.., t)| Some(t.boot) != this_boot);
        kept.extend(of_before.map(|(_, wall_ns, test)| Kept {
            begun_ns: None,
            wall_ns: *wall_ns,
            spent: Spent::of(None, test),
        }));
    }
    Ok(together(kept, now, made))
}

/// Tests of this boot are as old as its monotonic clock says, however the wall clock was set meanwhile;
/// others are as old as the wall clock says. Before that is set, no time has passed since the last of
/// them.
fn together(kept: Vec<Kept>, now: &Now, made: &[Made]) -> Vec<Spent> {
    let of_before = kept.iter().filter(|k| k.begun_ns.is_none());
    let last_ns = of_before.map(|k| k.wall_ns).max();
    let wall_ns = now.wall_ns.or(last_ns).unwrap_or(0);
    let is_written = |m: &&Made| {
        kept.iter().any(|k| {
            k.begun_ns == Some(m.begun.as_nanos())
                && (&k.spent.interface, &k.spent.reflector)
                    == (&m.spent.interface, &m.spent.reflector)
        })
    };
    let age_ns = |begun| Some(now.mono.saturating_since(begun));
    let unwritten = made.iter().filter(|m| !is_written(m)).map(|m| Spent {
        age_ns: age_ns(m.begun),
        ..m.spent.clone()
    });
    let mut spent: Vec<Spent> = unwritten.collect();
    spent.extend(kept.into_iter().map(|k| Spent {
        age_ns: match k.begun_ns {
            Some(ns) => age_ns(Monotonic::from_nanos(ns)),
            None => u64::try_from(wall_ns.saturating_sub(k.wall_ns)).ok(),
        },
        ..k.spent
    }));
    spent.retain(|s| s.age_ns.is_none_or(|age_ns| age_ns <= MONTH_NS));
    spent.sort_by_key(|s| Reverse(s.age_ns.unwrap_or(u64::MAX)));
    spent
}

/// The month's bytes of one uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// What all of it may move; `None`: it is cellular, and nobody said how much.
    pub(super) all: Option<u64>,
    /// What its probes move by themselves, and its packet trains may.
    pub(super) probes: u64,
    /// What the next test will move is what the last of the uplink moved, so many of them: as many as take
    /// turns.
    pub(super) round: usize,
}

impl Budget {
    /// How many bytes another test may move now, after those that were `spent` in the month before, of
    /// this uplink, the oldest first; else why none may run.
    ///
    /// Between two tests there is as much time as makes tests like those last use the month up evenly, and
    /// between three twice as much: one that came at once is made up for by the next.
    pub(super) fn check<'a>(
        self,
        spent: impl DoubleEndedIterator<Item = &'a Spent> + Clone,
    ) -> Result<u64, Held> {
        let left = self.left(spent.clone())?;
        let gap_ns = self.gap_ns(spent.clone());
        let latest = spent.rev().filter_map(|s| s.age_ns).take(2);
        let waits = (1..).zip(latest).map(|(n, age_ns)| {
            let needed_ns = gap_ns.saturating_mul(n);
            needed_ns.saturating_sub(age_ns)
        });
        match waits.max() {
            None | Some(0) => Ok(left),
            Some(wait_ns) => Err(Held {
                why: format!(
                    "the monthly budget of {} allows the next in {}",
                    size(self.all.unwrap_or(0)),
                    bufferbane_config::format_duration(whole_seconds(wait_ns))
                ),
                for_ns: Some(wait_ns),
            }),
        }
    }

    /// The time from one test to the next by which tests like the last of those that were `spent` use the
    /// month up evenly, ns.
    pub(super) fn gap_ns<'a>(self, spent: impl DoubleEndedIterator<Item = &'a Spent>) -> u64 {
        let last: Vec<u64> = spent.rev().take(self.round).map(|s| s.bytes).collect();
        let mean = last.iter().sum::<u64>() / last.len().max(1) as u64;
        let left = self.all.unwrap_or(0).saturating_sub(self.probes).max(1);
        let gap_ns = u128::from(MONTH_NS) * u128::from(mean) / u128::from(left);
        u64::try_from(gap_ns).unwrap_or(u64::MAX)
    }

    /// How many bytes another test may move, whenever the last one was; see [`Budget::check`].
    pub(super) fn left<'a>(
        self,
        spent: impl DoubleEndedIterator<Item = &'a Spent> + Clone,
    ) -> Result<u64, Held> {
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
        let last = spent.rev().take(self.round).map(|s| s.bytes);
        let most = last.max().unwrap_or(0);
        if used >= left || used.saturating_add(most) > left {
            return Err(Held::unknown(format!(
                "the monthly budget of {} is used up: {} for probes and packet trains, {} by tests of the last 30 days",
                size(all),
                size(self.probes),
                size(used)
            )));
        }
        Ok(left - used)
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
    use bufferbane_store::{Trust, Writer, WriterOptions};

    const DAY_NS: u64 = 86_400 * 1_000_000_000;

    /// A test so many days ago.
    fn spent(days: u64, mib: u64) -> Spent {
        Spent {
            age_ns: Some(days * DAY_NS),
            interface: "eth0".into(),
            reflector: "vienna".into(),
            scheduled: Some(Turn::Up),
            rate_bps: None,
            others_bps: 0,
            bytes: mib << 20,
        }
    }

    fn check(all: Option<u64>, probes: u64, tests: &[Spent]) -> Result<u64, Held> {
        let mib = |n: u64| n << 20;
        let budget = Budget {
            all: all.map(mib),
            probes: mib(probes),
            round: 3,
        };
        budget.check(tests.iter()).map(|bytes| bytes >> 20)
    }

    #[test]
    fn tests_stay_apart_as_the_budget_has_it() {
        // Ten of them make the month: one in three days.
        let held = check(Some(100), 0, &[spent(2, 10)]).unwrap_err();
        assert!(held.why.contains("next in"), "{held:?}");
        assert_eq!(held.for_ns, Some(DAY_NS));
        assert_eq!(check(Some(100), 0, &[spent(3, 10)]), Ok(90));
        // Probes take half.
        assert!(check(Some(100), 50, &[spent(3, 10)]).is_err());
        assert_eq!(check(Some(100), 50, &[spent(6, 10)]), Ok(40));
        assert_eq!(check(Some(100), 0, &[]), Ok(100));
        // One that came at once is made up for.
        let twice = [spent(4, 10), spent(4, 10)];
        assert_eq!(
            check(Some(100), 0, &twice).unwrap_err().for_ns,
            Some(2 * DAY_NS)
        );
    }

    #[test]
    fn what_is_used_up_is_used_up() {
        let tests: Vec<Spent> = (23..26).rev().map(|days| spent(days, 30)).collect();
        let why = check(Some(110), 0, &tests).unwrap_err().why;
        assert!(why.contains("used up") && why.contains("90.0 MiB"), "{why}");
        assert_eq!(check(Some(120), 0, &tests), Ok(30));
        // Tests that failed at once leave no room where there is none.
        let nothing = [spent(9, 100), spent(3, 0), spent(2, 0), spent(1, 0)];
        assert!(check(Some(100), 0, &nothing).is_err());
        let why = check(Some(100), 100, &[]).unwrap_err().why;
        assert!(why.contains("by probes and packet trains alone"), "{why}");
        let why = check(None, 0, &[]).unwrap_err().why;
        assert!(why.contains("cellular"), "{why}");
    }

    fn ages(spent: &[Spent]) -> Vec<Option<u64>> {
        let days = |ns: u64| ns / DAY_NS;
        spent.iter().map(|s| s.age_ns.map(days)).collect()
    }

    fn made(day: u64) -> Made {
        Made {
            begun: Monotonic::from_nanos(day * DAY_NS),
            spent: spent(0, 10),
        }
    }

    fn now(mono_day: u64, wall_day: Option<i64>) -> Now {
        Now {
            mono: Monotonic::from_nanos(mono_day * DAY_NS),
            wall_ns: wall_day.map(|day| day * DAY_NS as i64),
            boot_id: Some("now".into()),
        }
    }

    fn kept(begun_day: Option<u64>, wall_day: i64) -> Kept {
        Kept {
            begun_ns: begun_day.map(|day| day * DAY_NS),
            wall_ns: wall_day * DAY_NS as i64,
            spent: spent(0, 10),
        }
    }

    /// A test of this run that is written on day 10 after boot, one that failed on day 11, and one of an
    /// earlier boot, four days before this one: however the wall clock is put meanwhile, each counts once.
    #[test]
    fn a_clock_that_is_put_forgets_no_test_and_counts_none_twice() {
        let made = [made(10), made(11)];
        let store = || vec![kept(Some(10), 20_010), kept(None, 19_996)];
        let at = |wall_day| ages(&together(store(), &now(12, wall_day), &made));
        assert_eq!(at(Some(20_012)), [Some(16), Some(2), Some(1)]);
        // Years ahead: what was before this boot is as old as that clock says.
        assert_eq!(at(Some(30_000)), [Some(2), Some(1)]);
        // Back by a week, and by years: so is this.
        assert_eq!(at(Some(20_005)), [Some(9), Some(2), Some(1)]);
        assert_eq!(at(Some(10_000)), [None, Some(2), Some(1)]);
        // It is 1970: no time has passed since the last of before.
        assert_eq!(at(None), [Some(2), Some(1), Some(0)]);
        // The same, 30 days later.
        let later = together(store(), &now(41, Some(20_041)), &made);
        assert_eq!(ages(&later), [Some(30)]);
        assert!(made[0].is_old(now(41, None).mono) && !made[1].is_old(now(41, None).mono));
    }

    /// A test a day of two boots, of which the first ended five days before the second began; the wall clock is
    /// put ahead by years on the third day of that.
    #[test]
    fn of_a_store_the_last_month_is_read_whatever_clocks_show() {
        const FIRST_DAY: i64 = 20_000;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let options = WriterOptions {
            min_free_bytes: 0,
            ..WriterOptions::default()
        };
        let mut writer = Writer::open(&path, options).unwrap();
        let mono = |day: u64| Monotonic::from_nanos(day * DAY_NS);
        let wall = |day: i64| (FIRST_DAY + day) * DAY_NS as i64;
        let id = |boot: u64| format!("{boot:08}-0000-4000-8000-000000000001");
        let test = |day: u64| LoadTest {
            start_ns: day * DAY_NS,
            end_ns: day * DAY_NS + 1,
            interface: "eth0".into(),
            ..LoadTest::default()
        };
        let trust = Trust::Disciplined;
        writer.begin_boot(&id(1), mono(0), wall(0), trust).unwrap();
        for day in 1..=40 {
            writer.load_test(test(day));
        }
        writer.commit().unwrap();
        writer.begin_boot(&id(2), mono(0), wall(45), trust).unwrap();
        for day in 1..=2 {
            writer.load_test(test(day));
        }
        writer.commit().unwrap();
        let read = |mono_day: u64, wall_day: Option<i64>| {
            let now = Now {
                mono: mono(mono_day),
                wall_ns: wall_day.map(wall),
                boot_id: Some(id(2)),
            };
            ages(&super::read(&path, &now, &[]).unwrap())
        };
        let days = |ages: &[u64]| -> Vec<Option<u64>> { ages.iter().copied().map(Some).collect() };
        let down = |from: u64, to: u64| -> Vec<u64> { (to..=from).rev().collect() };
        assert_eq!(read(2, Some(47)), days(&[down(30, 7), vec![1, 0]].concat()));
        // It is 1970: no time has passed since the last of before.
        let both = [down(30, 2), vec![1, 1, 0, 0]].concat();
        assert_eq!(read(2, None), days(&both));
        writer.anchor(mono(3), wall(3000), trust);
        for day in 3..=40 {
            writer.load_test(test(day));
        }
        writer.close().unwrap();
        assert_eq!(read(40, Some(3037)), days(&down(30, 0)));
        // And back by years.
        assert_eq!(read(40, Some(85)), days(&down(30, 0)));
    }

    /// What all clocks before this boot have shown is long ago, and still in the store.
    #[test]
    fn a_clock_of_1970_does_not_take_in_all_tests_there_ever_were() {
        let store = (0..1000).map(|day| kept(None, 19_000 + day)).collect();
        let spent = together(store, &now(1, None), &[]);
        assert_eq!(spent.len(), 31);
        assert!(check(Some(1000), 0, &spent).is_err());
    }

    #[test]
    fn a_clock_that_was_put_back_holds_no_test_up_for_long() {
        let unknown = Spent {
            age_ns: None,
            ..spent(0, 10)
        };
        assert_eq!(check(Some(100), 0, &[unknown]), Ok(90));
    }
}
