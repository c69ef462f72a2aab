//! What people are told of lines that know what they did: each scenario of the detectors' suite, as the daemon makes
//! events of it and a report judges these.

use bufferbane_core::detect::{Notice, Phase, Role};
use bufferbane_sim::scenario::spec::{Scenario, Spec};
use bufferbane_sim::scenario::{Watched, list, scenario, watch};
use bufferbane_store::{SeriesInfo, SeriesKind};
use bufferbaned::events_of;

use super::super::model::Series;
use super::super::testing;
use super::*;
use crate::abreast;

/// Nothing is tuned on this one (docs/scenarios.md).
const SEED: u64 = 1100;
/// Radio and wire, where there are two.
const INTERFACES: [(&str, &str); 2] = [("wlan0", "wifi"), ("eth0", "wired")];

fn info(spec: &Spec) -> SeriesInfo {
    let f = &spec.facts;
    let (interface, interface_kind) = INTERFACES[usize::from(f.line)];
    let address = match (f.role, f.family) {
        (Role::Gateway { .. }, _) => "192.168.1.1".to_owned(),
        (_, 6) => format!("2001:db8::{}", f.target),
        _ => format!("198.51.100.{}", f.target),
    };
    SeriesInfo {
        interface: interface.into(),
        interface_kind: interface_kind.into(),
        target: format!("target{}", f.target),
        kind: if spec.reflector {
            SeriesKind::Udp
        } else {
            SeriesKind::Icmp
        },
        family: f.family,
        dscp: 0,
        size: f.size,
        interval_ns: f.interval_ns,
        address,
    }
}

fn series(info: &SeriesInfo, (sent, lost): (u64, u64)) -> Series {
    Series {
        interface: info.interface.clone(),
        interface_kind: info.interface_kind.clone(),
        kind: info.kind.as_str(),
        interval_ns: info.interval_ns,
        family: info.family,
        size: info.size,
        ..testing::series(&info.target, sent, lost)
    }
}

fn event(id: u64, e: bufferbane_store::Event) -> Event {
    let at = |ns: u64| Time(ns.cast_signed());
    Event {
        id,
        start: Some(at(e.start_ns)),
        end: e.end_ns.map(at),
        kind: e.kind,
        severity: e.severity,
        interface: e.interface,
        target: e.target,
        direction: e.direction,
        values: e.values,
        text: e.text,
        seen: Vec::new(),
        trains: Vec::new(),
        close_looks: Vec::new(),
    }
}

/// What a report of all of it says first, and why.
fn first(scenario: &Scenario, watched: Watched) -> Option<Verdict> {
    let infos: Vec<SeriesInfo> = scenario.series.iter().map(info).collect();
    let notices = watched
        .events
        .into_iter()
        .zip(0..)
        .map(|(event, id)| Notice {
            id,
            phase: Phase::End,
            event,
        });
    let stored = events_of(&infos, &notices.collect::<Vec<_>>());
    let all = infos.iter().enumerate();
    let series = all.map(|(n, info)| series(info, watched.run.counts(n)));
    let mut report = testing::report(
        series.collect(),
        (1..).zip(stored).map(|(id, e)| event(id, e)).collect(),
    );
    report.to = Time(scenario.length_ns.cast_signed());
    verdicts(&report, &TimeZone::UTC).into_iter().next()
}

#[test]
fn each_line_is_judged_as_what_happened_on_it() {
    let all: Vec<_> = list::ALL.iter().chain(&list::MIXED).collect();
    let wrong = abreast::map_heavy(&all, |(name, make)| {
        let line = scenario(*make, SEED);
        let (cause, way) = line.blame;
        let told = first(&line, watch(line.clone(), SEED));
        let is_right = match &told {
            Some(v) => v.cause == cause.as_str() && v.direction == direction_of(way),
            // What never answered is neither well nor anybody's fault.
            None => cause == Cause::Nothing && *name == "quiet_no_ipv6",
        };
        Ok((!is_right).then(|| format!("{name}: {told:?} instead of {cause:?} {way:?}")))
    });
    let wrong: Vec<String> = wrong
        .expect("nothing fails")
        .into_iter()
        .flatten()
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
