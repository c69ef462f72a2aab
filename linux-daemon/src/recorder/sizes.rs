//! The largest packets that pass: recorded, and told where larger ones vanish.

use std::collections::HashMap;

use bufferbane_core::time::Monotonic;
use bufferbane_store::{Direction, Event, EventId, Severity};

use super::{Recorder, note};
use crate::alerts::News as Alarm;
use crate::sizes::{self, Hole, News, Place, Sizes};

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
        log::warn!("{}: {}", place.0, event.text);
        let id = writer.event(event.clone());
        note(&self.status, &self.meters, id, &event);
        self.alerts.tell(Alarm::Begin, id, &event);
        self.open_events.insert(name, (id, event));
    }
}

/// What detectors tell of sizes that vanish: more is found out. Gives the event where a search has told it, which is
/// among the `open` ones by their names, or is over since; `told` are those of detectors.
pub(super) fn told_by_search(
    sizes: &mut Sizes,
    (open, told): (&Open, &Told),
    now: Monotonic,
    known: Option<EventId>,
    event: &mut Event,
) -> Option<EventId> {
    if event.kind != KIND {
        return None;
    }
    let own = match known {
        None => {
            sizes.suspect(now, &event.interface, event.target.as_deref());
            // One of two families of which one is told already is told by itself: else nobody hears of the other.
            let own: Option<Vec<EventId>> = sizes::places(event)
                .map(|place| open.get(&name(&place)).map(|(id, _)| *id))
                .collect();
            own.and_then(|ids| ids.first().copied())
        }
        // It ends when a search finds it over, and what detectors see of a time comes later.
        Some(id) if !told.contains_key(&id) => return known,
        Some(id) => {
            // Whose series are gone says no more which they were.
            let before = told.get(&id).and_then(|e| e.values.get("family"));
            if let Some(family) = before
                && !event.values.contains_key("family")
                && event.end_ns.is_some()
            {
                event.values.insert("family".into(), family.clone());
            }
            None
        }
    };
    if own.is_none() {
        sizes.explain(event);
    }
    own
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
    use super::super::testing::{any_room, recorder};
    use super::*;
    use std::collections::BTreeMap;

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
        let over = event("a", Some(5));
        let mut update = over.clone();
        let told_by = told_by_search(
            &mut sizes,
            (&open, &told),
            now,
            Some(EventId(1)),
            &mut update,
        );
        assert_eq!(told_by, None);
        follow(&mut sizes, &open, &mut told, now, (EventId(1), &over));
        assert_eq!(told.keys().collect::<Vec<_>>(), [&EventId(2)]);
        // One that a search has told is its own until it ends, and no detector's afterwards.
        let place = ("wan".to_owned(), 4);
        open.insert(name(&place), (EventId(3), event("c", None)));
        for known in [None, Some(EventId(3))] {
            let mut news = event("c", None);
            let told_by = told_by_search(&mut sizes, (&open, &told), now, known, &mut news);
            assert_eq!(told_by, Some(EventId(3)));
        }
        open.clear();
        let known = Some(EventId(3));
        let mut news = event("c", None);
        let told_by = told_by_search(&mut sizes, (&open, &told), now, known, &mut news);
        assert_eq!(told_by, known);
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
            assert_eq!(told_by, own, "{news:?}");
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
}
