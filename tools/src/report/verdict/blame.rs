//! Who is to blame for an event, where something else than the event says so.

use bufferbane_core::detect::Kind;
use bufferbane_core::detect::verdict::{Cause, Sign};
use bufferbane_store::{PathEnd, Severity};
use serde_json::Value;

use super::super::model::{Event, Report, Series};
use super::{is_outage, kind_of, names_of, overload};

/// What a host did not count, or a reflector did not answer, of what was sent: less than this share is no trouble.
const SHARE: f64 = 0.01;
/// Fewer than this are none either.
const LEAST: u64 = 3;
/// What a host tells of its own drops is of about this long, ns.
const MINUTE_NS: u64 = 60_000_000_000;
/// Edges of what one program does to another are known by this, ns: a session is found again that much later.
pub(super) const GRAIN_NS: i64 = 5_000_000_000;
/// The kind of the event of drops, and of that which says that a reflector is there again.
const DROPPED: &str = "samples_dropped";
const BACK: &str = "reflector_back";
/// The class of loss that comes with load in its direction only.
const UNDER_LOAD: &str = "loss_under_load";
/// Of the losses of a time, what comes back at a period is all there is if it is this share of them.
const ALL: f64 = 0.9;

/// What an event is to a verdict; `None` where it says nothing of what is at fault.
pub(super) fn sign(report: &Report, e: &Event) -> Option<Sign> {
    if e.kind != DROPPED {
        return kind_of(e).map(Sign::Found);
    }
    let figure = |name: &str| e.values.get(name).and_then(Value::as_u64);
    let probed = |s: &&Series| match &e.target {
        Some(target) => s.interface == e.interface && s.target == *target,
        None => true,
    };
    let lasted_ns = e.duration_ns().unwrap_or(0).max(MINUTE_NS);
    let all = report.series.iter().filter(probed);
    let sent: u64 = all.map(|s| lasted_ns / s.interval_ns.max(1)).sum();
    let (sign, dropped) = match &e.target {
        Some(_) => (Sign::FarDrops, figure("packets")?),
        None => (Sign::OwnDrops, figure("samples")?),
    };
    is_much(dropped, sent).then_some(sign)
}

fn is_much(dropped: u64, of: u64) -> bool {
    dropped >= LEAST && dropped as f64 >= SHARE * of as f64
}

/// What this host did to its own measuring, as events like those of reflectors: for the minutes in which it did so.
pub(super) fn own_drops(report: &Report) -> Vec<Event> {
    let h = &report.health;
    let stretches = &h.own_trouble;
    let lasted_ns: u64 = stretches.iter().map(|t| t.duration_ns).sum();
    let slots = report
        .series
        .iter()
        .map(|s| lasted_ns / s.interval_ns.max(1))
        .sum();
    let [sockets, slots_left] = [h.socket_drops, h.skipped_slots].map(|n| n.unwrap_or(0));
    if !is_much(sockets.saturating_add(slots_left), slots) {
        return Vec::new();
    }
    let text = format!(
        "in such minutes this host's sockets dropped {sockets} datagrams, and {slots_left} probes were never sent"
    );
    let event = |t: &super::super::model::Gap| {
        let mut values = serde_json::Map::new();
        // It is known to be much.
        values.insert("samples".into(), u64::MAX.into());
        Event {
            id: u64::MAX,
            kind: DROPPED.into(),
            severity: Severity::Warning,
            interface: String::new(),
            target: None,
            direction: None,
            start: Some(t.from),
            end: Some(t.to),
            values,
            text: text.clone(),
            seen: Vec::new(),
            trains: Vec::new(),
            close_looks: Vec::new(),
        }
    };
    stretches.iter().map(event).collect()
}

/// Who is to blame for an event, by what else is known; `None` where the event speaks for itself.
pub(in super::super) fn blame(report: &Report, e: &Event) -> Option<Cause> {
    if is_far_end_s(report, e) || is_in_house(e) {
        return Some(Cause::FarEnd);
    }
    if is_of_radio(e) {
        return Some(Cause::InHouse);
    }
    if is_of_full_buffer(report, e) {
        return Some(Cause::Bufferbloat);
    }
    if is_what_comes_back(report, e) {
        return Some(Cause::Periodic);
    }
    let drops = report.events.iter();
    let mut drops = drops.filter(|d| sign(report, d) == Some(Sign::OwnDrops));
    let is_own = |d: &Event| {
        // A minute of its own trouble is told at its end.
        let (start, to) = (d.start.map_or(0, |t| t.0), end_of(d, report));
        let from = start.saturating_sub(MINUTE_NS.cast_signed());
        // With a direction the far end has counted it.
        e.direction.is_none()
            && e.start.is_some_and(|at| (from..=to).contains(&at.0))
            && end_of(e, report) <= to + GRAIN_NS
    };
    let is_hosts = is_of_loss(e) && drops.any(is_own) || overload::is_its(report, e);
    is_hosts.then_some(Cause::ThisHost)
}

pub(super) fn end_of(e: &Event, report: &Report) -> i64 {
    e.end.unwrap_or(report.to).0
}

pub(super) fn is_of_loss(e: &Event) -> bool {
    let kinds = [
        Kind::PacketLoss,
        Kind::LossBurst,
        Kind::PeriodicLoss,
        Kind::RoutingFault,
    ];
    is_outage(e) || kind_of(e).is_some_and(|k| kinds.contains(&k))
}

