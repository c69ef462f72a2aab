//! What of the configuration concerns tests.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::tz::TimeZone;

use super::Path;
use super::budget::Budget;
use crate::config::{Config, Throughput};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) throughput: Throughput,
    /// Decides what quiet hours are.
    pub(crate) zone: TimeZone,
    /// Holds the tests of the month.
    pub(crate) store: PathBuf,
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
            uplinks: uplinks.collect(),
        }
    }
}

impl Settings {
    /// The month's bytes of a path's uplink.
    pub(super) fn budget(&self, path: &Path) -> Budget {
        let own = self.uplink(&path.interface).monthly_budget_bytes;
        let general = (!path.cellular).then_some(self.throughput.monthly_budget_bytes);
        Budget {
            all: own.or(general),
            probes: path.probe_bytes,
        }
    }

    /// Whether an interface's counters show everybody's traffic, where the configuration says so.
    pub(super) fn sees_household(&self, interface: &str) -> Option<bool> {
        self.uplink(interface).sees_household
    }

    fn uplink(&self, interface: &str) -> Uplink {
        self.uplinks.get(interface).copied().unwrap_or_default()
    }
}
