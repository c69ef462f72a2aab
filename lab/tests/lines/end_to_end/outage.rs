//! What is stored of the way, and of a close look, when nothing answers any more.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bufferbane_lab::home::{Home, Layout, Place};
use bufferbane_lab::link::{Direction, Fate, Flow, Passage, Way};
use bufferbane_lab::{netns, skip};
use bufferbane_store::{Echoes, PathEnd, Reader};

use super::{MS, V4, daemon_config, start_daemon, start_reflector, target};

const GATEWAY: [u8; 4] = [10, 77, 0, 254];
/// Of an Ethernet frame with an echo of a close look. Regular pings of this test have another size.
const QUICK_BYTES: u32 = 14 + 20 + 64;

/// Two hops, the second of which falls silent: what is stored of it names the first. Both hosts are pinged once a
/// second; the close look at them says of the far one what the line did to its echoes, and of the gateway that it
/// answered meanwhile.
#[test]
fn an_outage_names_the_last_hop_that_answered() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let quiet = Direction::delay(5 * MS);
    let layout = Layout {
        uplinks: 1,
        place: Place::BehindGateways,
        plan: [quiet.clone(), quiet.clone()],
        seed: 33,
    };
    let home = Home::build(&layout).expect("a lab");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let _reflector = start_reflector(&home);
    let mut config = daemon_config(dir.path(), 1);
    let gateway = IpAddr::from(GATEWAY).to_string();
    let mut pinged = vec![target("gateway", &gateway), target("server", V4)];
    for t in &mut pinged {
        (t.interval_ns, t.size) = (1000 * MS, 100);
    }
    config.targets = Some(pinged);
    // Faster, it would need no close look.
    config.reflectors[0].streams[0].interval_ns = 100 * MS;
    let sooner = "target = []\n[alerts]\noutage = \"1s\"\n";
    let sooner = bufferbaned::config::parse("sooner.toml", sooner, dir.path());
    config.alerts = sooner.expect("a right configuration").config.alerts;
    let mut daemon = start_daemon(&home, config);
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
    let echoes = || read().echoes(i64::MIN, i64::MAX).expect("readable");
    until("a look at the way", Box::new(|| !looks().is_empty()));
    for way in Way::BOTH {
        home.links[0].change(way, quiet.clone());
    }
    until("a close look at both", Box::new(|| echoes().len() >= 2));
    daemon.stop();
    let first_ns = echoes()[0].at_ns;
    let first = echoes().into_iter().filter(|e| e.at_ns == first_ns);
    let first: Vec<Echoes> = first.map(|e| e.echoes).collect();
    compare(&first, &home.links[0].log());
    for close in &first {
        let events = read().events(i64::MIN, i64::MAX).expect("readable");
        assert!(events.iter().any(|(id, _)| close.events.contains(id)));
    }
    let looks = looks();
    let look = &looks[0].look;
    println!("{look:?}");
    assert_eq!(look.path.end, PathEnd::Silence);
    let [gateway] = &look.path.hops[..] else {
        panic!("{look:?}");
    };
    assert_eq!(gateway.addresses, [IpAddr::from(GATEWAY)]);
    assert_eq!(look.path.address.to_string(), V4);
    let events = read().events(i64::MIN, i64::MAX).expect("readable");
    let own = events.iter().filter(|(id, _)| look.events.contains(id));
    let kinds: Vec<&str> = own.map(|(_, e)| e.kind.as_str()).collect();
    assert!(
        kinds.contains(&"outage") || kinds.contains(&"reflector_lost"),
        "{events:?}"
    );
}

/// The first close look, at the gateway and at the far host, against what the line did to the echoes of the latter.
fn compare(first: &[Echoes], log: &[Passage]) {
    let [gateway, far] = first else {
        panic!("{first:?}");
    };
    println!("{gateway:?}\n{far:?}");
    assert_eq!(
        (gateway.target.as_str(), far.target.as_str()),
        ("gateway", "server")
    );
    assert!(gateway.sent > 0);
    assert_eq!((gateway.answered, gateway.runs), (gateway.sent, 0));

    // Each look has an identifier of its own.
    let mut looks: BTreeMap<u16, Vec<&Passage>> = BTreeMap::new();
    for passage in log.iter().filter(|p| p.bytes == QUICK_BYTES) {
        if let Flow::Echo(identifier, _) = passage.flow {
            looks.entry(identifier).or_default().push(passage);
        }
    }
    let own = looks.into_values().min_by_key(|l| l[0].arrival_ns);
    let own = own.expect("echoes on the line");
    let number = |way: Way, is: fn(Fate) -> bool| {
        let those = own.iter().filter(|p| p.way == way && is(p.fate));
        those.count() as u64
    };
    assert_eq!(far.sent, number(Way::Up, |_| true));
    let answered = number(Way::Down, |f| f.delivered_ns().is_some());
    assert_eq!(far.answered, answered);
    assert!(answered > 0 && answered < far.sent, "{far:?}");
    // The silence holds all of the line's outage that the look saw.
    let cut = own.iter().filter(|p| p.fate == Fate::Outage);
    let cut: Vec<i64> = cut.map(|p| p.arrival_ns).collect();
    let (first_cut, last_cut) = (cut.iter().min(), cut.iter().max());
    let seen_ns = first_cut.zip(last_cut).map(|(a, b)| a.abs_diff(*b));
    assert!(
        far.runs > 0 && far.silence_ns >= seen_ns,
        "{seen_ns:?} {far:?}"
    );
    assert_eq!(far.halves.iter().map(|h| h.0).sum::<u64>(), far.sent);
    assert_eq!(far.halves.iter().map(|h| h.1).sum::<u64>(), answered);
}
