//! The last hour of each series, second by second, for pages that are opened now.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

use crate::status::{Second, SeriesStatus};

/// How much is kept, seconds.
const KEPT: usize = 3600;

/// See the module. Its size is bounded by the number of series.
#[derive(Default)]
pub(crate) struct History {
    series: BTreeMap<String, VecDeque<Second>>,
}

/// What tells a series from others on the page.
pub(crate) fn name(s: &SeriesStatus) -> String {
    format!(
        "{}|{}|{}{}|{}",
        s.interface, s.target, s.kind, s.family, s.address
    )
}

impl History {
    /// One more second of everything that is probed; what is not any more is forgotten.
    pub(crate) fn add(&mut self, series: &[SeriesStatus]) {
        let names: Vec<String> = series.iter().map(name).collect();
        self.series.retain(|n, _| names.contains(n));
        for (name, s) in names.into_iter().zip(series) {
            let seconds = self.series.entry(name).or_default();
            seconds.push_back(s.last_second);
            if seconds.len() > KEPT {
                seconds.pop_front();
            }
        }
    }

    /// By series, oldest first.
    pub(crate) fn to_json(&self) -> Value {
        json!(self.series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_of_what_is_probed() {
        let info = |target: &str| bufferbane_store::SeriesInfo {
            interface: "eth0".into(),
            interface_kind: "wired".into(),
            target: target.into(),
            kind: bufferbane_store::SeriesKind::Icmp,
            family: 4,
            dscp: 0,
            size: 64,
            interval_ns: 1_000_000_000,
            address: "192.0.2.1".into(),
        };
        let (a, b) = (SeriesStatus::new(&info("a")), SeriesStatus::new(&info("b")));
        let mut history = History::default();
        for _ in 0..KEPT + 50 {
            history.add(&[a.clone(), b.clone()]);
        }
        assert_eq!(history.series.len(), 2);
        assert!(history.series.values().all(|s| s.len() == KEPT));
        history.add(std::slice::from_ref(&a));
        assert_eq!(history.series.len(), 1);
    }
}
