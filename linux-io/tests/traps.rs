//! What the network and the kernel do to a socket, and that nothing of it stops the engine.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::support::Features;
use bufferbane_linux_io::{
    Engine, EngineOptions, ErrorOrigin, Event, Family, MAX_PAYLOAD, Outbox, ProbeSocket, SendError,
    Transmit, clock,
};
use common::{add_local, all_features, engine, wait_for, warm_up};

#[test]
fn a_strangers_empty_datagram_does_not_stop_reception() {
    for family in [Family::V4, Family::V6] {
        for features in all_features() {
            let mut e = engine(features);
            let (_, at) = add_local(&mut e, ProbeSocket::udp(family), family);
            let stranger = UdpSocket::bind(SocketAddr::new(common::loopback(family), 0)).unwrap();
            let mut got = Vec::new();
            for round in 0..20u8 {
                stranger.send_to(&[], at).unwrap();
                stranger.send_to(&[], at).unwrap();
                stranger.send_to(&[round; 3], at).unwrap();
                assert!(wait_for(&mut e, 1000, |_, event| {
                    if let Event::Received { bytes, .. } = event {
                        got.push(bytes.len());
                    }
                    got.last() == Some(&3) && got.len() == 3 * (usize::from(round) + 1)
                }));
            }
            assert!(e.counters().rearmed > 0, "the trap was there");
        }
    }
}

#[test]
fn more_datagrams_than_buffers_all_arrive() {
    let options = EngineOptions {
        receive_buffers: 4,
        ..EngineOptions::prober()
    };
    let mut e = Engine::new(&options).unwrap();
    let (_, at) = add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..64u8 {
        sender.send_to(&[n], at).unwrap();
    }
    let mut next = 0;
    assert!(wait_for(&mut e, 1000, |_, event| {
        if let Event::Received { bytes, .. } = event {
            assert_eq!(bytes, [next]);
            next += 1;
        }
        next == 64
    }));
    let counters = e.counters();
    println!("{counters:?}");
    assert!(counters.out_of_buffers > 0, "the trap was there");
}

#[test]
fn a_refused_connection_is_told_and_stops_nothing() {
    warm_up();
    for family in [Family::V4, Family::V6] {
        for features in all_features() {
            let mut e = engine(features);
            let (id, at) = add_local(&mut e, ProbeSocket::udp(family).report_errors(true), family);
            // A port that nobody has: bound and let go.
            let nobody = UdpSocket::bind(SocketAddr::new(common::loopback(family), 0))
                .unwrap()
                .local_addr()
                .unwrap();
            let mut errors = 0;
            let mut stamps = 0;
            for key in 0..10u32 {
                e.send(id, nobody, b"anybody?", key).unwrap();
                let (errors_before, stamps_before) = (errors, stamps);
                assert!(
                    wait_for(&mut e, 1000, |_, event| {
                        match event {
                            Event::SocketError {
                                errno,
                                origin,
                                to,
                                offender,
                                quoted,
                                ..
                            } => {
                                assert_eq!(errno, libc::ECONNREFUSED);
                                let expected = match family {
                                    Family::V4 => ErrorOrigin::Icmp { kind: 3, code: 3 },
                                    Family::V6 => ErrorOrigin::Icmp6 { kind: 1, code: 4 },
                                };
                                assert_eq!(origin, expected);
                                assert_eq!(to, Some(nobody));
                                assert_eq!(offender, Some(nobody.ip()));
                                assert_eq!(quoted, b"anybody?");
                                errors += 1;
                            }
                            Event::TxStamp { key: k, .. } => {
                                assert_eq!(k, key, "{features:?}");
                                stamps += 1;
                            }
                            Event::Sent { errno, .. } => panic!("send failed: {errno:?}"),
                            other => panic!("{other:?}"),
                        }
                        errors > errors_before && stamps > stamps_before
                    }),
                    "{family:?} {features:?} {errors} {stamps} {:?}",
                    e.counters()
                );
            }
            // It still receives, and sends to others are not failed by the errors.
            e.send(id, at, b"me", 99).unwrap();
            assert!(wait_for(&mut e, 1000, |_, event| matches!(
                event,
                Event::Received { bytes: b"me", .. }
            )));
        }
    }
}

