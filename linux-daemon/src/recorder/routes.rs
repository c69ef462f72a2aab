//! Changes of the way that are told: what the number of hops, walks and the smallest delays say of one is one event.

use std::collections::{BTreeMap, HashMap};

use bufferbane_store::{Event, EventId};

use super::SECOND_NS;

/// What different witnesses say of one change comes within this time, ns: a way is walked soon after its number of hops
/// has changed, and twice.
const SAME_CHANGE_NS: u64 = 300 * SECOND_NS;
/// Another number of hops and another smallest delay this near to each other are one change, ns: the
/// delay tells when to some looks of five seconds.
const SAME_FLOOR_NS: u64 = 60 * SECOND_NS;

/// Interface and target.
type Key = (String, String);

/// One event, by those who speak of it.
#[derive(Debug, Default)]
struct Told {
    /// The number of hops, of one target or several.
    hops: Option<Event>,
    /// A walk to one target.
    way: Option<Event>,
    /// The smallest delays up and down, ns, in numbers of now and in words of the first time.
    floors: Option<(i64, i64, String)>,
}

impl Told {
    /// The event as it stands. What probes have measured goes before what few messages have.
    fn event(&self) -> Option<Event> {
        let mut event = self.hops.clone().or_else(|| self.way.clone())?;
        if let (Some(_), Some(way)) = (&self.hops, &self.way) {
            for (name, value) in &way.values {
                let known = event.values.entry(name.clone());
                known.or_insert_with(|| value.clone());
            }
            event.start_ns = event.start_ns.min(way.start_ns);
            event.text = format!("{}; {}", event.text, way.text);
        }
        if let Some((up_ns, down_ns, text)) = &self.floors {
            event.values.insert("floor_up_ns".into(), (*up_ns).into());
            event
                .values
                .insert("floor_down_ns".into(), (*down_ns).into());
            event.text = format!("{}; {text}", event.text);
        }
        Some(event)
    }

    /// Whether it had begun by `at_ns`, or was not long over, to so much.
    fn is_near(&self, at_ns: u64, within_ns: u64) -> bool {
        let known = self.hops.iter().chain(&self.way);
        let mut spans = known.map(|e| (e.start_ns, e.end_ns.unwrap_or(e.start_ns)));
        // In between, only what is near the latest change was of one.
        spans.any(|(from, to)| [from, to].iter().any(|t| t.abs_diff(at_ns) <= within_ns))
    }
}

/// What a walk's change is to what is told.
#[derive(Debug)]
pub(super) enum Walked {
    /// Another event.
    New,
    /// Part of this one.
    Part(EventId, Event),
    /// Part of one in which the way to another target stands for all of them.
    Told,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// The latest change of each way.
    latest: HashMap<Key, EventId>,
    told: BTreeMap<EventId, Told>,
}

/// The targets that an event names.
fn targets(event: &Event) -> Vec<String> {
    let several = event.values.get("targets").and_then(|t| t.as_array());
    let names = several.into_iter().flatten().filter_map(|t| t.as_str());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    if names.is_empty() {
        names.extend(event.target.clone());
    }
    names
}

impl Routes {
    fn latest(&mut self, interface: &str, target: &str) -> Option<(EventId, &mut Told)> {
        let key = (interface.to_owned(), target.to_owned());
        let id = *self.latest.get(&key)?;
        Some((id, self.told.get_mut(&id)?))
    }

    fn name(&mut self, id: EventId, event: &Event) {
        for target in targets(event) {
            self.latest.insert((event.interface.clone(), target), id);
        }
        let latest = &self.latest;
        self.told
            .retain(|id, _| latest.values().any(|known| known == id));
    }

    /// The number of hops has changed, which is told as this event. Gives the targets.
    pub(super) fn begin(&mut self, id: EventId, event: &Event) -> Vec<String> {
        let told = Told {
            hops: Some(event.clone()),
            ..Told::default()
        };
        self.told.insert(id, told);
        self.name(id, event);
        targets(event)
    }

    /// More is known of the number of hops: `event` gets what others have said of it. Gives targets that it had not.
    pub(super) fn update(&mut self, id: EventId, event: &mut Event) -> Vec<String> {
        let Some(told) = self.told.get_mut(&id) else {
            return Vec::new();
        };
        let before: Vec<String> = told.hops.iter().flat_map(targets).collect();
        let mut news = targets(event);
        news.retain(|t| !before.contains(t));
        told.hops = Some(event.clone());
        let merged = told.event();
        self.name(id, event);
        if let Some(merged) = merged {
            *event = merged;
        }
        news
    }

    /// Where a walk told of the change that `event` tells by the number of hops: that event, with both.
    pub(super) fn told_by_walk(&mut self, event: &Event) -> Option<(EventId, Event)> {
        let id = targets(event).iter().find_map(|target| {
            let (id, told) = self.latest(&event.interface, target)?;
            let is_same = told.hops.is_none() && told.is_near(event.start_ns, SAME_CHANGE_NS);
            is_same.then_some(id)
        })?;
        let told = self.told.get_mut(&id)?;
        told.hops = Some(event.clone());
        let joined = told.event()?;
        self.name(id, event);
        Some((id, joined))
    }

    /// A walk has found another way, which is told as `way` unless it is part of what is told.
    pub(super) fn walked(&mut self, way: &Event) -> Walked {
        let target = way.target.as_deref().unwrap_or_default();
        let Some((id, told)) = self.latest(&way.interface, target) else {
            return Walked::New;
        };
        if !told.is_near(way.start_ns, SAME_CHANGE_NS) {
            return Walked::New;
        }
        match &told.way {
            None => {
                told.way = Some(way.clone());
                told.event().map_or(Walked::New, |e| Walked::Part(id, e))
            }
            Some(known) if known.target != way.target => Walked::Told,
            Some(_) => Walked::New,
        }
    }

