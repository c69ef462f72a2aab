//! What happens on a made-up line, and when: the same for the same seed.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

const S: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * S;

/// Which way somebody uses the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    Up,
    Down,
}

/// What kind of thing happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Somebody uses the line, and a queue stands.
    Busy(Load),
    /// Nothing but the gateway answers.
    Outage,
    /// Ingress noise: much is lost upward.
    Noise,
    /// Nothing is measured.
    Silence,
}

/// Makes an episode's length in seconds, its queue in ns and its loss, given random numbers.
type Shape<'a> = dyn FnMut(&mut dyn FnMut() -> f64) -> (f64, u64, f64) + 'a;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) struct Episode {
    pub(crate) kind: Kind,
    /// From here on, ns after the begin.
    pub(crate) from_ns: u64,
    /// Up to here.
    pub(crate) to_ns: u64,
    /// How long the queue is once it stands, ns.
    pub(crate) queue_ns: u64,
    /// Share of probes that are lost.
    pub(crate) loss: f64,
}

impl Episode {
    /// What a detector calls it.
    pub(crate) const fn event_kind(&self) -> &'static str {
        match self.kind {
            Kind::Busy(_) => "bufferbloat",
            Kind::Outage if self.to_ns - self.from_ns < 10 * S => "micro_outage",
            Kind::Outage => "outage",
            Kind::Noise => "packet_loss",
            Kind::Silence => "not_measured",
        }
    }

    /// Which way.
    pub(crate) const fn direction(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Busy(Load::Up) | Kind::Noise => Some("up"),
            Kind::Busy(Load::Down) => Some("down"),
            Kind::Outage => Some("both"),
            Kind::Silence => None,
        }
    }

    /// The queue at a time: it fills within three seconds.
    pub(crate) fn queue_at(&self, at_ns: u64) -> f64 {
        let filling = (at_ns.saturating_sub(self.from_ns)) as f64 / (3 * S) as f64;
        self.queue_ns as f64 * filling.min(1.0)
    }
}

/// One uplink.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) interface: String,
    pub(crate) interface_kind: &'static str,
    /// Delays of an empty line up and down, by target, ns.
    pub(crate) floor_ns: [[u64; 2]; 4],
    /// Mean of what comes on top, up and down, ns.
    pub(crate) spread_ns: [f64; 2],
    /// Share of probes lost without a reason.
    pub(crate) loss: f64,
    /// How much worse evenings are upward, ns.
    evening_ns: f64,
    /// From here on somebody keeps the queue upward short, ns after the begin.
    pub(crate) shaped_from_ns: u64,
    /// What happens, by its begin; silences are the same on every line.
    pub(crate) episodes: Vec<Episode>,
}

