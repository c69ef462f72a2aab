//! What a test's probes and streams say.

use bufferbane_core::load::bins::{mean_bps, quantile_bps};
use bufferbane_core::load::datagrams::Counted;
use bufferbane_core::load::guest::{Guest, GuestState};
use bufferbane_core::load::latency::Spread;
use bufferbane_core::load::phases::Phases;
use bufferbane_core::load::responsiveness;
use bufferbane_core::sample::Status;
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::{BIN_NS, EndReason, Offer};
use bufferbane_store::{
    Datagrams, Direction, LoadTest, LoadedDelay, Percentiles, ProbeBin, Protocol, TestWay,
};

use super::drops::Dropped;
use super::flows::Carried;
use super::others::Others;
use super::probes::Probe;
use super::spec::Spec;

/// All that was taken down.
pub(super) struct Taken<'a> {
    pub(super) spec: &'a Spec,
    pub(super) phases: &'a Phases,
    pub(super) probes: &'a [Probe],
    /// Echo requests beside them, where there were any.
    pub(super) pings: &'a [Probe],
    pub(super) guest: &'a Guest,
    pub(super) carried: &'a Carried,
    pub(super) dropped: Dropped,
    pub(super) others: Option<&'a Others>,
    pub(super) recovery_ns: Option<u64>,
    pub(super) cut_short: bool,
}

/// A stretch of time, ns.
#[derive(Clone, Copy)]
struct Stretch {
    from: u64,
    to: u64,
}

impl Stretch {
    const fn holds(self, at: u64) -> bool {
        at >= self.from && at < self.to
    }
}

/// The result of a test that went through all its phases.
pub(super) fn evaluate(t: &Taken<'_>) -> Result<LoadTest, String> {
    let load = t.phases.load().map(Monotonic::as_nanos);
    let end = t.phases.load_end().map(Monotonic::as_nanos);
    let (load, end) = load.zip(end).ok_or("no stream ever carried anything")?;
    // What the reflector said during the load is no count of what has arrived, or left, in all.
    if t.spec.offer.is_some() && !t.guest.is_complete() {
        return Err(uncounted(&t.spec.path.reflector, t.guest.state()));
    }
    let ramp_ns = t.phases.ramp_ns();
    let begun = t.phases.begun().as_nanos();
    let idle = Stretch {
        from: begun,
        to: begun + t.phases.times().idle_ns,
    };
    let steady = Stretch {
        from: load + ramp_ns,
        to: end,
    };
    let rtt = delay(t.probes, idle, steady, |p| p.rtt)
        .ok_or("too few probes came back to say anything of latency")?;
    // The floor of a direction is the fastest probe of the whole test.
    let floor = |of: fn(&Probe) -> Option<i64>| t.probes.iter().filter_map(of).min();
    let (up_floor, down_floor) = (floor(|p| p.up), floor(|p| p.down));
    let up = |p: &Probe| above(p.up, up_floor);
    let down = |p: &Probe| above(p.down, down_floor);

    let mut ways = Vec::new();
    let (loads_up, loads_down) = t.spec.loads();
    if loads_up {
        let facts = t.carried.facts;
        let way = Way {
            direction: Direction::Up,
            streams: t.spec.up,
            bytes: t.guest.received(),
            bins: t.guest.bins(),
            retransmits: facts.retransmits,
            cwnd_bytes: facts.cwnd_bytes,
            rtt_us: facts.rtt_us,
            lost: Status::LostUp,
            datagrams: t.spec.offer.map(|o| {
                let (here, there) = (&t.carried.datagrams, &t.guest.counted());
                datagrams_up(&o, here, there, t.dropped)
            }),
        };
        ways.push(way.describe(t, idle, steady, load, &up));
    }
    if loads_down {
        let facts = t.guest.facts();
        let way = Way {
            direction: Direction::Down,
            streams: t.spec.down,
            bytes: t.carried.bins.total(),
            bins: t.carried.bins.as_slice(),
            retransmits: facts.retransmits,
            cwnd_bytes: facts.cwnd_bytes,
            rtt_us: facts.rtt_us,
            lost: Status::LostDown,
            datagrams: t.spec.offer.map(|o| {
                let (here, there) = (&t.carried.datagrams, &t.guest.counted());
                datagrams_down(&o, here, there, t.dropped)
            }),
        };
        ways.push(way.describe(t, idle, steady, load, &down));
    }

    // Of datagrams that leave as they do anyway, nobody waits for an answer.
    let rpm = t.spec.offer.is_none().then(|| responsiveness(t, load, end));
    let rpm = rpm.flatten();
    let last = t.probes.iter().map(|p| p.handed_ns).max().unwrap_or(end);
    Ok(LoadTest {
        boot: 0,
        start_ns: begun,
        end_ns: last.max(end),
        load_start_ns: load,
        load_end_ns: end,
        ramp_ns,
        interface: t.spec.path.interface.clone(),
        reflector: t.spec.path.reflector.clone(),
        kind: t.spec.kind.as_str().to_owned(),
        protocol: match t.spec.offer {
            Some(_) => Protocol::Udp,
            None => Protocol::Tcp,
        },
        asked_by: t.spec.asked_by.to_owned(),
        congestion: match t.spec.offer {
            Some(_) => String::new(),
            None => t.spec.congestion.clone(),
        },
        cut_short: t.cut_short,
        instead_of: t.spec.instead_of.clone(),
        ways,
        rtt,
        icmp: delay(t.pings, idle, steady, |p| p.rtt),
        rpm: rpm.map(|r| r.rpm),
        rpm_stable: rpm.is_some_and(|r| r.stable),
        rpm_variant: responsiveness::VARIANT.to_owned(),
        recovery_ns: t.recovery_ns,
        probes: probe_bins(t.probes, begun, &up, &down),
    })
}

