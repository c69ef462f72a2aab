//! The detectors against lines that know what they did: `bufferbane-lab scenario all` with one seed. Nothing is tuned on
//! seeds from 1100 on (docs/scenarios.md).

use bufferbane_core::detect::{Direction, Kind, Severity, Value};
use bufferbane_sim::scenario::{Cause, count_by_day, judge, list, table};

/// Nothing is tuned on this one.
const SEED: u64 = 1100;

#[test]
fn what_happens_is_told_and_nothing_else() {
    let chosen: Vec<_> = list::ALL.iter().chain(&list::MIXED).copied().collect();
    let table = table::run(&chosen, SEED..SEED + 1, None, false);
    println!("{}", table.text);
    assert!(table.events > 120, "{}", table.events);
    assert!(
        table.faults.is_empty(),
        "{:?}\n{}",
        table.faults,
        table.text
    );
}

#[test]
fn the_same_line_is_judged_the_same_twice() {
    let make = list::ALL
        .iter()
        .find(|(n, _)| *n == "loss_and_bloat")
        .unwrap()
        .1;
    let (a, b) = (judge(make, 7, None), judge(make, 7, None));
    let told = |o: &bufferbane_sim::scenario::Outcome| {
        o.pairs.iter().map(|p| p.told.clone()).collect::<Vec<_>>()
    };
    assert_eq!(told(&a), told(&b));
    assert_eq!(a.verdicts, b.verdicts);
    assert_eq!(a.blamed, (Cause::AccessLoss, Some(Direction::Up)));
}

/// As many days as a test has time for of `quiet_month`, of which one event in thirty days would be the most.
#[test]
fn nothing_is_told_of_quiet_days() {
    let make = list::MONTHS[0].1;
    let (probes, events) = count_by_day(make, SEED, 5, |_| {});
    assert!(probes > 10_000_000, "{probes}");
    assert_eq!(events, 0);
}

/// What is run to see what it takes shows that only where it has something to tell.
#[test]
fn a_year_has_trouble_every_day_and_a_quiet_one_none() {
    let make = |name| {
        let all = list::ALL.iter().chain(&list::YEARS);
        let found = all.into_iter().find(|(n, _)| *n == name);
        found.map(|(_, make)| *make).unwrap()
    };
    let mut days = 0;
    let (probes, events) = count_by_day(make("year"), SEED, 2, |_| days += 1);
    assert!(probes > 100_000 && events >= 10, "{probes} {events}");
    assert_eq!(days, 2);
    assert_eq!(count_by_day(make("quiet_daily"), SEED, 1, |_| {}).1, 0);
}

/// With these seeds, a probe is lost by chance within half a second of an outage of 200 ms.
#[test]
fn a_short_outage_beside_a_loss_by_chance_is_told_as_one() {
    for (name, seed) in [
        ("micro_outages_down", 916),
        ("outages_and_jitter", 935),
        ("everything", 947),
    ] {
        let scenarios = || list::ALL.iter().chain(&list::MIXED);
        let make = scenarios().find(|(n, _)| *n == name).unwrap().1;
        let outcome = judge(make, seed, None);
        let of = |kind| outcome.pairs.iter().filter(move |p| p.kind() == Some(kind));
        assert!(of(Kind::MicroOutage).count() >= 8);
        for pair in of(Kind::MicroOutage) {
            assert_eq!(pair.edges_wrong(), Some(0), "{name} {seed}: {pair:?}");
        }
        assert_eq!(of(Kind::LossBurst).count(), 0, "{name} {seed}");
    }
}

/// Lines whose rates change where a fast series has a lull, where slow ones lose more, or where a stray loss is near.
#[test]
fn edges_are_where_rates_changed() {
    for (name, seed) in [("loss_up", 158), ("loss_both", 126), ("wifi_bad", 142)] {
        let make = list::ALL.iter().find(|(n, _)| *n == name).unwrap().1;
        for pair in judge(make, seed, None).pairs {
            assert_eq!(pair.edges_wrong(), Some(0), "{name} {seed}: {pair:?}");
        }
    }
}

