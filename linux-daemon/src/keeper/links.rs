//! Interfaces that are probed, as they go down and come up, and get other addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::netlink::{Interface, Route};
use bufferbane_store::Severity;

use super::Keeper;
use crate::plan::Wanted;
use crate::recorder::{Fact, Order};

/// What each interface had of IPv4, and of IPv6, when it last had something new of it.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<String, BTreeSet<String>>);

impl Known {
    /// What `interface` has now, and had before, where it has something now that it had not. What is gone, and may be
    /// back in a moment, is nothing new.
    fn renewed(&mut self, interface: &str, now: BTreeSet<String>) -> Option<[String; 2]> {
        if now.is_empty() {
            return None;
        }
        let Some(known) = self.0.get_mut(interface) else {
            self.0.insert(interface.to_owned(), now);
            return None;
        };
        if now.is_subset(known) {
            return None;
        }
        let before = known.clone();
        // The other family may come a moment later, as it was.
        let renewed: Vec<bool> = now.difference(known).map(|n| is_ipv6(n)).collect();
        known.retain(|name| !renewed.contains(&is_ipv6(name)));
        known.extend(now.iter().cloned());
        Some([&now, &before].map(|names| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            names.join(", ")
        }))
    }
}

/// Whether an address, as it is written, is one of IPv6.
fn is_ipv6(name: &str) -> bool {
    name.contains(':')
}

/// Those that packets may leave from; of IPv6 the networks, because hosts change the rest of it each day by themselves.
fn addresses(interface: &Interface) -> BTreeSet<String> {
    let usable = interface
        .addresses
        .iter()
        .filter(|a| a.usable && !a.link_local);
    let name = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{}/64", std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    };
    usable.map(|a| name(a.ip)).collect()
}

impl Keeper {
    /// Tells when a probed interface has another address or gateway, and when the host's default routes move.
    pub(super) fn note_moves(
        &mut self,
        interfaces: &[Interface],
        routes: &[Route],
        wanted: &[Wanted],
    ) {
        let names: BTreeSet<&String> = wanted.iter().map(|w| &w.interface).collect();
        let probed = interfaces
            .iter()
            .filter(|i| i.up && i.running && names.contains(&i.name));
        let mut news = Vec::new();
        for i in probed {
            if let Some([now, before]) = self.addresses.renewed(&i.name, addresses(i)) {
                news.push(Fact {
                    values: Vec::new(),
                    kind: "address_change",
                    severity: Severity::Info,
                    interface: i.name.clone(),
                    target: None,
                    text: format!("{} has the address {now}, before that {before}", i.name),
                });
            }
        }
        news.extend(self.gateways.news(interfaces, routes, &names));
        for fact in news {
            log::info!("{}", fact.text);
            self.order(Order::Moment(self.seen, fact));
        }
    }

    /// Tells when a probed interface goes or comes.
    pub(super) fn note_links(&mut self, interfaces: &[Interface], wanted: &[Wanted]) {
        let names: BTreeSet<&String> = wanted.iter().map(|w| &w.interface).collect();
        let (mut news, mut still) = (Vec::new(), Vec::new());
        for name in names {
            let up = interfaces
                .iter()
                .any(|i| i.name == *name && i.up && i.running);
            match self.links.insert(name.clone(), up) {
                Some(before) if before != up => news.push((name.clone(), up)),
                None if !up => still.push(name.clone()),
                _ => {}
            }
        }
        for name in still {
            self.order(Order::Still(self.seen, link_down(&name), went_down(&name)));
        }
        for (name, up) in news {
            if up {
                self.link_comes(&name, self.seen);
            } else {
                self.link_goes(&name, self.seen);
            }
        }
    }

    /// Tells that a probed interface was down in between.
    pub(super) fn link_was_down(&self, name: &str, from: Monotonic, until: Monotonic) {
        if self.links.get(name) == Some(&true) {
            self.link_goes(name, from);
            self.link_comes(name, until);
        }
    }

    fn link_goes(&self, name: &str, at: Monotonic) {
        log::warn!("interface {name} is down");
        self.order(Order::Begin(at, link_down(name), went_down(name)));
    }

    fn link_comes(&self, name: &str, at: Monotonic) {
        log::info!("interface {name} is up");
        self.order(Order::End(at, link_down(name)));
        let text = format!("interface {name} came up");
        let fact = of_link(name, "link_up", Severity::Info, text);
        self.order(Order::Moment(at, fact));
    }
}

/// What an interface that is down is known by.
fn link_down(name: &str) -> String {
    format!("link_down {name}")
}

fn went_down(name: &str) -> Fact {
    let text = format!("interface {name} went down");
    of_link(name, "link_down", Severity::Warning, text)
}

fn of_link(name: &str, kind: &'static str, severity: Severity, text: String) -> Fact {
    Fact {
        values: Vec::new(),
        kind,
        severity,
        interface: name.to_owned(),
        target: None,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_interface_had_not_is_news() {
        let mut known = Known::default();
        let mut now = |names: &[&str]| {
            let names = names.iter().map(|n| (*n).to_owned()).collect();
            known.renewed("wan", names)
        };
        assert_eq!(now(&[]), None);
        assert_eq!(now(&["192.0.2.1", "2001:db8::/64"]), None);
        // The cable is pulled, and put in again.
        assert_eq!(now(&[]), None);
        assert_eq!(now(&["192.0.2.1"]), None);
        assert_eq!(now(&["192.0.2.1", "2001:db8::/64"]), None);
        let told = now(&["192.0.2.9", "2001:db8::/64"]);
        let [now_has, before] =
            ["192.0.2.9, 2001:db8::/64", "192.0.2.1, 2001:db8::/64"].map(str::to_owned);
        assert_eq!(told, Some([now_has, before]));
        assert_eq!(now(&["192.0.2.9"]), None);
    }

    /// After a reconnect one family is there before the other.
    #[test]
    fn what_comes_back_as_it_was_after_another_family_is_no_news() {
        let mut known = Known::default();
        let mut now = |names: &[&str]| {
            let names = names.iter().map(|n| (*n).to_owned()).collect();
            known.renewed("wan", names)
        };
        let told = |now: &str, before: &str| Some([now, before].map(str::to_owned));
        assert_eq!(now(&["192.0.2.1", "2001:db8:1::/64"]), None);
        let before = "192.0.2.1, 2001:db8:1::/64";
        assert_eq!(now(&["2001:db8:2::/64"]), told("2001:db8:2::/64", before));
        assert_eq!(now(&["192.0.2.1", "2001:db8:2::/64"]), None);
        // Both are others this time, and the first address comes back later on.
        let before = "192.0.2.1, 2001:db8:2::/64";
        assert_eq!(now(&["192.0.2.9"]), told("192.0.2.9", before));
        let all = ["192.0.2.9", "2001:db8:3::/64"];
        let before = "192.0.2.9, 2001:db8:2::/64";
        assert_eq!(now(&all), told(&all.join(", "), before));
        let all = ["192.0.2.1", "2001:db8:3::/64"];
        let before = "192.0.2.9, 2001:db8:3::/64";
        assert_eq!(now(&all), told(&all.join(", "), before));
    }
}
