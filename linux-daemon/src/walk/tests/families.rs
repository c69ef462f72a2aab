//! What is of one family is shown by ways of that one alone.

use super::*;

/// Both hosts beyond the gateway have an address of either family.
fn dual() -> Lab {
    let mut lab = Lab::new();
    for (n, name, address) in [(5, "vienna", "2001:db8::9"), (6, "quad9", "2620:fe::fe")] {
        let six = SeriesInfo {
            family: 6,
            ..info(SeriesKind::Icmp, name, address)
        };
        lab.walks.add(at(0), SeriesIndex(n), &six);
    }
    lab
}

fn of_family(kind: &str, family: u8, target: Option<&str>) -> Event {
    let mut event = event(kind, at(100), None);
    event.values.insert("family".into(), family.into());
    event.target = target.map(str::to_owned);
    event
}

#[test]
fn what_is_of_one_family_has_a_way_of_that_one_walked() {
    for (kind, family, target, address) in [
        ("reflector_lost", 6, Some("vienna"), "2001:db8::9"),
        ("reflector_lost", 4, Some("vienna"), "203.0.113.9"),
        ("family_differs", 6, None, "2620:fe::fe"),
        ("mtu_black_hole", 6, Some("quad9"), "2620:fe::fe"),
    ] {
        let mut lab = dual();
        let event = of_family(kind, family, target);
        lab.walks
            .begins(at(100), EventId(1), &event, Shown::Anybody);
        let urgent = lab.walks.urgent();
        assert_eq!(
            urgent,
            [address.parse::<IpAddr>().unwrap()],
            "{kind} {family}"
        );
    }
}

/// All is looked at over IPv4, which is well, before it is known that IPv6 is not.
#[test]
fn a_look_over_the_other_family_is_no_evidence() {
    let mut lab = dual();
    let all = event("outage", at(100), None);
    let vienna = Shown::Series(SeriesIndex(1));
    lab.walks.begins(at(100), EventId(1), &all, vienna);
    let six = of_family("family_differs", 6, None);
    // While the walk waits, while it is under way, and when it has come back.
    lab.walks.begins(at(100), EventId(2), &six, Shown::Anybody);
    lab.walks.tick(at(100));
    assert_eq!(lab.asked(), Some(("vienna".to_owned(), true)));
    lab.walks.begins(at(101), EventId(3), &six, Shown::Anybody);
    let news = lab.walked(at(102), &[1, 2, 9], true);
    assert_eq!(looks(&news), [(3, vec![1])]);
    let news = lab.walks.begins(at(103), EventId(4), &six, Shown::Anybody);
    assert_eq!(looks(&news), []);
    // One walk over IPv6 is what all of these have.
    lab.walks.tick(at(103));
    let key = lab.walks.lines["eth0"].out.as_ref().map(|a| a.key.2);
    assert_eq!(key, "2620:fe::fe".parse().ok());
    let news = lab.walked(at(104), &[1, 2], false);
    assert_eq!(looks(&news), [(2, vec![2, 3, 4])]);
}
