//! What is probed where nothing is configured.

use bufferbane_core::session::client::MORE_SIZES;

use super::{FamilyChoice, Place, SECOND_NS, Target};
use crate::ask::{Lookup, Service, ServicePlace, ServiceTarget};

/// Well-known anycast addresses that are pinged.
const ANYCAST: [(&str, &str); 4] = [
    ("quad9", "9.9.9.9"),
    ("cloudflare", "1.1.1.1"),
    ("quad9-6", "2620:fe::fe"),
    ("cloudflare-6", "2606:4700:4700::1111"),
];
/// How often a resolver is asked over TCP, and for what no cache has, ns: both cost others more than a question does
/// that is always the same.
const SELDOM_NS: u64 = 60 * SECOND_NS;

/// What is pinged: the gateway, the modem and the provider's first hop where they answer, well-known addresses.
#[must_use]
pub fn targets() -> Vec<Target> {
    let target = |name: &str, place| Target {
        name: name.to_owned(),
        place,
        family: FamilyChoice::Auto,
        interval_ns: SECOND_NS,
        size: 64,
        more_sizes: [0; MORE_SIZES],
    };
    let mut targets = vec![
        target("gateway", Place::Gateway),
        target("modem", Place::Modem),
        target("isp", Place::Isp),
    ];
    for (name, address) in ANYCAST {
        targets.push(target(name, Place::Host(address.to_owned())));
    }
    targets
}

/// What is asked: this host's own resolvers every few seconds, and now and then over TCP and for names that no cache
/// has.
#[must_use]
pub fn services() -> Vec<ServiceTarget> {
    let seldom = |random, tcp| Lookup {
        random,
        tcp,
        interval_ns: SELDOM_NS,
        ..Lookup::default()
    };
    let all = [
        ("resolver", Lookup::default()),
        ("resolver-tcp", seldom(false, true)),
        ("resolver-random", seldom(true, false)),
    ];
    let target = |(name, lookup): (&str, Lookup)| ServiceTarget {
        name: name.into(),
        place: ServicePlace::SystemByRoute,
        family: FamilyChoice::Auto,
        service: Service::Dns(lookup),
    };
    all.map(target).into()
}
