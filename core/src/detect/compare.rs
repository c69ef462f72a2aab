//! Series held against each other at equal moments: `routing_fault`, `family_differs`,
//! `mtu_black_hole`, `interface_differs`.

use heapless::Vec;

use super::chance::Rate;
use super::edge::Edge;
use super::event::{Finding, Kind, SeriesSet, Severity, WELL_LINE};
use super::input::SeriesFacts;
use super::ledger::Ledger;
use super::series::Watched;
use super::verdict::Others;
use crate::time::Monotonic;

/// Standard deviations by which two loss rates have to be apart: they are compared every second.
const Z: f64 = 2.8;
/// A series is well beside those that lose where it loses so many times less.
const LESS: f64 = 8.0;
/// Log likelihood ratio from which a series' losses are like those of the bad ones, or are not.
const SIDED: f64 = 3.0;
/// What windows of rates reach back to at most, s.
const LONGEST_S: u64 = 3540;
const S: u64 = 1_000_000_000;

/// What a series suffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing comes back.
    Dead,
    /// Scattered loss.
    Loss,
    /// Delay is high, or varies.
    Slow,
}

impl Trouble {
    pub(crate) const ALL: [Self; 3] = [Self::Dead, Self::Loss, Self::Slow];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Loss => "loss",
            Self::Slow => "delay",
        }
    }
}

/// What is being told of a line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told(Option<(Kind, Trouble, SeriesSet)>);

impl Told {
    pub(crate) const fn none() -> Self {
        Self(None)
    }
}

/// Others that are well must have been probed for this long and so often since, to have shown it too.
const LEAST_NS: u64 = 10 * S;
const LEAST_PROBES: u64 = 10;

type Group<'a> = Vec<(u8, &'a mut Watched), 64>;

/// Once a second: the series of `line`, and those of all others.
pub(crate) fn each_second(
    line: u8,
    now: Monotonic,
    differ_for_ns: u64,
    told: &mut Told,
    all: &mut Group<'_>,
    ledger: &mut Ledger,
) {
    let found = Trouble::ALL
        .into_iter()
        .find_map(|t| find(line, now, differ_for_ns, t, all).map(|f| (t, f)));
    let before = told.0;
    if let Some((
        trouble,
        Found {
            kind,
            bad,
            since,
            well,
            well_line,
            figures,
        },
    )) = found
    {
        if let Some((k, t, members)) = before {
            let stays = if k == kind { bad } else { SeriesSet::default() };
            for gone in members.iter().filter(|m| !stays.contains(*m)) {
                ledger.clear(line, gone, k, ended(all, gone, t, now));
            }
        }
        let severity = if trouble == Trouble::Dead {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let mut f = Finding::new(kind, severity, since.at)
            .grain(since.grain_ns)
            .number("bad", bad.len().into())
            .number("well", well.into())
            .word("trouble", trouble.as_str());
        if let Some(other) = well_line {
            f = f.number(WELL_LINE, other.into());
        }
        f = match figures {
            Figures::None => f,
            Figures::Loss(mine, theirs) => f.ratio("loss", mine).ratio("loss_of_others", theirs),
            Figures::Varied(mine, theirs) => {
                f.ratio("varied", mine).ratio("varied_of_others", theirs)
            }
            Figures::Excess(mine, theirs) => f
                .number("excess_ns", mine.into())
                .number("excess_of_others_ns", theirs.into()),
        };
        for b in bad.iter() {
            ledger.raise(line, b, f.clone());
        }
        told.0 = Some((kind, trouble, bad));
    } else if let Some((k, t, members)) = before {
        // Undecided for the moment: it stays while its members still suffer.
        let still = all
            .iter()
            .any(|(i, s)| members.contains(*i) && s.trouble_since(t).is_some());
        let mut others = all
            .iter()
            .filter(|(i, s)| s.line() == line && s.is_far() && !members.contains(*i))
            .peekable();
        let others_bad =
            others.peek().is_some() && others.all(|(_, s)| s.trouble_since(t).is_some());
        if !still || others_bad {
            for m in members.iter() {
                ledger.clear(line, m, k, ended(all, m, t, now));
            }
            told.0 = None;
        }
    }
}

fn ended(all: &Group<'_>, series: u8, trouble: Trouble, now: Monotonic) -> Edge {
    all.iter()
        .find(|(i, _)| *i == series)
        .filter(|(_, s)| s.trouble_since(trouble).is_none())
        .map_or(now.into(), |(_, s)| s.trouble_ended(trouble))
}

struct Found {
    kind: Kind,
    bad: SeriesSet,
    since: Edge,
    well: u32,
    /// The line that is well, where this one as a whole is not.
    well_line: Option<u8>,
    figures: Figures,
}

/// What shows that some are bad and others well: of those, and of these.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Figures {
    /// That nothing comes back says it.
    None,
    /// Shares of losses.
    Loss(f64, f64),
    /// Shares of neighbouring probes that differ much.
    Varied(f64, f64),
    /// By how much delay is above what is normal at most, ns.
    Excess(u32, u32),
}

