//! Interfaces that go and come, and routes that are missing: real ones, in a namespace.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::common::links::{Host, configure, plugged, series, through_up0, total};
use crate::common::{PATIENCE, Place, ip, rows};
use bufferbane_core::sample::Status;
use bufferbane_linux_io::clock;
use bufferbane_store::{Event, EventId, Reader};
use nix::libc;
use serde_json::Value;

/// How often events of a kind tell that it happened.
fn times(events: &[(EventId, Event)], kind: &str) -> u64 {
    let of_kind = events.iter().filter(|(_, e)| e.kind == kind);
    of_kind
        .map(|(_, e)| e.values.get("times").map_or(1, |n| n.as_u64().unwrap()))
        .sum()
}

fn trouble(status: &Value, with: &str) -> bool {
    let mut all = status["troubles"].as_array().unwrap().iter();
    all.any(|t| t.as_str().unwrap().contains(with))
}

#[test]
fn an_interface_that_returns_under_its_name_is_probed_again_within_a_second() {
    const TEST: &str = "an_interface_that_returns_under_its_name_is_probed_again_within_a_second";
    let Some(far) = plugged(module_path!(), TEST) else {
        return;
    };
    let (place, service) = through_up0(&[("peer", "10.9.0.1")]);
    place.status_with("answers", |s| total(s, "peer", "received") > 50);

    let came = || {
        let reader = Reader::open(&place.store()).unwrap();
        let events = reader.events(i64::MIN, i64::MAX).unwrap();
        times(&events, "link_up")
    };
    // (gone, coming, back) of each round, on the daemon's own clock.
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let came_before = came();
        let gone = clock::now().as_nanos();
        ip("link del up0");
        let away = place.status_with("trouble", |s| trouble(s, "there is no interface up0"));
        // What cannot be sent is counted as just that.
        let unsent = total(&away, "peer", "unsent");
        place.status_with("unsent probes", |s| {
            total(s, "peer", "unsent") > unsent + 20
        });
        let answered = total(&place.status(), "peer", "received");
        let coming = clock::now().as_nanos();
        far.plug("up0", "10.9.0.2", "10.9.0.1");
        rounds.push((gone, coming, clock::now().as_nanos()));
        place.status_with("answers", |s| total(s, "peer", "received") > answered + 20);
        // The kernel says so up to a second after packets pass.
        place.status_with("link_up", |_| came() > came_before);
    }
    assert_eq!(service.end().0, Some(0));

    let reader = Reader::open(&place.store()).unwrap();
    let found = rows(&reader);
    let mut fastest = u64::MAX;
    for (gone, coming, back) in rounds {
        let away: Vec<_> = found
            .iter()
            .filter(|r| (gone + 500_000_000..coming).contains(&r.sample.sent.as_nanos()))
            .collect();
        assert!(away.len() > 10, "{}", away.len());
        let sent = away.iter().find(|r| r.sample.status != Status::Unsent);
        assert!(
            sent.is_none(),
            "an interface that is gone is not a loss: {sent:?}"
        );
        let errno = away[away.len() - 1].sample.errno;
        assert_eq!(i32::from(errno), libc::ENODEV);
        let first = found
            .iter()
            .map(|r| &r.sample)
            .find(|s| s.sent.as_nanos() > back && s.status == Status::Ok);
        fastest = fastest.min(first.unwrap().sent.as_nanos() - back);
    }
    println!("answered again after {} ms at best", fastest / 1_000_000);
    // At best of three: a busy machine may keep it waiting.
    assert!(fastest < 1_000_000_000, "{fastest} ns");
    let events = reader.events(i64::MIN, i64::MAX).unwrap();
    for kind in ["link_down", "link_up"] {
        assert!(times(&events, kind) >= 3, "{kind}: {events:#?}");
        // What is back within the hold-down is one event.
        let of_kind = events.iter().filter(|(_, e)| e.kind == kind);
        assert_eq!(of_kind.count(), 1, "{kind}: {events:#?}");
    }
}

