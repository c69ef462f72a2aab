//! From which hop on targets are bad while others are well: what walks find of it is part of the event.

use std::collections::BTreeMap;

use bufferbane_store::{Event, EventId};

use crate::walk::{News, Start};

const KIND: &str = "routing_fault";
/// Events that are remembered: one that is over may be back within the hold-down.
const KEPT: usize = 32;

/// See the module: the latest of these events, as detectors tell them, and where each starts.
#[derive(Debug, Default)]
pub(super) struct Faults(BTreeMap<EventId, (Event, Option<Start>)>);

impl Faults {
    /// What detectors tell of an event; gives it as it is to be told.
    pub(super) fn tell(&mut self, id: EventId, event: Event) -> Event {
        if event.kind != KIND {
            return event;
        }
        let start = self.0.get(&id).and_then(|(_, start)| *start);
        let told = explained(&event, start);
        self.0.insert(id, (event, start));
        if self.0.len() > KEPT {
            self.0.pop_first();
        }
        told
    }

    /// What walks have found; gives the events of which it is now known where they start, with that.
    pub(super) fn learn(&mut self, news: &[News]) -> Vec<(EventId, Event)> {
        let mut learned = Vec::new();
        for one in news {
            let News::Start(ids, start) = one else {
                continue;
            };
            for id in ids {
                // The first that finds it counts: it was nearest to the begin.
                if let Some((event, known @ None)) = self.0.get_mut(id) {
                    *known = Some(*start);
                    learned.push((*id, explained(event, *known)));
                }
            }
        }
        learned
    }
}

fn explained(event: &Event, start: Option<Start>) -> Event {
    let mut event = event.clone();
    let Some(start) = start else {
        return event;
    };
    let by = start.by.as_str();
    let who = start
        .address
        .map_or_else(String::new, |a| format!(" ({a})"));
    event.text = format!("{}; {by} starts at hop {}{who}", event.text, start.hop);
    let mut set = |name: &str, value| event.values.insert(name.into(), value);
    set("from_hop", start.hop.into());
    set("from_hop_by", by.into());
    set("well_to_hop", start.well_to.into());
    if let Some(address) = start.address {
        set("from_hop_address", address.to_string().into());
    }
    event
}

#[cfg(test)]
mod tests {
    use bufferbane_core::time::Monotonic;
    use bufferbane_store::Severity;
    use serde_json::json;

    use super::*;
    use crate::walk::By;

    #[test]
    fn where_it_starts_stays_part_of_the_event_whatever_else_is_told_of_it() {
        let event = |kind: &str, text: &str| {
            Event::new(kind, Severity::Warning, 1, Monotonic::ZERO, text.into())
        };
        let start = |hop| Start {
            hop,
            address: Some([10, 0, 0, 4].into()),
            well_to: 2,
            by: By::Loss,
        };
        let mut faults = Faults::default();
        let id = EventId(7);
        assert_eq!(faults.tell(id, event(KIND, "differs")).text, "differs");
        faults.tell(EventId(8), event("packet_loss", "lost"));
        let found = News::Start(vec![id, EventId(8), EventId(9)], start(4));
        let learned = faults.learn(&[found]);
        let [(EventId(7), told)] = &learned[..] else {
            panic!("{learned:?}");
        };
        assert_eq!(told.text, "differs; loss starts at hop 4 (10.0.0.4)");
        // Another walk may see it elsewhere; the first was nearest to the begin.
        assert!(faults.learn(&[News::Start(vec![id], start(5))]).is_empty());
        let told = faults.tell(id, event(KIND, "differs more"));
        assert_eq!(told.text, "differs more; loss starts at hop 4 (10.0.0.4)");
        let values = json!({
            "from_hop": 4, "from_hop_address": "10.0.0.4", "from_hop_by": "loss", "well_to_hop": 2
        });
        assert_eq!(json!(told.values), values);
        // Those that were told last are remembered.
        for n in 0..100 {
            faults.tell(EventId(100 + n), event(KIND, "x"));
        }
        assert_eq!(faults.0.len(), KEPT);
    }
}
