//! Strangers flood a reflector while it serves a client: the client loses what the line drops and nothing
//! else, what this host could not take is never told as the line's loss, and no stranger gets more bytes
//! than it sent. `bufferbane-lab flood` does the same at the rates that a machine can make.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bufferbane_core::sample::Status;
use bufferbane_core::seal::PresharedKey;
use bufferbane_lab::bench::flood::{Captured, Flood, Kind, NEAR, bytes, join};
use bufferbane_lab::bench::setup::key_number;
use bufferbane_lab::home::Home;
use bufferbane_lab::link::{Direction, Flow, Passage, Way};
use bufferbane_lab::matching::{Sent, compare, exchanges};
use bufferbane_lab::netns::{self, Namespace};
use bufferbane_lab::skip;
use bufferbane_reflector::Running;
use bufferbane_reflector::config as reflector;
use bufferbane_store::{Filter, Reader, SeriesKind};
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Reflector, Stream};

const SERVER: &str = "10.99.0.1";
const PORT: u16 = 9876;
const PROBE_BYTES: u16 = 128;
/// What any machine takes, datagrams per second.
const GENTLE: u64 = 4_000;
const TIME: Duration = Duration::from_millis(1_500);
/// The line drops so many of a million packets each way while the floods are gentle.
const LOSS_PPM: u32 = 20_000;
/// Until every loss has its direction.
const SETTLE: Duration = Duration::from_millis(4_500);

fn line(loss_ppm: u32) -> Direction {
    Direction {
        loss_ppm,
        ..Direction::delay(10_000_000)
    }
}

fn daemon_config(dir: &Path, key: PresharedKey) -> Config {
    let mut config = Config {
        store: dir.join("s.redb"),
        control_socket: dir.join("c.sock"),
        interfaces: vec!["wan0".into()],
        targets: Some(Vec::new()),
        reflectors: vec![Reflector {
            name: "server".into(),
            host: SERVER.into(),
            port: PORT,
            key: key.into(),
            family: FamilyChoice::V4,
            streams: vec![Stream {
                dscp: 0,
                size: PROBE_BYTES,
                interval_ns: 50_000_000,
                more_sizes: [0; 3],
            }],
            tcp_prefix: None,
        }],
        ..Config::default()
    };
    config.keep.min_free_bytes = 0;
    config
}

fn reflector_config() -> reflector::Config {
    let client = |n: usize| reflector::Client {
        name: format!("client{n}"),
        keys: vec![key_number(n)],
        max_pps: 1000,
        max_rate_bps: None,
        daily_bytes: None,
        tcp_prefixes: Vec::new(),
    };
    reflector::Config {
        listen: vec![([0, 0, 0, 0], PORT).into()],
        listen_is_default: false,
        control_socket: None,
        clients: vec![client(0), client(1)],
        ..reflector::Config::default()
    }
}

fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_nanos() as i64
}

/// Every kind of flood in turn; when it all began and ended.
fn flood(stranger: &Namespace, captured: &Captured, rate: Option<u64>) -> (i64, i64) {
    let from_ns = wall_ns();
    for kind in Kind::ALL {
        let flood = Flood {
            kind,
            to: (NEAR.parse().expect("an address"), PORT),
            rate,
            time: TIME,
            cpu: 0,
            captured: captured.clone(),
        };
        let before = bytes(stranger).expect("counters");
        let sent = stranger.inside(move || flood.run()).expect("inside");
        let sent = sent.expect("the flood leaves");
        std::thread::sleep(Duration::from_millis(100));
        let after = bytes(stranger).expect("counters");
        let (out, in_) = (after[0] - before[0], after[1] - before[1]);
        println!(
            "{}: {sent} sent, {in_} bytes in, {out} bytes out",
            kind.as_str()
        );
        assert!(sent > 100 && out <= in_, "{kind:?}: {out} bytes for {in_}");
    }
    (from_ns, wall_ns())
}

fn samples(store: &Path, (from_ns, to_ns): (i64, i64)) -> Vec<Sent> {
    let reader = Reader::open(store).expect("a store that was closed");
    let series = reader.series().expect("readable");
    let probes = series.iter().filter(|(_, i)| i.kind == SeriesKind::Udp);
    let filter = Filter {
        from_ns,
        to_ns,
        series: probes.map(|(id, _)| *id).collect(),
    };
    let rows = reader.samples(&filter).map(|r| r.expect("readable"));
    rows.map(|r| Sent {
        at_ns: r.wall_ns,
        sample: r.sample,
    })
    .collect()
}

