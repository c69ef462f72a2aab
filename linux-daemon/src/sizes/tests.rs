use std::sync::mpsc::{Receiver, SyncSender};

use bufferbane_store::{SeriesKind, Severity};

use super::*;
use crate::errands::testing::{at, info, infos};

struct Lab {
    sizes: Sizes,
    errands: Receiver<Errand>,
    back: SyncSender<Searched>,
}

fn size(target: &str, passes: u64, larger: Larger, direction: Option<Direction>) -> PathSize {
    PathSize {
        interface: "eth0".into(),
        target: target.into(),
        address: [203, 0, 113, 9].into(),
        interface_bytes: 1500,
        passes_bytes: passes,
        larger,
        told_by: None,
        direction,
    }
}

impl Lab {
    /// A gateway, which is none of this module's business, a reflector and a host; from the 30th second on.
    fn new() -> Self {
        let mut sizes = Sizes::new(at(0), BTreeMap::new());
        let (worker, errands, back) = Worker::by_hand();
        sizes.worker = Some(worker);
        for (i, info) in infos().iter().enumerate() {
            sizes.add(at(0), SeriesIndex(i as u16), info, 0);
        }
        Self {
            sizes,
            errands,
            back,
        }
    }

    fn asked(&mut self, now: Monotonic) -> Option<String> {
        assert_eq!(self.sizes.tick(now), []);
        Some(self.errands.try_recv().ok()?.key.1)
    }

    fn found(&mut self, now: Monotonic, size: PathSize) -> Vec<News> {
        let searched = Searched {
            begun: now,
            bytes: 2000,
            found: Ok(Some(size)),
        };
        self.back.send(searched).unwrap();
        self.sizes.tick(now)
    }

    /// The next that is due is searched at `now`, as this or that if it is quad9.
    fn next(&mut self, now: u64, found: [(u64, Larger, Option<Direction>); 2]) -> Vec<News> {
        let target = self.asked(at(now)).expect("one is due");
        let (passes, larger, direction) = found[usize::from(target == "quad9")];
        let mut news = self.found(at(now), size(&target, passes, larger, direction));
        news.retain(|n| !matches!(n, News::Size(..)));
        news
    }

    /// Both are searched at `now`.
    fn both(&mut self, now: u64, found: [(u64, Larger, Option<Direction>); 2]) -> Vec<News> {
        (0..2)
            .flat_map(|n| self.next(now + 10 * n, found))
            .collect()
    }
}

#[test]
fn far_targets_are_searched_in_turn_and_again_after_hours() {
    let mut lab = Lab::new();
    assert_eq!(lab.asked(at(29)), None);
    let mut seen = Vec::new();
    for s in [30, 40] {
        let target = lab.asked(at(s)).unwrap();
        let well = size(&target, 1500, Larger::None, None);
        let news = lab.found(at(s), well.clone());
        assert_eq!(news, [News::Size(at(s), at(s), 1, well)]);
        seen.push(target);
    }
    seen.sort_unstable();
    assert_eq!(seen, ["quad9", "vienna"]);
    assert_eq!(lab.sizes.known().count(), 2);
    assert_eq!(lab.sizes.bytes(), 4000);
    assert_eq!(lab.asked(at(14_000)), None);
    let again = lab.asked(at(14_500)).unwrap();
    let well = size(&again, 1500, Larger::None, None);
    let news = lab.found(at(14_501), well);
    let [News::Size(first, last, 2, _)] = news[..] else {
        panic!("{news:?}");
    };
    assert_eq!(
        (first.as_nanos() / S / 10, last),
        (3 + u64::from(first == at(40)), at(14_501))
    );
}

#[test]
fn sizes_that_vanish_to_all_are_a_hole_until_they_pass() {
    let mut lab = Lab::new();
    let silent = (1400, Larger::Silent, Some(Direction::Up));
    let news = lab.both(30, [silent, silent]);
    let place = ("eth0".to_owned(), 4);
    let hole = |targets: &[&str]| Hole {
        passes_bytes: 1400,
        interface_bytes: 1500,
        direction: Some(Direction::Up),
        targets: targets.iter().map(ToString::to_string).collect(),
    };
    let [News::Hole(p, _, first), News::Hole(q, _, both)] = &news[..] else {
        panic!("{news:?}");
    };
    assert_eq!((p, q, first.targets.len()), (&place, &place, 1));
    assert_eq!(*both, hole(&["quad9", "vienna"]));
    let mut event = Event::new("mtu_black_hole", Severity::Critical, 1, at(1), "x".into());
    event.interface = "eth0".into();
    lab.sizes.explain(&mut event);
    assert_eq!(event.values["passes_bytes"], 1400);
    assert_eq!(event.direction, Some(Direction::Up));
    // What is told of the other family is another's.
    let mut other = Event::new("mtu_black_hole", Severity::Critical, 1, at(1), "x".into());
    other.interface = "eth0".into();
    other.values.insert("family".into(), 6.into());
    lab.sizes.explain(&mut other);
    assert_eq!(
        (other.values.get("passes_bytes"), other.direction),
        (None, None)
    );
    // Looked at again within half an hour, and over when all is well.
    let well = (1500, Larger::None, None);
    let news = lab.both(1900, [well, well]);
    let [News::Hole(..), News::Mended(place, _)] = &news[..] else {
        panic!("{news:?}");
    };
    assert_eq!(place, &("eth0".to_owned(), 4));
}

