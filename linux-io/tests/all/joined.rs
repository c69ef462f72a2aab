//! Datagrams that leave in one send: each arrives as it was, they share one stamp, and a way that takes
//! none of it is found out.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use crate::common::{add_local, all_features, inside_namespace, loopback, wait_for, warm_up};
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::support::Features;
use bufferbane_linux_io::{
    Engine, EngineOptions, Event, Family, ProbeSocket, Queued, SocketId, Transmit,
};

fn engine(features: Features) -> Engine {
    let options = EngineOptions {
        features,
        ..EngineOptions::reflector()
    };
    Engine::new(&options).unwrap()
}

/// An engine with all features, and a socket of it that joins sends and asks for no stamps of them.
fn unstamped() -> (Engine, SocketId) {
    let mut e = engine(Features::ALL);
    let builder = ProbeSocket::udp(Family::V4)
        .stamps(true, false)
        .join_sends(true);
    let (id, _) = add_local(&mut e, builder, Family::V4);
    (e, id)
}

fn receiver(family: Family) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((loopback(family), 0)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let at = socket.local_addr().unwrap();
    (socket, at)
}

/// Two, whose ports are not looked for at the same place among what waits to be joined: a third datagram
/// would go by itself there, and rightly so.
fn two_receivers() -> [(UdpSocket, SocketAddr); 2] {
    let first = receiver(Family::V4);
    loop {
        let second = receiver(Family::V4);
        if !(first.1.port() ^ second.1.port()).is_multiple_of(16) {
            return [first, second];
        }
    }
}

/// Queues `len` bytes of `key`.
fn queue(e: &mut Engine, socket: SocketId, to: SocketAddr, key: u8, len: usize) -> Queued {
    let transmit = Transmit::new(socket, to, key.into());
    e.outbox()
        .send_joined(&transmit, len, |room| {
            room[..len].fill(key);
            Some(len)
        })
        .unwrap()
}

/// The datagrams that came: whose each is, and its length.
fn received(socket: &UdpSocket, count: usize) -> Vec<(u8, usize)> {
    let mut bytes = [0; 2048];
    (0..count)
        .map(|_| {
            let len = loop {
                match socket.recv(&mut bytes) {
                    // The ring of this thread had something to do.
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    came => break came.unwrap(),
                }
            };
            assert!(bytes[..len].iter().all(|b| *b == bytes[0]));
            (bytes[0], len)
        })
        .collect()
}

#[test]
fn datagrams_to_one_place_leave_together_and_arrive_as_they_were() {
    warm_up();
    for features in all_features() {
        for stamped in [true, false] {
            let mut e = engine(features);
            let builder = ProbeSocket::udp(Family::V4)
                .stamps(true, stamped)
                .join_sends(true);
            let (id, _) = add_local(&mut e, builder, Family::V4);
            let [(a, to_a), (b, to_b)] = two_receivers();
            // Where stamps are counted, each datagram has to have its own.
            let joins = !stamped || e.features().stamp_keys;
            let with = |first: u32| {
                if joins {
                    Queued::With(first)
                } else {
                    Queued::First
                }
            };
            assert_eq!(queue(&mut e, id, to_a, 0, 100), Queued::First);
            assert_eq!(queue(&mut e, id, to_b, 1, 100), Queued::First);
            assert_eq!(queue(&mut e, id, to_a, 2, 100), with(0));
            assert_eq!(queue(&mut e, id, to_b, 3, 100), with(1));
            // A longer one cannot join, and a shorter one is the last that does.
            assert_eq!(queue(&mut e, id, to_b, 4, 200), Queued::First);
            assert_eq!(queue(&mut e, id, to_a, 5, 60), with(0));
            assert_eq!(queue(&mut e, id, to_a, 6, 60), Queued::First);
            // What no path is sure to carry whole goes alone, after what was there before.
            assert_eq!(queue(&mut e, id, to_a, 7, 1400), Queued::First);
            let mut stamps = Vec::new();
            let wanted = match (stamped, joins) {
                (false, _) => 0,
                (true, true) => 5,
                (true, false) => 8,
            };
            e.outbox().flush().unwrap();
            wait_for(&mut e, 300, |_, event| {
                match event {
                    Event::TxStamp { key, .. } => stamps.push(key),
                    Event::Sent { errno, .. } => panic!("{errno:?}"),
                    _ => {}
                }
                wanted > 0 && stamps.len() == wanted
            });
            assert_eq!(
                received(&a, 5),
                [(0, 100), (2, 100), (5, 60), (6, 60), (7, 1400)]
            );
            assert_eq!(received(&b, 3), [(1, 100), (3, 100), (4, 200)]);
            stamps.sort_unstable();
            let keys: &[u32] = match (stamped, joins) {
                (false, _) => &[],
                (true, true) => &[0, 1, 4, 6, 7],
                (true, false) => &[0, 1, 2, 3, 4, 5, 6, 7],
            };
            assert_eq!(stamps, keys, "{features:?}");
            assert_eq!(e.counters().joined, if joins { 3 } else { 0 });
        }
    }
}

