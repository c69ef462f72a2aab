//! Packet trains say what lines can carry, and that one carries less for ten seconds though no test
//! ran.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bufferbane_lab::home::Home;
use bufferbane_lab::link::{Direction, Flow, Passage, Way};
use bufferbane_lab::services::{KEY_FILE, Services};
use bufferbane_lab::{netns, skip};
use bufferbane_store::{Capacity, Method, Reader};

const MS: u64 = 1_000_000;
const MBIT: u64 = 1_000_000;
const REFLECTOR: &str = "10.99.0.1:9876";
/// Rates of the three lines up and down, Mbit/s.
const RATES: [[u64; 2]; 3] = [[10, 40], [5, 20], [20, 20]];

fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_nanos() as i64
}

fn plan(text: &str) -> Direction {
    Direction::parse(text).expect("a plan")
}

/// What a line carried of a train: when its last datagram left, `CLOCK_REALTIME`, ns, and at which rates its
/// datagrams followed each other while a bucket of 64 KiB was surely not empty, and when it surely was, bit/s,
/// the latter where enough came then.
#[derive(Clone, Copy, Debug)]
struct Carried {
    end_ns: i64,
    early_bps: f64,
    late_bps: Option<f64>,
}

/// Frames of a train are at least this long, bytes; those of probes are shorter.
const LONG: u32 = 400;
/// Within a train nothing stands still for this long, ns.
const APART_NS: i64 = 150_000_000;
/// Before and after so many bytes the bucket is surely not empty, and surely is.
const BUCKET: [u64; 2] = [48 << 10, 80 << 10];

/// The trains that a line without grants carried one way, by its log.
fn carried(log: &[Passage], way: Way) -> Vec<Carried> {
    let long = |p: &&Passage| p.way == way && matches!(p.flow, Flow::Udp(..)) && p.bytes >= LONG;
    let left = log.iter().filter(long);
    let mut left: Vec<(i64, u64)> = left
        .filter_map(|p| Some((p.fate.delivered_ns()?, p.bytes.into())))
        .collect();
    left.sort_unstable();
    let trains = left.chunk_by(|a, b| b.0 - a.0 < APART_NS);
    trains.filter_map(of_train).collect()
}

fn of_train(left: &[(i64, u64)]) -> Option<Carried> {
    let mut sum = 0;
    let [mut early, mut late] = [Vec::new(), Vec::new()];
    for pair in left.windows(2) {
        let ((before_ns, _), (at_ns, bytes)) = (pair[0], pair[1]);
        sum += bytes;
        let bps = bytes as f64 * 8e9 / (at_ns - before_ns).max(1) as f64;
        if sum < BUCKET[0] {
            early.push(bps);
        } else if sum > BUCKET[1] {
            late.push(bps);
        }
    }
    // Whatever held the sender up now and then.
    let middle = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        let enough = rates.len() > 8;
        enough.then(|| rates[rates.len() / 2])
    };
    Some(Carried {
        end_ns: left.last()?.0,
        early_bps: middle(early)?,
        late_bps: middle(late),
    })
}

/// What is surely told of a line is what it carried of the trains that were just over.
fn judge_rows<'a>(log: &[Passage], rows: impl Iterator<Item = &'a (i64, Capacity)>) {
    let trains = Way::BOTH.map(|way| carried(log, way));
    let mut told = [0; 2];
    let near = |said: u64, is: f64| (said as f64 / is - 1.0).abs() < 0.05;
    for (at_ns, row) in rows.filter(|(_, c)| c.confidence >= 0.5) {
        let way = usize::from(row.direction == bufferbane_store::Direction::Down);
        let over = trains[way].iter().rfind(|t| t.end_ns <= *at_ns);
        let train = over.expect("a train before what is told of it");
        println!("{row:?}: {train:?}");
        assert!(at_ns - train.end_ns < 1_000 * MS as i64, "told late");
        assert!(near(row.burst_bps, train.early_bps), "{row:?}: {train:?}");
        if let Some(sustained_bps) = row.sustained_bps {
            let late = train.late_bps.expect("it outlasted the bucket");
            assert!(near(sustained_bps, late), "{row:?}: {train:?}");
            assert!(late < train.early_bps / 2.0, "the same goes on: {row:?}");
        }
        told[way] += 1;
    }
    assert!(told.iter().all(|n| *n > 0), "{told:?}");
}

