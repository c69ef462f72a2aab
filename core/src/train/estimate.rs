//! From the arrivals of a train to the rate of the line.
//!
//! The rate is that between arrivals a quarter of the train apart (of a short one half), the median of
//! all such pairs: a receiver that stalls, or a line that pauses, spoils those that touch the pause and no others.
//! Where datagrams come in batches, as behind a request-grant upstream, it is that between the first
//! arrivals of batches, half of the train apart.
//!
//! A train that outlasts a token bucket comes fast and then slowly: two slopes with a knee between
//! them, of which the first is the burst rate and the second, if it lasts, the sustained one.

use heapless::Vec;

use super::SPAN_NS;
use crate::time::ClockSource;
use crate::wire::train::{MAX_TRAIN, NOT_TOLD};

/// Fewer arrivals say nothing.
const FEWEST: usize = 5;
/// Arrivals that are looked at, evenly chosen.
const POINTS: usize = 48;
/// With fewer, a quarter of the train is so few that the grid of a request-grant upstream shows.
const MANY: usize = 24;
/// Batches that are needed before their rate is believed.
const FEWEST_BATCHES: usize = 4;
/// Points on either side of a knee.
const KNEE_POINTS: usize = 8;
/// Either side of a knee is about as steady as this, ‰.
const KNEE_SPREAD: u64 = 200;
/// Confidence where nothing speaks against it, ‰.
const BEST_PERMILLE: u16 = 950;
/// And where everything does, ‰.
const LEAST_PERMILLE: u16 = 50;

/// One datagram of a train that has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Its place in the train.
    pub index: u16,
    /// When it arrived, ns on any one clock.
    pub at_ns: u32,
    /// When it was handed to the sender's kernel, ns on any one clock; [`NOT_TOLD`] where that is
    /// not known.
    pub sent_ns: u32,
}

/// A train as it was sent, and how its arrivals were stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// How many datagrams were sent.
    pub count: u16,
    /// Bytes of each as the interface counts them.
    pub frame_bytes: u32,
    /// The least precise clock of the arrivals.
    pub clock: ClockSource,
    /// Whether some of what is missing may have been dropped by the receiving host.
    pub dropped_by_host: bool,
}

/// What a train says of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// At which rate it passed, or its begin where the rate fell: bits of frames per second.
    pub burst_bps: u64,
    /// At which rate its end passed, where it outlasted a token bucket; `None` where nobody can
    /// know.
    pub sustained_bps: Option<u64>,
    /// How sure that is, ‰.
    pub confidence_permille: u16,
    /// From the first arrival to the last, ns.
    pub span_ns: u64,
    /// How many arrived.
    pub arrived: u16,
}

/// Why a train says nothing of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Too few of its datagrams arrived.
    TooFew,
    /// The sender was no faster than the line: what arrived shows how fast it sent.
    Sender,
    /// The arrivals were stamped in so few heaps that they show when the receiver looked.
    Heaps,
}

impl Unknown {
    /// What a person is told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooFew => "too few of its datagrams arrived",
            Self::Sender => "the sender was no faster than the line",
            Self::Heaps => "it arrived in too few heaps",
        }
    }
}

/// So many datagrams had arrived before `at_ns`.
#[derive(Clone, Copy, Debug)]
struct Point {
    at_ns: u64,
    before: u32,
}

