//! What throughput tests say of a line, against what its log says that it delivered and how long it held
//! their probes: a long buffer upward, in which TCP loses and goes on, and a short one downward.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bufferbane_core::household;
use bufferbane_lab::bench::shapes::{self, SHAPES, ask};
use bufferbane_lab::home::Home;
use bufferbane_lab::link::{Direction, Flow, Passage, Way};
use bufferbane_lab::services::{KEY_FILE, Services};
use bufferbane_lab::{netns, skip};
use bufferbane_linux_io::clock;
use bufferbane_store::{LoadTest, LoadedDelay, Protocol};
use serde_json::{Value, json};

const REFLECTOR: &str = "10.99.0.1:9876";
/// Seconds of load.
const SECONDS: u64 = 6;

fn hold(name: &str, way: Way) {
    let shape = SHAPES.iter().find(|s| s.name == name);
    let shape = shape.expect("a shape of that name");
    let home = Home::new(1, &shape.up.direction(), &shape.down.direction(), 7).expect("a lab");
    // Its own probes have another size than those of the test.
    let (services, socket) = services(&home);

    let row = shapes::hold(&home.links[0], &socket, way, SECONDS).expect("a test");
    services.stop().expect("both ran to their ends");
    println!("{name} {row} others {:?}", row.others_bps);
    assert!(row.is_kept(), "{name} {row}");
    // Nobody else used the line.
    let others_bps = row.others_bps.expect("the interface counts");
    assert!(!household::shared(others_bps, row.said_bps), "{others_bps}");
}

/// Daemon and reflector at the ends of the line, once they know each other.
fn services(home: &Home) -> (Services, PathBuf) {
    let text = format!(
        "target = []\n[[interface]]\nname = \"wan0\"\n[[reflector]]\nname = \"vienna\"\n\
         address = \"{REFLECTOR}\"\nkey_file = \"{KEY_FILE}\"\ninterval = \"100ms\"\nsize = 200\n\
         [throughput]\nevery = \"never\"\ntrain_budget = \"0\"\n"
    );
    let listen = REFLECTOR.parse().expect("an address");
    let services = Services::start(&home.client, &home.server, listen, &text);
    let services = services.expect("daemon and reflector");
    std::thread::sleep(std::time::Duration::from_secs(2));
    let socket = services.control_socket();
    (services, socket)
}

/// Has the daemon test, and gives its result.
fn tested(socket: &Path, wish: &Value) -> LoadTest {
    let mut news = ask::ask_for(socket, wish).expect("a daemon");
    loop {
        let said = ask::next(&mut news).expect("its news");
        assert_eq!(said["ok"], true, "{said}");
        if said["test"].is_object() {
            break serde_json::from_value(said["test"].clone()).expect("a result");
        }
    }
}

/// The marks of the streams of Realtime Response Under Load, as flent has them: CS0, CS1, CS5 and EF.
const RRUL: [u8; 4] = [0, 8, 40, 46];

/// The DSCP that each TCP stream's full segments bear which went this way, in order.
fn marks(log: &[Passage], way: Way) -> Vec<u8> {
    const FULL_BYTES: u32 = 1000;
    let mut streams: BTreeMap<(u16, u16), BTreeSet<u8>> = BTreeMap::new();
    for p in log.iter().filter(|p| p.way == way && p.bytes > FULL_BYTES) {
        if let Flow::Tcp(from, to) = p.flow {
            streams.entry((from, to)).or_default().insert(p.tos >> 2);
        }
    }
    let mut marks: Vec<u8> = streams.into_values().flatten().collect();
    marks.sort_unstable();
    marks
}

#[test]
fn a_test_says_what_the_line_delivered_and_how_long_it_held_probes() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    hold("6/1", Way::Up);
    hold("25/5", Way::Down);
}

/// A token bucket of the host itself before an interface, slower than what is to leave by it.
fn shape(home: &Home, op: &str) {
    for (host, interface) in [(&home.client, "wan0"), (&home.server, "lan0")] {
        let mut words = vec!["qdisc", op, "dev", interface, "root"];
        if op == "add" {
            let bucket = "tbf rate 2mbit burst 5000 limit 20000";
            words.extend(bucket.split(' '));
        }
        host.run("tc", &words).expect("tc");
    }
}

