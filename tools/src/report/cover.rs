//! A paragraph to paste into a complaint: dates, times and counts that somebody can check.

use bufferbane_core::detect::Kind;
use bufferbane_core::detect::verdict::Cause;
use jiff::tz::TimeZone;

use super::model::{Event, Grade, Report, Series};
use super::outages::{self, Outages, joined};
use super::plug::{LINK_DOWN, ends_in_house, unplugged};
use super::verdict::{is_far_end_s, names_of, own_cause, tunnel};
use crate::show::{count, delay, percent, plural, stretch};
use crate::when;

/// A far end that was bad by itself for longer than this share of the time says little of the line.
const ALONE: f64 = 0.01;
/// It lost more than another one where its share is so many times as high, and
const MORE: f64 = 1.5;
/// the other one would have lost so many probes at its share.
const SURE: f64 = 20.0;
/// Losing less than this share is nothing to complain about.
const LOSS: f64 = 0.001;

/// One paragraph for each interface that has something to complain about.
pub(crate) fn paragraphs(report: &Report, zone: &TimeZone) -> Vec<String> {
    let mut interfaces: Vec<&str> = report.series.iter().map(|s| s.interface.as_str()).collect();
    interfaces.dedup();
    interfaces
        .into_iter()
        .filter_map(|i| paragraph(report, i, zone))
        .collect()
}

fn paragraph(report: &Report, interface: &str, zone: &TimeZone) -> Option<String> {
    // Its far end is the provider's only by chance.
    if tunnel::is_one(report, interface) {
        return None;
    }
    // What became of questions to services is not the line's doing alone, and no word against it.
    let own = || {
        let all = report.series.iter();
        all.filter(|s| s.interface == interface && !s.of_service)
    };
    let sent: u64 = own().map(|s| s.sent).sum();
    // The way beyond the house.
    let far: Vec<&Series> = own().filter(|s| !is_near(s)).collect();
    let seen: Vec<Seen> = far.iter().map(|s| Seen::of(s, report)).collect();
    let far = far[speaks_for_line(&seen)?];
    let mut found = Vec::new();
    if let Some(o) = interruptions(report, interface, zone) {
        found.push(format!(
            "The connection was interrupted {}",
            if o.count == 1 {
                format!(
                    "once, on {} for {}.",
                    when::civil(o.longest_from.0, zone),
                    stretch(o.total_ns)
                )
            } else {
                format!(
                    "{} on {}, for {} in all; the longest interruption began on {} and lasted {}.",
                    plural(o.count, "time", "times"),
                    plural(o.days.len() as u64, "day", "different days"),
                    stretch(o.total_ns),
                    when::civil(o.longest_from.0, zone),
                    stretch(o.longest_ns)
                )
            }
        ));
    }
    if far.sent > 0 && far.lost as f64 / far.sent as f64 >= LOSS {
        let mut text = format!(
            "Of {} packets to {}{} {} were lost ({})",
            count(far.sent),
            far.target,
            over(far, report),
            count(far.lost),
            percent(far.lost, far.sent)
        );
        if let (Some(up), Some(down)) = (far.lost_up, far.lost_down) {
            text.push_str(&format!(
                ", {} of them on the way from me into your network and {} on the way back",
                count(up),
                count(down)
            ));
        }
        found.push(text + ".");
        found.extend(vanished(far, report, zone));
    }
    for g in report
        .grades
        .iter()
        .filter(|g| g.interface == interface && g.grade > "B")
    {
        found.push(slow(g));
    }
    if found.is_empty() {
        return None;
    }
    Some(format!(
        "From {} I measured my connection ({interface}) without a break of my own: {}, one every {}. {} \
         The times are {}; every single measurement was recorded and can be handed over. Please tell \
         me the cause, and by when it will be fixed.",
        when::range_label(report.from.0, report.to.0, zone),
        plural(sent, "packet", "packets"),
        stretch(own().map(|s| s.interval_ns).min().unwrap_or(far.interval_ns)),
        found.join(" "),
        when::zone_label(report.to.0, zone)
    )
    .replace(" without a break of my own:", if report.health.gaps.is_empty() {
        " without a break:"
    } else {
        ", apart from the gaps listed in the report:"
    }))
}

