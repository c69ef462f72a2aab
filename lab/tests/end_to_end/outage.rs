//! What is stored of the way when nothing answers any more.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bufferbane_lab::home::{Home, Layout};
use bufferbane_lab::link::{Direction, Way};
use bufferbane_lab::{netns, skip};
use bufferbane_reflector::Running;
use bufferbane_store::{PathEnd, Reader};
use bufferbaned::Daemon;

use super::{MS, V4, alone, daemon_config, reflector_config};

/// Two hops, the second of which falls silent: what is stored of it names the first.
#[test]
fn an_outage_names_the_last_hop_that_answered() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let _alone = alone();
    let quiet = Direction::delay(5 * MS);
    let layout = Layout {
        uplinks: 1,
        gateways: true,
        plan: [quiet.clone(), quiet.clone()],
        seed: 33,
    };
    let home = Home::build(&layout).expect("a lab");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let reflector = home.server.spawn(|| Running::start(&reflector_config()));
    let reflector = reflector.expect("the server's namespace").join();
    let _reflector = reflector.expect("no panic").expect("the reflector starts");
    let mut config = daemon_config(dir.path(), 1);
    config.targets = Some(vec![]);
    let sooner = "target = []\n[alerts]\noutage = \"1s\"\n";
    let sooner = bufferbaned::config::parse("sooner.toml", sooner, dir.path());
    config.alerts = sooner.expect("a right configuration").config.alerts;
    let daemon = home.client.spawn(move || Daemon::start(config, None));
    let daemon = daemon.expect("the client's namespace").join();
    let mut daemon = daemon.expect("no panic").expect("the daemon starts");
    let until = |what: &str, mut is: Box<dyn FnMut() -> bool + '_>| {
        let begun = Instant::now();
        while !is() {
            assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let received = || {
        daemon
            .status()
            .series
            .iter()
            .map(|s| s.total.received)
            .sum::<u64>()
    };
    until("answers", Box::new(|| received() > 50));
    for way in Way::BOTH {
        let outage = true;
        let cut = Direction {
            outage,
            ..quiet.clone()
        };
        home.links[0].change(way, cut);
    }
    // The daemon goes on writing: each look is of its own snapshot.
    let read = || Reader::open(&dir.path().join("s.redb")).expect("a store");
    let looks = || read().escalations(i64::MIN, i64::MAX).expect("readable");
    until("a look at the way", Box::new(|| !looks().is_empty()));
    daemon.stop();
    let looks = looks();
    let look = &looks[0].look;
    println!("{look:?}");
    assert_eq!(look.path.end, PathEnd::Silence);
    let [gateway] = &look.path.hops[..] else {
        panic!("{look:?}");
    };
    assert_eq!(gateway.addresses, [IpAddr::from([10, 77, 0, 254])]);
    assert_eq!(look.path.address.to_string(), V4);
    let events = read().events(i64::MIN, i64::MAX).expect("readable");
    let own = events.iter().filter(|(id, _)| look.events.contains(id));
    let kinds: Vec<&str> = own.map(|(_, e)| e.kind.as_str()).collect();
    assert!(
        kinds.contains(&"outage") || kinds.contains(&"reflector_lost"),
        "{events:?}"
    );
}
