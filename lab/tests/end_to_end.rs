//! The whole way: real sockets, real stamps, a line that wrote down what it did, the real store.

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bufferbane_core::sample::Status;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_core::trace::way::FLOW;
use bufferbane_lab::home::{Home, Layout};
use bufferbane_lab::link::{Bursts, Direction, Fate, Flow, Link, Passage, Way};
use bufferbane_lab::matching::{Sent, compare, exchanges, pairs};
use bufferbane_lab::{netns, skip};
use bufferbane_reflector::Running;
use bufferbane_store::{Filter, PathEnd, Reader, SeriesId, SeriesKind};
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Place, Reflector, Stream, Target};

const MS: u64 = 1_000_000;
const INTERVAL_NS: u64 = 10 * MS;
const PROBE_BYTES: u16 = 128;
const V4: &str = "10.99.0.1";
const V6: &str = "fd99::1";

fn key() -> PresharedKey {
    PresharedKey {
        id: KeyId(*b"end2end!"),
        secret: Secret::new([42; 32]),
    }
}

fn target(name: &str, address: &str) -> Target {
    Target {
        name: name.into(),
        place: Place::Host(address.into()),
        family: FamilyChoice::Auto,
        interval_ns: INTERVAL_NS,
        size: 64,
        more_sizes: [0; 3],
    }
}

fn stream_to(name: &str, address: &str) -> Reflector {
    Reflector {
        name: name.into(),
        host: address.into(),
        port: 9876,
        key: key(),
        family: FamilyChoice::Auto,
        streams: vec![Stream {
            dscp: 0,
            size: PROBE_BYTES,
            interval_ns: INTERVAL_NS,
            more_sizes: [0; 3],
        }],
        tcp_prefix: None,
    }
}

fn daemon_config(dir: &std::path::Path, uplinks: usize) -> Config {
    let mut config = Config {
        store: dir.join("s.redb"),
        control_socket: dir.join("c.sock"),
        commit_interval_ns: 1000 * MS,
        interfaces: (0..uplinks)
            .map(|i| format!("wan{i}").as_str().into())
            .collect(),
        targets: Some(vec![target("server", V4)]),
        reflectors: vec![stream_to("vienna", V4)],
        ..Config::default()
    };
    config.keep.min_free_bytes = 0;
    config
}

fn reflector_config() -> bufferbane_reflector::config::Config {
    bufferbane_reflector::config::Config {
        listen: [V4, V6]
            .map(|a| (a.parse::<IpAddr>().expect("an address"), 9876).into())
            .to_vec(),
        control_socket: None,
        clients: vec![bufferbane_reflector::config::Client {
            name: "home".into(),
            keys: vec![key()],
            max_pps: 1000,
            max_rate_bps: None,
            daily_bytes: None,
        }],
        ..bufferbane_reflector::config::Config::default()
    }
}

fn sent(reader: &Reader, series: SeriesId, from_ns: i64, to_ns: i64) -> Vec<Sent> {
    let filter = Filter {
        from_ns,
        to_ns,
        series: vec![series],
    };
    reader
        .samples(&filter)
        .map(|row| row.expect("a readable store"))
        .map(|row| Sent {
            at_ns: row.wall_ns,
            sample: row.sample,
        })
        .collect()
}

fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_nanos() as i64
}

/// Each test needs the machine's cores for its line: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a packet is one of a series of this test: its kind and family.
fn is_of(kind: SeriesKind, family: u8) -> impl Fn(&Passage) -> bool {
    let udp = kind == SeriesKind::Udp;
    move |p: &Passage| {
        let kind = match p.flow {
            Flow::Udp(from, to, len) => udp && len == PROBE_BYTES && (from == 9876 || to == 9876),
            Flow::Echo(identifier, _) => !udp && identifier != FLOW,
            _ => false,
        };
        kind && p.far.is_ipv6() == (family == 6)
    }
}