/// What a train says. `arrivals` are put in order; each datagram is in it once.
///
/// # Errors
/// Why it says nothing.
pub fn estimate(sent: &Sent, arrivals: &mut [Arrival]) -> Result<Estimate, Unknown> {
    let len = arrivals.len().min(MAX_TRAIN);
    let arrivals = &mut arrivals[..len];
    if arrivals.len() < FEWEST {
        return Err(Unknown::TooFew);
    }
    let overtaken = overtaken(arrivals);
    arrivals.sort_unstable_by_key(|a| (a.at_ns, a.index));
    let first = arrivals[0];
    let since = |a: &Arrival| u64::from(a.at_ns.saturating_sub(first.at_ns));
    let span_ns = since(&arrivals[arrivals.len() - 1]);
    let gaps = arrivals.len() as u64 - 1;
    let gap_ns = span_ns / gaps;
    if gap_ns == 0 {
        return Err(Unknown::Heaps);
    }
    if is_paced_by_sender(arrivals, gap_ns) {
        return Err(Unknown::Sender);
    }

    let pauses = Pauses::of(arrivals, gap_ns);
    if pauses.longest_ns > span_ns / 2 {
        return Err(Unknown::Heaps);
    }
    let batched = pauses.count >= FEWEST_BATCHES - 1
        && pauses.sum_ns > span_ns / 2
        && pauses.in_a_row < pauses.count / 2;
    let mut points: Vec<Point, MAX_TRAIN> = Vec::new();
    for (i, a) in arrivals.iter().enumerate() {
        let begins = i == 0 || a.at_ns - arrivals[i - 1].at_ns > pauses.threshold_ns(gap_ns);
        if !batched || begins {
            // There is room for each arrival.
            let _ = points.push(Point {
                at_ns: since(a),
                before: i as u32,
            });
        }
    }
    let points = thin(&points);
    let all = Line::of(&points, sent.frame_bytes, batched).ok_or(Unknown::Heaps)?;
    let knee = knee(&points, sent.frame_bytes, batched);
    let (burst, sustained_bps) = match &knee {
        Some((fast, slow)) => {
            let lasts = slow.span_ns >= SPAN_NS;
            (fast, lasts.then_some(slow.rate_bps))
        }
        None => (&all, None),
    };

    let mut doubts = Doubts(BEST_PERMILLE);
    if span_ns < SPAN_NS {
        doubts.scale(span_ns, SPAN_NS);
    }
    match burst.spread_permille {
        0..=60 => {}
        61..=150 => doubts.less(150),
        151..=300 => doubts.less(400),
        _ => doubts.most(200),
    }
    doubts.share(u64::from(holes(arrivals)), u64::from(sent.count));
    if sent.dropped_by_host {
        doubts.less(200);
    }
    if overtaken * 20 > arrivals.len() {
        doubts.less(150);
    }
    if !batched && pauses.longest_ns > span_ns / 5 {
        let long = pauses.longest_ns > span_ns / 3;
        doubts.less(if long { 500 } else { 150 });
    }
    if sent.clock < ClockSource::Kernel {
        doubts.less(150);
    }
    Ok(Estimate {
        burst_bps: burst.rate_bps,
        sustained_bps,
        confidence_permille: doubts.0.max(LEAST_PERMILLE),
        span_ns,
        arrived: arrivals.len() as u16,
    })
}

/// What speaks against an estimate, taken off its confidence.
struct Doubts(u16);

impl Doubts {
    fn less(&mut self, permille: u16) {
        self.0 = self.0.saturating_sub(permille);
    }

    fn most(&mut self, permille: u16) {
        self.0 = self.0.min(permille);
    }

    fn scale(&mut self, part: u64, whole: u64) {
        let scaled = u64::from(self.0) * part / whole.max(1);
        self.0 = u16::try_from(scaled).unwrap_or(self.0).min(self.0);
    }

    /// Losses: whether they took up the line's time nobody knows.
    fn share(&mut self, lost: u64, of: u64) {
        if lost * 10 > of {
            self.less(500);
        } else if lost * 50 > of {
            self.less(150);
        }
    }
}

/// How many arrived after one that was sent later.
fn overtaken(arrivals: &[Arrival]) -> usize {
    let mut latest: Option<(u32, u16)> = None;
    let mut count = 0;
    for a in arrivals {
        let passed = latest.is_some_and(|(at, index)| at < a.at_ns && index > a.index);
        count += usize::from(passed);
        if latest.is_none_or(|(_, index)| index < a.index) {
            latest = Some((a.at_ns, a.index));
        }
    }
    count
}

/// Datagrams missing before the last that arrived. What is missing behind it was cut off by a full
/// buffer, and says nothing against the rest.
fn holes(arrivals: &[Arrival]) -> u32 {
    let last = arrivals.iter().map(|a| a.index).max().unwrap_or(0);
    (u32::from(last) + 1).saturating_sub(arrivals.len() as u32)
}

/// Whether one in five was sent only after the line had let what was before it pass: it did not wait
/// for the line, so its arrival is no word about it.
fn is_paced_by_sender(arrivals: &[Arrival], gap_ns: u64) -> bool {
    let first = arrivals[0];
    if arrivals.iter().any(|a| a.sent_ns == NOT_TOLD) {
        return false;
    }
    let late = arrivals.iter().skip(1).filter(|a| {
        let arrived = i64::from(a.at_ns) - i64::from(first.at_ns);
        let sent = i64::from(a.sent_ns) - i64::from(first.sent_ns);
        arrived - sent < (gap_ns / 2) as i64
    });
    late.count() * 5 > arrivals.len()
}

/// Gaps that are longer than usual.
struct Pauses {
    count: usize,
    /// Those with a pause right before them: where most are, no batches are between them, and the line
    /// has become slower, as behind a token bucket.
    in_a_row: usize,
    sum_ns: u64,
    longest_ns: u64,
}

impl Pauses {
    /// Longer than twice the mean gap.
    const fn threshold(gap_ns: u64) -> u64 {
        2 * gap_ns
    }

    fn threshold_ns(&self, gap_ns: u64) -> u32 {
        u32::try_from(Self::threshold(gap_ns)).unwrap_or(u32::MAX)
    }

