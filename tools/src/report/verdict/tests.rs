//! What a verdict says, and of which events.

use super::super::testing;
use super::well::nothing_wrong;
use super::*;

mod host;

#[test]
fn what_was_not_watched_is_not_called_well() {
    const DAY_NS: u64 = 86_400_000_000_000;
    assert_eq!(nothing_wrong(LEAST_NS - 1, 7 * DAY_NS), None);
    let part = nothing_wrong(LEAST_NS, 7 * DAY_NS).unwrap();
    assert!(part.contains("of the rest nothing is known"), "{part}");
    let whole = nothing_wrong(7 * DAY_NS - LEAST_NS, 7 * DAY_NS).unwrap();
    assert!(whole.starts_with("Nothing wrong was found in "), "{whole}");
}

/// Probes of a series that no detector heard are no proof that all is well.
#[test]
fn nothing_wrong_is_not_said_of_what_was_recorded_only() {
    let well = |unwatched: &[&str]| {
        let all = ["quad9", "oslo"].map(|target| testing::series(target, 100_000, 0));
        let told = unwatched
            .iter()
            .map(|target| event("not_watched", Grade::Info, target));
        verdicts(&testing::report(all.into(), told.collect()), &TimeZone::UTC)
    };
    let evidence = |v: &[Verdict]| v[0].evidence.join("; ");
    assert!(evidence(&well(&[])).contains("oslo"));
    let one = well(&["oslo"]);
    assert_eq!(one[0].cause, "nothing_wrong");
    let said = evidence(&one);
    assert!(
        said.contains("oslo was not watched") && !said.contains("oslo: "),
        "{said}"
    );
    assert!(said.contains("quad9: "), "{said}");
    assert!(well(&["oslo", "quad9"]).is_empty());
}

fn event(kind: &str, severity: Grade, target: &str) -> Event {
    Event {
        id: 1,
        start: Some(Time(5)),
        end: None,
        kind: kind.into(),
        severity,
        interface: "eth0".into(),
        target: Some(target.into()),
        direction: None,
        values: Default::default(),
        seen: Vec::new(),
        trains: Vec::new(),
        close_looks: Vec::new(),
        text: String::new(),
    }
}

#[test]
fn what_the_line_or_a_timer_explains_is_no_services_fault() {
    let is_fact = |kind: &str, severity| {
        let event = event(kind, severity, "quad9");
        let sign = kind_of(&event).map(Sign::Found);
        sign.and_then(|s| fact(s, &event, Time(9), &mut Vec::new(), &mut Vec::new()))
            .is_some()
    };
    assert!(is_fact("dns_failing", Grade::Critical) && is_fact("tcp_unstable", Grade::Warning));
    assert!(!is_fact("dns_slow", Grade::Info) && !is_fact("tcp_unstable", Grade::Info));
    assert!(is_fact("packet_loss", Grade::Info) && !is_fact("link_up", Grade::Info));
}

fn words(cause: Cause, events: u32) -> String {
    said(cause, events, &[])
}

fn said(cause: Cause, events: u32, told: &[&Event]) -> String {
    let j = Judgement {
        cause,
        line: 0,
        direction: None,
        confidence: 0.9,
        since_ns: 0,
        until_ns: 1,
        events,
        weight: 1.0,
    };
    let report = testing::report(Vec::new(), Vec::new());
    sentence(&report, &j, "eth0", told).replace('\u{a0}', " ")
}

