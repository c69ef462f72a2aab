//! `bbtool path` over a chain of namespaces that are routers, two of them side by side:
//!
//! ```text
//! client ══ link, 5 ms each way ══ r1 ── r2 ─┬─ left ──┬─ silent ── reluctant ── far: 10.99.0.9
//!                                            └─ right ─┘                              fd99::9
//! ```
//!
//! r2 shares its two ways out by flow, as load balancers do; `silent` tells nobody that a TTL ran out,
//! `reluctant` every other time.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bufferbane_lab::home::Home;
use bufferbane_lab::link::Direction;
use bufferbane_lab::netns::{Namespace, possible};
use bufferbane_lab::skip;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

const MS: u64 = 1_000_000;
const FAR: [&str; 2] = ["10.99.0.9", "fd99::9"];
/// `ETH_P_ALL`, as it is wanted: in network byte order.
const EVERYTHING: i32 = 0x0300;

struct Chain {
    home: Home,
    routers: Vec<Namespace>,
}

/// Hides behind each router what the kernel would hold back or drop of its own accord.
fn plain_router(ns: &Namespace) {
    ns.forward().expect("a router");
    let settings = || -> std::io::Result<()> {
        std::fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0")?;
        std::fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0")?;
        for interface in std::fs::read_dir("/proc/sys/net/ipv4/conf")? {
            std::fs::write(interface?.path().join("rp_filter"), "0")?;
        }
        Ok(())
    };
    ns.inside(settings)
        .expect("inside")
        .expect("settings of a router");
}

fn ip(ns: &Namespace, words: &str) {
    let words: Vec<&str> = words.split(' ').collect();
    ns.ip(&words).expect("ip");
}

/// Joins two routers by network `n`: `.1` is nearer to the client.
fn join(near: &Namespace, far: &Namespace, n: u8) {
    let [here, there] = [format!("d{n}"), format!("u{n}")];
    near.cable(&here, far, &there).expect("a cable");
    for (ns, host, interface) in [(near, 1, &here), (far, 2, &there)] {
        ip(ns, &format!("addr add 10.81.{n}.{host}/24 dev {interface}"));
        ip(
            ns,
            &format!("addr add fd81:{n}::{host}/64 dev {interface} nodad"),
        );
    }
    // Everything not further down is back up.
    ip(far, &format!("route replace default via 10.81.{n}.1"));
    ip(far, &format!("route replace default via fd81:{n}::1"));
}

fn onward(ns: &Namespace, n: u8) {
    ip(ns, &format!("route add 10.99.0.9/32 via 10.81.{n}.2"));
    ip(ns, &format!("route add fd99::9/128 via fd81:{n}::2"));
}

fn firewall(ns: &Namespace, rules: &[&str]) {
    let chain = "add table inet f; add chain inet f out { type filter hook output priority 0; }";
    let rules = rules.iter().map(|r| format!("; add rule inet f out {r}"));
    let all: String = std::iter::once(chain.to_owned()).chain(rules).collect();
    ns.run("nft", &[&all]).expect("nft");
}

impl Chain {
    fn new() -> Self {
        let delay = Direction::delay(5 * MS);
        let home = Home::new(1, &delay, &delay, 7).expect("a lab");
        let names = ["r2", "left", "right", "silent", "reluctant", "far"];
        let routers: Vec<Namespace> = names
            .iter()
            .map(|name| Namespace::new(name).expect("a namespace"))
            .collect();
        let [r2, left, right, silent, reluctant, far] = &routers[..] else {
            unreachable!("six were made");
        };
        join(&home.server, r2, 1);
        join(r2, left, 2);
        join(r2, right, 3);
        join(right, silent, 5);
        join(left, silent, 4);
        join(silent, reluctant, 6);
        join(reluctant, far, 7);
        for ns in routers.iter().chain([&home.server]) {
            plain_router(ns);
        }
        onward(&home.server, 1);
        ip(
            r2,
            "route add 10.99.0.9/32 nexthop via 10.81.2.2 nexthop via 10.81.3.2",
        );
        ip(
            r2,
            "route add fd99::9/128 nexthop via fd81:2::2 nexthop via fd81:3::2",
        );
        let by_flow = || -> std::io::Result<()> {
            std::fs::write("/proc/sys/net/ipv4/fib_multipath_hash_policy", "1")?;
            std::fs::write("/proc/sys/net/ipv6/fib_multipath_hash_policy", "1")
        };
        r2.inside(by_flow).expect("inside").expect("a balancer");
        onward(left, 4);
        onward(right, 5);
        onward(silent, 6);
        onward(reluctant, 7);
        ip(far, "addr add 10.99.0.9/32 dev lo");
        ip(far, "addr add fd99::9/128 dev lo nodad");
        firewall(
            silent,
            &[
                "icmp type time-exceeded drop",
                "icmpv6 type time-exceeded drop",
            ],
        );
        firewall(
            reluctant,
            &[
                "icmp type time-exceeded numgen inc mod 2 == 0 drop",
                "icmpv6 type time-exceeded numgen inc mod 2 == 0 drop",
            ],
        );
        Self { home, routers }
    }

