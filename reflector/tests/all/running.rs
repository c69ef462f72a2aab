//! A reflector within this program, over loopback, with core's client.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::common::{Prober, key};
use bufferbane_core::sample::Status;
use bufferbane_core::seal::KeyId;
use bufferbane_core::session::client::SessionEvent;
use bufferbane_core::time::ClockSource;
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config};

fn config(listen: &[&str], clients: &[u8]) -> Config {
    Config {
        listen: listen.iter().map(|l| l.parse().unwrap()).collect(),
        listen_is_default: false,
        control_socket: None,
        clients: clients
            .iter()
            .map(|n| Client {
                name: format!("client-{n}"),
                keys: vec![key(*n)],
                max_pps: 1000,
                max_rate_bps: None,
                daily_bytes: None,
                tcp_prefixes: Vec::new(),
            })
            .collect(),
        ..Config::default()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn probes_are_echoed_with_the_kernels_stamps_over_both_families() {
    let mut r = Running::start(&config(&["127.0.0.1:0", "[::1]:0"], &[1, 2])).unwrap();
    for (n, to) in [(1, r.listen()[0]), (2, r.listen()[1])] {
        let mut prober = Prober::new(key(n), to);
        prober.run(SECOND);
        let own = prober.own_address();
        assert_eq!(
            prober.events,
            [
                SessionEvent::Established,
                SessionEvent::AddressSeen {
                    address: own,
                    new_socket: true
                }
            ]
        );
        assert!(prober.samples.len() > 100, "{}", prober.samples.len());
        let ok = prober.samples.iter().filter(|s| s.status == Status::Ok);
        // A busy machine may keep a test waiting beyond the time-out.
        assert!(ok.clone().count() * 100 >= prober.samples.len() * 98);
        let stamped = ok.clone().filter(|s| {
            s.remote_rx_clock == ClockSource::Kernel && s.remote_tx_clock == ClockSource::Kernel
        });
        assert!(stamped.count() * 100 >= ok.count() * 98);
    }
    let status = r.status().unwrap();
    println!("{status:#}");
    assert_eq!(status["schema"], "bufferbane.reflector-status/1");
    assert_eq!(status["sessions"], 2);
    assert_eq!(status["drops"], serde_json::json!({}));
    assert_eq!(status["socket_drops"], 0);
    let answered = status["answered"].as_u64().unwrap();
    assert!(answered > 200 && status["received"] == answered);
    for client in status["clients"].as_array().unwrap() {
        assert!(client["answered"].as_u64().unwrap() > 100);
        assert_eq!(client["sessions"].as_array().unwrap().len(), 1);
    }
    let stay = &status["residence_ns"];
    assert!(stay["count"].as_u64().unwrap() > 200);
    assert!(stay["min"].as_u64() <= stay["p50"].as_u64());
    assert!(stay["p50"].as_u64() <= stay["p99"].as_u64());
    r.stop().unwrap();
}

#[test]
fn strangers_get_nothing_and_stop_nothing() {
    let mut r = Running::start(&config(&["127.0.0.1:0"], &[1])).unwrap();
    let to = r.listen()[0];
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(to).unwrap();
    stranger
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut knock = [7; 136];
    knock[..6].copy_from_slice(b"BFBN\x01\x01");
    for bytes in [&[][..], &[1], &[0x55; 1400], &[9; 9000], &knock] {
        stranger.send(bytes).unwrap();
    }
    // One who has a key, but not one that is known here.
    let mut unknown = Prober::new(key(9), to);
    unknown.run(SECOND);
    assert!(!unknown.is_answering() && unknown.samples.is_empty());
    assert!(stranger.recv(&mut [0; 2048]).is_err());
    let status = r.status().unwrap();
    assert_eq!(status["answered"], 0);
    let drops = &status["drops"];
    assert_eq!(drops["truncated"], 1, "{status}");
    assert!(drops["unknown_key"].as_u64() >= Some(2), "{status}");
    // And who is known is served as ever.
    let mut prober = Prober::new(key(1), to);
    prober.run(SECOND);
    assert!(prober.is_answering());
}

#[test]
fn keys_come_and_go_without_disturbing_the_others() {
    let mut r = Running::start(&config(&["127.0.0.1:0"], &[1, 2])).unwrap();
    let to = r.listen()[0];
    let (mut stays, mut goes) = (Prober::new(key(1), to), Prober::new(key(2), to));
    stays.run(SECOND / 2);
    goes.run(SECOND / 2);
    assert!(stays.is_answering() && goes.is_answering());
    // In another order, so that indices move.
    let mut changed = config(&["127.0.0.1:0"], &[3, 1]);
    changed.limits.sessions = 7;
    let restart = r.reconfigure(&changed).unwrap();
    assert_eq!(restart.len(), 1, "{restart:?}");
    assert!(restart[0].starts_with("limits.sessions"));
    stays.run(SECOND);
    assert_eq!(stays.events.len(), 2, "{:?}", stays.events);
    let lost = stays.samples.iter().filter(|s| s.status != Status::Ok);
    assert!(lost.count() <= 4);
    goes.run(2 * SECOND);
    assert!(goes.events.contains(&SessionEvent::Lost));
    let mut comes = Prober::new(key(3), to);
    comes.run(SECOND / 2);
    assert!(comes.is_answering());
    let status = r.status().unwrap();
    let names: Vec<&str> = status["clients"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(names, ["client-3", "client-1"]);
    assert!(status["clients"][1]["answered"].as_u64() > Some(100));
}

#[test]
fn a_restart_gets_its_port_back_and_its_clients_find_it() {
    let r = Running::start(&config(&["127.0.0.1:0"], &[1])).unwrap();
    let to: SocketAddr = r.listen()[0];
    let mut prober = Prober::new(key(1), to);
    prober.run(SECOND / 2);
    r.stop().unwrap();
    let again = Running::start(&config(&[&to.to_string()], &[1])).unwrap();
    prober.run(3 * SECOND);
    assert!(
        prober.events.contains(&SessionEvent::RemoteRestarted),
        "{:?}",
        prober.events
    );
    assert!(prober.is_answering());
    // And while it has the port, nobody else gets it.
    let Err(taken) = Running::start(&config(&[&to.to_string()], &[1])) else {
        panic!("two reflectors on one port");
    };
    assert!(taken.contains("another program has this port"), "{taken}");
    drop(again);
}

/// Each look at a key misses the cache: for each client through all keys would take longer than anybody waits, and
/// there are no echoes meanwhile.
#[test]
fn thousands_of_clients_are_listed_and_read_again_in_one_walk_through_their_keys() {
    let clients = 10_000;
    let mut many = config(&["127.0.0.1:0"], &[]);
    let one = config(&[], &[1]).clients.remove(0);
    many.clients = (0..clients)
        .map(|n: u64| {
            let mut client = one.clone();
            client.name = n.to_string();
            client.keys[0].id = KeyId(n.to_be_bytes());
            client
        })
        .collect();
    let mut r = Running::start(&many).unwrap();
    let mut prober = Prober::new(many.clients[7777].keys[0].clone(), r.listen()[0]);
    prober.run(SECOND / 2);
    assert!(prober.is_answering());
    // The first goes, and all others move.
    many.clients.remove(0);
    r.reconfigure(&many).unwrap();
    let status = r.status().unwrap();
    let told = status["clients"].as_array().unwrap();
    assert_eq!(told.len(), clients as usize - 1);
    for (n, client) in (1..).zip(told) {
        let sessions = client["sessions"].as_array().map(Vec::len);
        assert_eq!(
            (client["name"].as_str(), sessions),
            (Some(&*n.to_string()), Some(usize::from(n == 7777)))
        );
    }
}

#[test]
fn a_client_over_its_rate_is_held_to_it_and_it_shows() {
    let mut slow = config(&["127.0.0.1:0"], &[1]);
    slow.clients[0].max_pps = 20;
    let mut r = Running::start(&slow).unwrap();
    let mut prober = Prober::new(key(1), r.listen()[0]);
    prober.run(2 * SECOND);
    let status = r.status().unwrap();
    let client = &status["clients"][0];
    assert!(
        client["drops"]["rate_limit"].as_u64() > Some(100),
        "{status}"
    );
    // A burst of 20 and 20 a second, and the knocks.
    assert!(client["answered"].as_u64() < Some(80), "{status}");
}
