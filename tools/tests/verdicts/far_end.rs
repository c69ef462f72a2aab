//! What a reflector does is not the line's doing.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config as ReflectorConfig};
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Reflector, Stream};
use serde_json::Value;

use super::line::report;

const MS: u64 = 1_000_000;
const INTERVAL_NS: u64 = 20 * MS;
/// Everything of a moment is decided this much later: a time-out, and what comes after it.
const DECIDED: Duration = Duration::from_millis(5_500);

fn key() -> PresharedKey {
    PresharedKey {
        id: KeyId(*b"verdicts"),
        secret: Secret::new([7; 32]),
    }
}

fn reflector_at(listen: Vec<SocketAddr>, max_pps: u32) -> ReflectorConfig {
    ReflectorConfig {
        listen,
        control_socket: None,
        clients: vec![Client {
            name: "home".into(),
            keys: vec![key()],
            max_pps,
            max_rate_bps: None,
            daily_bytes: None,
            tcp_prefixes: Vec::new(),
        }],
        ..ReflectorConfig::default()
    }
}

/// Probes `reflectors` through `interface`, and nobody else.
fn daemon_to(dir: &Path, interface: &str, reflectors: &[(&str, SocketAddr)]) -> Config {
    let reflector = |(name, at): &(&str, SocketAddr)| Reflector {
        name: (*name).into(),
        host: at.ip().to_string(),
        port: at.port(),
        key: key().into(),
        family: FamilyChoice::Auto,
        streams: vec![Stream {
            dscp: 0,
            size: 128,
            interval_ns: INTERVAL_NS,
            more_sizes: [0; 3],
        }],
        tcp_prefix: None,
    };
    let mut config = Config {
        store: dir.join("s.redb"),
        control_socket: dir.join("c.sock"),
        interfaces: vec![interface.into()],
        targets: Some(Vec::new()),
        reflectors: reflectors.iter().map(reflector).collect(),
        ..Config::default()
    };
    config.keep.min_free_bytes = 0;
    config
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn until_answers(daemon: &Daemon, at_least: u64) {
    until("answers", || {
        let series = daemon.status().series;
        !series.is_empty() && series.iter().all(|s| s.total.received >= at_least)
    });
}

/// The first verdict of the report that is not of this host, which may be too busy with tests to keep up; and the
/// report.
fn first_verdict(dir: &Path) -> (String, Value) {
    let report = report(&dir.join("s.redb"));
    let cause = verdict(&report)["cause"].as_str().unwrap_or("none");
    (cause.to_owned(), report)
}

fn verdict(report: &Value) -> &Value {
    let mut all = report["verdicts"].as_array().into_iter().flatten();
    let of_others = all.find(|v| v["cause"] != "this_host");
    of_others.unwrap_or(&Value::Null)
}

fn kinds(report: &Value) -> Vec<&str> {
    let events = report["events"].as_array().into_iter().flatten();
    events.filter_map(|e| e["kind"].as_str()).collect()
}

fn said(report: &Value) -> String {
    let text = verdict(report)["text"].as_str();
    text.unwrap_or_default().replace('\u{a0}', " ")
}

fn on_loopback() -> SocketAddr {
    let free = UdpSocket::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("bound")
}

/// One daemon asks nobody else, and another one that is well, too.
#[test]
fn a_reflector_that_is_restarted_is_the_far_ends() {
    let (vienna, berlin) = (on_loopback(), on_loopback());
    let config = reflector_at(vec![vienna], 1000);
    let reflector = Running::start(&config).expect("the reflector starts");
    let _well = Running::start(&reflector_at(vec![berlin], 1000)).expect("another starts");
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
    let targets = [("vienna", vienna), ("berlin", berlin)];
    let start = |n: usize| {
        let daemon = daemon_to(dirs[n].path(), "lo", &targets[..=n]);
        Daemon::start(daemon, None).expect("the daemon starts")
    };
    let mut daemons = [0, 1].map(start);
    for daemon in &daemons {
        until_answers(daemon, 150);
    }
    reflector.stop().expect("it ran to the end");
    std::thread::sleep(Duration::from_millis(1_200));
    let _again = Running::start(&config).expect("it starts again");
    for daemon in &daemons {
        until("the reflector is known to be another", || {
            let events = daemon.status().events;
            events.iter().any(|e| e.text.contains("restarted"))
        });
        // Of what is lost that is known after a time-out only.
        until("its silence is known", || {
            let mut series = daemon.status().series.into_iter();
            series.any(|s| s.target == "vienna" && s.total.lost >= 30)
        });
    }
    let told = [0, 1].map(|n| {
        daemons[n].stop();
        let (cause, report) = first_verdict(dirs[n].path());
        assert!(kinds(&report).contains(&"reflector_lost"), "{report:#}");
        (cause, report)
    });
    let [(alone, of_one), (beside, of_two)] = &told;
    assert_eq!(alone, "far_end", "{of_one:#}");
    assert!(kinds(of_one).contains(&"micro_outage"), "{of_one:#}");
    let said = said(of_one);
    assert!(said.contains("vienna, the only far target"), "{of_one:#}");
    assert!(said.contains("the line is not to blame"), "{of_one:#}");
    assert_eq!(beside, "far_end", "{of_two:#}");
    let outage = |kind: &&str| kind.contains("outage");
    assert!(!kinds(of_two).iter().any(outage), "{of_two:#}");
}

#[test]
fn what_a_reflector_does_not_allow_is_not_lost_by_the_line() {
    let at = on_loopback();
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Of fifty a second.
    let _reflector = Running::start(&reflector_at(vec![at], 30)).expect("the reflector starts");
    let daemon = daemon_to(dir.path(), "lo", &[("vienna", at)]);
    let mut daemon = Daemon::start(daemon, None).expect("the daemon starts");
    until_answers(&daemon, 150);
    std::thread::sleep(DECIDED);
    daemon.stop();
    let (cause, report) = first_verdict(dir.path());
    assert_eq!(cause, "far_end", "{report:#}");
    assert!(
        said(&report).contains("vienna dropped packets itself"),
        "{report:#}"
    );
    let kinds = kinds(&report);
    assert!(
        !kinds.contains(&"packet_loss") && !kinds.contains(&"loss_burst"),
        "{kinds:?}"
    );
}
