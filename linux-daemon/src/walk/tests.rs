use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bufferbane_store::{Event, PathHop, SeriesKind, Severity};

use super::concerned::About;
use super::worker::{Errand, Worker};
use super::*;
use crate::errands::testing::{at, info, infos};

mod families;

struct Lab {
    walks: Walks,
    errands: Receiver<Errand>,
    back: SyncSender<Walked>,
}

fn event(kind: &str, start: Monotonic, end: Option<Monotonic>) -> Event {
    let mut event = Event::new(kind, Severity::Warning, 1, start, "x".into());
    event.interface = "eth0".into();
    event.end_ns = end.map(Monotonic::as_nanos);
    event
}

impl Lab {
    /// With a gateway and two hosts beyond it, from the tenth second on.
    fn new() -> Self {
        let mut walks = Walks::new(at(0), BTreeMap::new(), true);
        let (worker, errands, back) = Worker::by_hand();
        let line = Line::new(at(0), worker);
        walks.lines.insert("eth0".into(), line);
        for (i, info) in infos().iter().enumerate() {
            walks.add(at(0), SeriesIndex(i as u16), info);
        }
        Self {
            walks,
            errands,
            back,
        }
    }

    fn asked(&self) -> Option<(String, bool)> {
        let errand = self.errands.try_recv().ok()?;
        Some((errand.key.1, errand.urgent))
    }

    /// The thread comes back with a way of these hops; the last is the target where `whole`.
    fn walked(&mut self, now: Monotonic, hops: &[u8], whole: bool) -> Vec<News> {
        let line = &self.walks.lines["eth0"];
        let key = line.out.as_ref().unwrap().key.clone();
        let hop = |n: &u8| PathHop {
            addresses: vec![[10, 0, 0, *n].into()],
            sent: 3,
            answered: 3,
            rtt_min_ns: Some(1000),
            rtt_mean_ns: Some(1000),
        };
        let path = Path {
            interface: key.0,
            target: key.1,
            address: key.2,
            source: None,
            unsent: None,
            provider_link: false,
            end: if whole {
                PathEnd::Target
            } else {
                PathEnd::Silence
            },
            hops: hops.iter().map(hop).collect(),
        };
        let walked = Walked {
            begun: now,
            took_ns: 0,
            path: Ok(Some(path)),
        };
        self.back.send(walked).unwrap();
        self.walks.tick(now)
    }
}

fn looks(news: &[News]) -> Vec<(usize, Vec<u64>)> {
    let look = |n: &News| match n {
        News::Look(_, l) => Some((l.path.hops.len(), l.events.iter().map(|e| e.0).collect())),
        _ => None,
    };
    news.iter().filter_map(look).collect()
}

/// Told of ways that were known before, of a target that is probed already and of one that is not yet.
#[test]
fn a_way_that_is_another_after_a_restart_is_a_change() {
    let mut lab = Lab::new();
    let hop = |n: u8| PathHop {
        addresses: vec![[10, 0, 0, n].into()],
        sent: 3,
        answered: 3,
        ..PathHop::default()
    };
    let known = |target: &str, address: [u8; 4]| Path {
        interface: "eth0".into(),
        target: target.into(),
        address: address.into(),
        source: None,
        unsent: None,
        provider_link: false,
        end: PathEnd::Target,
        hops: vec![hop(1), hop(2), hop(9)],
    };
    let all = [
        known("quad9", [9, 9, 9, 9]),
        known("oslo", [203, 0, 113, 7]),
    ];
    let before = all.map(|p| ((p.interface.clone(), p.target.clone(), p.address), vec![p]));
    lab.walks.recall(before.into_iter().collect());
    let oslo = info(SeriesKind::Udp, "oslo", "203.0.113.7");
    lab.walks.add(at(0), SeriesIndex(9), &oslo);
    let mut changed = Vec::new();
    for n in 0..40 {
        lab.walks.tick(at(20 + 3 * n));
        if lab.asked().is_some() {
            for news in lab.walked(at(21 + 3 * n), &[1, 3, 9], true) {
                if let News::Changed(c) = news {
                    changed.push((c.after.target, c.hop));
                }
            }
        }
    }
    changed.sort();
    assert_eq!(changed, [("oslo".to_owned(), 2), ("quad9".to_owned(), 2)]);
}