/// Whether it is loss under load in a direction whose buffer was full meanwhile: what does not fit is dropped.
fn is_of_full_buffer(report: &Report, e: &Event) -> bool {
    let is_under_load = e.values.get("class").and_then(Value::as_str) == Some(UNDER_LOAD);
    let fills = |d: &Event| {
        d.kind == Kind::Bufferbloat.as_str()
            && (&d.interface, d.direction) == (&e.interface, e.direction)
            && d.start
                .is_some_and(|at| e.start.is_some_and(|start| at <= start))
            && end_of(e, report) <= end_of(d, report).saturating_add(GRAIN_NS)
    };
    is_under_load && is_of_loss(e) && report.events.iter().any(fills)
}

/// Whether it is the share that is lost by what disturbs the line at a fixed period, and by nothing else.
fn is_what_comes_back(report: &Report, e: &Event) -> bool {
    let brings = |d: &Event| {
        let targets = names_of(d);
        let strength = d.values.get("strength").and_then(Value::as_f64);
        let lasts = |at: i64| {
            let from = d.start.map_or(i64::MAX, |t| t.0);
            (from.saturating_sub(GRAIN_NS)..=end_of(d, report).saturating_add(GRAIN_NS))
                .contains(&at)
        };
        d.kind == Kind::PeriodicLoss.as_str()
            && (&d.interface, d.direction) == (&e.interface, e.direction)
            && strength.is_some_and(|share| share >= ALL)
            && names_of(e).iter().all(|name| targets.contains(name))
            && e.start.is_some_and(|at| lasts(at.0))
            && lasts(end_of(e, report))
    };
    kind_of(e) == Some(Kind::PacketLoss) && report.events.iter().any(brings)
}

/// Whether only hosts in the house show it that nothing else is reached through.
pub(super) fn is_in_house(e: &Event) -> bool {
    e.values.get("house") == Some(&true.into())
}

/// Whether Wi-Fi was bad and a wire to the same gateway well.
pub(super) fn is_of_radio(e: &Event) -> bool {
    let is = |name: &str, word: &str| e.values.get(name).and_then(Value::as_str) == Some(word);
    e.kind == Kind::InterfaceDiffers.as_str()
        && is("interface_kind", "wifi")
        && is("well_interface_kind", "wired")
        && e.values.get("same_gateway") == Some(&true.into())
}

/// Whether what was lost or silent was so by the doing of the one far end that it names: that dropped packets itself, or
/// fell silent by itself.
pub(in super::super) fn is_far_end_s(report: &Report, e: &Event) -> bool {
    fell_silent(report, e) || has_dropped(report, e)
}

/// Whether the one far end that an event names dropped packets itself meanwhile.
fn has_dropped(report: &Report, e: &Event) -> bool {
    let (Some((_, mut beside)), Some(start)) = (beside(report, e), e.start) else {
        return false;
    };
    let is_its = |d: &Event| {
        let from = d.start.map_or(i64::MAX, |at| at.0 - GRAIN_NS);
        let span = from..=end_of(d, report) + GRAIN_NS;
        sign(report, d) == Some(Sign::FarDrops)
            && span.contains(&start.0)
            && span.contains(&end_of(e, report))
    };
    is_of_loss(e) && beside.any(is_its)
}

/// Whether the one far end that an event names was restarted meanwhile, or, where nobody else was asked, could be reached
/// all the same.
pub(super) fn fell_silent(report: &Report, e: &Event) -> bool {
    let is_of_one = is_silence_of_one(e);
    let (Some((target, mut beside)), Some(start)) = (beside(report, e), e.start) else {
        return false;
    };
    let (from, to) = (start.0 - GRAIN_NS, end_of(e, report) + GRAIN_NS);
    let restarted = |d: &Event| {
        // Those that follow each other soon are one event.
        d.kind == BACK
            && d.values.get("restarted") == Some(&true.into())
            && d.start.is_some_and(|at| at.0 <= to)
            && end_of(d, report) >= from
    };
    let mut ways = report.events.iter().flat_map(|d| &d.seen).chain(&e.seen);
    let was_whole = |s: &super::super::paths::Seen| {
        // What was sent before it fell silent may still arrive.
        let silent = start.0..=end_of(e, report).saturating_sub_unsigned(s.took_ns);
        s.way.interface == e.interface
            && s.way.target == target
            && s.way.end == PathEnd::Target
            && silent.contains(&s.at.0)
    };
    let is_burst = e.kind == Kind::LossBurst.as_str();
    (is_of_one || is_burst) && beside.any(restarted) || is_of_one && ways.any(was_whole)
}

/// The one target that an event names, and what else is told of it.
fn beside<'a>(
    report: &'a Report,
    e: &'a Event,
) -> Option<(&'a str, impl Iterator<Item = &'a Event>)> {
    let [target] = names_of(e)[..] else {
        return None;
    };
    let of_it = move |d: &&Event| d.interface == e.interface && d.target.as_deref() == Some(target);
    Some((target, report.events.iter().filter(of_it)))
}

/// Whether it says that nothing came from the only far target that was asked meanwhile.
pub(super) fn is_silence_of_one(e: &Event) -> bool {
    is_outage(e) && (is_of_only_one(e) || e.values.get("targets_lost") == Some(&1.into()))
}

/// Whether there was no other far target to ask.
pub(super) fn is_of_only_one(e: &Event) -> bool {
    super::others_of(e) == super::Others::None
}
