//! From sums and events to what may be said of a cable line.
//!
//! Each piece of evidence speaks once: losses in a stretch that an event explains are that event's,
//! losses of a dead channel the channel's, and what comes back every 30 s is ranging and not a period
//! beside it. All that is found here other lines do as well. Grants a passive optical network, a mobile
//! one and a satellite have, too, and a far end that looks at its packets at certain instants shows the
//! same; a cable modem's address is that of optical modems and dishes as well; outages can be as long as
//! anything. So a line is taken for a cable only where it is disturbed as often as station maintenance is
//! due, and shows grants or has that address besides: two signs that have no common cause elsewhere.

use heapless::Vec;

use super::super::event::{Direction, Value, Values, set};
use super::Reading;
use super::sums::Sums;

/// Most findings of one line.
pub const MAX_FINDINGS: usize = 8;
const S: u64 = 1_000_000_000;
/// Station maintenance, and how far a period may be from it, ns.
const RANGING_NS: u64 = 30 * S;
const NEAR_NS: u64 = S;
/// Lengths of outages that a modem makes that loses its ranging: up to sixteen time-outs T3 of 200 ms
/// and the return from them; the time-out T4 and the registration after it.
const T3_NS: core::ops::RangeInclusive<u64> = 150_000_000..=3_600_000_000;
const T4_NS: core::ops::RangeInclusive<u64> = 28 * S..=120 * S;
/// How sure it is that a line is a cable that is disturbed at the period of ranging and shows grants;
/// that has the address and no grants; and both.
const BY_GRANTS: f64 = 0.75;
const BY_MODEM: f64 = 0.5;
const BY_BOTH: f64 = 0.9;

/// What is found of a cable line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// Packets leave on request and grant.
    RequestGrant,
    /// Losses mostly one way.
    DirectionalLoss,
    /// Losses or spikes come back at a period.
    Periodicity,
    /// The upstream buffer is so large.
    UpstreamBuffer,
    /// A queue manager keeps it short.
    Aqm,
    /// One of N bonded upstream channels is dead at times.
    BondedChannel,
    /// The modem loses its ranging.
    Ranging,
    /// The evening is worse than the night while the house is idle.
    EveningCongestion,
}

impl FindingKind {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestGrant => "request_grant",
            Self::DirectionalLoss => "directional_loss",
            Self::Periodicity => "periodicity",
            Self::UpstreamBuffer => "upstream_buffer",
            Self::Aqm => "aqm",
            Self::BondedChannel => "bonded_channel",
            Self::Ranging => "ranging",
            Self::EveningCongestion => "evening_congestion",
        }
    }
}

/// One finding, with the figures that show it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What.
    pub kind: FindingKind,
    /// Which way, where that is known.
    pub direction: Option<Direction>,
    /// How sure, 0 to 1.
    pub confidence: f64,
    /// From the first to the last evidence, ns on the caller's line of time.
    pub since_ns: u64,
    /// See `since_ns`.
    pub until_ns: u64,
    /// Figures.
    pub values: Values,
}

/// What an event says of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// `periodic_loss`: the period, ns, how often, and the share of losses on it.
    Period {
        /// From one to the next, ns.
        period_ns: u64,
        /// How often.
        times: u64,
        /// Share of the losses of that time.
        strength: f64,
    },
    /// `micro_outage` or `outage`, and whether what is near was well or not known.
    Outage {
        /// The gateway did not fail with it.
        near_well: bool,
    },
    /// `peak_hour_congestion`.
    Evening {
        /// Days in a row.
        days: u64,
        /// Busy hours, local.
        hours: (u64, u64),
        /// Delay at night and in the evening, ns.
        night_ns: u64,
        /// See `night_ns`.
        evening_ns: u64,
        /// Whether the counters showed that the house was idle.
        idle: bool,
    },
    /// Trouble of one path, family or size: losses meanwhile are not the line's.
    Elsewhere,
}

/// An event as evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    /// What it says.
    pub seen: Seen,
    /// Which way.
    pub direction: Option<Direction>,
    /// Begin, ns.
    pub start_ns: u64,
    /// End, or now.
    pub end_ns: u64,
}

