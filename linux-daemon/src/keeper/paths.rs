//! Where reflectors are reached, for throughput tests, how packets leave through each uplink, and what the month's
//! budgets leave for close looks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bufferbane_core::stamp::Subnet;
use bufferbane_linux_io::netlink::{Interface, InterfaceKind};

use super::Keeper;
use crate::load::{MONTH_NS, Path};
use crate::plan::{Probe, Wanted};
use crate::sizes;
use crate::status::{Status, UplinkStatus};

/// What is sent beside probes, by interface, bytes.
#[derive(Debug, Default)]
struct Beside {
    /// What searches for the largest packets that pass have sent in the last 30 days.
    searched: BTreeMap<String, u64>,
    /// What close looks have.
    looked: BTreeMap<String, u64>,
    /// What tests that run by themselves have moved, both ways.
    tested: BTreeMap<String, u64>,
}

impl Beside {
    fn of(status: &Status) -> Self {
        let tests = status.scheduled_tests.iter();
        Self {
            searched: status.size_search_month_bytes.clone(),
            looked: status.close_look_month_bytes.clone(),
            tested: tests
                .map(|t| (t.interface.clone(), t.spent_bytes))
                .collect(),
        }
    }
}

impl Keeper {
    /// Says through which interfaces which reflectors are reached, and what budgets leave for close looks.
    pub(super) fn publish_paths(&self, interfaces: &[Interface]) {
        let beside = self.status.lock().map(|s| Beside::of(&s));
        let beside = beside.unwrap_or_default();
        let open = self.units.iter().filter(|(_, kept)| kept.open.is_some());
        let probe_bytes = month_bytes(open.map(|(w, _)| w), &beside);
        let kind = |w: &Wanted| {
            let found = interfaces.iter().find(|i| i.name == w.interface);
            w.kind.or(found.map(|i| i.kind))
        };
        let rooms = self.units.keys().map(|w| {
            let is_cellular = kind(w) == Some(InterfaceKind::Cellular);
            let all = self.config.month_bytes(&w.interface, is_cellular);
            let of = |sums: &BTreeMap<String, u64>| sums.get(&w.interface).copied().unwrap_or(0);
            let probes = probe_bytes.get(w.interface.as_str()).copied().unwrap_or(0);
            let used = probes.saturating_add(of(&beside.tested));
            (w.interface.clone(), all.unwrap_or(0).saturating_sub(used))
        });
        let rooms = rooms.collect();
        let uplinks = uplinks(self.units.keys(), kind);
        if let Ok(mut status) = self.status.lock() {
            status.close_look_rooms = rooms;
            status.uplinks = uplinks;
        }
        let paths = self.units.iter().filter_map(|(w, kept)| match &w.probe {
            Probe::Reflector { key, .. } => {
                let uplink = self
                    .config
                    .interfaces
                    .iter()
                    .find(|u| u.name == w.interface);
                let reflector = self.config.reflectors.iter().find(|r| r.name == w.target);
                let said = [
                    uplink.and_then(|u| u.tcp_prefix),
                    reflector.and_then(|r| r.tcp_prefix),
                ];
                // What is said of IPv4 says nothing of IPv6.
                let is_meant = |p: &Subnet| p.address.is_ipv4() == w.remote.is_ipv4();
                Some(Path {
                    interface: w.interface.clone(),
                    index: kept.open?,
                    source: w.source,
                    mark: w.mark,
                    cellular: kind(w) == Some(InterfaceKind::Cellular),
                    probe_bytes: probe_bytes.get(w.interface.as_str()).copied().unwrap_or(0),
                    reflector: w.target.clone(),
                    remote: w.remote,
                    key: key.key().clone(),
                    tcp_prefix: said.into_iter().flatten().find(is_meant),
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

/// How packets leave through each uplink of what is `probed`, which is ordered by uplink.
fn uplinks<'a>(
    probed: impl Iterator<Item = &'a Wanted>,
    kind: impl Fn(&Wanted) -> Option<InterfaceKind>,
) -> Vec<UplinkStatus> {
    let mut all: Vec<UplinkStatus> = Vec::new();
    for w in probed {
        if all.last().is_none_or(|u| u.interface != w.interface) {
            all.push(UplinkStatus {
                interface: w.interface.clone(),
                kind: kind(w).map_or("unknown", InterfaceKind::as_str),
                source: w.source,
                mark: w.mark,
            });
        }
    }
    all
}

/// What probes move through each interface in a month, bytes, and searches for the largest packets that pass: as on
/// ways that are well, or twice (there and back) what they have sent, where that was more; and close looks, as they have.
fn month_bytes<'a>(
    probed: impl Iterator<Item = &'a Wanted>,
    beside: &Beside,
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
        let sent = |sums: &BTreeMap<String, u64>| sums.get(*interface).copied().unwrap_or(0);
        let searched = well.max(sent(&beside.searched).saturating_mul(2));
        let looked = sent(&beside.looked).saturating_mul(2);
        *bytes = bytes.saturating_add(searched.saturating_add(looked));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::session::client::MORE_SIZES;

    fn wanted(interface: &str, remote: &str, size: u16) -> Wanted {
        Wanted {
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
        }
    }

    #[test]
    fn an_uplink_is_told_once_however_much_is_probed_through_it() {
        let marked = |remote: &str| Wanted {
            source: Some([10, 0, 0, 7].into()),
            mark: Some(5),
            ..wanted("wg0", remote, 64)
        };
        let probed = [
            wanted("eth0", "192.168.1.1:0", 64),
            wanted("eth0", "192.0.2.1:0", 64),
            marked("192.0.2.1:0"),
            marked("192.0.2.2:0"),
        ];
        let kind = |w: &Wanted| (w.interface == "wg0").then_some(InterfaceKind::Tunnel);
        let found = uplinks(probed.iter(), kind);
        let found: Vec<_> = found
            .iter()
            .map(|u| (u.interface.as_str(), u.kind, u.source, u.mark))
            .collect();
        let source = Some([10, 0, 0, 7].into());
        assert_eq!(
            found,
            [
                ("eth0", "unknown", None, None),
                ("wg0", "tunnel", source, Some(5))
            ]
        );
    }

    #[test]
    fn searches_and_looks_count_where_there_are_any_and_as_much_as_they_send() {
        let probed = [
            // The gateway, and two series of one way.
            wanted("eth0", "192.168.1.1:0", 64),
            wanted("eth0", "192.0.2.1:0", 64),
            wanted("eth0", "192.0.2.1:0", 1000),
            wanted("wwan0", "192.0.2.1:0", 64),
        ];
        let beside = Beside {
            searched: BTreeMap::from([("wwan0".to_owned(), 20 << 20), ("eth0".to_owned(), 5)]),
            looked: BTreeMap::from([("wwan0".to_owned(), 1 << 20)]),
            tested: BTreeMap::new(),
        };
        let all = month_bytes(probed.iter(), &beside);
        let probes = |of: &str| -> u64 {
            let own = probed.iter().filter(|w| w.interface == of);
            own.map(|w| w.bytes_in(MONTH_NS)).sum()
        };
        assert_eq!(all["eth0"], probes("eth0") + sizes::MONTH_BYTES);
        assert_eq!(all["wwan0"], probes("wwan0") + (42 << 20));
    }
}
