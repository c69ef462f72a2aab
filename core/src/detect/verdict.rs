//! From events to causes: what a person should be told, worst first.
//!
//! Each event speaks for one cause. What only the series of a routing fault (or of one family, or of
//! large packets) show belongs to that, what the near gateway shows too is in the house, and what
//! comes back at a fixed period belongs to the period. Causes are ordered by how much they hurt: for
//! how long, how badly, how often.

use heapless::Vec;

use super::event::{Direction, Kind, SeriesSet, Severity};
use super::service::Explains;

/// Most causes of one judgement.
pub const MAX_CAUSES: usize = 16;
const S: u64 = 1_000_000_000;
/// What services do so soon after the line's trouble, or before its begin is known, may be of that, ns.
const AFTERMATH_NS: u64 = 10 * S;

/// Confidence at most where one far target alone speaks for it, and there is no other to ask.
const ALONE: f64 = 0.55;
/// The same where others were not seen to be alike, nor to differ for as long as a routing fault has to.
const UNSURE: f64 = 0.65;

/// What is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Nothing is.
    Nothing,
    /// Wi-Fi, a cable, or the router within the house.
    InHouse,
    /// A buffer that fills when the line is used.
    Bufferbloat,
    /// Loss on the access line.
    AccessLoss,
    /// Something that comes back at a fixed period.
    Periodic,
    /// The access line is dead for moments.
    AccessOutages,
    /// Too many share the line in the evening.
    EveningCongestion,
    /// The access line carries less than it did.
    CapacityDown,
    /// Delay on the access line without load.
    AccessDelay,
    /// Some of the internet is reached badly, some well: the provider's core or its peering.
    ProviderPath,
    /// One far end alone.
    FarEnd,
    /// One of IPv4 and IPv6.
    Family,
    /// Large packets vanish.
    Mtu,
    /// A resolver, while the line is well.
    Resolver,
    /// A service that takes connections, while the line is well.
    Service,
    /// This host itself, which dropped something or had no time.
    ThisHost,
}

impl Cause {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing_wrong",
            Self::InHouse => "in_house",
            Self::Bufferbloat => "bufferbloat",
            Self::AccessLoss => "access_loss",
            Self::Periodic => "periodic_interference",
            Self::AccessOutages => "access_outages",
            Self::EveningCongestion => "evening_congestion",
            Self::CapacityDown => "capacity_down",
            Self::AccessDelay => "access_delay",
            Self::ProviderPath => "provider_path",
            Self::FarEnd => "far_end",
            Self::Family => "family",
            Self::Mtu => "mtu",
            Self::Resolver => "resolver",
            Self::Service => "service",
            Self::ThisHost => "this_host",
        }
    }
}

/// What a fact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Detectors found it.
    Found(Kind),
    /// This host did not keep up, and left out or dropped something itself.
    OwnDrops,
    /// A reflector dropped what was sent to it.
    FarDrops,
}

/// How the other far targets of a line were when one or some of them were bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Nobody has said so.
    Untold,
    /// There are none.
    None,
    /// It is not known, or not for sure.
    Unknown,
    /// At least half of all show the same.
    Alike,
    /// Surely well.
    Well,
}

impl Others {
    /// The word for it in an event; none for [`Others::Untold`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Untold => "",
            Self::None => "none",
            Self::Unknown => "unknown",
            Self::Alike => "alike",
            Self::Well => "well",
        }
    }

    /// What an event's word says.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        let all = [Self::None, Self::Unknown, Self::Alike, Self::Well];
        let said = all.into_iter().find(|o| o.as_str() == word);
        said.unwrap_or(Self::Untold)
    }
}

