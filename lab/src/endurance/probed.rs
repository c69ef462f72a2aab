//! What is probed.

use bufferbane_store::{SeriesInfo, SeriesKind};

use super::plan::Plan;
use crate::synth::Synth;
use crate::synth::line::Line;

/// A series, and when it is probed.
pub(super) struct Probed<'a> {
    pub(super) synth: Synth<'a>,
    pub(super) interval_ns: u64,
    pub(super) second_uplink: bool,
    pub(super) vanishes: bool,
}

/// What is probed: without a configuration, through a second uplink, and of a reflector.
pub(super) fn probed<'a>(plan: &Plan, lines: &'a [Line; 2]) -> Vec<Probed<'a>> {
    // Name, address, which of a line's places it is at, kind, interval in ms.
    let default = [
        ("gateway", "192.0.2.1", 1, SeriesKind::Icmp, 1000),
        ("modem", "192.0.2.2", 1, SeriesKind::Icmp, 1000),
        ("isp", "198.51.100.1", 2, SeriesKind::Icmp, 1000),
        ("quad9", "203.0.113.9", 3, SeriesKind::Icmp, 1000),
        ("cloudflare", "203.0.113.1", 3, SeriesKind::Icmp, 1000),
        (
            "resolver",
            "203.0.113.53:53/udp",
            2,
            SeriesKind::Dns,
            10_000,
        ),
        (
            "resolver-2",
            "203.0.113.54:53/udp",
            2,
            SeriesKind::Dns,
            10_000,
        ),
    ];
    let reflector = [("vienna", "192.0.2.10:9876", 0, SeriesKind::Udp, 50)];
    let first = default
        .iter()
        .chain(reflector.iter().filter(|_| plan.reflector));
    let second = default
        .iter()
        .filter(|t| ["gateway", "quad9"].contains(&t.0));
    let vanishes = if plan.reflector { "vienna" } else { "quad9" };
    let both = first.map(|t| (0, t)).chain(second.map(|t| (1, t)));
    both.enumerate()
        .map(|(n, (line, (target, address, place, kind, ms)))| {
            let interval_ns = ms * 1_000_000;
            let info = SeriesInfo {
                interface: lines[line].interface.clone(),
                interface_kind: lines[line].interface_kind.into(),
                target: (*target).into(),
                kind: *kind,
                family: 4,
                dscp: 0,
                size: if *kind == SeriesKind::Udp { 128 } else { 64 },
                interval_ns,
                address: (*address).into(),
            };
            let seed = plan.seed ^ ((n as u64) << 32);
            Probed {
                synth: Synth::new(&lines[line], *place, info, seed),
                interval_ns,
                second_uplink: line == 1,
                vanishes: line == 0 && *target == vanishes,
            }
        })
        .collect()
}
