//! What evidence shows together, and what each piece of it does not show by itself.

use super::super::{Channel, Grants, Loss};
use super::*;

const GRANTS: Reading = Reading::Grants(Grants {
    period_ns: 2_000_000,
    steps: false,
    strength: 0.4,
    pairs: 20_000,
});

fn kinds(readings: &[Reading], told: &[Told], modem: bool) -> std::vec::Vec<FindingKind> {
    let hours = readings
        .iter()
        .enumerate()
        .map(|(n, r)| (n as u64 * 3600 * S, (n as u64 + 1) * 3600 * S, *r));
    judge(hours, told, modem).iter().map(|f| f.kind).collect()
}

fn event(seen: Seen, start_s: u64, length_ns: u64) -> Told {
    Told {
        seen,
        direction: None,
        start_ns: start_s * S,
        end_ns: start_s * S + length_ns,
    }
}

fn every(period_ns: u64) -> Told {
    let seen = Seen::Period {
        period_ns,
        times: 60,
        strength: 0.9,
    };
    event(seen, 3000, 1800 * S)
}

const LOSS: Reading = Reading::Loss(Loss {
    probes: 72_000,
    up: 300,
    down: 4,
    idle: 72_000,
});

#[test]
fn one_sign_alone_shows_no_cable() {
    use FindingKind::*;
    let ranging = [every(30 * S)];
    for (readings, told, modem) in [
        (&[LOSS, LOSS][..], &ranging[..], false),
        (&[GRANTS, LOSS], &[], false),
        // Optical modems and dishes have that address, and grants.
        (&[GRANTS, LOSS], &[], true),
        (&[GRANTS, LOSS], &[every(12 * S)], true),
        (&[LOSS, LOSS], &[every(15 * S)], true),
    ] {
        assert!(kinds(readings, told, modem).is_empty());
    }
    assert_eq!(kinds(&[LOSS, LOSS], &ranging, true), [Ranging]);
    assert_eq!(kinds(&[GRANTS], &ranging, false), [RequestGrant, Ranging]);
}

/// It needs no trouble, and each finding is as sure as it is by itself.
#[test]
fn what_a_person_says_is_a_cable_is_judged_as_one() {
    use FindingKind::*;
    assert!(kinds(&[Reading::Said], &[], false).is_empty());
    assert_eq!(
        kinds(&[Reading::Said, GRANTS, LOSS], &[], false),
        [RequestGrant, DirectionalLoss]
    );
    // Its time does not matter, nor does what else shows it.
    assert_eq!(
        kinds(&[LOSS, GRANTS, Reading::Said], &[every(30 * S)], true),
        [RequestGrant, Ranging]
    );
    assert_eq!(
        kinds(&[Reading::Said], &[every(12 * S)], false),
        [Periodicity]
    );
    let sure = |readings: &[Reading]| {
        let hours = readings.iter().map(|r| (0, 3600 * S, *r));
        let found = judge(hours, &[every(30 * S)], false);
        found.iter().map(|f| f.confidence).fold(0.0, f64::max)
    };
    assert!(sure(&[GRANTS]) <= BY_GRANTS && sure(&[Reading::Said, GRANTS]) > BY_GRANTS);
}

#[test]
fn confidence_is_at_most_that_of_the_line_being_a_cable() {
    let most = |readings: &[Reading], modem| {
        let hours = readings.iter().map(|r| (0, 3600 * S, *r));
        let found = judge(hours, &[every(30 * S)], modem);
        found.iter().map(|f| f.confidence).fold(0.0, f64::max)
    };
    assert!(most(&[LOSS], true) <= BY_MODEM);
    assert!(most(&[GRANTS], false) <= BY_GRANTS);
    assert!(most(&[GRANTS], true) > BY_GRANTS);
}

/// Hours of a line that shows ranging in one of them, long after those that are given.
fn of_cable(readings: &[Reading], told: &[Told]) -> std::vec::Vec<FindingKind> {
    let mut all = std::vec![every(30 * S)];
    all[0].start_ns += 1000 * 3600 * S;
    all[0].end_ns += 1000 * 3600 * S;
    all.extend(told);
    kinds(readings, &all, false)
}