/// What the readings of one line (each with begin and end, ns; in the order of their begin) and its
/// events show together; nothing where they do not show a cable. `modem` says whether a cable modem's
/// address answered.
#[must_use]
pub fn judge(
    readings: impl Iterator<Item = (u64, u64, Reading)>,
    told: &[Told],
    modem: bool,
) -> Vec<Finding, MAX_FINDINGS> {
    let mut sums = Sums::default();
    for (since_ns, until_ns, reading) in readings {
        sums.add(since_ns, until_ns, reading, told);
    }
    let grants = sums.grants();
    let channel = sums.channel();
    let ranging = ranging(told);
    let sure = match (ranging.is_some(), grants.is_some(), modem) {
        (true, true, true) => BY_BOTH,
        (true, true, false) => BY_GRANTS,
        (true, false, true) => BY_MODEM,
        _ => return Vec::new(),
    };
    if channel.is_some() {
        sums.leave_out_channels();
    }
    let mut found: Vec<Finding, MAX_FINDINGS> = [
        grants,
        sums.directional_loss(),
        channel,
        ranging,
        periodicity(told),
        sums.queue(),
        evening(told),
    ]
    .into_iter()
    .flatten()
    .collect();
    for f in &mut found {
        f.confidence = f.confidence.min(sure);
    }
    found
}

/// From when to when there was something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent(Option<(u64, u64)>);

impl Extent {
    pub(super) fn add(&mut self, since_ns: u64, until_ns: u64) {
        let (a, b) = self.0.unwrap_or((since_ns, until_ns));
        self.0 = Some((a.min(since_ns), b.max(until_ns)));
    }
}

pub(super) fn finding(kind: FindingKind, confidence: f64, extent: Extent) -> Finding {
    let (since_ns, until_ns) = extent.0.unwrap_or((0, 0));
    Finding {
        kind,
        direction: None,
        confidence,
        since_ns,
        until_ns,
        values: Values::new(),
    }
}

impl Finding {
    pub(super) fn number(mut self, name: &'static str, value: u64) -> Self {
        set(&mut self.values, name, Value::Number(value));
        self
    }

    pub(super) fn ratio(mut self, name: &'static str, value: f64) -> Self {
        set(&mut self.values, name, Value::Ratio(value));
        self
    }

    pub(super) fn word(mut self, name: &'static str, value: &'static str) -> Self {
        set(&mut self.values, name, Value::Word(value));
        self
    }

    pub(super) const fn way(mut self, direction: Option<Direction>) -> Self {
        self.direction = direction;
        self
    }
}

fn is_ranging(period_ns: u64) -> bool {
    period_ns.abs_diff(RANGING_NS) <= NEAR_NS
}

/// What comes back with station maintenance, and how many outages beside it are as long as its time-outs.
fn ranging(told: &[Told]) -> Option<Finding> {
    let mut extent = Extent::default();
    let (mut times, mut period_ns, mut strength) = (0, 0, 0.0f64);
    for t in told {
        if let Seen::Period {
            period_ns: p,
            times: n,
            strength: s,
        } = t.seen
            && is_ranging(p)
        {
            extent.add(t.start_ns, t.end_ns);
            times += n;
            period_ns = p;
            strength = strength.max(s);
        }
    }
    let periodic = |t: &Told| {
        let other =
            |p: &&Told| matches!(p.seen, Seen::Period { period_ns, .. } if !is_ranging(period_ns));
        told.iter()
            .filter(other)
            .any(|p| p.start_ns <= t.end_ns && t.start_ns <= p.end_ns)
    };
    let fits = |t: &&Told| {
        let length_ns = t.end_ns.saturating_sub(t.start_ns);
        let is_so_long = T3_NS.contains(&length_ns) || T4_NS.contains(&length_ns);
        matches!(t.seen, Seen::Outage { near_well: true }) && is_so_long && !periodic(t)
    };
    (times > 0).then(|| {
        finding(FindingKind::Ranging, 0.6 + 0.3 * strength.min(1.0), extent)
            .number("period_ns", period_ns)
            .number("times", times)
            .number("outages", told.iter().filter(fits).count() as u64)
    })
}

/// The period that most comes back at, of those that are not station maintenance's.
fn periodicity(told: &[Told]) -> Option<Finding> {
    let mut best: Option<(u64, &Told)> = None;
    for t in told {
        if let Seen::Period {
            period_ns, times, ..
        } = t.seen
            && !is_ranging(period_ns)
            && best.is_none_or(|(n, _)| times > n)
        {
            best = Some((times, t));
        }
    }
    let (_, t) = best?;
    let Seen::Period {
        period_ns,
        times,
        strength,
    } = t.seen
    else {
        return None;
    };
    let mut extent = Extent::default();
    extent.add(t.start_ns, t.end_ns);
    Some(
        finding(
            FindingKind::Periodicity,
            0.5 + 0.4 * strength.min(1.0),
            extent,
        )
        .way(t.direction)
        .number("period_ns", period_ns)
        .number("times", times)
        .ratio("strength", strength),
    )
}

