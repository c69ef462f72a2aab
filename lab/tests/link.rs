//! Real packets through the emulated line, against its log.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use bufferbane_lab::home::{Home, Layout, Place, SERVERS};
use bufferbane_lab::link::{Direction, Fate, Flow, Passage, Record, Rewrite, Way};
use bufferbane_lab::netns::{Namespace, possible};
use bufferbane_lab::skip;

const MS: u64 = 1_000_000;
const PORT: u16 = 4000;
const TOS: u8 = 0xb9;

fn socket(ns: &Namespace, at: SocketAddr, tos: Option<u8>) -> UdpSocket {
    let open = move || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(at)?;
        socket.set_read_timeout(Some(Duration::from_millis(400)))?;
        if let Some(tos) = tos {
            socket2::SockRef::from(&socket).set_tos_v4(u32::from(tos))?;
        }
        Ok(socket)
    };
    ns.inside(open).expect("inside").expect("a socket")
}

/// What arrives at `socket`: its numbers in the order of arrival.
fn numbers(socket: &UdpSocket) -> Vec<u64> {
    let mut bytes = [0; 64];
    let mut list = Vec::new();
    while let Ok(len) = socket.recv(&mut bytes) {
        list.push(u64::from_be_bytes(bytes[12..20].try_into().expect("eight")));
        assert_eq!(len, 20);
    }
    list
}

fn send(socket: &UdpSocket, to: SocketAddr, number: u64) {
    let mut bytes = [0; 20];
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    socket.send_to(&bytes, to).expect("a route");
}

fn udp(log: &[Passage], way: Way) -> Vec<Passage> {
    let mine = |p: &&Passage| p.way == way && matches!(p.flow, Flow::Udp(..));
    log.iter().filter(mine).copied().collect()
}

#[test]
fn packets_arrive_as_the_log_has_them() {
    if let Err(why) = possible() {
        return skip(&why);
    }
    let layout = Layout {
        uplinks: 2,
        place: Place::BehindGateways,
        plan: [Direction::delay(5 * MS), Direction::delay(5 * MS)],
        seed: 3,
    };
    let home = Home::build(&layout).expect("a lab");

    // Every server answers over both families, through a gateway that takes one from the TTL.
    for n in 1..=SERVERS {
        for host in [format!("10.99.0.{n}"), format!("fd99::{n}")] {
            home.client
                .run("ping", &["-c1", "-w5", "-q", &host])
                .expect("an answer");
        }
    }
    let log = home.links[0].log();
    let far: std::collections::BTreeSet<IpAddr> = log
        .iter()
        .filter(|p| matches!(p.flow, Flow::Echo(..)))
        .inspect(|p| assert_eq!(p.ttl, if p.way == Way::Up { 63 } else { 64 }))
        .map(|p| p.far)
        .collect();
    assert_eq!(far.len(), 2 * SERVERS);

    // Losses, doubles, packets out of order, another DSCP and a shorter TTL.
    let bad = Direction {
        loss_ppm: 200_000,
        duplicate_ppm: 200_000,
        reorder_ppm: 200_000,
        reorder_ns: 10 * MS,
        rewrite: Rewrite {
            ttl_less: 7,
            ..Rewrite::BLEACH_DSCP
        },
        ..Direction::delay(5 * MS)
    };
    home.links[0].change(Way::Up, bad);
    let to: SocketAddr = ([10, 99, 0, 1], PORT).into();
    let server = socket(&home.server, to, None);
    let client = socket(&home.client, ([0, 0, 0, 0], 0).into(), Some(TOS));
    let arriving = std::thread::spawn(move || numbers(&server));
    for number in 0..300 {
        send(&client, to, number);
        std::thread::sleep(Duration::from_millis(2));
    }
    let arrived = arriving.join().expect("no panic");
    let log = home.links[0].log();
    let up = udp(&log, Way::Up);
    let delivered: Vec<u64> = up
        .iter()
        .filter(|p| p.fate.delivered_ns().is_some())
        .map(|p| p.mark)
        .collect();
    assert_eq!(arrived, delivered);
    let count = |pick: fn(&Passage) -> bool| up.iter().filter(|p| pick(p)).count();
    assert!((30..90).contains(&count(|p| p.fate == Fate::Lost)));
    assert!((30..90).contains(&count(|p| p.copy)));
    assert!(!arrived.is_sorted());
    assert!(up.iter().all(|p| p.tos == TOS && p.ttl == 63));
    let early = count(|p| p.fate.delivered_ns().is_some_and(|at| at < p.planned_ns));
    assert_eq!(early, 0);
    assert_eq!(home.links[0].missed(), 0);
    assert!(home.links[1].log().iter().all(|p| p.flow == Flow::Other));
}

