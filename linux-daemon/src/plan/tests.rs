use super::*;
use bufferbane_core::seal::{KeyId, Secret};
use bufferbane_linux_io::netlink::{Address, InterfaceKind};

use crate::config::Reflector;

pub(crate) fn interface(index: u32, name: &str, ips: &[&str]) -> Interface {
    Interface {
        index,
        name: name.into(),
        kind: InterfaceKind::Wired,
        up: true,
        running: true,
        mtu: 1500,
        addresses: ips
            .iter()
            .map(|ip| Address {
                ip: ip.parse().unwrap(),
                prefix: 24,
                peer: None,
                link_local: ip.starts_with("fe80"),
                usable: true,
            })
            .collect(),
    }
}

pub(crate) fn default_route(interface: u32, gateway: &str, metric: u32) -> Route {
    let gateway = gateway.parse().unwrap();
    Route {
        family: Family::of(&gateway),
        prefix: 0,
        interface,
        gateway: Some(gateway),
        source: None,
        metric,
        table: 254,
    }
}

fn names(config: &Config, host: &Host<'_>) -> Vec<String> {
    with(config, host, &mut Known::default())
}

fn with(config: &Config, host: &Host<'_>, known: &mut Known) -> Vec<String> {
    let wanted = wanted(config, host, known);
    wanted.iter().map(Wanted::name).collect()
}

/// Addresses stand for themselves, and what is found is this. Private addresses are reached by interface
/// 3, all others by 2.
#[derive(Default)]
struct Known(Vec<(Errand, IpAddr)>, bool);

impl Sources for Known {
    fn resolve(&mut self, name: &str, port: u16) -> Vec<SocketAddr> {
        let ip = name.parse().ok();
        ip.map(|ip| SocketAddr::new(ip, port)).into_iter().collect()
    }

    fn find(&mut self, errand: Errand) -> Option<IpAddr> {
        let found = self.0.iter().find(|(e, _)| *e == errand);
        found.map(|(_, ip)| *ip)
    }

    fn leaves_by(&mut self, to: IpAddr) -> Option<u32> {
        let is_private = matches!(to, IpAddr::V4(ip) if ip.is_private());
        Some(if is_private { 3 } else { 2 })
    }

    fn is_probed(&self, _: &str, _: &str, _: SocketAddr) -> bool {
        self.1
    }
}

/// `default dev ppp0`, as pppd makes it.
#[test]
fn where_a_ppp_route_names_no_next_hop_the_peer_is_the_gateway() {
    let gateways = |kind, gateway: Option<&str>, peer: Option<&str>| {
        let mut ppp = interface(2, "ppp0", &["100.64.3.7"]);
        ppp.kind = kind;
        ppp.addresses[0].peer = peer.map(|p| p.parse().unwrap());
        let route = Route {
            gateway: gateway.map(|g| g.parse().unwrap()),
            ..default_route(2, "10.0.0.1", 0)
        };
        let host = Host {
            interfaces: &[ppp],
            default_routes: &[route],
            resolvers: &[],
            left_by: [None; 2],
        };
        let config = crate::config::parse(
            "f.toml",
            "[[interface]]\nname = \"ppp0\"\n\
             [[target]]\nname = \"bras\"\nkind = \"icmp\"\naddress = \"gateway\"\n",
            std::path::Path::new("/"),
        );
        let wanted = wanted(&config.unwrap().config, &host, &mut Known::default());
        let remotes = wanted.iter().map(|w| w.remote.ip().to_string());
        remotes.collect::<Vec<String>>()
    };
    let ppp = InterfaceKind::Ppp;
    assert_eq!(gateways(ppp, None, Some("10.0.0.9")), ["10.0.0.9"]);
    assert_eq!(
        gateways(ppp, Some("10.0.0.1"), Some("10.0.0.9")),
        ["10.0.0.1"]
    );
    assert_eq!(gateways(ppp, None, None), [""; 0]);
    // Of the other family.
    assert_eq!(gateways(ppp, None, Some("fe80::9")), [""; 0]);
    assert_eq!(
        gateways(InterfaceKind::Tunnel, None, Some("10.0.0.9")),
        [""; 0]
    );
}