#[test]
fn a_verdict_names_who_is_bad_and_who_is_well() {
    let mut fails = event("dns_failing", Grade::Critical, "router");
    let one = said(Cause::Resolver, 1, &[&fails]);
    assert!(
        one.contains("the resolver router fails, and names are not found: ask another resolver"),
        "{one}"
    );
    fails.values.insert("only_this".into(), false.into());
    let slow = event("dns_slow", Grade::Warning, "quad9");
    let two = said(Cause::Resolver, 2, &[&fails, &slow]);
    assert!(
        two.contains("the resolvers router and quad9 fail or are slow, and")
            && two.contains("others are not well either at the same moments")
            && two.contains("may not help"),
        "{two}"
    );
    // Where one of them is bad by itself, and the worst, others are still bad together.
    let mut worst = fails.clone();
    worst.values.insert("only_this".into(), true.into());
    let advised = |told: &[&Event]| said(Cause::Resolver, 2, told);
    assert!(advised(&[&worst, &fails]).contains("may not help"));
    assert!(advised(&[&worst, &slow]).contains("ask another resolver"));
    let mut differs = event("interface_differs", Grade::Warning, "quad9");
    differs
        .values
        .insert("well_interface".into(), "lte0".into());
    let loss = event("packet_loss", Grade::Warning, "quad9");
    assert_eq!(
        said(Cause::AccessLoss, 1, &[&loss, &differs]),
        "On eth0, almost surely: the access line loses packets, while lte0 was well at the same moments."
    );
    let outage = event("micro_outage", Grade::Warning, "quad9");
    let down = event(LINK_DOWN, Grade::Warning, "");
    assert!(said(Cause::InHouse, 1, &[&outage, &down]).contains("the interface itself went down"));
    for told in [&[&outage, &loss][..], &[&outage]] {
        assert!(said(Cause::InHouse, 2, told).contains("the gateway shows it too"));
    }
    let mut six = event("family_differs", Grade::Warning, "quad9");
    six.values.insert("family".into(), 6.into());
    assert!(said(Cause::Family, 1, &[&six]).contains("IPv6 is bad, and IPv4 well"));
    let names = ["a", "b", "c", "d", "e"];
    six.values.insert("targets".into(), names[..].into());
    assert!(said(Cause::Mtu, 1, &[&six]).contains("to a, b, c and 2 others vanish"));
}

#[test]
fn a_resolver_is_not_blamed_for_more_than_it_does() {
    let with = |values: &[(&str, serde_json::Value)]| {
        let mut e = event("dns_failing", Grade::Critical, "resolver");
        let values = values.iter().map(|(n, v)| ((*n).to_owned(), v.clone()));
        e.values.extend(values);
        e
    };
    let says = |told: &[&Event]| said(Cause::Resolver, 1, told);
    let failed = [("failed", 6.into()), ("silent", 0.into())];
    let cut = [&failed[..], &[("reason", "truncated".into())]].concat();
    let tcp = ("well_over", serde_json::Value::from("tcp"));
    let cut_only = with(&cut);
    let one = says(&[&cut_only]);
    assert!(
        one.contains("the resolver cuts answers short over UDP"),
        "{one}"
    );
    assert!(!one.contains("not found") && !one.contains("where an answer came"));
    let known = with(&[&cut[..], std::slice::from_ref(&tcp)].concat());
    assert!(says(&[&known]).contains("over TCP, where an answer came: names take longer"));
    let dropped = with(&[("failed", 6.into()), ("silent", 6.into()), tcp]);
    let two = says(&[&dropped]);
    assert!(
        two.contains("the resolver answers over TCP and not over UDP"),
        "{two}"
    );
    // Where one of them is more than that.
    let plain = with(&failed);
    assert!(says(&[&dropped, &plain]).contains("fails, and names are not found"));
}

#[test]
fn a_connection_that_something_on_the_way_forgets_is_not_that_end_s_fault() {
    let with = |values: &[(&str, serde_json::Value)]| {
        let mut e = event("tcp_unstable", Grade::Warning, "shell");
        let values = values.iter().map(|(n, v)| ((*n).to_owned(), v.clone()));
        e.values.extend(values);
        e
    };
    let says = |told: &[&Event]| said(Cause::Service, 1, told);
    let forgotten = with(&[("drops", 2.into()), ("errno", nix::libc::ETIMEDOUT.into())]);
    let one = says(&[&forgotten]);
    assert!(
        one.contains("new ones open, without a word: a NAT or a firewall on the way"),
        "{one}"
    );
    let reset = with(&[("drops", 2.into()), ("errno", nix::libc::ECONNRESET.into())]);
    assert!(says(&[&reset, &forgotten]).contains("by that end, or by something on the way"));
    let refused = with(&[("failed", 6.into())]);
    let slow = with(&[("slow", 6.into())]);
    assert!(says(&[&refused]).contains("connections to shell do not open while the line is well"));
    assert!(says(&[&slow]).contains("open slowly while"));
    let all = says(&[&refused, &slow, &forgotten]);
    assert!(
        all.contains("do not open, or open slowly, and those that are held are lost"),
        "{all}"
    );
}