/// As with PPP, whose interface is called otherwise each time.
#[test]
fn an_interface_that_nothing_is_probed_through_makes_room_for_another() {
    let mut lab = Lab::new();
    let through = |n: usize| SeriesInfo {
        interface: format!("ppp{n}"),
        ..info(SeriesKind::Icmp, "quad9", "9.9.9.9")
    };
    let leads = |lab: &Lab, n: usize| lab.walks.lines.contains_key(&format!("ppp{n}"));
    for n in 0..2 * LINES {
        lab.walks.add(at(0), SeriesIndex(100), &through(n));
        assert!(leads(&lab, n), "ppp{n}");
        assert!(lab.walks.lines.contains_key("eth0"));
        assert!(lab.walks.lines.len() <= LINES);
    }
    lab.walks.remove(SeriesIndex(100));
    for n in 0..LINES {
        lab.walks
            .add(at(0), SeriesIndex(200 + n as u16), &through(n));
    }
    // Fifteen beside eth0.
    let led = (0..LINES).filter(|n| leads(&lab, *n)).count();
    assert_eq!(led, LINES - 1);
}

#[test]
fn each_way_is_walked_in_turn_now_and_then() {
    let mut lab = Lab::new();
    lab.walks.tick(at(9));
    assert_eq!(lab.asked(), None);
    let mut seen = Vec::new();
    for n in 0..3 {
        lab.walks.tick(at(20 + 10 * n));
        let (target, urgent) = lab.asked().unwrap();
        assert!(!urgent);
        seen.push(target);
        let news = lab.walked(at(21 + 10 * n), &[1, 9], true);
        assert!(matches!(news[..], [News::Way(_, _, 1, _)]), "{news:?}");
    }
    seen.sort();
    assert_eq!(seen, ["gateway", "quad9", "vienna"]);
    lab.walks.tick(at(800));
    assert_eq!(lab.asked(), None);
    lab.walks.tick(at(1000));
    assert!(lab.asked().is_some());
    lab.walked(at(1001), &[1, 9], true);
    // Another route: all of them, at once but one by one.
    lab.walks.rerouted(at(1005));
    for n in 0..3 {
        lab.walks.tick(at(1005 + 10 * n));
        assert!(lab.asked().is_some());
        lab.walked(at(1006 + 10 * n), &[1, 9], true);
    }
    lab.walks.tick(at(1100));
    assert_eq!(lab.asked(), None);
}

#[test]
fn a_short_outage_is_looked_at_while_it_lasts_and_belongs_to_its_event() {
    let mut lab = Lab::new();
    for index in 0..3 {
        lab.walks.heard(SeriesIndex(index), at(100));
    }
    // The gateway answering on is no answer from beyond it.
    lab.walks.heard(SeriesIndex(0), at(103));
    lab.walks.tick(at(100));
    lab.errands.try_recv().unwrap();
    lab.walked(at(100), &[1, 2, 9], true);
    lab.walks.tick(at(102));
    let (target, urgent) = lab.asked().unwrap();
    assert!(urgent && target != "gateway", "{target}");
    // Nobody knows yet whether that is an event.
    assert_eq!(looks(&lab.walked(at(103), &[1], false)), []);
    lab.walks.heard(SeriesIndex(1), at(105));
    let over = event("micro_outage", at(100), Some(at(105)));
    let news = lab.walks.begins(at(108), EventId(4), &over, Shown::Anybody);
    assert_eq!(looks(&news), [(1, vec![4])]);
    // Another of the same time has it too, one of another time has not.
    let lost = event("reflector_lost", at(101), None);
    let news = lab.walks.begins(at(108), EventId(5), &lost, Shown::Anybody);
    assert_eq!(looks(&news), [(1, vec![4, 5])]);
    let before = event("loss_burst", at(90), Some(at(91)));
    assert!(
        lab.walks
            .begins(at(108), EventId(6), &before, Shown::Anybody)
            .is_empty()
    );
    // And once it is over.
    lab.walks.tick(at(108));
    assert_eq!(lab.asked().map(|a| a.1), Some(true));
    assert_eq!(
        looks(&lab.walked(at(109), &[1, 2, 9], true)),
        [(3, vec![4, 5])]
    );
}