/// The middle one of the burst rates that are sure, bit/s.
fn middle<'a>(rows: impl Iterator<Item = &'a Capacity>) -> f64 {
    let sure = rows.filter(|c| c.confidence >= 0.5);
    let mut rates: Vec<u64> = sure.map(|c| c.burst_bps).collect();
    rates.sort_unstable();
    *rates.get(rates.len() / 2).expect("a sure rate") as f64
}

#[test]
fn trains_know_lines_and_notice_a_collapse_of_ten_seconds() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let plain = plan("delay=8ms,rate=10Mbit,buffer=300ms");
    let home = Home::new(3, &plain, &plain, 3).expect("a lab");
    let lines = [
        [
            "delay=8ms,rate=10Mbit,buffer=300ms",
            "delay=8ms,rate=40Mbit,buffer=300ms",
        ],
        // A request-grant upstream.
        [
            "delay=8ms,rate=5Mbit,grants=4ms/2ms,buffer=300ms",
            "delay=8ms,rate=20Mbit,buffer=300ms",
        ],
        // A token bucket that a train outlasts.
        [
            "delay=8ms,rate=20Mbit,bucket=4Mbit/64KiB,buffer=600ms",
            "delay=8ms,rate=20Mbit,buffer=300ms",
        ],
    ];
    for (link, [up, down]) in home.links.iter().zip(lines) {
        link.change(Way::Up, plan(up));
        link.change(Way::Down, plan(down));
    }
    let text = format!(
        "target = []\n[[interface]]\nname = \"wan0\"\n[[interface]]\nname = \"wan1\"\n\
         [[interface]]\nname = \"wan2\"\n\
         [[reflector]]\nname = \"vienna\"\naddress = \"{REFLECTOR}\"\n\
         key_file = \"{KEY_FILE}\"\ninterval = \"100ms\"\n\
         [throughput]\nevery = \"never\"\ntrain_budget = \"3%\"\nmonthly_budget = \"9TiB\"\n"
    );
    let listen = REFLECTOR.parse().expect("an address");
    let services = Services::start(&home.client, &home.server, listen, &text);
    let services = services.expect("daemon and reflector");

    std::thread::sleep(Duration::from_secs(25));
    let collapsed_ns = wall_ns();
    home.links[0].change(Way::Up, plan("delay=8ms,rate=4Mbit,buffer=300ms"));
    std::thread::sleep(Duration::from_secs(10));
    let back_ns = wall_ns();
    home.links[0].change(Way::Up, plan("delay=8ms,rate=10Mbit,buffer=300ms"));
    std::thread::sleep(Duration::from_secs(8));
    let recorded = services.stop().expect("both ran to their ends");

    let reader = Reader::open(&recorded.store()).expect("a store that was closed");
    let rows = reader.capacities(i64::MIN, i64::MAX).expect("readable");
    for (at, c) in &rows {
        println!("{:6.1} s {c:?}", (at - collapsed_ns) as f64 / 1e9);
    }
    let map = reader.time_map();
    let events = reader.events(i64::MIN, i64::MAX).expect("readable");
    for (_, e) in &events {
        println!("{} {} {:?} {}", e.kind, e.interface, e.values, e.text);
    }
    let trains: Vec<&(i64, Capacity)> = rows
        .iter()
        .filter(|(_, c)| c.method == Method::Train)
        .collect();
    for (line, rates) in RATES.iter().enumerate() {
        for (direction, mbit) in [
            bufferbane_store::Direction::Up,
            bufferbane_store::Direction::Down,
        ]
        .into_iter()
        .zip(rates)
        {
            let of_line = trains.iter().filter(|(at, c)| {
                *at < collapsed_ns
                    && c.interface == format!("wan{line}")
                    && c.direction == direction
            });
            let said = middle(of_line.map(|(_, c)| c));
            let rate = (mbit * MBIT) as f64;
            println!(
                "wan{line} {direction:?}: {:.2} of {mbit} Mbit/s",
                said / 1e6
            );
            assert!(
                (said - rate).abs() < 0.1 * rate,
                "wan{line} {direction:?}: {said}"
            );
        }
    }
    let of_last = |row: &&(i64, Capacity)| row.1.interface == "wan2";
    judge_rows(&home.links[2].log(), trains.iter().copied().filter(of_last));
    // Who cannot know how it goes on says so.
    for (_, c) in &trains {
        match c.sustained_bps {
            Some(bps) if c.confidence >= 0.5 => {
                assert_eq!(
                    (c.interface.as_str(), c.direction),
                    ("wan2", bufferbane_store::Direction::Up),
                    "{c:?}"
                );
                assert!((bps as f64 - 4e6).abs() < 0.6e6, "{c:?}");
            }
            _ => {}
        }
    }
    let beyond = |c: &Capacity| c.interface == "wan2" && c.sustained_bps.is_some();
    assert!(trains.iter().any(|(_, c)| beyond(c)), "the bucket is seen");

    let degraded: Vec<_> = events
        .iter()
        .filter(|(_, e)| e.kind == "upload_degraded" && e.interface == "wan0")
        .collect();
    let [(_, degraded)] = degraded[..] else {
        panic!("one fall, one event: {degraded:?}")
    };
    let begin_ns = map
        .wall_ns(degraded.boot, degraded.start_ns)
        .expect("a known clock");
    assert!((collapsed_ns..back_ns).contains(&begin_ns));
    assert!(begin_ns - collapsed_ns < 8_000 * MS as i64, "seen late");
    let figure = |name: &str| degraded.values[name].as_f64().expect("a number");
    assert!((figure("measured_bps") - 4e6).abs() < 0.8e6);
    assert!((figure("baseline_bps") - 10e6).abs() < 1e6);
    assert!(degraded.end_ns.is_some(), "it is over");
    assert!(
        reader
            .tests(i64::MIN, i64::MAX)
            .expect("readable")
            .is_empty()
    );
    // What a train does to probes is its own doing.
    for (_, e) in &events {
        assert!(
            !["latency_spike", "high_jitter", "bufferbloat"].contains(&e.kind.as_str()),
            "{e:?}"
        );
    }
}

