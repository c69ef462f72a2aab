//! The largest packets that pass: recorded, and told where larger ones vanish.

use std::collections::HashMap;

use bufferbane_core::time::Monotonic;
use bufferbane_store::{Direction, Event, EventId, Severity};

use super::{Recorder, note};
use crate::alerts::News as Alarm;
use crate::sizes::{Hole, News, Place, Sizes};

const KIND: &str = "mtu_black_hole";

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
            }
        }
    }

    /// Large packets vanish: an event, or part of the one that is told already.
    fn hole(&mut self, place: &Place, at: Monotonic, hole: &Hole) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        self.commit_soon = true;
        if let Some((id, event)) = self.told_holes.get_mut(&place.0) {
            self.sizes.explain(event);
            writer.update_event(*id, event.clone());
            return;
        }
        let name = name(place);
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

/// What detectors tell of sizes that vanish: more is found out. Gives the event where a search has told it before,
/// among the `open` ones by their names.
pub(super) fn told_by_search(
    sizes: &mut Sizes,
    open: &HashMap<String, (EventId, Event)>,
    now: Monotonic,
    known: Option<EventId>,
    event: &mut Event,
) -> Option<EventId> {
    if event.kind != KIND {
        return None;
    }
    if known.is_none() {
        sizes.suspect(now, &event.interface, event.target.as_deref());
    }
    let own = [4, 6].into_iter().find_map(|family| {
        let place = (event.interface.clone(), family);
        open.get(&name(&place)).map(|(id, _)| *id)
    });
    // It ends when a search finds it over.
    let own = own.filter(|id| known.is_none_or(|k| k == *id));
    if own.is_none() {
        sizes.explain(event);
    }
    own
}

fn name((interface, family): &Place) -> String {
    format!("{KIND} {interface} {family}")
}

fn describe(event: &mut Event, family: u8, hole: &Hole) {
    let way = match hole.direction {
        Some(Direction::Up) => " on the way up",
        Some(Direction::Down) => " on the way down",
        _ => "",
    };
    event.text = format!(
        "IPv{family} packets larger than {} bytes to {} vanish{way}, and nobody says so; the interface takes {}",
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
