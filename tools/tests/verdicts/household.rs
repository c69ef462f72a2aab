//! A household that fills its own upload: what the line can, and what it does to latency, is told
//! without a byte of test traffic; and that it can less all at once, too.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bufferbane_lab::bench::shapes::ask;
use bufferbane_lab::home::Home;
use bufferbane_lab::link::{Direction, Fate, Flow, Passage, Way};
use bufferbane_lab::services::{KEY_FILE, Services};
use bufferbane_lab::{netns, skip};
use bufferbane_store::{Event, Method, Reader};
use nix::sys::socket::{setsockopt, sockopt};

use super::line::{causes, report};

const MS: u64 = 1_000_000;
const REFLECTOR: &str = "10.99.0.1:9876";
const SINK: &str = "10.99.0.2:5001";
const SINK_PORT: u16 = 5001;
fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_nanos() as i64
}

/// Takes whatever one connection brings.
fn sink() {
    let listener = std::net::TcpListener::bind(SINK).expect("a free port");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the upload");
        // A reset is its end, too.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
}

/// Uploads until told to stop, with the congestion control of most senders.
fn upload(stop: &AtomicBool) {
    let mut stream = TcpStream::connect(SINK).expect("the sink");
    setsockopt(&stream, sockopt::TcpCongestion, &"cubic".into()).expect("cubic");
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .expect("a time-out");
    while !stop.load(Ordering::Relaxed) {
        // What does not fit now fits later.
        let _ = stream.write(&[0; 16 << 10]);
    }
}

/// What the line delivered upward in a stretch, bit/s.
fn delivered_bps(log: &[Passage], from_ns: i64, to_ns: i64) -> f64 {
    let bytes: u64 = log
        .iter()
        .filter(|p| p.way == Way::Up && matches!(p.fate, Fate::Delivered(_)))
        .filter(|p| (from_ns..to_ns).contains(&p.planned_ns))
        .map(|p| u64::from(p.bytes))
        .sum();
    bytes as f64 * 8e9 / (to_ns - from_ns) as f64
}

