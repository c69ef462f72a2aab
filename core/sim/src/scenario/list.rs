//! The scenarios: every kind of trouble, several at once, and lines that have none.

use bufferbane_core::detect::verdict::Cause;
use bufferbane_core::detect::{Direction, Kind, Load, Role, SeriesFacts};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use super::line::{Edges, Effect, Expected, Scenario, Spec, TIMEOUT_NS, What, near};
use crate::{MS, S};

const MINUTE: u64 = 60 * S;
const HOUR: u64 = 60 * MINUTE;
/// Targets, by number.
const GATEWAY: u16 = 0;
const VIENNA: u16 = 1;
const QUAD9: u16 = 2;
const CLOUDFLARE: u16 = 3;
const GOOGLE: u16 = 4;
const BERLIN: u16 = 5;

/// A scenario's maker.
pub type Make = fn(&mut ChaCha8Rng) -> Scenario;

/// Every scenario by name.
pub const ALL: [(&str, Make); 37] = [
    ("quiet_cable", quiet_cable),
    ("quiet_wifi", quiet_wifi),
    ("quiet_slight_loss", quiet_slight_loss),
    ("quiet_daily", quiet_daily),
    ("quiet_household", quiet_household),
    ("quiet_pings_only", quiet_pings_only),
    ("quiet_own_tests", quiet_own_tests),
    ("quiet_no_ipv6", quiet_no_ipv6),
    ("loss_up", loss_up),
    ("loss_down", loss_down),
    ("loss_both", loss_both),
    ("noise_bursts_up", noise_bursts_up),
    ("bursts_down", bursts_down),
    ("periodic_30s", periodic_30s),
    ("periodic_12s", periodic_12s),
    ("periodic_outages", periodic_outages),
    ("micro_outages", micro_outages),
    ("micro_outages_down", micro_outages_down),
    ("outages", outages),
    ("outages_pings_only", outages_pings_only),
    ("bufferbloat_up", bufferbloat_up),
    ("bufferbloat_down", bufferbloat_down),
    ("spike_idle_up", spike_idle_up),
    ("spike_unknown_down", spike_unknown_down),
    ("jitter_up", jitter_up),
    ("jitter_down", jitter_down),
    ("target_dead", target_dead),
    ("reflector_lossy", reflector_lossy),
    ("provider_path", provider_path),
    ("wifi_bad", wifi_bad),
    ("wifi_jitter", wifi_jitter),
    ("ipv6_bad", ipv6_bad),
    ("mtu_hole", mtu_hole),
    ("route_changes", route_changes),
    ("evening", evening),
    ("capacity_down", capacity_down),
    ("loss_and_bloat", loss_and_bloat),
];

/// The ones that mix several troubles.
pub const MIXED: [(&str, Make); 3] = [
    ("outages_and_jitter", outages_and_jitter),
    ("bad_evening_noise", bad_evening_noise),
    ("everything", everything),
];

/// The ones that take longer than a test may, and are run by name only.
pub const MONTHS: [(&str, Make); 1] = [("quiet_month", quiet_month)];

fn series(line: u8, target: u16, role: Role, interval_ns: u64, base_ns: u64) -> Spec {
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
    }
}

fn reflector(line: u8, target: u16, base_ns: u64) -> Spec {
    Spec {
        reflector: true,
        ..series(line, target, Role::Far, 50 * MS, base_ns)
    }
}

/// A cable line: its gateway, a reflector, three well-known hosts.
fn home(line: u8) -> Vec<Spec> {
    vec![
        series(line, GATEWAY, near(), S, MS / 2),
        reflector(line, VIENNA, 24 * MS),
        series(line, QUAD9, Role::Far, S, 14 * MS),
        series(line, CLOUDFLARE, Role::Far, S, 13 * MS),
        series(line, GOOGLE, Role::Far, S, 18 * MS),
    ]
}