/// Over IPv6 routers are known by link-local addresses, which are each link's own.
#[test]
fn a_link_local_address_is_meant_on_the_interface_that_is_probed_from() {
    let interfaces = [
        interface(2, "eth0", &["2001:db8::7", "fe80::7"]),
        interface(3, "wlan0", &["2001:db8:1::7", "fe80::7"]),
    ];
    let routes = [
        default_route(2, "fe80::1", 100),
        default_route(3, "fe80::1", 600),
    ];
    let host = Host {
        interfaces: &interfaces,
        default_routes: &routes,
        resolvers: &[],
        left_by: [None; 2],
    };
    let config = crate::config::parse(
        "f.toml",
        "[[interface]]\nname = \"eth0\"\n[[interface]]\nname = \"wlan0\"\n\
         [[target]]\nname = \"router\"\nkind = \"icmp\"\naddress = \"gateway\"\n\
         [[target]]\nname = \"printer\"\nkind = \"icmp\"\naddress = \"fe80::5\"\n\
         [[target]]\nname = \"far\"\nkind = \"icmp\"\naddress = \"2001:db8::9\"\n",
        std::path::Path::new("/"),
    );
    let wanted = wanted(&config.unwrap().config, &host, &mut Known::default());
    let mut remotes: Vec<String> = wanted.iter().map(|w| w.remote.to_string()).collect();
    remotes.sort();
    let expected = [
        "[2001:db8::9]:0",
        "[2001:db8::9]:0",
        "[fe80::1%2]:0",
        "[fe80::1%3]:0",
        "[fe80::5%2]:0",
        "[fe80::5%3]:0",
    ];
    assert_eq!(remotes, expected);
}

/// Nobody would tell of what is not wanted any more.
#[test]
fn what_is_probed_stays_wanted_when_the_interface_loses_the_address() {
    let config = crate::config::parse(
        "f.toml",
        "[[interface]]\nname = \"eth0\"\n\
         [[target]]\nname = \"far\"\nkind = \"icmp\"\naddress = \"192.0.2.9\"\n",
        std::path::Path::new("/"),
    );
    let config = config.unwrap().config;
    let wanted = |own: &[&str], probed: bool| {
        let interfaces = [interface(2, "eth0", own)];
        let host = Host {
            interfaces: &interfaces,
            default_routes: &[],
            resolvers: &[],
            left_by: [None; 2],
        };
        with(&config, &host, &mut Known(Vec::new(), probed)).len()
    };
    for probed in [false, true] {
        assert_eq!(wanted(&["192.0.2.7", "fe80::7"], probed), 1);
        assert_eq!(wanted(&["fe80::7"], probed), 1);
        let six_only = wanted(&["2001:db8::7", "fe80::7"], probed);
        assert_eq!(six_only, usize::from(probed));
    }
}

/// The metric of one family's route says nothing of the other's.
#[test]
fn without_a_configuration_each_family_is_probed_where_its_default_route_leaves() {
    let both = ["192.0.2.7", "2001:db8::7"];
    let interfaces = [interface(2, "eth0", &both), interface(3, "wwan0", &both)];
    let elsewhere = Route {
        table: 77,
        ..default_route(3, "192.0.2.254", 0)
    };
    let routes = |six: u32| {
        [
            default_route(3, "192.0.2.2", 700),
            default_route(2, "192.0.2.1", 600),
            default_route(six, "fe80::1", 50),
            elsewhere,
        ]
    };
    let found = |routes: &[Route]| {
        let host = Host {
            interfaces: &interfaces,
            default_routes: routes,
            resolvers: &[],
            left_by: [None; 2],
        };
        let mut config = Config::default();
        config.reflectors.push(Reflector {
            name: "vienna".into(),
            host: "2001:db8::9".into(),
            port: 9876,
            key: PresharedKey {
                id: KeyId([1; 8]),
                secret: Secret::new([1; 32]),
            }
            .into(),
            family: FamilyChoice::Auto,
            streams: Vec::new(),
            tcp_prefix: None,
        });
        names(&config, &host)
    };
    let at = |interface: &str, places: &[&str]| -> Vec<String> {
        let named = places.iter().map(|p| format!("{interface} {p}"));
        named.collect()
    };
    let four = [
        "cloudflare (1.1.1.1)",
        "gateway (192.0.2.1)",
        "quad9 (9.9.9.9)",
    ];
    let six = [
        "cloudflare-6 (2606:4700:4700::1111)",
        "quad9-6 (2620:fe::fe)",
        "vienna (2001:db8::9)",
    ];
    let apart = [
        at("eth0", &four),
        at("wwan0", &six),
        at("wwan0", &["gateway (fe80::1)"]),
    ];
    let mut apart = apart.concat();
    let mut told = found(&routes(3));
    told.sort();
    apart.sort();
    assert_eq!(told, apart);
    // Where all routes are gone for now, nothing else is wanted than before, but for the gateways.
    let host = Host {
        interfaces: &interfaces,
        default_routes: &[],
        resolvers: &[],
        left_by: [Some("eth0"), Some("wwan0")],
    };
    let names = names(&Config::default(), &host);
    let is_kept = |n: &String| names.contains(n) != n.contains("gateway");
    let all = apart.iter().filter(|n| !n.contains("vienna"));
    assert!(all.clone().all(is_kept), "{names:?}");
    // One that both leave by has all of them.
    let mut together = [at("eth0", &four), at("eth0", &six)].concat();
    let mut told = found(&routes(2));
    told.sort();
    together.sort();
    assert_eq!(told, together);
}