/// A moment soon after this one with no probe near it, so that its stamp and the line's agree on which
/// side of it each is.
fn between_probes(log: &[Passage], after_ns: i64) -> i64 {
    let within = after_ns..after_ns + 1_000_000_000;
    let requests = log.iter().filter(|p| p.way == Way::Up);
    let mut at_ns: Vec<i64> = requests.map(|p| p.arrival_ns).collect();
    at_ns.sort_unstable();
    at_ns.retain(|at| within.contains(at));
    let gaps = at_ns.windows(2).map(|two| (two[1] - two[0], two[0]));
    let (gap, begin) = gaps.max().expect("probes");
    begin + gap / 2
}

#[test]
fn a_flood_costs_a_client_nothing_that_the_line_did_not_drop() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let home = Home::new(1, &line(0), &line(0), 4713).expect("a lab");
    let stranger = Namespace::new("stranger").expect("a namespace");
    join(&home.server, &stranger).expect("a cable");
    let (stop, to_stop) = channel::<()>();
    let (tell, told) = channel();
    let serving = home.server.spawn(move || {
        let mut running = Running::start(&reflector_config()).expect("the reflector starts");
        tell.send(()).expect("somebody waits");
        // Until there is nobody who could tell it to stop.
        let _ = to_stop.recv();
        running.status().expect("statistics")
    });
    let serving = serving.expect("the server's namespace");
    told.recv().expect("a reflector");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = daemon_config(dir.path(), key_number(0));
    let daemon = home.client.spawn(move || Daemon::start(config, None));
    let daemon = daemon.expect("the client's namespace").join();
    let mut daemon = daemon.expect("no panic").expect("the daemon starts");
    std::thread::sleep(Duration::from_millis(1_500));
    let captured = Captured::from(&home.client, SERVER, PORT).expect("a client is served");

    let change = |loss_ppm| {
        home.links[0].change(Way::Up, line(loss_ppm));
        home.links[0].change(Way::Down, line(loss_ppm));
        std::thread::sleep(Duration::from_millis(200));
    };
    change(LOSS_PPM);
    let gentle = flood(&stranger, &captured, Some(GENTLE));
    change(0);
    std::thread::sleep(SETTLE);
    let highest = flood(&stranger, &captured, None);
    std::thread::sleep(SETTLE);
    daemon.stop();
    drop(stop);
    let status = serving.join().expect("no panic");
    let number = |key: &str| status[key].as_u64().expect("a number");
    let not_taken = number("socket_drops") + number("overload");

    let own =
        |p: &Passage| matches!(p.flow, Flow::Udp(a, b, PROBE_BYTES) if a == PORT || b == PORT);
    let log: Vec<Passage> = home.links[0].log().into_iter().filter(own).collect();
    let gentle = (
        between_probes(&log, gentle.0),
        between_probes(&log, gentle.1),
    );
    let during: Vec<_> = exchanges(&log)
        .into_iter()
        .filter(|e| (gentle.0..gentle.1).contains(&e.request.arrival_ns))
        .collect();
    let store = dir.path().join("s.redb");
    let seen = samples(&store, gentle);
    let outcome = compare(&seen, &during, true);
    println!(
        "gentle: {} probes, the line dropped {} up and {} down; {not_taken} datagrams were not taken",
        seen.len(),
        outcome.lost_up,
        outcome.lost_down
    );
    assert!(seen.len() > 100, "{}", seen.len());
    assert!(outcome.wrong.is_empty(), "{:?}", outcome.wrong);

    let seen = samples(&store, highest);
    let count = |status| seen.iter().filter(|s| s.sample.status == status).count();
    println!(
        "highest: {} probes, {} lost",
        seen.len(),
        count(Status::Lost)
    );
    assert!(seen.len() > 100, "{}", seen.len());
    for status in [Status::LostUp, Status::LostDown] {
        assert_eq!(count(status), 0, "the line dropped nothing: {status:?}");
    }
    // Of what reached the reflector, what it did not answer; and what the line dropped after all.
    let reached = |p: &&Passage| p.way == Way::Up && p.fate.delivered_ns().is_some();
    let answers = log.iter().filter(|p| p.way == Way::Down).count();
    let unanswered = log.iter().filter(reached).count() - answers;
    let dropped = |p: &&Passage| p.arrival_ns >= highest.0 && p.fate.delivered_ns().is_none();
    let dropped = log.iter().filter(dropped).count();
    println!("highest: {unanswered} not answered, the line dropped {dropped}");
    // The last probe may still be under way when the daemon stops.
    assert!(unanswered as u64 <= not_taken + 1, "{unanswered}: {status}");
    assert!(
        count(Status::Lost) <= unanswered + dropped,
        "{unanswered} not answered, {dropped} dropped: {status}"
    );
}
