//! The ways to targets, as they are walked: recorded, and told where they change.

use bufferbane_core::time::Monotonic;
use bufferbane_store::{Event, Path, PathEnd, PathHop, Severity, Writer};
use serde_json::{Value, json};

use super::{Recorder, SECOND_NS, note};
use crate::alerts::News as Alarm;
use crate::walk::{Changed, News};

/// A change of the way this long after a change of the number of hops is the same, ns: the way is walked
/// soon after, and twice.
const SAME_CHANGE_NS: u64 = 300 * SECOND_NS;

impl Recorder {
    /// Records what was walked by now.
    pub(super) fn note_walks(&mut self, now: Monotonic) {
        if self.writer.is_none() {
            return;
        }
        for news in self.walks.tick(now) {
            match news {
                News::Changed(changed) => self.way_changed(&changed),
                news => {
                    // What was seen in trouble is not to be lost to it.
                    self.commit_soon |= matches!(news, News::Look(..));
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
        let key = (after.interface.clone(), after.target.clone());
        let at = changed.since.as_nanos();
        let told = self.routes.get_mut(&key);
        if let Some((id, event)) = told
            && at.abs_diff(event.start_ns) <= SAME_CHANGE_NS
            && !event.values.contains_key("hops_after")
        {
            for (name, value) in values {
                // What probes have measured stays.
                event.values.entry(name).or_insert(value);
            }
            event.text = format!("{}; {text}", event.text);
            writer.update_event(*id, event.clone());
            return;
        }
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
        let id = writer.event(event.clone());
        note(&self.status, &self.meters, id, &event);
        self.alerts.tell(Alarm::Begin, id, &event);
        self.routes.insert(key, (id, event));
        self.commit_soon = true;
    }
}

/// Records ways, and what was seen of them.
pub(super) fn record(writer: &mut Writer, news: impl IntoIterator<Item = News>) {
    for news in news {
        match news {
            News::Way(first, last, walks, path) => writer.path(first, last, walks, path),
            News::Look(at, look) => writer.escalation(at, look),
            News::Changed(_) => {}
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
