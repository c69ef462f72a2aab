//! The detectors against lines that know what they did: a part of `bufferbane-lab scenario all`, with
//! one seed that nothing was tuned on.

use bufferbane_core::detect::{Kind, Value};
use bufferbane_sim::scenario::{Cause, judge, list, table};

/// Scenarios of many days are left to the command.
const LONG: [&str; 2] = ["quiet_daily", "evening"];

#[test]
fn what_happens_is_told_and_nothing_else() {
    let chosen: Vec<_> = list::ALL
        .iter()
        .chain(&list::MIXED)
        .filter(|(name, _)| !LONG.contains(name))
        .copied()
        .collect();
    let table = table::run(&chosen, 101..102, None, false);
    assert!(table.events > 80, "{}", table.events);
    assert!(table.good, "\n{}", table.text);
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
    assert_eq!(a.cause.1, Cause::AccessLoss);
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
            assert_eq!(pair.edges_right(), Some(true), "{name} {seed}: {pair:?}");
        }
        assert_eq!(of(Kind::LossBurst).count(), 0, "{name} {seed}");
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
    assert!(table.good, "\n{}", table.text);
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
    assert!(!table.good);
}
