//! Where reflectors are reached, for throughput tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bufferbane_linux_io::netlink::{Interface, InterfaceKind};

use super::Keeper;
use crate::load::{MONTH_NS, Path};
use crate::plan::{Probe, Wanted};
use crate::sizes;

impl Keeper {
    /// Says through which interfaces which reflectors are reached.
    pub(super) fn publish_paths(&self, interfaces: &[Interface]) {
        let status = self.status.lock();
        let searched =
            status.map_or_else(|_| BTreeMap::new(), |s| s.size_search_month_bytes.clone());
        let open = self.units.iter().filter(|(_, kept)| kept.open.is_some());
        let probe_bytes = month_bytes(open.map(|(w, _)| w), &searched);
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

/// What probes move through each interface in a month, bytes, and searches for the largest packets that pass: as on
/// ways that are well, or twice (there and back) what they have sent, `searched`, where that was more.
fn month_bytes<'a>(
    probed: impl Iterator<Item = &'a Wanted>,
    searched: &BTreeMap<String, u64>,
) -> BTreeMap<&'a str, u64> {
    let mut all: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ways: BTreeSet<(&str, &str, IpAddr)> = BTreeSet::new();
    for w in probed {
        let bytes = all.entry(&w.interface).or_default();
        *bytes = bytes.saturating_add(w.bytes_in(MONTH_NS));
        let address = w.remote.ip();
        let kind = w.probe.kind();
        if kind.is_some_and(|kind| sizes::is_searched(kind, address)) {
            ways.insert((&w.interface, &w.target, address));
        }
    }
    for (interface, bytes) in &mut all {
        let own = ways.iter().filter(|way| way.0 == *interface);
        let well = own.count() as u64 * sizes::MONTH_BYTES;
        let sent = searched.get(*interface).copied().unwrap_or(0);
        *bytes = bytes.saturating_add(well.max(sent.saturating_mul(2)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::session::client::MORE_SIZES;

    #[test]
    fn searches_count_where_there_are_any_and_as_much_as_they_send() {
        let wanted = |interface: &str, remote: &str, size| Wanted {
            interface: interface.into(),
            kind: None,
            target: "x".into(),
            remote: remote.parse().unwrap(),
            source: None,
            mark: None,
            probe: Probe::Icmp {
                size,
                more_sizes: [0; MORE_SIZES],
                interval_ns: 1_000_000_000,
            },
        };
        let probed = [
            // The gateway, and two series of one way.
            wanted("eth0", "192.168.1.1:0", 64),
            wanted("eth0", "192.0.2.1:0", 64),
            wanted("eth0", "192.0.2.1:0", 1000),
            wanted("wwan0", "192.0.2.1:0", 64),
        ];
        let searched = BTreeMap::from([("wwan0".to_owned(), 20 << 20), ("eth0".to_owned(), 5)]);
        let all = month_bytes(probed.iter(), &searched);
        let probes = |of: &str| -> u64 {
            let own = probed.iter().filter(|w| w.interface == of);
            own.map(|w| w.bytes_in(MONTH_NS)).sum()
        };
        assert_eq!(all["eth0"], probes("eth0") + sizes::MONTH_BYTES);
        assert_eq!(all["wwan0"], probes("wwan0") + (40 << 20));
    }
}