/// The far series of a line that have not been found bad now, beside those that have.
#[derive(Clone, Copy, Debug, Default)]
struct Rest {
    /// Nothing has been found for long enough, whatever it takes to find it.
    unfound: SeriesSet,
    /// Of these, what is surely well beside the bad ones.
    well: SeriesSet,
    /// What suffers as the bad ones do although that is not enough to be told, and what has just got over it.
    alike: SeriesSet,
}

fn find(
    line: u8,
    now: Monotonic,
    differ_for_ns: u64,
    trouble: Trouble,
    all: &mut Group<'_>,
) -> Option<Found> {
    let long = now.saturating_sub(differ_for_ns);
    let (mut bad, mut near_bad) = (SeriesSet::default(), false);
    let mut since: Option<Edge> = None;
    let of_line = all
        .iter()
        .filter(|(_, s)| s.line() == line && !s.is_in_house());
    for (i, s) in of_line {
        if let Some(from) = s.trouble_since(trouble)
            && from.at <= long
            && s.is_current(trouble, long)
        {
            near_bad |= !s.is_far();
            bad.insert(*i);
            since = Some(since.map_or(from, |s| s.earlier(from)));
        }
    }
    let since = since?;
    let others = rest(line, now, long, trouble, (bad, since.at), all);
    if !near_bad && !others.unfound.is_empty() {
        let kind = kind_of(line, bad, &others, all)?;
        let mut beside = SeriesSet::default();
        for i in others.unfound.iter().filter(|i| !others.alike.contains(*i)) {
            beside.insert(i);
        }
        let figures = apart(now, since.at, trouble, bad, beside, all)?;
        return Some(Found {
            kind,
            bad,
            since,
            well: beside.len(),
            well_line: None,
            figures,
        });
    }
    // The line as a whole: is another one well?
    if trouble == Trouble::Dead || !others.unfound.is_empty() {
        return None;
    }
    let other = all
        .iter()
        .map(|(_, s)| s.line())
        .filter(|l| *l != line)
        .find(|l| {
            let mut theirs = all
                .iter()
                .filter(|(_, s)| s.line() == *l && s.is_far())
                .peekable();
            theirs.peek().is_some() && theirs.all(|(_, s)| s.well_since() <= long)
        })?;
    let mut well = SeriesSet::default();
    for (i, _) in all.iter().filter(|(_, s)| s.line() == other && s.is_far()) {
        well.insert(*i);
    }
    let figures = apart(now, since.at, trouble, bad, well, all)?;
    Some(Found {
        kind: Kind::InterfaceDiffers,
        bad,
        since,
        well: well.len(),
        well_line: Some(other),
        figures,
    })
}

