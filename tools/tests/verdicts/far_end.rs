//! Real programs in trouble that is known, and whose fault the report says it is first.
#![cfg(feature = "demo")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_lab::home::Home;
use bufferbane_lab::link::{Direction, Way};
use bufferbane_lab::{netns, skip};
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config as ReflectorConfig};
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Reflector, Stream};
use serde_json::Value;

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

/// The first verdict of the report, and all of it.
fn first_verdict(dir: &Path) -> (String, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_bbtool"))
        .args(["report", "--format", "json", "--store"])
        .arg(dir.join("s.redb"))
        .output()
        .expect("bbtool runs");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let cause = report["verdicts"][0]["cause"].as_str().unwrap_or("none");
    (cause.to_owned(), report)
}

fn said(report: &Value) -> String {
    let text = report["verdicts"][0]["text"].as_str();
    text.unwrap_or_default().replace('\u{a0}', " ")
}

fn on_loopback() -> SocketAddr {
    let free = UdpSocket::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("bound")
}

#[test]
fn a_line_that_is_cut_is_the_access_lines_outage() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let quiet = Direction::delay(5 * MS);
    let home = Home::new(1, &quiet, &quiet, 51).expect("a lab");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let servers = ["10.99.0.1", "10.99.0.2"].map(|a| {
        let ip: IpAddr = a.parse().expect("an address");
        SocketAddr::new(ip, 9876)
    });
    let config = reflector_at(servers.to_vec(), 1000);
    let reflector = home.server.spawn(move || Running::start(&config));
    let reflector = reflector.expect("the server's namespace").join();
    let _reflector = reflector.expect("no panic").expect("the reflector starts");
    let config = daemon_to(
        dir.path(),
        "wan0",
        &[("vienna", servers[0]), ("berlin", servers[1])],
    );
    let daemon = home.client.spawn(move || Daemon::start(config, None));
    let daemon = daemon.expect("the client's namespace").join();
    let mut daemon = daemon.expect("no panic").expect("the daemon starts");
    until_answers(&daemon, 150);
    for outage in [true, false] {
        for way in Way::BOTH {
            let state = Direction {
                outage,
                ..quiet.clone()
            };
            home.links[0].change(way, state);
        }
        std::thread::sleep(Duration::from_millis(1_500));
    }
    std::thread::sleep(DECIDED - Duration::from_millis(1_500));
    daemon.stop();
    let (cause, report) = first_verdict(dir.path());
    assert_eq!(cause, "access_outages", "{report:#}");
    assert!(
        said(&report).contains("the access line went dead"),
        "{report:#}"
    );
}

#[test]
fn a_reflector_that_is_restarted_as_the_only_far_target_is_the_far_ends() {
    let at = on_loopback();
    let config = reflector_at(vec![at], 1000);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let reflector = Running::start(&config).expect("the reflector starts");
    let daemon = daemon_to(dir.path(), "lo", &[("vienna", at)]);
    let mut daemon = Daemon::start(daemon, None).expect("the daemon starts");
    until_answers(&daemon, 150);
    reflector.stop().expect("it ran to the end");
    std::thread::sleep(Duration::from_millis(1_200));
    let _again = Running::start(&config).expect("it starts again");
    until("the reflector is known to be another", || {
        let events = daemon.status().events;
        events.iter().any(|e| e.text.contains("restarted"))
    });
    std::thread::sleep(DECIDED);
    daemon.stop();
    let (cause, report) = first_verdict(dir.path());
    // Its silence may be told as `reflector_lost` alone, which is no trouble of any line.
    assert!(["far_end", "none"].contains(&cause.as_str()), "{report:#}");
    let mut events = report["events"].as_array().into_iter().flatten();
    assert!(events.any(|e| e["kind"] == "reflector_lost"), "{report:#}");
    if cause == "far_end" {
        let said = said(&report);
        assert!(said.contains("vienna, the only far target"), "{report:#}");
        assert!(said.contains("the line is not to blame"), "{report:#}");
    }
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
    let kinds: Vec<&str> = report["events"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|e| e["kind"].as_str())
        .collect();
    assert!(
        !kinds.contains(&"packet_loss") && !kinds.contains(&"loss_burst"),
        "{kinds:?}"
    );
}
