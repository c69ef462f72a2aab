use std::vec::Vec;

use super::*;

const EVERY_NS: u64 = 50 * MS;

fn probe(sent: Monotonic, answered: bool) -> Probe {
    Probe {
        sent,
        status: if answered { Status::Ok } else { Status::Lost },
        eighths: 8,
        in_test: false,
        dropped: false,
        ttl_up: None,
        ttl_down: None,
        rtt_ns: answered.then_some(20_000_000),
        queue_up_ns: None,
        queue_down_ns: None,
        raw_up_ns: None,
        raw_down_ns: None,
    }
}

/// Begin and end in ms of what is told of a stream that loses the probes with these numbers, after a
/// minute without a loss.
fn told(lost: &[u64]) -> Vec<(u64, u64)> {
    let (mut outages, mut ledger) = (Outages::new(), Ledger::new(300 * S));
    let (near, t) = (Near::new(), Thresholds::default());
    for n in 0..1400 {
        let sent = Monotonic::from_nanos(n * EVERY_NS);
        let mut at = At {
            ledger: &mut ledger,
            line: 0,
            near: &near,
        };
        outages.step(1, 1, &probe(sent, !lost.contains(&n)), &t, &mut at);
        outages.settle(sent, &t, &mut at);
    }
    let notices = core::iter::from_fn(|| ledger.poll());
    notices
        .map(|n| {
            let end = n.event.end.expect("it is over");
            (n.event.start.as_nanos() / MS, end.as_nanos() / MS)
        })
        .collect()
}

/// Four probes in a row are gone, and one by chance before or after them.
#[test]
fn a_loss_by_chance_beside_an_outage_hides_it_not() {
    let outage = [1200, 1201, 1202, 1203];
    let right = [(60_000, 60_200)];
    assert_eq!(told(&outage), right);
    for by_chance in [1185, 1193, 1198, 1205, 1208, 1215] {
        assert_eq!(told(&[&outage[..], &[by_chance]].concat()), right);
    }
}

/// What is in the midst of losses is part of them, and so is what begins or ends them.
#[test]
fn a_run_within_a_burst_is_no_outage() {
    let run = [1200, 1201, 1202, 1203];
    for others in [
        &[1196, 1198][..],
        &[1205, 1208],
        &[1198, 1205, 1207],
        &[1206, 1207, 1208, 1210, 1213],
        &[1185, 1187, 1190, 1191, 1192, 1195, 1197],
    ] {
        assert_eq!(told(&[&run[..], others].concat()), [], "{others:?}");
    }
}

/// Who was silent, too, is named: what only some others show at that time is another trouble.
#[test]
fn an_outage_is_of_all_that_were_silent() {
    let (mut outages, mut ledger) = (Outages::new(), Ledger::new(300 * S));
    let (near, t) = (Near::new(), Thresholds::default());
    for n in 0..1400 {
        let sent = Monotonic::from_nanos(n * EVERY_NS);
        let mut at = At {
            ledger: &mut ledger,
            line: 0,
            near: &near,
        };
        for series in [1, 2, 5] {
            let probe = probe(sent, !(1200..1220).contains(&n));
            outages.step(series, series.into(), &probe, &t, &mut at);
        }
        outages.settle(sent, &t, &mut at);
    }
    let event = ledger.poll().expect("an outage").event;
    assert_eq!(event.kind, Kind::MicroOutage);
    assert_eq!(event.series.iter().collect::<Vec<u8>>(), [1, 2, 5]);
    assert!(ledger.poll().is_none());
}
