//! Packets that this host dropped before anybody saw them, as no processor took them in time: one event from the first
//! ten seconds with many of them until a minute has passed without. What seems lost by the line then may be this host's
//! doing: answers to probes are dropped as all that comes in.

use std::io;

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::counters::HostCounters;
use bufferbane_store::{Event, Severity};
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
    /// Of the looks with many dropped ones: how long they are, ns, and the packets that came in meanwhile.
    looked_ns: u64,
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
            ("looked_ns", self.looked_ns.into()),
        ]
    }

    /// Adds what a run before this one has told of the same event.
    fn add(&mut self, before: &Event) {
        let figure = |name: &str| before.values.get(name);
        let count = |name: &str| figure(name).and_then(Value::as_u64).unwrap_or(0);
        let share = |name: &str| figure(name).and_then(Value::as_f64).unwrap_or(0.0);
        self.looked_ns += count("looked_ns");
        self.dropped += count("packets");
        self.taken += count("taken");
        self.busy = self.busy.max(share("busy"));
        self.stolen = self.stolen.max(share("stolen"));
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

    /// What changed by `now`. It is over a minute after the latest look with many dropped ones; where recording ends, after
    /// one look's time without.
    fn look(&mut self, now: Monotonic, host: HostCounters, ends: bool) -> Option<Change> {
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
            let calm_ns = if ends { LOOK_NS } else { MINUTE_NS };
            let is_over = now.saturating_since(latest) >= calm_ns;
            return is_over.then(|| {
                self.lasting = None;
                Change::Over(latest)
            });
        }
        let share = |now: u64, then: u64| now.saturating_sub(then) as f64 / ticks;
        let is_new = self.lasting.is_none();
        let l = self.lasting.get_or_insert_default();
        l.latest = now;
        l.looked_ns += now.saturating_since(from);
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
    /// Looks whether this host drops what comes in, once it is time, or where recording ends. `read` gives its counters.
    pub(super) fn look_at_host(
        &mut self,
        now: Monotonic,
        ends: bool,
        read: impl FnOnce() -> io::Result<HostCounters>,
    ) {
        if !ends && !self.overload.is_due(now) {
            return;
        }
        // Where the kernel does not say it, nothing is told.
        let Ok(host) = read() else {
            return;
        };
        match self.overload.look(now, host, ends) {
            Some(Change::Begun(at)) => self.overload_begins(at),
            Some(Change::GoesOn) => self.overload_goes_on(),
            Some(Change::Over(at)) => self.end_fact(at, NAME),
            None => {}
        }
    }

    fn overload_begins(&mut self, at: Monotonic) {
        let mut fact = Fact {
            values: Vec::new(),
            kind: NAME,
            severity: Severity::Warning,
            interface: String::new(),
            target: None,
            text: String::new(),
        };
        let before = self.told_before(at, &fact).cloned();
        let Some(lasting) = &mut self.overload.lasting else {
            return;
        };
        if let Some(before) = before {
            lasting.add(&before);
        }
        (fact.values, fact.text) = (lasting.values(), lasting.text());
        log::warn!("{}", fact.text);
        self.fact(at, Some(NAME.to_owned()), fact, true);
    }

    fn overload_goes_on(&mut self) {
        if let (Some(lasting), Some((id, event)), Some(writer)) = (
            &self.overload.lasting,
            self.open_events.get_mut(NAME),
            &mut self.writer,
        ) {
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
    use std::path::Path;

    use bufferbane_linux_io::clock;
    use bufferbane_store::Reader;

    use super::super::testing::{any_room, recorder};
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
            all.extend(overload.look(at(10 * n), host, false));
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

    /// Runs that follow each other, of each of which these are the looks: when, in seconds, and how many of a thousand packets
    /// were dropped since the look before it. The last one is where recording ends. Gives the events that are in the store
    /// then: begin and end, in seconds, and how many were dropped of how many.
    fn recorded(runs: &[&[(u64, u32)]]) -> Vec<(u64, Option<u64>, bool, [u64; 2])> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let begin = clock::now();
        let after = |s: u64| begin.saturating_add(s * SECOND_NS);
        let mut host = HostCounters::default();
        for looks in runs {
            let mut recorder = recorder(&path, any_room());
            let ends_s = looks.last().unwrap().0;
            for (s, dropped) in *looks {
                host.taken += 1000 - dropped;
                host.dropped += dropped;
                host.ticks += 2000;
                recorder.look_at_host(after(*s), *s == ends_s, || Ok(host));
            }
            recorder.finish(after(ends_s));
        }
        let told = |e: Event| {
            let s = |ns: u64| (ns - begin.as_nanos()) / SECOND_NS;
            assert_eq!(e.kind, NAME);
            let [dropped, taken] = ["packets", "taken"].map(|n| e.values[n].as_u64().unwrap());
            let text = format!("dropped {dropped} of {} packets", dropped + taken);
            assert!(e.text.contains(&text), "{e:?}");
            (s(e.start_ns), e.end_ns.map(s), e.cut, [dropped, taken])
        };
        let events = Reader::open(Path::new(&path)).unwrap();
        let events = events.events(i64::MIN, i64::MAX).unwrap();
        events.into_iter().map(|(_, e)| told(e)).collect()
    }

    #[test]
    fn what_goes_on_over_a_restart_is_counted_on() {
        let before: &[(u64, u32)] = &[(0, 0), (10, 100), (20, 50)];
        assert_eq!(recorded(&[before]), [(0, Some(20), true, [150, 1850])]);
        let after: &[(u64, u32)] = &[(23, 0), (33, 70), (43, 30), (53, 0), (63, 0)];
        let both = recorded(&[before, after]);
        assert_eq!(both, [(0, Some(43), false, [250, 3750])]);
    }

    #[test]
    fn what_is_dropped_in_the_last_seconds_is_told_and_what_is_over_then_is_so() {
        assert_eq!(
            recorded(&[&[(0, 0), (10, 0), (14, 90)]]),
            [(10, Some(14), true, [90, 910])]
        );
        assert_eq!(
            recorded(&[&[(0, 0), (10, 90), (20, 0)]]),
            [(0, Some(10), false, [90, 910])]
        );
        // Too little is known of so short a time.
        assert_eq!(
            recorded(&[&[(0, 0), (10, 90), (13, 0)]]),
            [(0, Some(13), true, [90, 910])]
        );
    }
}
