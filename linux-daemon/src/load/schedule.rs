//! When tests run by themselves, and which.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rand_core::Rng;

use super::budget::{MONTH_NS, Spent};
use super::doubt::is_in_doubt;
use super::settings::Settings;
use super::turn::Turn;
use super::{Path, run};
use crate::config::Throughput;
use crate::config::quiet::is_quiet;

/// A household that moves more than this either way is using the line, bit/s.
const BUSY_BPS: u64 = 500_000;
/// Over how long that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What stands in the way is looked at again after this.
const POSTPONED: Duration = Duration::from_secs(60);
/// What a budget has allowed by then is looked at after no less than this: each look reads the store.
const SOON: Duration = Duration::from_secs(5);
/// A store that cannot be read, perhaps because it is not open yet, is tried again after this.
const UNREAD: Duration = Duration::from_secs(5);
/// After quiet hours, or once any reflector is reached again, the next test comes within this: not all
/// households at once.
const AFTER_PAUSE_NS: u64 = 3600 * 1_000_000_000;
/// A test that found little is made again after this, and within so much more: what was in its way is gone
/// then, or is no hiccup.
const AGAIN: Duration = Duration::from_secs(120);
const AGAIN_WITHIN_NS: u64 = 180 * 1_000_000_000;
/// Where that could not be done within this time, it is left to the next one in turn.
const AGAIN_UNTIL: Duration = Duration::from_secs(3600);
const DAY_NS: u64 = 86_400 * 1_000_000_000;

/// Interface and reflector.
type Key = (String, String);

/// What is asked of the host and of the store, when it is needed.
pub(super) trait Facts {
    /// Bytes that an interface has sent and received; `None` where nobody knows.
    fn counters(&mut self, index: u32) -> Option<(u64, u64)>;
    /// ns since 1970, where the clock can be right.
    fn wall_ns(&self) -> Option<i64>;
    /// The tests of the last 30 days, the oldest first.
    fn spent(&mut self) -> Result<Vec<Spent>, String>;
    /// Whether this host has been seen to forward the household's traffic.
    fn is_router(&mut self) -> bool;
}

/// A test that is to run.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) path: Path,
    pub(super) turn: Turn,
    /// What the month's budget leaves it.
    pub(super) most_bytes: u64,
}

/// One that was chosen, while the line is looked at.
struct Chosen {
    due: Due,
    /// What was loaded in its turn before.
    last: Option<Turn>,
    since: Instant,
    /// Its counters then.
    before: Option<(u64, u64)>,
}

/// Who is next.
enum Choice {
    Test {
        due: Due,
        last: Option<Turn>,
    },
    /// Nobody at present, and how long that lasts where it is known.
    None(Option<Duration>),
}

/// A test that found little, and is to be made again.
struct Again {
    path: Key,
    turn: Turn,
    /// Nobody asks any more.
    until: Instant,
}

/// A path's last turn in this run, whatever came of it.
struct Tried {
    at: Instant,
    /// What was loaded then and in the turn before.
    turns: [Option<Turn>; 2],
}

/// See the module.
pub(super) struct Schedule {
    next: Option<Instant>,
    chosen: Option<Chosen>,
    in_quiet_hours: bool,
    /// Whether no reflector was reached when this was asked last.
    is_cut_off: bool,
    tried: HashMap<Key, Tried>,
    again: Option<Again>,
    /// Uplinks that were in use when they were looked at last, and until when they are left alone.
    busy_until: HashMap<String, Instant>,
    /// Why there is none at present: of all, and by interface.
    waits: Option<String>,
    of_uplinks: BTreeMap<String, Uplink>,
}

/// What there is to say of the tests through one uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uplink {
    pub(super) budget_bytes: u64,
    pub(super) probe_bytes: u64,
    pub(super) spent_bytes: u64,
    /// Why no test runs through it at present.
    pub(super) waits: Option<String>,
    /// What `skip_when_busy` cannot know.
    pub(super) caveat: Option<&'static str>,
}

impl Schedule {
    /// The first test comes at a random time within the first interval.
    pub(super) fn new(settings: &Throughput, rng: &mut impl Rng) -> Self {
        let next = settings
            .every_ns
            .map(|every_ns| Instant::now() + random(every_ns, rng));
        Self {
            next,
            chosen: None,
            in_quiet_hours: false,
            is_cut_off: false,
            busy_until: HashMap::new(),
            tried: HashMap::new(),
            again: None,
            waits: None,
            of_uplinks: BTreeMap::new(),
        }
    }