/// Why nobody knows what became of the datagrams.
fn uncounted(reflector: &str, state: GuestState) -> String {
    match state {
        GuestState::Ended(reason) if reason != EndReason::None => format!(
            "the reflector {reflector} stopped counting before all datagrams could have come, so nobody knows what \
             became of them: {}",
            reason.as_str()
        ),
        _ => format!(
            "the reflector {reflector} did not say after the load what it had counted in all, so nobody knows \
             what became of the datagrams: try again once it answers"
        ),
    }
}

/// How far a delay lies above the floor of its direction, ns.
fn above(delay: Option<i64>, floor: Option<i64>) -> Option<u64> {
    u64::try_from(delay?.checked_sub(floor?)?).ok()
}

/// What is known of one direction beside the probes.
struct Way<'a> {
    direction: Direction,
    streams: u8,
    bytes: u64,
    bins: &'a [u32],
    retransmits: u32,
    cwnd_bytes: u32,
    rtt_us: u32,
    lost: Status,
    datagrams: Option<Datagrams>,
}

/// What the reflector counted of what left here.
fn datagrams_up(offer: &Offer, here: &Counted, there: &Counted, dropped: Dropped) -> Datagrams {
    let dropped = (dropped.leaving_here, dropped.at_reflector);
    datagrams(offer.up_bps, offer.size, here, there, dropped)
}

/// What was counted here of what left the reflector.
fn datagrams_down(offer: &Offer, here: &Counted, there: &Counted, dropped: Dropped) -> Datagrams {
    let dropped = (dropped.leaving_reflector, dropped.here);
    datagrams(offer.down_bps, offer.size, there, here, dropped)
}

/// What one end counted of what left the other, and what either dropped of it itself.
fn datagrams(
    bps: u64,
    size: u16,
    from: &Counted,
    to: &Counted,
    (sender_drops, receiver_drops): (Option<u64>, u64),
) -> Datagrams {
    let (sent, received) = (from.sent.into(), to.received.into());
    Datagrams {
        offered_bps: bps,
        size,
        sent,
        received,
        lost: lost(sent, received, sender_drops.unwrap_or(0) + receiver_drops),
        sender_drops,
        receiver_drops,
        reordered: to.overtaken.into(),
        duplicated: to.again.into(),
    }
}

/// What the line lost, unless a host may have dropped some of what is missing.
fn lost(sent: u64, received: u64, host_drops: u64) -> Option<u64> {
    let missing = sent.saturating_sub(received);
    (missing == 0 || host_drops == 0).then_some(missing)
}

