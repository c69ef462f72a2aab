//! What reflectors drop themselves: one event from the first drop until a minute has passed without
//! any, however often they tell. Only its begin and its end are made durable at once.

use std::collections::BTreeMap;

use bufferbane_core::time::Monotonic;
use bufferbane_store::Severity;

use super::{Fact, MINUTE_NS, Recorder, note};

/// What one reflector drops, as long as it goes on.
#[derive(Debug)]
pub(super) struct Dropping {
    target: String,
    datagrams: u64,
    latest: Monotonic,
    /// How many the event tells of.
    told: u64,
}

/// By the name of the event.
pub(super) type ReflectorDrops = BTreeMap<String, Dropping>;

fn text(target: &str, datagrams: u64) -> String {
    format!(
        "{target} dropped {datagrams} packets itself: it is overloaded, or allows less than is sent"
    )
}

impl Recorder {
    /// The reflector that `interface` and `target` name dropped so many more.
    pub(super) fn reflector_dropped(
        &mut self,
        at: Monotonic,
        interface: &str,
        target: &str,
        datagrams: u32,
    ) {
        self.minute.reflector_dropped(datagrams);
        let datagrams = u64::from(datagrams);
        let name = format!("reflector_drops {interface} {target}");
        if let Some(dropping) = self.reflector_drops.get_mut(&name) {
            dropping.datagrams += datagrams;
            dropping.latest = dropping.latest.max(at);
            return;
        }
        let mut fact = Fact {
            values: Vec::new(),
            kind: "samples_dropped",
            severity: Severity::Warning,
            interface: interface.to_owned(),
            target: Some(target.to_owned()),
            text: String::new(),
        };
        let before = self.told_before(at, &fact);
        let before = before.and_then(|e| e.values.get("packets")?.as_u64());
        let datagrams = datagrams + before.unwrap_or(0);
        let dropping = Dropping {
            target: target.to_owned(),
            datagrams,
            latest: at,
            told: datagrams,
        };
        self.reflector_drops.insert(name.clone(), dropping);
        fact.values = vec![("packets", datagrams.into())];
        fact.text = text(target, datagrams);
        log::warn!("{interface}: {}", fact.text);
        self.fact(at, Some(name), fact, true);
    }

    /// Brings the events up to date, and ends those of reflectors that have not dropped for a minute.
    pub(super) fn sum_up_reflector_drops(&mut self, now: Monotonic) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        for (name, dropping) in &mut self.reflector_drops {
            if dropping.told != dropping.datagrams
                && let Some((id, event)) = self.open_events.get_mut(name)
            {
                dropping.told = dropping.datagrams;
                event.text = text(&dropping.target, dropping.datagrams);
                event
                    .values
                    .insert("packets".into(), dropping.datagrams.into());
                note(&self.status, &self.meters, *id, event);
                writer.update_event(*id, event.clone());
            }
        }
        let is_over = |d: &Dropping| now.saturating_since(d.latest) >= MINUTE_NS;
        let over = self.reflector_drops.extract_if(.., |_, d| is_over(d));
        for (name, dropping) in over.collect::<Vec<_>>() {
            log::info!("over: {}", text(&dropping.target, dropping.datagrams));
            self.end_fact(dropping.latest, &name);
        }
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_core::session::client::SessionEvent;
    use bufferbane_core::time::Monotonic;
    use bufferbane_linux_io::clock;
    use bufferbane_store::Reader;

    use super::Recorder;
    use crate::recorder::testing::{any_room, recorder};
    use crate::recorder::{SECOND_NS, Session};

    /// Four minutes of drops with every echo are one event, and two commits for its two ends.
    #[test]
    fn a_storm_of_drops_is_one_event_and_two_commits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let mut recorder = recorder(&path, any_room());
        let session = Session {
            interface: "wan".into(),
            target: "far.example".into(),
            family: 4,
        };
        recorder.session_begins(7, session);
        let begin = clock::now();
        let mut commits = 0;
        let mut now = begin;
        let mut go_on = |r: &mut Recorder, now: Monotonic| {
            r.sum_up_reflector_drops(now);
            if r.commit_soon {
                r.commit(now).unwrap();
                commits += 1;
            }
        };
        for _ in 0..240 * 20 {
            now = now.saturating_add(SECOND_NS / 20);
            recorder.session_event(7, now, SessionEvent::RemoteDrops(2));
            go_on(&mut recorder, now);
        }
        let latest = now;
        for _ in 0..70 {
            now = now.saturating_add(SECOND_NS);
            go_on(&mut recorder, now);
        }
        assert_eq!(commits, 2);
        recorder.finish(clock::now());
        let events = Reader::open(&path)
            .unwrap()
            .events(i64::MIN, i64::MAX)
            .unwrap();
        assert_eq!(events.len(), 1, "{events:?}");
        let (_, event) = &events[0];
        assert_eq!(
            (event.kind.as_str(), event.interface.as_str()),
            ("samples_dropped", "wan")
        );
        assert_eq!(event.end_ns, Some(latest.as_nanos()));
        assert!(
            event.text.contains("dropped 9600 packets"),
            "{}",
            event.text
        );
        assert_eq!(event.values["packets"], 9600);
    }

    #[test]
    fn what_is_dropped_before_and_after_a_restart_is_one_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        for datagrams in [3, 4] {
            let mut recorder = recorder(&path, any_room());
            recorder.reflector_dropped(clock::now(), "wan", "far.example", datagrams);
            recorder.finish(clock::now());
        }
        let events = Reader::open(&path)
            .unwrap()
            .events(i64::MIN, i64::MAX)
            .unwrap();
        let [(_, event)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(event.values["packets"], 7);
        assert!(event.text.contains("dropped 7 packets"), "{}", event.text);
    }
}
