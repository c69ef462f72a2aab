//! By way of whom packets leave: the default routes of each family, and the gateways of interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bufferbane_linux_io::Family;
use bufferbane_linux_io::netlink::{Interface, Route};
use bufferbane_store::Severity;

use crate::plan::default_route;
use crate::recorder::Fact;

/// Where a default route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hop {
    interface: String,
    /// `None` where all the world is on the link.
    gateway: Option<IpAddr>,
}

impl Hop {
    fn of(route: &Route, interfaces: &[Interface]) -> Option<Self> {
        let interface = interfaces.iter().find(|i| i.index == route.interface)?;
        Some(Self {
            interface: interface.name.clone(),
            gateway: route.gateway,
        })
    }

    fn gateway(&self) -> String {
        self.gateway
            .map_or_else(|| "no gateway".to_owned(), |g| g.to_string())
    }
}

/// What there was when it was looked at last. What is gone, and may be back in a moment, is remembered.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    /// The host's own default routes.
    host: BTreeMap<Family, Hop>,
    /// The best ones of each interface.
    interfaces: BTreeMap<(String, Family), Hop>,
}

impl Gateways {
    /// The interfaces that the host's default routes of IPv4 and of IPv6 leave by, or did when there were some.
    pub(super) fn left_by(&self) -> [Option<&str>; 2] {
        let by = |family| self.host.get(&family).map(|hop| hop.interface.as_str());
        [Family::V4, Family::V6].map(by)
    }

    /// What has become another, as events: the interface that a default route of the host leaves by, or the gateway of
    /// one of the interfaces that are `probed`.
    pub(super) fn news(
        &mut self,
        interfaces: &[Interface],
        routes: &[Route],
        probed: &BTreeSet<&String>,
    ) -> Vec<Fact> {
        let mut news = Vec::new();
        for family in [Family::V4, Family::V6] {
            let before = self.host.get(&family);
            let mut told = None;
            if let Some(now) = best(routes, interfaces, family, before)
                && let Some(before) = self.host.insert(family, now.clone())
                && before.interface != now.interface
            {
                news.push(moved(family, &before, &now));
                told = Some(now);
            }
            for i in interfaces.iter().filter(|i| probed.contains(&i.name)) {
                let own = routes.iter().filter(|r| r.interface == i.index);
                let own: Vec<Route> = own.copied().collect();
                let key = (i.name.clone(), family);
                let before = self.interfaces.get(&key);
                if let Some(now) = best(&own, interfaces, family, before)
                    && let Some(before) = self.interfaces.insert(key, now.clone())
                    && before.gateway != now.gateway
                    && told.as_ref() != Some(&now)
                {
                    news.push(replaced(family, &before, &now));
                }
            }
        }
        news
    }
}

/// Where the best default route of a family leads: of several that are as good, where it led before.
fn best(
    routes: &[Route],
    interfaces: &[Interface],
    family: Family,
    before: Option<&Hop>,
) -> Option<Hop> {
    let best = default_route(routes, family)?;
    let is_as_good = |r: &&Route| r.family == family && r.rank() == best.rank();
    let all = routes.iter().filter(is_as_good);
    let mut all = all.filter_map(|r| Hop::of(r, interfaces));
    let first = Hop::of(best, interfaces);
    all.find(|hop| Some(hop) == before).or(first)
}

fn moved(family: Family, before: &Hop, now: &Hop) -> Fact {
    let name = family_name(family);
    let text = format!(
        "the {name} default route leaves by {} ({}), before that by {} ({})",
        now.interface,
        now.gateway(),
        before.interface,
        before.gateway()
    );
    fact(family, before, now, text)
}

fn replaced(family: Family, before: &Hop, now: &Hop) -> Fact {
    let name = family_name(family);
    let text = format!(
        "the {name} gateway of {} is {}, before that {}",
        now.interface,
        now.gateway(),
        before.gateway()
    );
    fact(family, before, now, text)
}

fn fact(family: Family, before: &Hop, now: &Hop, text: String) -> Fact {
    let number = if family == Family::V4 { 4 } else { 6 };
    let gateway = |hop: &Hop| hop.gateway.map(|g| g.to_string()).into();
    let mut values = vec![
        ("family", number.into()),
        ("gateway_before", gateway(before)),
        ("gateway_after", gateway(now)),
    ];
    if before.interface != now.interface {
        values.push(("interface_before", before.interface.clone().into()));
    }
    Fact {
        values,
        kind: "route_change",
        severity: Severity::Info,
        interface: now.interface.clone(),
        target: None,
        text,
    }
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{default_route as route, interface};

    /// What is told of each of these in turn, of which `eth0` is probed.
    fn told(turns: &[&[Route]]) -> Vec<Vec<String>> {
        let mut gateways = Gateways::default();
        let eth0 = "eth0".to_owned();
        let probed = BTreeSet::from([&eth0]);
        let interfaces =
            [(2, "eth0"), (3, "wwan0")].map(|(index, name)| interface(index, name, &[]));
        let news = |routes: &&[Route]| gateways.news(&interfaces, routes, &probed);
        let facts: Vec<Vec<Fact>> = turns.iter().map(news).collect();
        let texts = |facts: Vec<Fact>| facts.into_iter().map(|f| f.text).collect();
        facts.into_iter().map(texts).collect()
    }

    #[test]
    fn a_default_route_that_leaves_by_another_interface_is_news_of_its_family() {
        let six = route(3, "fe80::1", 50);
        let own = route(2, "192.0.2.1", 100);
        let spare = route(3, "10.0.0.1", 700);
        let there =
            "the IPv4 default route leaves by wwan0 (10.0.0.1), before that by eth0 (192.0.2.1)";
        let back =
            "the IPv4 default route leaves by eth0 (192.0.2.1), before that by wwan0 (10.0.0.1)";
        let other =
            "the IPv4 default route leaves by eth0 (192.0.2.9), before that by wwan0 (10.0.0.1)";
        let none: &[&str] = &[];
        assert_eq!(
            told(&[
                &[own, spare, six],
                &[spare, six],
                &[own, spare, six],
                // All are gone for a moment.
                &[],
                &[own],
                // As good as the other.
                &[route(3, "10.0.0.1", 100), own, six],
                &[spare],
                // With another gateway, which is told with it.
                &[route(2, "192.0.2.9", 100), spare],
            ]),
            [
                none,
                &[there],
                &[back],
                none,
                none,
                none,
                &[there],
                &[other]
            ]
        );
    }

    #[test]
    fn another_gateway_is_news_each_time_and_the_second_best_is_not() {
        let [a, b] = ["192.0.2.1", "192.0.2.9"].map(|g| route(2, g, 100));
        let b_behind = route(2, "192.0.2.9", 200);
        let six = |g| route(2, g, 1024);
        let to_b = "the IPv4 gateway of eth0 is 192.0.2.9, before that 192.0.2.1";
        let to_a = "the IPv4 gateway of eth0 is 192.0.2.1, before that 192.0.2.9";
        let other = "the IPv6 gateway of eth0 is fe80::2, before that fe80::1";
        let none: &[&str] = &[];
        assert_eq!(
            told(&[
                &[a, b_behind, six("fe80::1")],
                &[b_behind, six("fe80::1")],
                &[a, b_behind, six("fe80::2")],
                &[b],
                &[a, b],
                // That of another interface is its own.
                &[route(3, "10.0.0.1", 700), b, six("fe80::2")],
            ]),
            [none, &[to_b], &[to_a, other], &[to_b], none, none]
        );
    }
}