/// Sorts the far series of `line` beside those that are bad since `since`. A slow series is known to lose only minutes
/// after a fast one, and known to be well again as much later: it takes neither side until its losses tell which.
fn rest(
    line: u8,
    now: Monotonic,
    long: Monotonic,
    trouble: Trouble,
    (bad, since): (SeriesSet, Monotonic),
    all: &mut Group<'_>,
) -> Rest {
    let seconds = |from: Monotonic| (now.saturating_since(from) / S).clamp(1, LONGEST_S);
    let mut lost = Rate::default();
    if trouble == Trouble::Loss {
        for (_, s) in all.iter_mut().filter(|(i, _)| bad.contains(*i)) {
            let r = s.rate(trouble, now, seconds(since));
            lost.hits += r.hits;
            lost.all += r.all;
        }
    }
    let mut others = Rest::default();
    let far = all
        .iter_mut()
        .filter(|(i, s)| s.line() == line && s.is_far() && !bad.contains(*i));
    for (i, s) in far {
        let ended = s.trouble_ended(trouble).at;
        let suffers = s.trouble_since(trouble).is_some();
        if suffers || s.well_since() > long {
            if suffers || ended > since {
                others.alike.insert(*i);
            }
            continue;
        }
        others.unfound.insert(*i);
        if trouble != Trouble::Loss {
            others.well.insert(*i);
            continue;
        }
        let side = side(
            s.rate(trouble, now, seconds(since.max(ended))),
            lost.share(),
        );
        if side >= SIDED {
            others.alike.insert(*i);
        } else if side <= -SIDED {
            others.well.insert(*i);
        }
    }
    others
}

/// The log likelihood ratio of losing as the bad ones do, `share`, to being well beside them.
fn side(r: Rate, share: f64) -> f64 {
    let share = share.clamp(1e-6, 0.999);
    let well = share / LESS;
    let (hits, all) = (
        r.hits / r.clustering.max(1.0),
        r.all / r.clustering.max(1.0),
    );
    hits * libm::log(LESS) + (all - hits) * libm::log((1.0 - share) / (1.0 - well))
}

/// Whether what is bad and what is well are surely apart: `Some`, with the figures of both.
fn apart(
    now: Monotonic,
    since: Monotonic,
    trouble: Trouble,
    bad: SeriesSet,
    well: SeriesSet,
    all: &mut Group<'_>,
) -> Option<Figures> {
    // Delay that stands is seen at once; loss and jitter are rates.
    let rates = trouble == Trouble::Loss
        || (trouble == Trouble::Slow
            && all
                .iter()
                .filter(|(i, _)| bad.contains(*i))
                .all(|(_, s)| s.is_jittery()));
    if trouble == Trouble::Dead {
        return Some(Figures::None);
    }
    if !rates {
        let most = |set: SeriesSet| {
            let members = all.iter().filter(|(i, _)| set.contains(*i));
            members.filter_map(|(_, s)| s.excess_ns()).max()
        };
        let both = most(bad).zip(most(well));
        return Some(both.map_or(Figures::None, |(b, w)| Figures::Excess(b, w)));
    }
    // Only what both went through: rates over the time since the one began and the others are well.
    // That a rate is low again is known sooner of a fast series than of a slow one.
    let from = all
        .iter()
        .filter(|(i, _)| well.contains(*i))
        .fold(since, |from, (_, s)| from.max(s.well_since()));
    let seconds = (now.saturating_since(from) / S).clamp(60, 3600);
    let mut sum = |set: SeriesSet| {
        let mut sum = Rate {
            clustering: 1.0,
            ..Rate::default()
        };
        for (_, s) in all.iter_mut().filter(|(i, _)| set.contains(*i)) {
            let r = s.rate(trouble, now, seconds);
            sum.hits += r.hits;
            sum.all += r.all;
            sum.clustering = sum.clustering.max(r.clustering);
        }
        sum
    };
    let (mine, theirs) = (sum(bad), sum(well));
    let figures = if trouble == Trouble::Loss {
        Figures::Loss(mine.share(), theirs.share())
    } else {
        Figures::Varied(mine.share(), theirs.share())
    };
    (mine.bounds(Z).0 > theirs.bounds(Z).1).then_some(figures)
}