#[test]
fn what_goes_alone_overtakes_nothing_to_its_place() {
    let (mut e, id) = unstamped();
    let (a, to_a) = receiver(Family::V4);
    // The last that joins a send ends the wait for more.
    assert_eq!(queue(&mut e, id, to_a, 0, 100), Queued::First);
    assert_eq!(queue(&mut e, id, to_a, 1, 60), Queued::With(0));
    assert_eq!(queue(&mut e, id, to_a, 2, 1400), Queued::First);
    e.outbox().flush().unwrap();
    assert_eq!(received(&a, 3), [(0, 100), (1, 60), (2, 1400)]);
    // And so does another destination that is looked for at the same place.
    let to_b = SocketAddr::new([127, 0, 0, 17].into(), to_a.port());
    let b = UdpSocket::bind(to_b).unwrap();
    assert_eq!(queue(&mut e, id, to_a, 3, 100), Queued::First);
    assert_eq!(queue(&mut e, id, to_b, 4, 100), Queued::First);
    assert_eq!(queue(&mut e, id, to_a, 5, 1400), Queued::First);
    e.outbox().flush().unwrap();
    assert_eq!(received(&a, 2), [(3, 100), (5, 1400)]);
    b.set_nonblocking(true).unwrap();
    assert_eq!(received(&b, 1), [(4, 100)]);
}

/// What the kernel was told to take each longer send of the socket apart into, bytes; 0 for nothing.
fn told(e: &Engine, socket: SocketId) -> libc::c_int {
    let mut value: libc::c_int = -1;
    let mut len = size_of_val(&value) as libc::socklen_t;
    let fd = e.socket(socket).unwrap().as_fd().as_raw_fd();
    // SAFETY: the value is an int of the length that is said, and both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    assert_eq!(result, 0);
    value
}

/// Has what is queued leave, and whatever has happened by then be told.
fn turn(e: &mut Engine) {
    e.wait(Monotonic::ZERO, &mut |_, event: Event<'_>| {
        assert!(!matches!(event, Event::Sent { .. }), "{event:?}");
    })
    .unwrap();
}

/// Waits for sends that are told as done; which, and whether they failed.
fn failed(e: &mut Engine) -> Vec<(u32, bool)> {
    let mut failed = Vec::new();
    wait_for(e, 500, |_, event| {
        if let Event::Sent { key, errno, .. } = event {
            failed.push((key, errno.is_some()));
        }
        !failed.is_empty()
    });
    failed
}

/// The longest packet that this namespace's loopback carries from now on, bytes.
fn narrow(mtu: &str) {
    let set = ["link", "set", "lo", "up", "mtu", mtu];
    assert!(Command::new("ip").args(set).status().unwrap().success());
}

/// Sends pairs of `len` bytes until the kernel must have been told of that length.
fn make_usual(e: &mut Engine, id: SocketId, (socket, to): &(UdpSocket, SocketAddr), len: usize) {
    for _ in 0..100 {
        assert_eq!(queue(e, id, *to, 1, len), Queued::First);
        assert_eq!(queue(e, id, *to, 2, len), Queued::With(1));
        turn(e);
        assert_eq!(received(socket, 2), [(1, len), (2, len)]);
    }
    assert_eq!(told(e, id), len as libc::c_int);
}