/// How many packets of a series a line has to lose.
#[derive(Clone, Copy)]
struct Least {
    up: usize,
    down: usize,
    /// So many of them in a row.
    run: usize,
}

impl Least {
    /// Whether `log`, of one series, has them in that time.
    fn are_in(self, log: &[Passage], during: &Range<i64>) -> bool {
        let mut log: Vec<_> = log
            .iter()
            .filter(|p| during.contains(&p.arrival_ns))
            .collect();
        log.sort_by_key(|p| p.arrival_ns);
        let is_lost = |p: &&Passage| matches!(p.fate, Fate::Lost | Fate::Outage);
        [(Way::Up, self.up), (Way::Down, self.down)]
            .into_iter()
            .filter(|(_, least)| *least > 0)
            .all(|(way, least)| {
                let of: Vec<_> = log.iter().copied().filter(|p| p.way == way).collect();
                let runs = of.chunk_by(|a, b| is_lost(a) == is_lost(b));
                let longest = runs.filter(|r| is_lost(&r[0])).map(<[_]>::len).max();
                of.iter().filter(|p| is_lost(p)).count() >= least && longest >= Some(self.run)
            })
    }
}

/// Whether each series through `link` has lost at least that many in that time.
fn lost_enough(link: &Link, during: &Range<i64>, least: Least) -> bool {
    let log = link.log();
    let series = [SeriesKind::Icmp, SeriesKind::Udp]
        .into_iter()
        .flat_map(|kind| [4, 6].map(|family| is_of(kind, family)));
    series
        .map(|own| log.iter().filter(|p| own(p)).copied().collect::<Vec<_>>())
        .all(|log| least.are_in(&log, during))
}

fn median(sorted: &[i64]) -> i64 {
    sorted[sorted.len() / 2]
}

