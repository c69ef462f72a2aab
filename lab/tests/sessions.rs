//! A session under way: the client's address changes, the reflector restarts, the key is replaced, the
//! client restarts. The line drops nothing, so nothing may be told as its loss.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bufferbane_core::sample::Status;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_lab::home::Home;
use bufferbane_lab::link::Direction;
use bufferbane_lab::{netns, skip};
use bufferbane_linux_io::clock;
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config as ReflectorConfig};
use bufferbane_store::{Event, Filter, Reader, SeriesKind};
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Reflector, Stream};
use serde_json::Value;

const MS: u64 = 1_000_000;
const SERVER: &str = "10.99.0.1";
const PORT: u16 = 9876;

fn key(n: u8) -> PresharedKey {
    PresharedKey {
        id: KeyId([n; 8]),
        secret: Secret::new([n ^ 0x55; 32]),
    }
}

fn daemon_config(dir: &Path, key: PresharedKey) -> Config {
    let mut config = Config {
        store: dir.join("s.redb"),
        control_socket: dir.join("c.sock"),
        commit_interval_ns: 1000 * MS,
        interfaces: vec!["wan0".into()],
        targets: Some(Vec::new()),
        reflectors: vec![Reflector {
            name: "vienna".into(),
            host: SERVER.into(),
            port: PORT,
            key: key.into(),
            family: FamilyChoice::Auto,
            streams: vec![Stream {
                dscp: 0,
                size: 128,
                interval_ns: 20 * MS,
                more_sizes: [0; 3],
            }],
            tcp_prefix: None,
        }],
        ..Config::default()
    };
    config.keep.min_free_bytes = 0;
    config
}

fn reflector_config(keys: Vec<PresharedKey>) -> ReflectorConfig {
    let address: IpAddr = SERVER.parse().expect("an address");
    ReflectorConfig {
        listen: vec![(address, PORT).into()],
        listen_is_default: false,
        control_socket: None,
        clients: vec![Client {
            name: "home".into(),
            keys,
            max_pps: 1000,
            max_rate_bps: None,
            daily_bytes: None,
            tcp_prefixes: Vec::new(),
        }],
        ..ReflectorConfig::default()
    }
}

/// What the thread in the server's namespace is to do.
enum Deed {
    Status,
    Keys(Vec<PresharedKey>),
    /// To be away for so long.
    Restart(Duration),
    Stop,
}

/// A reflector in the server's namespace.
struct Server {
    deeds: Sender<Deed>,
    done: Receiver<Value>,
}

impl Server {
    fn start(home: &Home, keys: Vec<PresharedKey>) -> Self {
        let (deeds, to_do) = channel();
        let (tell, done) = channel();
        let work = move || {
            let mut config = reflector_config(keys);
            let mut running = Running::start(&config).expect("the reflector starts");
            tell.send(Value::Null).expect("somebody waits");
            while let Ok(deed) = to_do.recv() {
                let mut said = Value::Null;
                match deed {
                    Deed::Status => said = running.status().expect("it answers"),
                    Deed::Keys(keys) => {
                        config = reflector_config(keys);
                        running.reconfigure(&config).expect("it takes other keys");
                    }
                    Deed::Restart(away) => {
                        running.stop().expect("it ran to the end");
                        std::thread::sleep(away);
                        running = Running::start(&config).expect("it starts again");
                    }
                    Deed::Stop => break,
                }
                tell.send(said).expect("somebody waits");
            }
        };
        drop(home.server.spawn(work).expect("the server's namespace"));
        let server = Self { deeds, done };
        server.done.recv().expect("a reflector");
        server
    }

    /// Has it done, and waits for that.
    fn deed(&self, deed: Deed) -> Value {
        self.deeds.send(deed).expect("it runs");
        self.done.recv().expect("it is done")
    }

    /// Where it sees the client, of the session used last.
    fn client_port(&self) -> u16 {
        let status = self.deed(Deed::Status);
        let sessions = status["clients"][0]["sessions"].as_array();
        let address = sessions.and_then(|s| s.last()?["address"].as_str());
        let port = address.and_then(|a| a.rsplit(':').next()?.parse().ok());
        port.unwrap_or_else(|| panic!("no session: {status}"))
    }
}

fn start_daemon(home: &Home, config: Config) -> Daemon {
    let started = home.client.spawn(move || Daemon::start(config, None));
    let started = started.expect("the client's namespace").join();
    started.expect("no panic").expect("the daemon starts")
}

fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_nanos() as i64
}

