//! The whole way: real sockets, real stamps, a line that wrote down what it did, the real store.

mod bad_line;
mod outage;
mod queueing;

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_lab::home::Home;
use bufferbane_reflector::Running;
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Place, Reflector, Stream, Target};

const MS: u64 = 1_000_000;
const INTERVAL_NS: u64 = 10 * MS;
const PROBE_BYTES: u16 = 128;
/// Of the ICMP message.
const PING_BYTES: u16 = 64;
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
        size: PING_BYTES,
        more_sizes: [0; 3],
    }
}

fn stream_to(name: &str, address: &str) -> Reflector {
    Reflector {
        name: name.into(),
        host: address.into(),
        port: 9876,
        key: key().into(),
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
            tcp_prefixes: Vec::new(),
        }],
        ..bufferbane_reflector::config::Config::default()
    }
}

/// Starts a reflector at the server's end.
fn start_reflector(home: &Home) -> Running {
    let started = home.server.inside(|| Running::start(&reflector_config()));
    let started = started.expect("the server's namespace");
    started.expect("the reflector starts")
}

/// Starts a daemon at the client's end.
fn start_daemon(home: &Home, config: Config) -> Daemon {
    let started = home.client.inside(move || Daemon::start(config, None));
    let started = started.expect("the client's namespace");
    started.expect("the daemon starts")
}

/// Of tests that need the machine's cores for their lines, one runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn median(sorted: &[i64]) -> i64 {
    sorted[sorted.len() / 2]
}