#[test]
fn without_a_configuration_the_default_route_is_probed() {
    let interfaces = [
        interface(2, "eth0", &["192.0.2.7", "fe80::1"]),
        interface(3, "wlan0", &["198.51.100.9"]),
    ];
    let routes = [
        default_route(3, "198.51.100.1", 600),
        default_route(2, "192.0.2.1", 100),
    ];
    let host = Host {
        interfaces: &interfaces,
        default_routes: &routes,
        resolvers: &[],
        left_by: [None; 2],
    };
    let names = names(&Config::default(), &host);
    assert!(
        names.contains(&"eth0 gateway (192.0.2.1)".to_owned()),
        "{names:?}"
    );
    assert!(names.contains(&"eth0 quad9 (9.9.9.9)".to_owned()));
    // A reflector comes beside them, and only its own name is taken.
    let mut config = Config::default();
    config.reflectors.push(Reflector {
        name: "cloudflare".into(),
        host: "203.0.113.5".into(),
        port: 9876,
        key: PresharedKey {
            id: KeyId(*b"planning"),
            secret: Secret::new([1; 32]),
        }
        .into(),
        family: FamilyChoice::Auto,
        streams: Vec::new(),
        tcp_prefix: None,
    });
    let with = self::names(&config, &host);
    let mut wanted = names.clone();
    wanted.retain(|n| !n.contains("cloudflare "));
    wanted.push("eth0 cloudflare (203.0.113.5)".into());
    wanted.sort();
    let mut sorted = with.clone();
    sorted.sort();
    assert_eq!(sorted, wanted);
    config.targets = Some(Vec::new());
    assert_eq!(
        self::names(&config, &host),
        ["eth0 cloudflare (203.0.113.5)"]
    );
    assert!(
        !names
            .iter()
            .any(|n| n.contains("wlan0") || n.contains("2620")),
        "{names:?}"
    );
}

#[test]
fn a_modem_is_probed_only_once_it_has_answered_through_that_interface() {
    let interfaces = [interface(2, "eth0", &["192.0.2.7"])];
    let routes = [default_route(2, "192.0.2.1", 100)];
    let host = Host {
        interfaces: &interfaces,
        default_routes: &routes,
        resolvers: &[],
        left_by: [None; 2],
    };
    let is_modem = |n: &String| n.contains(" modem ");
    let config = Config::default();
    assert!(!names(&config, &host).iter().any(is_modem));
    let answered = |interface: &str| {
        let errand = Errand {
            way: Way::of(&interface.into()),
            sought: Sought::Modem,
        };
        Known(vec![(errand, crate::scout::MODEM)], false)
    };
    let other = with(&config, &host, &mut answered("eth1"));
    assert!(!other.iter().any(is_modem), "{other:?}");
    let names = with(&config, &host, &mut answered("eth0"));
    let modem = "eth0 modem (192.168.100.1)".to_owned();
    assert!(names.contains(&modem), "{names:?}");
}

