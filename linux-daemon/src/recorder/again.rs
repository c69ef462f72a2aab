//! Facts that come and go: what is back within the hold-down is the same event, with a count.

use std::collections::HashMap;

use bufferbane_store::{Event, EventId};
use serde_json::{Value, json};

/// What a link, a provider or a far end that comes and goes would fill a store with.
pub(super) const KINDS: [&str; 7] = [
    "address_change",
    "link_down",
    "link_up",
    "not_probed",
    "reflector_back",
    "reflector_lost",
    "route_change",
];
/// Those of other words are about something else.
const BY_WORDS: [&str; 3] = ["not_probed", "reflector_back", "reflector_lost"];
/// Their words say what is new, and not only what they are about.
const CHANGES: [&str; 2] = ["address_change", "route_change"];
/// Most changes whose words are kept.
const EARLIER: usize = 32;
/// Most spells that an event tells of one by one; of more, those that lie nearest to each other become one.
const SPELLS: usize = 32;

/// Kind, interface, target, and the words where these tell what it is about.
pub(super) type Key = (String, String, Option<String>, String);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Again(HashMap<Key, (EventId, Event)>);

impl Again {
    /// What begins now as `event`, or is a moment, is this one again, as it stands then; `None` where it is new.
    pub(super) fn back(&mut self, event: &Event, hold_down_ns: u64) -> Option<(EventId, Event)> {
        let at_ns = event.start_ns;
        let ago_ns = |e: &Event| e.end_ns.map(|end| at_ns.saturating_sub(end));
        self.0
            .retain(|_, (_, e)| ago_ns(e).is_some_and(|ns| ns < hold_down_ns));
        let (id, before) = self.0.remove(&key(event))?;
        let times = times(&before).unwrap_or(1) + 1;
        let mut now = event.clone();
        now.start_ns = before.start_ns;
        now.text += &count(&event.kind, times);
        now.values.insert("times".into(), times.into());
        if CHANGES.contains(&event.kind.as_str()) {
            let words = before.text.strip_suffix(&count(&event.kind, times - 1));
            let known = before.values.get("earlier").and_then(Value::as_array);
            let mut earlier = known.cloned().unwrap_or_default();
            earlier.push(words.unwrap_or(&before.text).into());
            let more = earlier.len().saturating_sub(EARLIER);
            now.values
                .insert("earlier".into(), earlier.split_off(more).into());
        }
        if event.end_ns.is_none() {
            let mut spells = spells(&before);
            spells.push([Some(at_ns.saturating_sub(before.start_ns)), None]);
            join(&mut spells);
            now.values.insert("spells".into(), json!(spells));
        }
        Some((id, now))
    }

    /// `event` is over, and may be back.
    pub(super) fn over(&mut self, id: EventId, event: &mut Event) {
        if !KINDS.contains(&event.kind.as_str()) {
            return;
        }
        if event.values.contains_key("spells") {
            let spells = spells(event);
            event.values.insert("spells".into(), json!(spells));
        }
        self.0.insert(key(event), (id, event.clone()));
    }
}

pub(super) fn key(event: &Event) -> Key {
    let counted = times(event).map(|n| count(&event.kind, n));
    let text = counted.and_then(|c| event.text.strip_suffix(&c));
    let text = match event.kind.as_str() {
        kind if BY_WORDS.contains(&kind) => text.unwrap_or(&event.text),
        _ => "",
    };
    (
        event.kind.clone(),
        event.interface.clone(),
        event.target.clone(),
        text.to_owned(),
    )
}

fn times(event: &Event) -> Option<u64> {
    event.values.get("times")?.as_u64()
}

fn count(kind: &str, times: u64) -> String {
    let what = if CHANGES.contains(&kind) {
        "changes"
    } else {
        "times"
    };
    format!(" ({times} {what})")
}

/// From when to when it was so, ns since the event's begin; the end of one that lasts is not known. One that is over has
/// an end for each.
fn spells(event: &Event) -> Vec<[Option<u64>; 2]> {
    let end_ns = event.end_ns.map(|end| end.saturating_sub(event.start_ns));
    let known = event.values.get("spells").and_then(Value::as_array);
    let Some(known) = known else {
        return vec![[Some(0), end_ns]];
    };
    let edges = |s: &Value| [0, 1].map(|n| s.get(n).and_then(Value::as_u64));
    let all = known.iter().map(edges);
    all.map(|[from, to]| [from, to.or(end_ns)]).collect()
}