/// How the other far targets of `line` are while `members` show a `trouble` now; `None` where none of them is far, or
/// not any more.
pub(crate) fn others(
    line: u8,
    now: Monotonic,
    trouble: Trouble,
    members: SeriesSet,
    all: &mut Group<'_>,
) -> Option<Others> {
    let (mut bad, mut well) = (SeriesSet::default(), SeriesSet::default());
    let mut showing = Vec::<u16, 64>::new();
    let mut others = Vec::<u16, 64>::new();
    let mut since: Option<Monotonic> = None;
    let far = |line: u8| move |s: &&(u8, &mut Watched)| s.1.line() == line && s.1.is_far();
    for (i, s) in all.iter().filter(far(line)) {
        if members.contains(*i)
            && let Some(from) = s.trouble_since(trouble)
        {
            bad.insert(*i);
            since = Some(since.map_or(from.at, |at| at.min(from.at)));
            if !showing.contains(&s.facts().target) {
                let _ = showing.push(s.facts().target);
            }
        }
    }
    let since = since?;
    for (i, s) in all.iter().filter(far(line)) {
        let target = s.facts().target;
        if showing.contains(&target) || !s.losses.is_alive() {
            continue;
        }
        if !others.contains(&target) {
            let _ = others.push(target);
        }
        let needed_ns = LEAST_NS.max(LEAST_PROBES.saturating_mul(s.facts().interval_ns));
        if s.well_since() <= since && now.saturating_since(since) >= needed_ns {
            well.insert(*i);
        }
    }
    let alike = 2 * showing.len() >= showing.len() + others.len();
    Some(if others.is_empty() && showing.len() == 1 {
        Others::None
    } else if !well.is_empty() && apart(now, since, trouble, bad, well, all).is_some() {
        Others::Well
    } else if alike {
        Others::Alike
    } else {
        Others::Unknown
    })
}

/// What the bad ones have in common that the well ones have not.
fn kind_of(line: u8, bad: SeriesSet, others: &Rest, all: &Group<'_>) -> Option<Kind> {
    let of = |set: SeriesSet| {
        all.iter()
            .filter(move |(i, s)| s.line() == line && set.contains(*i))
            .map(|(_, s)| s.facts())
    };
    let well = others.well;
    let beside_smaller = |b: &SeriesFacts| {
        of(well).any(|w| w.target == b.target && w.family == b.family && w.size < b.size)
            && of(well).all(|w| w.target != b.target || w.family != b.family || w.size < b.size)
    };
    let mut members = all.iter().filter(|(i, _)| bad.contains(*i));
    if members.all(|(_, s)| s.loses_only_large() || beside_smaller(s.facts())) {
        return Some(Kind::MtuBlackHole);
    }
    let mut suffer = bad;
    for i in others.alike.iter() {
        suffer.insert(i);
    }
    let family = of(bad).next()?.family;
    let one_family = of(suffer).all(|b| b.family == family)
        && of(well).any(|w| w.family != family)
        && all
            .iter()
            .filter(|(_, s)| s.line() == line && s.is_far() && s.facts().family == family)
            .all(|(i, _)| suffer.contains(*i));
    let twin = of(suffer).any(|b| of(well).any(|w| w.target == b.target));
    let targets = |set| {
        let mut targets = Vec::<u16, 64>::new();
        for f in of(set) {
            if !targets.contains(&f.target) {
                let _ = targets.push(f.target);
            }
        }
        targets.len()
    };
    if one_family && (twin || targets(suffer) >= 2) {
        return Some(Kind::FamilyDiffers);
    }
    // As long as it is not known of which targets, nothing is said of them.
    let surely = !well.is_empty() && others.alike.is_empty();
    (surely && !twin).then_some(Kind::RoutingFault)
}