/// An event as evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fact {
    /// What.
    pub sign: Sign,
    /// How bad.
    pub severity: Severity,
    /// Which way.
    pub direction: Option<Direction>,
    /// The line.
    pub line: u8,
    /// Begin, ns on any line of time.
    pub start_ns: u64,
    /// End, or now.
    pub end_ns: u64,
    /// Who shows it, in any numbering that is the same for all facts.
    pub series: SeriesSet,
    /// How many targets they are.
    pub targets: u8,
    /// Whether the near gateway shows it too; `None` where there is none that answers.
    pub near: Option<bool>,
    /// How the other far targets were.
    pub others: Others,
    /// Whether something is not known that its cause would have to be told by: what the household carried, say, in
    /// evenings when the line is slow.
    pub unsure: bool,
    /// Who is to blame, where something else than this fact says so.
    pub blame: Option<Cause>,
}

impl Fact {
    /// What detectors found, where it is of theirs.
    #[must_use]
    pub const fn kind(&self) -> Option<Kind> {
        match self.sign {
            Sign::Found(kind) => Some(kind),
            Sign::OwnDrops | Sign::FarDrops => None,
        }
    }

    fn is_one_of(&self, kinds: &[Kind]) -> bool {
        self.kind().is_some_and(|k| kinds.contains(&k))
    }
}

/// One cause, with what speaks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// What is at fault.
    pub cause: Cause,
    /// On which line.
    pub line: u8,
    /// Which way.
    pub direction: Option<Direction>,
    /// How sure, 0 to 1.
    pub confidence: f64,
    /// From the first to the last event that speaks for it, ns.
    pub since_ns: u64,
    /// See `since_ns`.
    pub until_ns: u64,
    /// How many events speak for it.
    pub events: u32,
    /// How much it hurts, in seconds of annoyance.
    pub weight: f64,
}

/// Judges the facts: causes, worst first; [`Cause::Nothing`] alone where there are none.
#[must_use]
pub fn judge(facts: &[Fact], from_ns: u64, to_ns: u64) -> Vec<Judgement, MAX_CAUSES> {
    let mut causes: Vec<(Judgement, u32, f64), MAX_CAUSES> = Vec::new();
    for f in facts {
        let Some(cause) = cause_of(f, facts) else {
            continue;
        };
        let weight = weight_of(f);
        let known = causes
            .iter_mut()
            .find(|(j, ..)| j.cause == cause && j.line == f.line);
        let Some((j, sure, most)) = known else {
            let j = Judgement {
                cause,
                line: f.line,
                direction: f.direction,
                confidence: 0.0,
                since_ns: f.start_ns,
                until_ns: f.end_ns,
                events: 1,
                weight,
            };
            let entry = (j, surety_of(f), most_of(cause, f));
            if let Err(entry) = causes.push(entry) {
                // What hurts least gives way.
                let all = causes.iter_mut();
                let least = all.min_by(|a, b| a.0.weight.total_cmp(&b.0.weight));
                if let Some(least) = least.filter(|l| l.0.weight < entry.0.weight) {
                    *least = entry;
                }
            }
            continue;
        };
        j.since_ns = j.since_ns.min(f.start_ns);
        j.until_ns = j.until_ns.max(f.end_ns);
        j.direction = match (j.direction, f.direction) {
            (Some(a), Some(b)) if a != b => Some(Direction::Both),
            (a, b) => a.or(b),
        };
        j.events += 1;
        j.weight += weight;
        *sure = (*sure).max(surety_of(f));
        *most = most.max(most_of(cause, f));
    }
    let mut judged: Vec<Judgement, MAX_CAUSES> = causes
        .into_iter()
        .map(|(mut j, sure, most)| {
            // One event may be chance; three are a pattern.
            let often = match j.events {
                1 => 0,
                2 => 1,
                _ => 2,
            };
            j.confidence = (0.55 + 0.1 * f64::from(sure) + 0.05 * f64::from(often)).min(most);
            j
        })
        .collect();
    judged.sort_unstable_by(|a, b| b.weight.total_cmp(&a.weight));
    if judged.is_empty() {
        let _ = judged.push(Judgement {
            cause: Cause::Nothing,
            line: 0,
            direction: None,
            confidence: confidence_in_calm(to_ns.saturating_sub(from_ns)),
            since_ns: from_ns,
            until_ns: to_ns,
            events: 0,
            weight: 0.0,
        });
    }
    judged
}

