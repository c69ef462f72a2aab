//! Orders and reports of throughput tests, in their session.

use core::net::SocketAddr;

use super::*;
use crate::load::guest::{Guest, Wish};
use crate::load::host::{Asker, HostLimits};
use crate::load::negotiation::host_with;
use crate::wire::load::ORDER_LEN;

const ADDRESS: [u8; 4] = [192, 0, 2, 7];

fn guest() -> Guest {
    let wish = Wish {
        streams_up: 1,
        streams_down: 1,
        time_ms: 1000,
        dscp: [0; 8],
        congestion: [0; 16],
        prefix: None,
        offer: None,
    };
    Guest::new(wish, 7, Monotonic::ZERO)
}

#[test]
fn orders_and_reports_open_once_and_only_in_their_session() {
    let mut w = World::new(|_| (false, false));
    let mut guest = guest();
    let order = guest.poll_order(Monotonic::ZERO).unwrap();
    assert!(
        w.client.write_order(&order).is_none(),
        "there is no session yet"
    );
    w.run_until(500);
    let now = Monotonic::from_nanos(500 * MS);
    let there = now.saturating_add(OFFSET);
    let sealed = w.client.write_order(&order).unwrap();
    let m = meta(1, ADDRESS, 1000);
    let (from, opened) = w
        .reflector
        .open_order(there, &m, &mut sealed.clone())
        .unwrap();
    assert_eq!((from.client, opened.test.get()), (0, 7));
    // Such a session is not kept for long once its client is silent.
    let after = |ms: u64| w.reflector.sessions(there.saturating_add(ms * MS)).count();
    assert_eq!((after(9_000), after(10_000)), (1, 0));
    let again = w.reflector.open_order(there, &m, &mut sealed.clone());
    assert_eq!(again.unwrap_err(), DropReason::Replay);
    for at in 0..ORDER_LEN {
        let mut bad = sealed;
        bad[at] ^= 0x10;
        assert!(w.reflector.open_order(there, &m, &mut bad).is_err());
    }
    // Its report would be longer than a shorter one.
    let mut shorter = sealed;
    let shorter = &mut shorter[..ORDER_LEN - 1];
    let refused = w.reflector.open_order(there, &m, shorter);
    assert_eq!(refused.unwrap_err(), DropReason::Length);
    let mut host = host_with(HostLimits {
        concurrent: 1,
        streams: 8,
    });
    let asker = Asker {
        client: from.client,
        bytes_left: None,
        congestion_known: true,
        port: 9,
        max_rate_bps: None,
        proven: true,
        may_announce: true,
        figures: None,
    };
    let report = host.handle_order(now, &asker, &opened, &mut w.rng).unwrap();
    let sealed = w.reflector.write_report(from, &report).unwrap();
    let opened = w.client.open_report(now, &mut sealed.clone()).unwrap();
    guest.handle_report(now, &opened).unwrap();
    assert_eq!(guest.grant().unwrap().port, 9);
    for at in 0..ORDER_LEN {
        let mut bad = sealed;
        bad[at] ^= 0x10;
        assert!(w.client.open_report(now, &mut bad).is_err(), "byte {at}");
    }
    // Sent again, it does not say that the reflector is still there.
    for ms in [100, 900, 1800] {
        let later = now.saturating_add(ms * MS);
        assert!(w.client.open_report(later, &mut sealed.clone()).is_ok());
        let mut out = [0; 1500];
        while w
            .client
            .poll_transmit(later, &mut w.rng, &mut out)
            .is_some()
        {}
        w.client.handle_timeout(later);
    }
    assert!(!w.client.is_answering());
}

#[test]
fn orders_are_taken_at_the_pace_of_a_client_and_cost_no_probe() {
    let mut w = World::new(|_| (false, false));
    let order = guest().poll_order(Monotonic::ZERO).unwrap();
    w.run_until(500);
    let now = Monotonic::from_nanos(500 * MS + OFFSET);
    let mut taken = |from_ms: u64, count: u64, every_ms: u64| {
        let orders = (0..count).filter(|n| {
            let at = now.saturating_add((from_ms + n * every_ms) * MS);
            let mut sealed = w.client.write_order(&order).unwrap();
            let m = meta(1, ADDRESS, 1000);
            let taken = w.reflector.open_order(at, &m, &mut sealed);
            if let Err(reason) = &taken {
                assert_eq!(*reason, DropReason::RateLimit);
            }
            taken.is_ok()
        });
        orders.count()
    };
    // As a client polls, for ten minutes, and the fetches of a minute's bins.
    assert_eq!(taken(0, 2400, 250), 2400);
    assert_eq!(taken(600_000, 12, 0), 12);
    // As fast as its packets per second allow: no more than the pace.
    assert_eq!(taken(610_000, 900, 1), 30 + 17);
    assert_eq!(w.reflector.own_drops_of_test(), 0);
}

#[test]
fn a_client_is_heard_where_it_answered_a_challenge_and_nowhere_else() {
    let mut w = World::new(|_| (false, false));
    let order = guest().poll_order(Monotonic::ZERO).unwrap();
    w.run_until(500);
    let now = Monotonic::from_nanos(500 * MS + OFFSET);
    let peer = |port| SocketAddr::from((ADDRESS, port));
    let ordered = |w: &mut World, port| {
        let mut sealed = w.client.write_order(&order).unwrap();
        let m = meta(1, ADDRESS, port);
        w.reflector.open_order(now, &m, &mut sealed).unwrap().0
    };
    let from = ordered(&mut w, 1000);
    assert!(from.proven && w.reflector.hears(from, peer(1000), now, MS));
    assert!(!w.reflector.hears(from, peer(1001), now, MS));
    let later = now.saturating_add(MS);
    assert!(!w.reflector.hears(from, peer(1000), later, MS), "silent");
    // What it says elsewhere does not keep it there.
    assert!(!ordered(&mut w, 1001).proven);
    for port in [1000, 1001] {
        assert!(!w.reflector.hears(from, peer(port), now, MS), "{port}");
    }
}