#[test]
fn a_router_that_is_restarted_in_an_outage_leaves_it_the_provider_s() {
    use super::super::testing::{event, report, series};
    let causes = |down_s: (i64, i64)| {
        let events = vec![
            event("outage", &["quad9"], 64_800, Some(75_600)),
            event(LINK_DOWN, &[], down_s.0, Some(down_s.1)),
        ];
        let judged = verdicts(
            &report(vec![series("quad9", 1000, 100)], events),
            &TimeZone::UTC,
        );
        judged.iter().map(|v| v.cause).collect::<Vec<_>>()
    };
    assert_eq!(causes((66_600, 66_640)), [Cause::AccessOutages.as_str()]);
    assert_eq!(causes((64_801, 75_600)), [Cause::InHouse.as_str()]);
}

#[test]
fn what_a_tunnel_does_by_itself_is_not_the_line_s() {
    use super::super::testing::{event, report, series};
    let judged = |kind: &str, also: Option<&str>| {
        let mut own = series("vienna", 1000, 100);
        own.interface_kind = kind.into();
        let mut line = series("vienna", 1000, 0);
        line.interface = "wan0".into();
        let mut events = vec![event("outage", &["vienna"], 3600, Some(3660))];
        events.extend(also.map(|kind| {
            let mut e = event(kind, &["vienna"], 3590, Some(3650));
            e.interface = "wan0".into();
            e
        }));
        let r = report(vec![own, line], events);
        let complaints = super::super::cover::paragraphs(&r, &TimeZone::UTC);
        let all = verdicts(&r, &TimeZone::UTC);
        let v = all.iter().find(|v| v.interface == "eth0").unwrap();
        let about = complaints.iter().any(|c| c.contains("(eth0)"));
        (v.cause, v.text.replace('\u{a0}', " "), about)
    };
    let well = judged("tunnel", None);
    assert_eq!((well.0, well.2), ("tunnel", false));
    assert!(
        well.1.ends_with(
            "the tunnel went dead once: its far end, or the way there; wan0 had no such trouble meanwhile."
        ),
        "{}",
        well.1
    );
    let bad = judged("tunnel", Some("outage"));
    assert!(
        bad.1
            .ends_with("wan0 had trouble meanwhile, and it may run over that."),
        "{}",
        bad.1
    );
    let wired = judged("wired", None);
    assert_eq!((wired.0, wired.2), ("access_outages", true));
    assert!(!wired.1.contains("tunnel"), "{}", wired.1);
}

#[test]
fn one_outage_is_no_habit_of_the_line() {
    let said = |events| words(Cause::AccessOutages, events);
    let one = "On eth0, almost surely: the access line went dead once.";
    let two = "On eth0, almost surely: the access line goes dead now and then, 2 times in all.";
    assert_eq!([said(1), said(2)], [one, two]);
}

#[test]
fn every_cause_has_words_and_a_long_list_is_cut() {
    for cause in [
        Cause::InHouse,
        Cause::AccessLoss,
        Cause::Mtu,
        Cause::Periodic,
        Cause::Resolver,
        Cause::Service,
    ] {
        let text = words(cause, 1);
        assert!(text.starts_with("On eth0, almost surely: "), "{text}");
    }
    let cut = shortened((0..9).map(|n| n.to_string()).collect());
    assert_eq!(cut.len(), MOST_NAMED + 1);
    assert_eq!(cut[MOST_NAMED], "and 4\u{a0}events more");
}

use super::super::testing::{event as told, report as day, series as to};

/// Causes, the worst first, and the first sentence.
fn judged(report: &Report) -> (Vec<&'static str>, String) {
    let all = verdicts(report, &TimeZone::UTC);
    let text = all.first().map_or_else(String::new, |v| v.text.clone());
    let causes = all.iter().map(|v| v.cause);
    (causes.collect(), text.replace('\u{a0}', " "))
}

fn with(mut e: Event, name: &str, value: impl Into<serde_json::Value>) -> Event {
    e.values.insert(name.into(), value.into());
    e
}