#[test]
fn headers_leave_the_line_as_they_were_rewritten() {
    if let Err(why) = possible() {
        return skip(&why);
    }
    let rewrite = Rewrite {
        ttl_less: 7,
        ..Rewrite::BLEACH_DSCP
    };
    let up = Direction {
        rewrite,
        ..Direction::delay(MS)
    };
    // Another line sees what the first has made of a packet.
    let home = Home::new(1, &up, &Direction::delay(MS), 1).expect("a lab");
    let to: SocketAddr = ([10, 77, 0, 2], PORT).into();
    let client = socket(&home.client, ([0, 0, 0, 0], PORT).into(), Some(TOS));
    let server = socket(&home.server, to, None);
    // What comes back carries nothing of it, so the kernel's answer is what is looked at: an echo
    // reply has the TOS of its request.
    home.client
        .run("ping", &["-c1", "-w5", "-q", "-Q", "0xb9", "10.77.0.2"])
        .expect("an answer");
    send(&client, to, 9);
    assert_eq!(numbers(&server), [9], "with a right checksum");
    let log = home.links[0].log();
    let tos = |way: Way| {
        let echo = |p: &&Passage| p.way == way && matches!(p.flow, Flow::Echo(..));
        log.iter().find(echo).map(|p| p.tos)
    };
    assert_eq!((tos(Way::Up), tos(Way::Down)), (Some(0xb9), Some(0x01)));
}

#[test]
fn a_fast_line_carries_what_it_should_and_counts_it() {
    if let Err(why) = possible() {
        return skip(&why);
    }
    let up = Direction {
        rate_bps: 50_000_000,
        buffer_ns: 50 * MS,
        ..Direction::delay(5 * MS)
    };
    let home = Home::new(1, &up, &Direction::delay(5 * MS), 1).expect("a lab");
    home.links[0].record(Record::None);
    let to: SocketAddr = ([10, 99, 0, 1], PORT).into();
    let server = socket(&home.server, to, None);
    let client = socket(&home.client, ([0, 0, 0, 0], 0).into(), None);
    let counting = std::thread::spawn(move || {
        let mut bytes = [0; 2048];
        std::iter::from_fn(|| server.recv(&mut bytes).ok()).count() as u64
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(800) {
        for _ in 0..20 {
            client.send_to(&[0; 1400], to).expect("a route");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let arrived = counting.join().expect("no panic");
    assert!(home.links[0].log().is_empty());
    let bins = home.links[0].bins();
    let delivered: u64 = bins
        .iter()
        .filter(|b| b.way == Way::Up)
        .map(|b| b.packets)
        .sum();
    let dropped: u64 = bins.iter().map(|b| b.buffer).sum();
    println!("{delivered} of {} arrived: {arrived}", delivered + dropped);
    // A few are neighbours and routers finding each other.
    assert!(arrived <= delivered && delivered <= arrived + 10);
    assert!(bins.iter().all(|b| b.queue_max_ns <= 50 * MS));
    assert_eq!(home.links[0].missed(), 0);
}
