//! What throughput tests say of a line, against what its log says that it delivered and how long it held
//! their probes: a long buffer upward, in which TCP loses and goes on, and a short one downward.

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_lab::bench::shapes::{self, SHAPES};
use bufferbane_lab::home::Home;
use bufferbane_lab::link::Way;
use bufferbane_lab::{netns, skip};
use bufferbane_reflector::Running;
use bufferbaned::Daemon;

const KEY: PresharedKey = PresharedKey {
    id: KeyId(*b"shapes!!"),
    secret: Secret::new([6; 32]),
};

/// Seconds of load.
const SECONDS: u64 = 6;

fn hold(name: &str, way: Way) {
    let shape = SHAPES.iter().find(|s| s.name == name);
    let shape = shape.expect("a shape of that name");
    let home = Home::new(1, &shape.up.direction(), &shape.down.direction(), 7).expect("a lab");
    let far = bufferbane_reflector::config::Config {
        listen: vec!["10.99.0.1:9876".parse().expect("an address")],
        control_socket: None,
        clients: vec![bufferbane_reflector::config::Client {
            name: "home".into(),
            keys: vec![KEY],
            max_pps: 1000,
            max_rate_bps: None,
            daily_bytes: None,
        }],
        ..bufferbane_reflector::config::Config::default()
    };
    let running = home.server.spawn(move || Running::start(&far));
    let running = running.expect("the server's namespace").join();
    let reflector = running.expect("no panic").expect("the reflector starts");

    let dir = tempfile::tempdir().expect("a temporary directory");
    bufferbane_config::keyfile::write_new(&dir.path().join("s.key"), &KEY).expect("a key file");
    // Its own probes have another size than those of the test.
    let text = "target = []\n[[interface]]\nname = \"wan0\"\n[[reflector]]\nname = \"vienna\"\n\
                address = \"10.99.0.1:9876\"\nkey_file = \"s.key\"\ninterval = \"100ms\"\nsize = 200\n\
                [throughput]\nevery = \"never\"\n";
    let loaded = bufferbaned::config::parse("shapes.toml", text, dir.path());
    let mut config = loaded.expect("a right configuration").config;
    config.store = dir.path().join("s.redb");
    config.control_socket = dir.path().join("c.sock");
    config.keep.min_free_bytes = 0;
    let socket = config.control_socket.clone();
    let daemon = home.client.spawn(move || Daemon::start(config, None));
    let daemon = daemon.expect("the client's namespace").join();
    let mut daemon = daemon.expect("no panic").expect("the daemon starts");
    std::thread::sleep(std::time::Duration::from_secs(2));

    let row = shapes::hold(&home.links[0], &socket, way, SECONDS).expect("a test");
    daemon.stop();
    drop(reflector);
    println!("{name} {row}");
    assert!(row.is_kept(), "{name} {row}");
}

#[test]
fn a_test_says_what_the_line_delivered_and_how_long_it_held_probes() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    hold("6/1", Way::Up);
    hold("25/5", Way::Down);
}