#[test]
fn every_probe_through_a_bad_line_is_told_as_the_line_has_it() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let _alone = alone();
    let quiet_up = Direction {
        rate_bps: 10_000_000,
        ..Direction::delay(20 * MS)
    };
    let quiet_down = Direction::delay(20 * MS);
    let home = Home::new(2, &quiet_up, &quiet_down, 4711).expect("a lab");
    let dir = tempfile::tempdir().expect("a temporary directory");

    let (stop_reflector, stopping) = std::sync::mpsc::channel::<()>();
    let reflector = home
        .server
        .spawn(move || {
            let mut running = Running::start(&reflector_config()).expect("the reflector starts");
            let _ = stopping.recv();
            let status = running.status().expect("the reflector answers");
            running.stop().expect("the reflector ran to the end");
            status
        })
        .expect("the server's namespace");
    std::thread::sleep(Duration::from_millis(300));
    let config = Config {
        targets: Some(vec![target("server", V4), target("server6", V6)]),
        reflectors: vec![stream_to("vienna", V4), stream_to("vienna6", V6)],
        ..daemon_config(dir.path(), 2)
    };
    let mut daemon = home
        .client
        .spawn(move || Daemon::start(config, None))
        .expect("the client's namespace")
        .join()
        .expect("no panic")
        .expect("the daemon starts");
    std::thread::sleep(Duration::from_secs(3));

    let lossy = |d: &Direction| Direction {
        loss_ppm: 150_000,
        ..d.clone()
    };
    // Of the line's packets; a series has every fourth of them.
    let bursty = |d: &Direction| Direction {
        bursts: Some(Bursts {
            begin_ppm: 4_000,
            mean_packets: 1_200,
            loss_ppm: 1_000_000,
        }),
        ..d.clone()
    };
    let out = |d: &Direction| Direction {
        outage: true,
        ..d.clone()
    };
    let (up, down) = (&quiet_up, &quiet_down);
    let mut runs = Vec::new();
    for (name, up, down, seconds, [lost_up, lost_down, run]) in [
        ("loss up", lossy(up), down.clone(), 10, [100, 0, 1]),
        ("loss down", up.clone(), lossy(down), 10, [0, 100, 1]),
        ("loss both ways", lossy(up), lossy(down), 9, [100, 100, 1]),
        ("bursts up", bursty(up), down.clone(), 6, [100, 0, 100]),
        ("quiet", up.clone(), down.clone(), 2, [0, 0, 1]),
        ("bursts down", up.clone(), bursty(down), 6, [0, 100, 100]),
        ("quiet", up.clone(), down.clone(), 2, [0, 0, 1]),
        ("outage up", out(up), down.clone(), 3, [250, 0, 1]),
        ("quiet", up.clone(), down.clone(), 2, [0, 0, 1]),
        ("outage down", up.clone(), out(down), 3, [0, 250, 1]),
        ("quiet", up.clone(), down.clone(), 5, [0, 0, 1]),
    ] {
        for link in &home.links {
            link.change(Way::Up, up.clone());
            link.change(Way::Down, down.clone());
        }
        let least = Least {
            up: lost_up,
            down: lost_down,
            run,
        };
        let (begin_ns, begun) = (wall_ns(), Instant::now());
        std::thread::sleep(Duration::from_secs(seconds));
        // A machine that is taken away from us sends fewer.
        while begun.elapsed() < 3 * Duration::from_secs(seconds)
            && !home
                .links
                .iter()
                .all(|link| lost_enough(link, &(begin_ns..wall_ns()), least))
        {
            std::thread::sleep(Duration::from_millis(500));
        }
        runs.push((name, begin_ns..wall_ns(), least));
    }
    let own = daemon.status();
    daemon.stop();
    println!("daemon: dropped {:?}", own.drops);
    let _ = stop_reflector.send(());
    let status = reflector.join().expect("no panic");
    println!(
        "reflector: {} answered, dropped {}, socket {}, overload {}",
        status["answered"], status["drops"], status["socket_drops"], status["overload"]
    );

    if let Some(keep) = std::env::var_os("BUFFERBANE_KEEP_STORE") {
        std::fs::copy(dir.path().join("s.redb"), keep).expect("a place to keep the store");
    }
    let reader = Reader::open(&dir.path().join("s.redb")).expect("a store that was closed");
    let (from_ns, to_ns) = reader.span().expect("readable").expect("samples");
    // What was in flight at the end has no sample; the first second is left to the session.
    let (from_ns, to_ns) = (from_ns + 1000 * MS as i64, to_ns - 4000 * MS as i64);
    let (mut directions, mut wrong) = (0, 0);
    for (id, info) in reader.series().expect("readable") {
        let link = &home.links[usize::from(info.interface == "wan1")];
        assert_eq!((link.missed(), link.left_out()), (0, 0));
        let udp = info.kind == SeriesKind::Udp;
        let own = is_of(info.kind, info.family);
        let log: Vec<_> = link.log().into_iter().filter(own).collect();
        for (name, during, least) in &runs {
            assert!(
                least.are_in(&log, during),
                "{name} was not as bad as it should"
            );
        }
        let samples = sent(&reader, id, from_ns, to_ns - 100 * MS as i64);
        let mut line = exchanges(&log);
        line.retain(|e| (from_ns..to_ns).contains(&e.request.arrival_ns));
        let outcome = compare(&samples, &line, udp);
        let errors = &outcome.rtt_errors_ns;
        println!(
            "{} {} IPv{}: {} samples, lost up {} and down {}, RTT error p50 {} µs, p99 {} µs, {} wrong",
            info.interface,
            info.kind.as_str(),
            info.family,
            samples.len(),
            outcome.lost_up,
            outcome.lost_down,
            median(errors) / 1000,
            errors[errors.len() * 99 / 100] / 1000,
            outcome.wrong.len(),
        );
        wrong += outcome.wrong.len();
        for line in outcome.wrong.iter().take(20) {
            println!("  {line}");
        }
        assert!(outcome.lost_up > 400 && outcome.lost_down > 400);
        assert!(median(errors).abs() < 300_000, "{} ns", median(errors));
        if udp {
            directions += 1;
            assert!(!samples.iter().any(|s| s.sample.status == Status::Lost));
        }
    }
    assert_eq!((directions, wrong), (4, 0));
}

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
    let (stop_reflector, stopping) = std::sync::mpsc::channel::<()>();
    let reflector = home
        .server
        .spawn(move || {
            let running = Running::start(&reflector_config()).expect("the reflector starts");
            let _ = stopping.recv();
            running.stop()
        })
        .expect("the server's namespace");
    std::thread::sleep(Duration::from_millis(300));
    let mut config = daemon_config(dir.path(), 1);
    config.targets = Some(vec![]);
    let mut daemon = home
        .client
        .spawn(move || Daemon::start(config, None))
        .expect("the client's namespace")
        .join()
        .expect("no panic")
        .expect("the daemon starts");
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
    let _ = stop_reflector.send(());
    reflector
        .join()
        .expect("no panic")
        .expect("the reflector ran to the end");

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

