//! What others carried on the line of a test meanwhile: the interface's counters, less what was the test's.

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::netlink::Netlink;
use bufferbane_store::Direction;

use super::{MONTH_NS, Path};

/// Between two looks, ns.
const APART_NS: u64 = 100_000_000;

/// What had been carried when it was looked at, bytes of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: Monotonic,
    /// By the interface, up and down.
    pub(super) all: [u64; 2],
    /// By the test's streams and probes.
    pub(super) own: [u64; 2],
}

/// See the module.
pub(super) struct Others {
    netlink: Option<Netlink>,
    interface: u32,
    /// What other probes through the interface move each way in a month, bytes.
    probe_bytes: u64,
    marks: Vec<Mark>,
}

impl Others {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            netlink: Netlink::open().ok(),
            interface: path.index,
            probe_bytes: path.probe_bytes / 2,
            marks: Vec::new(),
        }
    }

    /// Whether it is time for another look.
    pub(super) fn is_due(&self, now: Monotonic) -> bool {
        let last = self.marks.last();
        last.is_none_or(|last| now.saturating_since(last.at) >= APART_NS)
    }

    /// Looks at `now`, when the test has carried `own` so far.
    pub(super) fn look(&mut self, now: Monotonic, own: [u64; 2]) {
        let netlink = self.netlink.as_mut();
        let Some(c) = netlink.and_then(|n| n.counters(self.interface).ok()) else {
            return;
        };
        self.marks.push(Mark {
            at: now,
            all: [c.tx_bytes, c.rx_bytes],
            own,
        });
    }

    /// What others carried in a direction from `from` on, bit/s; `None` where nobody looked twice, or the interface is
    /// another one.
    pub(super) fn bps(&self, direction: Direction, from: Monotonic) -> Option<u64> {
        let (a, b) = (
            self.marks.iter().find(|m| m.at >= from)?,
            self.marks.last()?,
        );
        let way = usize::from(direction == Direction::Down);
        let ns = u128::from(b.at.saturating_since(a.at));
        let all = b.all[way].checked_sub(a.all[way])?;
        let own = b.own[way].saturating_sub(a.own[way]);
        let probes = u128::from(self.probe_bytes) * ns / u128::from(MONTH_NS);
        let others = u128::from(all.saturating_sub(own)).saturating_sub(probes);
        u64::try_from((others * 8_000_000_000).checked_div(ns)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tests::path;

    fn others(marks: &[(u64, [u64; 2], [u64; 2])]) -> [Option<u64>; 2] {
        let mut path = path("eth0", "vienna");
        // 100 bytes a second each way.
        path.probe_bytes = 200 * (MONTH_NS / 1_000_000_000);
        let mut others = Others::new(&path);
        let at = |s: u64| Monotonic::from_nanos(s * 1_000_000_000);
        others.marks.extend(marks.iter().map(|(s, all, own)| Mark {
            at: at(*s),
            all: *all,
            own: *own,
        }));
        [Direction::Up, Direction::Down].map(|way| others.bps(way, at(5)))
    }

    #[test]
    fn others_carried_what_was_neither_of_the_test_nor_of_probes() {
        let first = (5, [7_000, 900], [4_000, 300]);
        let last = (
            15,
            [7_000 + 30_000, 900 + 5_000],
            [4_000 + 20_000, 300 + 6_000],
        );
        let between = (9, [8_000, 901], [4_001, 300]);
        // Of 30 kB in ten seconds twenty were the test's and one its daemon's probes.
        let found = [Some(9_000 * 8 / 10), Some(0)];
        assert_eq!(others(&[first, last]), found);
        assert_eq!(others(&[first, between, last]), found);
        // While streams were finding their rate.
        let before = (4, [0; 2], [0; 2]);
        assert_eq!(others(&[before, first, last]), found);
        // One look is none, and counters that run backwards are those of another interface.
        assert_eq!(others(&[]), [None; 2]);
        assert_eq!(others(&[first]), [None; 2]);
        let anew = (15, [30_000, 10], [24_000, 300]);
        assert_eq!(others(&[first, anew])[1], None);
    }

    #[test]
    fn what_the_test_carried_is_not_others() {
        let mut path = path("lo", "vienna");
        path.index = 1;
        let mut others = Others::new(&path);
        let at = Monotonic::from_nanos;
        assert!(others.is_due(at(0)));
        others.look(at(1), [0; 2]);
        assert!(!others.is_due(at(APART_NS)) && others.is_due(at(APART_NS + 1)));
        others.look(at(1_000_000_001), [u64::MAX; 2]);
        assert_eq!(others.bps(Direction::Up, at(0)), Some(0));
    }
}
