//! A daemon at one end of a home's first line, a reflector at the other, and a series over IPv4 and one over IPv6
//! between them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bufferbane_core::seal::PresharedKey;
use bufferbane_lab::bench::flood::server;
use bufferbane_lab::home::Home;
use bufferbane_linux_io::Family;
use bufferbane_reflector::config::{Client, Config as ReflectorConfig};
use bufferbane_store::{Filter, Reader, SeriesKind};
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Reflector, Stream};

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// Where the reflector listens.
pub const PORT: u16 = 9876;
/// UDP payload of a probe.
pub const PROBE_BYTES: u16 = 128;

/// A daemon whose one uplink is `wan0` and that probes over `families`, each as often.
pub fn daemon_config(
    dir: &Path,
    key: &PresharedKey,
    families: &[Family],
    interval_ns: u64,
) -> Config {
    let stream = Stream {
        dscp: 0,
        size: PROBE_BYTES,
        interval_ns,
        more_sizes: [0; 3],
    };
    let reflector = |family: &Family| {
        let (name, choice) = match family {
            Family::V4 => ("vienna4", FamilyChoice::V4),
            Family::V6 => ("vienna6", FamilyChoice::V6),
        };
        Reflector {
            name: name.into(),
            host: server(*family).to_string(),
            port: PORT,
            key: key.clone().into(),
            family: choice,
            streams: vec![stream],
            tcp_prefix: None,
        }
    };
    let mut config = Config {
        store: dir.join("s.redb"),
        control_socket: dir.join("c.sock"),
        interfaces: vec!["wan0".into()],
        targets: Some(Vec::new()),
        reflectors: families.iter().map(reflector).collect(),
        ..Config::default()
    };
    config.keep.min_free_bytes = 0;
    config
}

/// A reflector for clients with these keys.
pub fn reflector_config(listen: [SocketAddr; 2], clients: &[Vec<PresharedKey>]) -> ReflectorConfig {
    let client = |(n, keys): (usize, &Vec<PresharedKey>)| Client {
        name: format!("client{n}"),
        keys: keys.clone(),
        max_pps: 1000,
        max_rate_bps: None,
        daily_bytes: None,
        tcp_prefixes: Vec::new(),
    };
    ReflectorConfig {
        listen: listen.into(),
        listen_is_default: false,
        control_socket: None,
        clients: clients.iter().enumerate().map(client).collect(),
        ..ReflectorConfig::default()
    }
}

/// Starts a daemon at the client's end.
pub fn start_daemon(home: &Home, config: Config) -> Daemon {
    let started = home.client.inside(move || Daemon::start(config, None));
    let started = started.expect("the client's namespace");
    started.expect("the daemon starts")
}

/// What it has recorded of the probes over one family, from `from_ns` to `to_ns`.
pub fn probes_of(reader: &Reader, family: Family, from_ns: i64, to_ns: i64) -> Filter {
    let series = reader.series().expect("readable");
    let version = if family == Family::V4 { 4 } else { 6 };
    let probes = series
        .iter()
        .filter(|(_, i)| i.kind == SeriesKind::Udp && i.family == version);
    Filter {
        from_ns,
        to_ns,
        series: probes.map(|(id, _)| *id).collect(),
    }
}

/// `CLOCK_REALTIME`, ns.
pub fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_nanos() as i64
}
