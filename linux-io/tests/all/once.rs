//! Everything that arrives and every stamp is told once, however much of both there is.

use std::net::UdpSocket;

use crate::common::{add_local, all_features, engine, wait_for};
use bufferbane_linux_io::{Event, Family, ProbeSocket, clock};

const SOCKETS: usize = 8;

/// What the `serial`-th datagram to a socket says.
fn payload(socket: usize, serial: u32) -> [u8; 5] {
    let mut bytes = [socket as u8; 5];
    bytes[1..].copy_from_slice(&serial.to_be_bytes());
    bytes
}

#[test]
fn after_a_stall_every_socket_gets_its_own_datagrams() {
    for features in all_features() {
        let mut e = engine(features);
        let sockets: [_; SOCKETS] =
            std::array::from_fn(|_| add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4));
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut sent, mut next) = ([0_u32; SOCKETS], [0_u32; SOCKETS]);
        for round in 0..80 {
            // What came while the engine was kept from running: from a few to more than it has
            // buffers for.
            let burst = [1, 3, 20, 31, 33, 40, 64, 70][round % 8] + round % 5;
            for _ in 0..burst {
                for (i, (_, at)) in sockets.iter().enumerate() {
                    sender.send_to(&payload(i, sent[i]), at).unwrap();
                    sent[i] += 1;
                }
            }
            let all = wait_for(&mut e, 2000, |_, event| {
                if let Event::Received { socket, bytes, .. } = event {
                    let i = sockets.iter().position(|(id, _)| *id == socket).unwrap();
                    assert_eq!(bytes, payload(i, next[i]), "round {round}, {features:?}");
                    next[i] += 1;
                }
                next == sent
            });
            assert!(all, "round {round}, {features:?}: {:?}", e.counters());
        }
    }
}

/// With `SOCKET_URING_OP_TX_TIMESTAMP` on Linux 6.18 some completion of the lap before came again
/// every some ten laps of the queue: an old stamp, or a receive buffer that the kernel had already.
#[test]
fn completions_do_not_come_again() {
    const STAMPED: u64 = 100_000;
    for features in all_features() {
        let mut e = engine(features);
        let sockets: [_; SOCKETS] =
            std::array::from_fn(|_| add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4));
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = nobody.local_addr().unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (mut sent, mut next) = ([0_u32; SOCKETS], [0_u32; SOCKETS]);
        let mut key = 0;
        let mut deadline = clock::now();
        while u64::from(key) < STAMPED || next != sent || e.counters().stamps < u64::from(key) {
            if u64::from(key) < STAMPED {
                for (i, (id, at)) in sockets.iter().enumerate() {
                    e.send(*id, to, b"stamp", key).unwrap();
                    key += 1;
                    if key % 64 < SOCKETS as u32 {
                        sender.send_to(&payload(i, sent[i]), at).unwrap();
                        sent[i] += 1;
                    }
                }
                deadline = clock::now().saturating_add(5_000_000_000);
            }
            assert!(clock::now() < deadline, "{features:?}: {:?}", e.counters());
            let until = clock::now().saturating_add(1_000_000);
            e.wait(until, &mut |_, event| {
                if let Event::Received { socket, bytes, .. } = event {
                    let i = sockets.iter().position(|(id, _)| *id == socket).unwrap();
                    assert_eq!(bytes, payload(i, next[i]), "{features:?}");
                    next[i] += 1;
                }
            })
            .unwrap();
        }
        let counters = e.counters();
        println!("{features:?}: {counters:?}");
        assert_eq!(counters.stamps + counters.stray_stamps, u64::from(key));
    }
}
