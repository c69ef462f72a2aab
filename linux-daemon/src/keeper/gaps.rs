//! What an interface was without for a moment: gone and back before it was looked at again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::Family;
use bufferbane_linux_io::netlink::{Change, Interface};
use bufferbane_store::Severity;

use super::Keeper;
use crate::recorder::{Fact, Order};

/// What may be gone at a time, at most: of more, nobody learns how long it was.
const GONE: usize = 64;
/// How long a moment is, ns: within it every review has looked.
const MOMENT_NS: u64 = 2_000_000_000;

/// What an interface needs to be probed through.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Itself, by its name.
    Link(String),
    /// An address of the interface with this index.
    Address(u32, IpAddr),
    /// A default route by it, with its gateway.
    Default(u32, Family, Option<IpAddr>),
}

/// What was gone, from when to when.
#[derive(Debug, PartialEq, Eq)]
struct Gap {
    part: Part,
    from: Monotonic,
    until: Monotonic,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    gone: BTreeMap<Part, Monotonic>,
    found: Vec<Gap>,
}

impl Gaps {
    /// A change was told at `at`.
    pub(super) fn hear(&mut self, at: Monotonic, change: &Change) {
        let (part, is_there) = match change {
            Change::Link {
                name, up, running, ..
            } => (Part::Link(name.clone()), *up && *running),
            Change::LinkGone { name, .. } => (Part::Link(name.clone()), false),
            Change::Address { index, address } => {
                (Part::Address(*index, address.ip), address.usable)
            }
            Change::AddressGone { index, ip } => (Part::Address(*index, *ip), false),
            Change::Route(r) | Change::RouteGone(r) if r.prefix == 0 => {
                let part = Part::Default(r.interface, r.family, r.gateway);
                (part, matches!(change, Change::Route(_)))
            }
            Change::Route(_) | Change::RouteGone(_) | Change::Overrun => return,
        };
        if !is_there {
            if self.gone.len() < GONE {
                self.gone.entry(part).or_insert(at);
            }
        } else if let Some(from) = self.gone.remove(&part) {
            let until = at;
            self.found.push(Gap { part, from, until });
        }
    }

    /// The gaps since the last call. What has been gone for long by `now` is no moment's.
    fn take(&mut self, now: Monotonic) -> Vec<Gap> {
        self.gone
            .retain(|_, from| now.saturating_since(*from) < MOMENT_NS);
        std::mem::take(&mut self.found)
    }
}

impl Keeper {
    /// Tells what was gone for a moment in which a probe was due that needed it. To be called before links are looked
    /// at: what was down before is told by them.
    pub(super) fn note_gaps(&mut self, interfaces: &[Interface]) {
        let gaps = self.gaps.take(self.seen);
        let was_down = |name: &String| {
            let mut parts = gaps.iter().map(|g| &g.part);
            parts.any(|p| matches!(p, Part::Link(link) if link == name))
        };
        for gap in &gaps {
            let name = |index: u32| {
                let found = interfaces.iter().find(|i| i.index == index);
                found.map(|i| i.name.clone())
            };
            let (interface, family) = match &gap.part {
                Part::Link(name) => (Some(name.clone()), None),
                Part::Address(index, ip) => (name(*index), Some(Family::of(ip))),
                Part::Default(index, family, _) => (name(*index), Some(*family)),
            };
            // What goes with its link is told by that.
            let interface = interface.filter(|i| family.is_none() || !was_down(i));
            let lasted_ns = gap.until.saturating_since(gap.from);
            let was_probed = self.units.iter().any(|(w, kept)| {
                // Else its trouble was told, or will be. A review near the end of the gap makes one that is too short.
                let is_silent = match &kept.trouble {
                    Some(t) => t.stays_untold(self.seen, w.probe.interval_ns()),
                    None => kept.open.is_some(),
                };
                Some(&w.interface) == interface.as_ref()
                    && is_silent
                    && kept.opened <= gap.from
                    && family.is_none_or(|f| Family::of(&w.remote.ip()) == f)
                    && w.probe.interval_ns() <= lasted_ns
            });
            if let Some(interface) = interface.filter(|_| was_probed) {
                self.tell_gap(gap, interface, lasted_ns);
            }
        }
    }

