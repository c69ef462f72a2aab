//! Many datagrams, each accounted for, and not one allocation.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;

use bufferbane_linux_io::support::Features;
use bufferbane_linux_io::{Engine, Event, Family, Outbox, ProbeSocket, SocketId, Transmit, clock};
use common::{all_features, engine, warm_up};

/// Counts the calling thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator; counting touches a thread-local number that
// needs neither allocation nor destruction.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: passed on to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const WINDOW: u32 = 64;

#[derive(Default)]
struct Totals {
    sent: u32,
    echoed: u32,
    returned: u32,
    client_stamps: u32,
    server_stamps: u32,
}

/// Keeps a window of datagrams going round until `total` have returned. Each carries its number;
/// the answers and stamps have to come in order over loopback.
fn echo(
    client: &mut Engine,
    c: SocketId,
    server: &mut Engine,
    to: SocketAddr,
    total: u32,
) -> Totals {
    let mut t = Totals::default();
    let deadline = clock::now().saturating_add(60_000_000_000);
    let done =
        |t: &Totals| t.returned == total && t.client_stamps == total && t.server_stamps == total;
    while !done(&t) && clock::now() < deadline {
        while t.sent < total && t.sent - t.returned < WINDOW {
            client.send(c, to, &t.sent.to_be_bytes(), t.sent).unwrap();
            t.sent += 1;
        }
        client.outbox().flush().unwrap();
        let soon = || clock::now().saturating_add(1_000_000);
        server
            .wait(
                soon(),
                &mut |out: &mut Outbox<'_>, event: Event<'_>| match event {
                    Event::Received {
                        socket,
                        meta,
                        bytes,
                    } => {
                        assert_eq!(bytes, t.echoed.to_be_bytes());
                        let reply = Transmit {
                            from: meta.to,
                            ..Transmit::new(socket, meta.from, t.echoed)
                        };
                        out.send(&reply, bytes).unwrap();
                        t.echoed += 1;
                    }
                    Event::TxStamp { key, .. } => {
                        assert_eq!(key, t.server_stamps);
                        t.server_stamps += 1;
                    }
                    other => panic!("{other:?}"),
                },
            )
            .unwrap();
        server.outbox().flush().unwrap();
        client
            .wait(
                soon(),
                &mut |_: &mut Outbox<'_>, event: Event<'_>| match event {
                    Event::Received { bytes, .. } => {
                        assert_eq!(bytes, t.returned.to_be_bytes());
                        t.returned += 1;
                    }
                    Event::TxStamp { key, .. } => {
                        assert_eq!(key, t.client_stamps);
                        t.client_stamps += 1;
                    }
                    other => panic!("{other:?}"),
                },
            )
            .unwrap();
    }
    t
}

fn echo_and_count(features: Features, family: Family, total: u32) {
    let mut client = engine(features);
    let mut server = engine(features);
    let any = SocketAddr::new(common::unspecified(family), 0);
    let socket = ProbeSocket::udp(family).bind(any).build().unwrap();
    let to = SocketAddr::new(common::loopback(family), socket.local_addr().port());
    server.add_socket(socket).unwrap();
    let (c, _) = common::add_local(&mut client, ProbeSocket::udp(family), family);
    let before = ALLOCATIONS.get();
    let t = echo(&mut client, c, &mut server, to, total);
    let allocated = ALLOCATIONS.get() - before;
    let all = [
        t.sent,
        t.echoed,
        t.returned,
        t.client_stamps,
        t.server_stamps,
    ];
    assert_eq!(
        all,
        [total; 5],
        "{features:?} {:?} {:?}",
        client.counters(),
        server.counters()
    );
    assert_eq!(
        allocated, 0,
        "sending and waiting allocated with {features:?}"
    );
    println!(
        "{family:?} {features:?}: {total} echoes, all stamped; {:?}",
        server.counters()
    );
}

#[test]
fn a_hundred_thousand_echoes_are_all_accounted_for_without_an_allocation() {
    warm_up();
    echo_and_count(Features::ALL, Family::V4, 100_000);
    for features in all_features() {
        for family in [Family::V4, Family::V6] {
            echo_and_count(features, family, 5_000);
        }
    }
}
