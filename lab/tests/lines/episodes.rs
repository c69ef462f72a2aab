//! Somebody else's iperf3 through the router that the daemon runs on: each upload and download is told as
//! what it is, and so are delay and loss without any load, and neighbours' upload, which is not the household's;
//! that the line carries the household's traffic is found out, and nothing is said while all is quiet.

use std::time::Duration;

use bufferbane_lab::bench::episodes::house::{self, House};
use bufferbane_lab::bench::episodes::judge::{Cause, Judgement};
use bufferbane_lab::link::Way;
use bufferbane_lab::services::{KEY_FILE, Services};
use bufferbane_lab::{netns, skip};

#[test]
fn loads_by_others_are_told_as_what_they_are() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let house = House::new().expect("a house");
    let (client, server) = (&house.home.client, &house.home.server);
    let text = house::configuration(KEY_FILE);
    let services = Services::start(client, server, house::REFLECTOR.into(), &text);
    let services = services.expect("daemon and reflector");

    // Longer than an event takes to end.
    let rest = || std::thread::sleep(Duration::from_secs(7));
    let mut episodes = vec![house.pass(Duration::from_secs(15))];
    for (way, streams) in [(Way::Up, 2), (Way::Up, 4), (Way::Down, 6)] {
        episodes.push(house.load(way, 7, streams).expect("iperf3"));
        rest();
    }
    for cause in [Cause::SlowWithoutLoad, Cause::LossWithoutLoad] {
        episodes.push(house.trouble(cause, Duration::from_secs(8)));
        rest();
    }
    episodes.push(house.congest(6, 4).expect("iperf3"));
    rest();
    let recorded = services.stop().expect("both ran to their ends");

    let carried = house.carried().expect("a whole log");
    let judgement =
        Judgement::of_store(&recorded.store(), &carried, &episodes).expect("a readable store");
    println!("{judgement}");
    assert!(judgement.is_right(), "{judgement}");
    for way in Way::BOTH {
        let (estimates, error) = judgement.capacity_error(way);
        assert!(estimates > 0 && error < 50, "{way:?}: {judgement}");
    }
    // That the line was idle while it was bad could only be said because the router has seen by itself
    // that it forwards.
}
