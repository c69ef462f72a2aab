//! What is probed.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use bufferbane_core::sample::Sample;
use bufferbane_store::{SeriesInfo, SeriesKind};
use bufferbaned::config::{Place, defaults};

use super::plan::Plan;
use crate::synth::Synth;
use crate::synth::line::Line;

/// The resolvers of the household.
const RESOLVERS: [&str; 2] = ["203.0.113.53:53", "203.0.113.54:53"];
/// What the second uplink leads to.
const SECOND: [&str; 2] = ["gateway", "quad9"];

/// A series, and when it is probed.
pub(super) struct Probed<'a> {
    pub(super) synth: Synth<'a>,
    pub(super) interval_ns: u64,
    pub(super) second_uplink: bool,
    pub(super) vanishes: bool,
    /// Probes whose slots have begun and that have not left.
    pub(super) waiting: VecDeque<Sample>,
}

/// A series of a line.
struct Spec {
    target: String,
    address: String,
    /// Which of the line's places it is at.
    place: usize,
    kind: SeriesKind,
    size: u16,
    interval_ns: u64,
}

/// What is probed: without a configuration, through a second uplink, and of a reflector.
pub(super) fn probed<'a>(plan: &Plan, lines: &'a [Line; 2]) -> Vec<Probed<'a>> {
    let default: Vec<Spec> = targets().chain(services()).collect();
    let reflector = plan.reflector.then(|| Spec {
        target: "vienna".into(),
        address: "192.0.2.10:9876".into(),
        place: 0,
        kind: SeriesKind::Udp,
        size: 128,
        interval_ns: 50_000_000,
    });
    let first = default.iter().chain(&reflector);
    let is_second = |s: &&Spec| SECOND.contains(&s.target.as_str());
    let second = default.iter().filter(is_second);
    let vanishes = if plan.reflector { "vienna" } else { "quad9" };
    let both = first.map(|s| (0, s)).chain(second.map(|s| (1, s)));
    both.enumerate()
        .map(|(n, (line, spec))| {
            let info = SeriesInfo {
                interface: lines[line].interface.clone(),
                interface_kind: lines[line].interface_kind.into(),
                target: spec.target.clone(),
                kind: spec.kind,
                family: 4,
                dscp: 0,
                size: spec.size,
                interval_ns: spec.interval_ns,
                address: spec.address.clone(),
            };
            let seed = plan.seed ^ ((n as u64) << 32);
            Probed {
                synth: Synth::new(&lines[line], spec.place, info, seed),
                interval_ns: spec.interval_ns,
                second_uplink: line == 1,
                vanishes: line == 0 && spec.target == vanishes,
                waiting: VecDeque::new(),
            }
        })
        .collect()
}

/// The hosts that are pinged by default over IPv4, at addresses of documentation.
fn targets() -> impl Iterator<Item = Spec> {
    defaults::targets().into_iter().filter_map(|t| {
        let (address, place) = match &t.place {
            Place::Gateway => ("192.0.2.1".to_owned(), 1),
            Place::Modem => ("192.0.2.2".to_owned(), 1),
            Place::Isp => ("198.51.100.1".to_owned(), 2),
            Place::Host(host) => match host.parse() {
                Ok(IpAddr::V4(ip)) => (format!("203.0.113.{}", ip.octets()[3]), 3),
                _ => return None,
            },
        };
        Some(Spec {
            target: t.name,
            address,
            place,
            kind: SeriesKind::Icmp,
            size: t.size,
            interval_ns: t.interval_ns,
        })
    })
}

/// What the resolvers are asked by default.
fn services() -> impl Iterator<Item = Spec> {
    defaults::services().into_iter().flat_map(|t| {
        let steps = t.service.steps().iter();
        let both = steps.flat_map(|kind| RESOLVERS.iter().enumerate().map(move |of| (*kind, of)));
        let specs: Vec<Spec> = both
            .map(|(kind, (n, resolver))| {
                let remote: SocketAddr = resolver.parse().expect("an address and a port");
                Spec {
                    target: match n {
                        0 => t.name.clone(),
                        n => format!("{}-{}", t.name, n + 1),
                    },
                    address: t.service.address(kind, remote),
                    place: 2,
                    kind,
                    size: t.service.size(kind),
                    interval_ns: t.service.interval_ns(),
                }
            })
            .collect();
        specs
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_probed_by_default_is_among_it() {
        let plan = Plan {
            seconds: 3600,
            seed: 1,
            commit_s: 60,
            reflector: false,
        };
        let lines = [0, 1].map(|i| Line::new(i, 3_600_000_000_000, 1));
        let all = probed(&plan, &lines);
        let all = all.iter().map(|p| {
            let info = &p.synth.info;
            let seconds = p.interval_ns / 1_000_000_000;
            format!("{} {} every {seconds} s", info.target, info.address)
        });
        let expected = [
            "gateway 192.0.2.1 every 1 s",
            "modem 192.0.2.2 every 1 s",
            "isp 198.51.100.1 every 1 s",
            "quad9 203.0.113.9 every 1 s",
            "cloudflare 203.0.113.1 every 1 s",
            "resolver 203.0.113.53:53/udp every 10 s",
            "resolver-2 203.0.113.54:53/udp every 10 s",
            "resolver-tcp 203.0.113.53:53/tcp every 60 s",
            "resolver-tcp-2 203.0.113.54:53/tcp every 60 s",
            "resolver-random 203.0.113.53:53/udp every 60 s",
            "resolver-random-2 203.0.113.54:53/udp every 60 s",
            "gateway 192.0.2.1 every 1 s",
            "quad9 203.0.113.9 every 1 s",
        ];
        assert_eq!(all.collect::<Vec<_>>(), expected);
    }
}
