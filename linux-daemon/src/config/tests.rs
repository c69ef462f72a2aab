use super::*;

fn mistakes(text: &str) -> Vec<String> {
    parse("f.toml", text, Path::new("/nowhere"))
        .map(|l| assert!(l.warnings.is_empty()))
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(
        parse("f", "", Path::new("/")).unwrap().config,
        Config::default()
    );
}

#[test]
fn the_probe_threads_scheduling_is_read_and_bounded() {
    let text = "[daemon]\nrealtime_priority = 20\ncpu = 1\nwake_early = \"150us\"\n";
    let pacing = parse("f", text, Path::new("/")).unwrap().config.pacing;
    assert_eq!(
        (pacing.priority, pacing.cpu, pacing.wake_early_ns),
        (20, Some(1), 150_000)
    );
    for (text, early_ns) in [
        ("", 0),
        ("[daemon]\nrealtime_priority = 20\n", 150_000),
        (
            "[daemon]\nrealtime_priority = 20\nwake_early = \"0us\"\n",
            0,
        ),
    ] {
        let pacing = parse("f", text, Path::new("/")).unwrap().config.pacing;
        assert_eq!(pacing.wake_early_ns, early_ns, "{text}");
    }
    let said = mistakes("[daemon]\nrealtime_priority = 99\nwake_early = \"1s\"\n");
    assert!(said[0].contains("0 to 50 is allowed"), "{said:?}");
    assert!(said[1].contains("0s to 2ms is allowed"), "{said:?}");
}

#[test]
fn close_looks_can_be_switched_off() {
    let read = |text| parse("f", text, Path::new("/")).unwrap().config;
    assert!(read("").close_looks);
    assert!(!read("[daemon]\nclose_looks = false\n").close_looks);
    let said = mistakes("[daemon]\nclose_looks = \"no\"\n");
    assert!(said[0].contains("true or false"), "{said:?}");
}

/// A link that is metered has what it is given.
#[test]
fn a_months_bytes_are_the_uplinks_own_or_those_of_all_that_are_not_cellular() {
    let text = "[[interface]]\nname = \"wwan0\"\nmonthly_budget = \"2GiB\"\n[[interface]]\nname = \"wan\"\n\
                [throughput]\nmonthly_budget = \"9GiB\"\n";
    let config = parse("f", text, Path::new("/")).unwrap().config;
    let month = |name, is_cellular| config.month_bytes(name, is_cellular).map(|b| b >> 30);
    assert_eq!(
        (month("wwan0", true), month("wan", false)),
        (Some(2), Some(9))
    );
    assert_eq!((month("lte1", true), month("eth7", false)), (None, Some(9)));
}

#[test]
fn everything_wrong_is_said_with_its_place() {
    let said = mistakes(
        "[daemon]\ncommit_intervall = \"60s\"\n[[target]]\nname = \"a\"\nkind = \"icmp\"\n\
         address = \"9.9.9.900\"\ninterval = \"0s\"\n[[target]]\nname = \"a\"\nkind = \"snmp\"\n\
         address = \"9.9.9.9\"\n[[reflector]]\nname = \"v\"\naddress = \"h:0\"\n\
         key_file = \"missing.key\"\nsize = 5\n",
    );
    for (line, what) in [
        (
            "f.toml:2:1: daemon.commit_intervall",
            "did you mean \"commit_interval\"?",
        ),
        ("f.toml:6:1: target.address", "not four numbers"),
        ("f.toml:7:1: target.interval", "1ms to 1h is allowed"),
        ("f.toml:9:1: target.name", "twice"),
        (
            "f.toml:10:1: target.kind",
            "icmp, dns, tcp, http and stamp are supported",
        ),
        ("f.toml:14:1: reflector.address", "not a port"),
        ("f.toml:15:1: reflector.key_file", "bbtool keygen"),
        ("f.toml:16:1: reflector.size", "128 to 1452"),
    ] {
        assert!(
            said.iter().any(|s| s.starts_with(line) && s.contains(what)),
            "{what}: {said:#?}"
        );
    }
}

#[test]
fn only_a_file_that_speaks_of_targets_takes_the_default_ones_away() {
    let read = |text: &str| {
        let loaded = parse("f", text, Path::new("/"));
        loaded.unwrap().config.targets.map(|t| t.len())
    };
    assert_eq!(read("[[interface]]\nname = \"eth0\"\n"), None);
    assert_eq!(read("target = []\n[http]\nlisten = \"\"\n"), Some(0));
    let one = "[[target]]\nname = \"a\"\nkind = \"icmp\"\naddress = \"gateway\"\n";
    assert_eq!(read(one), Some(1));
    let said = mistakes("target = \"none\"\n");
    assert_eq!(
        said,
        ["f.toml:1:1: target: is a text, but must be a list of tables: [[target]], or [] for none"]
    );
}