impl Way<'_> {
    fn describe(
        &self,
        t: &Taken<'_>,
        idle: Stretch,
        steady: Stretch,
        load: u64,
        of: &dyn Fn(&Probe) -> Option<u64>,
    ) -> TestWay {
        // Whole bins within the steady part.
        let first = ((steady.from - load).div_ceil(BIN_NS) as usize).min(self.bins.len());
        let last = (((steady.to - load) / BIN_NS) as usize).clamp(first, self.bins.len());
        let mut bins = self.bins[first..last].to_vec();
        let mean_bps = mean_bps(&bins).unwrap_or(0);
        let delay = delay(t.probes, idle, steady, of).unwrap_or_default();
        let increase_ns = delay.increase.p50;
        let queue = u128::from(increase_ns) * u128::from(mean_bps) / 8_000_000_000;
        let lost = t
            .probes
            .iter()
            .filter(|p| steady.holds(p.handed_ns) && p.status == Some(self.lost));
        TestWay {
            direction: self.direction,
            streams: self.streams,
            bytes: self.bytes,
            mean_bps,
            p10_bps: quantile_bps(&mut bins, 0.1).unwrap_or(0),
            p90_bps: quantile_bps(&mut bins, 0.9).unwrap_or(0),
            retransmits: self.retransmits.into(),
            cwnd_bytes: self.cwnd_bytes.into(),
            rtt_us: self.rtt_us.into(),
            bins: self.bins.to_vec(),
            delay,
            queue_bytes: u64::try_from(queue).unwrap_or(u64::MAX),
            grade: delay.grade().as_str().to_owned(),
            lost: lost.count() as u64,
            others_bps: t
                .others
                .and_then(|o| o.bps(self.direction, Monotonic::from_nanos(steady.from))),
            datagrams: self.datagrams,
        }
    }
}

/// A delay in both stretches; `None` where either has no probe that knows it.
fn delay(
    probes: &[Probe],
    idle: Stretch,
    steady: Stretch,
    of: impl Fn(&Probe) -> Option<u64>,
) -> Option<LoadedDelay> {
    let spread = |stretch: Stretch| {
        let mut values: Vec<u64> = probes
            .iter()
            .filter(|p| stretch.holds(p.handed_ns))
            .filter_map(&of)
            .collect();
        Spread::of(&mut values)
    };
    let (idle, loaded) = (spread(idle)?, spread(steady)?);
    Some(LoadedDelay {
        idle: percentiles(idle),
        loaded: percentiles(loaded),
        increase: percentiles(loaded.above(idle)),
    })
}

const fn percentiles(s: Spread) -> Percentiles {
    Percentiles {
        p50: s.p50,
        p90: s.p90,
        p99: s.p99,
    }
}

fn responsiveness(t: &Taken<'_>, load: u64, end: u64) -> Option<responsiveness::Responsiveness> {
    let foreign: Vec<(u64, u64)> = t
        .probes
        .iter()
        .filter_map(|p| Some((p.handed_ns, p.rtt?)))
        .filter(|(at, _)| *at >= load && *at < end)
        .collect();
    let mut loaded = t.carried.in_band.clone();
    for (i, units) in t.guest.in_band().iter().enumerate() {
        if *units > 0 {
            let at = load + i as u64 * BIN_NS + BIN_NS / 2;
            loaded.push((at, u64::from(*units) * 100_000));
        }
    }
    let mut scratch = vec![0; foreign.len().max(loaded.len())];
    responsiveness::evaluate(&foreign, &loaded, load, end, &mut scratch)
}