/// Over which family a far end was probed, where others of its interface were over the other one.
fn over(far: &Series, report: &Report) -> &'static str {
    let is_other = |s: &Series| s.interface == far.interface && s.family != far.family;
    match far.family {
        _ if !report.series.iter().any(is_other) => "",
        6 => " over IPv6",
        _ => " over IPv4",
    }
}

/// What is to be said where large packets to a far end vanished: its losses are no others'.
fn vanished(far: &Series, report: &Report, zone: &TimeZone) -> Option<String> {
    let of_it = |e: &&Event| {
        let family = e.values.get("family").and_then(serde_json::Value::as_u64);
        e.kind == Kind::MtuBlackHole.as_str()
            && e.interface == far.interface
            && names_of(e).contains(&far.target.as_str())
            && family.is_none_or(|f| f == u64::from(far.family))
    };
    let first = report.events.iter().filter(of_it).min_by_key(|e| e.start)?;
    let passes = report.events.iter().filter(of_it);
    let passes = passes
        .filter_map(|e| e.values.get("passes_bytes")?.as_u64())
        .min();
    let large = passes.map_or_else(String::new, |n| format!(" of more than {} bytes", count(n)));
    Some(format!(
        "From {} on large packets{large} to it vanished without a word, while small ones passed: a router on the way drops \
         them and does not say so (ICMP \"packet too big\"), so that connections stall.",
        when::civil(first.start?.0, zone)
    ))
}

/// The interruptions of an interface that are not of the house's own making, nor of the far end's that was asked alone,
/// counted again without the others: what comes of a cable that was pulled in the house is nobody else's.
fn interruptions(report: &Report, interface: &str, zone: &TimeZone) -> Option<Outages> {
    let is_joined_here = ends_in_house(report, interface);
    let is_own = |e: &Event| {
        (is_joined_here && e.kind == LINK_DOWN) || unplugged(report, e) || is_far_end_s(report, e)
    };
    let of_one = report.events.iter().filter(|e| e.interface == interface);
    let foreign = of_one.filter(|e| !is_own(e));
    outages::count(foreign, report.from, report.to, zone).pop()
}

/// A far end, as far as it matters for which one is named.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    /// Whether it tells the direction of losses.
    is_directed: bool,
    sent: u64,
    lost: u64,
    /// Whether it was bad by itself for long, while others were well, and that was not the provider's doing.
    was_bad_alone: bool,
    /// Whether what happens to it and not to others is, for most of the time, the provider's doing all the same.
    is_provider: bool,
}

impl Seen {
    fn of(s: &Series, report: &Report) -> Self {
        let range_ns = report.to.0.abs_diff(report.from.0);
        let all = report.events.iter();
        let named: Vec<(&Event, Vec<&str>)> = all
            .filter(|e| e.interface == s.interface)
            .map(|e| (e, names_of(e)))
            .filter(|(_, names)| names.contains(&s.target.as_str()))
            .collect();
        let span = |e: &Event| Some((e.start?.0, e.end.unwrap_or(report.to).0));
        let causes = [Cause::ProviderPath, Cause::Family, Cause::Mtu];
        let provider = named.iter().filter_map(|(e, _)| {
            let cause = own_cause(e, report.to)?;
            span(e).filter(|_| causes.contains(&cause))
        });
        let provider = joined(provider.collect());
        let alone = named.iter().filter_map(|(e, names)| {
            let is_fault = e.kind == Kind::RoutingFault.as_str() && names.len() == 1;
            span(e).filter(|_| is_fault)
        });
        let length = |(from, to): (i64, i64)| if from < to { to.abs_diff(from) } else { 0 };
        // What was the provider's doing meanwhile is not its own.
        let own = |(from, to): (i64, i64)| {
            let both = provider
                .iter()
                .map(|p| length((from.max(p.0), to.min(p.1))));
            length((from, to)).saturating_sub(both.sum())
        };
        let alone_ns: u64 = joined(alone.collect()).into_iter().map(own).sum();
        let provider_ns: u64 = provider.iter().copied().map(length).sum();
        Self {
            is_directed: s.lost_up.is_some(),
            sent: s.sent,
            lost: s.lost,
            was_bad_alone: alone_ns as f64 > ALONE * range_ns as f64,
            is_provider: provider_ns > alone_ns,
        }
    }