/// A house that is cut off is, through all of its uplinks at once.
#[test]
fn one_uplink_does_not_wait_for_another() {
    let mut lab = Lab::new();
    let (worker, others, _back) = Worker::by_hand();
    let line = Line::new(at(0), worker);
    lab.walks.lines.insert("wlan0".into(), line);
    let mut other = info(SeriesKind::Udp, "vienna", "203.0.113.9");
    other.interface = "wlan0".into();
    lab.walks.add(at(0), SeriesIndex(9), &other);
    for index in [1, 9] {
        lab.walks.heard(SeriesIndex(index), at(50));
    }
    lab.walks.tick(at(52));
    assert_eq!(lab.asked().map(|a| a.1), Some(true));
    assert!(others.try_recv().unwrap().urgent);
    // It is one silence for as long as it lasts.
    lab.walks.tick(at(60));
    assert!(others.try_recv().is_err());
}

#[test]
fn a_look_says_what_the_way_was_before_and_goes_before_other_walks() {
    let mut lab = Lab::new();
    lab.walks.tick(at(20));
    let (first, _) = lab.asked().unwrap();
    lab.walked(at(21), &[1, 2, 3, 9], true);
    let mut loss = event("packet_loss", at(40), None);
    loss.target = Some(first);
    lab.walks.tick(at(30));
    assert_eq!(lab.asked().map(|a| a.1), Some(false));
    assert!(
        lab.walks
            .begins(at(45), EventId(1), &loss, Shown::Anybody)
            .is_empty()
    );
    lab.walks.tick(at(45));
    // The one that is under way is given up.
    let given_up = Walked {
        begun: at(30),
        took_ns: 0,
        path: Ok(None),
    };
    lab.back.send(given_up).unwrap();
    lab.walks.tick(at(46));
    assert_eq!(lab.asked().map(|a| a.1), Some(true));
    let news = lab.walked(at(47), &[1, 7, 8], false);
    let [News::Look(_, look), News::Start(..)] = &news[..] else {
        panic!("{news:?}");
    };
    assert_eq!((look.usual_hops, look.other_from), (Some(4), Some(2)));
    assert_eq!(look.events, [EventId(1)]);
}

/// What is probed every 50 ms shows as much as quick echoes would.
#[test]
fn a_close_look_is_at_the_host_concerned_and_the_gateway_where_their_pings_are_slow() {
    let mut lab = Lab::new();
    let concerned = |lab: &Lab, target: Option<&str>, series: Option<u16>| {
        let mut loss = event("packet_loss", at(100), None);
        loss.target = target.map(str::to_owned);
        let about = About::event(&loss, series.map(SeriesIndex).into());
        let hosts = lab.walks.concerned(about);
        let of = |h: close::Wanted| (h.key.1, h.pings.into_iter().map(|s| s.0).collect());
        hosts
            .into_iter()
            .map(of)
            .collect::<Vec<(String, Vec<u16>)>>()
    };
    assert_eq!(concerned(&lab, None, Some(2)), []);
    let slow = |target: &str, address: &str| {
        let mut slow = info(SeriesKind::Icmp, target, address);
        slow.interval_ns = S;
        slow
    };
    // Another host of the house, before the gateway in all orders but that of the way.
    for (index, name, address) in [
        (0, "gateway", "192.168.1.1"),
        (2, "quad9", "9.9.9.9"),
        (7, "a-printer", "192.168.1.7"),
        (8, "one", "1.1.1.1"),
    ] {
        lab.walks
            .add(at(0), SeriesIndex(index), &slow(name, address));
    }
    lab.walks.tick(at(20));
    lab.asked().unwrap();
    let key = lab.walks.lines["eth0"].out.as_ref().unwrap().key.clone();
    let hop = PathHop {
        addresses: vec![[192, 168, 1, 1].into()],
        ..PathHop::default()
    };
    let path = Path {
        interface: key.0,
        target: key.1,
        address: key.2,
        source: None,
        unsent: None,
        provider_link: false,
        end: PathEnd::Silence,
        hops: vec![hop],
    };
    let walked = Walked {
        begun: at(20),
        took_ns: 0,
        path: Ok(Some(path)),
    };
    lab.back.send(walked).unwrap();
    lab.walks.tick(at(21));
    let gateway = || ("gateway".to_owned(), vec![0]);
    let quad9 = ("quad9".to_owned(), vec![2]);
    assert_eq!(concerned(&lab, None, Some(2)), [gateway(), quad9.clone()]);
    assert_eq!(concerned(&lab, Some("quad9"), None), [gateway(), quad9]);
    assert_eq!(concerned(&lab, None, Some(0)), [gateway()]);
    // A stream shows it; what is slow is the way to the gateway.
    assert_eq!(concerned(&lab, Some("vienna"), Some(1)), [gateway()]);
    // A slow stream to a host that is not pinged: another that is.
    let mut stream = info(SeriesKind::Udp, "vienna", "203.0.113.9");
    stream.interval_ns = S;
    lab.walks.add(at(30), SeriesIndex(1), &stream);
    let hosts = concerned(&lab, Some("vienna"), Some(1));
    assert_eq!(hosts, [gateway(), ("one".to_owned(), vec![8])]);
    let nobody = lab.walks.concerned(About::all("wlan0", Shown::Anybody));
    assert_eq!(nobody.len(), 0);
}

