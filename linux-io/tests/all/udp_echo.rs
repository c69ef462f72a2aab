//! UDP between two engines over loopback: all four stamps, with every kernel feature and with every
//! fallback.

use std::net::SocketAddr;

use crate::common::{all_features, engine, loopback, unspecified, wait_for, warm_up};
use bufferbane_core::time::{ClockSource, Monotonic, Stamp};
use bufferbane_linux_io::support::Features;
use bufferbane_linux_io::{Engine, Event, Family, ProbeSocket, SocketId, Transmit};

/// One round trip; returns request tx, remote rx, remote tx, reply rx.
fn round_trip(
    client: &mut Engine,
    c: SocketId,
    server: &mut Engine,
    s: SocketId,
    to: SocketAddr,
    key: u32,
) -> [Stamp; 4] {
    let none = Stamp {
        at: Monotonic::ZERO,
        clock: ClockSource::None,
    };
    let [mut tx, mut remote_rx, mut remote_tx, mut rx] = [none; 4];
    client.send(c, to, &key.to_be_bytes(), key).unwrap();
    client.outbox().flush().unwrap();
    assert!(wait_for(server, 1000, |out, event| match event {
        Event::Received {
            socket,
            meta,
            bytes,
        } => {
            assert_eq!(socket, s);
            assert_eq!(bytes, key.to_be_bytes());
            assert_eq!(meta.to, Some(to.ip()));
            assert!(meta.ttl.is_some() && meta.tos == Some(0x88) && !meta.truncated);
            remote_rx = meta.at;
            let reply = Transmit {
                from: meta.to,
                ..Transmit::new(s, meta.from, key ^ 1)
            };
            out.send(&reply, bytes).unwrap();
            out.flush().unwrap();
            false
        }
        Event::TxStamp { key: k, stamp, .. } => {
            assert_eq!(k, key ^ 1);
            remote_tx = stamp;
            true
        }
        other => panic!("{other:?}"),
    }));
    let mut have = 0;
    assert!(wait_for(client, 1000, |_, event| {
        match event {
            Event::Received { meta, bytes, .. } => {
                assert_eq!(bytes, key.to_be_bytes());
                assert_eq!(meta.from, to);
                rx = meta.at;
            }
            Event::TxStamp { key: k, stamp, .. } => {
                assert_eq!(k, key);
                tx = stamp;
            }
            other => panic!("{other:?}"),
        }
        have += 1;
        have == 2
    }));
    [tx, remote_rx, remote_tx, rx]
}

fn four_stamps(features: Features, family: Family) {
    let mut client = engine(features);
    let mut server = engine(features);
    let any = SocketAddr::new(unspecified(family), 0);
    let s = ProbeSocket::udp(family).bind(any).build().unwrap();
    let to = SocketAddr::new(loopback(family), s.local_addr().port());
    let s = server.add_socket(s).unwrap();
    let c = ProbeSocket::udp(family)
        .interface("lo")
        .dscp(34)
        .build()
        .unwrap();
    let c = client.add_socket(c).unwrap();
    let mut worst = 0;
    for key in 0..200u32 {
        let stamps = round_trip(&mut client, c, &mut server, s, to, key * 2);
        for pair in stamps.windows(2) {
            assert_eq!(pair[0].clock, ClockSource::Kernel);
            let back = pair[0].at.saturating_since(pair[1].at);
            // Both ends read their offset on their own, to within a reading's width.
            assert!(back < 1_000, "{features:?} {stamps:?}");
            worst = worst.max(back);
        }
        assert_eq!(stamps[3].clock, ClockSource::Kernel);
    }
    println!("{family:?} {features:?}: order held to within {worst} ns");
}

#[test]
fn four_stamps_in_order_with_every_feature_and_without() {
    warm_up();
    for family in [Family::V4, Family::V6] {
        for features in all_features() {
            four_stamps(features, family);
        }
    }
}

#[test]
fn stamps_by_the_counter_find_their_datagrams_too() {
    warm_up();
    let mut e = engine(Features::ALL);
    let builder = ProbeSocket::udp(Family::V4).count_stamps(true);
    let (id, at) = crate::common::add_local(&mut e, builder, Family::V4);
    for first in (0..10_000u32).step_by(50) {
        let mut keys = Vec::new();
        for key in first..first + 50 {
            e.send(id, at, b"x", key ^ 0xdead_0000).unwrap();
        }
        assert!(
            wait_for(&mut e, 1000, |_, event| {
                if let Event::TxStamp { key, .. } = event {
                    keys.push(key ^ 0xdead_0000);
                }
                keys.len() == 50
            }),
            "{} of {first}: {:?}",
            keys.len(),
            e.counters()
        );
        assert!(keys.into_iter().eq(first..first + 50));
    }
}
