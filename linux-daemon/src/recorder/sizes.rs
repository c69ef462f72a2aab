//! The largest packets that pass: recorded, and told where larger ones vanish.

use std::collections::HashMap;

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::clock;
use bufferbane_store::{Direction, Event, EventId, Severity};

use super::{Recorder, note, paths};
use crate::sizes::{self, Hole, News, Place, Sizes};
use crate::walk::Shown;
use crate::watch::Known;

const KIND: &str = "mtu_black_hole";
/// Events that last, by their names.
type Open = HashMap<String, (EventId, Event)>;
/// Those of detectors.
type Told = HashMap<EventId, Event>;
/// What ends the words of an event whose end nobody saw.
const UNWATCHED: &str = "; none of them is probed any more, so when it ended is not known";

impl Recorder {
    /// Records what was searched by now.
    pub(super) fn note_sizes(&mut self, now: Monotonic) {
        if self.writer.is_none() {
            return;
        }
        for news in self.sizes.tick(now) {
            match news {
                News::Size(first, last, searches, size) => {
                    if let Some(writer) = &mut self.writer {
                        writer.size(first, last, searches, size);
                    }
                }
                News::Hole(place, at, hole) => self.hole(&place, at, &hole),
                News::Mended(place, at) => self.end_fact(at, &name(&place)),
                News::Unwatched(place, at) => {
                    let name = name(&place);
                    if let Some((_, event)) = self.open_events.get_mut(&name) {
                        event.text.push_str(UNWATCHED);
                    }
                    self.end_fact(at, &name);
                }
            }
        }
    }

    /// Large packets vanish: an event, or part of the one that is told already.
    fn hole(&mut self, place: &Place, at: Monotonic, hole: &Hole) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        self.commit_soon = true;
        let mut is_told = false;
        for (id, event) in &mut self.told_holes {
            if sizes::places(event).any(|p| p == *place) {
                self.sizes.explain(event);
                writer.update_event(*id, event.clone());
                is_told = true;
            }
        }
        let name = name(place);
        if is_told && !self.open_events.contains_key(&name) {
            return;
        }
        if let Some((id, event)) = self.open_events.get_mut(&name) {
            describe(event, place.1, hole);
            writer.update_event(*id, event.clone());
            note(&self.status, &self.meters, *id, event);
            return;
        }
        let mut event = Event::new(KIND, Severity::Critical, writer.boot(), at, String::new());
        event.interface.clone_from(&place.0);
        describe(&mut event, place.1, hole);
        let hold_down_ns = self.settings.alerts.thresholds.hold_down_ns;
        let (id, before) = self.carry.begin(writer, hold_down_ns, &mut event);
        note(&self.status, &self.meters, id, &event);
        self.alerts.update(before, id, &event);
        paths::record(
            writer,
            self.walks.begins(clock::now(), id, &event, Shown::Anybody),
        );
        self.open_events.insert(name, (id, event));
    }
}

/// What detectors tell of sizes that vanish: more is found out. Gives what is told of it where a search tells it, whose
/// event is among the `open` ones by their names, or is over since; `told` are those of detectors that last. What is back
/// after its end is the same event, unless a search tells of the place meanwhile.
pub(super) fn told_by_search(
    sizes: &mut Sizes,
    (open, told): (&Open, &Told),
    now: Monotonic,
    known: Option<Known>,
    event: &mut Event,
) -> Option<Known> {
    if event.kind != KIND {
        return None;
    }
    let lasting = known.and_then(|k| told.get(&k.id));
    if let Some(before) = lasting {
        // Whose series are gone says no more which they were.
        if let Some(family) = before.values.get("family")
            && !event.values.contains_key("family")
            && event.end_ns.is_some()
        {
            event.values.insert("family".into(), family.clone());
        }
    } else if known.is_none_or(|k| k.is_back(event)) {
        sizes.suspect(now, &event.interface, event.target.as_deref());
        // One of two families of which one is told already is told by itself: else nobody hears of the other.
        let by_search: Option<Vec<&(EventId, Event)>> = sizes::places(event)
            .map(|place| open.get(&name(&place)))
            .collect();
        if let Some((id, its)) = by_search.and_then(|all| all.first().copied()) {
            return Some(Known::part(*id, event, its.start_ns));
        }
        if let Some(since_ns) = known.and_then(|k| k.part_of_ns) {
            event.start_ns = event.start_ns.min(since_ns);
        }
    } else if let Some(part) = known.filter(|k| k.part_of_ns.is_some()) {
        // It ends when a search finds it over, and what detectors see of a time comes later.
        let is_over = event.end_ns.is_some();
        return Some(Known { is_over, ..part });
    }
    sizes.explain(event);
    None
}