#[test]
fn an_error_of_one_target_does_not_fail_a_send_to_another() {
    let mut e = engine(Features::ALL);
    let builder = ProbeSocket::udp(Family::V4)
        .report_errors(true)
        .report_sent(true);
    let (id, at) = add_local(&mut e, builder, Family::V4);
    let nobody = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut received = 0;
    let mut sent = 0;
    for key in 0..50u32 {
        // In one submission, so that the error of the first is pending when the second is sent.
        e.send(id, nobody, b"x", key * 2).unwrap();
        e.send(id, at, b"y", key * 2 + 1).unwrap();
        assert!(wait_for(&mut e, 1000, |_, event| {
            match event {
                Event::Received { .. } => received += 1,
                Event::Sent { errno, .. } => {
                    assert_eq!(errno, None);
                    sent += 1;
                }
                _ => {}
            }
            received == key + 1 && sent == 2 * (key + 1)
        }));
    }
    println!("{:?}", e.counters());
    assert!(e.counters().send_retries > 0, "the trap was there");
}

#[test]
fn a_datagram_longer_than_the_buffer_is_marked() {
    let options = EngineOptions {
        receive_buffer_bytes: EngineOptions::RECEIVE_OVERHEAD + 100,
        ..EngineOptions::prober()
    };
    let mut e = Engine::new(&options).unwrap();
    let (_, at) = add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [100usize, 101] {
        sender.send_to(&vec![7; len], at).unwrap();
        assert!(wait_for(&mut e, 1000, |_, event| match event {
            Event::Received { meta, bytes, .. } => {
                assert_eq!(bytes.len(), 100);
                assert_eq!(meta.truncated, len > 100);
                true
            }
            _ => false,
        }));
    }
}

#[test]
fn what_cannot_be_sent_is_told_with_its_errno() {
    warm_up();
    for features in all_features() {
        let mut e = engine(features);
        let (id, at) = add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4);
        let broadcast: SocketAddr = "255.255.255.255:9".parse().unwrap();
        // Refused sends between good ones: each stamp still finds its own datagram.
        let mut sent_at = [Monotonic::ZERO; 60];
        for round in 0..20u32 {
            let (bad, good) = (round * 3, round * 3 + 1);
            e.send(id, broadcast, b"no", bad).unwrap();
            sent_at[good as usize] = clock::now();
            e.send(id, at, b"yes", good).unwrap();
            e.send(id, broadcast, b"no", good + 1).unwrap();
            let (mut failed, mut stamped, mut received) = (Vec::new(), false, false);
            assert!(
                wait_for(&mut e, 1000, |_, event| {
                    match event {
                        Event::Sent { key, errno, .. } => {
                            assert_eq!(errno, Some(libc::EACCES));
                            failed.push(key);
                        }
                        Event::TxStamp { key, stamp, .. } => {
                            assert_eq!(key, good, "{features:?}");
                            assert!(stamp.at >= sent_at[good as usize]);
                            stamped = true;
                        }
                        Event::Received { .. } => received = true,
                        other => panic!("{other:?}"),
                    }
                    failed.len() == 2 && stamped && received
                }),
                "{features:?} {failed:?} {stamped} {received}"
            );
            assert_eq!(failed, [bad, good + 1]);
        }
        assert_eq!(e.counters().stray_stamps, 0);
    }
}

