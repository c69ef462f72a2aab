//! The verdict: what is at fault, how sure that is, and what speaks for it, in plain words.

mod blame;
mod certificate;
mod overload;
mod services;
pub(super) mod tunnel;
mod well;

use bufferbane_core::detect::verdict::{Cause, Fact, Judgement, Others, Sign, judge};
use bufferbane_core::detect::{Direction, Kind, SeriesSet, Severity};
use bufferbane_store::{Direction as Way, Severity as Grade};

use jiff::tz::TimeZone;

use super::model::{Event, Report, Time, Verdict};
use super::plug::{LINK_DOWN, is_down_in, unplugged};
use crate::show::{clean, plural, stretch};
use crate::when;
pub(super) use blame::is_far_end_s;
use blame::{
    blame, fell_silent, is_in_house, is_of_loss, is_of_only_one, is_of_radio, own_drops, sign,
};
use well::well;
pub(super) use well::{LEAST_NS, watched_ns};

/// Events that a verdict names.
const MOST_NAMED: usize = 5;
/// Targets that a sentence spells out.
const MOST_LISTED: usize = 3;

/// What is judged of a report's events and series: worst first, and "nothing wrong" alone where that
/// is so; and certificates that nobody accepts. Empty where nothing can be said. The events that speak for it are told with their times in
/// `zone`, the worst first.
pub(crate) fn verdicts(report: &Report, zone: &TimeZone) -> Vec<Verdict> {
    let (mut lines, mut targets) = (Vec::new(), Vec::new());
    let mut facts = Vec::new();
    let mut told = Vec::new();
    let own = own_drops(report);
    for event in report.events.iter().chain(&own) {
        let Some(sign) = sign(report, event) else {
            continue;
        };
        if let Some(mut fact) = fact(sign, event, report.to, &mut lines, &mut targets) {
            fact.blame = blame(report, event);
            // A plug that is pulled, or a radio that is off, is in the house.
            if unplugged(report, event) {
                fact.near = Some(true);
            }
            facts.push(fact);
            told.push(event);
        }
    }
    let (from, to) = (report.from.0.unsigned_abs(), report.to.0.unsigned_abs());
    let judged = judge(&facts, from, to);
    let mut verdicts: Vec<Verdict> = Vec::new();
    for j in &judged {
        if j.cause == Cause::Nothing {
            verdicts.extend(well(report, j, zone));
            continue;
        }
        // The events that were judged to have this cause are those of its line and time; each is
        // judged again alone with what surrounds it.
        let mut events: Vec<&Event> = facts
            .iter()
            .zip(&told)
            .filter(|(f, _)| f.line == j.line && cause_of(f, &facts) == Some(j.cause))
            .map(|(_, e)| *e)
            .collect();
        let interface = lines.get(usize::from(j.line)).cloned().unwrap_or_default();
        let downs = report.events.iter().filter(|d| {
            let of_one = |e: &&Event| unplugged(report, e) && is_down_in(d, e, report.to);
            events.iter().any(of_one)
        });
        let downs: Vec<&Event> = downs.collect();
        let beside = well_beside(report, j, &interface);
        let overloads = overload::behind(report, j, &events);
        for event in beside.iter().chain(&downs).chain(&overloads) {
            if !events.iter().any(|e| e.id == event.id) {
                events.push(event);
            }
        }
        events.sort_by_key(|e| std::cmp::Reverse(e.weight()));
        let evidence = events.iter().map(|e| told_of(e, zone)).collect();
        let is_tunnels = tunnel::is_its(report, j, &interface);
        let text = if is_tunnels {
            tunnel::sentence(report, j, &interface)
        } else {
            sentence(report, j, &clean(&interface), &events)
        };
        verdicts.push(Verdict {
            cause: if is_tunnels {
                tunnel::CAUSE
            } else {
                j.cause.as_str()
            },
            interface: interface.clone(),
            direction: direction_of(j.direction),
            confidence: (j.confidence * 100.0).round() / 100.0,
            since: Time(j.since_ns.cast_signed()),
            until: Time(j.until_ns.cast_signed()),
            text,
            evidence: shortened(evidence),
        });
    }
    verdicts.extend(certificate::verdicts(report, zone));
    verdicts
}

