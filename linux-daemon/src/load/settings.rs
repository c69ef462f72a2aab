//! What of the configuration concerns tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bufferbane_core::train::pacer::When;
use jiff::tz::TimeZone;

use super::Path;
use super::budget::Budget;
use super::turn::Turn;
use crate::config::quiet::is_quiet;
use crate::config::{Config, Throughput};
use crate::train;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) throughput: Throughput,
    /// Decides what quiet hours are.
    pub(crate) zone: TimeZone,
    /// Holds the tests of the month.
    pub(crate) store: PathBuf,
    /// Below this share of what is usual a line carries little.
    pub(super) low_share: f64,
    uplinks: BTreeMap<String, Uplink>,
}

/// What the configuration says of an uplink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Uplink {
    monthly_budget_bytes: Option<u64>,
    sees_household: Option<bool>,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let uplinks = config.interfaces.iter().map(|i| {
            let uplink = Uplink {
                monthly_budget_bytes: i.monthly_budget_bytes,
                sees_household: i.sees_household,
            };
            (i.name.clone(), uplink)
        });
        Self {
            throughput: config.throughput.clone(),
            zone: config.zone(),
            store: config.store.clone(),
            low_share: config.alerts.thresholds.capacity,
            uplinks: uplinks.collect(),
        }
    }
}

impl Settings {
    /// The month's bytes of a path's uplink, as they are left for tests.
    pub(super) fn budget(&self, path: &Path) -> Budget {
        Budget {
            all: self.month_bytes(path),
            probes: path.probe_bytes.saturating_add(self.train_bytes(path)),
            round: Turn::round(self.throughput.udp),
        }
    }

    /// What packet trains may move in a month through a path's uplink, both ways: half of what probes
    /// leave, or a twentieth where they are sent only because of events.
    pub(crate) fn train_bytes(&self, path: &Path) -> u64 {
        let all = self.month_bytes(path).unwrap_or(0);
        let left = all.saturating_sub(path.probe_bytes);
        match self.throughput.trains {
            When::Never => 0,
            When::AtAlarms => left / 20,
            When::Share(_) => left / 2,
        }
    }

    /// Whether no train may be sent at this time, ns since 1970: in quiet hours, or so shortly before them
    /// that it could last into them. Where the clock is not set nobody knows when they are.
    pub(crate) fn is_quiet_for_trains(&self, wall_ns: Option<i64>) -> bool {
        let hours = &self.throughput.quiet_hours;
        !hours.is_empty()
            && wall_ns.is_none_or(|at| is_quiet(hours, &self.zone, at, train::LONGEST_NS))
    }

    fn month_bytes(&self, path: &Path) -> Option<u64> {
        let own = self.uplink(&path.interface).monthly_budget_bytes;
        let general = (!path.cellular).then_some(self.throughput.monthly_budget_bytes);
        own.or(general)
    }

    /// Whether an interface's counters show everybody's traffic, where the configuration says so.
    pub(super) fn sees_household(&self, interface: &str) -> Option<bool> {
        self.uplink(interface).sees_household
    }

    fn uplink(&self, interface: &str) -> Uplink {
        self.uplinks.get(interface).copied().unwrap_or_default()
    }
}
