//! What is lost, and where, while a line gets better and worse.

use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bufferbane_core::sample::Status;
use bufferbane_core::trace::way::FLOW;
use bufferbane_lab::home::Home;
use bufferbane_lab::link::{Bursts, Direction, Fate, Flow, Link, Passage, Way};
use bufferbane_lab::matching::{Sent, compare, exchanges};
use bufferbane_lab::{netns, skip};
use bufferbane_store::{Filter, Reader, SeriesId, SeriesKind};
use bufferbaned::config::Config;

use super::{
    MS, PING_BYTES, PROBE_BYTES, V4, V6, alone, daemon_config, median, start_daemon,
    start_reflector, stream_to, target,
};

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

/// Whether a packet is one of a series of this test: its kind and family.
fn is_of(kind: SeriesKind, family: u8) -> impl Fn(&Passage) -> bool {
    let udp = kind == SeriesKind::Udp;
    // The Ethernet header and that of IP. What looks for the largest packet that passes is larger or smaller.
    let ping_bytes = 14 + if family == 6 { 40 } else { 20 } + u32::from(PING_BYTES);
    move |p: &Passage| {
        let kind = match p.flow {
            Flow::Udp(from, to, len) => udp && len == PROBE_BYTES && (from == 9876 || to == 9876),
            Flow::Echo(identifier, _) => !udp && identifier != FLOW && p.bytes == ping_bytes,
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
    let mut reflector = start_reflector(&home);
    let config = Config {
        targets: Some(vec![target("server", V4), target("server6", V6)]),
        reflectors: vec![stream_to("vienna", V4), stream_to("vienna6", V6)],
        ..daemon_config(dir.path(), 2)
    };
    let mut daemon = start_daemon(&home, config);
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
    let status = reflector.status().expect("the reflector answers");
    reflector.stop().expect("the reflector ran to the end");
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