#[test]
fn datagrams_arrive_as_they_were_whatever_is_usual() {
    warm_up();
    let ways = all_features()
        .into_iter()
        .flat_map(|f| [(f, true), (f, false)]);
    for (features, stamped) in ways {
        let mut e = engine(features);
        if stamped && !e.features().stamp_keys {
            continue;
        }
        for family in [Family::V4, Family::V6] {
            let builder = ProbeSocket::udp(family)
                .stamps(true, stamped)
                .join_sends(true);
            let (id, _) = add_local(&mut e, builder, family);
            let a = receiver(family);
            assert_eq!(told(&e, id), 0);
            make_usual(&mut e, id, &a, 172);
            let (socket, to) = (&a.0, a.1);
            // Alone: as long as usual, shorter, longer, and longer than several.
            for (key, len) in [(3, 172), (4, 20), (5, 173), (6, 1400)] {
                assert_eq!(queue(&mut e, id, to, key, len), Queued::First);
                e.outbox().flush().unwrap();
                assert_eq!(received(socket, 1), [(key, len)], "{family:?}");
            }
            // With a source of its own, and not to be joined.
            let transmit = Transmit {
                from: Some(to.ip()),
                ..Transmit::new(id, to, 7)
            };
            e.outbox().send(&transmit, &[7; 600]).unwrap();
            e.outbox().flush().unwrap();
            assert_eq!(received(socket, 1), [(7, 600)]);
            // Joined: as usual with a shorter last, and of two other lengths.
            for (len, last) in [(172, 50), (100, 100), (400, 399)] {
                assert_eq!(queue(&mut e, id, to, 8, len), Queued::First);
                assert_eq!(queue(&mut e, id, to, 9, len), Queued::With(8));
                assert_eq!(queue(&mut e, id, to, 10, last), Queued::With(8));
                e.outbox().flush().unwrap();
                assert_eq!(received(socket, 3), [(8, len), (9, len), (10, last)]);
            }
            // Another length becomes usual, and then none.
            for _ in 0..2 {
                for _ in 0..300 {
                    queue(&mut e, id, to, 11, 172);
                    turn(&mut e);
                    assert_eq!(received(socket, 1), [(11, 172)]);
                }
                assert_eq!(told(&e, id), 0);
                make_usual(&mut e, id, &a, 90);
            }
        }
    }
}

#[test]
fn a_way_that_is_too_narrow_for_what_is_usual_gets_each_as_before() {
    if !inside_namespace(
        module_path!(),
        "a_way_that_is_too_narrow_for_what_is_usual_gets_each_as_before",
    ) {
        return;
    }
    narrow("600");
    let (mut e, id) = unstamped();
    let a = receiver(Family::V4);
    make_usual(&mut e, id, &a, 172);
    let to = a.1;
    // What takes no datagram of the usual length whole.
    narrow("150");
    assert_eq!(queue(&mut e, id, to, 3, 160), Queued::First);
    assert_eq!(failed(&mut e), [(3, true)]);
    turn(&mut e);
    assert_eq!(told(&e, id), 0);
    // In fragments, and those that pass whole together.
    queue(&mut e, id, to, 4, 160);
    e.outbox().flush().unwrap();
    assert_eq!(received(&a.0, 1), [(4, 160)]);
    for _ in 0..100 {
        assert_eq!(queue(&mut e, id, to, 5, 100), Queued::First);
        assert_eq!(queue(&mut e, id, to, 6, 100), Queued::With(5));
        turn(&mut e);
        assert_eq!(received(&a.0, 2), [(5, 100), (6, 100)]);
    }
    assert_eq!(told(&e, id), 0);
}

#[test]
fn no_send_is_longer_than_its_slot_or_has_more_datagrams_than_every_kernel_takes() {
    let (mut e, id) = unstamped();
    let (a, to) = receiver(Family::V4);
    let firsts = |e: &mut Engine, len: usize| {
        let queued = (0..130).map(|key| queue(e, id, to, key, len));
        let firsts = queued.filter(|q| *q == Queued::First).count();
        e.outbox().flush().unwrap();
        assert_eq!(
            received(&a, 130),
            (0..130).map(|key| (key, len)).collect::<Vec<_>>()
        );
        firsts
    };
    assert_eq!(firsts(&mut e, 1), 3, "64 and 64 and two");
    let fit = EngineOptions::reflector().send_slot_bytes / 500;
    assert_eq!(firsts(&mut e, 500), 130usize.div_ceil(fit));
}

#[test]
fn a_way_that_takes_no_joined_send_gets_each_alone() {
    if !inside_namespace(
        module_path!(),
        "a_way_that_takes_no_joined_send_gets_each_alone",
    ) {
        return;
    }
    // Each of 800 bytes is sent in fragments; several in one send cannot be.
    narrow("600");
    let (mut e, id) = unstamped();
    let (a, to) = receiver(Family::V4);
    assert_eq!(queue(&mut e, id, to, 1, 800), Queued::First);
    assert_eq!(queue(&mut e, id, to, 2, 800), Queued::With(1));
    e.outbox().flush().unwrap();
    assert_eq!(failed(&mut e), [(1, true)], "told once, for both");
    assert_eq!(queue(&mut e, id, to, 3, 800), Queued::First);
    assert_eq!(queue(&mut e, id, to, 4, 800), Queued::First);
    e.outbox().flush().unwrap();
    assert_eq!(received(&a, 2), [(3, 800), (4, 800)]);
}