/// With nothing but `[throughput]`, and trains only where something looks wrong.
#[test]
fn a_line_that_was_cut_is_looked_at_by_trains_that_are_kept_with_the_event() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let plain = plan("delay=8ms,rate=10Mbit,buffer=300ms");
    let home = Home::new(1, &plain, &plain, 4).expect("a lab");
    let text = format!(
        "target = []\n[[interface]]\nname = \"wan0\"\n\
         [[reflector]]\nname = \"vienna\"\naddress = \"{REFLECTOR}\"\n\
         key_file = \"{KEY_FILE}\"\ninterval = \"50ms\"\n[throughput]\nevery = \"never\"\n"
    );
    let listen = REFLECTOR.parse().expect("an address");
    let services = Services::start(&home.client, &home.server, listen, &text);
    let services = services.expect("daemon and reflector");
    std::thread::sleep(Duration::from_secs(8));
    let cut_ns = wall_ns();
    let outage = |outage| {
        for way in Way::BOTH {
            let plain = plain.clone();
            home.links[0].change(way, Direction { outage, ..plain });
        }
    };
    outage(true);
    std::thread::sleep(Duration::from_millis(600));
    outage(false);
    std::thread::sleep(Duration::from_secs(30));
    let recorded = services.stop().expect("both ran to their ends");

    let reader = Reader::open(&recorded.store()).expect("a store that was closed");
    let rows = reader.capacities(i64::MIN, i64::MAX).expect("readable");
    let events = reader.events(i64::MIN, i64::MAX).expect("readable");
    for (at, c) in &rows {
        println!("{:6.1} s {c:?}", (at - cut_ns) as f64 / 1e9);
    }
    for (id, e) in &events {
        println!("{id:?} {} {}", e.kind, e.text);
    }
    let (id, _) = events
        .iter()
        .find(|(_, e)| e.kind == "micro_outage")
        .expect("a cut of 0.6 s");
    for up in [true, false] {
        let is_of_way = |c: &Capacity| {
            (c.direction == bufferbane_store::Direction::Up) == up && c.method == Method::Train
        };
        let own: Vec<&(i64, Capacity)> = rows.iter().filter(|(_, c)| is_of_way(c)).collect();
        let is_its = |(at, c): &&(i64, Capacity)| *at > cut_ns && c.events.contains(id);
        assert!(own.iter().all(is_its), "{own:?}");
        let sure = own.iter().find(|(_, c)| c.confidence >= 0.5);
        let (_, sure) = sure.expect("a train that says what the line carries");
        let off = (sure.burst_bps as f64 - 10e6).abs();
        assert!(off < 1e6, "{sure:?}");
    }
    // What was seen of a cut that was shorter than a second.
    let looks = reader.escalations(i64::MIN, i64::MAX).expect("readable");
    let its = looks.iter().filter(|l| l.look.events.contains(id));
    assert!(its.count() > 0, "{looks:?}");
}
