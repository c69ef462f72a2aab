//! Echo requests to this host by ping sockets and raw sockets, stamped.

use crate::common::{all_features, engine, inside_namespace, loopback, wait_for, warm_up};
use bufferbane_core::time::ClockSource;
use bufferbane_linux_io::{Event, Family, ProbeSocket, SocketKind};

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
        _ => ProbeSocket::raw_icmp(family),
    };
    for features in all_features() {
        let mut e = engine(features);
        let socket = build().interface("lo").build().unwrap();
        let own = socket.local_addr().port();
        let id = e.add_socket(socket).unwrap();
        let to = std::net::SocketAddr::new(loopback(family), 0);
        for sequence in 0..20u16 {
            let key = 1000 + u32::from(sequence);
            e.send(id, to, &request(family, 0x4242, sequence), key)
                .unwrap();
            let (mut tx, mut rx) = (None, None);
            assert!(
                wait_for(&mut e, 1000, |_, event| {
                    match event {
                        Event::TxStamp { key: k, stamp, .. } if k == key => tx = Some(stamp),
                        Event::Received { meta, bytes, .. } => {
                            let message = match (kind, family) {
                                (SocketKind::RawIcmp, Family::V4) => &bytes[20..],
                                _ => bytes,
                            };
                            let reply = if family == Family::V4 { 0 } else { 129 };
                            assert_eq!(message[0], reply, "only echo replies pass");
                            if message[6..8] == sequence.to_be_bytes() {
                                let identifier = u16::from_be_bytes([message[4], message[5]]);
                                let expected = if kind == SocketKind::Ping {
                                    own
                                } else {
                                    0x4242
                                };
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
    for kind in [SocketKind::Ping, SocketKind::RawIcmp] {
        for family in [Family::V4, Family::V6] {
            echoes(kind, family);
        }
    }
}