/// A minute of calm says little, a day of it much.
fn confidence_in_calm(ns: u64) -> f64 {
    let hours = ns as f64 / (3600.0 * S as f64);
    (0.3 + 0.65 * hours / (hours + 1.0)).min(0.95)
}

fn overlaps(a: &Fact, b: &Fact) -> bool {
    a.line == b.line && a.start_ns <= b.end_ns + S && b.start_ns <= a.end_ns + S
}

/// The cause that one fact speaks for, among `all` that are known; `None` where it explains something
/// but is no fault by itself.
#[must_use]
pub fn cause_of(f: &Fact, all: &[Fact]) -> Option<Cause> {
    let within = |kinds: &[Kind]| {
        all.iter().find(|d| {
            d.is_one_of(kinds) && overlaps(f, d) && f.series.iter().all(|s| d.series.contains(s))
        })
    };
    let kind = match f.sign {
        Sign::OwnDrops => return Some(Cause::ThisHost),
        Sign::FarDrops => return Some(Cause::FarEnd),
        Sign::Found(kind) => kind,
    };
    if f.blame.is_some() {
        return f.blame;
    }
    let special = [Kind::RoutingFault, Kind::FamilyDiffers, Kind::MtuBlackHole];
    let owner = if special.contains(&kind) {
        Some(f)
    } else {
        within(&special)
    };
    if let Some(d) = owner {
        return Some(match d.kind() {
            Some(Kind::FamilyDiffers) => Cause::Family,
            Some(Kind::MtuBlackHole) => Cause::Mtu,
            _ => elsewhere(d),
        });
    }
    if kind.is_of_service() {
        return service_of(kind, f, all);
    }
    let periodic = all
        .iter()
        .any(|d| d.is_one_of(&[Kind::PeriodicLoss]) && overlaps(f, d));
    let is_in_house = |d: &Fact| d.blame == Some(Cause::InHouse) && overlaps(f, d);
    let differs = |d: &Fact| d.is_one_of(&[Kind::InterfaceDiffers]);
    let in_house = f.near == Some(true) || all.iter().any(|d| differs(d) && is_in_house(d));
    // Losses in a row are part of the loss of their time.
    let by_others = match kind {
        Kind::LossBurst => within(&[Kind::PacketLoss]).unwrap_or(f),
        _ => f,
    };
    let is_elsewhere = by_others.others == Others::Well;
    Some(match kind {
        // Explains; is not a fault by itself.
        Kind::RouteChange => return None,
        Kind::InterfaceDiffers if in_house => Cause::InHouse,
        // What differs has events of its own.
        Kind::InterfaceDiffers => return None,
        Kind::Bufferbloat => Cause::Bufferbloat,
        Kind::PeakHourCongestion => Cause::EveningCongestion,
        Kind::UploadDegraded | Kind::DownloadDegraded => Cause::CapacityDown,
        _ if in_house => Cause::InHouse,
        Kind::PacketLoss | Kind::LossBurst | Kind::LatencySpike | Kind::HighJitter
            if is_elsewhere =>
        {
            elsewhere(f)
        }
        Kind::PeriodicLoss => Cause::Periodic,
        Kind::MicroOutage | Kind::LossBurst if periodic => Cause::Periodic,
        Kind::MicroOutage | Kind::Outage => Cause::AccessOutages,
        Kind::PacketLoss | Kind::LossBurst => Cause::AccessLoss,
        _ => Cause::AccessDelay,
    })
}

/// What is bad at some of the far targets, while others are well.
const fn elsewhere(f: &Fact) -> Cause {
    if f.targets > 1 {
        Cause::ProviderPath
    } else {
        Cause::FarEnd
    }
}

