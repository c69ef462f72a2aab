//! Sessions under way, over IPv4 and IPv6: the client's addresses change, the reflector restarts, the key is
//! replaced, the client restarts. The line drops nothing, so nothing may be told as its loss.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::common::{FAMILIES, PORT, probes_of, start_daemon, wall_ns};
use bufferbane_core::sample::Status;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_lab::bench::flood::server;
use bufferbane_lab::home::Home;
use bufferbane_lab::link::Direction;
use bufferbane_lab::{netns, skip};
use bufferbane_linux_io::{Family, clock};
use bufferbane_reflector::Running;
use bufferbane_reflector::config::Config as ReflectorConfig;
use bufferbane_store::{Event, Reader};
use bufferbaned::config::Config;
use serde_json::Value;

const MS: u64 = 1_000_000;

/// Where the NAT before the client lets it be seen, in turn. Over IPv6 the address changes, too.
const fn rebound(family: Family) -> [&'static str; 2] {
    match family {
        Family::V4 => ["10.77.0.1:40001", "10.77.0.1:40002"],
        Family::V6 => ["[fd77::98]:40003", "[fd77::99]:40004"],
    }
}

fn key(n: u8) -> PresharedKey {
    PresharedKey {
        id: KeyId([n; 8]),
        secret: Secret::new([n ^ 0x55; 32]),
    }
}

fn daemon_config(dir: &Path, key: &PresharedKey, families: &[Family]) -> Config {
    Config {
        commit_interval_ns: 1000 * MS,
        ..crate::common::daemon_config(dir, key, families, 20 * MS)
    }
}

fn reflector_config(keys: Vec<PresharedKey>) -> ReflectorConfig {
    let listen = FAMILIES.map(|f| (server(f), PORT).into());
    crate::common::reflector_config(listen, &[keys])
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

    /// Where it sees the client, of the session of that family which was used last.
    fn client_at(&self, family: Family) -> Option<SocketAddr> {
        let status = self.deed(Deed::Status);
        let sessions = status["clients"][0]["sessions"].as_array();
        let mut addresses = sessions.into_iter().flatten().filter_map(|s| {
            let address: SocketAddr = s["address"].as_str()?.parse().ok()?;
            (Family::of(&address.ip()) == family).then_some(address)
        });
        addresses.next_back()
    }

    /// Waits for a session over each family, and gives where it sees the client.
    fn clients(&self) -> [SocketAddr; 2] {
        for _ in 0..100 {
            if let [Some(v4), Some(v6)] = FAMILIES.map(|f| self.client_at(f)) {
                return [v4, v6];
            }
            wait(0.1);
        }
        panic!("no session over both: {}", self.deed(Deed::Status));
    }
}

