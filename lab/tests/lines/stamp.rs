//! STAMP against an independent implementation, both ways round and in both modes: `stamp-suite`,
//! which `.ci/run` installs.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bufferbane_core::sample::Status;
use bufferbane_core::stamp::{Counting, Subnet};
use bufferbane_core::wire::stamp::{Format, Key};
use bufferbane_lab::skip;
use bufferbane_reflector::Running;
use bufferbane_reflector::stamp::StampConfig;
use bufferbane_store::{Filter, Reader, SeriesKind};
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice};
use bufferbaned::stamp::{StampProbe, StampTarget};

const PEER: &str = "stamp-suite";
const KEY: [u8; 20] = [0x0b; 20];

fn peer_is_here() -> bool {
    let said = Command::new(PEER).arg("--version").output();
    said.is_ok_and(|o| o.status.success())
}

fn key() -> Key {
    Key::new(&KEY).expect("a key of a length that is allowed")
}

fn key_file(dir: &Path) -> String {
    let path = dir.join("stamp.hmac");
    std::fs::write(&path, "0b".repeat(KEY.len())).expect("a place for the key");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    path.display().to_string()
}

fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("its number").port()
}

/// The peer as a reflector; it ends when this is dropped.
struct PeerReflector(Child);

impl PeerReflector {
    fn start(port: u16, more: &[&str]) -> Self {
        let child = Command::new(PEER)
            .args(["-i", "-S", "127.0.0.1", "-o", &port.to_string()])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the peer starts");
        // It is ready when its port is taken.
        let begun = Instant::now();
        while UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            assert!(
                begun.elapsed() < Duration::from_secs(10),
                "{PEER} is not ready"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child)
    }
}

impl Drop for PeerReflector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn target(name: &str, port: u16, key: Option<Key>, format: Format, size: u16) -> StampTarget {
    StampTarget {
        name: name.into(),
        host: "127.0.0.1".into(),
        port,
        family: FamilyChoice::V4,
        probe: StampProbe {
            key: key.map(std::sync::Arc::new),
            format,
            counting: Counting::Auto,
            dscp: 0,
            size,
            more_sizes: [0; 3],
            interval_ns: 20_000_000,
        },
    }
}

#[test]
fn the_daemon_measures_a_reflector_of_another_make() {
    if !peer_is_here() {
        return skip("stamp-suite is not installed: cargo install --locked stamp-suite");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = key_file(dir.path());
    let (open, sealed, wrong) = (free_port(), free_port(), free_port());
    let _peers = [
        PeerReflector::start(open, &["--stateful-reflector"]),
        PeerReflector::start(sealed, &["-A", "A", "--hmac-key-file", &file, "-K", "PTP"]),
        PeerReflector::start(wrong, &["-A", "A", "--hmac-key", &"0c".repeat(20)]),
    ];
    let mut config = Config {
        store: dir.path().join("s.redb"),
        control_socket: dir.path().join("c.sock"),
        interfaces: vec!["lo".into()],
        targets: Some(Vec::new()),
        stamps: vec![
            target("open", open, None, Format::Ntp, 44),
            target("padded", open, None, Format::Ptp, 300),
            target("sealed", sealed, Some(key()), Format::Ntp, 112),
            target("wrong", wrong, Some(key()), Format::Ntp, 112),
        ],
        ..Config::default()
    };
    config.keep.min_free_bytes = 0;
    let mut daemon = Daemon::start(config, None).expect("the daemon starts");
    std::thread::sleep(Duration::from_secs(6));
    daemon.stop();

    let reader = Reader::open(&dir.path().join("s.redb")).expect("a store that was closed");
    let (from_ns, to_ns) = reader.span().expect("readable").expect("samples");
    let mut seen = 0;
    for (id, info) in reader.series().expect("readable") {
        assert_eq!(info.kind, SeriesKind::Stamp);
        let filter = Filter {
            from_ns,
            to_ns: to_ns + 1,
            series: vec![id],
        };
        let samples: Vec<_> = reader
            .samples(&filter)
            .map(|row| row.expect("a readable store").sample)
            .collect();
        let answered: Vec<_> = samples.iter().filter(|s| s.status == Status::Ok).collect();
        println!("{}: {} of {}", info.target, answered.len(), samples.len());
        if info.target == "wrong" {
            assert!(
                answered.is_empty() && samples.len() > 50,
                "{}",
                samples.len()
            );
        } else {
            // Everything that was not still in flight.
            assert!(
                answered.len() > 150,
                "{} of {}",
                answered.len(),
                samples.len()
            );
            // Both ways are told, and their sum is the round trip.
            let off = |s: &&bufferbane_core::sample::Sample| {
                let (up, down) = (s.raw_up_ns?, s.raw_down_ns?);
                Some((up + down - s.rtt_ns? as i64).abs())
            };
            assert!(answered.iter().all(|s| off(s).is_some_and(|ns| ns < 10)));
            assert!(answered.iter().all(|s| s.ttl_up == Some(64)));
        }
        seen += 1;
    }
    assert_eq!(seen, 4);
}

fn send(port: u16, count: u32, more: &[&str]) -> Output {
    Command::new(PEER)
        .args(["-r", "127.0.0.1", "-p", &port.to_string()])
        .args(["-c", &count.to_string(), "-d", "20", "-L", "1"])
        .args(more)
        .output()
        .expect("the peer runs")
}

fn reflector(key: Option<Key>, allow: &str) -> Running {
    let config = bufferbane_reflector::config::Config {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        control_socket: None,
        stamp: Some(StampConfig {
            listen: vec!["127.0.0.1:0".parse().expect("an address")],
            allow: vec![Subnet {
                address: allow.parse().expect("an address"),
                prefix: 32,
            }],
            max_pps: 1000,
            key,
        }),
        ..bufferbane_reflector::config::Config::default()
    };
    Running::start(&config).expect("the reflector starts")
}

#[test]
fn a_sender_of_another_make_is_answered_where_it_is_allowed() {
    if !peer_is_here() {
        return skip("stamp-suite is not installed: cargo install --locked stamp-suite");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = key_file(dir.path());
    let auth = ["-A", "A", "--hmac-key-file", &file];
    let received = |o: &Output| {
        let text = String::from_utf8_lossy(&o.stdout).into_owned();
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("Packets received: "));
        let n = line.and_then(|n| n.trim().parse::<u32>().ok());
        n.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&o.stderr)))
    };

    let mut open = reflector(None, "127.0.0.1");
    let port = open.stamp_listen()[0].port();
    assert_eq!(
        received(&send(port, 25, &["--ssid", "77", "-K", "PTP"])),
        25
    );
    // Extensions that we do not know, and padding, come back; a malformed one does no harm.
    let with_tlvs = send(
        port,
        25,
        &["--ssid", "78", "--location", "--direct-measurement"],
    );
    assert_eq!(received(&with_tlvs), 25);
    send(port, 25, &["--malformed", "bad-length"]);
    let status = open.status().expect("it answers");
    assert_eq!(status["stamp"]["answered"], 75, "{status}");

    let sealed = reflector(Some(key()), "127.0.0.1");
    let port = sealed.stamp_listen()[0].port();
    assert_eq!(received(&send(port, 25, &auth)), 25);
    assert_eq!(received(&send(port, 5, &[])), 0);

    let mut elsewhere = reflector(None, "127.0.0.2");
    let port = elsewhere.stamp_listen()[0].port();
    assert_eq!(received(&send(port, 5, &[])), 0);
    let status = elsewhere.status().expect("it answers");
    assert_eq!(status["stamp"]["drops"]["unknown_key"], 5, "{status}");
}
