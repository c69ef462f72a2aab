//! The largest packet that passes an emulated line, as a search over real sockets finds it.

use std::net::IpAddr;
use std::thread::JoinHandle;

use bufferbane_core::mtu::{Outcome, SearchConfig};
use bufferbane_lab::home::{Home, Layout, Place};
use bufferbane_lab::link::{Direction, Fate, Way};
use bufferbane_lab::netns::possible;
use bufferbane_lab::skip;
use bufferbane_linux_io::{Family, host, mtu};

const MS: u64 = 1_000_000;

/// A search to the server through an uplink, of packets up to the interface's 1500 bytes.
fn search(home: &Home, uplink: usize, host: &str) -> JoinHandle<Outcome> {
    let target: IpAddr = host.parse().expect("an address");
    let work = move || {
        let (builder, transport) =
            host::echoes(Family::of(&target), uplink as u16).expect("echoes may be sent");
        let config = SearchConfig {
            target,
            transport,
            cookie: uplink as u64,
            smallest: None,
            largest: mtu::largest_of(1500),
        };
        let builder = builder.interface(&format!("wan{uplink}"));
        let found = mtu::search(builder, 0, config, &mut 0, &|| false);
        found.expect("a socket").expect("not given up").outcome
    };
    home.client.spawn(work).expect("a thread")
}

#[test]
fn the_largest_packet_that_passes_is_found_and_who_says_so() {
    if let Err(why) = possible() {
        return skip(&why);
    }
    let layout = Layout {
        uplinks: 4,
        place: Place::BehindGateways,
        plan: [Direction::delay(5 * MS), Direction::delay(5 * MS)],
        seed: 11,
    };
    let home = Home::build(&layout).expect("a lab");
    // The first is well; on the second packets vanish upward; the third's router says that they are too big; the
    // fourth loses some of all sizes.
    let narrow = Direction {
        largest_bytes: 1444,
        ..Direction::delay(5 * MS)
    };
    home.links[1].change(Way::Up, narrow);
    home.gateways[2]
        .ip(&["link", "set", "out2", "mtu", "1420"])
        .expect("an MTU");
    for way in Way::BOTH {
        let lossy = Direction {
            loss_ppm: 50_000,
            ..Direction::delay(5 * MS)
        };
        home.links[3].change(way, lossy);
    }
    let over = |host: &str| (0..4).map(|i| search(&home, i, host)).collect::<Vec<_>>();
    let searches = [over("10.99.0.1"), over("fd99::1")];
    let [four, six] = searches.map(|all| {
        let found = all.into_iter().map(|s| s.join().expect("no panic"));
        found.collect::<Vec<Outcome>>()
    });
    for (found, router) in [(four, "10.77.2.254"), (six, "fd77:2::fe")] {
        let router: IpAddr = router.parse().expect("an address");
        let expected = [
            Outcome::Whole { passes: 1500 },
            Outcome::Silent {
                passes: 1444,
                vanishes: 1445,
            },
            Outcome::Told {
                passes: 1420,
                by: Some((router, 1420)),
            },
            Outcome::Whole { passes: 1500 },
        ];
        assert_eq!(found, expected);
    }
    let log = home.links[1].log();
    let large = |p: &&bufferbane_lab::link::Passage| p.fate == Fate::Large;
    assert!(log.iter().filter(large).all(|p| p.bytes > 14 + 1444));
    assert!(log.iter().filter(large).count() > 20);
}
