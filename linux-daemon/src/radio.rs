//! How well Wi-Fi uplinks hear their access points: looked at every few seconds, and remembered for as long
//! as an event may want to know.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::clock;
use bufferbane_linux_io::netlink::{Station, Wireless};
use bufferbane_store::{Event, EventId};
use serde::Serialize;

/// Looks that are remembered of an interface: at one in five seconds a quarter of an hour.
const REMEMBERED: usize = 180;
/// A look so long before an event tells of its beginning too, ns.
const BEFORE_NS: u64 = 6_000_000_000;

/// A Wi-Fi interface and its access point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Radio {
    /// How strong the access point is heard, dBm.
    pub signal_dbm: Option<i8>,
    /// The rate of frames to it, bit/s.
    pub up_bps: Option<u64>,
    /// The rate of frames from it, bit/s.
    pub down_bps: Option<u64>,
}

impl Radio {
    const fn of(station: Station) -> Self {
        Self {
            signal_dbm: station.signal_dbm,
            up_bps: station.up_bps,
            down_bps: station.down_bps,
        }
    }

    /// The weakest and slowest of both.
    fn worst(self, other: Self) -> Self {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            a.into_iter().chain(b).min()
        }
        Self {
            signal_dbm: least(self.signal_dbm, other.signal_dbm),
            up_bps: least(self.up_bps, other.up_bps),
            down_bps: least(self.down_bps, other.down_bps),
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    looks: VecDeque<(Monotonic, Radio)>,
    /// Whether the last look found an access point.
    connected: bool,
}

/// Names and indexes of interfaces.
type Interfaces = Vec<(String, u32)>;
/// What was found of each of them, when.
type Found = Vec<(String, Monotonic, Option<Radio>)>;

/// The thread that asks: drivers may let it wait, just when there is trouble.
#[derive(Debug)]
struct Asker {
    questions: SyncSender<Interfaces>,
    answers: Receiver<Found>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Radios {
    /// From the first Wi-Fi uplink on.
    asker: Option<Asker>,
    seen: BTreeMap<String, Seen>,
    /// Events that are not over: their interface, and the worst of their time so far.
    open: BTreeMap<EventId, (String, Radio)>,
}

impl Radios {
    /// Has these Wi-Fi interfaces looked at, in the network namespace of the calling thread, unless the
    /// look before is not over; the others are forgotten.
    pub(crate) fn look(&mut self, interfaces: Interfaces) {
        self.seen
            .retain(|name, _| interfaces.iter().any(|(n, _)| n == name));
        if interfaces.is_empty() {
            self.asker = None;
            return;
        }
        if self.asker.is_none() {
            match Asker::start() {
                Ok(asker) => self.asker = Some(asker),
                Err(e) => log::debug!("how Wi-Fi hears is not known: {e}"),
            }
        }
        if let Some(asker) = &self.asker
            && let Err(TrySendError::Disconnected(_)) = asker.questions.try_send(interfaces)
        {
            self.asker = None;
        }
    }

    /// Takes in what was found.
    pub(crate) fn tick(&mut self) {
        while let Some(found) = self.asker.as_ref().and_then(|a| a.answers.try_recv().ok()) {
            for (name, at, radio) in found {
                self.note(name, at, radio);
            }
        }
    }

    fn note(&mut self, name: String, at: Monotonic, radio: Option<Radio>) {
        let seen = self.seen.entry(name.clone()).or_default();
        seen.connected = radio.is_some();
        let Some(radio) = radio else { return };
        if seen.looks.len() == REMEMBERED {
            seen.looks.pop_front();
        }
        seen.looks.push_back((at, radio));
        for (interface, worst) in self.open.values_mut() {
            if *interface == name {
                *worst = worst.worst(radio);
            }
        }
    }

    /// Each interface that is connected, as it was at the last look.
    pub(crate) fn now(&self) -> impl Iterator<Item = (&str, Radio)> {
        self.seen
            .iter()
            .filter(|(_, s)| s.connected)
            .filter_map(|(name, s)| Some((name.as_str(), s.looks.back()?.1)))
    }

    /// Adds to an event of a Wi-Fi interface how that heard its access point meanwhile, at its worst; `id`
    /// is the event's where it was told before.
    pub(crate) fn explain(&self, event: &mut Event, id: Option<EventId>) {
        let Some(worst) = self.worst(event, id) else {
            return;
        };
        let mut parts = Vec::new();
        if let Some(dbm) = worst.signal_dbm {
            event.values.insert("wifi_signal_dbm".into(), dbm.into());
            parts.push(format!("{dbm} dBm"));
        }
        for (name, way, bps) in [
            ("wifi_up_bps", "up", worst.up_bps),
            ("wifi_down_bps", "down", worst.down_bps),
        ] {
            if let Some(bps) = bps {
                event.values.insert(name.into(), bps.into());
                parts.push(format!("{:.0} Mbit/s {way}", bps as f64 / 1e6));
            }
        }
        if !parts.is_empty() {
            let what = parts.join(", ");
            event.text = format!("{} (Wi-Fi at its worst: {what})", event.text);
        }
    }

    /// Remembers the worst for an event until it is over: it may last longer than looks are remembered.
    pub(crate) fn follow(&mut self, id: EventId, event: &Event) {
        let worst = self.worst(event, Some(id));
        match worst.filter(|_| event.end_ns.is_none()) {
            Some(worst) => drop(self.open.insert(id, (event.interface.clone(), worst))),
            None => drop(self.open.remove(&id)),
        }
    }