    fn share(&self) -> f64 {
        self.lost as f64 / self.sent.max(1) as f64
    }

    /// Whether it lost surely more than `other` did: then that was not the line's doing.
    fn lost_more_than(&self, other: &Self) -> bool {
        self.share() > MORE * other.share() && self.share() * other.sent as f64 >= SURE
    }
}

/// Which of the far ends says what the line does: of those that were not bad by themselves the one that was lost most
/// often, rather one that knows the direction; the first of equals. A complaint must not be about what a reflector did
/// that was switched off, or reached badly while all else was well.
fn speaks_for_line(far: &[Seen]) -> Option<usize> {
    let is_fair = |s: &Seen| {
        let lost_more = || far.iter().any(|other| s.lost_more_than(other));
        !s.was_bad_alone && (s.is_provider || !lost_more())
    };
    let best = |fair: bool| {
        let all = far.iter().enumerate().rev();
        all.filter(|(_, s)| !fair || is_fair(s))
            .max_by_key(|(_, s)| (s.is_directed, s.lost))
            .map(|(n, _)| n)
    };
    best(true).or_else(|| best(false))
}

/// What a grade was given for, in words that say no more than was measured.
fn slow(g: &Grade) -> String {
    let (added, grade) = (delay(g.increase_ns), g.grade);
    let way = match g.direction {
        "up" => "up",
        "down" => "down",
        _ => "up and down together",
    };
    match g.method {
        "test" => format!(
            "With the line in use, one packet in ten waited {added} longer or more on its way {way} than \
             on the idle line, in the median of the load tests (grade {grade})."
        ),
        "queue" => format!(
            "In the worst hundredth of the time packets waited at least {added} in a queue on their \
             way {way} (grade {grade})."
        ),
        _ => format!(
            "In the worst hundredth of the time packets took at least {added} longer than on the \
             idle line, {way} (grade {grade})."
        ),
    }
}

