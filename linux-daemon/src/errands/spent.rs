//! What errands have sent in the last month, by interface: budgets count it.

use std::collections::BTreeMap;

use bufferbane_core::time::Monotonic;

use crate::load::MONTH_NS;

const DAY_NS: u64 = 86_400_000_000_000;

/// See the module: by day since boot and interface.
#[derive(Debug)]
pub(crate) struct Spent(BTreeMap<(u64, String), u64>);

impl Spent {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// So many bytes more were sent.
    pub(crate) fn add(&mut self, now: Monotonic, interface: &str, bytes: u64) {
        let key = (now.as_nanos() / DAY_NS, interface.to_owned());
        let sum = self.0.entry(key).or_default();
        *sum = sum.saturating_add(bytes);
    }

    /// Bytes of the last 30 days, and of up to one more.
    pub(crate) fn month(&mut self, now: Monotonic) -> BTreeMap<String, u64> {
        let first = now.saturating_sub(MONTH_NS).as_nanos() / DAY_NS;
        self.0.retain(|(day, _), _| *day >= first);
        let mut month = BTreeMap::<String, u64>::new();
        for ((_, interface), bytes) in &self.0 {
            let sum = month.entry(interface.clone()).or_default();
            *sum = sum.saturating_add(*bytes);
        }
        month
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_counts_for_thirty_days_by_interface() {
        let mut spent = Spent::new();
        let at = |day: u64| Monotonic::from_nanos(day * DAY_NS);
        spent.add(at(1), "eth0", 5);
        spent.add(at(1), "wwan0", 7);
        spent.add(at(20), "eth0", 11);
        let month = |spent: &mut Spent, day| spent.month(at(day)).into_iter().collect::<Vec<_>>();
        let of = |name: &str, bytes| (name.to_owned(), bytes);
        assert_eq!(month(&mut spent, 31), [of("eth0", 16), of("wwan0", 7)]);
        assert_eq!(month(&mut spent, 32), [of("eth0", 11)]);
        assert_eq!(month(&mut spent, 51), []);
    }
}
