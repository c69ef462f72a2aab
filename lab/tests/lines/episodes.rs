//! Somebody else's iperf3 through the router that the daemon runs on: each upload and download is told as
//! what it is, and so are delay and loss without any load, and neighbours' upload, which is not the household's;
//! that the line carries the household's traffic is found out, and nothing is said while all is quiet.
//! In two houses, which take less time than one.

use std::time::Duration;

use bufferbane_lab::bench::episodes::house::{self, House};
use bufferbane_lab::bench::episodes::judge::{Cause, Episode, Judgement};
use bufferbane_lab::link::Way;
use bufferbane_lab::services::{KEY_FILE, Services};
use bufferbane_lab::{netns, skip};

/// Until nothing of what was is left: longer than an event takes to end.
fn rest() {
    std::thread::sleep(Duration::from_secs(7));
}

/// What becomes of a house in which nothing happens at first, and then `deeds`.
fn judged(deeds: impl FnOnce(&House, &mut Vec<Episode>)) -> Judgement {
    let house = House::new().expect("a house");
    let (client, server) = (&house.home.client, &house.home.server);
    let text = house::configuration(KEY_FILE);
    let services = Services::start(client, server, house::REFLECTOR.into(), &text);
    let services = services.expect("daemon and reflector");

    let mut episodes = vec![house.pass(Duration::from_secs(15))];
    deeds(&house, &mut episodes);
    let recorded = services.stop().expect("both ran to their ends");

    let carried = house.carried().expect("a whole log");
    let judgement =
        Judgement::of_store(&recorded.store(), &carried, &episodes).expect("a readable store");
    println!("{judgement}");
    assert!(judgement.is_right(), "{judgement}");
    judgement
}

#[test]
fn loads_by_others_are_told_as_what_they_are() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    let judgement = judged(|house, episodes| {
        for (way, streams) in [(Way::Up, 2), (Way::Up, 4), (Way::Down, 6)] {
            episodes.push(house.load(way, 7, streams).expect("iperf3"));
            rest();
        }
        episodes.push(house.congest(6, 4).expect("iperf3"));
        rest();
    });
    for way in Way::BOTH {
        let (estimates, error) = judgement.capacity_error(way);
        assert!(estimates > 0 && error < 50, "{way:?}: {judgement}");
    }
}

#[test]
fn trouble_of_an_idle_line_is_told_as_that() {
    if let Err(why) = netns::possible() {
        return skip(&why);
    }
    judged(|house, episodes| {
        // That the line is idle while it is bad can only be said because the router sees by this that it forwards.
        episodes.push(house.load(Way::Up, 7, 2).expect("iperf3"));
        rest();
        for cause in [Cause::SlowWithoutLoad, Cause::LossWithoutLoad] {
            episodes.push(house.trouble(cause, Duration::from_secs(8)));
            rest();
        }
    });
}
