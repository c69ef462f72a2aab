//! What lines were found to carry before this run, who answered and how fast, and the ways to targets, read back from the
//! store: what is found now is held against them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bufferbane_core::detect::PastHour;
use bufferbane_core::household::SURE;
use bufferbane_store::{
    Capacity, Event, EventId, KnownPath, Method, Reader, SeriesInfo, StoreError, Trust,
};
use jiff::tz::TimeZone;

use super::hours::{self, Asked, Hour, asked};
use super::{SECOND_NS, findings, wall};
use crate::alerts::Lasted;
use crate::walk::Before;

/// Hours of the day, and who answered, are remembered for so long, ns.
const WEEK_NS: u64 = 7 * DAY_NS;
const DAY_NS: u64 = 86_400 * SECOND_NS;

/// A capacity of before.
#[derive(Debug)]
pub(crate) struct Found {
    /// ns since 1970.
    pub(crate) at_ns: i64,
    pub(crate) capacity: Capacity,
    /// What others carried meanwhile, bit/s, as far as that is known.
    pub(crate) others_bps: u64,
}

/// Ways are what the next walks are held against if they were seen within this time, ns.
const WAYS_NS: u64 = WEEK_NS;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// By interface, until it is probed: names that are never seen again take up no line.
    found: BTreeMap<String, Vec<Found>>,
    /// Those that answered, until they are probed.
    answered: HashMap<Asked, Vec<Hour>>,
    ways: Before,
    recent: Vec<Recent>,
}

/// An event of before that lasted when recording ended, or had ended within the longest hold-down there can be.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    pub(super) id: EventId,
    pub(super) event: Event,
    /// When it was, by the wall clock.
    pub(super) lasted: Lasted,
}

impl Past {
    /// What the detectors heard in the week before now, or before the last that was written where the
    /// clock is not set yet.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn read(store: &Path, wall_ns: i64, trust: Trust) -> Result<Self, String> {
        let reader = Reader::open(store).map_err(|e| e.to_string())?;
        let span = reader.span().map_err(|e| e.to_string())?;
        let last_ns = span.map_or(0, |(_, last)| last);
        let until_ns = if trust == Trust::None {
            last_ns
        } else {
            wall_ns
        };
        let from_ns = until_ns.saturating_sub_unsigned(WEEK_NS);
        // What lasted when recording ended is to be ended, however long ago that is.
        let events_from_ns = from_ns.min(last_ns.saturating_sub_unsigned(DAY_NS));
        let capacities = reader.capacities(from_ns, i64::MAX);
        let tests = reader.tests(from_ns, i64::MAX);
        // Not all tests were told to the detectors, and capacities do not say of which test they are: those
        // that were are taken from the tests themselves.
        let by_itself = |c: &Capacity| c.method != Method::Test && c.confidence >= SURE;
        let mut found: Vec<Found> = capacities
            .map_err(|e| e.to_string())?
            .into_iter()
            .filter(|(_, c)| by_itself(c))
            .map(|(at_ns, capacity)| Found {
                at_ns,
                capacity,
                others_bps: 0,
            })
            .collect();
        for (_, start_ns, test) in tests.map_err(|e| e.to_string())? {
            let lasted_ns = test.load_end_ns.saturating_sub(test.start_ns);
            let at_ns = start_ns.saturating_add_unsigned(lasted_ns);
            let tells = findings::tells(&test);
            let all = findings::capacities(&test).filter(|_| tells);
            found.extend(all.map(|(_, capacity, others_bps)| Found {
                at_ns,
                capacity,
                others_bps,
            }));
        }
        found.sort_by_key(|f| f.at_ns);
        let mut past: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        for f in found {
            past.entry(f.capacity.interface.clone())
                .or_default()
                .push(f);
        }
        let mut ways = reader
            .paths(until_ns.saturating_sub_unsigned(WAYS_NS), i64::MAX)
            .map_err(|e| e.to_string())?;
        ways.sort_by_key(|k| std::cmp::Reverse(k.last_ns));
        let mut before = Before::new();
        for KnownPath { path, .. } in ways {
            let key = (path.interface.clone(), path.target.clone(), path.address);
            before.entry(key).or_default().push(path);
        }
        Ok(Self {
            found: past,
            answered: hours::read(&reader, from_ns).map_err(|e| e.to_string())?,
            ways: before,
            recent: recent(&reader, events_from_ns, until_ns).map_err(|e| e.to_string())?,
        })
    }

    /// The events that may still last, once.
    pub(super) fn take_recent(&mut self) -> Vec<Recent> {
        std::mem::take(&mut self.recent)
    }

    /// How the hours were in which a series answered before this run, once; `None` where it never did.
    pub(super) fn take_hours(
        &mut self,
        info: &SeriesInfo,
        zone: &TimeZone,
    ) -> Option<impl Iterator<Item = PastHour> + use<>> {
        let hours = self.answered.remove(&asked(info))?;
        Some(hours::local(&hours, zone))
    }

    /// The ways to targets, once.
    pub(super) fn take_ways(&mut self) -> Before {
        std::mem::take(&mut self.ways)
    }

    /// What there is of an interface, once; each with its local time, ns, if there was one.
    pub(super) fn take(
        &mut self,
        interface: &str,
        zone: &TimeZone,
    ) -> Option<Vec<(Option<u64>, Found)>> {
        let found = self.found.remove(interface)?;
        let local_ns = |at_ns| u64::try_from(wall::local_ns(at_ns, zone)?).ok();
        let with_time = found.into_iter().map(|f| (local_ns(f.at_ns), f));
        Some(with_time.collect())
    }
}

