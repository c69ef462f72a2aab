//! The ways to targets, as they are walked: recorded, and told where they change.

use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, Path, PathEnd, PathHop, Severity, Writer};
use serde_json::{Value, json};

use super::routes::Walked;
use super::{Recorder, note};
use crate::alerts::News as Alarm;
use crate::walk::{Changed, News};

impl Recorder {
    /// Records what was walked by now.
    pub(super) fn note_walks(&mut self, now: Monotonic) {
        if self.writer.is_none() {
            return;
        }
        let all = self.walks.tick(now);
        for (id, event) in self.faults.learn(&all) {
            log::info!("{}", event.text);
            note(&self.status, &self.meters, id, &event);
            if let Some(writer) = &mut self.writer {
                writer.update_event(id, event);
            }
        }
        for news in all {
            match news {
                News::Changed(changed) => self.way_changed(&changed),
                news => {
                    // What was seen in trouble is not to be lost to it.
                    self.commit_soon |= matches!(news, News::Look(..) | News::Echoes(..));
                    if let Some(writer) = &mut self.writer {
                        record(writer, [news]);
                    }
                }
            }
        }
    }

    /// The hops to a target are others: an event, or part of one that the number of hops told.
    fn way_changed(&mut self, changed: &Changed) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let (before, after) = (&changed.before, &changed.after);
        let text = sentence(changed);
        let mut values = vec![
            ("hop", changed.hop.into()),
            ("hops_before", addresses(before)),
            ("hops_after", addresses(after)),
        ];
        for (name, path) in [("rtt_before_ns", before), ("rtt_after_ns", after)] {
            let end = path.hops.last().filter(|_| path.end == PathEnd::Target);
            if let Some(ns) = end.and_then(|h| h.rtt_min_ns) {
                values.push((name, ns.into()));
            }
        }
        log::info!("{text}");
        let mut event = Event::new(
            "route_change",
            Severity::Info,
            writer.boot(),
            changed.since,
            text,
        );
        event.interface.clone_from(&after.interface);
        event.target = Some(after.target.clone());
        event.end_ns = Some(event.start_ns);
        event
            .values
            .extend(values.into_iter().map(|(n, v)| (n.to_owned(), v)));
        match self.routes.walked(&event) {
            Walked::Told => {}
            Walked::Part(id, event) => {
                note(&self.status, &self.meters, id, &event);
                writer.update_event(id, event);
            }
            Walked::New => {
                let id = writer.event(event.clone());
                note(&self.status, &self.meters, id, &event);
                self.alerts.tell(Alarm::Begin, id, &event);
                self.routes.begin_by_walk(id, &event);
                self.commit_soon = true;
            }
        }
    }
}

/// Records ways, and what was seen of them.
pub(super) fn record(writer: &mut Writer, news: impl IntoIterator<Item = News>) {
    for news in news {
        match news {
            News::Way(first, last, walks, path) => writer.path(first, last, walks, path),
            News::Look(at, look) => writer.escalation(at, look),
            News::Echoes(at, echoes) => writer.echoes(at, *echoes),
            News::Changed(_) | News::Start(..) => {}
        }
    }
}

fn addresses(path: &Path) -> Value {
    let hops = path.hops.iter().map(|h| json!(h.addresses));
    hops.collect()
}

fn sentence(changed: &Changed) -> String {
    let (before, after) = (&changed.before, &changed.after);
    let at = |path: &Path| {
        let hop = path.hops.get(usize::from(changed.hop) - 1);
        let first = hop.and_then(|h: &PathHop| h.addresses.first());
        first.map_or_else(|| "nobody that answers".to_owned(), ToString::to_string)
    };
    let (old, new) = (before.hops.len(), after.hops.len());
    let length = if old == new {
        String::new()
    } else {
        format!(", and the way has {new} hops instead of {old}")
    };
    format!(
        "the way to {} through {} is another from hop {} on: {} instead of {}{length}",
        after.target,
        after.interface,
        changed.hop,
        at(after),
        at(before)
    )
}

#[cfg(test)]
mod tests {
    use bufferbane_core::sample::{Observation, Sample, SeriesIndex, Status};
    use bufferbane_linux_io::clock;
    use bufferbane_store::{Reader, SeriesKind};

    use super::super::testing::{any_room, recorder, series};
    use super::super::{Order, SECOND_NS};
    use super::*;

    fn path(hops: &[u8]) -> Path {
        let hop = |n: &u8| PathHop {
            addresses: vec![[10, 0, 0, *n].into()],
            sent: 3,
            answered: 3,
            rtt_min_ns: Some(u64::from(*n) * 1000),
            rtt_mean_ns: None,
        };
        Path {
            interface: "wan".into(),
            target: "far".into(),
            address: [10, 0, 0, 9].into(),
            source: None,
            unsent: None,
            provider_link: false,
            end: PathEnd::Target,
            hops: hops.iter().map(hop).collect(),
        }
    }

