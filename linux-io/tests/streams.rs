//! Bulk streams over loopback: every byte is counted at both ends, notes come back, and closing
//! leaves nothing behind.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bufferbane_core::wire::load::TOKEN_LEN;
use bufferbane_linux_io::admission::{self, Prefix};
use bufferbane_linux_io::tcp::{TcpListening, TcpOptions, TcpSocket};
use bufferbane_linux_io::{Bulk, BulkEvent, Family, Role, StreamId, clock};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn options() -> TcpOptions {
    TcpOptions {
        interface: None,
        source: None,
        mark: None,
        dscp: 8,
        congestion: "reno".into(),
    }
}

fn bulk() -> Bulk {
    common::warm_up();
    Bulk::new(8, |bytes| bytes.fill(0xa5)).unwrap()
}

fn listener(admitted: &[Prefix]) -> TcpListening {
    let l = TcpListening::new(SocketAddr::new(LOCAL, 0)).unwrap();
    admission::admit(&l, Family::V4, admitted).unwrap();
    l
}

/// Runs until `done` says so, at most ten seconds.
fn run(bulk: &mut Bulk, mut each: impl FnMut(&mut Bulk, BulkEvent) -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    let mut events = Vec::new();
    while Instant::now() < end {
        bulk.wait(clock::now().saturating_add(10_000_000), &mut events)
            .unwrap();
        for event in events.drain(..) {
            if each(bulk, event) {
                return;
            }
        }
    }
    panic!("not done within ten seconds");
}

#[test]
fn both_ends_count_the_same_and_notes_come_back() {
    let mut bulk = bulk();
    let listener = listener(&[Prefix::only(LOCAL)]);
    let to = listener.local_addr();
    bulk.listen(listener).unwrap();
    let socket = TcpSocket::new(Family::V4, &options()).unwrap();
    let client = bulk.connect(socket, to).unwrap();
    let mut server: Option<StreamId> = None;
    let (mut sent, mut received, mut notes) = (0, 0, Vec::new());
    run(&mut bulk, |bulk, event| {
        match event {
            BulkEvent::Connected(id) => {
                assert_eq!(id, client);
                bulk.begin(id, Role::Send, &[7; TOKEN_LEN]).unwrap();
            }
            BulkEvent::Arrived(id, _, token) => {
                assert_eq!(token, [7; TOKEN_LEN]);
                bulk.configure(id, 10, "reno").unwrap();
                bulk.begin(id, Role::Receive, &[]).unwrap();
                server = Some(id);
            }
            BulkEvent::Sent { bytes, offset, .. } => {
                sent += bytes;
                assert_eq!(sent, offset);
            }
            BulkEvent::Received { bytes, .. } => received += bytes,
            BulkEvent::Note { received, .. } => notes.push(received),
            other => panic!("{other:?}"),
        }
        notes.len() == 4
    });
    assert!(notes.is_sorted() && notes[0] > 0, "{notes:?}");
    assert!(*notes.last().unwrap() <= received && received <= sent);
    let facts = bulk.facts(client).unwrap();
    assert!(facts.rtt_us > 0 && facts.cwnd_bytes > 1000, "{facts:?}");

    bulk.close(client);
    let mut ended = None;
    run(&mut bulk, |_, event| {
        match event {
            BulkEvent::Ended(id, errno) => ended = Some((id, errno)),
            BulkEvent::Received { bytes, .. } => received += bytes,
            other => panic!("{other:?}"),
        }
        ended.is_some()
    });
    // A reset, not an orderly end: what was queued here is gone.
    assert_eq!(ended, Some((server.unwrap(), libc::ECONNRESET)));
    let end = Instant::now() + Duration::from_secs(5);
    while bulk.in_use() > 0 && Instant::now() < end {
        bulk.wait(clock::now().saturating_add(10_000_000), &mut Vec::new())
            .unwrap();
    }
    assert_eq!(bulk.in_use(), 0);
}

#[test]
fn a_limited_receiver_keeps_its_rate() {
    let mut bulk = bulk();
    let listener = listener(&[Prefix::only(LOCAL)]);
    let to = listener.local_addr();
    bulk.listen(listener).unwrap();
    let sender = std::thread::spawn(move || {
        let mut s = TcpStream::connect(to).unwrap();
        s.write_all(&[1; TOKEN_LEN]).unwrap();
        let block = vec![0; 1 << 20];
        // Until the other end has had enough.
        while s.write(&block).is_ok() {}
    });
    let limit = 20_000_000;
    let (mut begun, mut received) = (None, 0u64);
    run(&mut bulk, |bulk, event| {
        match event {
            BulkEvent::Arrived(id, ..) => {
                bulk.limit(id, limit);
                bulk.begin(id, Role::Receive, &[]).unwrap();
                begun = Some(Instant::now());
            }
            BulkEvent::Received { stream, bytes } => {
                received += bytes;
                if received > limit / 2 {
                    bulk.close(stream);
                    return true;
                }
            }
            other => panic!("{other:?}"),
        }
        false
    });
    // Half a second's worth takes at least that long; a slow machine may take longer.
    let took = begun.unwrap().elapsed();
    assert!(took > Duration::from_millis(450), "{took:?}");
    while bulk.in_use() > 0 {
        bulk.wait(clock::now().saturating_add(10_000_000), &mut Vec::new())
            .unwrap();
    }
    sender.join().unwrap();
}

#[test]
fn who_is_not_admitted_hears_nothing() {
    let mut bulk = bulk();
    let listener = listener(&[Prefix::only([192, 0, 2, 1].into())]);
    let to = listener.local_addr();
    bulk.listen(listener).unwrap();
    let refused = TcpStream::connect_timeout(&to, Duration::from_millis(300)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut);
    admission::admit(&bulk.listeners()[0], Family::V4, &[Prefix::only(LOCAL)]).unwrap();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
    stream.write_all(&[9; 10]).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    // A begun token is answered with nothing either.
    assert!(stream.read(&mut [0; 1]).is_err());
}

#[test]
fn a_connection_that_is_refused_ends() {
    let mut bulk = bulk();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = free.local_addr().unwrap();
    drop(free);
    let socket = TcpSocket::new(Family::V4, &options()).unwrap();
    let id = bulk.connect(socket, to).unwrap();
    run(&mut bulk, |_, event| {
        assert_eq!(event, BulkEvent::Ended(id, libc::ECONNREFUSED));
        true
    });
}
