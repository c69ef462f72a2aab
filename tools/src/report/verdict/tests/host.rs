//! What is this host's own doing.

use super::*;

#[test]
fn what_this_host_dropped_is_neither_the_line_s_nor_nothing() {
    let loss = told("packet_loss", &["vienna"], 1000, Some(1045));
    let mut drops = told("samples_dropped", &[], 1050, Some(1050));
    drops.interface = String::new();
    drops.severity = Grade::Warning;
    let drops = with(drops, "samples", 100);
    let of = |events| judged(&day(vec![to("vienna", 20_000, 100)], events));
    let (causes, text) = of(vec![loss.clone(), drops.clone()]);
    assert_eq!(causes[0], Cause::ThisHost.as_str());
    assert!(!causes.contains(&Cause::AccessLoss.as_str()), "{causes:?}");
    assert!(text.contains("its own doing"), "{text}");
    let (causes, text) = of(vec![drops]);
    assert_eq!(causes, [Cause::ThisHost.as_str()]);
    assert!(
        text.starts_with("In this host, likely: it did not keep up"),
        "{text}"
    );
    // With a direction the far end has counted it.
    let mut up = loss;
    up.direction = Some(Way::Up);
    assert_eq!(of(vec![up]).0, [Cause::AccessLoss.as_str()]);
    let mut report = day(vec![to("vienna", 1_728_000, 0)], Vec::new());
    report.health.own_trouble = vec![crate::report::model::Gap::new(0, 60_000_000_000)];
    let mut causes = |skipped| {
        report.health.skipped_slots = Some(skipped);
        judged(&report).0
    };
    assert_eq!(causes(5), [Cause::Nothing.as_str()]);
    assert_eq!(causes(200), [Cause::ThisHost.as_str()]);
}

/// So many of a thousand packets that came in were dropped, in looks of so many seconds.
fn overload(from_s: i64, to_s: i64, (dropped, looked_s): (u64, u64)) -> Event {
    let mut e = told("host_overloaded", &[], from_s, Some(to_s));
    (e.interface, e.severity) = (String::new(), Grade::Warning);
    let figures = [
        ("packets", dropped),
        ("taken", 1000 - dropped),
        ("looked_ns", looked_s * 1_000_000_000),
    ];
    figures.into_iter().fold(e, |e, (name, n)| with(e, name, n))
}

fn lossy(way: Option<Way>, at_least: f64) -> Event {
    let mut e = told("packet_loss", &["vienna"], 1000, Some(1045));
    e.direction = way;
    let e = with(e, "at_least", at_least);
    with(e, "within_ns", 45_000_000_000_u64)
}

fn judged_of(events: Vec<Event>) -> Vec<Verdict> {
    let report = day(vec![to("vienna", 1_728_000, 100)], events);
    verdicts(&report, &TimeZone::UTC)
}

fn causes_of(events: Vec<Event>) -> Vec<&'static str> {
    judged_of(events).iter().map(|v| v.cause).collect()
}

/// Answers are dropped as all that comes in, where no processor has time for it.
#[test]
fn what_a_host_without_time_drops_of_answers_is_not_lost_by_the_line() {
    for way in [None, Some(Way::Down)] {
        let judged = judged_of(vec![lossy(way, 0.06), overload(995, 1050, (50, 50))]);
        let [host] = &judged[..] else {
            panic!("{judged:?}");
        };
        assert_eq!(host.cause, Cause::ThisHost.as_str());
        assert!(host.evidence.iter().any(|e| e.contains("host_overloaded")));
        assert!(host.text.contains("what looks like loss then"), "{host:?}");
    }
    // What the far end never got was lost on the way there, and before that no answer was dropped.
    for (way, from_s) in [(Way::Up, 995), (Way::Down, 1020)] {
        let causes = causes_of(vec![
            lossy(Some(way), 0.06),
            overload(from_s, 1050, (50, 50)),
        ]);
        assert_eq!(causes, [Cause::AccessLoss.as_str()]);
    }
    let spike = told("latency_spike", &["vienna"], 1000, Some(1030));
    let late = judged_of(vec![spike.clone(), overload(995, 1050, (50, 50))]);
    let [host] = &late[..] else {
        panic!("{late:?}");
    };
    assert_eq!(host.cause, Cause::ThisHost.as_str());
    assert!(host.text.contains("loss or delay then"), "{host:?}");
    let brief = causes_of(vec![spike, overload(995, 1050, (50, 10))]);
    assert_eq!(brief, [Cause::AccessDelay.as_str()]);
}

#[test]
fn a_few_dropped_packets_are_blamed_for_no_more_than_they_explain() {
    let few = || overload(995, 1050, (20, 50));
    let alone = judged_of(vec![few()]);
    assert_eq!(alone[0].cause, Cause::Nothing.as_str());
    assert!(
        alone[0].evidence[0].contains("host_overloaded"),
        "{alone:?}"
    );
    let causes = causes_of(vec![few(), lossy(Some(Way::Down), 0.3)]);
    assert_eq!(causes, [Cause::AccessLoss.as_str()]);
    let dead = told("outage", &["vienna"], 1000, Some(1040));
    assert_eq!(
        causes_of(vec![few(), dead]),
        [Cause::AccessOutages.as_str()]
    );
    let run = |ns: u64| {
        let burst = told("loss_burst", &["vienna"], 1000, Some(1010));
        causes_of(vec![few(), with(burst, "duration_ns", ns)])
    };
    assert_eq!(run(500_000_000), [Cause::ThisHost.as_str()]);
    assert_eq!(run(5_000_000_000), [Cause::AccessLoss.as_str()]);
}