/// Two hops, the second of which falls silent: what is stored of it names the first.
#[test]
fn an_outage_names_the_last_hop_that_answered() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let _alone = alone();
    let quiet = Direction::delay(5 * MS);
    let layout = Layout {
        uplinks: 1,
        gateways: true,
        plan: [quiet.clone(), quiet.clone()],
        seed: 33,
    };
    let home = Home::build(&layout).expect("a lab");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let reflector = home.server.spawn(|| Running::start(&reflector_config()));
    let reflector = reflector.expect("the server's namespace").join();
    let _reflector = reflector.expect("no panic").expect("the reflector starts");
    let mut config = daemon_config(dir.path(), 1);
    config.targets = Some(vec![]);
    let sooner = "target = []\n[alerts]\noutage = \"1s\"\n";
    let sooner = bufferbaned::config::parse("sooner.toml", sooner, dir.path());
    config.alerts = sooner.expect("a right configuration").config.alerts;
    let daemon = home.client.spawn(move || Daemon::start(config, None));
    let daemon = daemon.expect("the client's namespace").join();
    let mut daemon = daemon.expect("no panic").expect("the daemon starts");
    let until = |what: &str, mut is: Box<dyn FnMut() -> bool + '_>| {
        let begun = Instant::now();
        while !is() {
            assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let received = || {
        daemon
            .status()
            .series
            .iter()
            .map(|s| s.total.received)
            .sum::<u64>()
    };
    until("answers", Box::new(|| received() > 50));
    for way in Way::BOTH {
        let outage = true;
        let cut = Direction {
            outage,
            ..quiet.clone()
        };
        home.links[0].change(way, cut);
    }
    // The daemon goes on writing: each look is of its own snapshot.
    let read = || Reader::open(&dir.path().join("s.redb")).expect("a store");
    let looks = || read().escalations(i64::MIN, i64::MAX).expect("readable");
    until("a look at the way", Box::new(|| !looks().is_empty()));
    daemon.stop();
    let looks = looks();
    let look = &looks[0].look;
    println!("{look:?}");
    assert_eq!(look.path.end, PathEnd::Silence);
    let [gateway] = &look.path.hops[..] else {
        panic!("{look:?}");
    };
    assert_eq!(gateway.addresses, [IpAddr::from([10, 77, 0, 254])]);
    assert_eq!(look.path.address.to_string(), V4);
    let events = read().events(i64::MIN, i64::MAX).expect("readable");
    let own = events.iter().filter(|(id, _)| look.events.contains(id));
    let kinds: Vec<&str> = own.map(|(_, e)| e.kind.as_str()).collect();
    assert!(
        kinds.contains(&"outage") || kinds.contains(&"reflector_lost"),
        "{events:?}"
    );
}