#[test]
fn looks_keep_to_their_budget() {
    let mut lab = Lab::new();
    let mut asked = 0;
    for n in 0..100u64 {
        let now = at(1000 + n * 36);
        let outage = event("outage", now, None);
        lab.walks.begins(now, EventId(n), &outage, Shown::Anybody);
        lab.walks.tick(now);
        while let Some((_, urgent)) = lab.asked() {
            asked += u32::from(urgent);
            lab.walked(now.saturating_add(S), &[1, 9], true);
        }
    }
    // An hour.
    assert!((6..=9).contains(&asked), "{asked}");
}

#[test]
fn what_hinders_is_said_once_and_does_not_stop_the_others() {
    let mut lab = Lab::new();
    for n in 0..3 {
        lab.walks.tick(at(20 + n * 10));
        assert!(lab.asked().is_some());
        let walked = Walked {
            begun: at(20 + n * 10),
            took_ns: 0,
            path: Err("Operation not permitted".into()),
        };
        lab.back.send(walked).unwrap();
        assert!(lab.walks.tick(at(21 + n * 10)).is_empty());
    }
    assert!(lab.walks.lines["eth0"].trouble.is_some());
}

#[test]
fn routers_that_are_others_each_time_are_not_walked_to_without_end() {
    let mut lab = Lab::new();
    let (mut walks, mut ways) = (0, 0);
    for s in 0..3600u64 {
        lab.walks.tick(at(s));
        if lab.asked().is_some() {
            walks += 1;
            let made_up = [1, (walks % 200) as u8, 9];
            let news = lab.walked(at(s), &made_up, true);
            ways += news.len();
        }
    }
    // Three targets for an hour: each four times in turn, two to confirm at once, and one more each time after.
    assert_eq!((walks, ways), (3 * (4 + 2 + 1 + 1), 3));
}

#[test]
fn a_thread_that_has_ended_leaves_nothing_waiting() {
    let mut lab = Lab::new();
    let (worker, others, _back) = Worker::by_hand();
    lab.walks
        .lines
        .insert("wlan0".into(), Line::new(at(0), worker));
    let mut other = info(SeriesKind::Udp, "vienna", "203.0.113.9");
    other.interface = "wlan0".into();
    lab.walks.add(at(0), SeriesIndex(9), &other);
    lab.walks.tick(at(20));
    let outage = event("outage", at(21), None);
    lab.walks
        .begins(at(21), EventId(1), &outage, Shown::Anybody);
    lab.back = sync_channel(1).0;
    lab.walks.tick(at(22));
    let line = &lab.walks.lines["eth0"];
    assert!(line.worker.is_none() && line.out.is_none() && line.asked.is_empty());
    let outage = event("outage", at(100), None);
    lab.walks
        .begins(at(100), EventId(2), &outage, Shown::Anybody);
    assert!(lab.walks.lines["eth0"].asked.is_empty());
    // The other uplink's ways are walked as before.
    lab.walks.tick(at(101));
    assert!(others.try_recv().is_ok());
}

