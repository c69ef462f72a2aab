//! What becomes of troubles that come back, overlap and are many.

use std::vec;

use super::super::event::Severity;
use super::*;

const S: u64 = 1_000_000_000;

/// A hundred bursts in a step are one event: its begin, and how it stands in the end.
#[test]
fn what_comes_back_at_once_takes_the_room_of_two_notices() {
    const MS: u64 = 1_000_000;
    let mut ledger = Ledger::new(300_000 * MS);
    let at = |n: u64| Monotonic::from_nanos(n * MS);
    for n in 0..100 {
        let f = Finding::new(Kind::LossBurst, Severity::Warning, at(100 * n));
        ledger.happened(0, 3, f, at(100 * n + 50));
    }
    // Outages are told each by itself.
    for n in 0..10 {
        let f = Finding::new(Kind::MicroOutage, Severity::Warning, at(n));
        ledger.went_dead(0, SeriesSet::default(), &f, at(n + 1));
    }
    assert_eq!(ledger.overflow(), 0);
    let told: std::vec::Vec<Notice> = core::iter::from_fn(|| ledger.poll()).collect();
    assert_eq!(told.len(), 2 + 10);
    let of_burst: std::vec::Vec<_> = told
        .iter()
        .filter(|n| n.event.kind == Kind::LossBurst)
        .map(|n| (n.phase, n.event.end))
        .collect();
    assert_eq!(
        of_burst,
        [(Phase::Begin, None), (Phase::End, Some(at(9950)))]
    );
}

/// Lets a kind of trouble last for each of these series and times in seconds; series 2 and 3 have one target. Gives
/// begin, end and series of each event in the end.
fn told(kind: Kind, spells: &[(u8, u64, u64)]) -> std::vec::Vec<(u64, u64, std::vec::Vec<u8>)> {
    let mut ledger = Ledger::new(300 * S);
    for (series, target) in [(1, 101), (2, 102), (3, 102)] {
        ledger.add(series, target);
    }
    let at = |s: u64| Monotonic::from_nanos(s * S);
    let mut all = std::collections::BTreeMap::new();
    for s in 0..2000 {
        for (series, from, to) in spells {
            if s == *to {
                ledger.clear(0, *series, kind, at(s));
            }
            // It is known only after some seconds.
            if s == from + 8 && s < *to {
                ledger.raise(0, *series, Finding::new(kind, Severity::Warning, at(*from)));
            }
        }
        ledger.forget(at(s));
        while let Some(n) = ledger.poll() {
            all.insert(n.id, n.event);
        }
    }
    assert_eq!(ledger.overflow(), 0);
    let seconds = |t: Monotonic| t.as_nanos() / S;
    all.into_values()
        .map(|e| {
            let end = e.end.map_or(0, seconds);
            (seconds(e.start), end, e.series.iter().collect())
        })
        .collect()
}

#[test]
fn after_its_end_trouble_is_back_where_it_was_and_elsewhere_it_is_another() {
    use Kind::{Bufferbloat, PacketLoss, RoutingFault};
    // One target is bad, and when that is over another one.
    for kind in [PacketLoss, RoutingFault] {
        let two = told(kind, &[(1, 100, 140), (2, 200, 240)]);
        assert_eq!(two, [(100, 140, vec![1]), (200, 240, vec![2])], "{kind:?}");
        // And the first one again, beside the other or after it.
        let two = told(kind, &[(1, 100, 140), (2, 200, 240), (1, 300, 340)]);
        assert_eq!(two, [(100, 340, vec![1]), (200, 240, vec![2])], "{kind:?}");
        let two = told(kind, &[(1, 100, 140), (2, 200, 340), (1, 300, 320)]);
        assert_eq!(
            two,
            [(100, 140, vec![1]), (200, 340, vec![1, 2])],
            "{kind:?}"
        );
        // The other began before the first was over.
        let one = told(kind, &[(1, 100, 140), (2, 138, 240)]);
        assert_eq!(one, [(100, 240, vec![1, 2])], "{kind:?}");
        // It is back.
        let one = told(kind, &[(1, 100, 140), (1, 430, 440)]);
        assert_eq!(one, [(100, 440, vec![1])], "{kind:?}");
    }
    // A target is reached by two series: it is the same fault, but others' losses are losses of their own.
    let spells = [(2, 100, 140), (3, 200, 240)];
    assert_eq!(told(RoutingFault, &spells).len(), 1);
    assert_eq!(told(PacketLoss, &spells).len(), 2);
    // What loads a line delays all that pass it.
    assert_eq!(told(Bufferbloat, &[(1, 100, 140), (2, 200, 240)]).len(), 1);
}

