//! Interfaces that come and go, routes that are missing: in a network namespace of its own.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{engine, inside_namespace, skipped, wait_for};
use bufferbane_linux_io::netlink::{Change, InterfaceKind, Netlink, RouteQuery, Watch};
use bufferbane_linux_io::support::Features;
use bufferbane_linux_io::{Event, Family, ProbeSocket};

fn ip(arguments: &str) {
    assert!(try_ip(arguments), "ip {arguments}");
}

fn try_ip(arguments: &str) -> bool {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    status.unwrap().success()
}

fn have_ip() -> bool {
    let have = Command::new("ip").arg("-V").output().is_ok();
    if !have {
        skipped("no ip command (iproute2)");
    }
    have
}

fn next_matching(watch: &mut Watch, mut wanted: impl FnMut(&Change) -> bool) {
    let begun = Instant::now();
    let mut seen = Vec::new();
    while begun.elapsed() < Duration::from_secs(3) {
        if let Some(change) = watch.next(Duration::from_millis(100)).unwrap() {
            if wanted(&change) {
                return;
            }
            seen.push(change);
        }
    }
    panic!("did not come; instead {seen:?}");
}

#[test]
fn interfaces_and_routes_are_seen_as_they_change() {
    if !inside_namespace(
        module_path!(),
        "interfaces_and_routes_are_seen_as_they_change",
    ) || !have_ip()
    {
        return;
    }
    let mut watch = Watch::open().unwrap();
    let mut n = Netlink::open().unwrap();
    ip("link set lo up");
    ip("link add up0 type veth peer name far0");
    next_matching(
        &mut watch,
        |c| matches!(c, Change::Link { name, .. } if name == "up0"),
    );
    ip("addr add 10.9.0.2/24 dev up0");
    ip("addr add 2001:db8:9::2/64 dev up0 nodad");
    ip("link set up0 up");
    ip("link set far0 up");
    next_matching(
        &mut watch,
        |c| matches!(c, Change::Link { name, up: true, running: true, .. } if name == "up0"),
    );
    next_matching(
        &mut watch,
        |c| matches!(c, Change::Address { address, .. } if address.ip.is_ipv6()),
    );
    let up0 = n.interface("up0").unwrap().unwrap();
    println!("{up0:?}");
    assert_eq!(
        (up0.kind, up0.up, up0.running, up0.mtu),
        (InterfaceKind::Wired, true, true, 1500)
    );
    assert!(up0.addresses.iter().any(|a| a.prefix == 24 && a.usable));

    // No default route yet: the link exists, the route does not.
    let far: IpAddr = "198.51.100.7".parse().unwrap();
    let by_link = RouteQuery {
        interface: Some(up0.index),
        ..RouteQuery::to(far)
    };
    assert_eq!(n.route_for(&by_link).unwrap(), None);
    assert!(n.default_routes().unwrap().is_empty());
    ip("route add default via 10.9.0.1 dev up0 metric 50");
    ip("-6 route add default via 2001:db8:9::1 dev up0");
    next_matching(
        &mut watch,
        |c| matches!(c, Change::Route(r) if r.prefix == 0),
    );
    let route = n.route_for(&by_link).unwrap().unwrap();
    println!("{route:?}");
    assert_eq!(
        (route.interface, route.prefix, route.metric),
        (up0.index, 0, 50)
    );
    assert_eq!(route.gateway, Some("10.9.0.1".parse().unwrap()));
    assert_eq!(route.source, Some("10.9.0.2".parse().unwrap()));
    let defaults = n.default_routes().unwrap();
    assert_eq!(defaults.len(), 2, "{defaults:?}");
    let six = RouteQuery {
        interface: Some(up0.index),
        ..RouteQuery::to("2001:db8:77::1".parse().unwrap())
    };
    let route = n.route_for(&six).unwrap().unwrap();
    assert_eq!(route.gateway, Some("2001:db8:9::1".parse().unwrap()));

    // Another link without a route of its own, and one that only a mark leads to.
    ip("link add other0 type veth peer name other1");
    ip("addr add 10.8.0.2/24 dev other0");
    ip("link set other0 up");
    ip("link set other1 up");
    let other = n.interface("other0").unwrap().unwrap().index;
    let by_other = RouteQuery {
        interface: Some(other),
        ..RouteQuery::to(far)
    };
    assert_eq!(n.route_for(&by_other).unwrap(), None);
    ip("route add default via 10.8.0.1 dev other0 table 77");
    ip("rule add fwmark 7 table 77");
    let marked = RouteQuery {
        mark: Some(7),
        ..by_other
    };
    assert_eq!(
        n.route_for(&marked)
            .unwrap()
            .map(|r| (r.interface, r.table)),
        Some((other, 77))
    );
    let from = RouteQuery {
        from: Some("10.9.0.2".parse().unwrap()),
        ..RouteQuery::to(far)
    };
    assert_eq!(
        n.route_for(&from).unwrap().map(|r| r.interface),
        Some(up0.index)
    );
    ip("route add unreachable 203.0.113.0/24");
    assert_eq!(
        n.route_for(&RouteQuery::to("203.0.113.5".parse().unwrap()))
            .unwrap(),
        None
    );

    if try_ip("tuntap add tun9 mode tun") {
        assert_eq!(
            n.interface("tun9").unwrap().unwrap().kind,
            InterfaceKind::Tunnel
        );
    } else {
        skipped("no tun device");
    }

    ip("link del up0");
    next_matching(
        &mut watch,
        |c| matches!(c, Change::LinkGone { name, .. } if name == "up0"),
    );
    assert_eq!(
        n.counters(up0.index).unwrap_err().raw_os_error(),
        Some(libc::ENODEV)
    );
}