/// The real thread, on the way to this host itself.
#[test]
fn the_thread_walks() {
    let worker = worker::start().unwrap();
    let me = IpAddr::from([127, 0, 0, 1]);
    let errand = Errand {
        way: Way {
            interface: "lo".into(),
            source: None,
            mark: None,
        },
        key: ("lo".into(), "me".into(), me),
        urgent: true,
        how: worker::Thoroughness::Quick,
    };
    worker.errands.send(errand).unwrap();
    let patience = std::time::Duration::from_secs(60);
    let walked = worker.returns.recv_timeout(patience).unwrap();
    let path = walked.path.unwrap().expect("it was not given up");
    assert_eq!(path.end, PathEnd::Target);
    let [hop] = &path.hops[..] else {
        panic!("{path:?}");
    };
    assert_eq!(hop.addresses, [me]);
    assert!(
        hop.answered > 0 && hop.rtt_min_ns <= hop.rtt_mean_ns,
        "{hop:?}"
    );
}

/// What waits to be walked: to whom, and whether from which hop on something is wrong is to be known.
fn waits(lab: &Lab) -> Vec<(String, bool)> {
    let asked = lab.walks.lines["eth0"].asked.iter();
    let exact = |a: &line::Asked| a.how == worker::Thoroughness::Exact;
    asked.map(|a| (a.key.2.to_string(), exact(a))).collect()
}

#[test]
fn all_kinds_of_trouble_have_their_way_walked_and_hops_are_measured_where_that_says_more() {
    for (kind, is_exact) in [
        ("bufferbloat", true),
        ("upload_degraded", true),
        ("download_degraded", true),
        ("routing_fault", true),
        ("packet_loss", true),
        ("mtu_black_hole", false),
        ("outage", false),
        ("dns_failing", false),
        ("tcp_unstable", false),
        ("dns_slow", true),
    ] {
        let mut lab = Lab::new();
        let trouble = event(kind, at(100), None);
        lab.walks
            .begins(at(101), EventId(1), &trouble, Shown::Series(SeriesIndex(2)));
        assert_eq!(waits(&lab), [("9.9.9.9".to_owned(), is_exact)], "{kind}");
        // Another event that is there before it is walked.
        let trouble = event("latency_spike", at(101), None);
        lab.walks
            .begins(at(101), EventId(2), &trouble, Shown::Anybody);
        assert_eq!(waits(&lab), [("9.9.9.9".to_owned(), true)], "{kind}");
    }
    let mut lab = Lab::new();
    let fact = event("link_down", at(100), None);
    lab.walks.begins(at(101), EventId(1), &fact, Shown::Anybody);
    assert_eq!(waits(&lab), []);
}

#[test]
fn the_way_to_a_service_is_walked_whether_it_is_pinged_or_not() {
    let mut lab = Lab::new();
    let mut failing = event("dns_failing", at(100), None);
    failing.target = Some("resolver".into());
    let pinged = Shown::Host([9, 9, 9, 9].into());
    lab.walks.begins(at(101), EventId(1), &failing, pinged);
    lab.walks.tick(at(101));
    assert_eq!(lab.asked(), Some(("quad9".to_owned(), true)));
    lab.walked(at(102), &[1, 9], true);
    failing.start_ns = at(200).as_nanos();
    let other = Shown::Host([192, 0, 2, 53].into());
    lab.walks.begins(at(201), EventId(2), &failing, other);
    lab.walks.tick(at(201));
    assert_eq!(lab.asked(), Some(("resolver".to_owned(), true)));
    let news = lab.walked(at(202), &[1, 2, 9], true);
    let [News::Look(_, look)] = &news[..] else {
        panic!("{news:?}");
    };
    assert_eq!(
        (look.usual_hops, &look.events[..]),
        (None, &[EventId(2)][..])
    );
    assert_eq!(look.path.address, IpAddr::from([192, 0, 2, 53]));
}