    fn tell_gap(&self, gap: &Gap, interface: String, lasted_ns: u64) {
        let lasted = format!("for {} ms", lasted_ns / 1_000_000);
        let (kind, what) = match &gap.part {
            Part::Link(name) => {
                return self.link_was_down(name, gap.from, gap.until);
            }
            Part::Address(_, ip) => ("address_change", format!("its address {ip}")),
            Part::Default(_, _, Some(gateway)) => {
                ("route_change", format!("its default route by {gateway}"))
            }
            Part::Default(_, Family::V4, None) => {
                ("route_change", "its IPv4 default route".to_owned())
            }
            Part::Default(_, Family::V6, None) => {
                ("route_change", "its IPv6 default route".to_owned())
            }
        };
        let text = format!("{interface} was without {what} {lasted}");
        log::info!("{text}");
        let fact = Fact {
            values: vec![("lasted_ns", lasted_ns.into())],
            kind,
            severity: Severity::Info,
            interface,
            target: None,
            text,
        };
        self.order(Order::Moment(gap.from, fact));
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_linux_io::netlink::{Address, Route};

    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn what_goes_and_is_back_was_gone_in_between() {
        let ip: IpAddr = "2001:db8::1".parse().unwrap();
        let address = |usable| Change::Address {
            index: 2,
            address: Address {
                ip,
                prefix: 64,
                peer: None,
                link_local: false,
                usable,
            },
        };
        let route = Route {
            family: Family::V4,
            prefix: 0,
            interface: 2,
            gateway: None,
            source: None,
            metric: 0,
            table: 254,
        };
        let link = |running| Change::Link {
            index: 2,
            name: "wan".into(),
            up: true,
            running,
        };
        let mut gaps = Gaps::default();
        let changes = [
            // New.
            (1, address(true)),
            (2, Change::AddressGone { index: 2, ip }),
            (3, Change::RouteGone(route)),
            (4, link(false)),
            // It is looked whether anybody else has it.
            (5, address(false)),
            (6, Change::Route(Route { metric: 7, ..route })),
            (7, address(true)),
            (
                8,
                Change::LinkGone {
                    index: 2,
                    name: "wan".into(),
                },
            ),
            (9, link(true)),
            // Another's, and one that is gone still.
            (
                10,
                Change::RouteGone(Route {
                    interface: 3,
                    ..route
                }),
            ),
            (11, Change::Route(route)),
        ];
        for (ms, change) in &changes {
            gaps.hear(at(*ms), change);
        }
        let gap = |part, from, until| Gap {
            part,
            from: at(from),
            until: at(until),
        };
        let expected = [
            gap(Part::Default(2, Family::V4, None), 3, 6),
            gap(Part::Address(2, ip), 2, 7),
            gap(Part::Link("wan".into()), 4, 9),
        ];
        assert_eq!(gaps.take(at(12)), expected);
        // Another's is back later, after somebody has looked; and one far too late.
        let other = Route {
            interface: 3,
            ..route
        };
        gaps.hear(at(20), &Change::Route(other));
        let part = || Part::Default(3, Family::V4, None);
        assert_eq!(gaps.take(at(21)), [gap(part(), 10, 20)]);
        gaps.hear(at(30), &Change::RouteGone(other));
        assert_eq!(gaps.take(at(2029)), []);
        assert_eq!(gaps.take(at(2030)), []);
        gaps.hear(at(2031), &Change::Route(other));
        assert_eq!(gaps.take(at(2032)), []);
    }

    #[test]
    fn however_much_goes_little_is_remembered() {
        let mut gaps = Gaps::default();
        for index in 0..1000 {
            let name = index.to_string();
            gaps.hear(at(1), &Change::LinkGone { index, name });
        }
        assert_eq!(gaps.gone.len(), GONE);
    }
}