#[test]
fn the_providers_first_hop_is_what_was_found_in_the_family_that_is_asked_for() {
    let interfaces = [interface(2, "eth0", &["192.0.2.7"])];
    let host = Host {
        interfaces: &interfaces,
        default_routes: &[],
        resolvers: &[],
        left_by: [None; 2],
    };
    let mut known = Known::default();
    for (family, ip) in [(Family::V4, "203.0.113.1"), (Family::V6, "2001:db8::1")] {
        let errand = Errand {
            way: Way::of(&"eth0".into()),
            sought: Sought::FirstHop(family),
        };
        known.0.push((errand, ip.parse().unwrap()));
    }
    let (v4, v6) = ("eth0 isp (203.0.113.1)", "eth0 isp (2001:db8::1)");
    for (family, right) in [
        (FamilyChoice::Auto, &[v4][..]),
        (FamilyChoice::V6, &[v6]),
        (FamilyChoice::Both, &[v4, v6]),
    ] {
        let config = Config {
            interfaces: vec!["eth0".into()],
            targets: Some(vec![Target {
                name: "isp".into(),
                place: Place::Isp,
                family,
                interval_ns: 1,
                size: 64,
                more_sizes: [0; 3],
            }]),
            ..Config::default()
        };
        assert_eq!(with(&config, &host, &mut known), right);
    }
}

#[test]
fn several_interfaces_are_probed_at_once_and_a_gone_one_stays_planned() {
    let interfaces = [interface(2, "eth0", &["192.0.2.7"])];
    let routes = [default_route(2, "192.0.2.1", 100)];
    let host = Host {
        interfaces: &interfaces,
        default_routes: &routes,
        resolvers: &[],
        left_by: [None; 2],
    };
    let config = Config {
        interfaces: vec!["eth0".into(), "ppp0".into()],
        targets: Some(vec![Target {
            name: "t".into(),
            place: Place::Host("203.0.113.5".into()),
            family: FamilyChoice::Auto,
            interval_ns: 1,
            size: 64,
            more_sizes: [0; 3],
        }]),
        ..Config::default()
    };
    assert_eq!(
        names(&config, &host),
        ["eth0 t (203.0.113.5)", "ppp0 t (203.0.113.5)"]
    );
}

#[test]
fn every_resolver_of_the_host_is_a_target_of_its_own() {
    let interfaces = [interface(2, "eth0", &["192.0.2.7"])];
    let resolvers = ["192.0.2.1", "2001:db8::1", "203.0.113.53"].map(|ip| ip.parse().unwrap());
    let host = Host {
        interfaces: &interfaces,
        default_routes: &[default_route(2, "192.0.2.1", 100)],
        resolvers: &resolvers,
        left_by: [None; 2],
    };
    // Of a family that the interface has; a number stays whatever becomes of the others. Over TCP those that have
    // answered so.
    let third = resolvers[2];
    let over_tcp = Errand {
        way: Way::of(&"eth0".into()),
        sought: Sought::DnsOverTcp(SocketAddr::new(third, 53)),
    };
    let mut known = Known(vec![(over_tcp, third)], false);
    let wanted = wanted(&Config::default(), &host, &mut known);
    let asked = wanted.iter().filter_map(|w| match &w.probe {
        Probe::Service(Service::Dns(lookup)) => {
            let seconds = lookup.interval_ns / 1_000_000_000;
            Some((w.name(), lookup.random, lookup.tcp, seconds))
        }
        _ => None,
    });
    let asked: Vec<(String, bool, bool, u64)> = asked.collect();
    let expected = [
        ("eth0 resolver (192.0.2.1)", false, false, 10),
        ("eth0 resolver-3 (203.0.113.53)", false, false, 10),
        ("eth0 resolver-random (192.0.2.1)", true, false, 60),
        ("eth0 resolver-random-3 (203.0.113.53)", true, false, 60),
        ("eth0 resolver-tcp-3 (203.0.113.53)", false, true, 60),
    ];
    assert_eq!(
        asked,
        expected.map(|(name, random, tcp, s)| (name.to_owned(), random, tcp, s))
    );
}

