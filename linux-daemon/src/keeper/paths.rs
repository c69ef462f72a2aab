//! Where reflectors are reached, for throughput tests.

use std::collections::BTreeMap;

use bufferbane_linux_io::netlink::{Interface, InterfaceKind};

use super::Keeper;
use crate::load::{MONTH_NS, Path};
use crate::plan::Probe;
use crate::sizes;

impl Keeper {
    /// Says through which interfaces which reflectors are reached.
    pub(super) fn publish_paths(&self, interfaces: &[Interface]) {
        let mut probe_bytes: BTreeMap<&str, u64> = BTreeMap::new();
        for (w, _) in self.units.iter().filter(|(_, kept)| kept.open.is_some()) {
            let bytes = probe_bytes.entry(&w.interface).or_default();
            *bytes = bytes.saturating_add(w.bytes_in(MONTH_NS));
            if !matches!(w.probe, Probe::Service(_)) {
                *bytes = bytes.saturating_add(sizes::MONTH_BYTES);
            }
        }
        let paths = self.units.iter().filter_map(|(w, kept)| match &w.probe {
            Probe::Reflector { key, .. } => {
                let found = interfaces.iter().find(|i| i.name == w.interface);
                let kind = w.kind.or(found.map(|i| i.kind));
                let configured = self.config.reflectors.iter().find(|r| r.name == w.target);
                Some(Path {
                    interface: w.interface.clone(),
                    index: kept.open?,
                    source: w.source,
                    mark: w.mark,
                    cellular: kind == Some(InterfaceKind::Cellular),
                    probe_bytes: probe_bytes.get(w.interface.as_str()).copied().unwrap_or(0),
                    reflector: w.target.clone(),
                    remote: w.remote,
                    key: key.key().clone(),
                    tcp_prefix: configured.and_then(|r| r.tcp_prefix),
                })
            }
            Probe::Icmp { .. } | Probe::Stamp(_) | Probe::Service(_) => None,
        });
        let mut paths: Vec<Path> = paths.collect();
        let configured = &self.config.reflectors;
        // The first that can makes a test that names none.
        paths.sort_by_key(|p| configured.iter().position(|r| r.name == p.reflector));
        if let Ok(mut place) = self.paths.lock() {
            *place = paths;
        }
    }
}