    fn of(arrivals: &[Arrival], gap_ns: u64) -> Self {
        let mut pauses = Self {
            count: 0,
            in_a_row: 0,
            sum_ns: 0,
            longest_ns: 0,
        };
        let mut after_pause = false;
        for pair in arrivals.windows(2) {
            let gap = u64::from(pair[1].at_ns - pair[0].at_ns);
            let is_pause = gap > Self::threshold(gap_ns);
            pauses.in_a_row += usize::from(is_pause && after_pause);
            after_pause = is_pause;
            if is_pause {
                pauses.count += 1;
                pauses.sum_ns += gap;
                pauses.longest_ns = pauses.longest_ns.max(gap);
            }
        }
        pauses
    }
}

/// At most [`POINTS`] of them, first and last included.
fn thin(points: &[Point]) -> Vec<Point, POINTS> {
    let last = points.len().saturating_sub(1);
    let kept = points.len().min(POINTS);
    (0..kept)
        .map(|i| points[i * last / kept.saturating_sub(1).max(1)])
        .collect()
}

/// A stretch of a train that passed at one rate.
struct Line {
    rate_bps: u64,
    /// The middle half of what neighbouring pairs say, as a share of the rate.
    spread_permille: u64,
    span_ns: u64,
}

impl Line {
    fn of(points: &[Point], frame_bytes: u32, batched: bool) -> Option<Self> {
        let (first, last) = (points.first()?, points.last()?);
        let coarse = batched || points.len() < MANY;
        let apart = (points.len() / if coarse { 2 } else { 4 }).max(1);
        let mut rates: Vec<u64, POINTS> = points
            .iter()
            .zip(points.get(apart..)?)
            .map(|(a, b)| rate_between(a, b, frame_bytes))
            .collect();
        if rates.is_empty() {
            return None;
        }
        rates.sort_unstable();
        let n = rates.len();
        let rate_bps = rates[n / 2];
        let spread = rates[n * 3 / 4] - rates[n / 4];
        (rate_bps > 0 && rate_bps < u64::MAX).then(|| Self {
            rate_bps,
            spread_permille: (u128::from(spread) * 1000 / u128::from(rate_bps)).min(u64::MAX.into())
                as u64,
            span_ns: last.at_ns - first.at_ns,
        })
    }
}

fn rate_between(a: &Point, b: &Point, frame_bytes: u32) -> u64 {
    let bits = u64::from(b.before - a.before) * u64::from(frame_bytes) * 8;
    let rate = (u128::from(bits) * 1_000_000_000).checked_div(u128::from(b.at_ns - a.at_ns));
    rate.map_or(u64::MAX, |r| u64::try_from(r).unwrap_or(u64::MAX))
}

/// The stretches before and behind the point at which the rate falls, where it does.
fn knee(points: &[Point], frame_bytes: u32, batched: bool) -> Option<(Line, Line)> {
    let (at, height) = highest(points)?;
    if at < KNEE_POINTS || points.len() - at <= KNEE_POINTS {
        return None;
    }
    let (before, behind) = (&points[..=at], &points[at..]);
    // A stretch that is bent itself is no stretch of one rate: noise, or a stall.
    let straight = |part: &[Point]| deviations(part).all(|(_, d)| d.abs() * 3 < height);
    let fast = Line::of(before, frame_bytes, batched)?;
    let slow = Line::of(behind, frame_bytes, batched)?;
    let steady = fast.spread_permille <= KNEE_SPREAD && slow.spread_permille <= KNEE_SPREAD;
    let falls = slow.rate_bps < fast.rate_bps / 5 * 4 && steady;
    (falls && straight(before) && straight(behind)).then_some((fast, slow))
}

/// The point that is furthest ahead of the way straight from the first to the last, and by how many
/// thousandths of a datagram.
fn highest(points: &[Point]) -> Option<(usize, i64)> {
    deviations(points).max_by_key(|(_, ahead)| *ahead)
}

/// How far each point is ahead of that way, thousandths of a datagram.
fn deviations(points: &[Point]) -> impl Iterator<Item = (usize, i64)> + '_ {
    let zero = Point {
        at_ns: 0,
        before: 0,
    };
    let first = points.first().copied().unwrap_or(zero);
    let last = points.last().copied().unwrap_or(zero);
    let span_ns = i128::from(last.at_ns - first.at_ns);
    let all = i128::from(last.before - first.before);
    points.iter().enumerate().filter_map(move |(i, p)| {
        let ahead = i128::from(p.before - first.before) * 1000;
        let straight = (all * 1000 * i128::from(p.at_ns - first.at_ns)).checked_div(span_ns)?;
        Some((i, i64::try_from(ahead - straight).ok()?))
    })
}