/// The place of a series that is probed no more is another's.
#[test]
fn what_the_next_series_of_a_place_shows_is_another_trouble() {
    let mut ledger = Ledger::new(300 * S);
    let at = |s: u64| Monotonic::from_nanos(s * S);
    for (s, target) in [(100, 101), (200, 102)] {
        ledger.add(1, target);
        let f = Finding::new(Kind::PacketLoss, Severity::Warning, at(s));
        ledger.raise(0, 1, f);
        ledger.withdraw(0, 1, at(s + 20));
    }
    let told = core::iter::from_fn(|| ledger.poll());
    let begins = told.filter(|n| n.phase == Phase::Begin);
    assert_eq!(begins.count(), 2);
}

/// A line that never has a quiet minute: each event of what has been told and is over gives way to what is new.
#[test]
fn what_is_new_is_told_however_much_is_over() {
    let mut ledger = Ledger::new(300 * S);
    let mut begins = 0;
    for n in 0..3 * OPEN as u64 {
        let at = Monotonic::from_nanos(n * S);
        let f = Finding::new(Kind::LossBurst, Severity::Warning, at);
        ledger.happened((n / 64) as u8, n as u8 % 64, f, at);
        begins += core::iter::from_fn(|| ledger.poll())
            .filter(|n| n.phase == Phase::Begin)
            .count();
    }
    assert_eq!((begins, ledger.overflow()), (3 * OPEN, 0));
    assert!(ledger.may_change(3 * OPEN as u32 - 1) && !ledger.may_change(0));
}

/// The figures of an event after each of these findings of packet loss: series, probes, the window in seconds, and
/// whether that makes it worse.
fn measured(findings: &[(u8, u64, u64, Severity)]) -> u64 {
    let mut ledger = Ledger::new(300 * S);
    for (series, probes, within_s, severity) in findings {
        let f = Finding::new(Kind::PacketLoss, *severity, Monotonic::from_nanos(1000 * S))
            .ratio("loss", 0.05)
            .number(PROBES, *probes)
            .number(WITHIN_NS, within_s * S);
        ledger.raise(0, *series, f);
    }
    let told = core::iter::from_fn(|| ledger.poll()).count();
    assert!(told > 0);
    number(&ledger.open[0].event.values, PROBES)
}

/// What was raised within three minutes that lasted for half of one is told of that half when it is over.
#[test]
fn figures_of_more_than_all_of_it_give_way_to_those_of_all_of_it() {
    let raised = (1, 777, 180, Severity::Warning);
    assert_eq!(measured(&[raised, (1, 344, 35, Severity::Info)]), 344);
    // Not to those of a series that sends less,
    assert_eq!(measured(&[raised, (2, 34, 35, Severity::Info)]), 777);
    // nor to those of a part of it.
    let of_all = (1, 344, 35, Severity::Warning);
    assert_eq!(measured(&[of_all, (2, 340, 60, Severity::Warning)]), 344);
}

#[test]
fn a_burst_is_as_long_as_its_longest_run() {
    let mut ledger = Ledger::new(300 * S);
    for (n, lost) in [(0, 3), (1, 7), (2, 1)] {
        let at = Monotonic::from_nanos((1000 + n) * S);
        let f = Finding::new(Kind::LossBurst, Severity::Warning, at).number(LOST, lost);
        ledger.happened(0, 3, f, at);
    }
    assert_eq!(number(&ledger.open[0].event.values, LOST), 7);
}

/// Who told where something began that comes back at a period moves that both ways while it lasts, but not beyond where
/// another tells it.
#[test]
fn the_begin_of_a_period_is_where_who_told_it_knows_it_by_now() {
    let mut ledger = Ledger::new(300 * S);
    let at = |s: u64| Monotonic::from_nanos(s * S);
    let start = |ledger: &mut Ledger, kind, series, s| {
        ledger.raise(0, series, Finding::new(kind, Severity::Warning, at(s)));
        let told = core::iter::from_fn(|| ledger.poll()).last();
        told.map(|n| n.event.start.as_nanos() / S)
    };
    let kind = Kind::PeriodicLoss;
    assert_eq!(start(&mut ledger, kind, 1, 100), Some(100));
    assert_eq!(start(&mut ledger, kind, 1, 130), Some(130));
    assert_eq!(start(&mut ledger, kind, 2, 160), Some(130));
    assert_eq!(start(&mut ledger, kind, 1, 110), Some(110));
    // But not beyond where another tells it, who may know better then.
    assert_eq!(start(&mut ledger, kind, 2, 120), None);
    assert_eq!(start(&mut ledger, kind, 1, 140), Some(120));
    assert_eq!(start(&mut ledger, kind, 2, 170), Some(140));
    assert_eq!(start(&mut ledger, kind, 1, 110), Some(110));
    ledger.clear(0, 1, kind, at(500));
    ledger.clear(0, 2, kind, at(500));
    assert_eq!(start(&mut ledger, kind, 1, 600), Some(110));
    assert_eq!(start(&mut ledger, kind, 1, 630), None);
    assert_eq!(start(&mut ledger, Kind::HighJitter, 1, 100), Some(100));
    assert_eq!(start(&mut ledger, Kind::HighJitter, 1, 130), None);
}