fn calm(series: Vec<Spec>) -> Scenario {
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
        cause: Cause::Nothing,
    }
}

fn between(rng: &mut ChaCha8Rng, from: u64, to: u64) -> u64 {
    from + rng.next_u64() % (to - from)
}

/// From minute five of the hour to about minute `minutes` later.
fn while_of(rng: &mut ChaCha8Rng, minutes: u64) -> (u64, u64) {
    let from = between(rng, 12 * MINUTE, 18 * MINUTE);
    (
        from,
        from + between(rng, minutes * MINUTE, (minutes + 2) * MINUTE),
    )
}

fn far(s: &SeriesFacts) -> bool {
    s.role == Role::Far
}

fn anybody(_: &SeriesFacts) -> bool {
    true
}

impl Scenario {
    fn expect(&mut self, kind: Kind, direction: Option<Direction>, edges: Edges) -> usize {
        self.expected.push(Expected {
            kind,
            line: 0,
            direction,
            edges,
            tolerance_ns: S,
            bounds_ns: None,
            same_as: None,
        });
        self.expected.len() - 1
    }

    fn effect(
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

    /// Another event with the same begin and end.
    fn also(&mut self, kind: Kind, event: usize) {
        let e = self.expected[event];
        self.expected.push(Expected {
            kind,
            direction: None,
            same_as: Some(event),
            ..e
        });
    }

    fn cut(
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

fn quiet_cable(_: &mut ChaCha8Rng) -> Scenario {
    Scenario {
        length_ns: 3 * HOUR,
        noise_ns: 3 * MS,
        ..calm(home(0))
    }
}

fn quiet_wifi(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.length_ns = 3 * HOUR;
    s.noise_ns = 4 * MS;
    s.background_loss = 0.001;
    // A scan of the radio now and then.
    for n in 0..60 {
        let at = n * 3 * MINUTE + between(rng, 0, 2 * MINUTE);
        let what = What::Delay {
            up_ns: 15 * MS,
            down_ns: 15 * MS,
            wobble_ns: 20 * MS,
        };
        s.effect((at, at + 120 * MS), what, anybody, None);
    }
    s
}

fn quiet_slight_loss(_: &mut ChaCha8Rng) -> Scenario {
    Scenario {
        length_ns: 3 * HOUR,
        background_loss: 0.004,
        ..calm(home(0))
    }
}

fn quiet_daily(_: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    for s in &mut series {
        s.facts.interval_ns = S;
    }
    Scenario {
        length_ns: 5 * 24 * HOUR,
        daily_ns: 4 * MS,
        ..calm(series)
    }
}

fn quiet_household(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.length_ns = 3 * HOUR;
    let mut at = 2 * MINUTE;
    while at < s.length_ns - MINUTE {
        let to = at + between(rng, S, 20 * S);
        let load = Load {
            up_bps: between(rng, 6_000_000, 9_500_000),
            down_bps: between(rng, 1_000_000, 90_000_000),
        };
        s.loads.push((0, at, to, load));
        // A good queue manager: some delay, no more.
        let what = What::Delay {
            up_ns: 8 * MS,
            down_ns: 0,
            wobble_ns: 14 * MS,
        };
        s.effect((at, to), what, far, None);
        at = to + between(rng, 5 * S, 2 * MINUTE);
    }
    s
}

/// Thirty days of an ordinary home: the hour of the day shows, a little is lost, the radio scans, the
/// household uses the line behind a good queue manager, and a test of our own runs every hour.
fn quiet_month(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.length_ns = 30 * 24 * HOUR;
    s.daily_ns = 3 * MS;
    s.noise_ns = 3 * MS;
    s.background_loss = 0.0005;
    let mut at = 10 * MINUTE;
    while at < s.length_ns - HOUR {
        // Much less is going on at night.
        let night = at / HOUR % 24 < 7;
        let to = at + between(rng, S, 60 * S);
        let load = Load {
            up_bps: between(rng, 3_000_000, 9_500_000),
            down_bps: between(rng, 1_000_000, 90_000_000),
        };
        s.loads.push((0, at, to, load));
        let what = What::Delay {
            up_ns: 8 * MS,
            down_ns: 0,
            wobble_ns: 14 * MS,
        };
        s.effect((at, to), what, far, None);
        let pause = if night { HOUR } else { 10 * MINUTE };
        at = to + between(rng, 5 * S, pause);
    }
    for hour in 1..30 * 24 {
        let at = hour * HOUR + between(rng, 0, 30 * MINUTE);
        let span = (at, at + 8 * S);
        s.effect(span, What::Test, anybody, None);
        let what = What::Delay {
            up_ns: 60 * MS,
            down_ns: 0,
            wobble_ns: 25 * MS,
        };
        s.effect(span, what, far, None);
        s.effect(
            span,
            What::Loss {
                up: 0.05,
                down: 0.0,
            },
            far,
            None,
        );
        let what = What::Delay {
            up_ns: 15 * MS,
            down_ns: 15 * MS,
            wobble_ns: 20 * MS,
        };
        for _ in 0..6 {
            let at = hour * HOUR + between(rng, 0, HOUR);
            s.effect((at, at + 120 * MS), what, anybody, None);
        }
    }
    s
}

fn pings() -> Vec<Spec> {
    let mut series = home(0);
    series.remove(1);
    series
}

fn quiet_pings_only(_: &mut ChaCha8Rng) -> Scenario {
    Scenario {
        length_ns: 6 * HOUR,
        background_loss: 0.001,
        sees_household: vec![false],
        ..calm(pings())
    }
}

fn quiet_own_tests(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.length_ns = 3 * HOUR;
    for n in 1..17 {
        let at = n * 10 * MINUTE + between(rng, 0, MINUTE);
        let span = (at, at + 8 * S);
        s.effect(span, What::Test, anybody, None);
        let what = What::Delay {
            up_ns: 60 * MS,
            down_ns: 0,
            wobble_ns: 25 * MS,
        };
        s.effect(span, what, far, None);
        s.effect(span, What::Loss { up: 0.1, down: 0.0 }, far, None);
        let load = Load {
            up_bps: 10_000_000,
            down_bps: 0,
        };
        s.loads.push((0, span.0, span.1, load));
    }
    s
}

fn six(mut s: Spec) -> Spec {
    s.facts.family = 6;
    s
}

fn quiet_no_ipv6(_: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    series.push(six(self::series(0, QUAD9, Role::Far, S, 14 * MS)));
    // A host that answers nobody.
    series.push(self::series(0, BERLIN, Role::Far, S, 20 * MS));
    let mut s = calm(series);
    let all = (0, s.length_ns + HOUR);
    let cut = |unsent| What::Cut {
        up: true,
        down: true,
        unsent,
    };
    s.effect(all, cut(true), |f| f.family == 6, None);
    s.effect(all, cut(false), |f| f.target == BERLIN, None);
    s
}

fn loss(rng: &mut ChaCha8Rng, up: f64, down: f64, way: Direction) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessLoss;
    let e = s.expect(Kind::PacketLoss, Some(way), Edges::Touched);
    let span = while_of(rng, 12);
    s.effect(span, What::Loss { up, down }, far, Some(e));
    s
}

fn loss_up(rng: &mut ChaCha8Rng) -> Scenario {
    loss(rng, 0.035, 0.0, Direction::Up)
}

fn loss_down(rng: &mut ChaCha8Rng) -> Scenario {
    loss(rng, 0.0, 0.06, Direction::Down)
}

fn loss_both(rng: &mut ChaCha8Rng) -> Scenario {
    loss(rng, 0.04, 0.04, Direction::Both)
}

fn bursts(
    rng: &mut ChaCha8Rng,
    s: &mut Scenario,
    (from, to): (u64, u64),
    way: Direction,
    who: fn(&SeriesFacts) -> bool,
) {
    let e = s.expect(Kind::LossBurst, Some(way), Edges::Runs);
    let mut at = from;
    while at < to {
        let span = (at, at + between(rng, 1200 * MS, 2000 * MS));
        let (up, down) = if way == Direction::Up {
            (0.65, 0.0)
        } else {
            (0.0, 0.65)
        };
        s.effect(span, What::Loss { up, down }, who, Some(e));
        at = span.1 + between(rng, 150 * S, 270 * S);
    }
}

fn noise_bursts_up(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessLoss;
    bursts(rng, &mut s, (12 * MINUTE, 40 * MINUTE), Direction::Up, far);
    s
}

fn bursts_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessLoss;
    bursts(
        rng,
        &mut s,
        (12 * MINUTE, 40 * MINUTE),
        Direction::Down,
        far,
    );
    s
}

fn periodic(rng: &mut ChaCha8Rng, period_ns: u64, up: bool) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::Periodic;
    let way = if up { Direction::Up } else { Direction::Down };
    let e = s.expect(Kind::PeriodicLoss, Some(way), Edges::Touched);
    // A hit may fall between two probes.
    s.expected[e].tolerance_ns = period_ns + S;
    let from = between(rng, 12 * MINUTE, 14 * MINUTE);
    for n in 0..(30 * MINUTE / period_ns) {
        let at = from + n * period_ns + between(rng, 0, 40 * MS);
        let (up, down) = if up { (1.0, 0.0) } else { (0.0, 1.0) };
        s.effect((at, at + 45 * MS), What::Loss { up, down }, far, Some(e));
    }
    s
}