#[test]
fn a_households_own_upload_says_capacity_bufferbloat_and_collapse() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let up = |rate_bps| Direction {
        rate_bps,
        buffer_ns: 250 * MS,
        buffer_bytes: u64::MAX,
        ..Direction::delay(10 * MS)
    };
    let home = Home::new(1, &up(10_000_000), &Direction::delay(10 * MS), 99).expect("a lab");
    let sinking = home.server.spawn(sink).expect("the server's namespace");
    sinking.join().expect("a sink");
    let text = format!(
        "target = []\n[[interface]]\nname = \"wan0\"\nsees_household = \"yes\"\n\
         [[reflector]]\nname = \"vienna\"\naddress = \"{REFLECTOR}\"\n\
         key_file = \"{KEY_FILE}\"\ninterval = \"25ms\"\n"
    );
    let listen = REFLECTOR.parse().expect("an address");
    let services = Services::start(&home.client, &home.server, listen, &text);
    let services = services.expect("daemon and reflector");

    std::thread::sleep(Duration::from_secs(8));
    let loaded_ns = wall_ns();
    let stop = Arc::new(AtomicBool::new(false));
    let uploading = {
        let stop = stop.clone();
        home.client.spawn(move || upload(&stop))
    };
    let uploading = uploading.expect("the client's namespace");
    std::thread::sleep(Duration::from_secs(20));
    let collapsed_ns = wall_ns();
    home.links[0].change(Way::Up, up(3_000_000));
    std::thread::sleep(Duration::from_secs(18));
    let ended_ns = wall_ns();
    let test = ask::ask(&services.control_socket(), Way::Up, 2).expect("a test beside the upload");
    stop.store(true, Ordering::Relaxed);
    uploading.join().expect("the upload ran to its end");
    std::thread::sleep(Duration::from_secs(4));
    let recorded = services.stop().expect("both ran to their ends");

    if let Some(keep) = std::env::var_os("BUFFERBANE_KEEP_STORE") {
        std::fs::copy(recorded.store(), keep).expect("a place to keep the store");
    }
    let link = &home.links[0];
    assert_eq!((link.missed(), link.left_out()), (0, 0));
    let log = link.log();
    let reader = Reader::open(&recorded.store()).expect("a store that was closed");
    let rows = reader.capacities(i64::MIN, i64::MAX).expect("readable");
    for (from_ns, to_ns, rate) in [
        (loaded_ns, collapsed_ns, 10e6),
        (collapsed_ns, ended_ns, 3e6),
    ] {
        // The sender has to find the rate first.
        let truth = delivered_bps(&log, from_ns + 6_000 * MS as i64, to_ns);
        assert!(
            (truth - rate).abs() < 0.05 * rate,
            "the line was full: {truth}"
        );
        let mut said: Vec<u64> = rows
            .iter()
            .filter(|(at, c)| (from_ns..to_ns).contains(at) && c.confidence >= 0.5)
            .filter(|(_, c)| c.direction == bufferbane_store::Direction::Up)
            .map(|(_, c)| c.sustained_bps.expect("a sustained rate"))
            .collect();
        said.sort_unstable();
        let middle = *said.get(said.len() / 2).expect("a capacity") as f64;
        println!("said {middle:.0}, the line delivered {truth:.0} bit/s");
        assert!(
            (middle - truth).abs() < 0.05 * truth,
            "{middle} for {truth}"
        );
    }
    let by_itself = rows.iter().filter(|(at, _)| *at < ended_ns);
    assert!(by_itself.clone().count() > 0);
    assert!(
        by_itself
            .into_iter()
            .all(|(_, c)| c.method == Method::Passive)
    );

    // What the test took for others' is what the interface sent of the upload.
    let is_upload = |p: &&Passage| matches!(p.flow, Flow::Tcp(_, SINK_PORT)) && p.way == Way::Up;
    let sent = log.iter().filter(is_upload);
    let bytes: u64 = sent
        .filter(|p| test.steady.contains(&p.arrival_ns))
        .map(|p| u64::from(p.bytes))
        .sum();
    let truth_bps = bytes as f64 * 8e9 / (test.steady.end - test.steady.start) as f64;
    let others_bps = test.others_bps.expect("the interface counts") as f64;
    println!("{test:?}: others said {others_bps:.0}, sent {truth_bps:.0} bit/s");
    assert!(truth_bps > 200e3, "the upload goes on: {truth_bps}");
    // To a tenth of a second of the line's rate.
    assert!((others_bps - truth_bps).abs() < 0.1 * truth_bps + 0.1 * 3e6);

    let map = reader.time_map();
    let events = reader.events(i64::MIN, i64::MAX).expect("readable");
    for (_, e) in &events {
        println!("{} {:?} {:?} {}", e.kind, e.direction, e.values, e.text);
    }
    let of = |kind: &str| -> &Event {
        let found = events.iter().find(|(_, e)| e.kind == kind);
        &found.unwrap_or_else(|| panic!("no {kind}")).1
    };
    let begin = |e: &Event| map.wall_ns(e.boot, e.start_ns).expect("a known clock");
    let up = Some(bufferbane_store::Direction::Up);
    let bloat = of("bufferbloat");
    assert_eq!(
        (bloat.direction, &bloat.values["class"]),
        (up, &"self_inflicted_queue".into())
    );
    assert!((loaded_ns..collapsed_ns).contains(&begin(bloat)));
    let degraded = of("upload_degraded");
    assert_eq!(degraded.direction, up);
    assert!((collapsed_ns..ended_ns).contains(&begin(degraded)));
    let figure = |name: &str| degraded.values[name].as_f64().expect("a number");
    assert!((figure("baseline_bps") - 10e6).abs() < 1e6);
    assert!((figure("measured_bps") - 3e6).abs() < 0.6e6);
    assert!(
        !events.iter().any(|(_, e)| e.kind == "latency_spike"),
        "the queue is its own"
    );
    let report = report(&recorded.store());
    let named = causes(&report);
    assert_eq!(
        named,
        [("bufferbloat", "up"), ("capacity_down", "up")],
        "{report:#}"
    );
}
