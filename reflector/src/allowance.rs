//! What each client's throughput tests may do, and what they have used up of it.

use std::collections::HashMap;

use bufferbane_core::time::Monotonic;

use crate::config::Client;

/// A client's bytes count for this long, ns.
const DAY_NS: u64 = 24 * 3_600_000_000_000;

/// What a client may do here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Its name.
    pub(crate) name: String,
    /// How fast its tests may be in each direction, bit/s; `None` is any rate.
    pub(crate) max_rate_bps: Option<u64>,
    /// How many bytes its tests may move in 24 hours; `None` is any number.
    pub(crate) daily_bytes: Option<u64>,
}

/// The clients' allowances.
pub(crate) fn allowances(clients: &[Client]) -> Vec<Allowance> {
    let one = |c: &Client| Allowance {
        name: c.name.clone(),
        max_rate_bps: c.max_rate_bps,
        daily_bytes: c.daily_bytes,
    };
    clients.iter().map(one).collect()
}

/// The bytes that tests have moved, by client's name: since when they count, and how many they are.
#[derive(Debug, Default)]
pub(crate) struct Spent(HashMap<String, (Monotonic, u64)>);

impl Spent {
    /// How many bytes a client has left of its day; `None` is any number.
    pub(crate) fn left(&self, now: Monotonic, allowance: &Allowance) -> Option<u64> {
        let daily = allowance.daily_bytes?;
        let spent = self.0.get(&allowance.name);
        let counts = spent.filter(|(since, _)| now.saturating_since(*since) < DAY_NS);
        Some(daily.saturating_sub(counts.map_or(0, |(_, bytes)| *bytes)))
    }

    /// A test of this client has moved `bytes`.
    pub(crate) fn add(&mut self, now: Monotonic, name: &str, bytes: u64) {
        let spent = self.0.entry(name.to_owned()).or_insert((now, 0));
        if now.saturating_since(spent.0) >= DAY_NS {
            *spent = (now, 0);
        }
        spent.1 = spent.1.saturating_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_for_a_day_from_the_first_on() {
        let allowance = |daily_bytes| Allowance {
            name: "home".into(),
            max_rate_bps: None,
            daily_bytes,
        };
        let at = |ns| Monotonic::from_nanos(5 + ns);
        let mut spent = Spent::default();
        let thousand = allowance(Some(1000));
        assert_eq!(spent.left(at(0), &thousand), Some(1000));
        spent.add(at(0), "home", 600);
        spent.add(at(DAY_NS - 1), "home", 399);
        spent.add(at(DAY_NS - 1), "office", 5000);
        assert_eq!(spent.left(at(DAY_NS - 1), &thousand), Some(1));
        spent.add(at(DAY_NS - 1), "home", 2);
        assert_eq!(spent.left(at(DAY_NS - 1), &thousand), Some(0));
        assert_eq!(spent.left(at(DAY_NS - 1), &allowance(None)), None);
        assert_eq!(spent.left(at(DAY_NS), &thousand), Some(1000));
        spent.add(at(DAY_NS), "home", 7);
        assert_eq!(spent.left(at(2 * DAY_NS - 1), &thousand), Some(993));
    }
}
