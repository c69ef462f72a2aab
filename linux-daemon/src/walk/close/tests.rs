use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender};

use bufferbane_core::look::{ECHOES, packet_bytes};
use bufferbane_core::sample::Sample;
use bufferbane_store::Severity;

use super::*;
use crate::errands::testing::at;

struct Lab {
    close: CloseLooks,
    errands: Receiver<Errand>,
    back: SyncSender<Looked>,
}

const PING: SeriesIndex = SeriesIndex(3);

fn host(target: &str, last: u8) -> Wanted {
    let address = IpAddr::from([192, 0, 2, last]);
    Wanted {
        key: ("eth0".into(), target.into(), address),
        pings: BTreeSet::from([PING]),
    }
}

fn event(start: u64, end: Option<u64>) -> Event {
    let mut event = Event::new("outage", Severity::Warning, 1, at(start), "x".into());
    event.interface = "eth0".into();
    event.end_ns = end.map(|s| at(s).as_nanos());
    event
}

impl Lab {
    fn new() -> Self {
        let (worker, errands, back) = Worker::by_hand();
        let mut close = CloseLooks::new(true);
        close.lines.insert("eth0".into(), Line::new(at(0), worker));
        close.set_rooms(BTreeMap::from([("eth0".into(), u64::MAX)]));
        Self {
            close,
            errands,
            back,
        }
    }

    fn begins(&mut self, now: u64, id: u64, event: &Event) -> Vec<(Vec<u64>, Option<u64>)> {
        let hosts = vec![host("gateway", 1), host("far", 9)];
        told(&self.close.begins(at(now), EventId(id), event, hosts))
    }

    /// Whose look begins at `now`.
    fn asked(&mut self, now: u64) -> Vec<String> {
        assert!(self.close.tick(at(now), &BTreeMap::new()).is_empty());
        let errand = self.errands.try_recv();
        errand.map_or_else(
            |_| Vec::new(),
            |e| e.keys.into_iter().map(|k| k.1).collect(),
        )
    }

    /// The look that began then comes back at `now`; of each host so many are answered.
    fn looked(&mut self, begun: u64, now: u64, answered: u64) -> Vec<(Vec<u64>, Option<u64>)> {
        let out = self.close.seen.iter().filter(|s| s.found.is_none());
        let found = Found {
            sent: ECHOES as u64,
            answered,
            ..Found::default()
        };
        let looked = Looked {
            begun: at(begun),
            bytes: 1000,
            found: out.map(|s| (s.host.key.clone(), Ok(found))).collect(),
        };
        self.back.send(looked).unwrap();
        told(&self.close.tick(at(now), &BTreeMap::new()))
    }

    /// A regular ping that was sent then.
    fn ping(&mut self, s: u64, is_answered: bool) {
        let mut sample = Sample::lost(PING, s, at(s), 64);
        if is_answered {
            sample.status = Status::Ok;
            sample.rtt_ns = Some(1);
        }
        self.close.hear(&Observation::New(sample));
    }
}

/// The events of each row, and how many regular pings it was compared with.
fn told(news: &[News]) -> Vec<(Vec<u64>, Option<u64>)> {
    let row = |n: &News| match n {
        News::Echoes(_, e) => (e.events.iter().map(|e| e.0).collect(), e.regular_sent),
        other => panic!("{other:?}"),
    };
    news.iter().map(row).collect()
}

#[test]
fn trouble_that_goes_on_is_looked_at_three_times_in_a_row() {
    let mut lab = Lab::new();
    assert_eq!(lab.begins(100, 1, &event(99, None)), []);
    assert_eq!(lab.asked(100), ["gateway", "far"]);
    // While it is on its way another event begins: it belongs to both.
    assert_eq!(lab.begins(105, 2, &event(104, None)), []);
    assert_eq!(lab.asked(106), [""; 0]);
    let both = || (vec![1, 2], None);
    assert_eq!(lab.looked(100, 112, 200), [both(), both()]);
    for (begun, n) in [(113, 2), (126, 3)] {
        let asked = lab.errands.try_recv().unwrap();
        assert_eq!(asked.keys.len(), 2, "{n}");
        assert_eq!(lab.looked(begun, begun + 12, 200), [both(), both()]);
    }
    assert!(lab.errands.try_recv().is_err());
    assert_eq!(lab.asked(140), [""; 0]);
    assert_eq!(lab.close.month_bytes(at(140))["eth0"], 3000);
}