#[test]
fn sizes_may_be_mixed_and_are_bounded() {
    let text = |more: &str| {
        format!("[[target]]\nname = \"a\"\nkind = \"icmp\"\naddress = \"192.0.2.1\"\n{more}\n")
    };
    let read = |more: &str| {
        let targets = parse("f", &text(more), Path::new("/")).unwrap();
        let target = targets.config.targets.unwrap().remove(0);
        (target.size, target.more_sizes)
    };
    assert_eq!(read(""), (64, [0; 3]));
    assert_eq!(read("size = 100"), (100, [0; 3]));
    assert_eq!(read("sizes = [24, 1472, 500]"), (24, [1472, 500, 0]));
    for (more, why) in [
        (
            "sizes = [64, 1473]",
            "1473 is out of range; 24 to 1472 is allowed",
        ),
        ("sizes = []", "needs 1 to 4 sizes"),
        ("sizes = [30, 31, 32, 33, 34]", "needs 1 to 4 sizes"),
        (
            "sizes = 64",
            "is a whole number, but must be a list of whole numbers",
        ),
        (
            "size = 64\nsizes = [64]",
            "stands beside size; write only one of them",
        ),
    ] {
        let said = mistakes(&text(more));
        assert!(said.len() == 1 && said[0].contains(why), "{more}: {said:?}");
        assert!(said[0].contains(": target.sizes: "), "{said:?}");
    }
}

#[test]
fn tests_run_by_themselves_only_where_the_section_is_there() {
    let read = |text: &str| parse("f", text, Path::new("/")).unwrap().config.throughput;
    assert_eq!(read(""), Throughput::default());
    assert_eq!(read("").every_ns, None);
    assert_eq!(read("[throughput]\n").every_ns, Some(3600 * SECOND_NS));
    let t = read(
        "[throughput]\nevery = \"6h\"\nseconds = 10\nstreams = 8\ncongestion = \"bbr\"\n\
         dscp = 8\nudp_down = \"50Mbit\"\nmonthly_budget = \"1GiB\"\nskip_when_busy = false\n\
         quiet_hours = [\"23:00-07:00\", \"12:00-13:30\"]\ntrain_budget = \"1.5 %\"\n",
    );
    let wanted = Throughput {
        every_ns: Some(6 * 3600 * SECOND_NS),
        seconds: 10,
        streams: 8,
        congestion: "bbr".into(),
        dscp: 8,
        udp: Some(UdpRates {
            up_bps: 0,
            down_bps: 50_000_000,
        }),
        monthly_budget_bytes: 1 << 30,
        skip_when_busy: false,
        trains: When::Share(15_000),
        quiet_hours: ["23:00-07:00", "12:00-13:30"]
            .map(|h| QuietHours::parse(h).unwrap())
            .to_vec(),
    };
    assert_eq!(t, wanted);
    assert_eq!(read("[throughput]\nevery = \"never\"\n").every_ns, None);
    // Packet trains all the time only where they are asked for, and none only where that is; what they take up is
    // bounded.
    assert_eq!(read("").trains, When::Never);
    let trains = |text: &str| read(&format!("[throughput]\n{text}\n")).trains;
    assert_eq!(trains(""), When::AtAlarms);
    assert_eq!(trains("train_budget = \"0\""), When::Never);
    assert_eq!(trains("train_budget = \"5%\""), When::Share(50_000));
    for bad in ["6%", "1", "-1%", "NaN%", "%"] {
        let text = format!("[throughput]\ntrain_budget = \"{bad}\"\n");
        let said = parse("f", &text, Path::new("/")).unwrap_err();
        assert!(
            said.len() == 1 && said[0].text.contains("share of a line"),
            "{said:?}"
        );
    }
    let wrong = "[throughput]\nevery = \"1s\"\nseconds = 1\ncongestion = \"a b\"\ndscp = 64\n\
                 quiet_hours = \"11pm\"\n";
    assert_eq!(parse("f", wrong, Path::new("/")).unwrap_err().len(), 5);
    // Each direction has its own rate.
    let both = read("[throughput]\nudp_up = \"5Mbit\"\nudp_down = \"50Mbit\"\n").udp;
    assert_eq!(
        both,
        Some(UdpRates {
            up_bps: 5_000_000,
            down_bps: 50_000_000,
        })
    );
    assert_eq!(
        mistakes("[throughput]\nudp_up = \"5\"\nudp_down = \"2Gbit\"\n"),
        [
            "f.toml:2:1: throughput.udp_up: \"5\" is not a rate; write for example 100Mbit",
            "f.toml:3:1: throughput.udp_down: 2000000000 bit/s over UDP is out of range; 100kbit to \
             1Gbit is allowed",
        ]
    );
}

