//! What scenarios are put together from: lines, and what may happen to them.

use bufferbane_core::detect::verdict::Cause;
use bufferbane_core::detect::{Direction, Kind, Load, Role, SeriesFacts};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use crate::scenario::TOLERANCE_NS;
use crate::scenario::spec::{Edges, Effect, Expected, Scenario, Spec, TIMEOUT_NS, What};
use crate::{MS, S};

pub(super) const MINUTE: u64 = 60 * S;
pub(super) const HOUR: u64 = 60 * MINUTE;
pub(super) const DAY: u64 = 24 * HOUR;
/// Targets, by number.
pub(super) const GATEWAY: u16 = 0;
pub(super) const VIENNA: u16 = 1;
pub(super) const QUAD9: u16 = 2;
pub(super) const CLOUDFLARE: u16 = 3;
pub(super) const GOOGLE: u16 = 4;
pub(super) const BERLIN: u16 = 5;

pub(super) fn spec(line: u8, target: u16, role: Role, interval_ns: u64, base_ns: u64) -> Spec {
    Spec {
        facts: SeriesFacts {
            line,
            target,
            role,
            family: 4,
            size: 64,
            interval_ns,
            timeout_ns: TIMEOUT_NS,
        },
        base_ns,
        reflector: false,
        sizes: &[],
    }
}

pub(super) fn reflector(line: u8, target: u16, base_ns: u64) -> Spec {
    Spec {
        reflector: true,
        ..spec(line, target, Role::Far, 50 * MS, base_ns)
    }
}

pub(super) fn six(mut s: Spec) -> Spec {
    s.facts.family = 6;
    s
}

/// A cable line: its gateway, a reflector, three well-known hosts.
pub(super) fn home(line: u8) -> Vec<Spec> {
    vec![
        spec(line, GATEWAY, Role::Gateway { private: true }, S, MS / 2),
        reflector(line, VIENNA, 24 * MS),
        spec(line, QUAD9, Role::Far, S, 14 * MS),
        spec(line, CLOUDFLARE, Role::Far, S, 13 * MS),
        spec(line, GOOGLE, Role::Far, S, 18 * MS),
    ]
}

pub(super) fn pings() -> Vec<Spec> {
    let mut series = home(0);
    series.remove(1);
    series
}

pub(super) fn two_reflectors() -> Vec<Spec> {
    let mut series = home(0);
    series.push(reflector(0, BERLIN, 31 * MS));
    series
}

/// A wire and a radio.
pub(super) fn two_lines() -> Vec<Spec> {
    let mut series = home(0);
    series.extend(home(1));
    series
}

pub(super) fn calm(series: Vec<Spec>) -> Scenario {
    let lines = series.iter().map(|s| s.facts.line).max().unwrap_or(0) + 1;
    Scenario {
        series,
        sees_household: vec![true; usize::from(lines)],
        effects: Vec::new(),
        loads: Vec::new(),
        capacities: Vec::new(),
        expected: Vec::new(),
        length_ns: HOUR,
        background_loss: 0.0002,
        noise_ns: MS,
        daily_ns: 0,
        evening: None,
        blame: (Cause::Nothing, None),
    }
}

pub(super) fn between(rng: &mut ChaCha8Rng, from: u64, to: u64) -> u64 {
    from + rng.next_u64() % (to - from)
}

/// From about minute fifteen on, for `minutes` and up to two more.
pub(super) fn while_of(rng: &mut ChaCha8Rng, minutes: u64) -> (u64, u64) {
    let from = between(rng, 12 * MINUTE, 18 * MINUTE);
    (
        from,
        from + between(rng, minutes * MINUTE, (minutes + 2) * MINUTE),
    )
}

pub(super) fn far(s: &SeriesFacts) -> bool {
    s.role == Role::Far
}

pub(super) fn anybody(_: &SeriesFacts) -> bool {
    true
}

/// Nothing passes any more, neither way.
pub(super) const DEAD: What = What::Cut {
    up: true,
    down: true,
    unsent: false,
};

/// What passes waits far longer than it ever does.
pub(super) const fn blip(up: bool) -> What {
    let long_ns = 90 * MS;
    What::Delay {
        up_ns: if up { long_ns } else { 0 },
        down_ns: if up { 0 } else { long_ns },
        wobble_ns: 6 * MS,
    }
}

impl Scenario {
    pub(super) fn expect(
        &mut self,
        kind: Kind,
        direction: Option<Direction>,
        edges: Edges,
    ) -> usize {
        self.expected.push(Expected {
            kind,
            line: 0,
            direction,
            edges,
            tolerance_ns: TOLERANCE_NS,
            bounds_ns: None,
            same_as: None,
        });
        self.expected.len() - 1
    }

    pub(super) fn effect(
        &mut self,
        (from_ns, to_ns): (u64, u64),
        what: What,
        who: fn(&SeriesFacts) -> bool,
        makes: Option<usize>,
    ) {
        self.effects.push(Effect {
            from_ns,
            to_ns,
            what,
            who,
            makes,
        });
    }

    /// The radio looks for other networks at `at`: for a moment, packets wait.
    pub(super) fn radio_scan(&mut self, at: u64) {
        let what = What::Delay {
            up_ns: 15 * MS,
            down_ns: 15 * MS,
            wobble_ns: 20 * MS,
        };
        self.effect((at, at + 120 * MS), what, anybody, None);
    }

    /// The household uses the line behind a good queue manager: some delay, no more.
    pub(super) fn household(&mut self, span: (u64, u64), load: Load) {
        self.loads.push((0, span.0, span.1, load));
        let what = What::Delay {
            up_ns: 8 * MS,
            down_ns: 0,
            wobble_ns: 14 * MS,
        };
        self.effect(span, what, far, None);
    }

    /// A test of our own that begins at `at`: a queue, and this share of what goes up is lost. Gives
    /// its begin and end.
    pub(super) fn own_test(&mut self, at: u64, lost_up: f64) -> (u64, u64) {
        let span = (at, at + 8 * S);
        self.effect(span, What::Test, anybody, None);
        let what = What::Delay {
            up_ns: 60 * MS,
            down_ns: 0,
            wobble_ns: 25 * MS,
        };
        self.effect(span, what, far, None);
        let what = What::Loss {
            up: lost_up,
            down: 0.0,
        };
        self.effect(span, what, far, None);
        span
    }

    /// Another event with the same begin and end.
    pub(super) fn also(&mut self, kind: Kind, event: usize) {
        let e = self.expected[event];
        self.expected.push(Expected {
            kind,
            direction: None,
            same_as: Some(event),
            ..e
        });
    }

    pub(super) fn cut(
        &mut self,
        kind: Kind,
        span: (u64, u64),
        up: bool,
        unsent: bool,
        who: fn(&SeriesFacts) -> bool,
    ) {
        let direction = (!up).then_some(Direction::Down);
        let e = self.expect(kind, direction, Edges::Given);
        self.expected[e].bounds_ns = Some(span);
        // Two intervals of the fastest stream.
        let fastest_ns = self
            .series
            .iter()
            .filter(|s| who(&s.facts) && far(&s.facts))
            .map(|s| s.facts.interval_ns)
            .min()
            .unwrap_or(S);
        self.expected[e].tolerance_ns = 2 * fastest_ns;
        let what = What::Cut {
            up,
            down: true,
            unsent,
        };
        self.effect(span, what, who, Some(e));
    }
}