#[test]
fn the_gateway_is_the_next_hop_of_the_moment() {
    const TEST: &str = "the_gateway_is_the_next_hop_of_the_moment";
    let Some(far) = plugged(module_path!(), TEST) else {
        return;
    };
    far.ip("addr add 10.9.0.3/24 dev far");
    ip("route add default via 10.9.0.1");
    let (place, service) = through_up0(&[("router", "gateway")]);
    let addresses = |s: &Value| {
        let series = s["series"].as_array().unwrap().iter();
        let routers = series.filter(|s| s["target"] == "router");
        let address = |s: &Value| s["address"].as_str().unwrap().to_owned();
        routers.map(address).collect::<Vec<String>>()
    };
    let is =
        |s: &Value, address: &str| addresses(s) == [address] && total(s, "router", "received") > 20;
    place.status_with("the first", |s| is(s, "10.9.0.1"));
    // Another router, as DHCP would tell; then none at all.
    let begin = Instant::now();
    ip("route replace default via 10.9.0.3");
    place.status_with("the other", |s| is(s, "10.9.0.3"));
    println!("another after {} ms", begin.elapsed().as_millis());
    // Netlink tells of it, long before the next round of names and addresses.
    assert!(begin.elapsed() < Duration::from_secs(5));
    ip("route del default via 10.9.0.3");
    place.status_with("none", |s| addresses(s).is_empty());
    ip("route add default via 10.9.0.1");
    place.status_with("the first again", |s| is(s, "10.9.0.1"));
    assert_eq!(service.end().0, Some(0));
    let reader = Reader::open(&place.store()).unwrap();
    let lost = rows(&reader)
        .iter()
        .filter(|r| r.sample.status == Status::Lost)
        .count();
    assert_eq!(lost, 0, "each was asked only while it was the gateway");
}

#[test]
fn a_modem_becomes_a_series_once_it_answers_and_never_a_loss_before() {
    const TEST: &str = "a_modem_becomes_a_series_once_it_answers_and_never_a_loss_before";
    let Some(far) = plugged(module_path!(), TEST) else {
        return;
    };
    ip("route add default via 10.9.0.1");
    let (place, service) = through_up0(&[]);
    place.status_with("answers", |s| total(s, "gateway", "received") > 1);
    // Long enough for all of its echoes; nobody is told of what nobody asked for.
    std::thread::sleep(Duration::from_secs(4));
    let status = place.status();
    assert!(
        series(&status, "modem").is_none() && !trouble(&status, "modem"),
        "{status:#}"
    );
    // It answers by now, and a changed route is a reason to look again.
    far.ip("addr add 192.168.100.1/32 dev far");
    ip("route replace default via 10.9.0.1 metric 7");
    place.status_with("answers", |s| total(s, "modem", "received") > 1);
    assert_eq!(total(&place.status(), "modem", "lost"), 0);
    // Having been there it stays, and its silence counts.
    far.ip("addr del 192.168.100.1/32 dev far");
    place.status_with("loss", |s| total(s, "modem", "lost") > 0);
    assert_eq!(service.end().0, Some(0));
}

#[test]
fn a_modems_address_in_the_household_is_not_asked_through_the_uplink() {
    const TEST: &str = "a_modems_address_in_the_household_is_not_asked_through_the_uplink";
    let Some(far) = plugged(module_path!(), TEST) else {
        return;
    };
    let house = Host::new();
    house.plug("lan0", "192.168.100.2", "192.168.100.7");
    ip("route add default via 10.9.0.1");
    // Whoever has that address out there is somebody else.
    far.ip("addr add 192.168.100.1/32 dev far");
    let (place, service) = through_up0(&[]);
    place.status_with("answers", |s| total(s, "gateway", "received") > 2);
    assert_eq!(total(&place.status(), "modem", "sent"), 0);
    assert_eq!(service.end().0, Some(0));
}