    fn path(&self, program: &Path, before: &[&str], args: &[&str]) -> Output {
        let mut words = before.iter().copied();
        let mut command = match words.next() {
            None => self.home.client.command(program),
            Some(first) => {
                let mut command = self.home.client.command(first);
                command.args(words).arg(program);
                command
            }
        };
        command.arg("path").args(args).output().expect("bbtool")
    }
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What there is to find, whatever is sent over whichever family.
fn check(found: &Value, protocol: &str, v6: bool) {
    println!("{found}");
    let at = |n: u8, host: u8| match v6 {
        false => format!("10.81.{n}.{host}"),
        true => format!("fd81:{n}::{host}"),
    };
    assert_eq!(found["schema"], "bufferbane.path/1");
    assert_eq!(
        (&found["protocol"], &found["interface"]),
        (&protocol.into(), &"wan0".into())
    );
    assert_eq!(found["end"], "target");
    let hops = found["hops"].as_array().expect("hops");
    assert_eq!(hops.len(), 6);
    let addresses = |i: usize| -> Vec<&str> {
        let all = hops[i]["addresses"].as_array().expect("addresses");
        all.iter().filter_map(Value::as_str).collect()
    };
    let first = if v6 { "fd77::2" } else { "10.77.0.2" };
    assert_eq!(addresses(0), [first]);
    assert_eq!(addresses(1), [at(1, 2)]);
    // One of the two: all messages take one way.
    let sides = [at(2, 2), at(3, 2)];
    assert!(matches!(addresses(2)[..], [side] if sides.contains(&side.to_owned())));
    assert_eq!(addresses(3), [""; 0]);
    assert_eq!(addresses(4), [at(6, 2)]);
    assert_eq!(addresses(5), [FAR[usize::from(v6)]]);
    for (i, hop) in hops.iter().enumerate() {
        let count = |key: &str| hop[key].as_u64().expect("a count");
        let heard = [10, 10, 10, 0, 5, 10][i];
        assert_eq!(
            (count("sent"), count("received")),
            (10, heard),
            "hop {}",
            i + 1
        );
        match &hop["rtt_ns"] {
            Value::Null => assert_eq!(heard, 0),
            rtt => {
                // The line alone takes this long; and nothing in a chain of namespaces takes long.
                assert!(rtt["min"].as_u64().expect("a time") >= 10 * MS, "{rtt}");
                assert!(rtt["p50"].as_u64().expect("a time") < 200 * MS, "{rtt}");
            }
        }
    }
}

/// What makes up a flow, of every packet to the far host that passes: for UDP the IPv6 flow label or
/// the IPv4 protocol, the ports and the checksum.
fn capture(ns: &Namespace, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<BTreeSet<Vec<u8>>> {
    ns.spawn(move || {
        let kind = Type::from(nix::libc::SOCK_RAW);
        let all = Some(Protocol::from(EVERYTHING));
        let mut socket = Socket::new(Domain::PACKET, kind, all).expect("a packet socket");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time-out");
        let v4: std::net::Ipv4Addr = FAR[0].parse().expect("an address");
        let v6: std::net::Ipv6Addr = FAR[1].parse().expect("an address");
        let (mut frame, mut flows) = ([0; 2048], BTreeSet::new());
        while !stop.load(Ordering::Relaxed) {
            let Ok(len) = socket.read(&mut frame) else {
                continue;
            };
            let packet = &frame[14.min(len)..len];
            if packet.len() >= 28 && frame[12..14] == [8, 0] && packet[16..20] == v4.octets() {
                flows.insert([&packet[9..10], &packet[20..24], &packet[26..28]].concat());
            }
            if packet.len() >= 48 && frame[12..14] == [0x86, 0xdd] && packet[24..40] == v6.octets()
            {
                flows.insert([&packet[..4], &packet[40..44], &packet[46..48]].concat());
            }
        }
        flows
    })
    .expect("the router's namespace")
}

#[test]
fn every_hop_is_found_by_root_and_by_anybody_over_either_family_in_one_flow() {
    if let Err(why) = possible() {
        return skip(&why);
    }
    if Command::new("nft").arg("--version").output().is_err() {
        return skip("no nft (nftables)");
    }
    let chain = Chain::new();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_bbtool"));
    let fast = ["--interval", "200ms", "--json", "--interface", "wan0"];
    let run = |before: &[&str], program: &Path, to: &str, more: &[&str]| {
        let args = [&[to], &fast[..], more].concat();
        json(&chain.path(program, before, &args))
    };

    // Raw sockets of ICMP; UDP, of which the far side of the line sees one flow each time.
    for (v6, to) in FAR.iter().enumerate() {
        let v6 = v6 == 1;
        check(&run(&[], &program, to, &[]), "icmp", v6);
        let stop = Arc::new(AtomicBool::new(false));
        let capturing = capture(&chain.home.server, Arc::clone(&stop));
        check(&run(&[], &program, to, &["--udp"]), "udp", v6);
        stop.store(true, Ordering::Relaxed);
        let flows = capturing.join().expect("no panic");
        println!("{flows:?}");
        assert_eq!(flows.len(), 1, "{flows:?}");
    }

    // Who may nothing: UDP; and with the usual setting of distributions, ping sockets.
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("mode");
    let theirs = dir.path().join("bbtool");
    std::fs::copy(&program, &theirs).expect("a copy");
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    match Command::new(nobody[0])
        .args(&nobody[1..])
        .arg("true")
        .status()
    {
        Ok(status) if status.success() => {}
        _ => return skip("no setpriv, or no other user here"),
    }
    for (v6, to) in FAR.iter().enumerate() {
        check(&run(&nobody, &theirs, to, &[]), "udp", v6 == 1);
    }
    let everybody = || std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    let set = chain.home.client.inside(everybody).expect("inside");
    set.expect("a setting");
    for (v6, to) in FAR.iter().enumerate() {
        check(&run(&nobody, &theirs, to, &[]), "icmp", v6 == 1);
    }

    // Different flows do see both ways: the balancer balances.
    let one = ["--count", "1", "--udp"];
    let side = || run(&[], &program, FAR[0], &one)["hops"][2]["addresses"][0].to_string();
    let sides: BTreeSet<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..16).map(|_| scope.spawn(side)).collect();
        let sides = all.into_iter().map(|t| t.join().expect("no panic"));
        sides.collect()
    });
    assert_eq!(sides.len(), 2, "{sides:?}");

    let text = chain.path(&program, &[], &[FAR[0], "--interval", "100ms"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    println!("{text}");
    for part in [
        "10.99.0.9 through wan0, IPv4, echo requests, 10 rounds of 100 ms",
        "no answer",
        "10.99.0.9 is 6 hops away.",
        "is not lost on the way",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // A router that refuses, and one behind which nobody answers.
    ip(&chain.routers[0], "route replace prohibit 10.99.0.9/32");
    let refused = run(&[], &program, FAR[0], &["--count", "2"]);
    assert_eq!(
        (&refused["end"], &refused["refused"]),
        (&"refused".into(), &"prohibited".into())
    );
    assert_eq!(refused["hops"].as_array().map(Vec::len), Some(2));
    // It looks for a route before it looks at the TTL, and so does not answer itself either.
    ip(&chain.routers[0], "route replace blackhole 10.99.0.9/32");
    let silent = run(&[], &program, FAR[0], &["--count", "2"]);
    assert_eq!(silent["end"], "silence");
    assert_eq!(silent["hops"].as_array().map(Vec::len), Some(1));
}

/// Answers at `socket` as a daemon does, with this status.
fn answer(socket: &Path, status: &Value) {
    let listener = UnixListener::bind(socket).expect("a socket");
    let line = format!("{}\n", json!({ "ok": true, "status": status }));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut asked = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("a reader"));
            reader.read_line(&mut asked).expect("a request");
            stream.write_all(line.as_bytes()).expect("an answer");
        }
    });
}