fn wait(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

/// From now on the server sees the client's socket, whose port is `own`, at `port`: as behind a NAT
/// that gave it another one. What is on its way to where it was before still arrives.
fn rebind(home: &Home, dir: &Path, own: u16, port: u16) {
    let rules = format!(
        "table ip nat64\ndelete table ip nat64\ntable ip nat64 {{\n\
         chain out {{ type filter hook postrouting priority 0; udp dport {PORT} udp sport set {port}; }}\n\
         chain in {{ type filter hook prerouting priority -300; \
         udp sport {PORT} udp dport 40001-40009 udp dport set {own}; }}\n}}\n"
    );
    let file = dir.join("rules.nft");
    std::fs::write(&file, rules).expect("rules");
    let file = file.display().to_string();
    home.client.run("nft", &["-f", &file]).expect("nft");
}

struct Recorded {
    /// Time of sending, ns, and what became of it.
    samples: Vec<(i64, Status)>,
    events: Vec<Event>,
}

fn read(dir: &Path) -> Recorded {
    let reader = Reader::open(&dir.join("s.redb")).expect("a store that was closed");
    let (from_ns, to_ns) = reader.span().expect("readable").expect("samples");
    let series = reader.series().expect("readable");
    let probes = series.iter().filter(|(_, i)| i.kind == SeriesKind::Udp);
    let filter = Filter {
        from_ns,
        to_ns: to_ns + 1,
        series: probes.map(|(id, _)| *id).collect(),
    };
    let rows = reader.samples(&filter).map(|r| r.expect("readable"));
    let events = reader.events(from_ns, to_ns + 1).expect("readable");
    Recorded {
        samples: rows.map(|r| (r.wall_ns, r.sample.status)).collect(),
        events: events.into_iter().map(|(_, e)| e).collect(),
    }
}

impl Recorded {
    /// The longest time without a probe that was answered, ns.
    fn longest_gap_ns(&self, from_ns: i64, to_ns: i64) -> i64 {
        let answered = self.samples.iter().filter(|(_, s)| *s == Status::Ok);
        let times = answered.map(|(at, _)| *at);
        let mut edges = vec![from_ns];
        edges.extend(times.filter(|at| (from_ns..to_ns).contains(at)));
        edges.push(to_ns);
        let gaps = edges.windows(2).map(|w| w[1] - w[0]);
        gaps.max().unwrap_or(0)
    }

    fn count(&self, from_ns: i64, to_ns: i64, status: Status) -> usize {
        let during = |(at, s): &&(i64, Status)| (from_ns..to_ns).contains(at) && *s == status;
        self.samples.iter().filter(during).count()
    }
}

#[test]
fn a_session_outlives_new_addresses_new_keys_and_a_restart_of_the_reflector() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    if Command::new("nft").arg("--version").output().is_err() {
        return skip("no nft");
    }
    let quiet = Direction::delay(5 * MS);
    let home = Home::new(1, &quiet, &quiet, 4711).expect("a lab");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&home, vec![key(1)]);
    let daemon_config = |n| daemon_config(dir.path(), key(n));
    let mut daemon = start_daemon(&home, daemon_config(1));
    wait(1.5);

    let own = server.client_port();
    let rebound_ns = wall_ns();
    for port in [40_001, 40_002] {
        rebind(&home, dir.path(), own, port);
        wait(0.7);
        assert_eq!(server.client_port(), port);
    }

    let rotation_ns = wall_ns();
    server.deed(Deed::Keys(vec![key(2), key(1)]));
    wait(0.5);
    home.client
        .run("nft", &["delete", "table", "ip", "nat64"])
        .expect("nft");
    daemon.reconfigure(daemon_config(2));
    wait(2.0);
    server.deed(Deed::Keys(vec![key(2)]));
    wait(1.0);

    let (restart_ns, restart) = (wall_ns(), clock::now().as_nanos());
    server.deed(Deed::Restart(Duration::from_millis(1_200)));
    let restarted_ns = wall_ns();
    wait(5.0);
    let (end_ns, end) = (wall_ns(), clock::now().as_nanos());
    wait(0.5);
    daemon.stop();
    drop(server.deeds.send(Deed::Stop));

    let r = read(dir.path());
    for status in [Status::LostUp, Status::LostDown] {
        assert_eq!(r.count(0, i64::MAX, status), 0, "the line drops nothing");
    }
    let lost = r.count(rebound_ns, rotation_ns, Status::Lost);
    assert_eq!(lost, 0, "while the address changed");
    assert!(r.count(rebound_ns, rotation_ns, Status::Ok) > 60);
    for port in ["40001", "40002"] {
        let tells = |e: &&Event| e.kind == "address_change" && e.text.contains(port);
        assert!(r.events.iter().any(|e| tells(&e)), "{:?}", r.events);
    }
    let rotation_gap_ns = r.longest_gap_ns(rotation_ns, restart_ns);
    let back_ns = r.longest_gap_ns(restarted_ns, end_ns);
    println!(
        "longest gap while the key is replaced: {} ms; answered again {} ms after the restart",
        rotation_gap_ns / 1_000_000,
        back_ns / 1_000_000
    );
    assert!(rotation_gap_ns < 1_500 * MS as i64);
    assert!(back_ns < 3_000 * MS as i64);
    let lost = r.events.iter().find(|e| e.kind == "reflector_lost");
    let lost = lost.expect("the gap is recorded");
    assert!(lost.end_ns.is_some(), "{lost:?}");
    assert!((restart..end).contains(&lost.start_ns), "{lost:?}");
    assert!(r.events.iter().any(|e| e.kind == "reflector_back"));
}

#[test]
fn a_client_that_restarts_in_a_loop_is_answered_each_time() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let quiet = Direction::delay(5 * MS);
    let home = Home::new(1, &quiet, &quiet, 4712).expect("a lab");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&home, vec![key(1)]);
    let mut runs = Vec::new();
    // More often than the key may have sessions.
    for _ in 0..20 {
        let begin_ns = wall_ns();
        let mut daemon = start_daemon(&home, daemon_config(dir.path(), key(1)));
        wait(0.35);
        daemon.stop();
        runs.push(begin_ns..wall_ns());
    }
    let status = server.deed(Deed::Status);
    drop(server.deeds.send(Deed::Stop));
    assert_eq!(
        status["clients"][0]["sessions"].as_array().map(Vec::len),
        Some(16)
    );
    assert_eq!(status["clients"][0]["sessions_displaced"], 4);
    let r = read(dir.path());
    for run in runs {
        let answered = r.count(run.start, run.end, Status::Ok);
        assert!(answered > 0, "nobody was locked out, but {run:?}");
    }
}