/// Whether it answers from within the house.
pub(crate) fn is_near(s: &Series) -> bool {
    s.target == "gateway" || s.target == "modem" || s.rtt_ns.min.is_some_and(|n| n < 2_000_000)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{event, report, series};
    use super::*;

    #[test]
    fn a_cable_that_was_pulled_is_no_interruption_to_complain_of() {
        // Ten seconds of the provider's, and two hours without a cable.
        let real = event("outage", &["vienna"], 3600, Some(3610));
        let pulled = [
            event("outage", &["vienna"], 36_000, Some(43_200)),
            event("link_down", &[], 36_001, Some(43_200)),
        ];
        let said = |kind: &str, events: &[Event]| {
            let mut s = series("vienna", 1_728_000, 0);
            s.interface_kind = kind.into();
            let r = report(vec![s], events.to_vec());
            let all = paragraphs(&r, &TimeZone::UTC).join(" ");
            all.replace('\u{a0}', " ")
        };
        let [outage, down] = &pulled;
        let all = [real.clone(), outage.clone(), down.clone()];
        let one = said("wired", &all);
        assert!(
            one.contains("was interrupted once, on 1970-01-01 01:00:00 for 10 s."),
            "{one}"
        );
        assert_eq!(said("wired", &pulled), "");
        // Nor one that was pulled so that no probe was lost.
        assert!(said("wired", &[real.clone(), down.clone()]).contains("interrupted once"));
        let two = said("ppp", &all);
        assert!(two.contains("interrupted 2 times"), "{two}");
    }

    #[test]
    fn what_is_complained_of_has_its_size_and_its_family() {
        let far = |family: u8, lost: u64| {
            let mut s = series("vienna", 1_092_000, lost);
            (s.size, s.family) = (0, family);
            s
        };
        let four = || far(4, 264_000);
        let mut hole = event("mtu_black_hole", &["vienna"], 3600, Some(7200));
        hole.values.insert("passes_bytes".into(), 1400.into());
        let said = |series: Vec<Series>, events: &[Event]| {
            let r = report(series, events.to_vec());
            paragraphs(&r, &TimeZone::UTC)
                .join(" ")
                .replace('\u{a0}', " ")
        };
        let plain = said(vec![four()], &[]);
        assert!(plain.contains("packets to vienna 264"), "{plain}");
        assert!(!plain.contains("IPv") && !plain.contains("large packets"));
        let both = said(vec![four(), far(6, 0)], std::slice::from_ref(&hole));
        assert!(both.contains("packets to vienna over IPv4 264"), "{both}");
        assert!(
            both.contains(
                "From 1970-01-01 01:00:00 on large packets of more than 1 400 bytes to it vanished"
            ),
            "{both}"
        );
        // Of the other family.
        hole.values.insert("family".into(), 6.into());
        assert!(!said(vec![four()], &[hole]).contains("vanished"));
    }

    fn seen(is_directed: bool, sent: u64, lost: u64) -> Seen {
        Seen {
            is_directed,
            sent,
            lost,
            was_bad_alone: false,
            is_provider: false,
        }
    }

    #[test]
    fn a_reflector_that_was_switched_off_is_no_word_against_the_line() {
        // An hour of a line that loses one in fifty; one reflector was off for a quarter of it.
        let (ping, off, well) = (
            seen(false, 3600, 70),
            seen(true, 72_000, 19_400),
            seen(true, 72_000, 1450),
        );
        assert_eq!(speaks_for_line(&[ping, off, well]), Some(2));
        assert_eq!(speaks_for_line(&[ping, off]), Some(0));
        assert_eq!(speaks_for_line(&[off]), Some(0));
        // One that was off for a second of an hour still tells the direction.
        assert_eq!(speaks_for_line(&[ping, seen(true, 72_000, 1470)]), Some(1));
        // Of ten pings nothing is known.
        assert_eq!(speaks_for_line(&[seen(false, 10, 0), well]), Some(1));
        assert_eq!(speaks_for_line(&[]), None);
    }

    #[test]
    fn a_destination_that_alone_is_bad_is_the_provider_s_only_where_others_are_too() {
        let ping = seen(false, 3600, 36);
        let mut bad = seen(true, 72_000, 3000);
        assert_eq!(speaks_for_line(&[ping, bad]), Some(0));
        bad.is_provider = true;
        assert_eq!(speaks_for_line(&[ping, bad]), Some(1));
        bad.was_bad_alone = true;
        assert_eq!(speaks_for_line(&[ping, bad]), Some(0));
    }

    #[test]
    fn the_provider_s_doing_excuses_only_whom_it_names_and_while_it_lasts() {
        // A reflector that was off from 1:00 to 7:00, and events that say something of the provider.
        let of = |more: &[Event]| {
            let mut events = vec![event("routing_fault", &["vienna"], 3600, Some(25_200))];
            events.extend_from_slice(more);
            let off = series("vienna", 1_728_000, 432_000);
            let r = report(vec![off, series("quad9", 86_400, 10)], events);
            let seen = [0, 1].map(|n| Seen::of(&r.series[n], &r));
            (
                seen[0].was_bad_alone,
                seen.map(|s| s.is_provider),
                speaks_for_line(&seen),
            )
        };
        assert_eq!(of(&[]), (true, [false; 2], Some(1)));
        let whole = Some(86_400);
        for kind in ["family_differs", "mtu_black_hole"] {
            // Of another target, at another time, and for a moment only.
            let other = event(kind, &["quad9"], 0, whole);
            assert_eq!(of(&[other]), (true, [false, true], Some(1)));
            let later = event(kind, &["vienna"], 50_000, Some(50_600));
            assert_eq!(of(&[later]), (true, [false; 2], Some(1)));
            let short = event(kind, &["vienna", "graz"], 3600, Some(4200));
            assert_eq!(of(&[short]), (true, [false; 2], Some(1)));
            // This is what made it bad.
            let same = event(kind, &["vienna", "graz"], 3600, Some(25_200));
            assert_eq!(of(&[same]), (false, [true, false], Some(0)));
        }
        let some = event("routing_fault", &["vienna", "graz"], 3590, Some(25_200));
        assert_eq!(of(&[some]), (false, [true, false], Some(0)));
    }
}