/// Medians of probes that were sent in the same 100 ms.
fn probe_bins(
    probes: &[Probe],
    begun: u64,
    up: &dyn Fn(&Probe) -> Option<u64>,
    down: &dyn Fn(&Probe) -> Option<u64>,
) -> Vec<ProbeBin> {
    let of_bin = |p: &Probe| Some((p.handed_ns.checked_sub(begun)? / BIN_NS) as usize);
    let last = probes.iter().filter_map(of_bin).max();
    let mut bins: Vec<Vec<Probe>> = vec![Vec::new(); last.map_or(0, |l| l + 1)];
    for probe in probes {
        if let Some(bin) = of_bin(probe).and_then(|i| bins.get_mut(i)) {
            bin.push(*probe);
        }
    }
    let median = |bin: &[Probe], of: &dyn Fn(&Probe) -> Option<u64>| {
        let mut values: Vec<u64> = bin.iter().filter_map(of).collect();
        Spread::of(&mut values).map(|s| s.p50)
    };
    bins.iter()
        .map(|bin| ProbeBin {
            up_ns: median(bin, up),
            down_ns: median(bin, down),
            rtt_ns: median(bin, &|p| p.rtt),
            lost: bin.iter().filter(|p| p.is_lost()).count() as u32,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Kind;
    use crate::load::spec::Patience;
    use crate::load::tests::path;
    use bufferbane_core::load::guest::Wish;
    use bufferbane_core::load::phases::PhaseTimes;

    const OFFER: Offer = Offer {
        up_bps: 1_000_000,
        down_bps: 2_000_000,
        size: 1200,
    };

    #[test]
    fn what_a_host_dropped_is_not_told_as_the_lines_loss() {
        let here = Counted {
            sent: 1000,
            received: 1900,
            again: 1,
            overtaken: 2,
        };
        let there = Counted {
            sent: 2000,
            received: 990,
            again: 3,
            overtaken: 4,
        };
        let lost = |dropped: Dropped| {
            let up = datagrams_up(&OFFER, &here, &there, dropped);
            let down = datagrams_down(&OFFER, &here, &there, dropped);
            let (leaving_here, at_reflector) = (dropped.leaving_here, dropped.at_reflector);
            let (leaving_reflector, at_home) = (dropped.leaving_reflector, dropped.here);
            for (way, receiver, bps, drops) in [
                (up, &there, OFFER.up_bps, (leaving_here, at_reflector)),
                (down, &here, OFFER.down_bps, (leaving_reflector, at_home)),
            ] {
                assert_eq!(way.offered_bps, bps);
                assert_eq!((way.sender_drops, way.receiver_drops), drops);
                let counted = (way.received, way.duplicated, way.reordered);
                let (received, again) = (receiver.received.into(), receiver.again.into());
                assert_eq!(counted, (received, again, receiver.overtaken.into()));
            }
            (up.lost, down.lost)
        };
        let none = Dropped::default();
        let (all, up, down) = ((Some(10), Some(100)), (Some(10), None), (None, Some(100)));
        // Each end spoils what it receives or sends itself, and nothing else.
        for (dropped, told) in [
            (none, all),
            (Dropped { here: 1, ..none }, up),
            (
                Dropped {
                    at_reflector: 1,
                    ..none
                },
                down,
            ),
            (
                Dropped {
                    leaving_here: Some(1),
                    leaving_reflector: Some(0),
                    ..none
                },
                down,
            ),
            (
                Dropped {
                    leaving_here: Some(0),
                    leaving_reflector: Some(1),
                    ..none
                },
                up,
            ),
            (
                Dropped {
                    leaving_here: Some(0),
                    leaving_reflector: Some(0),
                    ..none
                },
                all,
            ),
        ] {
            assert_eq!(lost(dropped), told, "{dropped:?}");
        }
    }

    #[test]
    fn where_nothing_is_missing_nothing_was_lost_whatever_was_dropped() {
        assert_eq!(
            (super::lost(5, 5, 3), super::lost(5, 4, 3)),
            (Some(0), None)
        );
    }

    #[test]
    fn counts_from_during_the_load_are_no_result() {
        let at = |ms: u64| Monotonic::from_nanos(ms * 1_000_000);
        let spec = Spec {
            path: path("eth0", "vienna"),
            kind: Kind::Up,
            up: 0,
            down: 0,
            offer: Some(OFFER),
            dscp: [0; 8],
            load_ns: 4_000_000_000,
            congestion: String::new(),
            asked_by: "command",
            patience: Patience::Alone,
            instead_of: Vec::new(),
            most_bytes: None,
            orders: std::sync::mpsc::sync_channel(1).0,
        };
        let mut phases = Phases::new(PhaseTimes::with_load(spec.load_ns), at(0));
        phases.loaded(at(3000));
        phases.unloaded(at(7000));
        let probe = |i: u64| Probe {
            handed_ns: i * 10_000_000,
            status: Some(Status::Ok),
            rtt: Some(20_000_000),
            up: Some(10_000_000),
            down: Some(10_000_000),
        };
        let probes: Vec<Probe> = (0..800).map(probe).collect();
        let wish = Wish {
            streams_up: 0,
            streams_down: 0,
            time_ms: 4000,
            dscp: [0; 8],
            congestion: [0; 16],
            prefix: None,
            offer: Some(OFFER),
        };
        let guest = Guest::new(wish, 1, at(0));
        let carried = Carried::default();
        let mut taken = Taken {
            spec: &spec,
            phases: &phases,
            probes: &probes,
            pings: &[],
            guest: &guest,
            carried: &carried,
            dropped: Dropped::default(),
            others: None,
            recovery_ns: None,
            cut_short: false,
        };
        let why = evaluate(&taken).expect_err("the reflector said nothing after the load");
        assert!(why.contains("vienna did not say after the load"), "{why}");
        let why = uncounted("vienna", GuestState::Ended(EndReason::DailyBytes));
        assert!(why.contains("vienna stopped counting"), "{why}");
        assert!(why.contains("a day are used up"), "{why}");
        // Streams count what they carry themselves.
        let streams = Spec {
            down: 1,
            offer: None,
            kind: Kind::Down,
            path: path("eth0", "vienna"),
            congestion: "cubic".into(),
            instead_of: Vec::new(),
            orders: std::sync::mpsc::sync_channel(1).0,
            ..spec
        };
        taken.spec = &streams;
        assert_eq!(evaluate(&taken).expect("a result").ways.len(), 1);
    }
}
