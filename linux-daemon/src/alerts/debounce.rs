//! Holds back alerts of trouble that has just been told: a line that comes and goes is one alert, with
//! a count.

use std::collections::HashMap;

use super::{Alert, News};

/// Kinds of trouble and open events that are remembered.
const KNOWN: usize = 256;

struct Told {
    at_ns: u64,
    held_back: u64,
}

/// See the module.
pub(super) struct Debounce {
    every_ns: u64,
    told: HashMap<(String, String, Option<String>), Told>,
    /// Events whose begin was let through.
    open: Vec<u64>,
}

impl Debounce {
    /// At most one begin of the same trouble in `every_ns`.
    pub(super) fn new(every_ns: u64) -> Self {
        Self {
            every_ns,
            told: HashMap::new(),
            open: Vec::new(),
        }
    }

    /// The alert as it is to be delivered at `now_ns`, if it is: an end where its begin was, and a begin once.
    pub(super) fn pass(&mut self, mut alert: Alert, now_ns: u64) -> Option<Alert> {
        if alert.phase == News::End {
            let n = self.open.iter().position(|id| *id == alert.id)?;
            self.open.swap_remove(n);
            return Some(alert);
        }
        if self.open.contains(&alert.id) {
            return None;
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
            t.held_back += 1;
            return None;
        }
        let told = Told {
            at_ns: now_ns,
            held_back: 0,
        };
        alert.held_back = self.told.insert(key, told).map_or(0, |t| t.held_back);
        if alert.end.is_none() {
            if self.open.len() >= KNOWN {
                self.open.remove(0);
            }
            self.open.push(alert.id);
        }
        Some(alert)
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
        // It has become worse.
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
}
