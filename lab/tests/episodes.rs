//! Somebody else's iperf3 through the router that the daemon runs on: each upload and download is told as
//! what it is, and so are delay and loss without any load; that the line carries the household's traffic is
//! found out, and nothing is said while all is quiet.

use std::time::Duration;

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_lab::bench::episodes::house::{self, House};
use bufferbane_lab::bench::episodes::judge::{Cause, Judgement};
use bufferbane_lab::link::Way;
use bufferbane_lab::{netns, skip};
use bufferbane_reflector::Running;
use bufferbaned::Daemon;

const KEY: PresharedKey = PresharedKey {
    id: KeyId(*b"episodes"),
    secret: Secret::new([4; 32]),
};

#[test]
fn loads_by_others_are_told_as_what_they_are() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let house = House::new().expect("a house");
    let far = bufferbane_reflector::config::Config {
        listen: vec![house::REFLECTOR.into()],
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
    let running = house.home.server.spawn(move || Running::start(&far));
    let running = running.expect("the server's namespace").join();
    let reflector = running.expect("no panic").expect("the reflector starts");
    let dir = tempfile::tempdir().expect("a temporary directory");
    bufferbane_config::keyfile::write_new(&dir.path().join("e.key"), &KEY).expect("a key file");
    let text = house::configuration("e.key");
    let loaded = bufferbaned::config::parse("episodes.toml", &text, dir.path());
    let mut config = loaded.expect("a right configuration").config;
    config.store = dir.path().join("s.redb");
    config.control_socket = dir.path().join("c.sock");
    config.keep.min_free_bytes = 0;
    let daemon = house.home.client.spawn(move || Daemon::start(config, None));
    let daemon = daemon.expect("the client's namespace").join();
    let mut daemon = daemon.expect("no panic").expect("the daemon starts");

    // Longer than an event takes to end.
    let rest = || std::thread::sleep(Duration::from_secs(7));
    let mut episodes = vec![house.pass(Duration::from_secs(15))];
    for (way, streams) in [(Way::Up, 2), (Way::Up, 4), (Way::Down, 6)] {
        episodes.push(house.load(way, 7, streams).expect("iperf3"));
        rest();
    }
    for cause in [Cause::SlowWithoutLoad, Cause::LossWithoutLoad] {
        episodes.push(house.trouble(cause, Duration::from_secs(10)));
        rest();
    }
    daemon.stop();
    drop(reflector);

    let store = dir.path().join("s.redb");
    let carried = house.carried().expect("a whole log");
    let judgement = Judgement::of_store(&store, &carried, &episodes).expect("a readable store");
    println!("{judgement}");
    assert!(judgement.is_right(), "{judgement}");
    for way in Way::BOTH {
        let (estimates, error) = judgement.capacity_error(way);
        assert!(estimates > 0 && error < 50, "{way:?}: {judgement}");
    }
    // That the line was idle while it was bad could only be said because the router has seen by itself
    // that it forwards.
}
