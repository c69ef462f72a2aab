//! `bbtool` beside a running daemon and without one: the same figures from the same file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_linux_io::clock;
use bufferbane_reflector::{Running, config as reflector};
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Reflector, Stream};

fn key() -> PresharedKey {
    PresharedKey {
        id: KeyId(*b"beside!!"),
        secret: Secret::new([9; 32]),
    }
}

struct Pair {
    dir: tempfile::TempDir,
    daemon: Daemon,
    _reflector: Running,
}

impl Pair {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let far = Running::start(&reflector::Config {
            listen: vec![([127, 0, 0, 1], 0).into()],
            listen_is_default: false,
            control_socket: None,
            clients: vec![reflector::Client {
                name: "beside".into(),
                keys: vec![key()],
                max_pps: 10_000,
                max_rate_bps: None,
                daily_bytes: None,
                tcp_prefixes: Vec::new(),
            }],
            ..reflector::Config::default()
        })
        .unwrap();
        let mut config = Config {
            store: dir.path().join("s.redb"),
            control_socket: dir.path().join("control"),
            commit_interval_ns: 3_600_000_000_000,
            interfaces: vec!["lo".into()],
            // Nothing that lasts: what ends with the daemon ends in the report then, too.
            targets: Some(Vec::new()),
            reflectors: vec![Reflector {
                name: "far".into(),
                host: "127.0.0.1".into(),
                port: far.listen()[0].port(),
                key: key().into(),
                tcp_prefix: None,
                family: FamilyChoice::V4,
                streams: vec![Stream {
                    dscp: 0,
                    size: 128,
                    interval_ns: 10_000_000,
                    more_sizes: [0; 3],
                }],
            }],
            ..Config::default()
        };
        config.keep.min_free_bytes = 0;
        let daemon = Daemon::start(config, None).unwrap();
        Self {
            dir,
            daemon,
            _reflector: far,
        }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("s.redb")
    }

    fn run(&self, store: &Path, args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_bbtool"))
            .args(args)
            .arg("--store")
            .arg(store)
            .arg("--socket")
            .arg(self.dir.path().join("control"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Everything that people and programs read of one stretch of time, but for the time it is now.
    fn figures(&self, store: &Path, from: &str, to: &str) -> Vec<String> {
        let range = ["--utc", "--from", from, "--to", to];
        let of = |command: &[&str]| self.run(store, &[command, &range].concat());
        let report = of(&["report", "--format", "json"]);
        let report: Vec<&str> = report
            .lines()
            .filter(|l| !l.trim_start().starts_with("\"generated\""))
            .collect();
        vec![
            report.join("\n"),
            of(&["export", "--format", "csv"]),
            of(&["export", "--format", "json"]),
        ]
    }
}

fn rfc3339(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(ns.into())
        .unwrap()
        .to_string()
}

/// Byte for byte; says where not.
fn same(running: &[String], other: &[String], what: &str) {
    for (a, b) in running.iter().zip(other) {
        for (number, (a, b)) in a.lines().zip(b.lines()).enumerate() {
            assert!(a == b, "{what}, line {number}:\n{a}\n{b}");
        }
        assert_eq!(a.len(), b.len(), "{what}");
    }
}

#[test]
fn reports_and_exports_are_the_same_with_the_daemon_running_and_stopped() {
    let mut pair = Pair::start();
    let begin = Instant::now();
    let sent = |d: &Daemon| -> u64 { d.status().series.iter().map(|s| s.total.sent).sum() };
    while sent(&pair.daemon) < 200 {
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
    // What a probe came to is known 3 s after it was sent at the latest.
    let to = clock::wall_now();
    let from = rfc3339(to - 1_500_000_000);
    let to = rfc3339(to);
    std::thread::sleep(Duration::from_millis(3500));

    let store = pair.store();
    let running = pair.figures(&store, &from, &to);
    // On a host that is busy many come late, and some not at all.
    assert!(running[1].lines().count() > 30, "{}", running[1]);
    assert!(running[1].contains(",ok,"));
    let copy = pair.dir.path().join("copy.redb");
    let said = pair.run(&store, &["store", "copy", copy.to_str().unwrap()]);
    assert!(said.contains("copied to"), "{said}");
    // It goes on all the while.
    let before = sent(&pair.daemon);
    while sent(&pair.daemon) < before + 50 {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    // A command that asks the daemon takes its store, and refuses another.
    let status = pair.run(&store, &["status", "--json"]);
    assert!(status.contains("uptime_s"), "{status}");
    // A hundred probes a second of 128 bytes each, and their answers.
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let load = &status["load"][0];
    assert_eq!(load["interface"], "lo", "{load}");
    assert!(load["up_bps"].as_u64() > Some(50_000), "{load}");
    let held = pair.run(&copy, &["status", "--json"]);
    assert!(held.contains("\"running\": false"), "{held}");
    let socket = pair.dir.path().join("control");
    let bbtool = |args: &[&str], store: Option<&Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bbtool"));
        command.args(args).arg("--socket").arg(&socket);
        if let Some(store) = store {
            command.arg("--store").arg(store);
        }
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, _, said) = bbtool(&["test", "--seconds", "2"], Some(&copy));
    assert!(
        code == Some(2) && said.contains("leave --store out"),
        "{said}"
    );
    for change in [&["compact"][..], &["prune", "--samples", "1h", "--yes"]] {
        let (code, _, said) = bbtool(&[&["store"], change].concat(), Some(&store));
        assert!(code == Some(1) && said.contains("stop it first"), "{said}");
    }
    // Whoever names the socket only means the daemon's own store, whatever there is by default.
    let (code, printed, said) = bbtool(&["targets", "--json"], None);
    assert_eq!(code, Some(0), "{said}");
    let targets: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(targets[0]["interface"], "lo", "{targets}");
    assert_eq!(targets[0]["probed_now"], true, "{targets}");
    let range = ["--format", "csv", "--from", &from, "--to", &to];
    let (code, printed, said) = bbtool(&[&["export"], &range[..]].concat(), None);
    assert_eq!(code, Some(0), "{said}");
    assert!(printed == running[1], "{printed}");
    let (code, _, said) = bbtool(&["store", "compact"], None);
    assert!(code == Some(1) && said.contains("stop it first"), "{said}");
    pair.daemon.stop();
    let (code, _, said) = bbtool(&["targets"], None);
    assert!(
        code == Some(1) && said.contains("names a store without it"),
        "{said}"
    );
    same(&running, &pair.figures(&store, &from, &to), "stopped");
    same(&running, &pair.figures(&copy, &from, &to), "the copy");

    // A copy never takes the place of another file.
    let bytes = std::fs::read(&copy).unwrap();
    let again = Command::new(env!("CARGO_BIN_EXE_bbtool"))
        .args(["store", "copy"])
        .arg(&copy)
        .arg("--store")
        .arg(&store)
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("stays as it is; name another file"), "{said}");
    assert!(std::fs::read(&copy).unwrap() == bytes);
}