    #[test]
    fn another_way_is_an_event_or_part_of_the_one_that_the_number_of_hops_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store.redb");
        let mut recorder = recorder(&store, any_room());
        let now = clock::now();
        let at = |s| now.saturating_add(s * SECOND_NS);
        let changed = |since, before: &[u8], after: &[u8]| Changed {
            since,
            hop: 2,
            before: path(before),
            after: path(after),
        };
        recorder.way_changed(&changed(at(0), &[1, 2, 9], &[1, 3, 4, 9]));
        let mut told = Event::new("route_change", Severity::Info, 1, at(1000), "TTL".into());
        told.values.insert("rtt_before_ns".into(), 7.into());
        (told.interface, told.target) = ("wan".into(), Some("far".into()));
        let id = recorder.writer.as_mut().unwrap().event(told.clone());
        recorder.routes.begin(id, &told);
        recorder.way_changed(&changed(at(1010), &[1, 3, 4, 9], &[1, 2, 9]));
        // That one is told; another change is another event.
        recorder.way_changed(&changed(at(1100), &[1, 2, 9], &[1, 5, 9]));
        recorder.writer.take().unwrap().close().unwrap();

        let events = Reader::open(&store).unwrap();
        let events = events.events(i64::MIN, i64::MAX).unwrap();
        let texts: Vec<&str> = events.iter().map(|(_, e)| e.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "the way to far through wan is another from hop 2 on: 10.0.0.3 instead of 10.0.0.2, and the \
                 way has 4 hops instead of 3",
                "TTL; the way to far through wan is another from hop 2 on: 10.0.0.2 instead of 10.0.0.3, \
                 and the way has 3 hops instead of 4",
                "the way to far through wan is another from hop 2 on: 10.0.0.5 instead of 10.0.0.2",
            ]
        );
        let values = &events[1].1.values;
        assert_eq!(
            values["hops_after"],
            json!([["10.0.0.1"], ["10.0.0.2"], ["10.0.0.9"]])
        );
        // What probes have measured stays.
        assert_eq!(
            (&values["rtt_before_ns"], &values["rtt_after_ns"]),
            (&json!(7), &json!(9000))
        );
    }

    /// What probes tell of a change that a walk has told is looked for where all is watched, too.
    #[test]
    fn a_change_that_a_walk_and_then_the_probes_tell_is_one_event_in_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store.redb");
        let mut recorder = recorder(&store, any_room());
        recorder.obey(Order::Series(SeriesIndex(0), series(SeriesKind::Icmp)));
        let begin = clock::now();
        for seq in 0..120u64 {
            let sent = begin.saturating_add(seq * SECOND_NS);
            if seq == 101 {
                recorder.way_changed(&Changed {
                    since: sent,
                    hop: 2,
                    before: path(&[1, 2, 9]),
                    after: path(&[1, 3, 9]),
                });
            }
            let mut sample = Sample::lost(SeriesIndex(0), seq, sent, 64);
            sample.status = Status::Ok;
            sample.rtt_ns = Some(20_000_000);
            sample.ttl_down = Some(if seq < 100 { 57 } else { 55 });
            recorder.record(Observation::New(sample));
            recorder.watch(sent);
        }
        recorder.finish(clock::now());

        let reader = Reader::open(&store).unwrap();
        let events = reader.events(i64::MIN, i64::MAX).unwrap();
        let [(_, event)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(event.kind, "route_change");
        assert_eq!(event.values["ttl_after"], json!(55));
        assert!(event.values.contains_key("hops_after"), "{event:?}");
    }

    #[test]
    fn the_ways_of_before_a_restart_are_read_back_the_latest_first() {
        use super::super::past::Past;
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store.redb");
        let mut recorder = recorder(&store, any_room());
        let now = clock::now();
        let at = |s| now.saturating_add(s * SECOND_NS);
        let writer = recorder.writer.as_mut().unwrap();
        for (s, hops) in [(0, [1, 2, 9]), (10, [1, 3, 9])] {
            record(writer, [News::Way(at(s), at(s + 5), 1, path(&hops))]);
        }
        recorder.finish(clock::now());
        let wall_ns = clock::wall_now();
        let mut past = Past::read(&store, wall_ns, bufferbane_store::Trust::Plausible).unwrap();
        let ways = past.take_ways();
        let [(key, paths)] = &ways.into_iter().collect::<Vec<_>>()[..] else {
            panic!("one target");
        };
        assert_eq!((key.0.as_str(), key.1.as_str()), ("wan", "far"));
        let second = |p: &Path| p.hops[1].addresses[0].to_string();
        assert_eq!(
            paths.iter().map(second).collect::<Vec<_>>(),
            ["10.0.0.3", "10.0.0.2"]
        );
        assert!(past.take_ways().is_empty());
    }
}