fn periodic_30s(rng: &mut ChaCha8Rng) -> Scenario {
    periodic(rng, 30 * S, true)
}

fn periodic_12s(rng: &mut ChaCha8Rng) -> Scenario {
    periodic(rng, 12_300 * MS, false)
}

fn periodic_outages(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::Periodic;
    let (from, times) = (between(rng, 12 * MINUTE, 14 * MINUTE), 24);
    let p = s.expect(Kind::PeriodicLoss, None, Edges::Given);
    s.expected[p].direction = Some(Direction::Up);
    s.expected[p].bounds_ns = Some((from, from + (times - 1) * 45 * S));
    // A loss by chance may lie where one more would.
    s.expected[p].tolerance_ns = 46 * S;
    for n in 0..times {
        let at = from + n * 45 * S;
        let span = (at, at + between(rng, 400 * MS, 600 * MS));
        s.cut(Kind::MicroOutage, span, true, false, far);
    }
    s
}

fn micro(rng: &mut ChaCha8Rng, s: &mut Scenario, from: u64, times: u64, up: bool) {
    let mut at = from;
    for n in 0..times {
        // The shortest that can be claimed, among longer ones.
        let long = if n % 3 == 0 {
            200 * MS
        } else {
            between(rng, 250 * MS, 6000 * MS)
        };
        s.cut(Kind::MicroOutage, (at, at + long), up, false, far);
        at += long + between(rng, 25 * S, 110 * S);
    }
}

