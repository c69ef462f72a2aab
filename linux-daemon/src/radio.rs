//! How well Wi-Fi uplinks hear their access points: looked at every few seconds, and remembered for as long
//! as an event may want to know.

use std::collections::{BTreeMap, VecDeque};

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::netlink::{Station, Wireless};
use bufferbane_store::Event;
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

/// See the module.
#[derive(Debug)]
pub(crate) struct Radios {
    /// None where this kernel has no wireless drivers.
    wireless: Option<Wireless>,
    seen: BTreeMap<String, Seen>,
}

impl Radios {
    /// In the network namespace of the calling thread.
    pub(crate) fn new() -> Self {
        Self {
            wireless: Wireless::open().ok(),
            seen: BTreeMap::new(),
        }
    }

    /// Looks at these Wi-Fi interfaces, names and indexes; the others are forgotten.
    pub(crate) fn look(&mut self, now: Monotonic, interfaces: &[(String, u32)]) {
        self.seen
            .retain(|name, _| interfaces.iter().any(|(n, _)| n == name));
        if self.wireless.is_none() && !interfaces.is_empty() {
            // The driver may have been loaded since.
            self.wireless = Wireless::open().ok();
        }
        let Some(wireless) = &mut self.wireless else {
            return;
        };
        for (name, index) in interfaces {
            let seen = self.seen.entry(name.clone()).or_default();
            match wireless.access_point(*index) {
                Ok(Some(station)) => seen.note(now, Radio::of(station)),
                Ok(None) => seen.connected = false,
                Err(e) => {
                    log::debug!("{name}: how it hears its access point is not known: {e}");
                    seen.connected = false;
                }
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

    /// Adds to an event of a Wi-Fi interface how that heard its access point meanwhile, at its worst.
    pub(crate) fn explain(&self, event: &mut Event) {
        let Some(seen) = self.seen.get(&event.interface) else {
            return;
        };
        let begin = event.start_ns.saturating_sub(BEFORE_NS);
        let end = event.end_ns.unwrap_or(u64::MAX);
        let meanwhile = seen
            .looks
            .iter()
            .filter(|(at, _)| (begin..=end).contains(&at.as_nanos()));
        let Some(worst) = meanwhile.map(|(_, r)| *r).reduce(Radio::worst) else {
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
}

impl Seen {
    fn note(&mut self, now: Monotonic, radio: Radio) {
        self.connected = true;
        if self.looks.len() == REMEMBERED {
            self.looks.pop_front();
        }
        self.looks.push_back((now, radio));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_store::Severity;

    const S: u64 = 1_000_000_000;

    #[test]
    fn an_event_is_told_with_the_weakest_signal_of_its_time() {
        let mut seen = Seen::default();
        for n in 0..1000u64 {
            let signal = if n == 950 { -81 } else { -50 };
            let radio = Radio {
                signal_dbm: Some(signal),
                up_bps: Some(if n == 952 { 6_500_000 } else { 144_400_000 }),
                down_bps: None,
            };
            seen.note(Monotonic::from_nanos(n * 5 * S), radio);
        }
        assert_eq!(seen.looks.len(), REMEMBERED);
        let radios = Radios {
            wireless: None,
            seen: BTreeMap::from([("wlan0".to_owned(), seen)]),
        };
        let event = |interface: &str, start_s: u64, end_s: Option<u64>| {
            let at = Monotonic::from_nanos(start_s * S);
            let mut event = Event::new("packet_loss", Severity::Warning, 1, at, "lost".into());
            event.interface = interface.into();
            event.end_ns = end_s.map(|s| s * S);
            radios.explain(&mut event);
            event
        };
        let weak = event("wlan0", 4755, Some(4790));
        assert_eq!(weak.values["wifi_signal_dbm"], -81);
        assert_eq!(weak.values["wifi_up_bps"], 6_500_000);
        assert!(!weak.values.contains_key("wifi_down_bps"));
        let said = "lost (Wi-Fi at its worst: -81 dBm, 6 Mbit/s up)";
        assert_eq!(weak.text, said);
        assert_eq!(event("wlan0", 4800, None).values["wifi_signal_dbm"], -50);
        // Of before, of later, and of a wire nothing is known.
        for other in [
            event("wlan0", 10, Some(20)),
            event("wlan0", 6000, None),
            event("eth0", 4755, Some(4790)),
        ] {
            assert_eq!((other.values.len(), other.text.as_str()), (0, "lost"));
        }
        assert_eq!(
            radios.now().next().map(|(n, r)| (n, r.signal_dbm)),
            Some(("wlan0", Some(-50)))
        );
    }
}
