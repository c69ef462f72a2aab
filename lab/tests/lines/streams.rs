//! Streams and targets side by side: each with its DSCP and sizes on the wire, in a series of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bufferbane_core::sample::Status;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_core::stamp::Subnet;
use bufferbane_lab::netns::{self, Namespace};
use bufferbane_lab::skip;
use bufferbane_reflector::Running;
use bufferbane_reflector::stamp::StampConfig;
use bufferbane_store::{Filter, Reader, SeriesKind};
use bufferbaned::Daemon;

const KEY: PresharedKey = PresharedKey {
    id: KeyId(*b"streams!"),
    secret: Secret::new([9; 32]),
};

/// As a person would write it: best effort, voice, background, and mixed sizes of every kind.
const CONFIGURATION: &str = "[[interface]]\nname = \"wan\"\n\
    [[target]]\nname = \"ping\"\nkind = \"icmp\"\naddress = \"HOST\"\ninterval = \"20ms\"\n\
    sizes = [64, 600, 1460]\n\
    [[target]]\nname = \"stamp\"\nkind = \"stamp\"\naddress = \"HOST\"\ninterval = \"20ms\"\n\
    sizes = [44, 700, 1300]\n\
    [[reflector]]\nname = \"vienna\"\naddress = \"ADDRESS:9876\"\nkey_file = \"s.key\"\n\
    interval = \"20ms\"\n\
    [[reflector.stream]]\ndscp = 46\nsize = 200\n\
    [[reflector.stream]]\ndscp = 8\nsize = 1400\ninterval = \"40ms\"\n\
    [[reflector.stream]]\nsizes = [128, 512, 1400]\n";

/// By target, DSCP and size: how many were answered, and the sizes of these.
type Found = BTreeMap<(String, u8, u16), (usize, BTreeSet<u16>)>;

fn measured(client: &Namespace, address: &str) -> Found {
    let dir = tempfile::tempdir().expect("a temporary directory");
    bufferbane_config::keyfile::write_new(&dir.path().join("s.key"), &KEY).expect("a key file");
    let text = CONFIGURATION
        .replace("ADDRESS", address)
        .replace("HOST", address.trim_matches(['[', ']']));
    let loaded = bufferbaned::config::parse("streams.toml", &text, dir.path());
    let mut config = loaded.expect("a right configuration").config;
    config.store = dir.path().join("s.redb");
    config.control_socket = dir.path().join("c.sock");
    config.keep.min_free_bytes = 0;
    let started = client.inside(move || Daemon::start(config, None));
    let daemon = started.expect("the client's namespace");
    let mut daemon = daemon.expect("the daemon starts");
    std::thread::sleep(Duration::from_secs(6));
    daemon.stop();

    let reader = Reader::open(&dir.path().join("s.redb")).expect("a store that was closed");
    let (from_ns, to_ns) = reader.span().expect("readable").expect("samples");
    let mut found = BTreeMap::new();
    for (id, info) in reader.series().expect("readable") {
        let filter = Filter {
            from_ns,
            to_ns,
            series: vec![id],
        };
        let (mut answered, mut sizes) = (0, BTreeSet::new());
        for row in reader.samples(&filter) {
            let s = row.expect("a readable store").sample;
            if s.status == Status::Ok {
                answered += 1;
                sizes.insert(s.size);
                // What the far end's kernel saw: DSCP in the upper six bits, no ECN.
                let told = (info.kind == SeriesKind::Udp).then_some(info.dscp << 2);
                assert_eq!(s.tos_seen, told, "{info:?}");
            }
        }
        found.insert((info.target, info.dscp, info.size), (answered, sizes));
    }
    found
}

#[test]
fn classes_and_sizes_stand_side_by_side_over_both_families() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let client = Namespace::new("client").expect("a namespace");
    let server = Namespace::new("server").expect("a namespace");
    client.cable("wan", &server, "lan").expect("a cable");
    for (ns, link, n) in [(&client, "wan", 1), (&server, "lan", 2)] {
        let v4 = format!("10.88.0.{n}/24");
        let v6 = format!("fd88::{n}/64");
        ns.ip(&["addr", "add", &v4, "dev", link])
            .expect("an address");
        ns.ip(&["addr", "add", &v6, "dev", link, "nodad"])
            .expect("an address");
    }
    let config = bufferbane_reflector::config::Config {
        listen: ["10.88.0.2:9876", "[fd88::2]:9876"]
            .map(|a| a.parse().expect("an address"))
            .to_vec(),
        control_socket: None,
        clients: vec![bufferbane_reflector::config::Client {
            name: "home".into(),
            keys: vec![KEY],
            max_pps: 1000,
            max_rate_bps: None,
            daily_bytes: None,
            tcp_prefixes: Vec::new(),
        }],
        stamp: Some(StampConfig {
            listen: ["10.88.0.2:862", "[fd88::2]:862"]
                .map(|a| a.parse().expect("an address"))
                .to_vec(),
            allow: [("10.88.0.0", 24), ("fd88::", 64)]
                .map(|(net, prefix)| Subnet {
                    address: net.parse().expect("an address"),
                    prefix,
                })
                .to_vec(),
            max_pps: 1000,
            key: None,
        }),
        ..bufferbane_reflector::config::Config::default()
    };
    let running = server.inside(move || Running::start(&config));
    let running = running.expect("the server's namespace");
    let reflector = running.expect("the reflector starts");
    for address in ["10.88.0.2", "[fd88::2]"] {
        let found = measured(&client, address);
        println!("{address}: {found:?}");
        let all = [
            (("vienna", 0, 128), vec![128], 200),
            (("vienna", 46, 200), vec![200], 200),
            (("vienna", 8, 1400), vec![1400], 100),
            (("vienna", 0, 0), vec![128, 512, 1400], 200),
            (("ping", 0, 0), vec![64, 600, 1460], 200),
            (("stamp", 0, 0), vec![44, 700, 1300], 200),
        ];
        assert_eq!(found.len(), all.len());
        for ((target, dscp, size), sizes, at_least) in all {
            let series = (target.to_owned(), dscp, size);
            let (answered, seen) = &found[&series];
            assert!(seen.iter().copied().eq(sizes), "{series:?}: {seen:?}");
            assert!(*answered > at_least, "{series:?}: {answered}");
        }
    }
    drop(reflector);
}