/// How sure one can be of a cause at most where this fact speaks for it.
fn most_of(cause: Cause, f: &Fact) -> f64 {
    let of_line = matches!(
        cause,
        Cause::AccessLoss | Cause::AccessOutages | Cause::AccessDelay
    );
    let elsewhere = matches!(cause, Cause::FarEnd | Cause::ProviderPath);
    match f.others {
        _ if f.unsure => ALONE,
        Others::None if of_line => ALONE,
        Others::Unknown if of_line => UNSURE,
        // Nobody compares so short a time, in which one alone showed it.
        Others::Untold if of_line && f.is_one_of(&[Kind::LossBurst]) && f.targets == 1 => UNSURE,
        // No routing fault has said so.
        Others::Well if elsewhere => UNSURE,
        _ if cause == Cause::ThisHost => UNSURE,
        _ => 0.95,
    }
}

/// The cause of a service's trouble; `None` where it began while the line was so bad that this explains it: what a
/// resolver does not answer where packets are lost now and then is no trouble of it to begin with, and what is one
/// remains. A connection that is held is lost by silence, too.
fn service_of(kind: Kind, f: &Fact, all: &[Fact]) -> Option<Cause> {
    let least = match kind {
        Kind::TcpUnstable => Explains::Silence,
        _ => Explains::All,
    };
    let explains = |d: &Fact| {
        d.line == f.line
            && d.kind().and_then(Explains::of).is_some_and(|e| e >= least)
            && (d.start_ns.saturating_sub(AFTERMATH_NS)..=d.end_ns.saturating_add(AFTERMATH_NS))
                .contains(&f.start_ns)
    };
    if all.iter().any(explains) {
        return None;
    }
    Some(match kind {
        Kind::TcpUnstable => Cause::Service,
        _ => Cause::Resolver,
    })
}

/// Seconds of annoyance.
fn weight_of(f: &Fact) -> f64 {
    let seconds = f.end_ns.saturating_sub(f.start_ns) as f64 / S as f64;
    let Some(kind) = f.kind() else {
        // What is lost to whoever counts is not lost to anybody else.
        return 1.0 + 0.1 * seconds;
    };
    let (each, per_second) = match kind {
        Kind::Outage => (60.0, 10.0),
        Kind::MicroOutage => (20.0, 10.0),
        Kind::PacketLoss | Kind::Bufferbloat => (10.0, 1.0),
        Kind::RoutingFault | Kind::FamilyDiffers | Kind::MtuBlackHole => (10.0, 1.0),
        Kind::LatencySpike | Kind::InterfaceDiffers => (10.0, 0.8),
        Kind::HighJitter | Kind::PeriodicLoss => (10.0, 0.5),
        // Nothing is reached by name meanwhile; or all waits a moment; or one service is bad.
        Kind::DnsFailing => (10.0, 1.0),
        Kind::DnsSlow => (10.0, 0.5),
        Kind::TcpUnstable => (5.0, 0.2),
        Kind::LossBurst => (20.0, 0.1),
        // Busy for some hours of each of its days.
        Kind::PeakHourCongestion | Kind::UploadDegraded | Kind::DownloadDegraded => (10.0, 0.1),
        Kind::RouteChange => (0.0, 0.0),
    };
    let severity = match f.severity {
        Severity::Info => 0.3,
        Severity::Warning => 1.0,
        Severity::Critical => 2.0,
    };
    (each + per_second * seconds) * severity
}

