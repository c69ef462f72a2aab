//! What becomes an event that no detector has to find: clocks, routes, troubles.

use std::collections::BTreeMap;

use bufferbane_core::clock::Change;
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::clock;
use bufferbane_store::{SeriesInfo, Severity};

use super::trust;
use super::{Fact, Recorder, note, paths};
use crate::alerts::News;
use crate::walk::Shown;

/// What the names of facts begin with that tell of series that are not watched.
const UNWATCHED: &str = "not_watched ";
const LINK_DOWN: &str = "link_down";

impl Recorder {
    /// The clock of a far end was set, or the way there became another.
    pub(super) fn path_change(&mut self, info: &SeriesInfo, change: Change) {
        let millis = |ns: i64| ns as f64 / 1e6;
        let (at, kind, text) = match change {
            Change::ClockStep { at, by_ns } => (
                at,
                "clock_step",
                format!(
                    "the clock of {} was set by {:.3} ms against ours, or it was restarted",
                    info.target,
                    millis(by_ns)
                ),
            ),
            Change::Route {
                from,
                up_ns,
                down_ns,
            } => {
                let text = format!(
                    "the smallest delay to {} through {} changed by {:+.3} ms up and {:+.3} ms down",
                    info.target,
                    info.interface,
                    millis(up_ns),
                    millis(down_ns)
                );
                if self.add_to_route_change(info, from, (up_ns, down_ns), &text) {
                    return;
                }
                (from, "route_change", text)
            }
        };
        log::info!("{text}");
        let fact = Fact {
            values: Vec::new(),
            kind,
            severity: Severity::Info,
            interface: info.interface.clone(),
            target: Some(info.target.clone()),
            text,
        };
        self.fact(at, None, fact, false);
    }

    /// What the smallest delays say of a change of route that the number of hops has told already
    /// belongs to that event; `false` where there is none.
    fn add_to_route_change(
        &mut self,
        info: &SeriesInfo,
        from: Monotonic,
        floors_ns: (i64, i64),
        text: &str,
    ) -> bool {
        let way = (info.interface.as_str(), info.target.as_str());
        let known = self.routes.floors(way, from.as_nanos(), floors_ns, text);
        let (Some(writer), Some((id, event))) = (&mut self.writer, known) else {
            return false;
        };
        log::info!("{text}");
        note(&self.status, &self.meters, id, &event);
        writer.update_event(id, event);
        true
    }

    pub(super) fn clock_step(&mut self, at: Monotonic, step_ns: i64) {
        self.trust = trust();
        if let Some(w) = &mut self.writer {
            w.anchor(clock::now(), clock::wall_now(), self.trust);
        }
        let text = format!("the clock was set by {:.3} s", step_ns as f64 / 1e9);
        log::info!("{text}");
        let fact = Fact {
            values: Vec::new(),
            kind: "clock_step",
            severity: Severity::Info,
            interface: String::new(),
            target: None,
            text,
        };
        self.fact(at, None, fact, false);
    }

    /// Records an event: one that lasts, under a name to end it by, or a moment's.
    pub(super) fn fact(&mut self, at: Monotonic, name: Option<String>, fact: Fact, lasts: bool) {
        let Some(writer) = &mut self.writer else {
            self.waiting_facts.push((at, name, fact, lasts));
            return;
        };
        if name
            .as_ref()
            .is_some_and(|n| self.open_events.contains_key(n))
        {
            return;
        }
        let mut event = fact.event(writer.boot(), at);
        if !lasts {
            event.end_ns = Some(event.start_ns);
        }
        if event.kind == LINK_DOWN {
            self.down.begins(&event.interface, event.start_ns);
            self.households.radios().explain(&mut event, None);
        }
        let hold_down_ns = self.settings.alerts.thresholds.hold_down_ns;
        let again = self.again.back(&event, hold_down_ns);
        let is_new = again.is_none();
        let spell = event.clone();
        let (id, known) = match again {
            Some((id, now)) => {
                event = now;
                writer.update_event(id, event.clone());
                (id, None)
            }
            None if lasts => self.carry.begin(writer, hold_down_ns, &mut event),
            None => (writer.event(event.clone()), None),
        };
        note(&self.status, &self.meters, id, &event);
        match known {
            Some(_) => self.alerts.update(known, id, &event),
            None if is_new || lasts => _ = self.alerts.tell(News::Begin, id, &event),
            None => {}
        }
        if lasts {
            let looks = self.walks.begins(clock::now(), id, &spell, Shown::Anybody);
            paths::record(writer, looks);
        } else {
            self.again.over(id, &mut event);
        }
        if let Some(name) = name.filter(|_| lasts) {
            self.open_events.insert(name, (id, event));
        }
        self.commit_soon = true;
    }

    /// Tells what is recorded and not watched, so that nobody takes its silence for calm.
    pub(super) fn note_unwatched(&mut self, now: Monotonic) {
        let facts: BTreeMap<String, Fact> = self
            .watcher
            .unwatched()
            .map(|(info, text)| {
                let fact = Fact {
                    values: Vec::new(),
                    kind: "not_watched",
                    severity: Severity::Info,
                    interface: info.interface.clone(),
                    target: Some(info.target.clone()),
                    text,
                };
                (
                    format!("{UNWATCHED}{} {}", info.interface, info.target),
                    fact,
                )
            })
            .collect();
        let told = self.open_events.keys();
        let over: Vec<String> = told
            .filter(|name| name.starts_with(UNWATCHED) && !facts.contains_key(*name))
            .cloned()
            .collect();
        for name in over {
            self.end_fact(now, &name);
        }
        for (name, fact) in facts {
            self.fact(now, Some(name), fact, true);
        }
    }

    /// What lasted under this name is over.
    pub(super) fn end_fact(&mut self, at: Monotonic, name: &str) {
        self.end_fact_so(at, name, "");
    }

    /// The same, and its text goes on with `why`.
    pub(super) fn end_fact_so(&mut self, at: Monotonic, name: &str, why: &str) {
        self.waiting_facts
            .retain(|(_, n, ..)| n.as_deref() != Some(name));
        if let (Some((id, mut event)), Some(w)) = (self.open_events.remove(name), &mut self.writer)
        {
            event.end_ns = Some(at.as_nanos().max(event.start_ns));
            event.text += why;
            if event.kind == LINK_DOWN {
                self.down.ends(&event.interface, at.as_nanos());
            }
            self.again.over(id, &mut event);
            note(&self.status, &self.meters, id, &event);
            self.alerts.tell(News::End, id, &event);
            self.walks.ends(clock::now(), id);
            w.update_event(id, event);
            self.commit_soon = true;
        }
    }
}