fn micro_outages(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessOutages;
    micro(rng, &mut s, 12 * MINUTE, 12, true);
    s
}

fn micro_outages_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessOutages;
    micro(rng, &mut s, 12 * MINUTE, 8, false);
    s
}

fn outages(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessOutages;
    let mut at = 12 * MINUTE;
    for n in 0..3 {
        let span = (at, at + between(rng, 12 * S, 150 * S));
        s.cut(Kind::Outage, span, true, n == 1, far);
        at = span.1 + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
    s
}

fn outages_pings_only(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(pings());
    s.cause = Cause::AccessOutages;
    let mut at = 12 * MINUTE;
    for n in 0..4 {
        let (kind, long) = if n % 2 == 0 {
            (Kind::Outage, between(rng, 13 * S, 90 * S))
        } else {
            (Kind::MicroOutage, between(rng, 3500 * MS, 7000 * MS))
        };
        s.cut(kind, (at, at + long), true, false, far);
        at += long + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
    s
}

fn bloat(rng: &mut ChaCha8Rng, s: &mut Scenario, from: u64, way: Direction, queue_ns: u64) -> u64 {
    let span = (from, from + between(rng, 40 * S, 120 * S));
    let e = s.expect(Kind::Bufferbloat, Some(way), Edges::Touched);
    let up = way == Direction::Up;
    let what = What::Delay {
        up_ns: if up { queue_ns } else { 0 },
        down_ns: if up { 0 } else { queue_ns },
        wobble_ns: queue_ns / 5,
    };
    s.effect(span, what, far, Some(e));
    let load = if up {
        Load {
            up_bps: 9_700_000,
            down_bps: 300_000,
        }
    } else {
        Load {
            up_bps: 400_000,
            down_bps: 95_000_000,
        }
    };
    s.loads.push((0, span.0, span.1, load));
    span.1
}

fn bufferbloat_up(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::Bufferbloat;
    let mut at = 12 * MINUTE;
    for _ in 0..4 {
        at = bloat(rng, &mut s, at, Direction::Up, 240 * MS) + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
    s
}

fn bufferbloat_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::Bufferbloat;
    let mut at = 12 * MINUTE;
    for _ in 0..3 {
        at = bloat(rng, &mut s, at, Direction::Down, 700 * MS)
            + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
    s
}

fn spikes(rng: &mut ChaCha8Rng, s: &mut Scenario, way: Direction) {
    let mut at = 12 * MINUTE;
    for _ in 0..3 {
        let span = (at, at + between(rng, 15 * S, 90 * S));
        let e = s.expect(Kind::LatencySpike, Some(way), Edges::Touched);
        let up = way == Direction::Up;
        let what = What::Delay {
            up_ns: if up { 90 * MS } else { 0 },
            down_ns: if up { 0 } else { 90 * MS },
            wobble_ns: 6 * MS,
        };
        s.effect(span, what, far, Some(e));
        at = span.1 + between(rng, 6 * MINUTE, 8 * MINUTE);
    }
}

fn spike_idle_up(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessDelay;
    spikes(rng, &mut s, Direction::Up);
    s
}

fn spike_unknown_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessDelay;
    s.sees_household = vec![false];
    spikes(rng, &mut s, Direction::Down);
    s
}

fn jitter_up(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessDelay;
    let e = s.expect(Kind::HighJitter, Some(Direction::Up), Edges::Touched);
    let what = What::Jitter {
        up_ns: 44 * MS,
        down_ns: 0,
    };
    s.effect(while_of(rng, 8), what, far, Some(e));
    s
}

fn jitter_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessDelay;
    let e = s.expect(Kind::HighJitter, Some(Direction::Down), Edges::Touched);
    let what = What::Jitter {
        up_ns: 0,
        down_ns: 20 * MS,
    };
    s.effect(while_of(rng, 8), what, far, Some(e));
    s
}

fn target_dead(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::FarEnd;
    let e = s.expect(Kind::RoutingFault, None, Edges::Answered);
    let what = What::Cut {
        up: true,
        down: true,
        unsent: false,
    };
    s.effect(while_of(rng, 5), what, |f| f.target == QUAD9, Some(e));
    s
}

fn two_reflectors() -> Vec<Spec> {
    let mut series = home(0);
    series.push(reflector(0, BERLIN, 31 * MS));
    series
}

fn reflector_lossy(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_reflectors());
    s.cause = Cause::FarEnd;
    let e = s.expect(Kind::PacketLoss, Some(Direction::Down), Edges::Touched);
    s.also(Kind::RoutingFault, e);
    let what = What::Loss {
        up: 0.0,
        down: 0.08,
    };
    s.effect(while_of(rng, 9), what, |f| f.target == VIENNA, Some(e));
    s
}

