//! Packets that this host dropped before anybody saw them, as no processor took them in time: one event from the first
//! ten seconds with many of them until a minute has passed without. What seems lost by the line then may be this host's
//! doing: answers to probes are dropped as all that comes in.

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::counters::{self, HostCounters};
use bufferbane_store::Severity;
use serde_json::Value;

use super::{Fact, MINUTE_NS, Recorder, SECOND_NS, note};

/// How often it is looked at, ns.
const LOOK_NS: u64 = 10 * SECOND_NS;
/// So many dropped in ten seconds are trouble, where they are surely this share of what came in.
const LEAST: u64 = 3;
const SHARE: f64 = 0.01;
/// Names the event.
const NAME: &str = "host_overloaded";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Overload {
    before: Option<(Monotonic, HostCounters)>,
    lasting: Option<Lasting>,
}

/// What is being told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Lasting {
    latest: Monotonic,
    dropped: u64,
    taken: u64,
    /// The largest shares of processors' time.
    busy: f64,
    stolen: f64,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Begun(Monotonic),
    GoesOn,
    Over(Monotonic),
}

impl Lasting {
    fn values(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("packets", self.dropped.into()),
            ("taken", self.taken.into()),
            ("busy", self.busy.into()),
            ("stolen", self.stolen.into()),
        ]
    }

    fn text(&self) -> String {
        let stolen = match self.stolen {
            ..0.01 => String::new(),
            s => format!(", and others took {:.0} % of their time", 100.0 * s),
        };
        format!(
            "this host dropped {} of {} packets that came in, as no processor took them in time; processors were busy \
             for {:.0} %{stolen}",
            self.dropped,
            self.dropped + self.taken,
            100.0 * self.busy
        )
    }
}

impl Overload {
    fn is_due(&self, now: Monotonic) -> bool {
        self.before
            .is_none_or(|(at, _)| now.saturating_since(at) >= LOOK_NS)
    }

    fn look(&mut self, now: Monotonic, host: HostCounters) -> Option<Change> {
        let (from, before) = self.before.replace((now, host))?;
        if host.processors != before.processors {
            return None;
        }
        let dropped = u64::from(host.dropped.wrapping_sub(before.dropped));
        let taken = u64::from(host.taken.wrapping_sub(before.taken));
        let ticks = host.ticks.saturating_sub(before.ticks).max(1) as f64;
        // The lower end of what so many may be by chance.
        let surely = dropped as f64 - 2.0 * (dropped as f64).sqrt();
        if dropped < LEAST || surely < SHARE * (dropped + taken) as f64 {
            let latest = self.lasting?.latest;
            let is_over = now.saturating_since(latest) >= MINUTE_NS;
            return is_over.then(|| {
                self.lasting = None;
                Change::Over(latest)
            });
        }
        let share = |now: u64, then: u64| now.saturating_sub(then) as f64 / ticks;
        let is_new = self.lasting.is_none();
        let l = self.lasting.get_or_insert_default();
        l.latest = now;
        l.dropped += dropped;
        l.taken += taken;
        l.busy = l.busy.max(share(host.busy_ticks, before.busy_ticks));
        l.stolen = l.stolen.max(share(host.stolen_ticks, before.stolen_ticks));
        Some(if is_new {
            Change::Begun(from)
        } else {
            Change::GoesOn
        })
    }
}

impl Recorder {
    /// Looks whether this host drops what comes in, once it is time.
    pub(super) fn look_at_host(&mut self, now: Monotonic) {
        if !self.overload.is_due(now) {
            return;
        }
        // Where the kernel does not say it, nothing is told.
        let Ok(host) = counters::host_counters() else {
            return;
        };
        let change = self.overload.look(now, host);
        if let Some(Change::Over(at)) = change {
            self.end_fact(at, NAME);
        }
        let Some(lasting) = self.overload.lasting else {
            return;
        };
        if let Some(Change::Begun(at)) = change {
            let fact = Fact {
                values: lasting.values(),
                kind: NAME,
                severity: Severity::Warning,
                interface: String::new(),
                target: None,
                text: lasting.text(),
            };
            log::warn!("{}", fact.text);
            self.fact(at, Some(NAME.to_owned()), fact, true);
        }
        if let Some(Change::Begun(_) | Change::GoesOn) = change
            && let (Some((id, event)), Some(writer)) =
                (self.open_events.get_mut(NAME), &mut self.writer)
        {
            event.text = lasting.text();
            let values = lasting.values().into_iter();
            event
                .values
                .extend(values.map(|(name, v)| (name.to_owned(), v)));
            note(&self.status, &self.meters, *id, event);
            writer.update_event(*id, event.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_nanos(seconds * SECOND_NS)
    }

    /// Counters after so many looks, of which those have dropped so many of a thousand packets.
    fn changes(dropped: &[u32]) -> (Vec<Change>, Option<Lasting>) {
        let mut overload = Overload::default();
        // They wrap meanwhile.
        let mut host = HostCounters {
            taken: u32::MAX - 1500,
            dropped: u32::MAX - 5,
            ..HostCounters::default()
        };
        let (mut all, mut last) = (Vec::new(), None);
        for (n, dropped) in (0..).zip([&[0], dropped].concat()) {
            assert!(overload.is_due(at(10 * n)));
            host.taken = host.taken.wrapping_add(1000 - dropped);
            host.dropped = host.dropped.wrapping_add(dropped);
            host.ticks += 2000;
            host.busy_ticks += 1900;
            host.stolen_ticks += 40;
            all.extend(overload.look(at(10 * n), host));
            assert!(!overload.is_due(at(10 * n + 9)));
            last = overload.lasting.or(last);
        }
        (all, last)
    }

    #[test]
    fn many_dropped_packets_are_one_event_until_a_minute_has_none() {
        let calm = [0; 6];
        let dropped = [&[0, 100][..], &[0, 50], &calm].concat();
        let (all, lasting) = changes(&dropped);
        let expected = [Change::Begun(at(10)), Change::GoesOn, Change::Over(at(40))];
        assert_eq!(all, expected);
        let text = lasting.expect("it was told").text();
        assert_eq!(
            text,
            "this host dropped 150 of 2000 packets that came in, as no processor took them in time; processors were \
             busy for 95 %, and others took 2 % of their time"
        );
    }

    #[test]
    fn a_few_of_many_are_nothing() {
        assert_eq!(changes(&[2, 9, 0, 9]).0, []);
    }
}