#[test]
fn what_is_kept_how_long_can_be_said_of_events_too() {
    let keep = |text: &str| {
        parse("f", text, Path::new("/"))
            .unwrap()
            .config
            .keep
            .events_ns
    };
    let day_ns = 86_400 * SECOND_NS;
    assert_eq!(keep(""), Some(1100 * day_ns));
    assert_eq!(keep("[retention]\nevents = \"90d\"\n"), Some(90 * day_ns));
    assert_eq!(keep("[retention]\nevents = \"forever\"\n"), None);
    assert_eq!(
        mistakes("[retention]\nevents = \"5m\"\n"),
        ["f.toml:2:1: retention.events: \"5m\" is too short; 1h is the least"]
    );
}

#[test]
fn an_interface_may_say_how_it_is_routed_and_what_it_is() {
    let text = "[[interface]]\nname = \"lte\"\nkind = \"cellular\"\nsees_household = \"no\"\n\
                source = \"192.0.2.7\"\nfwmark = 0x10\nmonthly_budget = \"2GiB\"\n\
                tcp_prefix = \"100.64.0.0/10\"\n[[interface]]\nname = \"eth0\"\n\
                access = \"cable\"\n[[interface]]\nname = \"eth1\"\naccess = \"auto\"\n";
    let interfaces = parse("f", text, Path::new("/")).unwrap().config.interfaces;
    let lte = Uplink {
        kind: Some(InterfaceKind::Cellular),
        sees_household: Some(false),
        source: Some("192.0.2.7".parse().unwrap()),
        mark: Some(16),
        monthly_budget_bytes: Some(2 << 30),
        tcp_prefix: Some(bufferbane_config::parse_subnet("100.64.0.0/10").unwrap()),
        ..Uplink::from("lte")
    };
    let cable = Uplink {
        is_cable: true,
        ..Uplink::from("eth0")
    };
    assert_eq!(interfaces, [lte, cable, Uplink::from("eth1")]);
    let said = mistakes("[[interface]]\nname = \"a\"\nsource = \"eth0\"\nfwmark = 0\n");
    assert!(said[0].starts_with("f.toml:3:1: interface.source: \"eth0\" is not an address"));
    assert!(said[1].starts_with("f.toml:4:1: interface.fwmark: 0 is out of range"));
    let said = mistakes("[[interface]]\nname = \"a\"\nkind = \"tunnel\"\naccess = \"cable\"\n");
    assert!(
        said[0].starts_with("f.toml:4:1: interface.access: a line of kind \"tunnel\" is no cable"),
        "{said:?}"
    );
    let said = mistakes("[[interface]]\nname = \"a\"\naccess = \"docsis\"\n");
    assert!(
        said[0].contains("interface.access") && said[0].contains("cable"),
        "{said:?}"
    );
}

#[test]
fn the_live_page_stays_on_this_host_unless_told_otherwise() {
    let read = |text: &str| parse("f", text, Path::new("/"));
    assert_eq!(read("").unwrap().config.http, Some(DEFAULT_HTTP));
    let off = read("[http]\nlisten = \"\"\n").unwrap();
    assert_eq!((off.config.http, off.warnings.len()), (None, 0));
    let open = read("[http]\nlisten = \"0.0.0.0:80\"\n").unwrap();
    assert_eq!(open.config.http, Some(([0, 0, 0, 0], 80).into()));
    assert_eq!(open.warnings.len(), 1);
    assert!(read("[http]\nlisten = \"localhost\"\n").is_err());
}

#[test]
fn where_tcp_comes_from_is_an_address_or_a_bounded_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let key = PresharedKey {
        id: bufferbane_core::seal::KeyId([1; 8]),
        secret: bufferbane_core::seal::Secret::new([2; 32]),
    };
    bufferbane_config::keyfile::write_new(&dir.path().join("k"), &key).unwrap();
    let read = |prefix: &str| {
        let text = format!(
            "[[reflector]]\nname = \"r\"\naddress = \"192.0.2.1\"\nkey_file = \"k\"\n\
             tcp_prefix = \"{prefix}\"\n"
        );
        let loaded = parse("f", &text, dir.path());
        loaded.map(|l| l.config.reflectors[0].tcp_prefix.unwrap())
    };
    for (text, prefix) in [
        ("100.64.0.0/10", 10),
        ("192.0.2.9", 32),
        ("2001:db8::/32", 32),
    ] {
        assert_eq!(read(text).unwrap().prefix, prefix, "{text}");
    }
    for (text, why) in [
        ("0.0.0.0/0", "no more than a /10"),
        ("100.64.0.0/9", "no more than a /10"),
        ("2001::/16", "no more than a /32"),
        ("home", "is not an address or subnet"),
    ] {
        let mistakes = read(text).unwrap_err();
        assert!(mistakes[0].to_string().contains(why), "{mistakes:?}");
    }
}