fn provider_path(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_reflectors());
    s.cause = Cause::ProviderPath;
    let e = s.expect(Kind::LatencySpike, Some(Direction::Down), Edges::Touched);
    s.also(Kind::RoutingFault, e);
    let what = What::Delay {
        up_ns: 0,
        down_ns: 120 * MS,
        wobble_ns: 8 * MS,
    };
    let who = |f: &SeriesFacts| f.target == VIENNA || f.target == GOOGLE;
    s.effect(while_of(rng, 8), what, who, Some(e));
    s
}

/// A wire and a radio.
fn two_lines() -> Vec<Spec> {
    let mut series = home(0);
    series.extend(home(1));
    series
}

fn wifi_bad(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_lines());
    s.cause = Cause::InHouse;
    let e = s.expect(Kind::PacketLoss, Some(Direction::Both), Edges::Touched);
    s.also(Kind::InterfaceDiffers, e);
    let what = What::Loss {
        up: 0.06,
        down: 0.06,
    };
    s.effect(while_of(rng, 20), what, |f| f.line == 0, Some(e));
    s
}

fn wifi_jitter(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(two_lines());
    for spec in &mut s.series {
        if spec.facts.target == GATEWAY {
            spec.facts.interval_ns = 100 * MS;
        }
    }
    s.cause = Cause::InHouse;
    let e = s.expect(Kind::HighJitter, Some(Direction::Both), Edges::Touched);
    s.also(Kind::InterfaceDiffers, e);
    let what = What::Jitter {
        up_ns: 30 * MS,
        down_ns: 30 * MS,
    };
    s.effect(while_of(rng, 15), what, |f| f.line == 0, Some(e));
    s
}