fn wait(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

/// From now on the server sees the client's socket, which is at `own`, at `seen`: as behind a NAT that gave it
/// another address. What is on its way to where it was before still arrives.
fn rebind(home: &Home, dir: &Path, own: SocketAddr, seen: SocketAddr) {
    let ip = if own.is_ipv4() { "ip" } else { "ip6" };
    let rules = format!(
        "table {ip} rebind\ndelete table {ip} rebind\ntable {ip} rebind {{\n\
         chain out {{ type filter hook postrouting priority 0; \
         udp dport {PORT} udp sport set {} {ip} saddr set {}; }}\n\
         chain in {{ type filter hook prerouting priority -300; \
         udp sport {PORT} udp dport 40001-40009 udp dport set {} {ip} daddr set {}; }}\n}}\n",
        seen.port(),
        seen.ip(),
        own.port(),
        own.ip()
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

fn read(dir: &Path, family: Family) -> Recorded {
    let reader = Reader::open(&dir.join("s.redb")).expect("a store that was closed");
    let (from_ns, to_ns) = reader.span().expect("readable").expect("samples");
    let filter = probes_of(&reader, family, from_ns, to_ns + 1);
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

/// When what was done, `CLOCK_REALTIME`, ns.
struct Times {
    rebound_ns: i64,
    rotation_ns: i64,
    restart_ns: i64,
    restarted_ns: i64,
    end_ns: i64,
}

fn judge(r: &Recorded, family: Family, at: &Times) {
    for status in [Status::LostUp, Status::LostDown] {
        assert_eq!(r.count(0, i64::MAX, status), 0, "the line drops nothing");
    }
    let lost = r.count(at.rebound_ns, at.rotation_ns, Status::Lost);
    assert_eq!(lost, 0, "while the address changed");
    assert!(r.count(at.rebound_ns, at.rotation_ns, Status::Ok) > 60);
    for seen in rebound(family) {
        // Changes within some minutes are one event, which keeps their words.
        let says = |e: &&Event| {
            let earlier = e.values.get("earlier").map(ToString::to_string);
            e.text.contains(seen) || earlier.is_some_and(|words| words.contains(seen))
        };
        let tells = |e: &&Event| e.kind == "address_change" && says(e);
        assert!(r.events.iter().any(|e| tells(&e)), "{seen}: {:?}", r.events);
    }
    let rotation_gap_ns = r.longest_gap_ns(at.rotation_ns, at.restart_ns);
    let back_ns = r.longest_gap_ns(at.restarted_ns, at.end_ns);
    println!(
        "{family:?}: longest gap while the key is replaced: {} ms; answered again {} ms after the restart",
        rotation_gap_ns / 1_000_000,
        back_ns / 1_000_000
    );
    assert!(rotation_gap_ns < 1_500 * MS as i64);
    assert!(back_ns < 3_000 * MS as i64);
}

#[test]
fn sessions_outlive_new_addresses_new_keys_and_a_restart_of_the_reflector() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    if Command::new("nft").arg("--version").output().is_err() {
        return skip("no nft");
    }
    let quiet = Direction::delay(5 * MS);
    let home = Home::new(1, &quiet, &quiet, 4711).expect("a lab");
    for host in ["fd77::98", "fd77::99"] {
        // Whoever looks for it finds it, and nobody sends from it of himself.
        let address = format!("{host}/64");
        let rest = ["dev", "wan0", "nodad", "preferred_lft", "0"];
        let args = [&["addr", "add", &address], &rest[..]].concat();
        home.client.ip(&args).expect("an address");
        // It is a known neighbour from now on: asking for one may take a second, longer than the client is there.
        let args = ["-c", "1", "-w", "10", host];
        home.server.run("ping", &args).expect("it is there");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&home, vec![key(1)]);
    let daemon_config = |n| daemon_config(dir.path(), &key(n), &FAMILIES);
    let mut daemon = start_daemon(&home, daemon_config(1));
    let own = server.clients();
    // For echoes that tell it to the client.
    wait(0.5);

    let rebound_ns = wall_ns();
    for turn in 0..2 {
        let seen = FAMILIES.map(|f| rebound(f)[turn].parse().expect("an address"));
        for (own, seen) in own.into_iter().zip(seen) {
            rebind(&home, dir.path(), own, seen);
        }
        wait(0.7);
        assert_eq!(FAMILIES.map(|f| server.client_at(f)), seen.map(Some));
    }

    let rotation_ns = wall_ns();
    server.deed(Deed::Keys(vec![key(2), key(1)]));
    wait(0.5);
    for ip in ["ip", "ip6"] {
        let args = ["delete", "table", ip, "rebind"];
        home.client.run("nft", &args).expect("nft");
    }
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

    let times = Times {
        rebound_ns,
        rotation_ns,
        restart_ns,
        restarted_ns,
        end_ns,
    };
    for family in FAMILIES {
        judge(&read(dir.path(), family), family, &times);
    }
    let events = read(dir.path(), Family::V4).events;
    let of = |kind: &str| events.iter().filter(|e| e.kind == kind).collect::<Vec<_>>();
    let lost = of("reflector_lost");
    assert_eq!(lost.len(), 2, "the gap is recorded of each: {lost:?}");
    for lost in lost {
        assert!(lost.end_ns.is_some(), "{lost:?}");
        assert!((restart..end).contains(&lost.start_ns), "{lost:?}");
    }
    let back = of("reflector_back").into_iter();
    let back = back.filter(|e| (restart..end).contains(&e.start_ns));
    let (restarted, answers): (Vec<_>, Vec<_>) =
        back.partition(|e| e.values.get("restarted").is_some_and(|v| v == true));
    assert_eq!((restarted.len(), answers.len()), (2, 2), "{events:?}");
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
        let mut daemon = start_daemon(&home, daemon_config(dir.path(), &key(1), &[Family::V4]));
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
    let r = read(dir.path(), Family::V4);
    for run in runs {
        let answered = r.count(run.start, run.end, Status::Ok);
        assert!(answered > 0, "nobody was locked out, but {run:?}");
    }
}
