//! Throughput tests against a reflector within this program, over loopback.

mod common;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bufferbane_core::load::guest::{Guest, GuestState, Wish};
use bufferbane_core::load::write_token;
use bufferbane_core::wire::load::EndReason;
use bufferbane_linux_io::tcp::{TcpOptions, TcpSocket};
use bufferbane_linux_io::{Bulk, BulkEvent, Family, Role, clock};
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config};
use common::{Prober, key};

const LONG: Duration = Duration::from_secs(10);

fn reflector(daily_bytes: Option<u64>, max_rate_bps: Option<u64>) -> Running {
    let client = |n: u8| Client {
        name: format!("client-{n}"),
        keys: vec![key(n)],
        max_pps: 1000,
        max_rate_bps,
        daily_bytes,
    };
    let config = Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        listen_is_default: false,
        control_socket: None,
        clients: vec![client(1), client(2)],
        ..Config::default()
    };
    Running::start(&config).unwrap()
}

fn guest(up: u8, down: u8) -> Guest {
    let mut congestion = [0; 16];
    congestion[..4].copy_from_slice(b"reno");
    let wish = Wish {
        streams_up: up,
        streams_down: down,
        time_ms: 5000,
        dscp: [0; 8],
        congestion,
    };
    Guest::new(wish, u64::from(up) << 8 | u64::from(down), clock::now())
}

/// A client that has asked and been answered so that `wanted` holds.
fn asking(r: &Running, n: u8, guest: Guest, wanted: impl Fn(GuestState) -> bool) -> Prober {
    let mut prober = Prober::new(key(n), r.listen()[0]);
    prober.guest = Some(guest);
    until(&mut prober, wanted);
    prober
}

fn until(prober: &mut Prober, wanted: impl Fn(GuestState) -> bool) {
    let end = Instant::now() + LONG;
    loop {
        prober.run(Duration::from_millis(20));
        let state = prober.guest.as_ref().unwrap().state();
        if wanted(state) {
            return;
        }
        assert!(Instant::now() < end, "{state:?}");
    }
}

/// Runs the streams of a granted test for as long; gives what was sent and received here.
fn load(prober: &mut Prober, at: SocketAddr, roles: &[Role], time: Duration) -> (u64, u64) {
    let mut bulk = Bulk::new(8, |b| b.fill(3)).unwrap();
    let grant = prober.guest.as_ref().unwrap().grant().unwrap().clone();
    let to = SocketAddr::new(at.ip(), grant.port);
    let options = TcpOptions {
        interface: None,
        mark: None,
        dscp: 0,
        congestion: "reno".into(),
    };
    let streams: Vec<_> = roles
        .iter()
        .map(|_| {
            let socket = TcpSocket::new(Family::V4, &options).unwrap();
            bulk.connect(socket, to).unwrap()
        })
        .collect();
    let (mut sent, mut received) = (0, 0);
    let mut events = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        prober.run(Duration::from_millis(1));
        bulk.wait(clock::now().saturating_add(1_000_000), &mut events)
            .unwrap();
        for event in events.drain(..) {
            match event {
                BulkEvent::Connected(id) => {
                    let n = streams.iter().position(|s| *s == id).unwrap();
                    let token = write_token(grant.handle, &grant.secret, n as u8);
                    bulk.begin(id, roles[n], &token).unwrap();
                }
                BulkEvent::Sent { bytes, .. } => sent += bytes,
                BulkEvent::Received { bytes, .. } => received += bytes,
                BulkEvent::Ended(id, errno) => panic!("{id:?} ended with {errno}"),
                _ => {}
            }
        }
    }
    (sent, received)
}