fn join(spells: &mut Vec<[Option<u64>; 2]>) {
    while spells.len() > SPELLS {
        let pauses = spells
            .windows(2)
            .map(|w| w[1][0].zip(w[0][1]).map(|(b, a)| b.saturating_sub(a)));
        let Some((n, _)) = pauses.enumerate().min_by_key(|(_, pause)| *pause) else {
            return;
        };
        let [_, end] = spells.remove(n + 1);
        spells[n][1] = end;
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_core::time::Monotonic;
    use bufferbane_store::Severity;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn fact(kind: &str, at_s: u64, text: &str, lasts: bool) -> Event {
        let at = Monotonic::from_nanos(at_s * S);
        let mut event = Event::new(kind, Severity::Warning, 1, at, text.into());
        event.interface = "wan".into();
        event.end_ns = (!lasts).then_some(event.start_ns);
        event
    }

    /// Lets facts begin at these seconds and last for one, or be moments; gives the events as they stand in the end.
    fn told(kind: &str, lasts: bool, spells: &[(u64, &str)]) -> Vec<Event> {
        let mut again = Again::default();
        let mut events: Vec<Event> = Vec::new();
        for (at_s, text) in spells {
            let event = fact(kind, *at_s, text, lasts);
            let (id, mut event) = again.back(&event, 300 * S).unwrap_or_else(|| {
                events.push(event.clone());
                (EventId(events.len() as u64 - 1), event)
            });
            event.end_ns = Some((at_s + u64::from(lasts)) * S);
            again.over(id, &mut event);
            events[id.0 as usize] = event;
        }
        events
    }

    #[test]
    fn what_is_back_within_the_hold_down_is_one_event_that_knows_each_time() {
        let text = "interface wan went down";
        let all = told(
            "link_down",
            true,
            &[(100, text), (105, text), (400, text), (702, text)],
        );
        let [flaps, alone] = &all[..] else {
            panic!("{all:#?}");
        };
        assert_eq!((flaps.start_ns, flaps.end_ns), (100 * S, Some(401 * S)));
        assert_eq!(flaps.text, "interface wan went down (3 times)");
        assert_eq!(flaps.values["times"], 3);
        let spells = json!([[0, S], [5 * S, 6 * S], [300 * S, 301 * S]]);
        assert_eq!(flaps.values["spells"], spells);
        assert_eq!((alone.text.as_str(), alone.values.len()), (text, 0));
        // Other words are about something else, unless they say what is new.
        let two = told("reflector_back", false, &[(1, "a"), (2, "b"), (3, "a")]);
        let texts: Vec<&str> = two.iter().map(|e| e.text.as_str()).collect();
        assert_eq!(texts, ["a (2 times)", "b"]);
        assert_eq!(two[0].end_ns, Some(3 * S));
        assert!(!two[0].values.contains_key("spells"));
        let one = told("address_change", false, &[(1, "a"), (2, "b"), (3, "c")]);
        let texts: Vec<&str> = one.iter().map(|e| e.text.as_str()).collect();
        assert_eq!(texts, ["c (3 changes)"]);
        assert_eq!(one[0].values["earlier"], json!(["a", "b"]));
        // These are told each by itself, and one that lasts is not over.
        assert_eq!(told("clock_step", false, &[(1, "a"), (2, "a")]).len(), 2);
        let mut again = Again::default();
        let mut down = fact("link_down", 1, text, true);
        down.end_ns = Some(2 * S);
        again.over(EventId(0), &mut down);
        let (_, lasts) = again
            .back(&fact("link_down", 3, text, true), 300 * S)
            .unwrap();
        assert_eq!(lasts.values["spells"], json!([[0, S], [2 * S, null]]));
        assert!(
            again
                .back(&fact("link_down", 4, text, true), 300 * S)
                .is_none()
        );
    }

    #[test]
    fn however_often_it_comes_back_its_event_stays_small() {
        let all: Vec<(u64, &str)> = (0..500).map(|n| (10 * n + n % 7, "down")).collect();
        let told = told("link_down", true, &all);
        let [one] = &told[..] else {
            panic!("{}", told.len());
        };
        assert_eq!(one.values["times"], 500);
        assert!(!one.values.contains_key("earlier"));
        let spells = spells(one);
        assert_eq!(spells.len(), SPELLS);
        assert_eq!(spells[0][0], Some(0));
        assert_eq!(spells[SPELLS - 1][1], one.end_ns);
        assert!(spells.windows(2).all(|w| w[0][1] < w[1][0]));
        let all: Vec<(u64, &str)> = (0..500).map(|n| (n, "x")).collect();
        let one = self::told("address_change", false, &all);
        assert_eq!(one[0].values["earlier"], json!(vec!["x"; EARLIER]));
    }
}