#[test]
fn a_silence_is_looked_at_before_anybody_knows_that_it_is_an_event() {
    let mut lab = Lab::new();
    lab.close.falls_silent(at(52), "eth0", vec![host("far", 9)]);
    assert_eq!(lab.asked(52), ["far"]);
    assert_eq!(lab.looked(52, 64, 90), []);
    // It is over: no second look.
    lab.close.is_heard("eth0");
    lab.errands.try_recv().unwrap();
    assert_eq!(lab.looked(64, 76, 200), []);
    assert_eq!(lab.asked(77), [""; 0]);
    // An event that overlaps with the first has it, one that does not has neither.
    assert_eq!(lab.begins(80, 7, &event(50, Some(57))), [(vec![7], None)]);
    assert_eq!(lab.begins(80, 8, &event(10, Some(40))), []);
    // What is over needs no further look.
    assert_eq!(lab.asked(81), [""; 0]);
}

/// What IPv6 suffers from is not seen at a far host over IPv4; the gateway is one host.
#[test]
fn what_is_of_one_family_has_looks_of_that_one_and_those_at_the_gateway() {
    let mut lab = Lab::new();
    let at_address = |target: &str, address: &str| Wanted {
        key: ("eth0".into(), target.into(), address.parse().unwrap()),
        pings: BTreeSet::from([PING]),
    };
    let gateway = || at_address("gateway", "192.168.1.1");
    let begins = |lab: &mut Lab, (start, now), id, family: Option<u8>, hosts| {
        let mut event = event(start, None);
        let family = family.map(|f| ("family".to_owned(), f.into()));
        event.values.extend(family);
        told(&lab.close.begins(at(now), EventId(id), &event, hosts))
    };
    let four = vec![gateway(), at_address("far", "192.0.2.9")];
    begins(&mut lab, (100, 100), 1, None, four);
    assert_eq!(lab.asked(100), ["gateway", "far"]);
    // One is told while the look is under way, and asks for one of its own.
    let six = vec![gateway(), at_address("six", "2001:db8::9")];
    begins(&mut lab, (101, 101), 2, Some(6), six.clone());
    let rows = |ids: [&[u64]; 2]| ids.map(|ids| (ids.to_vec(), None));
    assert_eq!(lab.looked(100, 112, 200), rows([&[1, 2], &[1]]));
    // The next look has both from the first; what is of IPv4 alone is told after it.
    lab.errands.try_recv().unwrap();
    assert_eq!(lab.looked(113, 125, 200), rows([&[1, 2], &[1, 2]]));
    let late = begins(&mut lab, (116, 126), 3, Some(4), six);
    assert_eq!(late, [(vec![1, 2, 3], None)]);
}

#[test]
fn looks_keep_to_their_number_and_their_budget() {
    let mut lab = Lab::new();
    let mut made = 0;
    for n in 0..100 {
        let now = 1000 + n * 36;
        lab.begins(now, n, &event(now, None));
        lab.close.ends(EventId(n));
        if !lab.asked(now).is_empty() {
            made += 1;
            lab.looked(now, now + 12, 200);
        }
    }
    assert!((6..=9).contains(&made), "{made}");
    assert_eq!(lab.close.skipped(), 0);
    // There and back, of two hosts.
    let needed = 2 * 2 * 200 * packet_bytes(IpAddr::from([192, 0, 2, 1]));
    for (room, is_made) in [(needed, true), (needed - 1, false)] {
        let mut lab = Lab::new();
        lab.close.set_rooms(BTreeMap::from([("eth0".into(), room)]));
        lab.begins(100, 1, &event(100, None));
        assert_eq!(!lab.asked(100).is_empty(), is_made);
        assert_eq!(lab.close.skipped(), u64::from(!is_made));
    }
    // And to what is configured.
    let mut lab = Lab::new();
    lab.close.set(false);
    lab.begins(100, 1, &event(100, None));
    assert_eq!(lab.asked(100), [""; 0]);
}

