//! Addresses and default routes that become others: real ones, in a namespace.

use std::process::Command;

use crate::common::links::{Host, plugged, through_up0, total};
use crate::common::{ip, rows};
use bufferbane_core::sample::Status;
use bufferbane_linux_io::clock;
use bufferbane_store::Reader;
use serde_json::Value;

fn tells(status: &Value, words: &str) -> bool {
    let mut all = status["events"].as_array().unwrap().iter();
    all.any(|e| e["text"].as_str().unwrap().contains(words))
}

#[test]
fn a_default_route_that_moves_is_told_with_both_interfaces_and_when_it_did() {
    const TEST: &str = "a_default_route_that_moves_is_told_with_both_interfaces_and_when_it_did";
    let Some(_far) = plugged(module_path!(), TEST) else {
        return;
    };
    let other = Host::new();
    other.plug("up1", "10.8.0.2", "10.8.0.1");
    ip("route add default via 10.9.0.1 metric 100");
    ip("route add default via 10.8.0.1 metric 200");
    let (place, service) = through_up0(&[("peer", "10.9.0.1")]);
    place.status_with("answers", |s| total(s, "peer", "received") > 5);
    let moves = [
        (
            "del default via 10.9.0.1 metric 100",
            "the IPv4 default route leaves by up1 (10.8.0.1), before that by up0 (10.9.0.1)",
        ),
        (
            "add default via 10.9.0.9 metric 100",
            "the IPv4 default route leaves by up0 (10.9.0.9), before that by up1 (10.8.0.1)",
        ),
        (
            "replace default via 10.9.0.1 metric 100",
            "the IPv4 gateway of up0 is 10.9.0.1, before that 10.9.0.9",
        ),
    ];
    let mut when = Vec::new();
    for (change, text) in moves {
        let before = clock::now().as_nanos();
        ip(&format!("route {change}"));
        place.status_with(text, |s| tells(s, text));
        when.push(before..clock::now().as_nanos());
    }
    assert_eq!(service.end().0, Some(0));
    let reader = Reader::open(&place.store()).unwrap();
    let events = reader.events(i64::MIN, i64::MAX).unwrap();
    let mut told = events.iter().filter(|(_, e)| e.kind == "route_change");
    let (_, first) = told.next().unwrap();
    assert!(when[0].contains(&first.start_ns), "{first:?} {when:?}");
    assert_eq!(first.interface, "up1");
    // What comes back to the same interface within the hold-down is one event with the words of each.
    let (_, second) = told.next().unwrap();
    let earlier = second.values["earlier"].to_string();
    assert!(earlier.contains(moves[1].1), "{events:#?}");
    assert_eq!(second.values["gateway_before"], "10.9.0.9");
    assert!(told.next().is_none(), "{events:#?}");
}

#[test]
fn an_address_that_is_gone_for_a_moment_is_told() {
    const TEST: &str = "an_address_that_is_gone_for_a_moment_is_told";
    let Some(_far) = plugged(module_path!(), TEST) else {
        return;
    };
    let (place, service) = through_up0(&[("peer", "10.9.0.1")]);
    place.status_with("answers", |s| total(s, "peer", "received") > 20);
    // Other changes meanwhile, so that nobody looks before it is back.
    let moment = "ip addr del 10.9.0.2/24 dev up0\n\
                  for i in $(seq 9); do sleep 0.01; ip addr add 10.77.0.$i/32 dev lo; done\n\
                  ip addr add 10.9.0.2/24 dev up0";
    let status = Command::new("sh").args(["-c", moment]).status();
    assert!(status.is_ok_and(|s| s.success()));
    // On a busy machine somebody may have looked all the same.
    let looked = "no route to 10.9.0.1 through up0";
    let unseen = "up0 was without its address 10.9.0.2 for";
    place.status_with("the gap", |s| tells(s, unseen) || tells(s, looked));
    assert_eq!(service.end().0, Some(0));
    let reader = Reader::open(&place.store()).unwrap();
    let rows = rows(&reader);
    assert!(rows.iter().any(|r| r.sample.status != Status::Ok));
}