#[test]
fn a_full_slot_table_is_an_error_and_passes() {
    let options = EngineOptions {
        send_slots: 4,
        ..EngineOptions::prober()
    };
    let mut e = Engine::new(&options).unwrap();
    let (id, at) = add_local(
        &mut e,
        ProbeSocket::udp(Family::V4).report_sent(true),
        Family::V4,
    );
    for key in 0..4 {
        e.send(id, at, b"x", key).unwrap();
    }
    assert_eq!(e.send(id, at, b"x", 4), Err(SendError::Full));
    let mut sent = 0;
    assert!(wait_for(&mut e, 1000, |_, event| {
        sent += usize::from(matches!(event, Event::Sent { errno: None, .. }));
        sent == 4
    }));
    e.send(id, at, b"x", 4).unwrap();

    // Where nobody asked for reports, slots are free again after a submission that the engine makes
    // by itself.
    let (quiet, at) = add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4);
    for key in 0..100 {
        e.send(quiet, at, b"x", key).unwrap();
    }
    assert_eq!(
        e.send(id, at, &[0; MAX_PAYLOAD + 1], 0),
        Err(SendError::TooLong)
    );
}

#[test]
fn a_removed_socket_is_gone_and_its_port_and_place_are_free() {
    let options = EngineOptions {
        sockets: 1,
        ..EngineOptions::prober()
    };
    let mut e = Engine::new(&options).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut at: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut old = None;
    for round in 0..50u8 {
        let socket = ProbeSocket::udp(Family::V4).bind(at).build().unwrap();
        at = socket.local_addr();
        let id = e.add_socket(socket).unwrap();
        let second = ProbeSocket::udp(Family::V4).build().unwrap();
        assert!(e.add_socket(second).is_err(), "the table has one place");
        if let Some(old) = old {
            assert_eq!(e.send(old, at, b"x", 0), Err(SendError::NoSocket));
            assert!(e.remove_socket(old).is_none());
        }
        sender.send_to(&[round], at).unwrap();
        assert!(wait_for(&mut e, 1000, |_, event| match event {
            Event::Received { socket, bytes, .. } => {
                assert_eq!((socket, bytes), (id, &[round][..]));
                true
            }
            _ => false,
        }));
        // Left unread: must not come out of the socket that takes the place.
        sender.send_to(b"late", at).unwrap();
        e.remove_socket(id).unwrap();
        e.wait(clock::now(), &mut |_: &mut Outbox<'_>, event: Event<'_>| {
            panic!("{event:?}")
        })
        .unwrap();
        old = Some(id);
    }
}

#[test]
fn another_thread_can_wake_a_wait() {
    for features in all_features() {
        let mut e = engine(features);
        let waker = e.waker();
        let begun = clock::now();
        let thread = std::thread::spawn(move || {
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(10));
                waker.wake();
            }
        });
        for _ in 0..3 {
            assert!(wait_for(&mut e, 2000, |_, event| event == Event::Wake));
        }
        assert!(clock::now().saturating_since(begun) >= 30_000_000);
        thread.join().unwrap();
    }
}

#[test]
fn deadlines_are_kept() {
    for features in all_features() {
        let mut e = engine(features);
        let mut late: Vec<u64> = Vec::new();
        let origin = clock::now();
        for k in 1..=100 {
            let until = origin.saturating_add(k * 2_000_000);
            while clock::now() < until {
                e.wait(until, &mut |_: &mut Outbox<'_>, event: Event<'_>| {
                    panic!("{event:?}")
                })
                .unwrap();
            }
            late.push(clock::now().saturating_since(until));
        }
        late.sort_unstable();
        println!(
            "late by p50 {} p99 {} max {} ns with {features:?}",
            late[50], late[98], late[99]
        );
        assert!(late[50] < 5_000_000);
    }
    // A deadline that has passed, and one that never comes but for an event.
    let mut e = engine(Features::NONE);
    assert_eq!(
        e.wait(Monotonic::ZERO, &mut |_: &mut Outbox<'_>, _: Event<'_>| {})
            .unwrap(),
        0
    );
    let (id, at) = add_local(
        &mut e,
        ProbeSocket::udp(Family::V4).stamps(true, false),
        Family::V4,
    );
    e.send(id, at, b"x", 0).unwrap();
    assert_eq!(
        e.wait(Monotonic::MAX, &mut |_: &mut Outbox<'_>, _: Event<'_>| {})
            .unwrap(),
        1
    );
}

