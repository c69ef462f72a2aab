//! Packet trains that were sent because of an event, and what they said.

use bufferbane_store::{Capacity, Direction, Reader, StoreError};
use serde::Serialize;

use super::model::{Event, Time};
use super::paths::AROUND_NS;
use crate::loads::rate;
use crate::when::Range;

/// What a train said.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Train {
    /// When it had passed.
    pub(crate) at: Time,
    /// `up` or `down`.
    pub(crate) direction: Direction,
    /// What it passed at.
    pub(crate) burst_bps: u64,
    /// What goes on passing; `None` where the train was too short to say.
    pub(crate) sustained_bps: Option<u64>,
    /// How sure that is, 0 to 1.
    pub(crate) confidence: f64,
}

impl Train {
    const fn of(at_ns: i64, c: &Capacity) -> Self {
        Self {
            at: Time(at_ns),
            direction: c.direction,
            burst_bps: c.burst_bps,
            sustained_bps: c.sustained_bps,
            confidence: c.confidence,
        }
    }

    /// `a packet train passed upward at 4.9 Mbit/s (confidence 0.95)`.
    fn found(&self) -> String {
        format!("a packet train passed {} at {}", self.way(), self.rates())
    }

    const fn way(&self) -> &'static str {
        match self.direction {
            Direction::Up => "upward",
            Direction::Down => "downward",
            Direction::Both => "both ways",
        }
    }

    /// `4.9 Mbit/s (confidence 0.95)`.
    fn rates(&self) -> String {
        let then = match self.sustained_bps {
            Some(bps) if bps < self.burst_bps => format!(", and then at {}", rate(bps)),
            _ => String::new(),
        };
        format!(
            "{}{then} (confidence {:.2})",
            rate(self.burst_bps),
            self.confidence
        )
    }
}

/// What `trains` said, all of one direction, the oldest first; each alone where it is one, else together, with when the
/// last passed by `time`.
pub(super) fn found(trains: &[&Train], time: impl Fn(Time) -> String) -> Option<String> {
    let (first, last) = (trains.first()?, trains.last()?);
    if trains.len() == 1 {
        return Some(first.found());
    }
    let mut sorted = trains.to_vec();
    sorted.sort_by_key(|t| t.burst_bps);
    let (least, middle, most) = (
        sorted.first()?,
        sorted.get(sorted.len() / 2)?,
        sorted.last()?,
    );
    Some(format!(
        "{} packet trains until {} passed {} at {} to {}, the middle one at {}",
        trains.len(),
        time(last.at),
        first.way(),
        rate(least.burst_bps),
        rate(most.burst_bps),
        middle.rates()
    ))
}

/// Puts to each event the trains that were sent because of it.
pub(super) fn put_to(
    events: &mut [Event],
    reader: &Reader,
    range: Range,
) -> Result<(), StoreError> {
    let Some(first) = events.iter().filter_map(|e| e.start).min() else {
        return Ok(());
    };
    let until_ns = range.to_ns.saturating_add(AROUND_NS);
    for (at_ns, c) in reader.capacities(first.0, until_ns)? {
        let own = |e: &&mut Event| c.events.iter().any(|id| id.0 == e.id);
        for e in events.iter_mut().filter(own) {
            e.trains.push(Train::of(at_ns, &c));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_train_is_told_with_what_goes_on_passing_where_that_is_less() {
        let train = |sustained_bps| Train {
            at: Time(0),
            direction: Direction::Up,
            burst_bps: 20_000_000,
            sustained_bps,
            confidence: 0.95,
        };
        let says = "a packet train passed upward at 20.0 Mbit/s (confidence 0.95)";
        assert_eq!(train(None).found(), says);
        assert_eq!(train(Some(20_000_000)).found(), says);
        assert!(
            train(Some(5_000_000))
                .found()
                .contains("Mbit/s, and then at 5.0 Mbit/s (")
        );
    }

    #[test]
    fn many_trains_are_one_sentence() {
        let train = |s: i64, mbps: u64| Train {
            at: Time(s),
            direction: Direction::Down,
            burst_bps: mbps * 1_000_000,
            sustained_bps: None,
            confidence: 0.95,
        };
        let all = [train(1, 20), train(2, 19), train(3, 23)];
        let all: Vec<&Train> = all.iter().collect();
        let said = |trains: &[&Train]| found(trains, |t| t.0.to_string());
        assert_eq!(
            said(&all).as_deref(),
            Some(
                "3 packet trains until 3 passed downward at 19.0 Mbit/s to 23.0 Mbit/s, the middle one at 20.0 Mbit/s \
                 (confidence 0.95)"
            )
        );
        assert_eq!(said(&all[..1]), Some(all[0].found()));
        assert_eq!(said(&[]), None);
    }
}