fn ipv6_bad(rng: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    series.push(six(reflector(0, VIENNA, 26 * MS)));
    series.push(six(self::series(0, QUAD9, Role::Far, 200 * MS, 15 * MS)));
    let mut s = calm(series);
    s.cause = Cause::Family;
    let e = s.expect(Kind::PacketLoss, Some(Direction::Up), Edges::Touched);
    s.also(Kind::FamilyDiffers, e);
    let what = What::Loss {
        up: 0.09,
        down: 0.0,
    };
    s.effect(while_of(rng, 10), what, |f| f.family == 6, Some(e));
    s
}

fn mtu_hole(rng: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    let mut large = reflector(0, VIENNA, 24 * MS);
    large.facts.size = 1400;
    series.push(large);
    let mut s = calm(series);
    s.cause = Cause::Mtu;
    let e = s.expect(Kind::MtuBlackHole, None, Edges::Answered);
    let what = What::Cut {
        up: true,
        down: false,
        unsent: false,
    };
    s.effect(while_of(rng, 6), what, |f| f.size == 1400, Some(e));
    s
}

fn route_changes(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    // A change of path is no fault.
    s.cause = Cause::Nothing;
    let (from, to) = while_of(rng, 20);
    for at in [from, to] {
        let e = s.expect(Kind::RouteChange, Some(Direction::Down), Edges::Given);
        s.expected[e].bounds_ns = Some((at, at));
    }
    let what = What::Path {
        hops: 3,
        longer_ns: 70 * MS,
    };
    s.effect((from, to), what, |f| f.target == VIENNA, None);
    s
}

fn evening(rng: &mut ChaCha8Rng) -> Scenario {
    let mut series = home(0);
    for s in &mut series {
        s.facts.interval_ns = 2 * S;
    }
    let mut s = calm(series);
    s.cause = Cause::EveningCongestion;
    s.length_ns = 8 * 24 * HOUR;
    let first = 1 + u64::from(rng.next_u32() % 2);
    s.evening = Some((first, first + 5, 16 * MS));
    let e = s.expect(Kind::PeakHourCongestion, Some(Direction::Up), Edges::Given);
    let day = 24 * HOUR;
    s.expected[e].bounds_ns = Some((first * day + 19 * HOUR, (first + 4) * day + 23 * HOUR));
    s
}