    /// It is told as this event.
    pub(super) fn begin_by_walk(&mut self, id: EventId, way: &Event) {
        let told = Told {
            way: Some(way.clone()),
            ..Told::default()
        };
        self.told.insert(id, told);
        self.name(id, way);
    }

    /// The smallest delays changed by so much, ns, from `from_ns` on: the event that it is part of, where there is one.
    pub(super) fn floors(
        &mut self,
        (interface, target): (&str, &str),
        from_ns: u64,
        (up_ns, down_ns): (i64, i64),
        text: &str,
    ) -> Option<(EventId, Event)> {
        let (id, told) = self.latest(interface, target)?;
        if !told.is_near(from_ns, SAME_FLOOR_NS) {
            return None;
        }
        let text = match told.floors.take() {
            Some((.., first)) => first,
            None => text.to_owned(),
        };
        told.floors = Some((up_ns, down_ns, text));
        Some((id, told.event()?))
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_core::time::Monotonic;
    use bufferbane_store::Severity;
    use serde_json::json;

    use super::*;

    fn event(s: u64, text: &str, target: Option<&str>) -> Event {
        let at = Monotonic::from_nanos(s * SECOND_NS);
        let mut e = Event::new("route_change", Severity::Info, 1, at, text.into());
        e.interface = "wan".into();
        e.target = target.map(str::to_owned);
        e.end_ns = Some(e.start_ns);
        e
    }

    fn by_hops(s: u64, targets: &[&str]) -> Event {
        let only = match targets {
            [only] => Some(*only),
            _ => None,
        };
        let mut e = event(s, "TTL", only);
        e.values.insert("ttl_after".into(), 60.into());
        e.values.insert("rtt_after_ns".into(), 7.into());
        e.values.insert("targets".into(), json!(targets));
        e
    }

    fn by_walk(s: u64, target: &str) -> Event {
        let mut e = event(s, &format!("way to {target}"), Some(target));
        for name in ["rtt_before_ns", "rtt_after_ns", "hops_after"] {
            e.values.insert(name.into(), 9.into());
        }
        e
    }

    #[test]
    fn the_number_of_hops_told_after_the_walk_is_part_of_the_same_change() {
        let mut routes = Routes::default();
        let id = EventId(5);
        routes.begin_by_walk(id, &by_walk(1000, "far"));
        // Of another target, or of another time, it is another change.
        assert!(routes.told_by_walk(&by_hops(1010, &["near"])).is_none());
        assert!(routes.told_by_walk(&by_hops(1400, &["far"])).is_none());
        let (same, joined) = routes.told_by_walk(&by_hops(1010, &["far"])).unwrap();
        assert_eq!((same, joined.start_ns), (id, 1000 * SECOND_NS));
        assert_eq!(joined.text, "TTL; way to far");
        assert_eq!(joined.values["rtt_after_ns"], json!(7));
        assert_eq!(joined.values["rtt_before_ns"], json!(9));
        assert!(joined.values.contains_key("hops_after"));
        // The next is told by itself.
        assert!(routes.told_by_walk(&by_hops(1020, &["far"])).is_none());
    }

    /// A way that many targets lie behind: what all walks find is one event, and so it stays when more becomes known.
    #[test]
    fn one_walk_stands_for_all_targets_of_a_change() {
        let mut routes = Routes::default();
        let id = EventId(5);
        let mut first = by_hops(1000, &["a", "b"]);
        assert_eq!(routes.begin(id, &first), ["a", "b"]);
        first = by_hops(1000, &["a", "b", "c"]);
        first.end_ns = Some(1400 * SECOND_NS);
        assert_eq!(routes.update(id, &mut first), ["c"]);
        let Walked::Part(part, event) = routes.walked(&by_walk(1010, "a")) else {
            panic!("{routes:?}");
        };
        assert_eq!((part, event.text.as_str()), (id, "TTL; way to a"));
        assert!(matches!(routes.walked(&by_walk(1015, "c")), Walked::Told));
        // It changed once more, a while after it was first told.
        assert!(matches!(routes.walked(&by_walk(1600, "b")), Walked::Told));
        assert!(matches!(routes.walked(&by_walk(1020, "a")), Walked::New));
        assert!(matches!(routes.walked(&by_walk(1010, "d")), Walked::New));
        assert!(matches!(routes.walked(&by_walk(1800, "b")), Walked::New));
        let delays = routes.floors(("wan", "b"), 1010 * SECOND_NS, (3, -4), "delays");
        assert_eq!(delays.unwrap().1.text, "TTL; way to a; delays");
        let mut later = by_hops(1000, &["a", "b", "c"]);
        later.text = "TTL twice".into();
        assert!(routes.update(id, &mut later).is_empty());
        assert_eq!(later.text, "TTL twice; way to a; delays");
        assert_eq!(later.values["floor_down_ns"], json!(-4));
    }

    /// What nobody can add to any more is not remembered.
    #[test]
    fn the_latest_change_of_each_way_is_remembered() {
        let mut routes = Routes::default();
        for n in 0..100 {
            routes.begin(EventId(n), &by_hops(1000 * n, &["a", "b"]));
        }
        assert_eq!((routes.told.len(), routes.latest.len()), (1, 2));
    }
}