/// Losses by chance near to what comes back at a period, and periods that have none, neither part it nor move its edges.
#[test]
fn what_comes_back_at_a_period_is_one_event_from_first_to_last() {
    for (name, seed) in [
        ("periodic_30s", 1302),
        ("periodic_30s", 10),
        ("periodic_spikes_30s", 1302),
        ("periodic_spikes_quick", 354),
    ] {
        let make = list::ALL.iter().find(|(n, _)| *n == name).unwrap().1;
        let pairs = judge(make, seed, None).pairs;
        let [pair] = &pairs[..] else {
            panic!("{name} {seed}: {pairs:?}")
        };
        assert_eq!(pair.edges_wrong(), Some(0), "{name} {seed}: {pair:?}");
    }
}

/// What a download carries is not why others' traffic delays the way up, whoever sees all of the household's.
#[test]
fn a_queue_upward_of_others_is_not_the_households_while_it_downloads() {
    let (name, make) = *list::ALL
        .iter()
        .find(|(n, _)| *n == "spike_download_up")
        .unwrap();
    let table = table::run(&[(name, make)], 101..104, None, false);
    assert!(
        table.faults.is_empty(),
        "{:?}\n{}",
        table.faults,
        table.text
    );
    let outcome = judge(make, 101, None);
    let told: Vec<_> = outcome
        .pairs
        .iter()
        .filter_map(|p| p.told.as_ref())
        .collect();
    assert_eq!(told.len(), 3);
    for event in told {
        assert!(
            event.values.contains(&("load", Value::Word("idle"))),
            "{event:?}"
        );
    }
}

/// A table that counted nothing as wrong would be good whatever happens.
#[test]
fn what_was_not_expected_counts_as_wrong() {
    fn outage_that_nobody_expects(
        rng: &mut rand_chacha::ChaCha8Rng,
    ) -> bufferbane_sim::scenario::spec::Scenario {
        let make = list::ALL.iter().find(|(n, _)| *n == "outages").unwrap().1;
        let mut s = make(rng);
        s.expected.clear();
        for e in &mut s.effects {
            e.makes = None;
        }
        s
    }
    let outcome = judge(outage_that_nobody_expects, 101, None);
    assert!(outcome.pairs.len() >= 3);
    assert!(outcome.pairs.iter().all(|p| p.expected.is_none()));
    assert!(outcome.pairs.iter().all(|p| p.kind() == Some(Kind::Outage)));
    let table = table::run(&[("x", outage_that_nobody_expects)], 101..102, None, false);
    assert!(!table.faults.is_empty());
}

/// Nor would one that takes any direction where none is to be named.
#[test]
fn a_direction_that_may_not_be_named_counts_as_wrong() {
    fn loss_that_has_no_direction(
        rng: &mut rand_chacha::ChaCha8Rng,
    ) -> bufferbane_sim::scenario::spec::Scenario {
        let make = list::ALL.iter().find(|(n, _)| *n == "loss_up").unwrap().1;
        let mut s = make(rng);
        for e in &mut s.expected {
            e.direction = None;
        }
        s
    }
    let outcome = judge(loss_that_has_no_direction, 101, None);
    let right: Vec<_> = outcome.pairs.iter().map(|p| p.direction_right()).collect();
    assert_eq!(right, [Some(false)]);
    let table = table::run(&[("x", loss_that_has_no_direction)], 101..102, None, false);
    assert!(!table.faults.is_empty());
}

/// What has to be told of the other side, too: of those that are well, and of the other direction.
#[test]
fn what_differs_and_what_carries_less_is_told_with_the_figures_of_both() {
    let told = |name: &str, kind: Kind| {
        let make = list::ALL.iter().find(|(n, _)| *n == name).unwrap().1;
        let pairs = judge(make, 101, None).pairs.into_iter();
        let mut told = pairs.filter_map(|p| p.told);
        told.find(|e| e.kind == kind).unwrap().values
    };
    let number = |values: &[(&str, Value)], name: &str| {
        let found = values.iter().find(|(n, _)| *n == name);
        match found.unwrap_or_else(|| panic!("no {name} in {values:?}")).1 {
            Value::Number(n) => n as f64,
            Value::Ratio(r) => r,
            Value::Word(w) => panic!("{w}"),
        }
    };
    let path = told("provider_path", Kind::RoutingFault);
    // 120 ms more, and up to 8 ms.
    assert!(
        (100e6..140e6).contains(&number(&path, "excess_ns")),
        "{path:?}"
    );
    assert!(number(&path, "excess_of_others_ns") < 10e6, "{path:?}");
    let wifi = told("wifi_jitter", Kind::InterfaceDiffers);
    let (varied, of_others) = (number(&wifi, "varied"), number(&wifi, "varied_of_others"));
    assert!(varied > 0.2 && of_others < 0.02, "{wifi:?}");
    let up = told("capacity_down", Kind::UploadDegraded);
    for name in ["other_bps", "other_baseline_bps"] {
        assert!(
            (360e6..440e6).contains(&number(&up, name)),
            "{name}: {up:?}"
        );
    }
}

