//! What makes trains come sooner, and what they belong to then.

use bufferbane_core::time::Monotonic;
use bufferbane_store::EventId;

use crate::status::Happening;

/// Events that make another look at the line worth while as long as they last.
const WHILE: [&str; 7] = [
    "latency_spike",
    "high_jitter",
    "packet_loss",
    "loss_burst",
    "bufferbloat",
    "upload_degraded",
    "download_degraded",
];
/// Those in which nothing passes: the line is looked at when they are over.
const AFTER: [&str; 2] = ["micro_outage", "outage"];
/// What comes so long after an outage is known to be over still belongs to it, ns.
const AFTER_NS: u64 = 60_000_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    ongoing: Vec<u64>,
    /// The latest outage that is over, and when that was seen.
    over: Option<(u64, Monotonic)>,
    /// What was over at the first look is of before.
    has_looked: bool,
    /// The latest outage of which it is known that it is over. Numbers begin with 0.
    known: Option<u64>,
}

impl Alarms {
    /// Looks at what happens on an interface: whether trains are to come now.
    pub(super) fn look<'a>(
        &mut self,
        now: Monotonic,
        interface: &str,
        events: impl IntoIterator<Item = &'a Happening> + Clone,
    ) -> bool {
        let is_recent = |(_, at): &(u64, Monotonic)| now.saturating_since(*at) < AFTER_NS;
        self.over = self.over.filter(is_recent);
        let of_line = |e: &&Happening| e.interface == interface;
        let was_well = self.ongoing.is_empty();
        self.ongoing = events
            .clone()
            .into_iter()
            .filter(of_line)
            .filter(|e| e.ongoing && WHILE.contains(&e.kind.as_str()))
            .map(|e| e.id)
            .collect();
        let last = events
            .into_iter()
            .filter(of_line)
            .filter(|e| !e.ongoing && AFTER.contains(&e.kind.as_str()))
            .map(|e| e.id)
            .max();
        let is_first_look = !std::mem::replace(&mut self.has_looked, true);
        let is_over = last > self.known && !is_first_look;
        self.known = last.max(self.known);
        if is_over {
            self.over = last.map(|id| (id, now));
        }
        is_over || (was_well && !self.ongoing.is_empty())
    }

    /// The events that what is seen now belongs to.
    pub(super) fn events(&self) -> Vec<EventId> {
        let over = self.over.map(|(id, _)| id);
        self.ongoing
            .iter()
            .copied()
            .chain(over)
            .map(EventId)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_store::Severity;

    use super::*;

    fn event(id: u64, kind: &str, ongoing: bool) -> Happening {
        Happening {
            id,
            at_ns: 0,
            kind: kind.into(),
            severity: Severity::Warning,
            interface: "eth0".into(),
            target: None,
            family: None,
            text: String::new(),
            ongoing,
        }
    }

    /// Whether trains come, and what they belong to, at a second.
    fn look(alarms: &mut Alarms, s: u64, events: &[Happening]) -> (bool, Vec<u64>) {
        let now = Monotonic::from_nanos(s * 1_000_000_000);
        let come = alarms.look(now, "eth0", events);
        (come, alarms.events().iter().map(|id| id.0).collect())
    }

    #[test]
    fn the_first_event_of_a_store_is_an_event() {
        let mut alarms = Alarms::default();
        assert_eq!(look(&mut alarms, 0, &[]), (false, vec![]));
        let cut = [event(0, "micro_outage", false)];
        assert_eq!(look(&mut alarms, 1, &cut), (true, vec![0]));
        assert_eq!(look(&mut alarms, 2, &cut), (false, vec![0]));
    }

    #[test]
    fn trains_come_once_for_what_begins_and_belong_to_all_that_lasts() {
        let mut alarms = Alarms::default();
        assert_eq!(look(&mut alarms, 0, &[]), (false, vec![]));
        let mut other = event(3, "packet_loss", true);
        other.interface = "wlan0".into();
        let both = [
            event(1, "packet_loss", true),
            event(2, "route_change", true),
            other,
            event(4, "high_jitter", true),
        ];
        assert_eq!(look(&mut alarms, 1, &both[..3]), (true, vec![1]));
        assert_eq!(look(&mut alarms, 2, &both), (false, vec![1, 4]));
        let over = both.map(|e| Happening {
            ongoing: false,
            ..e
        });
        assert_eq!(look(&mut alarms, 3, &over), (false, vec![]));
    }

    #[test]
    fn after_an_outage_trains_come_once_and_belong_to_it_for_a_while() {
        let mut alarms = Alarms::default();
        // One from before says nothing of now.
        let before = event(1, "outage", false);
        let one = |ongoing| [before.clone(), event(2, "outage", ongoing)];
        assert_eq!(look(&mut alarms, 0, &one(false)[..1]), (false, vec![]));
        assert_eq!(look(&mut alarms, 1, &one(true)), (false, vec![]));
        assert_eq!(look(&mut alarms, 30, &one(false)), (true, vec![2]));
        assert_eq!(look(&mut alarms, 31, &one(false)), (false, vec![2]));
        // Short ones are told when they are over.
        let two = [&one(false)[..], &[event(3, "micro_outage", false)]].concat();
        assert_eq!(look(&mut alarms, 50, &two), (true, vec![3]));
        assert_eq!(look(&mut alarms, 109, &two), (false, vec![3]));
        assert_eq!(look(&mut alarms, 110, &two), (false, vec![]));
    }
}
