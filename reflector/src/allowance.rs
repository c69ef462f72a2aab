//! What each client may move here, and what it has moved of it: counted by the thread that tests and by
//! the one that echoes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bufferbane_core::stamp::Subnet;
use bufferbane_core::time::Monotonic;

use crate::config::Client;

/// A client's bytes count for this long, ns.
const DAY_NS: u64 = 24 * 3_600_000_000_000;

/// What a client may do here.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    /// Its name.
    pub(crate) name: String,
    /// How fast its tests may be in each direction, bit/s; `None` is any rate.
    pub(crate) max_rate_bps: Option<u64>,
    /// How many bytes its tests and trains may move in 24 hours; `None` is any number.
    daily_bytes: Option<u64>,
    /// From where its TCP may come beside where it is.
    pub(crate) tcp_prefixes: Vec<Subnet>,
    day: Arc<Day>,
}

impl Allowance {
    /// How many bytes the client has left of its day; `None` is any number.
    pub(crate) fn left(&self, now: Monotonic) -> Option<u64> {
        let daily = self.daily_bytes?;
        Some(daily.saturating_sub(self.day.spent(now)))
    }

    /// It has moved `bytes`.
    pub(crate) fn spend(&self, now: Monotonic, bytes: u64) {
        self.day.spend(now, bytes);
    }
}

/// One client's bytes. Two threads may count at once; what one of them adds just as the day ends may
/// count for either day.
#[derive(Debug, Default)]
struct Day {
    since_ns: AtomicU64,
    bytes: AtomicU64,
}

impl Day {
    fn is_over(&self, now: Monotonic) -> bool {
        let begun = Monotonic::from_nanos(self.since_ns.load(Ordering::Relaxed));
        now.saturating_since(begun) >= DAY_NS
    }

    fn spent(&self, now: Monotonic) -> u64 {
        if self.is_over(now) {
            0
        } else {
            self.bytes.load(Ordering::Relaxed)
        }
    }

    fn spend(&self, now: Monotonic, bytes: u64) {
        if self.bytes.load(Ordering::Relaxed) == 0 || self.is_over(now) {
            self.since_ns.store(now.as_nanos(), Ordering::Relaxed);
            self.bytes.store(0, Ordering::Relaxed);
        }
        // Wrapping takes a client that moves a hundred terabytes a second.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// All clients' days, by name: a client that a new configuration still has keeps its own.
#[derive(Debug, Default)]
pub(crate) struct Days(BTreeMap<String, Arc<Day>>);

impl Days {
    /// The clients' allowances, in their order.
    pub(crate) fn allowances(&mut self, clients: &[Client]) -> Vec<Allowance> {
        let one = |c: &Client| Allowance {
            name: c.name.clone(),
            max_rate_bps: c.max_rate_bps,
            daily_bytes: c.daily_bytes,
            tcp_prefixes: c.tcp_prefixes.clone(),
            day: Arc::clone(self.0.entry(c.name.clone()).or_default()),
        };
        clients.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(name: &str, daily_bytes: Option<u64>) -> Client {
        Client {
            name: name.into(),
            keys: Vec::new(),
            max_pps: 1,
            max_rate_bps: None,
            daily_bytes,
            tcp_prefixes: Vec::new(),
        }
    }

    #[test]
    fn bytes_count_for_a_day_from_the_first_on() {
        let at = |ns| Monotonic::from_nanos(5 + ns);
        let mut days = Days::default();
        let clients = [client("home", Some(1000)), client("office", None)];
        let [home, office] = &days.allowances(&clients)[..] else {
            panic!("one for each")
        };
        assert_eq!((home.left(at(0)), office.left(at(0))), (Some(1000), None));
        home.spend(at(0), 600);
        home.spend(at(DAY_NS - 1), 399);
        office.spend(at(DAY_NS - 1), 5000);
        assert_eq!(home.left(at(DAY_NS - 1)), Some(1));
        home.spend(at(DAY_NS - 1), 2);
        assert_eq!(home.left(at(DAY_NS - 1)), Some(0));
        assert_eq!(home.left(at(DAY_NS)), Some(1000));
        home.spend(at(DAY_NS), 7);
        assert_eq!(home.left(at(2 * DAY_NS - 1)), Some(993));
    }

    #[test]
    fn a_client_keeps_its_day_when_others_come_and_its_limit_changes() {
        let now = Monotonic::from_nanos(9);
        let mut days = Days::default();
        days.allowances(&[client("home", Some(10))])[0].spend(now, 7);
        let after = days.allowances(&[client("new", Some(9)), client("home", Some(20))]);
        assert_eq!(
            (after[0].left(now), after[1].left(now)),
            (Some(9), Some(13))
        );
    }
}
