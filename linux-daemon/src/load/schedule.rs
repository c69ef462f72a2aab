//! When tests run by themselves.

use std::time::{Duration, Instant};

use bufferbane_linux_io::netlink::Netlink;
use rand_core::Rng;

use super::{Kind, Path};
use crate::config::Throughput;

/// A household that moves more than this each way is using the line, bit/s.
const BUSY_BPS: u64 = 500_000;
/// Over how long that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A line in use is looked at again after this.
const POSTPONED: Duration = Duration::from_secs(60);
/// A month, for the budget.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// See the module.
pub(super) struct Schedule {
    next: Option<Instant>,
    /// Counts the tests, so that all ways and both directions have their turn.
    turn: usize,
    /// Bytes of the tests so far, and how many those were.
    bytes: u64,
    tests: u64,
}

impl Schedule {
    /// The first test comes at a random time within the first interval.
    pub(super) fn new(settings: &Throughput, rng: &mut impl Rng) -> Self {
        let next = settings.every_ns.map(|every_ns| {
            let wait_ns = rng.next_u64() % every_ns.max(1);
            Instant::now() + Duration::from_nanos(wait_ns)
        });
        Self {
            next,
            turn: 0,
            bytes: 0,
            tests: 0,
        }
    }

    /// The test that is due, if one is and the line is not in use: upward twice, then downward once,
    /// for each way in turn.
    pub(super) fn due(
        &mut self,
        now: Instant,
        paths: &[Path],
        settings: &Throughput,
        rng: &mut impl Rng,
    ) -> Option<(Path, Kind)> {
        if self.next.is_none_or(|next| now < next) || paths.is_empty() {
            return None;
        }
        let path = &paths[self.turn % paths.len()];
        if settings.skip_when_busy && is_busy(path) {
            self.next = Some(now + POSTPONED);
            return None;
        }
        let kind = match (self.turn / paths.len()) % 3 {
            0 | 1 => Kind::Up,
            _ => Kind::Down,
        };
        self.turn += 1;
        let interval = self.interval(settings)?;
        // Not always at the same minute of the hour.
        let spread_ns = u64::try_from(interval.as_nanos() / 5).unwrap_or(u64::MAX);
        let random = Duration::from_nanos(rng.next_u64() % spread_ns.max(1));
        self.next = Some(now + interval + random);
        Some((path.clone(), kind))
    }

    /// A test moved that many bytes.
    pub(super) fn spent(&mut self, bytes: u64, settings: &Throughput) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.tests += 1;
        if let Some(interval) = self.interval(settings) {
            self.next = self.next.max(Some(Instant::now() + interval));
        }
    }

    /// Between two tests: as configured, and so long that tests like those before last the month.
    fn interval(&self, settings: &Throughput) -> Option<Duration> {
        let every = Duration::from_nanos(settings.every_ns?);
        let mean = self.bytes.checked_div(self.tests).unwrap_or(0);
        let share = mean as f64 / settings.monthly_budget_bytes.max(1) as f64;
        Some(every.max(MONTH.mul_f64(share.min(1.0))))
    }
}

/// Whether the interface carries more than a little just now. Where its counters cannot be read,
/// nobody knows, and the test runs.
fn is_busy(path: &Path) -> bool {
    let read = || {
        Netlink::open()
            .and_then(|mut n| n.counters(path.index))
            .ok()
    };
    let Some(before) = read() else { return false };
    std::thread::sleep(LOOK);
    let Some(after) = read() else { return false };
    let moved = |a: u64, b: u64| b.wrapping_sub(a) * 8 / LOOK.as_secs().max(1);
    moved(before.tx_bytes, after.tx_bytes) > BUSY_BPS
        || moved(before.rx_bytes, after.rx_bytes) > BUSY_BPS
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng;

    #[test]
    fn tests_are_spread_so_that_the_budget_lasts() {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let settings = Throughput {
            every_ns: Some(3_600_000_000_000),
            monthly_budget_bytes: 1 << 30,
            skip_when_busy: false,
            ..Throughput::default()
        };
        let path = Path {
            interface: "lo".into(),
            index: 1,
            reflector: "r".into(),
            remote: ([127, 0, 0, 1], 1).into(),
            key: PresharedKey {
                id: KeyId([0; 8]),
                secret: Secret::new([0; 32]),
            },
        };
        let paths = [path];
        let mut s = Schedule::new(&settings, &mut rng);
        let begin = Instant::now();
        assert!(s.next.unwrap() <= begin + Duration::from_secs(3600));
        let mut now = begin;
        let mut kinds = Vec::new();
        let mut bytes = 0;
        while now < begin + MONTH {
            now += Duration::from_secs(60);
            if let Some((_, kind)) = s.due(now, &paths, &settings, &mut rng) {
                kinds.push(kind);
                bytes += 10 << 20;
                s.bytes += 10 << 20;
                s.tests += 1;
            }
        }
        // 1 GiB in pieces of 10 MiB: about a hundred tests, not one each hour.
        assert!((80..=104).contains(&kinds.len()), "{}", kinds.len());
        assert!(bytes <= 1 << 30);
        assert_eq!(kinds[..3], [Kind::Up, Kind::Up, Kind::Down]);
        let off = Throughput {
            every_ns: None,
            ..settings
        };
        let mut s = Schedule::new(&off, &mut rng);
        assert!(s.due(now + MONTH, &paths, &off, &mut rng).is_none());
    }
}