/// More than fits upward, and less than fits downward; then more than either host lets out.
#[test]
fn datagrams_are_told_as_the_line_delivered_or_dropped_them_and_streams_of_rrul_are_marked() {
    const OFFERED_BPS: [u64; 2] = [5_000_000, 10_000_000];
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let lane = |rate_bps| Direction {
        rate_bps,
        buffer_ns: 100_000_000,
        buffer_bytes: u64::MAX,
        ..Direction::delay(10_000_000)
    };
    let home = Home::new(1, &lane(3_000_000), &lane(20_000_000), 7).expect("a lab");
    let (services, socket) = services(&home);
    drop(home.links[0].take_log());
    let [up_bps, down_bps] = OFFERED_BPS;
    let udp = json!({ "up_bps": up_bps, "down_bps": down_bps });
    let wish = json!({ "cmd": "test", "seconds": 2, "udp": udp });
    let test = tested(&socket, &wish);
    let link = &home.links[0];
    assert_eq!(link.missed() + link.left_out(), 0);
    let log = link.take_log().concat();
    // Over the same line four streams each way, each with its own mark.
    let wish = json!({ "cmd": "test", "direction": "rrul", "seconds": 2 });
    let marked = tested(&socket, &wish);
    let log_of_marked = link.take_log().concat();
    shape(&home, "add");
    let wish = json!({ "cmd": "test", "seconds": 1, "udp": udp });
    let shaped = tested(&socket, &wish);
    shape(&home, "del");
    services.stop().expect("both ran to their ends");

    assert_eq!(marked.kind, "rrul");
    // Echoes stand in the same queue as the probes.
    let (echoes, probes) = (marked.icmp.expect("they are answered"), marked.rtt);
    let added_ms = |d: LoadedDelay| d.increase.p50 as i64 / 1_000_000;
    assert!(
        (added_ms(echoes) - added_ms(probes)).abs() <= added_ms(probes) / 4,
        "{echoes:?} {probes:?}"
    );
    let echoed = log_of_marked
        .iter()
        .filter(|p| p.way == Way::Up && matches!(p.flow, Flow::Echo(..)));
    let seconds = (marked.end_ns - marked.start_ns) / 1_000_000_000;
    assert!(echoed.count() as u64 > seconds * 45);
    assert_eq!(test.icmp, None);
    let streams: Vec<u8> = marked.ways.iter().map(|w| w.streams).collect();
    assert_eq!(streams, [4, 4]);
    for way in [Way::Up, Way::Down] {
        assert_eq!(marks(&log_of_marked, way), RRUL, "{way:?}");
    }
    assert_eq!((test.protocol, test.rpm), (Protocol::Udp, None));
    // The daemon's clock is this host's.
    let ahead_ns = clock::wall_now() - clock::now().as_nanos() as i64;
    let wall = |ns: u64| ns as i64 + ahead_ns;
    let steady = wall(test.load_start_ns + test.ramp_ns)..wall(test.load_end_ns);
    for (found, way) in test.ways.iter().zip([Way::Up, Way::Down]) {
        let d = found.datagrams.expect("of a test over UDP");
        println!("{way:?} {} bit/s {d:?}", found.mean_bps);
        let of_test = log
            .iter()
            .filter(|p| p.way == way && matches!(p.flow, Flow::Udp(_, _, size) if size == d.size));
        let arrived = of_test.clone().count() as u64;
        let delivered: Vec<i64> = of_test.filter_map(|p| p.fate.delivered_ns()).collect();
        assert_eq!((d.sent, d.received), (arrived, delivered.len() as u64));
        assert_eq!(d.receiver_drops, 0, "neither end was too slow");
        assert_eq!(d.sender_drops, Some(0), "neither end shaped anything");
        let lost = d.lost.expect("nothing else was dropped");
        assert_eq!(lost, arrived - delivered.len() as u64);
        assert_eq!((d.reordered, d.duplicated), (0, 0));
        assert_eq!(found.bytes, d.received * u64::from(d.size));
        assert_eq!(d.offered_bps, OFFERED_BPS[usize::from(way == Way::Down)]);
        let in_steady = delivered.iter().filter(|at| steady.contains(at)).count() as u64;
        let ns = steady.end.abs_diff(steady.start);
        let truth_bps = in_steady * u64::from(d.size) * 8_000_000_000 / ns;
        let off_bps = found.mean_bps.abs_diff(truth_bps);
        assert!(
            off_bps * 100 <= 3 * truth_bps,
            "{way:?}: {} of {truth_bps} bit/s",
            found.mean_bps
        );
        let is_full = way == Way::Up;
        assert_eq!(lost > d.sent / 4, is_full, "{d:?}");
        assert_eq!(lost == 0, !is_full, "{d:?}");
        // The buffer upward is full of it, the one downward is empty.
        let added_ms = found.delay.increase.p50 / 1_000_000;
        assert!(
            if is_full {
                (80..=110).contains(&added_ms)
            } else {
                added_ms < 20
            },
            "{way:?}: {added_ms} ms"
        );
    }
    // What a host did not let out, the line did not lose.
    assert_eq!(shaped.ways.len(), 2);
    for found in &shaped.ways {
        let d = found.datagrams.expect("of a test over UDP");
        println!("shaped {:?} {d:?}", found.direction);
        assert!(d.received < d.sent && d.sender_drops > Some(0), "{d:?}");
        assert_eq!((d.lost, d.receiver_drops), (None, 0), "{d:?}");
    }
}
