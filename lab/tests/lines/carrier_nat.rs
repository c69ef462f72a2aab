//! A client whose TCP comes from another address than its UDP, as behind the NAT of a carrier.

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_lab::netns::{self, Namespace};
use bufferbane_lab::skip;
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config};
use bufferbane_store::LoadTest;
use bufferbaned::Daemon;
use bufferbaned::load::{TestNews, TestWish};

const KEY: PresharedKey = PresharedKey {
    id: KeyId(*b"carrier!"),
    secret: Secret::new([6; 32]),
};

/// The uplink behind the NAT, and one that is not.
const BEHIND: &str = "wan";
const PLAIN: &str = "wan2";

const CONFIGURATION: &str = "target = []\n[http]\nlisten = \"\"\n\
    [throughput]\nevery = \"never\"\ncongestion = \"reno\"\nstreams = 2\n\
    [[interface]]\nname = \"wan2\"\n[[interface]]\nname = \"wan\"\nOF_UPLINK\n\
    [[reflector]]\nname = \"vienna\"\naddress = \"10.89.0.2:9876\"\nkey_file = \"c.key\"\nOF_ALL\n";

/// A test each way at once through an uplink, by a daemon whose configuration says this of the uplink behind the
/// NAT, and this of all.
fn tested(
    client: &Namespace,
    through: &str,
    of_uplink: &str,
    of_all: &str,
) -> Result<LoadTest, String> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    bufferbane_config::keyfile::write_new(&dir.path().join("c.key"), &KEY).expect("a key file");
    let text = CONFIGURATION
        .replace("OF_UPLINK", of_uplink)
        .replace("OF_ALL", of_all);
    let loaded = bufferbaned::config::parse("carrier.toml", &text, dir.path());
    let mut config = loaded.expect("a right configuration").config;
    config.store = dir.path().join("c.redb");
    config.control_socket = dir.path().join("c.sock");
    config.keep.min_free_bytes = 0;
    let started = client.inside(move || Daemon::start(config, None));
    let daemon = started.expect("the client's namespace");
    let mut daemon = daemon.expect("the daemon starts");
    let result = loop {
        let wish = TestWish {
            direction: Some(bufferbaned::load::Kind::Both),
            seconds: Some(2),
            interface: Some(through.to_owned()),
            ..TestWish::default()
        };
        let mut news = daemon.test(wish);
        let last = loop {
            match news.blocking_recv() {
                Some(TestNews::Progress(_)) => {}
                Some(TestNews::Done(test)) => break Ok(*test),
                Some(TestNews::Failed(why) | TestNews::Unknown(why)) => break Err(why),
                None => break Err("the daemon ended".to_owned()),
            }
        };
        match last {
            // It has just started.
            Err(why) if why.contains("is reached") => {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            last => break last,
        }
    };
    daemon.stop();
    result
}

/// A client with both uplinks, and the server that they lead to.
fn lab() -> (Namespace, Namespace) {
    let client = Namespace::new("client").expect("a namespace");
    let server = Namespace::new("server").expect("a namespace");
    client.cable(BEHIND, &server, "lan").expect("a cable");
    client.cable(PLAIN, &server, "lan2").expect("a cable");
    let ip = |ns: &Namespace, line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        ns.ip(&arguments).unwrap_or_else(|e| panic!("{line}: {e}"));
    };
    ip(&server, "addr add 10.89.0.2/24 dev lan");
    ip(&server, "route add 100.64.0.0/10 dev lan");
    ip(&client, "addr add 10.89.0.1/24 dev wan");
    ip(&client, "addr add 100.64.3.4/32 dev wan");
    // What is TCP takes another source.
    ip(
        &client,
        "route add 10.89.0.0/24 dev wan src 100.64.3.4 table 89",
    );
    ip(&client, "rule add ipproto tcp lookup 89 pref 89");
    ip(&server, "addr add 10.90.0.2/24 dev lan2");
    ip(&client, "addr add 10.90.0.1/24 dev wan2");
    ip(
        &client,
        "route add 10.89.0.0/24 dev wan2 src 10.90.0.1 metric 200",
    );
    (client, server)
}

fn reflector(server: &Namespace) -> Running {
    let allowed = bufferbane_config::parse_subnet("100.64.0.0/10").expect("a prefix");
    let config = Config {
        listen: vec!["10.89.0.2:9876".parse().expect("an address")],
        control_socket: None,
        clients: vec![Client {
            name: "home".into(),
            keys: vec![KEY],
            max_pps: 1000,
            max_rate_bps: Some(20_000_000),
            daily_bytes: None,
            tcp_prefixes: vec![allowed],
        }],
        ..Config::default()
    };
    let running = server.inside(move || Running::start(&config));
    let running = running.expect("the server's namespace");
    running.expect("the reflector starts")
}

fn carries(test: Result<LoadTest, String>) {
    let test = test.unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(test.ways.len(), 2);
    let enough = test.ways.iter().all(|w| w.mean_bps > 1_000_000);
    assert!(enough, "{:?}", test.ways);
}

#[test]
fn tcp_from_another_address_is_let_in_where_it_was_announced() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let (client, server) = lab();
    let mut reflector = reflector(&server);
    let why = tested(&client, BEHIND, "", "").expect_err("nobody let that address in");
    assert!(
        why.contains("is not answered") && why.contains("tcp_prefix"),
        "{why}"
    );
    // A prefix that does not hold it changes nothing.
    let other = "tcp_prefix = \"100.65.0.0/16\"";
    let why = tested(&client, BEHIND, "", other).expect_err("another prefix");
    assert!(why.contains("is not answered"), "{why}");
    // One that the operator has not allowed, and that the client is not in, is refused.
    let others = "tcp_prefix = \"100.0.0.0/10\"";
    let why = tested(&client, BEHIND, "", others).expect_err("a prefix of others");
    assert!(why.contains("tcp_prefixes"), "{why}");
    carries(tested(
        &client,
        BEHIND,
        "",
        "tcp_prefix = \"100.64.0.0/10\"",
    ));
    // And for the time of the test only.
    let status = reflector.status().expect("a status");
    assert_eq!(status["tests"]["running"], 0, "{status:#}");
    let connect = client.spawn(|| {
        let to = "10.89.0.2:9876".parse().expect("an address");
        std::net::TcpStream::connect_timeout(&to, std::time::Duration::from_millis(500))
            .map(drop)
            .map_err(|e| e.kind())
    });
    let connected = connect
        .expect("the client's namespace")
        .join()
        .expect("no panic");
    assert_eq!(connected, Err(std::io::ErrorKind::TimedOut));
}

#[test]
fn an_uplink_beside_one_behind_a_nat_is_tested_where_the_prefix_is_that_ones() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let (client, server) = lab();
    let _reflector = reflector(&server);
    // It holds the addresses of one uplink, and the operator allows the client no such.
    let prefix = "tcp_prefix = \"10.89.0.0/24\"";
    let why = tested(&client, PLAIN, "", prefix).expect_err("a prefix of the other uplink");
    for part in ["tcp_prefix 10.89.0.0/24", "sees wan2", "[[interface]]"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    carries(tested(&client, PLAIN, prefix, ""));
    // What is said of an uplink goes before what is said of all.
    let own = "tcp_prefix = \"100.64.0.0/10\"";
    carries(tested(&client, BEHIND, own, prefix));
}