    fn worst(&self, event: &Event, id: Option<EventId>) -> Option<Radio> {
        let before = id.and_then(|id| Some(self.open.get(&id)?.1));
        let begin = event.start_ns.saturating_sub(BEFORE_NS);
        let end = event.end_ns.unwrap_or(u64::MAX);
        let seen = self.seen.get(&event.interface);
        let meanwhile = seen
            .into_iter()
            .flat_map(|s| &s.looks)
            .filter(|(at, _)| (begin..=end).contains(&at.as_nanos()))
            .map(|(_, radio)| *radio);
        before.into_iter().chain(meanwhile).reduce(Radio::worst)
    }
}

impl Asker {
    fn start() -> io::Result<Self> {
        let (questions, asked) = sync_channel::<Interfaces>(1);
        let (answer, answers) = sync_channel(1);
        let thread = std::thread::Builder::new().name("radio".into());
        thread.spawn(move || {
            let mut wireless = None;
            while let Ok(interfaces) = asked.recv() {
                let look = |(name, index): (String, u32)| {
                    let radio = access_point(&mut wireless, index).unwrap_or_else(|e| {
                        log::debug!("{name}: how it hears its access point is not known: {e}");
                        None
                    });
                    (name, clock::now(), radio)
                };
                if answer
                    .send(interfaces.into_iter().map(look).collect())
                    .is_err()
                {
                    return;
                }
            }
        })?;
        Ok(Self { questions, answers })
    }
}

/// Asks over a connection that is opened where there is none, and given up where it fails: drivers that
/// are loaded anew have another number.
fn access_point(wireless: &mut Option<Wireless>, index: u32) -> io::Result<Option<Radio>> {
    let mut connection = match wireless.take() {
        Some(connection) => connection,
        None => Wireless::open()?,
    };
    let found = connection.access_point(index)?;
    *wireless = Some(connection);
    Ok(found.map(Radio::of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_store::Severity;

    const S: u64 = 1_000_000_000;

    fn radio(signal_dbm: i8, up_bps: u64) -> Option<Radio> {
        Some(Radio {
            signal_dbm: Some(signal_dbm),
            up_bps: Some(up_bps),
            down_bps: None,
        })
    }

    fn event(interface: &str, start_s: u64, end_s: Option<u64>) -> Event {
        let at = Monotonic::from_nanos(start_s * S);
        let mut event = Event::new("packet_loss", Severity::Warning, 1, at, "lost".into());
        event.interface = interface.into();
        event.end_ns = end_s.map(|s| s * S);
        event
    }

    #[test]
    fn an_event_is_told_with_the_weakest_signal_of_its_time() {
        let mut radios = Radios::default();
        for n in 0..1000u64 {
            let signal = if n == 950 { -81 } else { -50 };
            let rate = if n == 952 { 6_500_000 } else { 144_400_000 };
            let at = Monotonic::from_nanos(n * 5 * S);
            radios.note("wlan0".into(), at, radio(signal, rate));
        }
        assert_eq!(radios.seen["wlan0"].looks.len(), REMEMBERED);
        let explained = |interface: &str, start_s: u64, end_s: Option<u64>| {
            let mut event = event(interface, start_s, end_s);
            radios.explain(&mut event, None);
            event
        };
        let weak = explained("wlan0", 4755, Some(4790));
        assert_eq!(weak.values["wifi_signal_dbm"], -81);
        assert_eq!(weak.values["wifi_up_bps"], 6_500_000);
        assert!(!weak.values.contains_key("wifi_down_bps"));
        let said = "lost (Wi-Fi at its worst: -81 dBm, 6 Mbit/s up)";
        assert_eq!(weak.text, said);
        let later = explained("wlan0", 4800, None);
        assert_eq!(later.values["wifi_signal_dbm"], -50);
        // Of before, of later, and of a wire nothing is known.
        for other in [
            explained("wlan0", 10, Some(20)),
            explained("wlan0", 6000, None),
            explained("eth0", 4755, Some(4790)),
        ] {
            assert_eq!((other.values.len(), other.text.as_str()), (0, "lost"));
        }
        let now: Vec<_> = radios.now().map(|(n, r)| (n, r.signal_dbm)).collect();
        assert_eq!(now, [("wlan0", Some(-50))]);
        radios.note("wlan0".into(), Monotonic::from_nanos(5000 * S), None);
        assert_eq!(radios.now().count(), 0);
    }

    #[test]
    fn an_event_that_lasts_longer_than_looks_are_remembered_keeps_its_worst() {
        let mut radios = Radios::default();
        let look = |radios: &mut Radios, s: u64, signal| {
            let at = Monotonic::from_nanos(s * S);
            radios.note("wlan0".into(), at, radio(signal, 1));
        };
        look(&mut radios, 100, -60);
        let begun = event("wlan0", 101, None);
        radios.follow(EventId(7), &begun);
        look(&mut radios, 105, -83);
        (22..2000).for_each(|n| look(&mut radios, n * 5, -50));
        let mut over = event("wlan0", 101, Some(9990));
        radios.explain(&mut over, Some(EventId(7)));
        assert_eq!(over.values["wifi_signal_dbm"], -83);
        radios.follow(EventId(7), &over);
        assert_eq!(radios.open.len(), 0);
    }

    /// The thread answers for an interface that is no radio, and ends with its other end.
    #[test]
    fn what_is_no_radio_is_not_connected() {
        let mut radios = Radios::default();
        radios.look(vec![("lo".into(), 1)]);
        for _ in 0..200 {
            radios.tick();
            if radios.seen.contains_key("lo") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        assert!(radios.seen.contains_key("lo"), "no answer");
        assert_eq!(radios.now().count(), 0);
        radios.look(Vec::new());
        assert!(radios.asker.is_none() && radios.seen.is_empty());
    }
}
