//! When links were down: of an outage it is told whether its own was.

use std::collections::VecDeque;

use bufferbane_store::Event;

/// Most spells that are remembered.
const SPELLS: usize = 64;

/// A link that was down, ns since boot; no end while it is.
#[derive(Debug)]
struct Spell {
    interface: String,
    from_ns: u64,
    to_ns: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Down(VecDeque<Spell>);

impl Down {
    /// A link is down from `at_ns` on.
    pub(super) fn begins(&mut self, interface: &str, at_ns: u64) {
        if self.0.len() >= SPELLS {
            self.0.pop_front();
        }
        self.0.push_back(Spell {
            interface: interface.to_owned(),
            from_ns: at_ns,
            to_ns: None,
        });
    }

    /// And no longer.
    pub(super) fn ends(&mut self, interface: &str, at_ns: u64) {
        let mut lasting = self.0.iter_mut().rev();
        if let Some(s) = lasting.find(|s| s.interface == interface && s.to_ns.is_none()) {
            s.to_ns = Some(at_ns);
        }
    }

    /// Says of an outage whether the link was down meanwhile, too.
    pub(super) fn explain(&self, event: &mut Event) {
        if !["outage", "micro_outage"].contains(&event.kind.as_str()) {
            return;
        }
        let touches = |s: &&Spell| {
            s.interface == event.interface
                && event.end_ns.is_none_or(|end| s.from_ns <= end)
                && s.to_ns.is_none_or(|to| to >= event.start_ns)
        };
        if self.0.iter().any(|s| touches(&s)) {
            event.values.insert("link".into(), "down".into());
        } else {
            // What was down before a restart has been told.
            event.values.entry("link").or_insert("up".into());
        }
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_core::time::Monotonic;
    use bufferbane_store::Severity;

    use super::*;

    #[test]
    fn an_outage_says_whether_its_own_link_was_down_meanwhile() {
        let mut down = Down::default();
        let link = |down: &Down, kind: &str, from: u64, to: Option<u64>| {
            let at = Monotonic::from_nanos(from);
            let mut event = Event::new(kind, Severity::Warning, 1, at, String::new());
            event.interface = "wan".into();
            event.end_ns = to;
            down.explain(&mut event);
            event.values.get("link").cloned()
        };
        down.begins("lan", 100);
        down.begins("wan", 100);
        down.ends("wan", 200);
        assert_eq!(link(&down, "outage", 90, Some(220)), Some("down".into()));
        assert_eq!(link(&down, "outage", 110, Some(120)), Some("down".into()));
        for (from, to) in [(50, 99), (201, 300)] {
            assert_eq!(
                link(&down, "micro_outage", from, Some(to)),
                Some("up".into())
            );
        }
        assert_eq!(link(&down, "outage", 201, None), Some("up".into()));
        down.begins("wan", 250);
        assert_eq!(link(&down, "outage", 201, None), Some("down".into()));
        assert_eq!(link(&down, "packet_loss", 201, None), None);
        for n in 0..1000 {
            down.begins("wan", n);
        }
        assert_eq!(down.0.len(), SPELLS);
    }
}