/// What detectors tell of sizes that vanish is told under this number, as others of theirs in `told`. When the last of
/// a place is over, a hole that was part of it is looked for once more, to be told by itself.
pub(super) fn follow(
    sizes: &mut Sizes,
    open: &Open,
    told: &mut Told,
    now: Monotonic,
    (id, event): (EventId, &Event),
) {
    if event.kind != KIND {
        return;
    }
    if event.end_ns.is_none() {
        told.insert(id, event.clone());
        return;
    }
    told.remove(&id);
    for place in sizes::places(event) {
        let is_told = told.values().flat_map(sizes::places).any(|p| p == place);
        if !is_told && !open.contains_key(&name(&place)) {
            sizes.doubt(now, &place);
        }
    }
}

fn name((interface, family): &Place) -> String {
    format!("{KIND} {interface} {family}")
}

fn describe(event: &mut Event, family: u8, hole: &Hole) {
    let way = match hole.direction {
        Some(Direction::Up) => " on the way up",
        Some(Direction::Down) => " on the way down, or these hosts answer no echoes of that size",
        _ => ", or these hosts answer no echoes of that size",
    };
    event.text = format!(
        "IPv{family} packets larger than {} bytes to {} vanish{way}; nobody says so, and the interface takes {}",
        hole.passes_bytes,
        hole.targets.join(", "),
        hole.interface_bytes
    );
    event.direction = hole.direction;
    event.target = match &hole.targets[..] {
        [only] => Some(only.clone()),
        _ => None,
    };
    let values = [
        ("passes_bytes", hole.passes_bytes.into()),
        ("interface_bytes", hole.interface_bytes.into()),
        ("family", family.into()),
        ("targets", hole.targets.clone().into()),
        ("near", false.into()),
    ];
    event
        .values
        .extend(values.map(|(name, value): (&str, serde_json::Value)| (name.to_owned(), value)));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bufferbane_core::sample::{Observation, Sample, SeriesIndex, Status};
    use bufferbane_linux_io::clock;
    use bufferbane_store::{SeriesInfo, SeriesKind};

    use super::super::Order;
    use super::super::testing::{any_room, recorder, series};
    use super::*;

    const S: u64 = 1_000_000_000;

    /// What was told of it before.
    fn own(id: u64, event: &Event) -> Option<Known> {
        Some(Known::own(EventId(id), event))
    }

    fn event(target: &str, end_ns: Option<u64>) -> Event {
        let mut event = Event::new(KIND, Severity::Critical, 1, Monotonic::ZERO, "x".into());
        event.interface = "wan".into();
        event.target = Some(target.into());
        event.end_ns = end_ns;
        event.values.insert("family".into(), 4.into());
        event
    }

    #[test]
    fn what_detectors_tell_of_two_targets_are_two_and_what_a_search_ended_stays_so() {
        let now = Monotonic::from_nanos(1_000_000_000);
        let mut sizes = Sizes::new(now, BTreeMap::new());
        let (mut open, mut told) = (HashMap::new(), HashMap::new());
        for (id, target) in [(1, "a"), (2, "b")] {
            let mut event = event(target, None);
            let known = told_by_search(&mut sizes, (&open, &told), now, None, &mut event);
            assert_eq!(known, None);
            follow(&mut sizes, &open, &mut told, now, (EventId(id), &event));
        }
        assert_eq!(told.len(), 2);
        let (lasting, over) = (event("a", None), event("a", Some(5)));
        let mut update = over.clone();
        let known = own(1, &lasting);
        let told_by = told_by_search(&mut sizes, (&open, &told), now, known, &mut update);
        assert_eq!(told_by, None);
        follow(&mut sizes, &open, &mut told, now, (EventId(1), &over));
        assert_eq!(told.keys().collect::<Vec<_>>(), [&EventId(2)]);
        // Its end may come once more, and so may it itself.
        for mut update in [event("a", Some(6)), lasting] {
            let known = own(1, &over);
            let told_by = told_by_search(&mut sizes, (&open, &told), now, known, &mut update);
            assert_eq!(told_by, None);
        }
        // One that a search has told is its own until it ends, and no detector's afterwards.
        let place = ("wan".to_owned(), 4);
        let searched = Event {
            start_ns: 7,
            ..event("c", None)
        };
        open.insert(name(&place), (EventId(3), searched));
        let mut news = event("c", None);
        let part = Some(Known::part(EventId(3), &news, 7));
        for known in [None, part, own(1, &over)] {
            let told_by = told_by_search(&mut sizes, (&open, &told), now, known, &mut news);
            assert_eq!(told_by, part);
        }
        open.clear();
        let told_by = told_by_search(&mut sizes, (&open, &told), now, part, &mut news);
        assert_eq!(told_by, part);
        let known = told_by_search(
            &mut sizes,
            (&open, &told),
            now,
            part,
            &mut event("c", Some(9)),
        );
        assert!(known.is_some_and(|k| k.is_over));
        // Unless detectors have seen its end and see it again: it is the same, and began when it did.
        let mut back = Event {
            start_ns: 8,
            ..event("c", None)
        };
        let told_by = told_by_search(&mut sizes, (&open, &told), now, known, &mut back);
        assert_eq!((told_by, back.start_ns), (None, 7));
    }

    /// Two large packets in three vanish, but for a minute: less than the hold-down.
    #[test]
    fn what_comes_back_within_the_hold_down_is_open_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(&dir.path().join("store.redb"), any_room());
        let (small, large) = (SeriesIndex(0), SeriesIndex(1));
        for (index, size) in [(small, 64), (large, 1400)] {
            let info = SeriesInfo {
                size,
                interval_ns: S / 20,
                // A way that is not searched.
                interface: "none-such".into(),
                ..series(SeriesKind::Icmp)
            };
            recorder.obey(Order::Series(index, info));
        }
        // As if time went faster from now on.
        let begin = clock::now();
        let mut edges = Vec::new();
        for n in 0..560 * 20 {
            let second = n / 20;
            let is_bad = (100..260).contains(&second) || (320..480).contains(&second);
            for index in [small, large] {
                let sent = begin.saturating_add(n * (S / 20) + u64::from(index.0));
                let mut sample = Sample::lost(index, n, sent, 64);
                if index == small || !is_bad || n % 3 == 0 {
                    sample.status = Status::Ok;
                    sample.rtt_ns = Some(20_000_000);
                }
                recorder.obey(Order::Observation(Observation::New(sample)));
            }
            recorder.watch(begin.saturating_add(n * (S / 20)));
            let told = recorder.told_holes.iter().next();
            let told = told.map(|(id, event)| (*id, event.start_ns, event.end_ns));
            if edges.last() != Some(&told) {
                edges.push(told);
            }
        }
        let [None, begun @ Some((_, _, None)), None, back, None] = edges[..] else {
            panic!("{edges:?}");
        };
        assert_eq!(back, begun);
    }

    /// What detectors tell of IPv4 neither hides a hole of IPv6 nor is part of it, and what they tell of both is both's.
    #[test]
    fn the_holes_of_two_families_are_two() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(&dir.path().join("store.redb"), any_room());
        let now = Monotonic::from_nanos(1_000_000_000);
        let [four, six] = [4, 6].map(|family| ("wan".to_owned(), family));
        let hole = Hole {
            passes_bytes: 1400,
            interface_bytes: 1500,
            direction: Some(Direction::Up),
            targets: vec!["far".into()],
        };
        let by_detectors = event("far", None);
        recorder
            .told_holes
            .insert(EventId(77), by_detectors.clone());
        recorder.hole(&four, now, &hole);
        assert!(recorder.open_events.is_empty());
        recorder.hole(&six, now, &hole);
        let (id, told) = &recorder.open_events[&name(&six)];
        assert_eq!(told.values["family"], 6);
        let (open, told) = (&recorder.open_events, &recorder.told_holes);
        let (mut both, mut by_other) = (by_detectors.clone(), by_detectors.clone());
        both.values.remove("family");
        by_other.values.insert("family".into(), 6.into());
        for (mut news, own) in [(by_detectors, None), (both, None), (by_other, Some(*id))] {
            let sizes = &mut recorder.sizes;
            let told_by = told_by_search(sizes, (open, told), now, None, &mut news);
            assert_eq!(told_by.map(|k| k.id), own, "{news:?}");
        }
    }

    #[test]
    fn what_may_be_the_hosts_is_said_to_be() {
        let mut hole = Hole {
            passes_bytes: 1400,
            interface_bytes: 1500,
            direction: Some(Direction::Up),
            targets: vec!["a".into(), "b".into()],
        };
        let mut told = event("a", None);
        describe(&mut told, 4, &hole);
        assert!(told.text.contains("vanish on the way up; nobody says so"));
        for direction in [Some(Direction::Down), None] {
            hole.direction = direction;
            describe(&mut told, 4, &hole);
            assert!(
                told.text
                    .contains("or these hosts answer no echoes of that size")
            );
        }
    }

    #[test]
    fn the_way_that_larger_packets_vanish_on_is_walked() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(&dir.path().join("store.redb"), any_room());
        recorder.obey(Order::Series(SeriesIndex(0), series(SeriesKind::Icmp)));
        let hole = Hole {
            passes_bytes: 1400,
            interface_bytes: 1500,
            direction: Some(Direction::Up),
            targets: vec!["far".into()],
        };
        recorder.hole(&("wan".into(), 4), clock::now(), &hole);
        let far: std::net::IpAddr = [192, 0, 2, 1].into();
        assert_eq!(recorder.walks.urgent(), [far]);
    }
}