#[test]
fn an_interface_that_returns_is_probed_again() {
    if !inside_namespace(module_path!(), "an_interface_that_returns_is_probed_again") || !have_ip()
    {
        return;
    }
    ip("link set lo up");
    let mut e = engine(Features::ALL);
    let to: SocketAddr = "10.9.0.9:9".parse().unwrap();
    let mut indexes = Vec::new();
    for key in 0..2u32 {
        ip("link add up0 type veth peer name far0");
        ip("addr add 10.9.0.2/24 dev up0");
        ip("link set up0 up");
        ip("link set far0 up");
        ip("neigh add 10.9.0.9 lladdr 02:00:00:00:00:09 dev up0 nud permanent");
        let mut n = Netlink::open().unwrap();
        // The kernel lets packets through some time after the far end came up.
        let begin = Instant::now();
        let index = loop {
            let up0 = n.interface("up0").unwrap().unwrap();
            if up0.running {
                break up0.index;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "{up0:?}");
            std::thread::sleep(Duration::from_millis(5));
        };
        indexes.push(index);
        let socket = ProbeSocket::udp(Family::V4)
            .interface("up0")
            .build()
            .unwrap();
        let id = e.add_socket(socket).unwrap();
        let before = n.counters(index).unwrap().tx_packets;
        e.send(id, to, b"probe", key).unwrap();
        e.outbox().flush().unwrap();
        assert_eq!(
            n.counters(index).unwrap().tx_packets,
            before + 1,
            "it left by up0"
        );
        ip("link del up0");
        // Its interface is gone: sends fail with an errno instead of leaving elsewhere.
        e.send(id, to, b"probe", 100 + key).unwrap();
        assert!(wait_for(&mut e, 1000, |_, event| match event {
            Event::Sent {
                key: k,
                errno: Some(errno),
                ..
            } => {
                println!("after the interface went: errno {errno}");
                assert_eq!(k, 100 + key);
                true
            }
            _ => false,
        }));
        e.remove_socket(id).unwrap();
    }
    assert_ne!(indexes[0], indexes[1]);
}

#[test]
fn datagrams_that_a_filter_refuses_do_not_shift_the_stamps() {
    let name = "datagrams_that_a_filter_refuses_do_not_shift_the_stamps";
    if !inside_namespace(module_path!(), name) || !have_ip() {
        return;
    }
    ip("link set lo up");
    let rules = "add table ip t
        add chain ip t o { type filter hook output priority 0; }
        add rule ip t o udp dport 9 drop";
    let set = Command::new("nft").arg(rules).status();
    if !set.is_ok_and(|s| s.success()) {
        return skipped("no nft command (nftables)");
    }
    crate::common::warm_up();
    for features in crate::common::all_features() {
        let mut e = engine(features);
        let (id, at) = crate::common::add_local(&mut e, ProbeSocket::udp(Family::V4), Family::V4);
        let filtered = SocketAddr::new(at.ip(), 9);
        // In bursts, where a shift by one would go unnoticed by anything but the keys.
        for first in (0..200u32).step_by(10) {
            for key in first..first + 10 {
                let to = if key % 3 == 0 { filtered } else { at };
                e.send(id, to, b"x", key).unwrap();
            }
            let (mut refused, mut stamped) = (Vec::new(), Vec::new());
            assert!(wait_for(&mut e, 1000, |_, event| {
                match event {
                    Event::Sent { key, errno, .. } => {
                        assert_eq!(errno, Some(libc::EPERM));
                        refused.push(key);
                    }
                    Event::TxStamp { key, .. } => stamped.push(key),
                    _ => {}
                }
                refused.len() + stamped.len() == 10
            }));
            assert!(
                refused
                    .into_iter()
                    .eq((first..first + 10).filter(|k| k % 3 == 0))
            );
            let good = (first..first + 10).filter(|k| k % 3 != 0);
            assert!(stamped.iter().copied().eq(good), "{features:?} {stamped:?}");
        }
    }
}

#[test]
fn a_ping_socket_that_is_not_allowed_says_what_to_change() {
    if !inside_namespace(
        module_path!(),
        "a_ping_socket_that_is_not_allowed_says_what_to_change",
    ) {
        return;
    }
    // A new namespace allows nobody.
    let refused = ProbeSocket::ping(Family::V4)
        .build()
        .unwrap_err()
        .to_string();
    println!("{refused}");
    assert!(refused.contains("ping_group_range"));
}
