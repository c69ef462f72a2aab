//! From sums and events to what may be said of a cable line.
//!
//! Each piece of evidence speaks once: losses in a stretch that an event explains are that event's,
//! losses of a dead channel the channel's, and what comes back every 30 s is ranging and not a period
//! beside it. All that is found here other lines do as well. Grants a passive optical network, a mobile
//! one and a satellite have, too, and a far end that looks at its packets at certain instants shows the
//! same; a cable modem's address is that of optical modems and dishes as well; outages can be as long as
//! anything. So a line is taken for a cable only where it is disturbed as often as station maintenance is
//! due, and shows grants or has that address besides: two signs that have no common cause elsewhere. Or a person says so.

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
/// And one that a person says is a cable: as sure as each finding is.
const BY_WORD: f64 = 1.0;

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
/// events show together; nothing where they do not show a cable, and no reading says that it is one. `modem` says whether a cable modem's
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
    let sure = match (sums.said(), ranging.is_some(), grants.is_some(), modem) {
        (true, ..) => BY_WORD,
        (_, true, true, true) => BY_BOTH,
        (_, true, true, false) => BY_GRANTS,
        (_, true, false, true) => BY_MODEM,
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
mod tests;
