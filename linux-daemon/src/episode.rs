//! What an episode of delay or loss is by the load of its time: a queue of the household's own, delay
//! on an idle line, or loss without load.

use std::collections::{HashMap, VecDeque};

use bufferbane_core::detect::{Event, Kind, LoadedWays, Value};
use bufferbane_core::time::Monotonic;

/// Seconds of load that are remembered for each line: an event that lasts longer is judged by its
/// end.
const SECONDS: usize = 900;
/// A second of load more or less at either end, ns.
const SLACK_NS: u64 = 1_000_000_000;

/// One line.
#[derive(Default)]
struct Line {
    /// The end of each second, and which ways were loaded.
    seconds: VecDeque<(Monotonic, LoadedWays)>,
    /// Whether its counters show everybody's traffic, so that no load is an idle line.
    everybody: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Loads(HashMap<u8, Line>);

impl Loads {
    /// Which ways of a line were loaded over the second up to `at`, and whether everybody's traffic is known.
    pub(crate) fn add(&mut self, line: u8, at: Monotonic, loaded: LoadedWays, everybody: bool) {
        let line = self.0.entry(line).or_default();
        line.everybody = everybody;
        if line.seconds.len() == SECONDS {
            line.seconds.pop_front();
        }
        line.seconds.push_back((at, loaded));
    }

    /// Nothing is known of a line any more.
    pub(crate) fn forget(&mut self, line: u8) {
        self.0.remove(&line);
    }

    /// The word for an event, where load says anything of it and is known.
    pub(crate) fn class(&self, event: &Event) -> Option<&'static str> {
        let loss = match event.kind {
            Kind::Bufferbloat => return Some("self_inflicted_queue"),
            Kind::LatencySpike => {
                let load = event.values.iter().find(|(name, _)| *name == "load");
                return match load.map(|(_, value)| value) {
                    Some(Value::Word("idle")) => Some("delay_on_idle_line"),
                    _ => None,
                };
            }
            Kind::HighJitter => false,
            Kind::PacketLoss | Kind::LossBurst | Kind::PeriodicLoss => true,
            _ => return None,
        };
        let line = self.0.get(&event.line)?;
        let from = event.start.saturating_sub(SLACK_NS);
        let to = event.end.map(|end| end.saturating_add(2 * SLACK_NS));
        let mut counts = [0usize; 2];
        for (at, loaded) in &line.seconds {
            if *at >= from && to.is_none_or(|to| *at <= to) {
                counts[usize::from(loaded.explain(event.direction))] += 1;
            }
        }
        let [idle, loaded] = counts;
        match (idle + loaded > 0, 2 * loaded >= idle + loaded, loss) {
            (false, ..) => None,
            (true, true, true) => Some("loss_under_load"),
            (true, true, false) => Some("self_inflicted_queue"),
            (true, false, true) if line.everybody => Some("loss_without_load"),
            (true, false, false) if line.everybody => Some("delay_on_idle_line"),
            (true, false, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::detect::{Direction, SeriesSet, Severity};

    fn event(kind: Kind, from_s: u64, to_s: u64) -> Event {
        let at = |s: u64| Monotonic::from_nanos(s * 1_000_000_000);
        Event {
            kind,
            severity: Severity::Warning,
            line: 0,
            series: SeriesSet::default(),
            direction: None,
            start: at(from_s),
            end: Some(at(to_s)),
            values: Default::default(),
        }
    }

    #[test]
    fn loss_and_delay_are_told_apart_by_the_load_of_their_time() {
        let up = LoadedWays {
            up: true,
            down: false,
        };
        for everybody in [true, false] {
            let mut loads = Loads::default();
            for s in 1..=100u64 {
                let at = Monotonic::from_nanos(s * 1_000_000_000);
                let loaded = if s > 50 { up } else { LoadedWays::default() };
                loads.add(0, at, loaded, everybody);
            }
            let idle = |word| everybody.then_some(word);
            for (kind, from, to, class) in [
                (Kind::LossBurst, 20, 21, idle("loss_without_load")),
                (Kind::PacketLoss, 60, 80, Some("loss_under_load")),
                (Kind::HighJitter, 10, 30, idle("delay_on_idle_line")),
                (Kind::HighJitter, 60, 90, Some("self_inflicted_queue")),
                (Kind::Bufferbloat, 10, 30, Some("self_inflicted_queue")),
                (Kind::Outage, 10, 30, None),
                // Before anything was known.
                (Kind::PacketLoss, 1000, 1010, None),
            ] {
                assert_eq!(loads.class(&event(kind, from, to)), class, "{kind:?}");
            }
            // What the household uploads is not why answers are lost or late on the way down.
            for (direction, loss, delay) in [
                (
                    Direction::Up,
                    Some("loss_under_load"),
                    Some("self_inflicted_queue"),
                ),
                (
                    Direction::Both,
                    Some("loss_under_load"),
                    Some("self_inflicted_queue"),
                ),
                (
                    Direction::Down,
                    idle("loss_without_load"),
                    idle("delay_on_idle_line"),
                ),
            ] {
                for (kind, class) in [(Kind::PacketLoss, loss), (Kind::HighJitter, delay)] {
                    let event = Event {
                        direction: Some(direction),
                        ..event(kind, 60, 80)
                    };
                    assert_eq!(loads.class(&event), class, "{kind:?} {direction:?}");
                }
            }
        }
    }
}
