//! What lines show that may be cables, and which of them a person says are.

use std::collections::BTreeMap;

use bufferbane_core::detect::cable::Reading;
use bufferbane_core::time::Monotonic;

use super::Recorder;

/// How often it is recorded that a person still says so, and for how long in one row, ns.
const EVERY_NS: u64 = 300 * super::SECOND_NS;
const LONGEST_NS: u64 = 3600 * super::SECOND_NS;

/// A person's word of each interface: since when, and until when that is recorded.
#[derive(Debug, Default)]
pub(super) struct Said(BTreeMap<String, (Monotonic, Option<Monotonic>)>);

impl Said {
    /// Rows that are due for `cables`, each with its begin; all where the recording ends.
    fn due(&mut self, now: Monotonic, cables: &[String], is_end: bool) -> Vec<(String, Monotonic)> {
        self.0.retain(|name, _| cables.contains(name));
        let mut rows = Vec::new();
        for name in cables {
            let (since, until) = self.0.entry(name.clone()).or_insert((now, None));
            let is_due = until.is_none_or(|at| now.saturating_since(at) >= EVERY_NS);
            if !is_due && !is_end {
                continue;
            }
            *until = Some(now);
            rows.push((name.clone(), *since));
            if now.saturating_since(*since) >= LONGEST_NS {
                self.0.remove(name);
            }
        }
        rows
    }
}

impl Recorder {
    /// Records what lines have shown that may be cables, and of which it is said; the last of it where the recording
    /// ends.
    pub(super) fn note_cables(&mut self, now: Monotonic, is_end: bool) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        for (interface, r) in self.watcher.records() {
            writer.cable(r.since, r.until, &interface, r.reading);
        }
        let cables = &self.settings.cables;
        for (interface, since) in self.said_cables.due(now, cables, is_end) {
            writer.cable(since, now, &interface, Reading::Said);
        }
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_store::{Reader, WriterOptions};

    use super::super::SECOND_NS;
    use super::super::testing::recorder;

    #[test]
    fn what_a_person_says_of_a_line_is_in_the_store_for_as_long_as_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let options = WriterOptions {
            min_free_bytes: 0,
            ..WriterOptions::default()
        };
        let mut recorder = recorder(&path, options);
        let begin = bufferbane_linux_io::clock::now();
        let at = |s: u64| begin.saturating_add(s * SECOND_NS);
        recorder.settings.cables = vec!["wan".into()];
        for s in (0..9000).step_by(20) {
            recorder.note_cables(at(s), false);
        }
        recorder.settings.cables.clear();
        recorder.note_cables(at(9000), false);
        recorder.finish(bufferbane_linux_io::clock::now());
        let rows = Reader::open(&path)
            .unwrap()
            .cable(i64::MIN, i64::MAX)
            .unwrap();
        let first_ns = rows[0].since_ns;
        let seconds = |ns: i64| (ns - first_ns) / SECOND_NS.cast_signed();
        let said: Vec<(i64, i64)> = rows
            .iter()
            .map(|r| (seconds(r.since_ns), seconds(r.until_ns)))
            .collect();
        assert_eq!(said, [(0, 3600), (3620, 7220), (7240, 8740)]);
    }
}