#[test]
fn what_a_reflector_drops_itself_is_not_lost_by_the_line() {
    let loss = told("packet_loss", &["vienna"], 1000, Some(1045));
    let drops = |packets: u64| {
        let mut e = told("samples_dropped", &["vienna"], 998, Some(1044));
        (e.severity, e.values) = (Grade::Warning, Default::default());
        with(e, "packets", packets)
    };
    let of = |events| judged(&day(vec![to("vienna", 20_000, 200)], events));
    let (causes, text) = of(vec![loss.clone(), drops(211)]);
    assert_eq!(causes, [Cause::FarEnd.as_str()]);
    assert!(text.contains("vienna dropped packets itself"), "{text}");
    // A packet now and then explains nothing, and is no trouble.
    assert_eq!(of(vec![loss, drops(4)]).0, [Cause::AccessLoss.as_str()]);
    assert_eq!(of(vec![drops(4)]).0, [Cause::Nothing.as_str()]);
}

#[test]
fn a_far_target_that_was_restarted_leaves_the_line_well() {
    let outage = with(
        told("outage", &["vienna"], 1000, Some(1026)),
        "far_targets",
        1,
    );
    let back = told("reflector_back", &["vienna"], 1026, Some(1026));
    let of = |events| judged(&day(vec![to("vienna", 20_000, 200)], events));
    let (causes, text) = of(vec![outage.clone(), back.clone()]);
    assert_eq!(causes, [Cause::AccessOutages.as_str()]);
    assert!(
        text.starts_with(
            "On eth0, likely: nothing came from vienna, the only far target, once: the access line was dead, or vienna was"
        ),
        "{text}"
    );
    let restarted = with(back.clone(), "restarted", true);
    let (causes, text) = of(vec![outage.clone(), restarted.clone()]);
    assert_eq!(causes, [Cause::FarEnd.as_str()]);
    assert!(text.contains("the line is not to blame"), "{text}");
    // Others were silent too, or were not asked in so short a time.
    let of_three = |lost: u64| {
        let outage = with(outage.clone(), "far_targets", 3);
        of(vec![with(outage, "targets_lost", lost), restarted.clone()])
    };
    assert_eq!(of_three(3).0, [Cause::AccessOutages.as_str()]);
    let (causes, text) = of_three(1);
    assert_eq!(causes, [Cause::FarEnd.as_str()]);
    assert!(
        text.contains("vienna was restarted, or did not answer"),
        "{text}"
    );
    // Others were well: its losses are a burst, and not the line's.
    let burst = told("loss_burst", &["vienna"], 1020, Some(1026));
    let (causes, text) = of(vec![burst.clone(), restarted.clone()]);
    assert_eq!(causes, [Cause::FarEnd.as_str()]);
    assert!(
        text.contains("vienna was restarted, or did not answer"),
        "{text}"
    );
    let both = told("loss_burst", &["vienna", "quad9"], 1020, Some(1026));
    let loss = told("packet_loss", &["vienna"], 1000, Some(1900));
    for (e, back) in [(both, &restarted), (loss, &restarted), (burst, &back)] {
        let causes = of(vec![e, back.clone()]).0;
        assert_eq!(causes, [Cause::AccessLoss.as_str()]);
    }
}

#[test]
fn a_host_in_the_house_is_neither_the_gateway_nor_the_line() {
    let loss = told("packet_loss", &["nas"], 1000, Some(2000));
    let of = |e| judged(&day(vec![to("nas", 20_000, 900)], vec![e]));
    let (causes, text) = of(with(with(loss, "near", false), "house", true));
    assert_eq!(causes, [Cause::FarEnd.as_str()]);
    assert!(
        text.contains("nas is reached badly within the house"),
        "{text}"
    );
}

/// No gateway answers that would show it, too.
#[test]
fn bad_wifi_beside_a_good_wire_to_the_same_gateway_is_in_the_house() {
    let of = |kind: &str, same: bool| {
        let mut differs = told("interface_differs", &["quad9"], 1000, Some(2000));
        for (name, value) in [
            ("well_interface", "lan0"),
            ("interface_kind", kind),
            ("well_interface_kind", "wired"),
        ] {
            differs = with(differs, name, value);
        }
        let differs = with(differs, "same_gateway", same);
        let loss = told("packet_loss", &["quad9"], 1001, Some(2001));
        judged(&day(vec![to("quad9", 20_000, 900)], vec![differs, loss]))
    };
    let (causes, text) = of("wifi", true);
    assert_eq!(causes, [Cause::InHouse.as_str()]);
    let said = "the trouble is the Wi-Fi in the house, while lan0 was well at the same moments.";
    assert!(text.ends_with(said), "{text}");
    for (kind, same) in [("wifi", false), ("cellular", true)] {
        assert_eq!(of(kind, same).0, [Cause::AccessLoss.as_str()]);
    }
}