impl Line {
    /// Line number `index` for `span_ns`.
    pub(crate) fn new(index: usize, span_ns: u64, seed: u64) -> Self {
        let cable = index.is_multiple_of(2);
        let name = if cable { "eth" } else { "wwan" };
        let shaped_from_ns = span_ns / 10 * 7;
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x11e0 ^ (index as u64) << 48);
        let mut unit = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
        let mut episodes = silences(span_ns);
        let mut put = |kind, per_day: f64, make: &mut Shape<'_>| {
            let count = (per_day * span_ns as f64 / DAY as f64).ceil().max(1.0) as u64;
            for i in 0..count {
                let (seconds, queue_ns, loss) = make(&mut unit);
                // One in each equal part of the time, so that none is left empty.
                let place = (i as f64 + 0.05 + 0.75 * unit()) / count as f64;
                let from_ns = (place * span_ns as f64) as u64;
                let to_ns = (from_ns + (seconds * S as f64) as u64).min(span_ns);
                let shaped = from_ns > shaped_from_ns && kind == Kind::Busy(Load::Up);
                episodes.push(Episode {
                    kind,
                    from_ns,
                    to_ns,
                    queue_ns: if shaped { queue_ns / 12 } else { queue_ns },
                    loss: if shaped { loss / 4.0 } else { loss },
                });
            }
        };
        let slow = if cable { 1.0 } else { 1.8 };
        put(Kind::Busy(Load::Up), 7.0, &mut |u| {
            (
                120.0 + 1500.0 * u() * u(),
                ((110.0 + 90.0 * u()) * slow * 1e6) as u64,
                0.004,
            )
        });
        put(Kind::Busy(Load::Down), 9.0, &mut |u| {
            (
                90.0 + 2400.0 * u() * u(),
                ((14.0 + 22.0 * u()) * slow * 1e6) as u64,
                0.000_5,
            )
        });
        put(Kind::Outage, 1.1, &mut |u| {
            (3.0 + 260.0 * u() * u() * u(), 0, 0.0)
        });
        put(Kind::Outage, 0.5, &mut |u| (14.0 + 40.0 * u(), 0, 0.0));
        put(Kind::Noise, 1.6, &mut |u| {
            (60.0 + 540.0 * u(), 0, 0.03 + 0.12 * u())
        });
        episodes.sort_by_key(|e| (e.from_ns, e.to_ns));
        Self {
            interface: format!("{name}{}", index / 2),
            interface_kind: if cable { "wired" } else { "cellular" },
            floor_ns: floors(cable),
            spread_ns: if cable { [0.9e6, 0.16e6] } else { [5e6, 2e6] },
            loss: if cable { 0.000_3 } else { 0.001 },
            evening_ns: if cable { 7e6 } else { 12e6 },
            shaped_from_ns,
            episodes,
        }
    }

    /// How much the evening adds upward, mean, ns: nothing at night, most at nine.
    pub(crate) fn evening_ns(&self, at_ns: u64) -> f64 {
        let hour = (at_ns % DAY) as f64 / (3600 * S) as f64;
        let from_nine = (hour - 21.0) / 2.2;
        self.evening_ns * (-from_nine * from_nine).exp() + 1.0
    }
}

fn floors(cable: bool) -> [[u64; 2]; 4] {
    const US: u64 = 1_000;
    let line = if cable {
        [3_900, 2_700]
    } else {
        [21_000, 14_000]
    };
    [
        [(line[0] + 5_500) * US, (line[1] + 4_400) * US],
        [260 * US, 210 * US],
        [line[0] * US, line[1] * US],
        [(line[0] + 2_600) * US, (line[1] + 1_300) * US],
    ]
}

/// When nothing was measured: once in a while for an hour or less.
fn silences(span_ns: u64) -> Vec<Episode> {
    let length = (span_ns / 40).min(3_100 * S);
    let days = (span_ns / DAY).max(1);
    (0..days.div_ceil(12))
        .map(|i| {
            let from_ns = span_ns / 100 * 37 + i * 11 * DAY + 7 * S;
            Episode {
                kind: Kind::Silence,
                from_ns,
                to_ns: from_ns + length,
                queue_ns: 0,
                loss: 0.0,
            }
        })
        .filter(|e| e.to_ns < span_ns)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_line_and_something_happens_on_it() {
        let line = |seed| Line::new(0, DAY, seed);
        let starts = |l: &Line| l.episodes.iter().map(|e| e.from_ns).collect::<Vec<_>>();
        assert_eq!(starts(&line(1)), starts(&line(1)));
        assert_ne!(starts(&line(1)), starts(&line(2)));
        let l = line(1);
        for kind in [
            Kind::Busy(Load::Up),
            Kind::Outage,
            Kind::Noise,
            Kind::Silence,
        ] {
            assert!(l.episodes.iter().any(|e| e.kind == kind), "{kind:?}");
        }
        assert!(l.episodes.is_sorted_by_key(|e| e.from_ns));
        assert!(l.evening_ns(21 * 3600 * S) > 100.0 * l.evening_ns(4 * 3600 * S));
    }
}