    /// The test that is due, if one is and nothing stands in its way, and how many bytes it may move.
    ///
    /// Of the paths whose budget allows it the one that was tested longest ago has its turn: upward
    /// twice, then downward once, then over UDP where there are rates for that.
    pub(super) fn due(
        &mut self,
        now: Instant,
        paths: &[Path],
        settings: &Settings,
        facts: &mut impl Facts,
        rng: &mut impl Rng,
    ) -> Option<Due> {
        let every_ns = settings.throughput.every_ns?;
        if paths.is_empty() {
            self.is_cut_off = true;
            self.chosen = None;
            return None;
        }
        let is_back = std::mem::take(&mut self.is_cut_off);
        if self.next.is_none_or(|next| now < next) {
            return None;
        }
        if is_back {
            // Whoever was cut off by the same fault is back at the same moment.
            self.next = Some(now + random(every_ns.min(AFTER_PAUSE_NS), rng));
            return None;
        }
        if self.is_quiet(now, settings, facts, rng) {
            self.chosen = None;
            return None;
        }
        let chosen = match self.chosen.take() {
            Some(chosen) => chosen,
            None => match self.choose(now, paths, settings, facts) {
                Ok(Choice::Test { due, last }) => {
                    self.waits = None;
                    let looks = settings.throughput.skip_when_busy;
                    let before = looks.then(|| facts.counters(due.path.index)).flatten();
                    Chosen {
                        due,
                        last,
                        since: now,
                        before,
                    }
                }
                Ok(Choice::None(lasts)) => {
                    self.waits = None;
                    let every = Duration::from_nanos(every_ns) + random(every_ns / 5, rng);
                    // Not at the same minute of each day, where all tests cost the same.
                    let mut soonest = |l: Duration| {
                        let ns = u64::try_from(l.as_nanos() / 5).unwrap_or(u64::MAX);
                        l.max(SOON) + random(ns, rng)
                    };
                    self.next = Some(now + lasts.map_or(every, |l| every.min(soonest(l))));
                    return None;
                }
                Err(why) => {
                    self.next = Some(now + UNREAD);
                    self.waits = Some(why);
                    return None;
                }
            },
        };
        if let Some(before) = chosen.before {
            let looked = now.saturating_duration_since(chosen.since);
            if looked < LOOK {
                self.chosen = Some(chosen);
                return None;
            }
            if let Some(after) = facts.counters(chosen.due.path.index)
                && is_busy(before, after, looked, chosen.due.path.probe_bytes)
            {
                // Another uplink has its turn at the next look, which is now.
                let interface = chosen.due.path.interface;
                self.uplink(&interface).waits = Some(IN_USE.into());
                let nanos = u64::try_from(POSTPONED.as_nanos()).unwrap_or(u64::MAX);
                let until = now + POSTPONED + random(nanos, rng);
                self.busy_until.insert(interface, until);
                return None;
            }
        }
        let Chosen { due, last, .. } = chosen;
        self.uplink(&due.path.interface).waits = None;
        self.busy_until.remove(&due.path.interface);
        let tried = Tried {
            at: now,
            turns: [Some(due.turn), last],
        };
        let key = key(&due.path);
        if self.again.as_ref().is_some_and(|a| a.path == key) {
            self.again = None;
        }
        self.tried.insert(key, tried);
        // Not always at the same minute of the hour.
        self.next = Some(now + Duration::from_nanos(every_ns) + random(every_ns / 5, rng));
        Some(due)
    }

