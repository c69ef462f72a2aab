//! Throughput tests against a reflector within this program, over loopback.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::{
    LONG, Prober, asking, connects, key, load, load_to_the_end, load_while, until,
};
use bufferbane_core::load::guest::{Guest, GuestState, Wish};
use bufferbane_core::load::write_token;
use bufferbane_core::wire::load::EndReason;
use bufferbane_linux_io::{Role, clock};
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config};

fn config(daily_bytes: Option<u64>, max_rate_bps: Option<u64>) -> Config {
    let client = |n: u8| Client {
        name: format!("client-{n}"),
        keys: vec![key(n)],
        max_pps: 1000,
        max_rate_bps,
        daily_bytes,
        tcp_prefixes: Vec::new(),
    };
    Config {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        listen_is_default: false,
        control_socket: None,
        clients: vec![client(1), client(2)],
        ..Config::default()
    }
}

fn reflector(daily_bytes: Option<u64>, max_rate_bps: Option<u64>) -> Running {
    Running::start(&config(daily_bytes, max_rate_bps)).unwrap()
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
        prefix: None,
        offer: None,
    };
    Guest::new(wish, u64::from(up) << 8 | u64::from(down), clock::now())
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
    let mut r = reflector(Some(3_000_000), Some(80_000_000));
    let at = r.listen()[0];
    let mut prober = asking(&r, 1, guest(0, 1), |s| s == GuestState::Granted);
    let begun = Instant::now();
    let received = load_to_the_end(&mut prober, at, &[Role::Receive]);
    // 10 MB/s: three megabytes take 0.3 s but for what the socket takes at once.
    assert!(begun.elapsed() > Duration::from_millis(100));
    assert!(received <= 3_000_000 + (2 << 20), "{received}");
    until(&mut prober, |s| {
        s == GuestState::Ended(EndReason::DailyBytes)
    });
    asking(&r, 1, guest(1, 0), |s| {
        s == GuestState::Refused(EndReason::DailyBytes)
    });
    assert_eq!(r.status().unwrap()["tests"]["refused"], 1);
    asking(&r, 2, guest(1, 0), |s| s == GuestState::Granted);
}