#[test]
fn the_providers_first_hop_is_found_and_replaced_when_it_changes() {
    const TEST: &str = "the_providers_first_hop_is_found_and_replaced_when_it_changes";
    let Some(home) = plugged(module_path!(), TEST) else {
        return;
    };
    let isp = Host::new();
    ip("route add default via 10.9.0.1");
    home.provider(&isp);
    home.ip("addr add 203.0.113.2/24 dev out");
    isp.ip("addr add 203.0.113.1/24 dev in");
    isp.ip("route add 10.9.0.0/24 via 203.0.113.2");
    isp.ip("route add default dev world");
    home.ip("route add default via 203.0.113.1");
    // As long as the far host is in the house, there is no provider on the way to it.
    home.ip("addr add 9.9.9.9/32 dev far");
    let (place, service) = through_up0(&[("first", "isp")]);
    place.status_with("trouble", |s| {
        trouble(s, "the provider's first hop through up0")
    });
    assert!(place.status()["series"].as_array().unwrap().is_empty());

    home.ip("addr del 9.9.9.9/32 dev far");
    ip("route replace default via 10.9.0.1 metric 7");
    let address = |s: &Value| series(s, "first").map(|s| s["address"].as_str().unwrap().to_owned());
    let status = place.status_with("answers", |s| total(s, "first", "received") > 20);
    assert_eq!(address(&status).as_deref(), Some("203.0.113.1"));
    assert_eq!(
        status["troubles"].as_array().unwrap().len(),
        0,
        "{status:#}"
    );

    // The provider moves, and the host gets another route with it.
    isp.ip("addr del 203.0.113.1/24 dev in");
    isp.ip("addr add 203.0.113.99/24 dev in");
    isp.ip("route replace 10.9.0.0/24 via 203.0.113.2");
    isp.ip("route replace default dev world");
    home.ip("route replace default via 203.0.113.99");
    ip("route replace default via 10.9.0.1 metric 8");
    place.status_with("the other", |s| {
        address(s).as_deref() == Some("203.0.113.99") && total(s, "first", "received") > 20
    });

    // No hop of a provider on a way that is whole: while who it was answers, that one says nothing of what passes.
    let none = "none of them from a public address";
    home.ip("addr add 9.9.9.9/32 dev far");
    ip("route replace default via 10.9.0.1 metric 9");
    std::thread::sleep(Duration::from_secs(1));
    let status = place.status();
    assert_eq!(address(&status).as_deref(), Some("203.0.113.99"));
    assert!(!trouble(&status, none), "{status:#}");
    // Once it does not, either, it is given up.
    isp.run("echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all");
    ip("route replace default via 10.9.0.1 metric 10");
    place.status_with("none", |s| address(s).is_none() && trouble(s, none));
    home.ip("addr del 9.9.9.9/32 dev far");
    isp.run("echo 0 > /proc/sys/net/ipv4/icmp_echo_ignore_all");
    ip("route replace default via 10.9.0.1 metric 11");
    place.status_with("the other again", |s| {
        address(s).as_deref() == Some("203.0.113.99") && total(s, "first", "received") > 20
    });

    // Its silence alone does not make forget it: the search takes three seconds then.
    isp.run("echo 1 > /proc/sys/net/ipv4/icmp_echo_ignore_all");
    ip("route replace default via 10.9.0.1 metric 12");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(address(&place.status()).as_deref(), Some("203.0.113.99"));
    // Another one that answers no ping: who it was is it no more, and nobody is probed in its place.
    isp.ip("addr del 203.0.113.99/24 dev in");
    isp.ip("addr add 203.0.113.98/24 dev in");
    isp.ip("route replace 10.9.0.0/24 via 203.0.113.2");
    isp.ip("route replace default dev world");
    home.ip("route replace default via 203.0.113.98");
    ip("route replace default via 10.9.0.1 metric 13");
    place.status_with("nobody", |s| {
        address(s).is_none() && trouble(s, "203.0.113.98, which answers no ping")
    });
    assert_eq!(service.end().0, Some(0));
}

