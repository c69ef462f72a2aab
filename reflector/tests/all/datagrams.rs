//! Tests over UDP against a reflector within this program, over loopback.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use crate::common::{LONG, Prober, asking, connects, key, until};
use bufferbane_core::load::datagrams::{LoadKeys, open_datagram, write};
use bufferbane_core::load::guest::{Grant, Guest, GuestState, Wish};
use bufferbane_core::wire::load::{EndReason, Offer};
use bufferbane_linux_io::clock;
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config};

const SIZE: u16 = 1200;
/// No datagrams.
const OFF: Offer = Offer {
    up_bps: 0,
    down_bps: 0,
    size: 0,
};

fn reflector(daily_bytes: Option<u64>) -> Running {
    reflector_at("127.0.0.1:0".parse().unwrap(), daily_bytes)
}

fn reflector_at(at: SocketAddr, daily_bytes: Option<u64>) -> Running {
    let config = Config {
        listen: vec![at],
        listen_is_default: false,
        control_socket: None,
        clients: vec![Client {
            name: "home".into(),
            keys: vec![key(1)],
            max_pps: 1000,
            max_rate_bps: None,
            daily_bytes,
            tcp_prefixes: Vec::new(),
        }],
        ..Config::default()
    };
    Running::start(&config).unwrap()
}

fn wish(time_ms: u32, offer: Offer) -> Wish {
    Wish {
        streams_up: 0,
        streams_down: 0,
        time_ms,
        dscp: [0; 8],
        congestion: [0; 16],
        prefix: None,
        offer: Some(offer),
    }
}

/// A client whose test is granted.
fn granted(r: &Running, up_bps: u64, down_bps: u64, time_ms: u32) -> (Prober, Grant) {
    let wish = wish(
        time_ms,
        Offer {
            up_bps,
            down_bps,
            size: SIZE,
        },
    );
    let guest = Guest::new(wish, 9, clock::now());
    let prober = asking(r, 1, guest, |s| s == GuestState::Granted);
    let grant = prober.guest.as_ref().unwrap().grant().unwrap().clone();
    (prober, grant)
}

fn load(prober: &mut Prober, on: bool) {
    prober.guest.as_mut().unwrap().load(clock::now(), on);
}

#[test]
fn a_client_that_falls_silent_is_sent_nothing_more_and_one_that_speaks_again_is() {
    let mut r = reflector(None);
    let (mut prober, grant) = granted(&r, 0, 960_000, 30_000);
    prober.run(Duration::from_millis(100));
    assert!(prober.loads.is_empty(), "it was not asked for yet");
    load(&mut prober, true);
    prober.run(Duration::from_millis(400));
    let keys = LoadKeys::of(&grant.secret);
    for (number, (_, datagram)) in prober.loads.iter_mut().enumerate() {
        assert_eq!(datagram.len(), usize::from(SIZE));
        assert_eq!(open_datagram(&keys.down, datagram), Ok(number as u64));
    }
    assert!(prober.loads.len() > 10, "{}", prober.loads.len());
    prober.loads.clear();
    let fell_silent = Instant::now();
    prober.listen(Duration::from_millis(2500));
    let last = prober.loads.last().unwrap().0 - fell_silent;
    // A second, and what this host may be held up.
    assert!(last < Duration::from_millis(1500), "{last:?}");
    prober.loads.clear();
    prober.run(Duration::from_millis(500));
    assert!(!prober.loads.is_empty());
    load(&mut prober, false);
    prober.run(Duration::from_millis(200));
    prober.loads.clear();
    prober.run(Duration::from_millis(300));
    assert!(prober.loads.is_empty(), "it is not asked for any more");
    let guest = prober.guest.as_mut().unwrap();
    guest.stop(clock::now());
    until(&mut prober, |s| s == GuestState::Ended(EndReason::None));
    let sent = prober.guest.as_ref().unwrap().counted().sent;
    assert_eq!(r.status().unwrap()["datagrams"]["sent"], sent);
}