#[test]
fn spinning_hits_the_deadline() {
    let options = EngineOptions {
        spin_ns: 200_000,
        ..EngineOptions::prober()
    };
    let mut e = Engine::new(&options).unwrap();
    let origin = clock::now();
    let mut late: Vec<u64> = (1..=50)
        .map(|k| {
            let until = origin.saturating_add(k * 2_000_000);
            while clock::now() < until {
                e.wait(until, &mut |_: &mut Outbox<'_>, _: Event<'_>| {})
                    .unwrap();
            }
            clock::now().saturating_since(until)
        })
        .collect();
    late.sort_unstable();
    println!(
        "late by p50 {} p90 {} max {} ns",
        late[25], late[45], late[49]
    );
    assert!(late[0] < 50_000);
}

#[test]
fn the_octets_of_the_header_are_set_and_seen() {
    for family in [Family::V4, Family::V6] {
        let mut e = engine(Features::ALL);
        let builder = ProbeSocket::udp(family).dscp(46).ttl(77).interface("lo");
        let (id, at) = add_local(&mut e, builder, family);
        for (tos, expected) in [(None, 46 << 2), (Some(0x21), 0x21)] {
            let transmit = Transmit {
                tos,
                from: Some(at.ip()),
                ..Transmit::new(id, at, 5)
            };
            e.outbox().send(&transmit, b"x").unwrap();
            assert!(wait_for(&mut e, 1000, |_, event| match event {
                Event::Received { meta, .. } => {
                    assert_eq!((meta.ttl, meta.tos), (Some(77), Some(expected)));
                    assert_eq!((meta.from, meta.to), (at, Some(at.ip())));
                    true
                }
                _ => false,
            }));
        }
    }
}

#[test]
fn what_cannot_be_opened_is_explained() {
    let e = ProbeSocket::udp(Family::V4)
        .interface("no-such-link")
        .build()
        .unwrap_err();
    println!("{e}");
    assert!(e.to_string().contains("SO_BINDTODEVICE no-such-link"));
    let taken = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let _holder = UdpSocket::bind(taken).unwrap();
    let e = ProbeSocket::udp(Family::V4)
        .bind(taken)
        .build()
        .unwrap_err();
    println!("{e}");
    assert!(e.to_string().contains(&taken.to_string()));
    let e = ProbeSocket::udp(Family::V4)
        .bind("192.0.2.1:0".parse().unwrap())
        .build()
        .unwrap_err();
    assert!(e.to_string().contains("does not have that address"));
}

/// A single-shot receive beside a filled error queue is handed to a worker thread, which would send
/// and stamp at its own pace; a multishot one is not.
#[test]
fn a_filled_error_queue_starts_no_worker_thread() {
    for features in all_features() {
        let mut e = engine(features);
        let builder = ProbeSocket::udp(Family::V4).report_errors(true);
        let (id, at) = add_local(&mut e, builder, Family::V4);
        let nobody = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let (mut received, mut errors) = (0, 0);
        for key in (0..200).step_by(2) {
            e.send(id, nobody, b"anybody?", key).unwrap();
            e.send(id, at, b"me", key + 1).unwrap();
        }
        assert!(wait_for(&mut e, 2000, |_, event| {
            match event {
                Event::Received { .. } => received += 1,
                Event::SocketError { .. } => errors += 1,
                _ => {}
            }
            received == 100 && errors == 100
        }));
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        for thread in threads.filter_map(Result::ok) {
            // A thread of another test may have ended meanwhile.
            let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            assert!(!name.starts_with("iou-wrk"), "{features:?}");
        }
    }
}