/// It is the provider's for sure only where the house is seen to be idle.
#[test]
fn a_slow_evening_of_an_idle_house_is_told_as_that() {
    let make = list::ALL.iter().find(|(n, _)| *n == "evening").unwrap().1;
    let outcome = judge(make, SEED, None);
    let [pair] = &outcome.pairs[..] else {
        panic!("{:?}", outcome.pairs)
    };
    let told = pair.told.as_ref().unwrap();
    let get = |name| told.values.iter().find(|(n, _)| *n == name).map(|v| v.1);
    assert_eq!(get("load"), Some(Value::Word("idle")), "{told:?}");
    assert_eq!(get("from_hour"), Some(Value::Number(19)), "{told:?}");
    assert_eq!(get("to_hour"), Some(Value::Number(23)), "{told:?}");
}

/// A fast series knows within seconds what slow ones know minutes later: what differs meanwhile is not where they go.
#[test]
fn what_one_family_suffers_from_is_never_told_of_targets() {
    let chosen: Vec<_> = list::ALL
        .iter()
        .filter(|(name, _)| name.starts_with("ipv6_"))
        .copied()
        .collect();
    assert_eq!(chosen.len(), 3);
    let table = table::run(&chosen, 401..404, None, false);
    assert!(
        table.faults.is_empty(),
        "{:?}\n{}",
        table.faults,
        table.text
    );
}

/// Of all the series that lose, the one with most probes says how much: one that pings once a second was found at an
/// unlucky moment.
#[test]
fn the_share_that_is_told_is_that_of_the_whole_trouble() {
    let make = list::ALL.iter().find(|(n, _)| *n == "ipv6_bad").unwrap().1;
    for seed in 401..405 {
        let outcome = judge(make, seed, None);
        let mut told = outcome.pairs.iter().filter_map(|p| p.told.as_ref());
        let loss = told.find(|e| e.kind == Kind::PacketLoss).unwrap();
        let get = |name| loss.values.iter().find(|(n, _)| *n == name).map(|v| v.1);
        let (Some(Value::Ratio(share)), Some(Value::Number(probes)), Some(Value::Number(up))) =
            (get("loss"), get("probes"), get("lost_up"))
        else {
            panic!("{loss:?}")
        };
        // The line loses 9 % of it upward.
        let sigma = (0.09 * 0.91 / probes as f64).sqrt();
        assert!(
            probes > 5000 && (share - 0.09).abs() < 4.0 * sigma,
            "{loss:?}"
        );
        assert!(up > 9 * probes / 200, "{loss:?}");
    }
}

/// Eight pings in a row take seconds, and are a burst all the same.
#[test]
fn losses_in_a_row_of_a_slow_series_are_a_burst() {
    fn quad9_silent_for_eight_pings(
        rng: &mut rand_chacha::ChaCha8Rng,
    ) -> bufferbane_sim::scenario::spec::Scenario {
        let make = list::ALL
            .iter()
            .find(|(n, _)| *n == "target_dead")
            .unwrap()
            .1;
        let mut s = make(rng);
        s.expected.clear();
        for e in &mut s.effects {
            e.makes = None;
            e.to_ns = e.from_ns + 8_000_000_000;
        }
        s
    }
    for seed in 101..106 {
        let outcome = judge(quad9_silent_for_eight_pings, seed, None);
        let told: Vec<_> = outcome
            .pairs
            .iter()
            .filter_map(|p| p.told.as_ref())
            .collect();
        let [burst] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(
            (burst.kind, burst.severity),
            (Kind::LossBurst, Severity::Critical)
        );
    }
}