/// The verdicts of a line, the worst first, and those that are of none.
pub(super) fn of_line(report: &Report) -> (Vec<&Verdict>, Vec<&Verdict>) {
    let all = report.verdicts.iter();
    all.partition(|v| v.cause != certificate::CAUSE)
}

/// Those that tell of another interface that is well while this one has a trouble of the line.
fn well_beside<'a>(report: &'a Report, j: &Judgement, interface: &str) -> Vec<&'a Event> {
    let is_of_line = matches!(
        j.cause,
        Cause::AccessLoss | Cause::AccessDelay | Cause::Periodic | Cause::InHouse
    );
    let meanwhile = |e: &Event| {
        let start = e.start.map_or(0, |t| t.0.unsigned_abs());
        let end = e.end.unwrap_or(report.to).0.unsigned_abs();
        start <= j.until_ns && end >= j.since_ns
    };
    let differs = Kind::InterfaceDiffers.as_str();
    let events = report.events.iter().filter(|_| is_of_line);
    events
        .filter(|e| e.kind == differs && e.interface == interface && meanwhile(e))
        .collect()
}

/// An event with its time: `2026-05-09 10:11:12 for 2 min 59 s: outage: no target answered`.
fn told_of(e: &Event, zone: &TimeZone) -> String {
    let at = e.start.map_or_else(String::new, |t| when::civil(t.0, zone));
    let lasted = e
        .duration_ns()
        .map_or_else(String::new, |ns| format!(" for {}", stretch(ns)));
    format!("{at}{lasted}: {}: {}", clean(&e.kind), clean(&e.text))
}

/// The cause of one fact among all.
fn cause_of(fact: &Fact, all: &[Fact]) -> Option<Cause> {
    bufferbane_core::detect::verdict::cause_of(fact, all)
}

/// The cause that an event speaks for by itself.
pub(super) fn own_cause(e: &Event, to: Time) -> Option<Cause> {
    let sign = Sign::Found(kind_of(e)?);
    cause_of(&fact(sign, e, to, &mut Vec::new(), &mut Vec::new())?, &[])
}

fn shortened(mut evidence: Vec<String>) -> Vec<String> {
    let more = evidence.len().saturating_sub(MOST_NAMED);
    evidence.truncate(MOST_NAMED);
    if more > 0 {
        evidence.push(format!(
            "and {}",
            plural(more as u64, "event more", "events more")
        ));
    }
    evidence
}