fn evening(told: &[Told]) -> Option<Finding> {
    let t = told
        .iter()
        .rev()
        .find(|t| matches!(t.seen, Seen::Evening { .. }))?;
    let Seen::Evening {
        days,
        hours,
        night_ns,
        evening_ns,
        idle,
    } = t.seen
    else {
        return None;
    };
    let mut extent = Extent::default();
    extent.add(t.start_ns, t.end_ns);
    let confidence = if idle { 0.85 } else { 0.55 };
    Some(
        finding(FindingKind::EveningCongestion, confidence, extent)
            .way(t.direction)
            .number("days", days)
            .number("from_hour", hours.0)
            .number("to_hour", hours.1)
            .number("night_ns", night_ns)
            .number("evening_ns", evening_ns)
            .word("load", if idle { "idle" } else { "unknown" }),
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Channel, Grants, Loss};
    use super::*;

    const GRANTS: Reading = Reading::Grants(Grants {
        period_ns: 2_000_000,
        steps: false,
        strength: 0.4,
        pairs: 20_000,
    });

    fn kinds(readings: &[Reading], told: &[Told], modem: bool) -> std::vec::Vec<FindingKind> {
        let hours = readings
            .iter()
            .enumerate()
            .map(|(n, r)| (n as u64 * 3600 * S, (n as u64 + 1) * 3600 * S, *r));
        judge(hours, told, modem).iter().map(|f| f.kind).collect()
    }

    fn event(seen: Seen, start_s: u64, length_ns: u64) -> Told {
        Told {
            seen,
            direction: None,
            start_ns: start_s * S,
            end_ns: start_s * S + length_ns,
        }
    }

    fn every(period_ns: u64) -> Told {
        let seen = Seen::Period {
            period_ns,
            times: 60,
            strength: 0.9,
        };
        event(seen, 3000, 1800 * S)
    }

    const LOSS: Reading = Reading::Loss(Loss {
        probes: 72_000,
        up: 300,
        down: 4,
        idle: 72_000,
    });

    #[test]
    fn one_sign_alone_shows_no_cable() {
        use FindingKind::*;
        let ranging = [every(30 * S)];
        for (readings, told, modem) in [
            (&[LOSS, LOSS][..], &ranging[..], false),
            (&[GRANTS, LOSS], &[], false),
            // Optical modems and dishes have that address, and grants.
            (&[GRANTS, LOSS], &[], true),
            (&[GRANTS, LOSS], &[every(12 * S)], true),
            (&[LOSS, LOSS], &[every(15 * S)], true),
        ] {
            assert!(kinds(readings, told, modem).is_empty());
        }
        assert_eq!(kinds(&[LOSS, LOSS], &ranging, true), [Ranging]);
        assert_eq!(kinds(&[GRANTS], &ranging, false), [RequestGrant, Ranging]);
    }

    #[test]
    fn confidence_is_at_most_that_of_the_line_being_a_cable() {
        let most = |readings: &[Reading], modem| {
            let hours = readings.iter().map(|r| (0, 3600 * S, *r));
            let found = judge(hours, &[every(30 * S)], modem);
            found.iter().map(|f| f.confidence).fold(0.0, f64::max)
        };
        assert!(most(&[LOSS], true) <= BY_MODEM);
        assert!(most(&[GRANTS], false) <= BY_GRANTS);
        assert!(most(&[GRANTS], true) > BY_GRANTS);
    }

    /// Hours of a line that shows ranging in one of them, long after those that are given.
    fn of_cable(readings: &[Reading], told: &[Told]) -> std::vec::Vec<FindingKind> {
        let mut all = std::vec![every(30 * S)];
        all[0].start_ns += 1000 * 3600 * S;
        all[0].end_ns += 1000 * 3600 * S;
        all.extend(told);
        kinds(readings, &all, false)
    }

    #[test]
    fn each_piece_of_evidence_is_told_once() {
        use FindingKind::*;
        assert_eq!(
            of_cable(&[GRANTS, LOSS], &[]),
            [RequestGrant, DirectionalLoss, Ranging]
        );
        // The losses of the hour are those that come back, and 30 s are ranging.
        for (period_ns, more) in [(30 * S, &[][..]), (12 * S, &[Periodicity])] {
            assert_eq!(
                of_cable(&[GRANTS, LOSS], &[every(period_ns)]),
                [&[RequestGrant, Ranging][..], more].concat()
            );
        }
        // Losses of a dead channel are no loss beside it.
        let lost = Loss {
            probes: 72_000,
            up: 605,
            down: 6,
            idle: 72_000,
        };
        let dead = [channel(1200, 302), channel(1200, 296)];
        let mut readings = std::vec![GRANTS, Reading::Loss(lost)];
        readings.extend(dead);
        assert_eq!(
            of_cable(&readings, &[]),
            [RequestGrant, BondedChannel, Ranging]
        );
        // Where shares differ it is no channel, and they are losses.
        readings[3] = channel(1200, 550);
        assert_eq!(
            of_cable(&readings, &[]),
            [RequestGrant, DirectionalLoss, Ranging]
        );
    }

    fn channel(probes: u64, lost: u64) -> Reading {
        Reading::Channel(Channel {
            probes,
            lost,
            ..Channel::default()
        })
    }

    #[test]
    fn a_channel_is_told_where_only_one_number_of_them_fits_and_it_was_seen_twice() {
        let is_told = |readings: &[Reading]| {
            let all = [&[GRANTS], readings].concat();
            of_cable(&all, &[]).contains(&FindingKind::BondedChannel)
        };
        assert!(is_told(&[channel(1200, 302), channel(1200, 296)]));
        assert!(!is_told(&[channel(2400, 598)]));
        // One in five, in six and in seven fit, or none.
        assert!(!is_told(&[channel(120, 20), channel(120, 20)]));
        assert!(!is_told(&[channel(2400, 700), channel(2400, 700)]));
    }

    #[test]
    fn losses_of_a_channel_in_an_hour_that_is_left_out_are_not_taken_from_other_hours() {
        use FindingKind::*;
        // The third hour has a period of its own, the channel's two stretches are before and in it.
        let hour = 3600 * S;
        let readings = [
            (0, hour, GRANTS),
            (hour, 2 * hour, LOSS),
            (2 * hour, 3 * hour, LOSS),
            (2 * hour, 2 * hour + 60 * S, channel(1200, 302)),
            (2 * hour + 90 * S, 2 * hour + 150 * S, channel(1200, 296)),
        ];
        let mut ranging = every(30 * S);
        ranging.start_ns = 3 * hour - 1800 * S;
        ranging.end_ns = 3 * hour;
        let found = judge(readings.into_iter(), &[ranging], false);
        let found: std::vec::Vec<FindingKind> = found.iter().map(|f| f.kind).collect();
        assert_eq!(
            found,
            [RequestGrant, DirectionalLoss, BondedChannel, Ranging]
        );
    }

    #[test]
    fn the_interval_that_is_told_is_one_that_was_seen() {
        let of = |period_ns, pairs| {
            Reading::Grants(Grants {
                period_ns,
                steps: false,
                strength: 0.4,
                pairs,
            })
        };
        let readings = [
            of(2_000_000, 20_000),
            of(1_000_000, 9000),
            of(2_010_000, 20_000),
            of(4_000_000, 20_000),
        ];
        let hours = readings.iter().map(|r| (0, 3600 * S, *r));
        let found = judge(hours, &[every(30 * S)], false);
        let values = &found[0].values;
        assert!(values.contains(&("interval_ns", Value::Number(2_005_000))));
        assert!(values.contains(&("pairs", Value::Number(40_000))));
    }

    #[test]
    fn outages_as_long_as_time_outs_show_no_cable_and_are_counted_beside_ranging() {
        let outage =
            |n: u64, length_ns| event(Seen::Outage { near_well: true }, 977 * n, length_ns);
        let short: std::vec::Vec<Told> = (1..6).map(|n| outage(n, 300_000_000 * n)).collect();
        for modem in [true, false] {
            assert!(kinds(&[GRANTS], &short, modem).is_empty());
            assert!(kinds(&[], &short, modem).is_empty());
        }
        let long = (1..6).map(|n| outage(n, (4 + n) * S));
        let mut all: std::vec::Vec<Told> = short.iter().copied().chain(long).collect();
        all.push(every(30 * S));
        let found = judge([(0, 3600 * S, GRANTS)].into_iter(), &all, false);
        let ranging = found.iter().find(|f| f.kind == FindingKind::Ranging);
        let values = &ranging.expect("ranging").values;
        assert!(values.contains(&("outages", Value::Number(5))));
    }
}