#[test]
fn a_slow_evening_is_the_provider_s_only_where_the_house_was_idle() {
    let evening = |load: &str| {
        let e = told("peak_hour_congestion", &["vienna"], 1000, Some(70_000));
        let report = day(vec![to("vienna", 20_000, 0)], vec![with(e, "load", load)]);
        let v = verdicts(&report, &TimeZone::UTC);
        (v[0].confidence, v[0].text.clone())
    };
    let (known, text) = evening("idle");
    assert!(
        text.contains("congested in the evening: too many share it"),
        "{text}"
    );
    let (unknown, text) = evening("unknown");
    assert!(unknown < known && unknown <= 0.55, "{unknown} {known}");
    assert!(
        text.contains("or the household itself uses it then"),
        "{text}"
    );
}

/// The first of those that were lost had an event of its own before it was known to be one of several.
#[test]
fn connections_that_are_lost_are_told_once() {
    let first = told("tcp_lost", &["shell"], 1000, Some(1000));
    let mut all = told("tcp_unstable", &["shell"], 1000, Some(1400));
    all.severity = Grade::Warning;
    let events = vec![first, with(all, "drops", 3)];
    let judged = verdicts(&day(vec![to("vienna", 20_000, 0)], events), &TimeZone::UTC);
    let [one] = &judged[..] else {
        panic!("{judged:?}");
    };
    assert_eq!(
        (one.cause, one.evidence.len()),
        (Cause::Service.as_str(), 1)
    );
}

/// What is lost at each of its times is a share of what is sent, too.
#[test]
fn the_share_that_comes_back_at_a_period_is_no_second_fault() {
    let causes = |strength: f64, loss: Event| {
        let back = told("periodic_loss", &["oslo", "vienna"], 1000, Some(1600));
        let events = vec![with(back, "strength", strength), loss];
        let probed = ["oslo", "vienna", "quad9"].map(|target| to(target, 20_000, 600));
        judged(&day(probed.into(), events)).0
    };
    let of = |targets: &[&str], from, to| told("packet_loss", targets, from, Some(to));
    let periodic = Cause::Periodic.as_str();
    assert_eq!(causes(1.0, of(&["vienna"], 997, 1603)), [periodic]);
    for (strength, loss) in [
        (0.8, of(&["vienna"], 1000, 1600)),
        (1.0, of(&["quad9"], 1000, 1600)),
        (1.0, of(&["vienna"], 900, 1600)),
        (1.0, of(&["vienna"], 1000, 1700)),
    ] {
        let causes = causes(strength, loss);
        assert!(
            causes.len() == 2 && causes.contains(&periodic),
            "{causes:?}"
        );
    }
    let mut down = of(&["vienna"], 1000, 1600);
    down.direction = Some(Way::Down);
    assert_eq!(causes(1.0, down).len(), 2);
}

/// A household that fills its own buffer loses what does not fit.
#[test]
fn what_a_full_buffer_drops_is_no_loss_of_the_line() {
    let up = |mut e: Event| {
        e.direction = Some(Way::Up);
        e
    };
    let bloat = up(told("bufferbloat", &["vienna"], 1000, Some(1060)));
    let loss = |class: &str, from| {
        let e = told("loss_burst", &["vienna"], from, Some(from + 2));
        up(with(e, "class", class))
    };
    let of = |loss: Event| {
        let events = vec![bloat.clone(), loss];
        judged(&day(vec![to("vienna", 20_000, 9)], events))
    };
    let (causes, text) = of(loss("loss_under_load", 1020));
    assert_eq!(causes, [Cause::Bufferbloat.as_str()]);
    assert!(text.contains("does not fit and is lost"), "{text}");
    for other in [
        loss("loss_without_load", 1020),
        loss("loss_under_load", 2000),
    ] {
        let causes = of(other).0;
        assert!(causes.contains(&Cause::AccessLoss.as_str()), "{causes:?}");
    }
    let mut down = loss("loss_under_load", 1020);
    down.direction = Some(Way::Down);
    assert!(of(down).0.contains(&Cause::AccessLoss.as_str()));
}