fn surety_of(f: &Fact) -> u32 {
    u32::from(f.direction.is_some())
        + u32::from(f.near.is_some())
        + u32::from(f.severity == Severity::Critical)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(kind: Kind, from_s: u64, to_s: u64) -> Fact {
        Fact {
            sign: Sign::Found(kind),
            severity: Severity::Warning,
            direction: None,
            line: 0,
            start_ns: from_s * S,
            end_ns: to_s * S,
            series: SeriesSet::default(),
            targets: 1,
            near: None,
            others: Others::Untold,
            unsure: false,
            blame: None,
        }
    }

    #[test]
    fn what_only_one_far_target_shows_is_not_told_as_the_line_s_for_sure() {
        let confidence = |kind, others| {
            let f = Fact {
                severity: Severity::Critical,
                near: Some(false),
                others,
                ..fact(kind, 100, 145)
            };
            let judged = judge(&[f], 0, 9000 * S);
            (judged[0].cause, judged[0].confidence)
        };
        let loss = |others| confidence(Kind::PacketLoss, others);
        assert_eq!(loss(Others::Well), (Cause::FarEnd, UNSURE));
        assert_eq!(loss(Others::Unknown), (Cause::AccessLoss, UNSURE));
        assert_eq!(loss(Others::None), (Cause::AccessLoss, ALONE));
        assert_eq!(loss(Others::Alike), (Cause::AccessLoss, 0.75));
        assert_eq!(confidence(Kind::LossBurst, Others::Untold).1, UNSURE);
        let dead = |others| confidence(Kind::Outage, others);
        assert_eq!(dead(Others::None), (Cause::AccessOutages, ALONE));
        assert_eq!(dead(Others::Untold), (Cause::AccessOutages, 0.75));
    }

    #[test]
    fn some_far_targets_are_the_provider_s_and_losses_in_a_row_go_with_the_loss() {
        let some = |kind, targets, others| Fact {
            targets,
            others,
            series: SeriesSet::default(),
            ..fact(kind, 100, 145)
        };
        let loss = some(Kind::PacketLoss, 2, Others::Well);
        let burst = some(Kind::LossBurst, 1, Others::Unknown);
        assert_eq!(cause_of(&loss, &[]), Some(Cause::ProviderPath));
        assert_eq!(cause_of(&burst, &[]), Some(Cause::AccessLoss));
        assert_eq!(cause_of(&burst, &[loss, burst]), Some(Cause::FarEnd));
    }

    #[test]
    fn of_more_causes_than_there_is_room_for_the_lightest_is_left_out() {
        let facts: std::vec::Vec<Fact> = (0..20)
            .map(|n| Fact {
                line: n as u8,
                ..fact(Kind::PacketLoss, 1000 * n, 1000 * n + 10 + n)
            })
            .collect();
        let judged = judge(&facts, 0, 20_000 * S);
        let lines: std::vec::Vec<u8> = judged.iter().map(|j| j.line).collect();
        assert_eq!(lines, (4..20).rev().collect::<std::vec::Vec<u8>>());
    }

    /// Whatever else the day had.
    #[test]
    fn a_resolver_is_to_blame_unless_the_line_was_bad_when_it_began() {
        let causes = |facts: &[Fact]| {
            let judged = judge(facts, 0, 9000 * S);
            judged.iter().map(|j| j.cause).collect::<std::vec::Vec<_>>()
        };
        let fails = fact(Kind::DnsFailing, 1000, 2000);
        assert_eq!(causes(&[fails]), [Cause::Resolver]);
        let slow = fact(Kind::DnsSlow, 5000, 5100);
        assert_eq!(causes(&[fails, slow]), [Cause::Resolver]);
        let refused = fact(Kind::TcpUnstable, 1000, 1400);
        assert_eq!(causes(&[refused, fails]), [Cause::Resolver, Cause::Service]);
        let later = fact(Kind::MicroOutage, 1500, 1503);
        assert_eq!(
            causes(&[fails, later]),
            [Cause::Resolver, Cause::AccessOutages]
        );
        let first = fact(Kind::Outage, 700, 995);
        assert_eq!(causes(&[fails, first]), [Cause::AccessOutages]);
        let lossy = fact(Kind::PacketLoss, 0, 5000);
        assert_eq!(
            causes(&[fails, lossy]),
            [Cause::AccessLoss, Cause::Resolver]
        );
        assert_eq!(causes(&[refused, lossy]), [Cause::AccessLoss]);
        let elsewhere = Fact { line: 1, ..first };
        assert_eq!(
            causes(&[fails, elsewhere]),
            [Cause::AccessOutages, Cause::Resolver]
        );
    }
}
