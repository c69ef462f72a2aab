//! Which ways and hosts show what is wrong.

use std::net::IpAddr;

use bufferbane_core::look::INTERVAL_NS;
use bufferbane_store::{Event, SeriesKind};
use serde_json::Value;

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

/// 4 or 6, where something is of that one alone: what is of the other says nothing of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfFamily(Option<u64>);

impl OfFamily {
    /// That of an event.
    pub(super) fn of(event: &Event) -> Self {
        Self(event.values.get("family").and_then(Value::as_u64))
    }

    /// Whether who has this address may show it.
    pub(super) fn has(self, address: IpAddr) -> bool {
        let family = if address.is_ipv4() { 4 } else { 6 };
        self.0.is_none_or(|f| f == family)
    }

    /// The same of who is pinged: one in the house is one host, whichever family that is over.
    pub(super) fn has_or_is_near(self, address: IpAddr) -> bool {
        self.has(address) || !watch::is_far_at(SeriesKind::Icmp, address)
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    interface: &'a str,
    target: Option<&'a str>,
    family: OfFamily,
    shown: Shown,
}

impl<'a> About<'a> {
    /// All that an interface leads to.
    pub(super) const fn all(interface: &'a str, shown: Shown) -> Self {
        Self {
            interface,
            target: None,
            family: OfFamily(None),
            shown,
        }
    }

    /// What an event tells of.
    pub(super) fn event(event: &'a Event, shown: Shown) -> Self {
        Self {
            interface: &event.interface,
            target: event.target.as_deref(),
            family: OfFamily::of(event),
            shown,
        }
    }

    /// Whether a way through its interface to this address may show it.
    pub(super) fn is_of_family(&self, address: IpAddr) -> bool {
        self.family.has(address)
    }

    /// Less is more likely to show what is wrong: who shows it, then the target, and farther ones before those at
    /// addresses of a household.
    fn rank(&self, key: &Key, of: &Target) -> (bool, bool, bool) {
        let shows = match self.shown {
            Shown::Anybody => false,
            Shown::Series(series) => of.series.contains_key(&series),
            Shown::Host(address) => key.2 == address,
        };
        let far = bufferbane_core::path::is_providers(key.2, None);
        (!shows, self.target != Some(key.1.as_str()), !far)
    }
}

impl Walks {
    fn through(&self, interface: &str) -> impl Iterator<Item = (&Key, &Target)> {
        self.targets.iter().filter(move |(k, _)| k.0 == interface)
    }

    /// The ways that may show it.
    fn of(&self, about: About<'_>) -> impl Iterator<Item = (&Key, &Target)> {
        let through = self.through(about.interface);
        through.filter(move |(k, _)| about.is_of_family(k.2))
    }

    /// The way that most likely shows what is wrong: to who shows it, pinged or not, else to the target, else any
    /// through the interface.
    pub(super) fn worst(&self, about: About<'_>) -> Option<Key> {
        if let Shown::Host(address) = about.shown
            && self.of(about).all(|(k, _)| k.2 != address)
        {
            let name = about
                .target
                .map_or_else(|| address.to_string(), str::to_owned);
            return Some((about.interface.to_owned(), name, address));
        }
        let best = self.of(about).min_by_key(|(k, t)| about.rank(k, t));
        best.map(|(key, _)| key.clone())
    }

    /// Hosts that quick echoes show more of than their probes do: the one that most likely shows what is wrong, and
    /// the gateway before it.
    pub(super) fn concerned(&self, about: About<'_>) -> Vec<Wanted> {
        let Some(worst) = self.worst(about) else {
            return Vec::new();
        };
        let is_pinged = |(_, t): &(&Key, &Target)| t.is_pinged();
        let is_slow = self.targets.get(&worst).is_none_or(Target::is_slow);
        // Who is not pinged may well answer no echo at all. Another name of the same host is the next best.
        let shows = self.of(about).filter(is_pinged);
        let shows = shows.min_by_key(|(k, t)| (k.2 != worst.2, about.rank(k, t)));
        let shows = shows.filter(|_| is_slow);
        let first_hop = |key: &Key| {
            let ways = self.targets.values().filter_map(|t| t.ways.now());
            let mut firsts = ways.filter_map(|k| k.path.hops.first());
            firsts.any(|hop| hop.addresses.contains(&key.2))
        };
        // It is one host, whichever family it is pinged over.
        let near = self.through(about.interface).filter(is_pinged);
        let near = near.filter(|(k, _)| !watch::is_far_at(SeriesKind::Icmp, k.2));
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