fn number(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|n| n == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

/// An event as evidence; `None` where it says nothing of the line nor of a service that is to blame.
fn fact(
    sign: Sign,
    e: &Event,
    to: Time,
    lines: &mut Vec<String>,
    targets: &mut Vec<String>,
) -> Option<Fact> {
    let is_of_service = matches!(sign, Sign::Found(kind) if kind.is_of_service());
    // A timer that ends connections, and what the line explains, is no service's fault.
    if is_of_service && e.severity == Grade::Info {
        return None;
    }
    let mut series = SeriesSet::default();
    let names = names_of(e);
    for name in &names {
        let n = number(targets, &format!("{} {name}", e.interface));
        series.insert(u8::try_from(n.min(63)).unwrap_or(63));
    }
    Some(Fact {
        sign,
        severity: match e.severity {
            Grade::Info => Severity::Info,
            Grade::Warning => Severity::Warning,
            Grade::Critical => Severity::Critical,
        },
        direction: e.direction.map(|d| match d {
            Way::Up => Direction::Up,
            Way::Down => Direction::Down,
            Way::Both => Direction::Both,
        }),
        line: u8::try_from(number(lines, &e.interface)).ok()?,
        start_ns: e.start?.0.unsigned_abs(),
        end_ns: e.end.unwrap_or(to).0.unsigned_abs(),
        series,
        targets: u8::try_from(names.len()).unwrap_or(u8::MAX),
        near: e.values.get("near").and_then(serde_json::Value::as_bool),
        others: others_of(e),
        unsure: sign == Sign::Found(Kind::PeakHourCongestion) && !was_idle(e),
        blame: None,
    })
}

/// Whether it is known that the household did not use the line at that time.
fn was_idle(e: &Event) -> bool {
    e.values.get("load").and_then(|v| v.as_str()) == Some("idle")
}

/// How the far targets that an event does not name were.
fn others_of(e: &Event) -> Others {
    let figure = |name: &str| e.values.get(name);
    match figure("far_targets").and_then(serde_json::Value::as_u64) {
        Some(1) => return Others::None,
        // The others may have been asked before and after it only.
        Some(_) if figure("targets_lost") == Some(&1.into()) => return Others::Unknown,
        _ => {}
    }
    let word = figure("others").and_then(|v| v.as_str());
    word.map_or(Others::Untold, Others::from_word)
}

/// What detectors called it, where it is of theirs.
fn kind_of(e: &Event) -> Option<Kind> {
    Kind::ALL.into_iter().find(|k| k.as_str() == e.kind)
}

const fn direction_of(d: Option<Direction>) -> Option<Way> {
    match d {
        Some(Direction::Up) => Some(Way::Up),
        Some(Direction::Down) => Some(Way::Down),
        Some(Direction::Both) => Some(Way::Both),
        None => None,
    }
}

/// What is at fault, for people, by the `events` that speak for it, the worst first.
fn sentence(report: &Report, j: &Judgement, interface: &str, events: &[&Event]) -> String {
    let way = way(j);
    let names = distinct(events.iter().flat_map(|e| names_of(e)));
    let whom = listed(&names);
    let are_all = |is: fn(&Event) -> bool| !events.is_empty() && events.iter().all(|e| is(e));
    let is_of_one = are_all(is_of_only_one);
    let what = match j.cause {
        Cause::Nothing => "nothing is wrong".to_owned(),
        Cause::InHouse
            if events.iter().all(|e| e.kind == LINK_DOWN || is_outage(e))
                && events.iter().any(|e| e.kind == LINK_DOWN) => {
            "the interface itself went down: a plug, a cable, Wi-Fi, or the device at its other end was off".to_owned()
        }
        Cause::InHouse if events.iter().any(|e| is_of_radio(e)) => {
            "the trouble is the Wi-Fi in the house".to_owned()
        }
        Cause::InHouse => {
            "the trouble is in the house (Wi-Fi, a cable, or the router itself): the gateway shows it \
             too"
            .to_owned()
        }
        Cause::Bufferbloat => format!(
            "a buffer fills{way} when the line is used, and everything waits behind it{}",
            if events.iter().any(|e| is_of_loss(e)) {
                ", or does not fit and is lost"
            } else {
                ""
            }
        ),
        Cause::AccessLoss if is_of_one => format!(
            "packets to {whom}, the only far target, are lost{way}, on the access line or beyond it"
        ),
        Cause::AccessLoss => format!("the access line loses packets{way}"),
        Cause::Periodic => format!(
            "something disturbs the line{way} at a fixed period: interference, or a failing amplifier"
        ),
        Cause::AccessOutages if is_of_one => format!(
            "nothing came from {whom}, the only far target, {}: the access line was dead, or {whom} was",
            match j.events {
                1 => "once".to_owned(),
                n => plural(n.into(), "time", "times"),
            }
        ),
        Cause::AccessOutages if j.events == 1 => format!("the access line went dead{way} once"),
        Cause::AccessOutages => format!(
            "the access line goes dead{way} now and then, {} in all",
            plural(j.events.into(), "time", "times")
        ),
        Cause::EveningCongestion if !events.iter().any(|e| was_idle(e)) => format!(
            "the line is slow{way} in the evening: too many share it, or the household itself uses it then, which this \
             host does not see"
        ),
        Cause::EveningCongestion => format!(
            "the line is congested{way} in the evening: too many share it"
        ),
        Cause::CapacityDown => format!("the line carries less{way} than it did"),
        Cause::AccessDelay => format!("the access line delays packets{way}"),
        Cause::ProviderPath => format!(
            "some destinations ({whom}) are reached badly and others well: the provider's network or its peering"
        ),
        Cause::FarEnd if events.iter().any(|e| e.kind == "samples_dropped") => format!(
            "{whom} dropped packets itself, as it is overloaded or allows less than is sent: the line is not to blame"
        ),
        Cause::FarEnd if are_all(is_in_house) => format!(
            "{whom} is reached badly within the house: neither the line nor the gateway is to blame"
        ),
        Cause::FarEnd if events.iter().all(|e| fell_silent(report, e)) => format!(
            "{whom}{} was restarted, or did not answer while the way to it was whole: the line is not to blame",
            if is_of_one { ", the only far target," } else { "" }
        ),
        Cause::FarEnd => format!(
            "{whom} alone is reached badly, and all others well: the line is not to blame"
        ),
        Cause::Family => family(events),
        Cause::Mtu => format!("large packets to {whom} vanish on the way while small ones pass"),
        Cause::Resolver => services::resolver(&names, events),
        Cause::Service => services::connections(&whom, events),
        Cause::ThisHost => format!(
            "{} did not keep up, and dropped packets or left probes out itself: what looks like {} then may be its own \
             doing",
            if interface.is_empty() { "it" } else { "this host" },
            if events.iter().any(|e| overload::is_late(e)) { "loss or delay" } else { "loss" }
        ),
    };
    let sure = sure(j);
    let others = events
        .iter()
        .filter_map(|e| e.values.get("well_interface")?.as_str());
    let others = distinct(others);
    let beside = match &others[..] {
        [] => String::new(),
        _ => format!(", while {} was well at the same moments", listed(&others)),
    };
    let on = match interface {
        "" => format!("In this host, {sure}"),
        _ => format!("On {interface}, {sure}"),
    };
    format!("{on}: {what}{beside}.")
}

const fn way(j: &Judgement) -> &'static str {
    match j.direction {
        Some(Direction::Up) => " upstream",
        Some(Direction::Down) => " downstream",
        Some(Direction::Both) => " in both directions",
        None => "",
    }
}