#[test]
fn a_host_that_limits_its_answers_is_told_by_its_regular_pings_and_left_alone() {
    let day = 86_400;
    for (is_answered, again) in [
        (true, [].as_slice()),
        (false, ["gateway", "far"].as_slice()),
    ] {
        let mut lab = Lab::new();
        lab.begins(100, 1, &event(99, None));
        lab.close.ends(EventId(1));
        assert_eq!(lab.asked(100).len(), 2);
        for s in 95..115 {
            lab.ping(s, s != 103 || is_answered);
        }
        assert_eq!(lab.looked(100, 112, 60).len(), 2);
        // Those of its time count, and are known a while after.
        let rows = told(&lab.close.tick(at(126), &BTreeMap::new()));
        assert_eq!(rows, [(vec![1], Some(10)), (vec![1], Some(10))]);
        assert!(lab.close.tick(at(127), &BTreeMap::new()).is_empty());
        lab.begins(1000, 2, &event(999, None));
        lab.close.ends(EventId(2));
        assert_eq!(lab.asked(1000), again);
        if is_answered {
            lab.begins(200 + day, 3, &event(199 + day, None));
            assert_eq!(lab.asked(200 + day).len(), 2);
        }
    }
}

/// A ping that was lost at first, and answered after all.
#[test]
fn a_late_answer_of_a_regular_ping_is_one() {
    let mut lab = Lab::new();
    lab.begins(100, 1, &event(99, None));
    lab.asked(100);
    lab.ping(101, false);
    let mut late = Sample::lost(PING, 101, at(101), 64);
    late.status = Status::Late;
    late.rtt_ns = Some(4 * S);
    lab.close.hear(&Observation::Revised(late));
    let regular = lab.close.seen[0].regular;
    assert_eq!((regular.sent, regular.answered), (1, 1));
    // A series that is gone is nobody's any more: its number may be another's soon.
    lab.close.remove(PING);
    lab.ping(102, true);
    assert_eq!(lab.close.seen[0].regular, regular);
}

#[test]
fn a_thread_that_has_ended_makes_no_looks_and_is_no_burden() {
    let mut lab = Lab::new();
    lab.back = std::sync::mpsc::sync_channel(1).0;
    lab.begins(100, 1, &event(99, None));
    assert_eq!(lab.asked(100), [""; 0]);
    assert!(lab.close.lines["eth0"].worker.is_none());
    assert_eq!(lab.close.lines["eth0"].left, 0);
}

/// The real thread: this host itself, and one that nobody has.
#[test]
fn the_thread_looks() {
    let worker = worker::start().unwrap();
    let me = |target: &str| ("lo".into(), target.into(), IpAddr::from([127, 0, 0, 1]));
    let errand = Errand {
        way: Way {
            interface: "lo".into(),
            source: None,
            mark: None,
        },
        keys: vec![me("me"), me("myself")],
    };
    worker.errands.send(errand).unwrap();
    let patience = std::time::Duration::from_secs(60);
    let looked = worker.returns.recv_timeout(patience).unwrap();
    let targets: Vec<&str> = looked.found.iter().map(|(k, _)| k.1.as_str()).collect();
    assert_eq!(targets, ["me", "myself"]);
    let mut sent = 0;
    for (_, found) in &looked.found {
        let found = found.as_ref().unwrap();
        // A machine that stalls misses slots, and loses none.
        assert!(found.sent > 0, "{found:?}");
        assert_eq!(
            (found.answered, found.runs, found.unsent),
            (found.sent, 0, 0)
        );
        assert!(found.rtt.unwrap().min_ns > 0);
        sent += found.sent;
    }
    assert_eq!(looked.bytes, sent * 84);
}

#[test]
fn what_was_too_short_to_be_looked_at_is_right_after() {
    let mut lab = Lab::new();
    assert_eq!(lab.begins(103, 1, &event(99, Some(100))), []);
    assert_eq!(lab.asked(103), ["gateway", "far"]);
    let its = || (vec![1], None);
    assert_eq!(lab.looked(103, 115, 200), [its(), its()]);
    // Once.
    assert_eq!(lab.asked(116), [""; 0]);
    // Long ago.
    assert_eq!(lab.begins(300, 2, &event(199, Some(200))), []);
    assert_eq!(lab.asked(300), [""; 0]);
}