#[test]
fn what_strangers_send_is_neither_counted_nor_answered() {
    let mut r = reflector(None);
    let (mut prober, grant) = granted(&r, 1_000_000, 0, 30_000);
    load(&mut prober, true);
    prober.run(Duration::from_millis(100));
    let keys = LoadKeys::of(&grant.secret);
    let made = |key, handle, number| {
        let mut datagram = [0; SIZE as usize];
        write(key, handle, number, &mut datagram).unwrap();
        datagram
    };
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(r.listen()[0]).unwrap();
    let mut right = [(); 5].map(|()| [0; SIZE as usize]);
    for (number, datagram) in (0..).zip(&mut right) {
        *datagram = made(&keys.up, grant.handle, number);
        prober.send(datagram);
    }
    // From elsewhere even with the key; from there without it, of no test, and once more.
    stranger.send(&made(&keys.up, grant.handle, 5)).unwrap();
    prober.send(&made(&keys.down, grant.handle, 6));
    prober.send(&made(&keys.up, grant.handle + 1, 7));
    prober.send(&right[2]);
    prober.run(Duration::from_millis(600));
    let guest = prober.guest.as_ref().unwrap();
    let counted = guest.counted();
    assert_eq!((counted.received, counted.again), (5, 1));
    assert_eq!(guest.received(), 5 * u64::from(SIZE));
    let status = r.status().unwrap();
    assert_eq!(status["datagrams"]["received"], 5);
    assert_eq!(status["drops"]["unknown_session"], 2, "{status:#}");
    assert_eq!(status["drops"]["seal"], 1);
    let patience = Some(Duration::from_millis(100));
    stranger.set_read_timeout(patience).unwrap();
    stranger.recv(&mut [0; 2048]).unwrap_err();
}

#[test]
fn the_bytes_of_a_day_end_a_test_that_was_granted() {
    // What is ordered fits; what is sent is more.
    let bytes = 100 * u64::from(SIZE);
    let r = reflector(Some(bytes));
    let (mut prober, grant) = granted(&r, 900_000, 0, 1000);
    load(&mut prober, true);
    prober.run(Duration::from_millis(100));
    let keys = LoadKeys::of(&grant.secret);
    for number in 0..150 {
        let mut datagram = [0; SIZE as usize];
        write(&keys.up, grant.handle, number, &mut datagram).unwrap();
        prober.send(&datagram);
    }
    until(&mut prober, |s| {
        s == GuestState::Ended(EndReason::DailyBytes)
    });
    assert_eq!(prober.guest.as_ref().unwrap().received(), bytes);
}

#[test]
fn what_comes_again_takes_nothing_off_a_clients_day() {
    let r = reflector(Some(100 * u64::from(SIZE)));
    let (mut prober, grant) = granted(&r, 900_000, 0, 1000);
    load(&mut prober, true);
    prober.run(Duration::from_millis(100));
    let keys = LoadKeys::of(&grant.secret);
    let numbers = (0..50).chain([7; 60]);
    for number in numbers {
        let mut datagram = [0; SIZE as usize];
        write(&keys.up, grant.handle, number, &mut datagram).unwrap();
        prober.send(&datagram);
    }
    let end = Instant::now() + LONG;
    while prober.guest.as_ref().unwrap().counted().again < 60 {
        assert!(Instant::now() < end, "{:?}", prober.guest);
        prober.run(Duration::from_millis(20));
    }
    let guest = prober.guest.as_ref().unwrap();
    assert_eq!(guest.state(), GuestState::Granted);
    assert_eq!(guest.received(), 50 * u64::from(SIZE));
}

#[test]
fn nobody_is_let_in_for_a_test_over_udp_whatever_is_ordered_later() {
    let r = reflector(None);
    let (mut prober, _) = granted(&r, 1_000_000, 0, 30_000);
    // The same test by another guest, that says nothing of datagrams.
    let guest = Guest::new(wish(30_000, OFF), 9, clock::now());
    prober.guest = Some(guest);
    until(&mut prober, |s| s == GuestState::Granted);
    assert!(!connects([127, 0, 0, 1], r.listen()[0]));
}

#[test]
fn a_reflector_whose_tcp_port_is_taken_tests_over_udp_all_the_same() {
    // Both: nobody else has the other one.
    let (taken, at) = loop {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        if UdpSocket::bind(at).is_ok() {
            break (taken, at);
        }
    };
    let r = reflector_at(at, None);
    let (mut prober, _) = granted(&r, 1_000_000, 0, 30_000);
    prober.guest.as_mut().unwrap().stop(clock::now());
    until(&mut prober, |s| s == GuestState::Ended(EndReason::None));
    let streams = Wish {
        streams_up: 1,
        offer: None,
        ..wish(1000, OFF)
    };
    prober.guest = Some(Guest::new(streams, 10, clock::now()));
    until(&mut prober, |s| s == GuestState::Refused(EndReason::Off));
    drop(taken);
}
