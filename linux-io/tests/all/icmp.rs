//! Echo requests to this host by ping sockets and raw sockets, stamped.

use crate::common::{all_features, engine, inside_namespace, loopback, wait_for, warm_up};
use bufferbane_core::time::ClockSource;
use bufferbane_linux_io::support::Features;
use bufferbane_linux_io::{Event, Family, ProbeSocket, SocketKind};

/// Identifiers of raw sockets.
const OWN: u16 = 0x4242;
const OTHER: u16 = 0x4243;

/// An echo request with a checksum, which the kernel computes itself for all but raw IPv4.
fn request(family: Family, identifier: u16, sequence: u16) -> [u8; 24] {
    let mut m = [0x5a; 24];
    m[0] = if family == Family::V4 { 8 } else { 128 };
    m[1] = 0;
    m[2..4].fill(0);
    m[4..6].copy_from_slice(&identifier.to_be_bytes());
    m[6..8].copy_from_slice(&sequence.to_be_bytes());
    let mut sum: u32 = m
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(c[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    m[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    m
}

fn echoes(kind: SocketKind, family: Family) {
    let build = || match kind {
        SocketKind::Ping => ProbeSocket::ping(family),
        SocketKind::RawIcmp { identifier } => ProbeSocket::raw_icmp(family, identifier),
        SocketKind::Udp => unreachable!("no echoes"),
    };
    for features in all_features() {
        let mut e = engine(features);
        let socket = build().interface("lo").build().unwrap();
        let own = socket.local_addr().port();
        let id = e.add_socket(socket).unwrap();
        let to = std::net::SocketAddr::new(loopback(family), 0);
        for sequence in 0..20u16 {
            let key = 1000 + u32::from(sequence);
            e.send(id, to, &request(family, OWN, sequence), key)
                .unwrap();
            let (mut tx, mut rx) = (None, None);
            assert!(
                wait_for(&mut e, 1000, |_, event| {
                    match event {
                        Event::TxStamp { key: k, stamp, .. } if k == key => tx = Some(stamp),
                        Event::Received { meta, bytes, .. } => {
                            let message = match (kind, family) {
                                (SocketKind::RawIcmp { .. }, Family::V4) => &bytes[20..],
                                _ => bytes,
                            };
                            let reply = if family == Family::V4 { 0 } else { 129 };
                            assert_eq!(message[0], reply, "only echo replies pass");
                            if message[6..8] == sequence.to_be_bytes() {
                                let identifier = u16::from_be_bytes([message[4], message[5]]);
                                let expected = if kind == SocketKind::Ping { own } else { OWN };
                                assert_eq!(identifier, expected);
                                assert_eq!(meta.from.ip(), to.ip());
                                assert_eq!(meta.ttl, Some(64));
                                rx = Some(meta.at);
                            }
                        }
                        other => panic!("{kind:?} {family:?} {features:?} {other:?}"),
                    }
                    tx.is_some() && rx.is_some()
                }),
                "{kind:?} {family:?} {features:?} tx {tx:?} rx {rx:?} {:?}",
                e.counters()
            );
            let (tx, rx) = (tx.unwrap(), rx.unwrap());
            assert_eq!(
                (tx.clock, rx.clock),
                (ClockSource::Kernel, ClockSource::Kernel)
            );
            assert!(tx.at <= rx.at && rx.at.saturating_since(tx.at) < 1_000_000_000);
        }
    }
}

/// Two raw sockets beside each other, and an error that is of neither.
fn each_hears_its_own_replies_and_every_error(family: Family) {
    let mut e = engine(Features::ALL);
    let to = std::net::SocketAddr::new(loopback(family), 0);
    let sockets = [OWN, OTHER].map(|identifier| {
        let socket = ProbeSocket::raw_icmp(family, identifier).interface("lo");
        let id = e.add_socket(socket.build().unwrap()).unwrap();
        (id, identifier)
    });
    const EACH: u16 = 5;
    for sequence in 0..EACH {
        for (id, identifier) in sockets {
            let request = request(family, identifier, sequence);
            e.send(id, to, &request, sequence.into()).unwrap();
        }
    }
    // Nobody is there.
    let udp = std::net::UdpSocket::bind((loopback(family), 0)).unwrap();
    udp.send_to(b"?", (loopback(family), 9)).unwrap();
    let (reply, unreachable) = match family {
        Family::V4 => (0, 3),
        Family::V6 => (129, 1),
    };
    let (mut replies, mut errors) = (Vec::new(), Vec::new());
    let all_came = wait_for(&mut e, 2000, |_, event| {
        if let Event::Received {
            socket,
            meta,
            bytes,
            ..
        } = event
        {
            let message = &bytes[if family == Family::V4 { 20 } else { 0 }..];
            let identifier = u16::from_be_bytes([message[4], message[5]]);
            match message[0] {
                kind if kind == reply => replies.push((socket, identifier)),
                kind if kind == unreachable => errors.push(socket),
                kind => panic!("{kind}"),
            }
            assert_eq!(meta.socket_drops, 0, "what is left out is not lost");
        }
        replies.len() >= 2 * usize::from(EACH) && errors.len() == 2
    });
    assert!(all_came, "{family:?} {replies:?} {errors:?}");
    for of in sockets {
        let own = replies.iter().filter(|r| **r == of).count();
        assert_eq!(own, usize::from(EACH), "{family:?} {replies:?}");
        assert!(errors.contains(&of.0), "{family:?} {errors:?}");
    }
    assert_eq!(replies.len(), 2 * usize::from(EACH), "{replies:?}");
}

#[test]
fn ping_and_raw_sockets_are_answered_and_stamped() {
    // In a namespace of its own, where even who is not root may open them.
    if !inside_namespace(
        module_path!(),
        "ping_and_raw_sockets_are_answered_and_stamped",
    ) {
        return;
    }
    let up = std::process::Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    if !up.is_ok_and(|s| s.success()) {
        return crate::common::skipped("no ip command (iproute2)");
    }
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
    warm_up();
    for family in [Family::V4, Family::V6] {
        for kind in [SocketKind::Ping, SocketKind::RawIcmp { identifier: OWN }] {
            echoes(kind, family);
        }
        each_hears_its_own_replies_and_every_error(family);
    }
}
