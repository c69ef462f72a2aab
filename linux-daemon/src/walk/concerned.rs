//! Which ways and hosts show what is wrong.

use bufferbane_core::look::INTERVAL_NS;
use bufferbane_store::SeriesKind;

use super::close::Wanted;
use super::{Shown, Target, Walks};
use crate::errands::Key;
use crate::watch;

impl Target {
    /// Whether quick echoes show more than its own probes do.
    fn is_slow(&self) -> bool {
        self.series.values().all(|p| p.interval_ns > INTERVAL_NS)
    }

    /// Whether it is known to answer echoes.
    fn is_pinged(&self) -> bool {
        self.series.values().any(|p| p.is_ping)
    }

    fn wanted(&self, key: &Key) -> Wanted {
        let pings = self.series.iter().filter(|(_, p)| p.is_ping);
        Wanted {
            key: key.clone(),
            pings: pings.map(|(index, _)| *index).collect(),
        }
    }
}

/// Less is more likely to show what is wrong: who shows it, then `target`, and farther ones before those at addresses
/// of a household.
fn rank(key: &Key, of: &Target, target: Option<&str>, shown: Shown) -> (bool, bool, bool) {
    let shows = match shown {
        Shown::Anybody => false,
        Shown::Series(series) => of.series.contains_key(&series),
        Shown::Host(address) => key.2 == address,
    };
    let far = bufferbane_core::path::is_providers(key.2, None);
    (!shows, target != Some(key.1.as_str()), !far)
}

impl Walks {
    fn through(&self, interface: &str) -> impl Iterator<Item = (&Key, &Target)> {
        self.targets.iter().filter(move |(k, _)| k.0 == interface)
    }

    /// The way that most likely shows what is wrong: to who shows it, pinged or not, else to the target, else any
    /// through the interface.
    pub(super) fn worst(&self, interface: &str, target: Option<&str>, shown: Shown) -> Option<Key> {
        if let Shown::Host(address) = shown
            && self.through(interface).all(|(k, _)| k.2 != address)
        {
            let name = target.map_or_else(|| address.to_string(), str::to_owned);
            return Some((interface.to_owned(), name, address));
        }
        let best = self
            .through(interface)
            .min_by_key(|(k, t)| rank(k, t, target, shown));
        best.map(|(key, _)| key.clone())
    }

    /// Hosts that quick echoes show more of than their probes do: the one that most likely shows what is wrong, and
    /// the gateway before it.
    pub(super) fn concerned(
        &self,
        interface: &str,
        target: Option<&str>,
        shown: Shown,
    ) -> Vec<Wanted> {
        let Some(worst) = self.worst(interface, target, shown) else {
            return Vec::new();
        };
        let pinged = || self.through(interface).filter(|(_, t)| t.is_pinged());
        let is_slow = self.targets.get(&worst).is_none_or(Target::is_slow);
        // Who is not pinged may well answer no echo at all. Another name of the same host is the next best.
        let shows = pinged().min_by_key(|(k, t)| (k.2 != worst.2, rank(k, t, target, shown)));
        let shows = shows.filter(|_| is_slow);
        let first_hop = |key: &Key| {
            let ways = self.targets.values().filter_map(|t| t.ways.now());
            let mut firsts = ways.filter_map(|k| k.path.hops.first());
            firsts.any(|hop| hop.addresses.contains(&key.2))
        };
        let near = pinged().filter(|(k, _)| !watch::is_far_at(SeriesKind::Icmp, k.2));
        let gateway = near.min_by_key(|(k, _)| {
            let is_family = k.2.is_ipv4() == worst.2.is_ipv4();
            (!is_family, !first_hop(k))
        });
        let mut hosts: Vec<Wanted> = Vec::new();
        for (key, target) in gateway.into_iter().chain(shows) {
            if target.is_slow() && hosts.iter().all(|h| h.key != *key) {
                hosts.push(target.wanted(key));
            }
        }
        hosts
    }
}