#[test]
fn a_resolver_is_asked_by_the_interface_that_leads_to_it_unless_all_are_asked_for() {
    let interfaces = [
        interface(2, "eth0", &["192.0.2.7"]),
        interface(3, "eth1", &["10.0.0.7"]),
    ];
    let resolvers = ["10.0.0.53", "192.0.2.53"].map(|ip| ip.parse().unwrap());
    let host = Host {
        interfaces: &interfaces,
        default_routes: &[],
        resolvers: &resolvers,
        left_by: [None; 2],
    };
    let mut config = Config {
        interfaces: vec!["eth0".into(), "eth1".into()],
        ..Config::default()
    };
    let of_resolvers = |config: &Config| {
        let mut all = names(config, &host);
        all.retain(|n| n.contains("resolver"));
        all
    };
    let by_route = [
        "eth0 resolver-2 (192.0.2.53)",
        "eth0 resolver-random-2 (192.0.2.53)",
        "eth1 resolver (10.0.0.53)",
        "eth1 resolver-random (10.0.0.53)",
    ];
    assert_eq!(of_resolvers(&config), by_route);
    // Named by hand they are asked through every interface, and nobody else's name is taken.
    let mut named = defaults::services();
    named.truncate(1);
    named[0].place = ServicePlace::System;
    named.push(ServiceTarget {
        name: "resolver-2".into(),
        place: ServicePlace::Host("9.9.9.9".into(), 53),
        ..named[0].clone()
    });
    (config.targets, config.services) = (Some(Vec::new()), named);
    config.interfaces.truncate(1);
    assert_eq!(
        of_resolvers(&config),
        [
            "eth0 resolver (10.0.0.53)",
            "eth0 resolver-2 (9.9.9.9)",
            "eth0 resolver-3 (192.0.2.53)"
        ]
    );
}

#[test]
fn resolvers_are_read_as_the_system_reads_them() {
    let text = "# x\nnameserver 192.0.2.53\nsearch a\n  nameserver ::1\nnameserver nonsense\n";
    assert_eq!(resolvers_of(text).len(), 2);
}

/// A name whose answers take turns, as those of large sites do.
struct Turning {
    answers: Vec<&'static str>,
    probed: Option<SocketAddr>,
}

impl Sources for Turning {
    fn resolve(&mut self, _: &str, port: u16) -> Vec<SocketAddr> {
        self.answers.rotate_left(1);
        let ips = self.answers.iter().map(|a| a.parse().unwrap());
        ips.map(|ip| SocketAddr::new(ip, port)).collect()
    }

    fn find(&mut self, _: Errand) -> Option<IpAddr> {
        None
    }

    fn leaves_by(&mut self, _: IpAddr) -> Option<u32> {
        None
    }

    fn is_probed(&self, interface: &str, target: &str, remote: SocketAddr) -> bool {
        (interface, target) == ("eth0", "a") && self.probed == Some(remote)
    }
}

#[test]
fn a_name_whose_answers_take_turns_stays_one_target_until_its_address_is_gone() {
    let text = "[[interface]]\nname = \"eth0\"\n[[target]]\nname = \"a\"\nkind = \"icmp\"\n\
                address = \"turning.example\"\n";
    let config = crate::config::parse("f", text, std::path::Path::new("/"));
    let config = config.unwrap().config;
    let interfaces = [interface(2, "eth0", &["192.0.2.7"])];
    let host = Host {
        interfaces: &interfaces,
        default_routes: &[],
        resolvers: &[],
        left_by: [None; 2],
    };
    let mut sources = Turning {
        answers: vec!["198.51.100.1", "198.51.100.2", "198.51.100.3"],
        probed: None,
    };
    let next = |sources: &mut Turning| {
        let [w] = &wanted(&config, &host, sources)[..] else {
            panic!()
        };
        sources.probed = Some(w.remote);
        w.remote
    };
    let first = next(&mut sources);
    for _ in 0..5 {
        assert_eq!(next(&mut sources), first);
    }
    sources.answers = vec!["198.51.100.8", "198.51.100.9"];
    let second = next(&mut sources);
    assert_ne!(second, first);
    assert_eq!(next(&mut sources), second);
}

#[test]
fn what_probes_move_is_known_from_their_sizes() {
    let wanted = |remote: &str, probe| Wanted {
        interface: "eth0".into(),
        kind: None,
        target: "x".into(),
        remote: remote.parse().unwrap(),
        source: None,
        mark: None,
        probe,
    };
    let second_ns = 1_000_000_000;
    let ping = |more_sizes| Probe::Icmp {
        size: 64,
        more_sizes,
        interval_ns: second_ns / 10,
    };
    let none = [0; MORE_SIZES];
    let mut mixed = none;
    mixed[0] = 264;
    assert_eq!(
        wanted("192.0.2.1:0", ping(none)).bytes_in(second_ns),
        10 * 2 * 84
    );
    assert_eq!(
        wanted("192.0.2.1:0", ping(mixed)).bytes_in(second_ns),
        10 * 2 * 184
    );
    assert_eq!(
        wanted("[2001:db8::1]:0", ping(none)).bytes_in(second_ns),
        10 * 2 * 104
    );
}
