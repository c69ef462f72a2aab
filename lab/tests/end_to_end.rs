//! The whole way: real sockets, real stamps, a line that wrote down what it did, the real store.

use std::time::Duration;

use bufferbane_core::sample::Status;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_lab::home::Home;
use bufferbane_lab::link::{Direction, Flow, Way};
use bufferbane_lab::matching::{Outcome, Sent, compare};
use bufferbane_lab::{netns, skip};
use bufferbane_reflector::Running;
use bufferbane_store::{Filter, Reader, SeriesId, SeriesKind};
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Place, Reflector, Stream, Target};

const MS: u64 = 1_000_000;
const INTERVAL_NS: u64 = 10 * MS;
const PROBE_BYTES: u16 = 128;

fn key() -> PresharedKey {
    PresharedKey {
        id: KeyId(*b"end2end!"),
        secret: Secret::new([42; 32]),
    }
}

fn daemon_config(dir: &std::path::Path, uplinks: usize) -> Config {
    let mut config = Config {
        store: dir.join("s.redb"),
        control_socket: dir.join("c.sock"),
        commit_interval_ns: 1000 * MS,
        interfaces: (0..uplinks).map(|i| format!("wan{i}")).collect(),
        targets: Some(vec![Target {
            name: "server".into(),
            place: Place::Host("10.99.0.1".into()),
            family: FamilyChoice::Auto,
            interval_ns: INTERVAL_NS,
            size: 64,
        }]),
        reflectors: vec![Reflector {
            name: "vienna".into(),
            host: "10.99.0.1".into(),
            port: 9876,
            key: key(),
            family: FamilyChoice::V4,
            streams: vec![Stream {
                dscp: 0,
                size: PROBE_BYTES,
                interval_ns: INTERVAL_NS,
            }],
        }],
        ..Config::default()
    };
    config.keep.min_free_bytes = 0;
    config
}

fn reflector_config() -> bufferbane_reflector::config::Config {
    bufferbane_reflector::config::Config {
        listen: vec!["10.99.0.1:9876".parse().expect("an address")],
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

fn median(sorted: &[i64]) -> i64 {
    sorted[sorted.len() / 2]
}

#[test]
fn every_probe_through_a_bad_line_is_told_as_the_line_has_it() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
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
            let running = Running::start(&reflector_config()).expect("the reflector starts");
            let _ = stopping.recv();
            running.stop()
        })
        .expect("the server's namespace");
    std::thread::sleep(Duration::from_millis(300));
    let config = daemon_config(dir.path(), 2);
    let mut daemon = home
        .client
        .spawn(move || Daemon::start(config, None))
        .expect("the client's namespace")
        .join()
        .expect("no panic")
        .expect("the daemon starts");
    std::thread::sleep(Duration::from_secs(3));

    let lossy = |d: &Direction| Direction {
        loss_ppm: 100_000,
        ..d.clone()
    };
    let out = |d: &Direction| Direction {
        outage: true,
        ..d.clone()
    };
    for (up, down, seconds) in [
        (lossy(&quiet_up), quiet_down.clone(), 14),
        (quiet_up.clone(), lossy(&quiet_down), 14),
        (lossy(&quiet_up), lossy(&quiet_down), 8),
        (out(&quiet_up), quiet_down.clone(), 3),
        (quiet_up.clone(), quiet_down.clone(), 3),
        (quiet_up.clone(), out(&quiet_down), 3),
        (quiet_up.clone(), quiet_down.clone(), 5),
    ] {
        for link in &home.links {
            link.change(Way::Up, up.clone());
            link.change(Way::Down, down.clone());
        }
        std::thread::sleep(Duration::from_secs(seconds));
    }
    daemon.stop();
    let _ = stop_reflector.send(());
    reflector
        .join()
        .expect("no panic")
        .expect("the reflector ran to the end");

    if let Some(keep) = std::env::var_os("BUFFERBANE_KEEP_STORE") {
        std::fs::copy(dir.path().join("s.redb"), keep).expect("a place to keep the store");
    }
    let reader = Reader::open(&dir.path().join("s.redb")).expect("a store that was closed");
    let (from_ns, to_ns) = reader.span().expect("readable").expect("samples");
    // What was in flight at the end has no sample; the first second is left to the session.
    let (from_ns, to_ns) = (from_ns + 1000 * MS as i64, to_ns - 4000 * MS as i64);
    let mut directions = 0;
    for (id, info) in reader.series().expect("readable") {
        let link = &home.links[usize::from(info.interface == "wan1")];
        let log: Vec<_> = link
            .log()
            .into_iter()
            .filter(|p| (from_ns..to_ns).contains(&p.arrival_ns))
            .collect();
        let samples = sent(&reader, id, from_ns, to_ns - 100 * MS as i64);
        let udp = info.kind == SeriesKind::Udp;
        let outcome: Outcome = if udp {
            compare(
                &samples,
                &log,
                |f| matches!(f, Flow::Udp(_, 9876, PROBE_BYTES)),
                |f| matches!(f, Flow::Udp(9876, _, PROBE_BYTES)),
                true,
            )
        } else {
            compare(
                &samples,
                &log,
                |f| matches!(f, Flow::Echo(..)),
                |f| matches!(f, Flow::Echo(..)),
                false,
            )
        };
        let errors = &outcome.rtt_errors_ns;
        println!(
            "{} {}: {} samples, lost up {} and down {}, RTT error p50 {} µs, p99 {} µs, {} wrong",
            info.interface,
            info.kind.as_str(),
            samples.len(),
            outcome.lost_up,
            outcome.lost_down,
            median(errors) / 1000,
            errors[errors.len() * 99 / 100] / 1000,
            outcome.wrong.len(),
        );
        assert!(
            outcome.wrong.is_empty(),
            "{:#?}",
            &outcome.wrong[..outcome.wrong.len().min(10)]
        );
        assert!(outcome.lost_up > 400 && outcome.lost_down > 400);
        assert!(median(errors).abs() < 300_000, "{} ns", median(errors));
        if udp {
            directions += 1;
            assert!(!samples.iter().any(|s| s.sample.status == Status::Lost));
        }
    }
    assert_eq!(directions, 2);
}