fn capacity_down(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::CapacityDown;
    s.length_ns = 2 * HOUR;
    for (up, kind, way, from) in [
        (true, Kind::UploadDegraded, Direction::Up, 40),
        (false, Kind::DownloadDegraded, Direction::Down, 70),
    ] {
        let e = s.expect(kind, Some(way), Edges::Given);
        let (from, to) = (from * MINUTE, (from + 15) * MINUTE);
        let (mut first, mut last) = (u64::MAX, 0);
        for n in 0..230 {
            let at = n * 30 * S + between(rng, 0, 5 * S);
            let normal = if up { 40_000_000 } else { 400_000_000 };
            let mut bps = between(rng, normal * 93 / 100, normal * 107 / 100);
            if (from..to).contains(&at) {
                bps = bps * if up { 60 } else { 35 } / 100;
                first = first.min(at);
                last = last.max(at);
            }
            s.capacities.push((0, at, up, bps));
        }
        s.expected[e].bounds_ns = Some((first, last));
    }
    s
}

fn loss_and_bloat(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = loss(rng, 0.05, 0.0, Direction::Up);
    s.cause = Cause::AccessLoss;
    let at = between(rng, 19 * MINUTE, 21 * MINUTE);
    bloat(rng, &mut s, at, Direction::Up, 200 * MS);
    bloat(rng, &mut s, at + 20 * MINUTE, Direction::Up, 200 * MS);
    s
}

fn outages_and_jitter(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = jitter_up(rng);
    s.cause = Cause::AccessOutages;
    micro(rng, &mut s, 32 * MINUTE, 8, true);
    let span = (46 * MINUTE, 46 * MINUTE + between(rng, 20 * S, 60 * S));
    s.cut(Kind::Outage, span, true, false, far);
    s
}

fn bad_evening_noise(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = calm(home(0));
    s.cause = Cause::AccessLoss;
    bursts(rng, &mut s, (12 * MINUTE, 40 * MINUTE), Direction::Up, far);
    let e = s.expect(Kind::RoutingFault, None, Edges::Answered);
    let what = What::Cut {
        up: true,
        down: true,
        unsent: false,
    };
    let from = between(rng, 44 * MINUTE, 46 * MINUTE);
    s.effect(
        (from, from + 90 * S),
        what,
        |f| f.target == CLOUDFLARE,
        Some(e),
    );
    s
}

fn everything(rng: &mut ChaCha8Rng) -> Scenario {
    let mut s = loss(rng, 0.0, 0.06, Direction::Down);
    s.length_ns = 2 * HOUR;
    s.cause = Cause::AccessOutages;
    micro(rng, &mut s, 40 * MINUTE, 8, true);
    let at = 58 * MINUTE;
    bloat(rng, &mut s, at, Direction::Up, 240 * MS);
    let span = (66 * MINUTE, 66 * MINUTE + between(rng, 60 * S, 150 * S));
    s.cut(Kind::Outage, span, true, true, far);
    let e = s.expect(Kind::LatencySpike, Some(Direction::Down), Edges::Touched);
    let what = What::Delay {
        up_ns: 0,
        down_ns: 90 * MS,
        wobble_ns: 6 * MS,
    };
    s.effect((80 * MINUTE, 81 * MINUTE), what, far, Some(e));
    let e = s.expect(Kind::HighJitter, Some(Direction::Up), Edges::Touched);
    let what = What::Jitter {
        up_ns: 40 * MS,
        down_ns: 0,
    };
    s.effect((90 * MINUTE, 96 * MINUTE), what, far, Some(e));
    s
}