#[test]
fn over_ipv6_the_gateway_is_found_at_its_link_local_address_and_the_providers_first_hop_beyond() {
    const TEST: &str = "over_ipv6_the_gateway_is_found_at_its_link_local_address_and_the_providers_first_hop_beyond";
    let Some(home) = plugged(module_path!(), TEST) else {
        return;
    };
    let isp = Host::new();
    ip("addr add 2001:db8:9::2/64 dev up0 nodad");
    home.ip("addr add 2001:db8:9::1/64 dev far nodad");
    home.ip("addr add fe80::9/64 dev far nodad");
    // As routers announce themselves.
    ip("-6 route add default via fe80::9 dev up0");
    home.provider(&isp);
    home.ip("addr add 2001:db8:f::2/64 dev out nodad");
    isp.ip("addr add 2001:db8:f::1/64 dev in nodad");
    isp.ip("-6 route add 2001:db8:9::/64 via 2001:db8:f::2");
    isp.ip("-6 route add default dev world");
    home.ip("-6 route add default via 2001:db8:f::1");
    let configure = |place: &Place| {
        let mut text = place.head().replace("name = \"lo\"\n", "name = \"up0\"\n");
        text += "[[target]]\nname = \"first\"\nkind = \"icmp\"\naddress = \"isp\"\nfamily = \"6\"\n\
                 interval = \"10ms\"\n\
                 [[target]]\nname = \"router\"\nkind = \"icmp\"\naddress = \"gateway\"\n\
                 interval = \"10ms\"\nfamily = \"6\"\n";
        place.configure(&text);
    };
    let place = Place::new();
    configure(&place);
    let service = place.start().ready();
    let status = place.status_with("answers", |s| {
        ["first", "router"]
            .iter()
            .all(|target| total(s, target, "received") > 20)
    });
    let router = series(&status, "router").unwrap();
    assert_eq!(router["address"], "fe80::9", "{status:#}");
    let first = series(&status, "first").unwrap();
    // The household's own router has a public address, too, and is not the provider's.
    assert_eq!(first["address"], "2001:db8:f::1", "{status:#}");
    assert_eq!(first["family"], 6);
    assert_eq!(service.end().0, Some(0));

    // On the home's router itself, whose link to the provider has public addresses only, it is the next hop.
    ip("addr del 10.9.0.2/24 dev up0");
    std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    let place = Place::new();
    configure(&place);
    let service = place.start().ready();
    let status = place.status_with("answers", |s| total(s, "first", "received") > 5);
    let first = series(&status, "first").unwrap();
    assert_eq!(first["address"], "2001:db8:9::1", "{status:#}");
    assert_eq!(service.end().0, Some(0));
}

#[test]
fn a_missing_route_is_named_and_never_counted_as_loss() {
    const TEST: &str = "a_missing_route_is_named_and_never_counted_as_loss";
    let Some(far) = plugged(module_path!(), TEST) else {
        return;
    };
    far.ip("addr add 203.0.113.7/32 dev far");
    let (place, service) = through_up0(&[("peer", "10.9.0.1"), ("beyond", "203.0.113.7")]);
    let no_route = "no route to 203.0.113.7 through up0";
    let status = place.status_with("trouble and answers", |s| {
        trouble(s, no_route)
            && total(s, "peer", "received") > 20
            && total(s, "beyond", "unsent") > 20
    });
    // The address is there, and would answer whoever took it for being on the link.
    assert_eq!(total(&status, "beyond", "lost"), 0);
    assert_eq!(total(&status, "beyond", "received"), 0);
    ip("route add 203.0.113.0/24 via 10.9.0.1");
    place.status_with("answers", |s| {
        !trouble(s, no_route) && total(s, "beyond", "received") > 20
    });
    // And when it goes again, it is named again.
    ip("route del 203.0.113.0/24");
    place.status_with("trouble", |s| trouble(s, no_route));
    assert_eq!(service.end().0, Some(0));
    let reader = Reader::open(&place.store()).unwrap();
    let errnos = rows(&reader)
        .iter()
        .filter(|r| r.sample.status == Status::Unsent)
        .map(|r| i32::from(r.sample.errno))
        .collect::<std::collections::BTreeSet<_>>();
    assert!(errnos.contains(&libc::ENETUNREACH), "{errnos:?}");
    let events = reader.events(i64::MIN, i64::MAX).unwrap();
    let named = events
        .iter()
        .filter(|(_, e)| e.kind == "not_probed" && e.text.contains(no_route));
    // Both times, in one event: it was back within the hold-down.
    let times = named.map(|(_, e)| e.values.get("times").map_or(1, |n| n.as_u64().unwrap_or(0)));
    assert_eq!(times.collect::<Vec<_>>(), [2], "{events:#?}");
}

/// Of a wish for a test over UDP.
const UDP: &str = ",\"udp\":{\"up_bps\":1000000,\"down_bps\":0}";