#[test]
fn what_the_daemon_probes_is_walked_as_the_daemon_sends() {
    if let Err(why) = possible() {
        return skip(&why);
    }
    if Command::new("nft").arg("--version").output().is_err() {
        return skip("no nft (nftables)");
    }
    let chain = Chain::new();
    let client = &chain.home.client;
    plain_router(client);
    ip(client, "addr add 10.77.0.7/24 dev wan0");
    // The far host is reached with that mark and from that source only.
    ip(
        client,
        "rule add pref 10 fwmark 5 from 10.77.0.7 lookup main",
    );
    ip(client, "rule add pref 11 to 10.99.0.9 unreachable");
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("s");
    let series = |target: &str, address: &str| json!({ "interface": "wan0", "target": target, "address": address });
    answer(
        &socket,
        &json!({
            "uplinks": [{ "interface": "wan0", "kind": "tunnel", "source": "10.77.0.7", "mark": 5 }],
            "series": [series("near", "10.77.0.2"), series("far", FAR[0])],
        }),
    );
    let program = PathBuf::from(env!("CARGO_BIN_EXE_bbtool"));
    let socket = socket.to_str().expect("a path");
    let fast = ["--count", "2", "--interval", "200ms", "--socket"];
    let run = |to: &str, socket: &str, more: &[&str]| {
        let args = [&[to], &fast[..], &[socket], more].concat();
        chain.path(&program, &[], &args)
    };
    // By its name, by its address, and what is not probed but goes through the same uplink.
    for (to, more) in [
        ("far", &["--json"][..]),
        (FAR[0], &["--json"]),
        (FAR[0], &["--json", "--interface", "wan0"]),
    ] {
        let found = json(&run(to, socket, more));
        assert_eq!(
            (&found["source"], &found["mark"], &found["interface_kind"]),
            (&"10.77.0.7".into(), &5.into(), &"tunnel".into())
        );
        assert_eq!(
            (&found["address"], &found["end"]),
            (&FAR[0].into(), &"target".into())
        );
    }
    let text = run("far", socket, &[]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    println!("{text}");
    assert!(text.contains("far (10.99.0.9) through wan0 from 10.77.0.7 with mark 5, IPv4"));
    assert!(text.contains("Hop 1 is the tunnel's far end"));
    for (to, socket, says) in [
        (FAR[0], "/nonexistent", "10.99.0.9"),
        ("far", "/nonexistent", "far cannot be resolved"),
        ("name.invalid", socket, "; the daemon probes far, near"),
    ] {
        let output = run(to, socket, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn what_cannot_be_traced_is_said() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bbtool"));
        let output = command.arg("path").args(args).output().expect("bbtool");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    for (args, code, says) in [
        (
            &["127.0.0.1", "--interface", "nonesuch"][..],
            2,
            "no interface \"nonesuch\"; there are lo",
        ),
        (
            &["127.0.0.1", "--count", "0"],
            2,
            "--count 0 is out of range; 1 to 10000",
        ),
        (&["127.0.0.1", "--max-hops", "31"], 2, "--max-hops 31"),
        (
            &["127.0.0.1", "--interval", "1ms"],
            2,
            "100ms to 1m is allowed",
        ),
        (
            &["127.0.0.1", "--family", "5"],
            2,
            "--family 5 is not known; 4 or 6",
        ),
        (
            &["127.0.0.1", "--family", "6"],
            1,
            "no route to 127.0.0.1 over IPv6",
        ),
        (
            &["192.0.2.1", "--interface", "lo"],
            1,
            "no route to 192.0.2.1 through lo",
        ),
        (&["name.invalid"], 1, "name.invalid cannot be resolved"),
    ] {
        let (exit, said) = run(args);
        assert_eq!(exit, Some(code), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
    }
}
