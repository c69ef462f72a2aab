//! Queueing delay of each direction, while a queue stands in one of them.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use bufferbane_core::sample::Status;
use bufferbane_lab::home::Home;
use bufferbane_lab::link::{Direction, Flow, Passage, Way};
use bufferbane_lab::matching::{Sent, exchanges, pairs};
use bufferbane_lab::{netns, skip};
use bufferbane_store::{Filter, Reader};

use super::{MS, PROBE_BYTES, alone, daemon_config, median, start_daemon, start_reflector};

/// Sends more than a line of 4 Mbit/s takes, for so long.
fn flood(socket: &UdpSocket, to: &str, seconds: u64) {
    let begun = Instant::now();
    let mut sent = 0;
    while begun.elapsed() < Duration::from_secs(seconds) {
        // What is due by now, 1200 bytes every two milliseconds.
        while sent * 2 <= begun.elapsed().as_millis() {
            // A full buffer of this host is as good as one of the line.
            let _ = socket.send_to(&[0; 1200], to);
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What one direction's queueing delay was said to be, and was.
#[derive(Default)]
struct Queue {
    /// Said minus true, and true, ns.
    errors: Vec<(i64, i64)>,
    /// Left out: this host was busy with something else between a stamp and the line.
    disturbed: usize,
}

/// Both ends' stamps are on one clock here, so what a packet took from stamp to stamp beyond the line's
/// own log, ns, is this host's doing: it is stopped now and then for most of a millisecond just after
/// the kernel has stamped a departure. More than this is not held against the program.
const DISTURBED_NS: i64 = 100_000;

impl Queue {
    /// A packet that was said to have waited `said_ns`, and to have taken `raw_ns` from stamp to
    /// stamp. By the line's log it took `took_ns`, and the quickest of all `floor_ns`.
    fn add(&mut self, said_ns: u64, raw_ns: i64, took_ns: i64, floor_ns: i64) {
        if (raw_ns - took_ns).abs() > DISTURBED_NS {
            self.disturbed += 1;
            return;
        }
        let truth_ns = took_ns - floor_ns;
        self.errors.push((said_ns as i64 - truth_ns, truth_ns));
    }
}

#[test]
fn queueing_delay_is_told_in_its_direction_as_the_line_has_it() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let _alone = alone();
    let direction = Direction {
        rate_bps: 4_000_000,
        buffer_bytes: 60_000,
        ..Direction::delay(15 * MS)
    };
    let home = Home::new(1, &direction, &direction, 815).expect("a lab");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let reflector = start_reflector(&home);
    let mut config = daemon_config(dir.path(), 1);
    config.targets = Some(vec![]);
    let mut daemon = start_daemon(&home, config);
    let bound = |namespace: &netns::Namespace, address: &'static str| {
        let socket = namespace.spawn(move || UdpSocket::bind(address).expect("an address"));
        socket.expect("a namespace").join().expect("a socket")
    };
    let (near, far) = (
        bound(&home.client, "10.77.0.1:7000"),
        bound(&home.server, "10.99.0.1:7000"),
    );
    std::thread::sleep(Duration::from_secs(7));
    flood(&near, "10.99.0.1:7000", 4);
    std::thread::sleep(Duration::from_secs(2));
    flood(&far, "10.77.0.1:7000", 4);
    std::thread::sleep(Duration::from_secs(4));
    daemon.stop();
    reflector.stop().expect("the reflector ran to the end");

    let probe = |p: &Passage| match p.flow {
        Flow::Udp(from, to, len) => len == PROBE_BYTES && (from == 9876 || to == 9876),
        _ => false,
    };
    let log: Vec<Passage> = home.links[0].log().into_iter().filter(probe).collect();
    let took = |way| log.iter().filter(move |p| p.way == way);
    let floor = |way| took(way).filter_map(Passage::took_ns).min().unwrap_or(0);
    let floors = Way::BOTH.map(floor);
    let line = exchanges(&log);
    let reader = Reader::open(&dir.path().join("s.redb")).expect("a store that was closed");
    let filter = Filter {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        series: reader.series().expect("readable").into_keys().collect(),
    };
    let rows = reader.samples(&filter);
    let rows: Vec<_> = rows.map(|row| row.expect("a readable store")).collect();
    let sent: Vec<Sent> = rows
        .iter()
        .map(|row| Sent {
            at_ns: row.wall_ns,
            sample: row.sample,
        })
        .collect();
    let queueing: HashMap<u64, _> = rows
        .iter()
        .filter(|row| row.sample.status == Status::Ok)
        .map(|row| (row.sample.seq, row.queueing))
        .collect();
    let unknown = queueing.values().filter(|q| q.is_none()).count();
    let (mut up, mut down) = (Queue::default(), Queue::default());
    for (sent, exchange) in pairs(&sent, &line).0 {
        let (request, Some(answer)) = (&exchange.request, &exchange.answer) else {
            continue;
        };
        let Some(Some(q)) = queueing.get(&sent.sample.seq) else {
            continue;
        };
        if let (Some(raw_ns), Some(took_ns)) = (sent.sample.raw_up_ns, request.took_ns()) {
            up.add(q.up_ns, raw_ns, took_ns, floors[0]);
        }
        if let (Some(raw_ns), Some(took_ns)) = (sent.sample.raw_down_ns, answer.took_ns()) {
            down.add(q.down_ns, raw_ns, took_ns, floors[1]);
        }
    }
    let probes = up.errors.len() + up.disturbed;
    println!("{probes} probes, {unknown} before the floor was known");
    assert!(probes > 500 && unknown < 1000);
    for (name, queue) in [("up", &up), ("down", &down)] {
        let all = &queue.errors;
        let longest = all.iter().map(|(_, truth)| *truth).max().unwrap_or(0);
        let long = all.iter().filter(|(_, truth)| *truth > 50_000_000);
        let mut in_queue: Vec<i64> = long.map(|(error, _)| error.abs()).collect();
        let mut errors: Vec<i64> = all.iter().map(|(error, _)| error.abs()).collect();
        errors.sort_unstable();
        in_queue.sort_unstable();
        assert!(in_queue.len() > 50, "no queue {name}");
        let p95 = |sorted: &[i64]| sorted[sorted.len() * 95 / 100];
        println!(
            "queue {name}: up to {} ms; error p50 {} µs, p95 {} µs; in {} probes of a long queue p95 {} µs; \
             {} left out",
            longest / 1_000_000,
            median(&errors) / 1000,
            p95(&errors) / 1000,
            in_queue.len(),
            p95(&in_queue) / 1000,
            queue.disturbed,
        );
        assert!(queue.disturbed * 3 <= all.len(), "this host is too busy");
        assert!(p95(&errors) <= 200_000 && p95(&in_queue) <= 200_000);
    }
    // Neither direction's queue is told as the other's: where one stood empty, none is told.
    let both = up.errors.iter().chain(&down.errors);
    let empty = both.filter(|(_, truth)| *truth < 1_000_000);
    let (all, invented) = empty.fold((0, 0), |(all, invented), (error, _)| {
        (all + 1, invented + usize::from(*error > 2_000_000))
    });
    assert!(all > 500 && invented * 100 <= all, "{invented} of {all}");
}