/// A reflector on that host, and trains to it.
fn with_reflector(place: &mut Place, host: &Host, address: &str) {
    place.move_reflector(host.0.id(), format!("{address}:9876").parse().unwrap());
    let mut text = std::fs::read_to_string(place.file()).unwrap();
    text += &format!(
        "[[reflector]]\nname = \"far\"\naddress = \"{}\"\nkey_file = \"far.key\"\n\
         interval = \"20ms\"\n[throughput]\nevery = \"never\"\ncongestion = \"reno\"\n\
         train_budget = \"5%\"\n",
        place.address
    );
    place.configure(&text);
}

/// Trains that have arrived at the reflector.
fn trains(place: &mut Place) -> u64 {
    let status = place.reflector.as_mut().unwrap().status().unwrap();
    status["trains"]["received"].as_u64().unwrap()
}

/// What comes of a test, which is to succeed.
fn test(place: &Place, wish: &str) -> Value {
    let mut stream = UnixStream::connect(place.path("control")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{wish}").unwrap();
    let mut news = BufReader::new(stream).lines().map(|line| {
        let said: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(said["ok"], true, "{said}");
        said["test"].clone()
    });
    news.find(Value::is_object).unwrap()
}

#[test]
fn a_route_is_looked_up_for_exactly_the_source_and_mark_that_are_configured() {
    const TEST: &str = "a_route_is_looked_up_for_exactly_the_source_and_mark_that_are_configured";
    let Some(far) = plugged(module_path!(), TEST) else {
        return;
    };
    far.ip("addr add 203.0.113.7/32 dev far");
    far.ip("addr add 203.0.113.8/32 dev far");
    ip("addr add 10.9.0.3/24 dev up0");
    // Only marked packets find the one, only those from the second address the other.
    ip("route add 203.0.113.7 via 10.9.0.1 table 77");
    ip("rule add fwmark 7 table 77");
    ip("route add 203.0.113.8 via 10.9.0.1 table 78");
    ip("rule add from 10.9.0.3 table 78");
    // What is bound to the interface is taken for being on the link where no route is found: nobody is there.
    for address in ["203.0.113.7", "203.0.113.8"] {
        ip(&format!(
            "neigh add {address} lladdr 02:00:00:00:00:99 dev up0"
        ));
    }
    for (more, reached, not_reached, rates) in [
        ("fwmark = 7\nkind = \"cellular\"\n", "marked", "from", ""),
        ("source = \"10.9.0.3\"\n", "from", "marked", UDP),
    ] {
        let mut place = Place::new();
        let targets = [("marked", "203.0.113.7"), ("from", "203.0.113.8")];
        let interface = format!("name = \"up0\"\nmonthly_budget = \"800GiB\"\n{more}");
        configure(&place, &interface, &targets);
        let address = targets.iter().find(|(name, _)| *name == reached).unwrap().1;
        with_reflector(&mut place, &far, address);
        let service = place.start().ready();
        let status = place.status_with("answers", |s| {
            total(s, reached, "received") > 20 && total(s, not_reached, "unsent") > 20
        });
        assert_eq!(total(&status, not_reached, "received"), 0);
        assert_eq!(total(&status, not_reached, "lost"), 0);
        // So it is for all that is sent, and not for probes only.
        place.status_with("session", |s| total(s, "far", "received") > 5);
        let begin = Instant::now();
        while trains(&mut place) == 0 {
            assert!(begin.elapsed() < PATIENCE, "no train arrives");
            std::thread::sleep(Duration::from_millis(20));
        }
        let wish = format!("{{\"cmd\":\"test\",\"direction\":\"up\",\"seconds\":2{rates}}}");
        let test = test(&place, &wish);
        assert!(test["ways"][0]["bytes"].as_u64() > Some(0), "{test:#}");
        assert_eq!(service.end().0, Some(0));
        let reader = Reader::open(&place.store()).unwrap();
        let series = reader.series().unwrap();
        let kind = if more.contains("cellular") {
            "cellular"
        } else {
            "wired"
        };
        assert!(
            series.values().all(|s| s.interface_kind == kind),
            "{series:?}"
        );
    }
    // An address that this host does not have is named.
    let place = Place::new();
    let elsewhere = "name = \"up0\"\nsource = \"10.9.0.77\"\n";
    configure(&place, elsewhere, &[("peer", "10.9.0.1")]);
    let service = place.start().ready();
    place.status_with("trouble", |s| {
        trouble(s, "its source 10.9.0.77 is no address of this host")
    });
    assert_eq!(service.end().0, Some(0));
}