fn recent(reader: &Reader, from_ns: i64, until_ns: i64) -> Result<Vec<Recent>, StoreError> {
    let map = reader.time_map();
    let mut recent = Vec::new();
    for (id, event) in reader.events(from_ns, i64::MAX)? {
        let at = |ns| map.wall_ns(event.boot, ns);
        let (Some(start_ns), Some(end_ns)) = (at(event.start_ns), event.end_ns.and_then(at)) else {
            continue;
        };
        if event.cut || end_ns >= until_ns.saturating_sub_unsigned(DAY_NS) {
            let lasted = (start_ns, Some(end_ns));
            recent.push(Recent { id, event, lasted });
        }
    }
    Ok(recent)
}

#[cfg(test)]
mod tests {
    use bufferbane_core::sample::{Observation, Sample, SeriesIndex};
    use bufferbane_linux_io::clock;
    use bufferbane_store::{SeriesKind, Severity};

    use super::super::testing::{any_room, recorder, series};
    use super::super::{Fact, Order};
    use super::*;

    #[test]
    fn what_lasted_when_recording_ended_is_known_however_long_ago_that_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let mut recorder = recorder(&path, any_room());
        recorder.obey(Order::Series(SeriesIndex(0), series(SeriesKind::Icmp)));
        let now = clock::now();
        let sample = Sample::lost(SeriesIndex(0), 0, now, 64);
        recorder.obey(Order::Observation(Observation::New(sample)));
        let down = Fact {
            values: Vec::new(),
            kind: "link_down",
            severity: Severity::Warning,
            interface: "wan".into(),
            target: None,
            text: "interface wan went down".into(),
        };
        let over = Fact {
            kind: "link_up",
            ..down.clone()
        };
        recorder.obey(Order::Begin(now, "link_down wan".into(), down));
        recorder.obey(Order::Moment(now, over));
        recorder.finish(clock::now());
        for days in [0, 6, 8, 400] {
            let wall_ns = clock::wall_now().saturating_add_unsigned(days * DAY_NS);
            let past = Past::read(&path, wall_ns, Trust::Disciplined).unwrap();
            let recent = past.recent.iter().filter(|r| r.event.cut);
            let kinds: Vec<&str> = recent.map(|r| r.event.kind.as_str()).collect();
            assert_eq!(kinds, ["link_down"], "after {days} days");
        }
    }
}