    /// A test that was due has been made, by this reflector: where it found much less than is usual, the
    /// same is tested again soon, so that it is known within minutes whether that was the line. Gives how
    /// long what it found speaks of the line, ns.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        (due, reflector): (&Due, &str),
        paths: &[Path],
        settings: &Settings,
        facts: &mut impl Facts,
        rng: &mut impl Rng,
    ) -> u64 {
        // Whoever cannot read it is told so at the next look.
        let spent = facts.spent().unwrap_or_default();
        let is_own = due.path.reflector == reflector;
        if is_own && is_in_doubt(of_path(&spent, &due.path), settings.low_share) {
            self.next = Some(now + AGAIN + random(AGAIN_WITHIN_NS, rng));
            self.again = Some(Again {
                path: key(&due.path),
                turn: due.turn,
                until: now + AGAIN_UNTIL,
            });
        }
        let here = spent.iter().filter(|s| s.interface == due.path.interface);
        let gap_ns = settings.budget(&due.path).gap_ns(here);
        speaks_for_ns(paths, &due.path, gap_ns, &settings.throughput)
    }

    /// What there is to say of each uplink, by its name.
    pub(super) fn uplinks(&self) -> impl Iterator<Item = (&String, Uplink)> {
        self.of_uplinks.iter().map(|(name, uplink)| {
            let waits = self.waits.clone().or_else(|| uplink.waits.clone());
            let uplink = Uplink {
                waits,
                ..uplink.clone()
            };
            (name, uplink)
        })
    }

    fn uplink(&mut self, interface: &str) -> &mut Uplink {
        self.of_uplinks.entry(interface.to_owned()).or_default()
    }

    /// Whether a test that began now would run in quiet hours; if so, or if they have just ended, the
    /// next look is put off.
    fn is_quiet(
        &mut self,
        now: Instant,
        settings: &Settings,
        facts: &impl Facts,
        rng: &mut impl Rng,
    ) -> bool {
        let hours = &settings.throughput.quiet_hours;
        if hours.is_empty() {
            self.in_quiet_hours = false;
            return false;
        }
        let length_ns = run::BESIDE_LOAD_NS + settings.throughput.seconds * 1_000_000_000;
        let length_ns = i64::try_from(length_ns).unwrap_or(i64::MAX);
        let Some(wall_ns) = facts.wall_ns() else {
            self.waits = Some("the clock is not set, and nobody knows when quiet hours are".into());
            self.next = Some(now + POSTPONED);
            return true;
        };
        if is_quiet(hours, &settings.zone, wall_ns, length_ns) {
            self.waits = Some("quiet hours".into());
            self.in_quiet_hours = true;
            self.next = Some(now + POSTPONED);
            return true;
        }
        self.waits = None;
        if std::mem::take(&mut self.in_quiet_hours) {
            let every_ns = settings.throughput.every_ns.unwrap_or(AFTER_PAUSE_NS);
            self.next = Some(now + random(every_ns.min(AFTER_PAUSE_NS), rng));
            return true;
        }
        false
    }

    /// Whose turn it is, of those whose budget allows a test and whose line was not in use just now.
    fn choose(
        &mut self,
        now: Instant,
        paths: &[Path],
        settings: &Settings,
        facts: &mut impl Facts,
    ) -> Result<Choice, String> {
        let spent = facts
            .spent()
            .map_err(|why| format!("what the month's tests have moved cannot be read: {why}"))?;
        self.of_uplinks.clear();
        self.again = self.again.take().filter(|a| now < a.until);
        let again = self.again.as_ref().map(|a| a.path.clone());
        let mut soonest: Option<Duration> = None;
        let mut best: Option<(Option<Duration>, Due)> = None;
        let mut repeated: Option<Due> = None;
        for path in paths {
            let budget = settings.budget(path);
            let of_uplink = spent.iter().filter(|s| s.interface == path.interface);
            let is_again = again.as_ref() == Some(&key(path));
            let checked = if is_again {
                budget.left(of_uplink.clone())
            } else {
                budget.check(of_uplink.clone())
            };
            let sees = settings.sees_household(&path.interface);
            let sees = sees.unwrap_or_else(|| facts.is_router());
            let counted = facts.counters(path.index).is_some();
            let caveat = match (settings.throughput.skip_when_busy, counted, sees) {
                (true, false, _) => Some(UNCOUNTED),
                (true, true, false) => Some(UNSEEN),
                _ => None,
            };
            let busy_until = self.busy_until.get(&path.interface).copied();
            *self.uplink(&path.interface) = Uplink {
                budget_bytes: budget.all.unwrap_or(0),
                probe_bytes: budget.probes,
                spent_bytes: of_uplink.map(|s| s.bytes).sum(),
                // Until the next look at the line says otherwise.
                waits: busy_until.map(|_| IN_USE.into()),
                caveat,
            };
            let busy_for = busy_until
                .filter(|until| now < *until)
                .map(|until| until.saturating_duration_since(now));
            let most_bytes = match (checked, busy_for) {
                (Err(held), _) => {
                    self.uplink(&path.interface).waits = Some(held.why);
                    let lasts = held.for_ns.map(Duration::from_nanos);
                    soonest = soonest.into_iter().chain(lasts).min();
                    continue;
                }
                (Ok(_), Some(lasts)) => {
                    soonest = soonest.into_iter().chain([lasts]).min();
                    continue;
                }
                (Ok(most_bytes), None) => most_bytes,
            };
            let due = Due {
                path: path.clone(),
                turn: Turn::Up,
                most_bytes,
            };
            if is_again {
                repeated = Some(due);
                continue;
            }
            // How long ago it had its turn; `None`: never, which is longest.
            let ago = match self.tried.get(&key(path)) {
                Some(tried) => Some(now.saturating_duration_since(tried.at)),
                // By a clock that was wrong: nobody knows, and it may have been just now.
                None => turns(&spent, path)
                    .next()
                    .map(|s| Duration::from_nanos(s.age_ns.unwrap_or(0))),
            };
            let longer = |than: &Option<Duration>| match (ago, than) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(a), Some(b)) => a > *b,
            };
            if best.as_ref().is_none_or(|(than, ..)| longer(than)) {
                best = Some((ago, due));
            }
        }
        let Some(due) = repeated.or(best.map(|(_, due)| due)) else {
            return Ok(Choice::None(soonest));
        };
        let key = key(&due.path);
        // A test that failed leaves nothing in the store, and has had its turn all the same.
        let last = self.tried.get(&key).map_or_else(
            || {
                let mut last = turns(&spent, &due.path).map(|s| s.scheduled);
                [last.next().flatten(), last.next().flatten()]
            },
            |tried| tried.turns,
        );
        let again = self.again.as_ref().filter(|a| a.path == key);
        let turn = again.map_or_else(
            || Turn::after(last, settings.throughput.udp),
            |again| again.turn,
        );
        Ok(Choice::Test {
            due: Due { turn, ..due },
            last: last[0],
        })
    }
}