/// Many hosts do not answer large echoes, and routers on the way of others tell.
#[test]
fn one_host_that_does_not_answer_and_a_narrow_way_are_no_holes() {
    let well = (1500, Larger::None, None);
    let mute = (1028, Larger::Silent, None);
    let narrow = (1492, Larger::Told, None);
    for found in [[mute, well], [well, mute], [narrow, narrow], [narrow, mute]] {
        let mut lab = Lab::new();
        let news = lab.both(30, found);
        assert_eq!(news, []);
    }
    // Where no host is known to get larger ones, it is the way.
    let mut lab = Lab::new();
    let news = lab.both(30, [mute, mute]);
    assert!(matches!(&news[..], [News::Hole(_, _, h)] if h.targets.len() == 2));
    // But where the way there is known not to carry them, it is one.
    let mut lab = Lab::new();
    let news = lab.both(30, [(1400, Larger::Silent, Some(Direction::Up)), well]);
    assert!(matches!(news[..], [News::Hole(..)]), "{news:?}");
}

/// A host that is merely picky about large echoes costs little more than one that is well.
#[test]
fn what_stays_as_it_is_is_searched_ever_more_seldom() {
    let mute = (1028, Larger::Silent, None);
    let mut lab = Lab::new();
    lab.sizes.remove(SeriesIndex(1));
    let mut searched = Vec::new();
    for minute in 0..30 * 24 * 60 {
        if let Some(target) = lab.asked(at(minute * 60)) {
            searched.push(minute);
            let (passes, larger, direction) = mute;
            lab.found(at(minute * 60), size(&target, passes, larger, direction));
        }
    }
    let gaps: Vec<u64> = searched.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(gaps[..5], [30, 60, 120, 240, 240]);
    assert!(searched.len() < 185, "{}", searched.len());
    let month = lab.sizes.month_bytes(at(30 * 86_400 - 1));
    assert_eq!(month["eth0"], 2000 * searched.len() as u64);
    // Anything else, and it is looked at soon again.
    let next = searched[searched.len() - 1] + 240;
    assert_eq!(lab.next(60 * next, [DOWN, DOWN]), []);
    assert_eq!(lab.asked(at(60 * (next + 29))), None);
    assert_eq!(lab.next(60 * (next + 30), [WELL, WELL]), []);
    assert_eq!(lab.asked(at(60 * (next + 260))), None);
    // So is one that answers nothing, at first.
    let asked = lab.asked(at(60 * (next + 270)));
    assert!(asked.is_some());
    for wait in [30, 60, 120, 240, 240] {
        let now = lab.sizes.done;
        let begun = at(60 * (next + 270)).max(now);
        let nothing = Searched {
            begun,
            bytes: 1728,
            found: Ok(None),
        };
        lab.back.send(nothing).unwrap();
        assert_eq!(lab.sizes.tick(begun), []);
        let due = begun.saturating_add(60 * wait * S);
        assert_eq!(lab.asked(due.saturating_sub(S)), None);
        assert!(lab.asked(due).is_some());
        lab.sizes.done = due;
    }
}

#[test]
fn other_routes_and_doubt_are_looked_into_soon_but_not_without_end() {
    let mut lab = Lab::new();
    let well = (1500, Larger::None, None);
    lab.both(30, [well, well]);
    lab.sizes.suspect(at(400), "eth0", Some("quad9"));
    assert_eq!(lab.asked(at(400)).as_deref(), Some("quad9"));
    lab.found(at(401), size("quad9", 1500, Larger::None, None));
    lab.sizes.suspect(at(410), "eth0", Some("quad9"));
    lab.sizes.suspect(at(410), "wlan0", None);
    assert_eq!(lab.asked(at(411)), None);
    lab.sizes.rerouted(at(500));
    assert_eq!(lab.asked(at(505)), None);
    assert_eq!(lab.asked(at(510)).as_deref(), Some("vienna"));
    lab.found(at(511), size("vienna", 1500, Larger::None, None));
    assert_eq!(lab.asked(at(702)).as_deref(), Some("quad9"));
}

const WELL: (u64, Larger, Option<Direction>) = (1500, Larger::None, None);
const DOWN: (u64, Larger, Option<Direction>) = (1400, Larger::Silent, Some(Direction::Down));