/// The streams of the lab have a probe every 50 ms.
#[test]
fn a_silence_is_noticed_once_three_probes_may_be_known_to_be_unanswered() {
    let mut lab = Lab::new();
    for index in [1, 2] {
        lab.walks.heard(SeriesIndex(index), at(5));
    }
    let after = |ms: u64| at(5).saturating_add(ms * 1_000_000);
    lab.walks.tick(after(400));
    assert_eq!(lab.asked(), None);
    lab.walks.tick(after(401));
    assert_eq!(lab.asked().map(|a| a.1), Some(true));
}

#[test]
fn what_was_too_short_to_be_seen_is_looked_at_right_after() {
    let mut lab = Lab::new();
    let cut = event("micro_outage", at(100), Some(at(101)));
    lab.walks.begins(at(105), EventId(1), &cut, Shown::Anybody);
    assert_eq!(waits(&lab).len(), 1);
    lab.walks.tick(at(105));
    lab.asked().unwrap();
    assert_eq!(
        looks(&lab.walked(at(108), &[1, 2, 9], true)),
        [(3, vec![1])]
    );
    // What was over long before it is told says nothing of now.
    let old = event("periodic_loss", at(20), Some(at(60)));
    lab.walks.begins(at(110), EventId(2), &old, Shown::Anybody);
    assert_eq!(waits(&lab), []);
}

#[test]
fn pauses_of_a_line_leave_their_looks_to_events() {
    let mut lab = Lab::new();
    let mut paused = 0;
    for n in 0..20 {
        lab.walks.heard(SeriesIndex(1), at(100 + 10 * n));
        for s in [0, 2, 4] {
            lab.walks.tick(at(100 + 10 * n + s));
            while let Some((_, urgent)) = lab.asked() {
                paused += u32::from(urgent);
                lab.walked(at(100 + 10 * n + s), &[1, 9], true);
            }
        }
    }
    assert_eq!(paused, 3);
    let loss = event("packet_loss", at(400), None);
    lab.walks.begins(at(401), EventId(1), &loss, Shown::Anybody);
    assert_eq!(waits(&lab).len(), 1);
}

#[test]
fn where_a_fault_starts_is_told_of_its_own_way_only() {
    let mut lab = Lab::new();
    let mut names = Vec::new();
    for n in 0..3 {
        lab.walks.tick(at(20 + 10 * n));
        names.extend(lab.asked());
        lab.walked(at(21 + 10 * n), &[1, 2, 3, 9], true);
    }
    assert_eq!(names.len(), 3);
    // What another way is like says nothing of it.
    let loss = event("outage", at(100), None);
    let vienna = Shown::Series(SeriesIndex(1));
    lab.walks.begins(at(100), EventId(1), &loss, vienna);
    lab.walks.tick(at(100));
    lab.asked().unwrap();
    let starts = |news: &[News]| {
        let of = |n: &News| match n {
            News::Start(ids, s) => Some((ids.clone(), s.hop, s.well_to)),
            _ => None,
        };
        news.iter().filter_map(of).collect::<Vec<_>>()
    };
    let news = lab.walked(at(103), &[1, 2, 3, 9], true);
    assert_eq!(starts(&news), []);
    let fault = event("routing_fault", at(100), None);
    let quad9 = Shown::Series(SeriesIndex(2));
    lab.walks.begins(at(110), EventId(2), &fault, quad9);
    assert_eq!(waits(&lab), [("9.9.9.9".to_owned(), true)]);
    lab.walks.tick(at(110));
    lab.asked().unwrap();
    let news = lab.walked(at(120), &[1, 2], false);
    let its = vec![(vec![EventId(2)], 3, 2)];
    assert_eq!(starts(&news), its);
    // And of one that is told later, of the same way.
    let again = event("routing_fault", at(105), None);
    let news = lab.walks.begins(at(125), EventId(3), &again, quad9);
    assert_eq!(starts(&news)[0].0.last(), Some(&EventId(3)));
    assert_eq!(waits(&lab), []);
}