const fn sure(j: &Judgement) -> &'static str {
    match j.confidence {
        c if c >= 0.85 => "almost surely",
        c if c >= 0.7 => "very likely",
        _ => "likely",
    }
}

/// Whether it says that nothing came through at all.
pub(super) fn is_outage(e: &Event) -> bool {
    let kinds = [Kind::Outage, Kind::MicroOutage].map(Kind::as_str);
    kinds.contains(&e.kind.as_str())
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names.map(clean) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

/// The targets that an event is of.
pub(super) fn names_of(e: &Event) -> Vec<&str> {
    let named = e.values.get("targets").and_then(|v| v.as_array());
    named
        .map(|a| a.iter().filter_map(|v| v.as_str()).collect())
        .unwrap_or_else(|| e.target.as_deref().into_iter().collect())
}

/// `a`, `a and b`, `a, b and c`, `a, b, c and 2 others`.
fn listed(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] if names.len() <= MOST_LISTED => {
            format!("{} and {last}", first.join(", "))
        }
        _ => format!(
            "{} and {}",
            names[..MOST_LISTED].join(", "),
            plural((names.len() - MOST_LISTED) as u64, "other", "others")
        ),
    }
}

/// Which of the families is bad.
fn family(events: &[&Event]) -> String {
    match distinct_families(events)[..] {
        [4] => "IPv4 is bad, and IPv6 well".into(),
        [6] => "IPv6 is bad, and IPv4 well".into(),
        _ => "one of IPv4 and IPv6 is bad, and the other well".into(),
    }
}

fn distinct_families(events: &[&Event]) -> Vec<u64> {
    let told = events
        .iter()
        .filter_map(|e| e.values.get("family")?.as_u64());
    let mut all: Vec<u64> = told.collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(all(test, feature = "demo"))]
mod suite;
#[cfg(test)]
mod tests;