#[test]
fn each_piece_of_evidence_is_told_once() {
    use FindingKind::*;
    assert_eq!(
        of_cable(&[GRANTS, LOSS], &[]),
        [RequestGrant, DirectionalLoss, Ranging]
    );
    // The losses of the hour are those that come back, and 30 s are ranging.
    for (period_ns, more) in [(30 * S, &[][..]), (12 * S, &[Periodicity])] {
        assert_eq!(
            of_cable(&[GRANTS, LOSS], &[every(period_ns)]),
            [&[RequestGrant, Ranging][..], more].concat()
        );
    }
    // Losses of a dead channel are no loss beside it.
    let lost = Loss {
        probes: 72_000,
        up: 605,
        down: 6,
        idle: 72_000,
    };
    let dead = [channel(1200, 302), channel(1200, 296)];
    let mut readings = std::vec![GRANTS, Reading::Loss(lost)];
    readings.extend(dead);
    assert_eq!(
        of_cable(&readings, &[]),
        [RequestGrant, BondedChannel, Ranging]
    );
    // Where shares differ it is no channel, and they are losses.
    readings[3] = channel(1200, 550);
    assert_eq!(
        of_cable(&readings, &[]),
        [RequestGrant, DirectionalLoss, Ranging]
    );
}

fn channel(probes: u64, lost: u64) -> Reading {
    Reading::Channel(Channel {
        probes,
        lost,
        ..Channel::default()
    })
}

#[test]
fn a_channel_is_told_where_only_one_number_of_them_fits_and_it_was_seen_twice() {
    let is_told = |readings: &[Reading]| {
        let all = [&[GRANTS], readings].concat();
        of_cable(&all, &[]).contains(&FindingKind::BondedChannel)
    };
    assert!(is_told(&[channel(1200, 302), channel(1200, 296)]));
    assert!(!is_told(&[channel(2400, 598)]));
    // One in five, in six and in seven fit, or none.
    assert!(!is_told(&[channel(120, 20), channel(120, 20)]));
    assert!(!is_told(&[channel(2400, 700), channel(2400, 700)]));
}

#[test]
fn losses_of_a_channel_in_an_hour_that_is_left_out_are_not_taken_from_other_hours() {
    use FindingKind::*;
    // The third hour has a period of its own, the channel's two stretches are before and in it.
    let hour = 3600 * S;
    let readings = [
        (0, hour, GRANTS),
        (hour, 2 * hour, LOSS),
        (2 * hour, 3 * hour, LOSS),
        (2 * hour, 2 * hour + 60 * S, channel(1200, 302)),
        (2 * hour + 90 * S, 2 * hour + 150 * S, channel(1200, 296)),
    ];
    let mut ranging = every(30 * S);
    ranging.start_ns = 3 * hour - 1800 * S;
    ranging.end_ns = 3 * hour;
    let found = judge(readings.into_iter(), &[ranging], false);
    let found: std::vec::Vec<FindingKind> = found.iter().map(|f| f.kind).collect();
    assert_eq!(
        found,
        [RequestGrant, DirectionalLoss, BondedChannel, Ranging]
    );
}

#[test]
fn the_interval_that_is_told_is_one_that_was_seen() {
    let of = |period_ns, pairs| {
        Reading::Grants(Grants {
            period_ns,
            steps: false,
            strength: 0.4,
            pairs,
        })
    };
    let readings = [
        of(2_000_000, 20_000),
        of(1_000_000, 9000),
        of(2_010_000, 20_000),
        of(4_000_000, 20_000),
    ];
    let hours = readings.iter().map(|r| (0, 3600 * S, *r));
    let found = judge(hours, &[every(30 * S)], false);
    let values = &found[0].values;
    assert!(values.contains(&("interval_ns", Value::Number(2_005_000))));
    assert!(values.contains(&("pairs", Value::Number(40_000))));
}

#[test]
fn outages_as_long_as_time_outs_show_no_cable_and_are_counted_beside_ranging() {
    let outage = |n: u64, length_ns| event(Seen::Outage { near_well: true }, 977 * n, length_ns);
    let short: std::vec::Vec<Told> = (1..6).map(|n| outage(n, 300_000_000 * n)).collect();
    for modem in [true, false] {
        assert!(kinds(&[GRANTS], &short, modem).is_empty());
        assert!(kinds(&[], &short, modem).is_empty());
    }
    let long = (1..6).map(|n| outage(n, (4 + n) * S));
    let mut all: std::vec::Vec<Told> = short.iter().copied().chain(long).collect();
    all.push(every(30 * S));
    let found = judge([(0, 3600 * S, GRANTS)].into_iter(), &all, false);
    let ranging = found.iter().find(|f| f.kind == FindingKind::Ranging);
    let values = &ranging.expect("ranging").values;
    assert!(values.contains(&("outages", Value::Number(5))));
}
