//! Holds back alerts of trouble that has just been told: a line that comes and goes is one alert, with
//! a count, and one more where it stays.

use std::collections::HashMap;

use bufferbane_store::{EventId, Severity};

use super::{Alert, News};

/// Kinds of trouble, and open events, that are remembered.
const KNOWN: usize = 256;

struct Told {
    at_ns: u64,
    held_back: u64,
}

/// See the module.
pub(super) struct Debounce {
    every_ns: u64,
    told: HashMap<(String, String, Option<String>), Told>,
    /// Events whose begin was let through, and as how bad.
    open: Vec<(u64, Severity)>,
    /// Begins that were held back, of events that last.
    waiting: Vec<Alert>,
}

impl Debounce {
    /// At most one begin of the same trouble in `every_ns`.
    pub(super) fn new(every_ns: u64) -> Self {
        Self {
            every_ns,
            told: HashMap::new(),
            open: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// The alert as it is to be delivered at `now_ns`, if it is: an end where its begin was, and a begin once, or once more
    /// where it is worse than was told.
    pub(super) fn pass(&mut self, mut alert: Alert, now_ns: u64) -> Option<Alert> {
        let waits = self.waiting.iter().position(|w| w.id == alert.id);
        let waited = waits.map(|n| self.waiting.remove(n));
        if alert.phase == News::End {
            if let Some(t) = waited.and_then(|w| self.told.get_mut(&w.key())) {
                t.held_back += 1;
            }
            let n = self.open.iter().position(|(id, _)| *id == alert.id)?;
            self.open.swap_remove(n);
            return Some(alert);
        }
        if let Some((_, told)) = self.open.iter_mut().find(|(id, _)| *id == alert.id) {
            let is_worse = alert.severity > *told;
            *told = alert.severity.max(*told);
            return is_worse.then_some(alert);
        }
        let every_ns = self.every_ns;
        if self.told.len() >= KNOWN {
            self.told
                .retain(|_, t| now_ns.saturating_sub(t.at_ns) < every_ns);
        }
        let key = alert.key();
        if let Some(t) = self.told.get_mut(&key)
            && now_ns.saturating_sub(t.at_ns) < every_ns
        {
            if alert.end.is_none() && self.waiting.len() < KNOWN {
                self.waiting.push(alert);
            } else {
                t.held_back += 1;
            }
            return None;
        }
        let told = Told {
            at_ns: now_ns,
            held_back: 0,
        };
        alert.held_back = self.told.insert(key, told).map_or(0, |t| t.held_back);
        if alert.end.is_none() {
            self.opens(alert.id, alert.severity);
        }
        Some(alert)
    }

    /// The begin of an event was told by the run before.
    pub(super) fn recall(&mut self, id: EventId, severity: Severity) {
        self.opens(id.0, severity);
    }

    fn opens(&mut self, id: u64, severity: Severity) {
        if self.open.len() >= KNOWN {
            self.open.remove(0);
        }
        self.open.push((id, severity));
    }

    /// What was held back and still lasts, where its end will be told by the next run: a begin of each.
    pub(super) fn rest(&mut self) -> Vec<Alert> {
        std::mem::take(&mut self.waiting)
    }

    /// What was held back, still lasts, and may be told by now, if there is any: the gravest.
    pub(super) fn due(&mut self, now_ns: u64) -> Option<Alert> {
        let may = |w: &Alert| {
            let told = self.told.get(&w.key());
            told.is_none_or(|t| now_ns.saturating_sub(t.at_ns) >= self.every_ns)
        };
        let due = self.waiting.iter().filter(|w| may(w));
        let alert = due.max_by_key(|w| w.severity)?.clone();
        self.pass(alert, now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn a_line_that_comes_and_goes_is_told_once() {
        let mut d = Debounce::new(300);
        assert!(d.pass(example(News::Begin, 1), 0).is_some());
        // It is told again, and no worse.
        assert!(d.pass(example(News::Begin, 1), 301).is_none());
        assert!(d.pass(example(News::End, 1), 10).is_some());
        // Nobody waits for the end of what was not told, nor for a second one.
        assert!(d.pass(example(News::End, 1), 11).is_none());
        for n in 2..6 {
            assert!(d.pass(example(News::Begin, n), 20 * n).is_none());
            assert!(d.pass(example(News::End, n), 20 * n + 5).is_none());
        }
        let later = d.pass(example(News::Begin, 9), 301).unwrap();
        assert_eq!(later.held_back, 4);
        // Other trouble is told at once.
        let mut other = example(News::Begin, 10);
        other.interface = "eth1".into();
        assert_eq!(d.pass(other, 302).unwrap().held_back, 0);
    }

    #[test]
    fn what_has_become_worse_is_told_at_once_and_ends_once() {
        let mut d = Debounce::new(300);
        let mut alert = example(News::Begin, 1);
        let severities = [Severity::Warning, Severity::Critical, Severity::Warning];
        let told = severities.map(|severity| {
            alert.severity = severity;
            let told = d.pass(alert.clone(), 10);
            told.map(|a| (a.severity, a.held_back))
        });
        let [warning, critical] = [Severity::Warning, Severity::Critical].map(|s| Some((s, 0)));
        assert_eq!(told, [warning, critical, None]);
        assert!(d.pass(example(News::End, 1), 20).is_some());
        assert!(d.pass(example(News::End, 1), 20).is_none());
    }

    #[test]
    fn what_was_held_back_and_stays_is_told_later_and_then_its_end() {
        let mut d = Debounce::new(300);
        assert!(d.pass(example(News::Begin, 1), 0).is_some());
        assert!(d.pass(example(News::End, 1), 30).is_some());
        // One is over soon, two stay; one of these becomes worse, which makes it no second one.
        for id in 2..5 {
            let mut alert = example(News::Begin, id);
            alert.severity = Severity::Warning;
            assert!(d.pass(alert, 90).is_none());
        }
        assert!(d.pass(example(News::End, 2), 91).is_none());
        assert!(d.pass(example(News::Begin, 3), 92).is_none());
        assert!(d.due(299).is_none());
        let told = d.due(300).unwrap();
        assert_eq!((told.id, told.severity), (3, Severity::Critical));
        assert_eq!(told.held_back, 1);
        // At most one each time.
        assert!(d.due(599).is_none());
        let told = d.due(600).unwrap();
        assert_eq!((told.id, told.held_back), (4, 0));
        assert!(d.due(900).is_none());
        for id in [3, 4] {
            assert!(d.pass(example(News::End, id), 21_600).is_some());
        }
    }
}