#[test]
fn what_a_stream_to_a_client_carries_does_not_compress() {
    let r = reflector(None, None);
    let prober = asking(&r, 1, guest(0, 1), |s| s == GuestState::Granted);
    let grant = prober.guest.as_ref().unwrap().grant().unwrap().clone();
    let mut stream = TcpStream::connect((r.listen()[0].ip(), grant.port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let token = write_token(grant.handle, &grant.secret, 0);
    stream.write_all(&token).unwrap();
    let mut bytes = vec![0; 1 << 16];
    stream.read_exact(&mut bytes).unwrap();
    let mut counts = [0; 256];
    bytes.iter().for_each(|b| counts[usize::from(*b)] += 1);
    // 256 of each are expected, within 16 or so.
    let (least, most) = (counts.iter().min(), counts.iter().max());
    assert!(least > Some(&128) && most < Some(&384), "{counts:?}");
    // Nor is any of it what was there before.
    let parts: std::collections::HashSet<&[u8]> = bytes.chunks(256).collect();
    assert_eq!(parts.len(), bytes.len() / 256);
}

/// What a client's test has carried one way: in all, and in the busiest tenth of a second, bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    bytes: u64,
    busiest: u64,
}

/// What a client's test has carried, and the time that it really had for it.
#[derive(Clone, Copy, Debug, Default)]
struct Both {
    time: Duration,
    /// As the reflector counts it.
    up: Carried,
    /// As it comes here.
    down: Carried,
}

impl Both {
    /// Whether more than `share` of `rate` was carried each way over all of the time.
    fn exceeds(&self, share: f64, rate: f64) -> bool {
        let most = share * rate / 8.0 * self.time.as_secs_f64();
        self.up.bytes.min(self.down.bytes) as f64 > most
    }
}

/// Loads both ways until `enough` has been carried, or for almost as long as a test may take.
fn both(r: &Running, n: u8, enough: impl Fn(&Both) -> bool) -> Both {
    const BIN: Duration = Duration::from_millis(100);
    let mut prober = asking(r, n, guest(2, 2), |s| s == GuestState::Granted);
    let roles = [Role::Send, Role::Send, Role::Receive, Role::Receive];
    let begun = Instant::now();
    let mut both = Both::default();
    let mut bin = (Duration::ZERO, 0);
    let going = |prober: &Prober, received| {
        let guest = prober.guest.as_ref().unwrap();
        both.time = begun.elapsed();
        both.up.bytes = guest.received();
        both.up.busiest = guest.bins().iter().max().map_or(0, |b| (*b).into());
        both.down.bytes = received;
        let (since, before) = bin;
        let took = both.time - since;
        if took >= BIN {
            bin = (both.time, received);
            // Of a bin that took longer, a tenth of a second's share. The first has what a stream begins with
            // before it is paced.
            if !since.is_zero() {
                let share = (received - before) as f64 * BIN.as_secs_f64() / took.as_secs_f64();
                both.down.busiest = both.down.busiest.max(share as u64);
            }
        }
        both.time < Duration::from_secs(4) && !enough(&both)
    };
    let (_, received) = load_while(&mut prober, r.listen()[0], &roles, going);
    both.down.bytes = received;
    prober.guest.as_mut().unwrap().stop(clock::now());
    until(&mut prober, |s| s == GuestState::Ended(EndReason::None));
    both.up.bytes = prober.guest.as_ref().unwrap().received();
    both.time = begun.elapsed();
    both
}

/// However little the machine carries for a while: a limit is a matter of the time that there really was, and
/// that it is not far less takes one tenth of a second; without a limit, a machine makes up for it.
#[test]
fn a_client_is_held_to_its_rate_and_nobody_else() {
    const RATE: f64 = 80e6;
    let mut config = config(None, None);
    config.clients[0].max_rate_bps = Some(RATE as u64);
    let r = Running::start(&config).unwrap();
    let reached = |c: &Carried| c.busiest as f64 * 80.0 > 0.75 * RATE;
    let held = both(&r, 1, |b| {
        b.time > Duration::from_secs(2) && reached(&b.up) && reached(&b.down)
    });
    println!("held: {held:?}");
    for (way, carried) in [("up", held.up), ("down", held.down)] {
        let rate = carried.bytes as f64 * 8.0 / held.time.as_secs_f64();
        // What was ahead of the rate at the begin counts over two seconds.
        assert!(rate < 1.03 * RATE, "{way}: {rate}");
        assert!(reached(&carried), "{way}: {held:?}");
    }
    let free = both(&r, 2, |b| {
        b.time > Duration::from_millis(500) && b.exceeds(1.5, RATE)
    });
    println!("free: {free:?}");
    assert!(free.exceeds(1.5, RATE), "{free:?}");
}

#[test]
fn tests_and_their_streams_end_at_their_numbers() {
    let mut config = config(None, None);
    config.limits.test_streams = 3;
    let mut r = Running::start(&config).unwrap();
    let refused = |s| s == GuestState::Refused(EndReason::Streams);
    asking(&r, 1, guest(2, 2), refused);
    let mut first = asking(&r, 1, guest(2, 1), |s| s == GuestState::Granted);
    let counts = r.status().unwrap()["tests"].clone();
    assert_eq!(
        (&counts["granted"], &counts["refused"]),
        (&1.into(), &1.into())
    );
    assert_eq!(counts["busy"], 0);
    // One test at a time, by default.
    asking(&r, 2, guest(1, 0), |s| s == GuestState::Waiting);
    assert!(r.status().unwrap()["tests"]["busy"].as_u64() > Some(0));
    first.guest.as_mut().unwrap().stop(clock::now());
    until(&mut first, |s| s == GuestState::Ended(EndReason::None));
    config.limits.concurrent_tests = 0;
    r.reconfigure(&config).unwrap();
    asking(&r, 1, guest(1, 0), |s| {
        s == GuestState::Refused(EndReason::Off)
    });
}

#[test]
fn orders_are_taken_at_a_pace_and_are_no_drops_of_probes() {
    let mut r = reflector(None, None);
    let mut prober = asking(&r, 1, guest(1, 0), |s| s == GuestState::Granted);
    // Fewer than its packets per second.
    for _ in 0..3 {
        prober.order(guest(1, 0), 100);
        prober.run(Duration::from_millis(100));
    }
    let status = r.status().unwrap();
    assert_eq!(status["overload"], 0, "{status}");
    let refused = status["clients"][0]["drops"]["rate_limit"].as_u64();
    assert!(refused > Some(100), "{status}");
    assert!(status["orders_lost"].is_u64(), "{status}");
}

#[test]
fn only_where_a_tests_client_has_proved_to_be_is_let_in() {
    let r = reflector(None, None);
    let at = r.listen()[0];
    let mut prober = asking(&r, 1, guest(1, 0), |s| s == GuestState::Granted);
    let from = |n| [127, 0, 0, n];
    let let_in = || [1, 2, 3, 4].map(|n| connects(from(n), at));
    assert_eq!(let_in(), [true, false, false, false]);
    // Its orders, which keep the test alive, come from elsewhere in the same session: nobody has answered a
    // challenge there, and whoever repeats them from made-up addresses gets nobody in.
    for n in [2, 3, 1] {
        prober.move_to(IpAddr::from(from(n)));
        // Longer than it takes to ask again, and several times.
        prober.run(Duration::from_secs(2));
        let state = prober.guest.as_ref().unwrap().state();
        assert_eq!(state, GuestState::Granted);
        assert_eq!(let_in(), [true, false, false, false], "{n}");
    }
    prober.guest.as_mut().unwrap().stop(clock::now());
    until(&mut prober, |s| s == GuestState::Ended(EndReason::None));
    assert_eq!(let_in(), [false; 4]);
}
