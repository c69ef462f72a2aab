//! Why something is not probed, and when that is news.

use bufferbane_core::time::Monotonic;

use super::Keeper;
use crate::plan::Wanted;
use crate::recorder::{Fact, Order};

/// What lasts as long is news however seldom there is a probe, ns: from there on a silence would be an outage.
const LONG_NS: u64 = 200_000_000;

/// Why a unit has no socket.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) errno: i32,
    pub(super) why: String,
    /// Since when it has none, for whatever reason.
    begun: Monotonic,
    /// Since when for this one.
    since: Monotonic,
    /// To be told once a probe could not be sent.
    untold: Option<Fact>,
}

impl Trouble {
    /// A unit has no socket from `since` on; `before` is why it had none before.
    pub(super) fn new(
        (errno, why): (i32, String),
        since: Monotonic,
        before: Option<&Self>,
        fact: Fact,
    ) -> Self {
        Self {
            errno,
            why,
            begun: before.map_or(since, |b| b.begun),
            since,
            untold: Some(fact),
        }
    }

    /// Whether it would be no news if it were over at `at`, where a probe is due each `interval_ns`.
    pub(super) fn stays_untold(&self, at: Monotonic, interval_ns: u64) -> bool {
        self.untold.is_some() && at.saturating_since(self.begun) < interval_ns.min(LONG_NS)
    }

    /// What is news of it by `at`, where a probe is due each `interval_ns`.
    fn news(&mut self, at: Monotonic, interval_ns: u64) -> Option<(Monotonic, Fact)> {
        if self.stays_untold(at, interval_ns) {
            return None;
        }
        Some((self.since, self.untold.take()?))
    }

    /// The same, in orders to the recorder.
    fn begin(&mut self, w: &Wanted, at: Monotonic) -> Option<Order> {
        let (since, fact) = self.news(at, w.probe.interval_ns())?;
        log::warn!("{}: not probed: {}", w.name(), self.why);
        Some(Order::Begin(since, self.name(w), fact))
    }

    /// What there is to be told of it now that it is over, since `at`, where `others` are still in trouble.
    pub(super) fn end<'a>(
        mut self,
        w: &Wanted,
        at: Monotonic,
        others: impl IntoIterator<Item = (&'a Wanted, &'a Self)>,
    ) -> Vec<Order> {
        let begin = self.begin(w, at);
        let name = self.name(w);
        let goes_on = |(w, t): (&Wanted, &Self)| t.untold.is_none() && t.name(w) == name;
        let is_over = self.untold.is_none() && !others.into_iter().any(goes_on);
        let end = is_over.then_some(Order::End(at, name));
        begin.into_iter().chain(end).collect()
    }

    /// Names the event: what several units of a target cannot do for one reason is told once.
    fn name(&self, w: &Wanted) -> String {
        format!("not_probed {} {}: {}", w.interface, w.target, self.why)
    }
}

impl Keeper {
    /// Tells of what has kept probes from being sent by `at`.
    pub(super) fn note_troubles(&mut self, at: Monotonic) {
        for (w, kept) in &mut self.units {
            let news = kept.trouble.as_mut().and_then(|t| t.begin(w, at));
            if let Some(order) = news {
                // The recorder is gone only when everything ends.
                let _ = self.orders.send(order);
            }
        }
    }

    /// A unit is no longer in trouble, since `at`; `true` where that it was has been told.
    pub(super) fn end_trouble(&self, w: &Wanted, trouble: Option<Trouble>, at: Monotonic) -> bool {
        let units = self.units.iter();
        let others = units.filter_map(|(w, kept)| Some((w, kept.trouble.as_ref()?)));
        let orders = trouble.map_or_else(Vec::new, |t| t.end(w, at, others));
        let was_told = !orders.is_empty();
        for order in orders {
            self.order(order);
        }
        was_told
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_core::session::client::MORE_SIZES;
    use bufferbane_store::Severity;

    use super::*;
    use crate::plan::Probe;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_nanos(ms * 1_000_000)
    }

    fn every(ms: u64) -> Wanted {
        Wanted {
            interface: "wan".into(),
            kind: None,
            target: "far".into(),
            remote: "192.0.2.1:0".parse().unwrap(),
            source: None,
            mark: None,
            probe: Probe::Icmp {
                size: 64,
                more_sizes: [0; MORE_SIZES],
                interval_ns: ms * 1_000_000,
            },
        }
    }

    fn trouble(since_ms: u64, before: Option<&Trouble>) -> Trouble {
        let fact = Fact {
            values: Vec::new(),
            kind: "not_probed",
            severity: Severity::Warning,
            interface: "wan".into(),
            target: None,
            text: "no route".into(),
        };
        Trouble::new((101, "no route".into()), at(since_ms), before, fact)
    }

    /// When the events of these orders begin and end.
    fn edges(orders: &[Order]) -> Vec<(char, Monotonic)> {
        let edge = |o: &Order| match o {
            Order::Begin(at, ..) => ('b', *at),
            Order::End(at, _) => ('e', *at),
            other => panic!("{other:?}"),
        };
        orders.iter().map(edge).collect()
    }

    #[test]
    fn what_is_over_before_a_probe_was_due_is_no_news() {
        let w = every(50);
        assert_eq!(edges(&trouble(1000, None).end(&w, at(1049), [])), []);
        let whole = [('b', at(1000)), ('e', at(1050))];
        assert_eq!(edges(&trouble(1000, None).end(&w, at(1050), [])), whole);
        // Whoever knows of a longer silence is told whether this one will be.
        let short = trouble(1000, None);
        assert!(short.stays_untold(at(1049), 50_000_000));
        assert!(!short.stays_untold(at(1050), 50_000_000));
        // Nobody waits a minute for one that is due each minute.
        let mut long = trouble(1000, None);
        assert!(long.begin(&every(60_000), at(1199)).is_none());
        let told = long.begin(&every(60_000), at(1200));
        assert_eq!(edges(&Vec::from_iter(told)), [('b', at(1000))]);
        assert!(long.begin(&every(60_000), at(1201)).is_none());
        assert_eq!(edges(&long.end(&w, at(1300), [])), [('e', at(1300))]);
    }

    #[test]
    fn one_reason_after_another_is_one_silence() {
        let w = every(50);
        let first = trouble(1000, None);
        let second = trouble(1030, Some(&first));
        assert_eq!(edges(&first.end(&w, at(1030), [])), []);
        let whole = [('b', at(1030)), ('e', at(1060))];
        assert_eq!(edges(&second.end(&w, at(1060), [])), whole);
    }

    /// Of one target, by two addresses.
    #[test]
    fn what_keeps_two_units_of_a_target_from_being_probed_is_one_event() {
        let four = every(50);
        let six = Wanted {
            remote: "[2001:db8::1]:0".parse().unwrap(),
            ..every(50)
        };
        let [mut a, mut b] = [trouble(1000, None), trouble(1000, None)];
        let begun = [a.begin(&four, at(1050)), b.begin(&six, at(1050))].map(Option::unwrap);
        let [Order::Begin(_, first, _), Order::Begin(_, second, _)] = &begun else {
            panic!("{begun:?}");
        };
        assert_eq!(first, second);
        assert_eq!(edges(&a.end(&four, at(2000), [(&six, &b)])), []);
        // Whom nobody has told of yet keeps nothing from being over.
        let untold = trouble(2990, None);
        let over = edges(&b.end(&six, at(3000), [(&four, &untold)]));
        assert_eq!(over, [('e', at(3000))]);
    }
}