#[test]
fn both_directions_are_counted_and_the_port_closes_after() {
    let mut r = reflector(None, None);
    let at = r.listen()[0];
    let granted = |s| s == GuestState::Granted;
    let mut prober = asking(&r, 1, guest(1, 1), granted);
    let (sent, received) = load(
        &mut prober,
        at,
        &[Role::Send, Role::Receive],
        Duration::from_millis(1200),
    );
    prober.guest.as_mut().unwrap().stop(clock::now());
    until(&mut prober, |s| s == GuestState::Ended(EndReason::None));
    let guest = prober.guest.as_ref().unwrap();
    let binned: u64 = guest.bins().iter().map(|b| u64::from(*b)).sum();
    // What was in flight at the reset has not arrived.
    assert_eq!(binned, guest.received());
    assert!(binned > sent / 2 && binned <= sent, "{binned} of {sent}");
    assert!(
        guest.sent() >= received && received > guest.sent() / 2,
        "{received} of {}",
        guest.sent()
    );
    assert!((11..40).contains(&guest.bins().len()), "{:?}", guest.bins());
    assert!(guest.in_band().iter().any(|t| *t > 0));
    assert!(guest.facts().cwnd_bytes > 0);
    let refused = TcpStream::connect_timeout(&at, Duration::from_millis(200)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::TimedOut);
    let status = r.status().unwrap();
    assert_eq!(status["tests"]["granted"], 1, "{status:#}");
    assert_eq!(status["tests"]["trouble"], "");
}

#[test]
fn a_client_that_vanishes_leaves_the_way_free_for_the_next() {
    let mut r = reflector(None, None);
    let at = r.listen()[0];
    let granted = |s| s == GuestState::Granted;
    let mut first = asking(&r, 1, guest(2, 0), granted);
    load(
        &mut first,
        at,
        &[Role::Send, Role::Send],
        Duration::from_millis(300),
    );
    drop(first);
    let mut second = asking(&r, 2, guest(0, 1), |s| s == GuestState::Waiting);
    assert!(r.status().unwrap()["tests"]["busy"].as_u64().unwrap() > 0);
    until(&mut second, granted);
    load(
        &mut second,
        at,
        &[Role::Receive],
        Duration::from_millis(200),
    );
}

#[test]
fn a_days_bytes_end_a_test_and_refuse_the_next() {
    let r = reflector(Some(3_000_000), Some(80_000_000));
    let at = r.listen()[0];
    let mut prober = asking(&r, 1, guest(0, 1), |s| s == GuestState::Granted);
    let mut bulk_bytes = 0;
    let grant = prober.guest.as_ref().unwrap().grant().unwrap().clone();
    let mut bulk = Bulk::new(8, |b| b.fill(3)).unwrap();
    let options = TcpOptions {
        interface: None,
        mark: None,
        dscp: 0,
        congestion: "reno".into(),
    };
    let socket = TcpSocket::new(Family::V4, &options).unwrap();
    bulk.connect(socket, SocketAddr::new(at.ip(), grant.port))
        .unwrap();
    let begun = Instant::now();
    let mut events = Vec::new();
    'run: loop {
        assert!(begun.elapsed() < LONG);
        bulk.wait(clock::now().saturating_add(1_000_000), &mut events)
            .unwrap();
        for event in events.drain(..) {
            match event {
                BulkEvent::Connected(id) => {
                    let token = write_token(grant.handle, &grant.secret, 0);
                    bulk.begin(id, Role::Receive, &token).unwrap();
                }
                BulkEvent::Received { bytes, .. } => bulk_bytes += bytes,
                BulkEvent::Ended(..) => break 'run,
                _ => {}
            }
        }
    }
    // 10 MB/s: three megabytes take 0.3 s but for what the socket takes at once.
    assert!(begun.elapsed() > Duration::from_millis(100));
    assert!(bulk_bytes <= 3_000_000 + (2 << 20), "{bulk_bytes}");
    until(&mut prober, |s| {
        s == GuestState::Ended(EndReason::DailyBytes)
    });
    asking(&r, 1, guest(1, 0), |s| {
        s == GuestState::Refused(EndReason::DailyBytes)
    });
    asking(&r, 2, guest(1, 0), |s| s == GuestState::Granted);
}