const IN_USE: &str = "the line is in use";
const UNCOUNTED: &str = "skip_when_busy cannot work: the counters of the interface cannot be read, and tests run whether \
     or not the line is in use";
const UNSEEN: &str = "skip_when_busy sees this host's own traffic only: a test may run while somebody else uses the \
     line (sees_household = \"yes\" where the interface carries everybody's traffic)";

/// Scheduled tests of a path, the latest first.
fn turns<'a>(spent: &'a [Spent], path: &'a Path) -> impl Iterator<Item = &'a Spent> {
    of_path(spent, path).rev()
}

/// The same, the oldest first.
fn of_path<'a>(spent: &'a [Spent], path: &'a Path) -> impl DoubleEndedIterator<Item = &'a Spent> {
    spent.iter().filter(|s| {
        s.scheduled.is_some() && s.interface == path.interface && s.reflector == path.reflector
    })
}

fn key(path: &Path) -> Key {
    (path.interface.clone(), path.reflector.clone())
}

/// Until the next test of a path in the same direction, twice, for it may be late: each interval is up to a
/// fifth longer than it is configured, or as long as the budget has it, all paths take turns, and of a round
/// one is downward. Quiet hours come on top.
fn speaks_for_ns(paths: &[Path], path: &Path, gap_ns: u64, throughput: &Throughput) -> u64 {
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let every_ns = throughput.every_ns.unwrap_or(0);
    let in_turn_ns = every_ns
        .saturating_add(every_ns / 5)
        .saturating_mul(count(paths.len()));
    let here = paths.iter().filter(|p| p.interface == path.interface);
    let as_paid_ns = gap_ns.saturating_mul(count(here.count()));
    let round_ns = in_turn_ns
        .max(as_paid_ns)
        .saturating_mul(count(Turn::round(throughput.udp)));
    let quiet_ns = if throughput.quiet_hours.is_empty() {
        0
    } else {
        DAY_NS
    };
    round_ns.saturating_mul(2).saturating_add(quiet_ns)
}

fn random(below_ns: u64, rng: &mut impl Rng) -> Duration {
    Duration::from_nanos(rng.next_u64() % below_ns.max(1))
}

/// Whether an interface whose counters were so carries more than a little beside this host's probes, which move
/// `probe_bytes` in a month, both ways.
fn is_busy(before: (u64, u64), after: (u64, u64), time: Duration, probe_bytes: u64) -> bool {
    let ns = time.as_nanos().max(1);
    let probes = u128::from(probe_bytes / 2) * 8_000_000_000 / u128::from(MONTH_NS);
    let most = u128::from(BUSY_BPS) + probes;
    let rate = |a: u64, b: u64| u128::from(b.wrapping_sub(a)) * 8_000_000_000 / ns;
    rate(before.0, after.0) > most || rate(before.1, after.1) > most
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