/// Downward it may be the host as well, so it takes two, at two addresses.
#[test]
fn one_host_alone_makes_no_hole_downward() {
    let mut lab = Lab::new();
    lab.sizes.remove(SeriesIndex(1));
    assert_eq!(lab.next(30, [WELL, DOWN]), []);
    // The same host by another name.
    let alias = info(SeriesKind::Icmp, "alias", "9.9.9.9");
    lab.sizes.add(at(40), SeriesIndex(7), &alias, 0);
    assert_eq!(lab.next(71, [DOWN, DOWN]), []);
    // A host that cuts its replies says nothing of the way down.
    let mut lab = Lab::new();
    let there = (1500, Larger::None, Some(Direction::Up));
    assert_eq!(lab.both(30, [there, DOWN]), []);
    let other = info(SeriesKind::Icmp, "other", "192.0.2.7");
    lab.sizes.add(at(60), SeriesIndex(7), &other, 0);
    let news = lab.next(91, [DOWN, DOWN]);
    assert!(matches!(&news[..], [News::Hole(_, _, h)] if h.targets.len() == 2));
}

/// What passed to others before it vanished to one is hours old; they are asked at once.
#[test]
fn a_new_hole_downward_is_found_with_the_next_search_of_the_others() {
    let mut lab = Lab::new();
    assert_eq!(lab.both(30, [WELL, WELL]), []);
    let first = lab.asked(at(14_500)).unwrap();
    let news = lab.found(at(14_500), size(&first, 1400, Larger::Silent, None));
    assert!(matches!(news[..], [News::Size(..)]), "{news:?}");
    let news = lab.next(14_503, [DOWN, DOWN]);
    assert!(matches!(&news[..], [News::Hole(_, _, h)] if h.targets.len() == 2));
    // And where it passes to them since, it is the host.
    let mut lab = Lab::new();
    assert_eq!(lab.both(30, [WELL, WELL]), []);
    assert_eq!(lab.next(14_500, [DOWN, DOWN]), []);
    assert_eq!(lab.next(14_503, [WELL, WELL]), []);
    assert_eq!(lab.asked(at(14_900)), None);
}

#[test]
fn a_hole_ends_when_a_search_says_so_and_not_for_what_is_added_or_removed() {
    let mut lab = Lab::new();
    let news = lab.both(30, [DOWN, DOWN]);
    assert!(matches!(news[..], [News::Hole(..)]), "{news:?}");
    // A target more, which gets larger ones; one less; and the other at a new address.
    let [_, mut vienna, _, _] = infos();
    let more = info(SeriesKind::Icmp, "more", "192.0.2.7");
    lab.sizes.add(at(60), SeriesIndex(7), &more, 0);
    assert_eq!(lab.next(91, [WELL, WELL]), []);
    lab.sizes.remove(SeriesIndex(2));
    vienna.address = "203.0.113.10".into();
    lab.sizes.add(at(100), SeriesIndex(1), &vienna, 0);
    assert_eq!(lab.asked(at(120)), None);
    // Its search says the same of it, but larger ones pass elsewhere, as one sees who looks.
    assert_eq!(lab.next(131, [DOWN, DOWN]), []);
    let news = lab.next(391, [WELL, WELL]);
    assert_eq!(news, []);
    let news = lab.next(1932, [WELL, WELL]);
    let place = ("eth0".to_owned(), 4);
    assert_eq!(news, [News::Mended(place, at(1932))]);
}

#[test]
fn a_hole_whose_targets_are_gone_ends_without_a_word_of_when() {
    let mut lab = Lab::new();
    lab.both(30, [DOWN, DOWN]);
    lab.sizes.remove(SeriesIndex(1));
    lab.sizes.remove(SeriesIndex(2));
    assert_eq!(lab.sizes.tick(at(100)), []);
    assert_eq!(lab.sizes.tick(at(1899)), []);
    let place = ("eth0".to_owned(), 4);
    assert_eq!(lab.sizes.tick(at(1900)), [News::Unwatched(place, at(100))]);
    assert_eq!(lab.sizes.tick(at(1901)), []);
}

/// A hole that was part of another event is told by itself when that is over, if it is still there.
#[test]
fn a_hole_in_doubt_is_told_anew_when_it_is_found_once_more() {
    for (then, is_told) in [(DOWN, true), (WELL, false)] {
        let mut lab = Lab::new();
        lab.both(30, [DOWN, DOWN]);
        lab.sizes.doubt(at(500), &("eth0".to_owned(), 4));
        let news = lab.both(500, [then, then]);
        assert_eq!(
            news.iter().any(|n| matches!(n, News::Hole(..))),
            is_told,
            "{news:?}"
        );
    }
}

/// The real thread, to this host itself.
#[test]
fn the_thread_searches() {
    let worker = worker::start().unwrap();
    let me = IpAddr::from([127, 0, 0, 1]);
    let errand = Errand {
        way: Way {
            interface: "lo".into(),
            source: None,
            mark: None,
        },
        key: ("lo".into(), "me".into(), me),
    };
    worker.errands.send(errand).unwrap();
    let patience = std::time::Duration::from_secs(60);
    let searched = worker.returns.recv_timeout(patience).unwrap();
    let size = searched.found.unwrap().expect("it answers");
    // Loopback takes more than any line.
    assert_eq!((size.passes_bytes, size.interface_bytes), (9216, 9216));
    // No direction: its replies were as long as what it was sent.
    assert_eq!((size.larger, size.direction), (Larger::None, None));
    assert!(searched.bytes >= 9216 + 576, "{}", searched.bytes);
}
