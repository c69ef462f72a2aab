//! Before and after: what changed between two ranges of time, and whether that is more than chance.
//!
//! Each range is cut into blocks of one length, and each block gives one value: so a night of 70 000
//! quiet probes does not outweigh an evening. Blocks are compared by the Mann–Whitney rank test with
//! the correction for ties; because a bad hour is often followed by another, its variance is
//! widened by the blocks' own autocorrelation, (1 + r) / (1 − r) with r at lag one. The interval of
//! the difference is a bootstrap over runs of four blocks (Künsch 1989); the probabilities of one
//! report are corrected together after Holm (1979).

use bufferbane_core::stats::summary::Summary;
use bufferbane_store::{Reader, SeriesId, SeriesInfo, StoreError};
use serde::Serialize;

use super::model::{Compared, Time};
use crate::fail::Fail;
use crate::when::Range;

/// Blocks are at least so long, ns,
const SHORTEST_BLOCK_NS: u64 = 60_000_000_000;
/// and at most so long.
const HOUR_NS: u64 = 3_600_000_000_000;
/// Blocks with fewer probes say nothing.
const FEWEST_PROBES: u64 = 20;
/// Fewer blocks than this on either side say nothing.
const FEWEST_BLOCKS: usize = 8;
/// Resamplings of the bootstrap.
const ROUNDS: usize = 2000;
/// Blocks that are drawn together.
const RUN: usize = 4;
/// What is called a difference.
pub(crate) const LEVEL: f64 = 0.05;

/// One quantity of one series, before and after.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Change {
    /// The interface.
    pub(crate) interface: String,
    /// The target.
    pub(crate) target: String,
    /// `rtt_p50_ns`, `rtt_p95_ns`, `ipdv_p95_ns` or `loss`.
    pub(crate) quantity: &'static str,
    /// Blocks before and after.
    pub(crate) blocks: [usize; 2],
    /// The median block before.
    pub(crate) before: f64,
    /// The median block after.
    pub(crate) after: f64,
    /// Where 95 of 100 resamplings have the difference; `None` where there are too few blocks.
    pub(crate) interval: Option<[f64; 2]>,
    /// How likely such a difference is by chance, corrected for all that were looked at.
    pub(crate) p: Option<f64>,
    /// `better`, `worse`, `no difference shown` or `too short to say`.
    pub(crate) says: &'static str,
}

/// How blocks are compared, for whoever reads the figures.
const METHOD: &str = "medians of blocks; Mann-Whitney rank test, two-sided, its variance widened by \
the blocks' autocorrelation at lag one; Holm's correction over all quantities; 95 % interval of the \
difference of medians by a bootstrap over runs of four blocks; a difference is claimed only where both \
show one";

/// What is compared, of one block.
type Quantity = fn(&Summary) -> Option<f64>;

/// Compares the series of two ranges, block by block.
pub(crate) fn ranges(
    reader: &Reader,
    series: &[(SeriesId, SeriesInfo)],
    before: Range,
    after: Range,
) -> Result<Compared, Fail> {
    let shorter = before
        .to_ns
        .abs_diff(before.from_ns)
        .min(after.to_ns.abs_diff(after.from_ns));
    let block_ns = (shorter / 48).clamp(SHORTEST_BLOCK_NS, HOUR_NS);
    let mut changes = Vec::new();
    for (id, info) in series {
        let place = (info.interface.as_str(), info.target.as_str());
        let (a, b) = (
            blocks(reader, *id, before, block_ns)?,
            blocks(reader, *id, after, block_ns)?,
        );
        if a.is_empty() || b.is_empty() {
            continue;
        }
        let quantities: [(&'static str, Quantity); 4] = [
            ("rtt_p50_ns", |s| Some(s.rtt.quantile(0.5)? as f64)),
            ("rtt_p95_ns", |s| Some(s.rtt.quantile(0.95)? as f64)),
            ("ipdv_p95_ns", |s| Some(s.ipdv.quantile(0.95)? as f64)),
            ("loss", |s| Some(s.lost as f64 / s.sent as f64)),
        ];
        for (name, of) in quantities {
            let values = |all: &[Summary]| all.iter().filter_map(of).collect::<Vec<f64>>();
            changes.push(change(place, name, &values(&a), &values(&b)));
        }
    }
    judge(&mut changes);
    Ok(Compared {
        before: [Time(before.from_ns), Time(before.to_ns)],
        after: [Time(after.from_ns), Time(after.to_ns)],
        block_ns,
        method: METHOD,
        changes,
    })
}

/// The blocks of a range with enough in them to say something.
fn blocks(
    reader: &Reader,
    id: SeriesId,
    range: Range,
    block_ns: u64,
) -> Result<Vec<Summary>, StoreError> {
    let (from, to) = (range.from_ns, range.to_ns);
    let all = if block_ns == HOUR_NS {
        reader.hourly(id, from, to)?
    } else {
        let count = to.abs_diff(from) / block_ns;
        reader.buckets(id, from, to, count as usize)?
    };
    let summaries = all.into_iter().map(|b| b.summary);
    Ok(summaries.filter(|s| s.sent >= FEWEST_PROBES).collect())
}

/// Compares the blocks of two ranges; all quantities are the better the smaller they are.
fn change(
    (interface, target): (&str, &str),
    quantity: &'static str,
    before: &[f64],
    after: &[f64],
) -> Change {
    let enough = before.len().min(after.len()) >= FEWEST_BLOCKS;
    Change {
        interface: interface.to_owned(),
        target: target.to_owned(),
        quantity,
        blocks: [before.len(), after.len()],
        before: median(before),
        after: median(after),
        interval: enough.then(|| bootstrap(before, after)),
        p: enough.then(|| rank_test(before, after)),
        says: "too short to say",
    }
}

/// Corrects the probabilities together, and says what holds.
fn judge(changes: &mut [Change]) {
    let mut order: Vec<usize> = (0..changes.len())
        .filter(|i| changes[*i].p.is_some())
        .collect();
    order.sort_by(|a, b| {
        let p = |i: &usize| changes[*i].p.unwrap_or(1.0);
        p(a).total_cmp(&p(b))
    });
    let (count, mut least) = (order.len(), 0.0f64);
    for (rank, i) in order.into_iter().enumerate() {
        let c = &mut changes[i];
        let corrected = (c.p.unwrap_or(1.0) * (count - rank) as f64)
            .min(1.0)
            .max(least);
        least = corrected;
        c.p = Some(corrected);
        // A rank test can find what the medians do not show: then nothing is claimed.
        let could_be_none = c
            .interval
            .is_none_or(|[low, high]| low <= 0.0 && high >= 0.0);
        c.says = if corrected >= LEVEL || could_be_none {
            "no difference shown"
        } else if c.after < c.before {
            "better"
        } else {
            "worse"
        };
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The two-sided probability after Mann and Whitney, by the normal approximation.
fn rank_test(a: &[f64], b: &[f64]) -> f64 {
    let mut all: Vec<(f64, usize)> = a.iter().chain(b).copied().zip(0..).collect();
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let total = all.len() as f64;
    let mut ranks = vec![0.0; all.len()];
    let (mut ties, mut i) = (0.0, 0);
    while i < all.len() {
        let mut j = i;
        while j < all.len() && all[j].0 == all[i].0 {
            j += 1;
        }
        let same = (j - i) as f64;
        ties += same * same * same - same;
        for (_, index) in &all[i..j] {
            ranks[*index] = (i + j + 1) as f64 / 2.0;
        }
        i = j;
    }
    let (m, n) = (a.len() as f64, b.len() as f64);
    let sum: f64 = ranks[..a.len()].iter().sum();
    let u = sum - m * (m + 1.0) / 2.0;
    let variance = m * n / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    let r = autocorrelation(&ranks[..a.len()]).max(autocorrelation(&ranks[a.len()..]));
    let r = r.clamp(0.0, 0.95);
    let z = ((u - m * n / 2.0).abs() - 0.5).max(0.0)
        / (variance * (1.0 + r) / (1.0 - r))
            .sqrt()
            .max(f64::MIN_POSITIVE);
    if variance <= 0.0 { 1.0 } else { tail(z) }
}

fn autocorrelation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let square: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let lagged: f64 = values
        .windows(2)
        .map(|w| (w[0] - mean) * (w[1] - mean))
        .sum();
    if square > 0.0 { lagged / square } else { 0.0 }
}

/// The probability of being at least `z` away from the mean on either side, after Abramowitz and
/// Stegun 7.1.26: within 1.5e-7.
fn tail(z: f64) -> f64 {
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = [
        1.061_405_429,
        -1.453_152_027,
        1.421_413_741,
        -0.284_496_736,
        0.254_829_592,
    ]
    .into_iter()
    .fold(0.0, |sum, c| (sum + c) * t);
    (poly * (-x * x).exp()).clamp(0.0, 1.0)
}

/// Where 95 of 100 differences of medians lie, over runs of blocks drawn with replacement.
fn bootstrap(before: &[f64], after: &[f64]) -> [f64; 2] {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut differences: Vec<f64> = (0..ROUNDS)
        .map(|_| median(&random.resample(after)) - median(&random.resample(before)))
        .collect();
    differences.sort_by(f64::total_cmp);
    let at = |share: f64| differences[((ROUNDS - 1) as f64 * share).round() as usize];
    [at(0.025), at(0.975)]
}

/// splitmix64 from a fixed seed: the same report says the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn resample(&mut self, values: &[f64]) -> Vec<f64> {
        let mut out = Vec::with_capacity(values.len() + RUN);
        while out.len() < values.len() {
            let from = self.below(values.len());
            out.extend((from..from + RUN).map(|i| values[i % values.len()]));
        }
        out.truncate(values.len());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(random: &mut Random, count: usize, around: f64) -> Vec<f64> {
        (0..count)
            .map(|_| around + random.below(1000) as f64)
            .collect()
    }

    #[test]
    fn the_normal_tail_is_that_of_the_tables() {
        for (z, p) in [(0.0, 1.0), (1.0, 0.3173), (1.96, 0.0500), (3.29, 0.0010)] {
            assert!((tail(z) - p).abs() < 2e-4, "{z}");
        }
    }

    #[test]
    fn chance_is_called_a_difference_about_as_often_as_agreed_and_a_shift_is_found() {
        let mut random = Random(7);
        let mut wrong = 0;
        for _ in 0..400 {
            let (a, b) = (noise(&mut random, 40, 0.0), noise(&mut random, 40, 0.0));
            wrong += usize::from(rank_test(&a, &b) < LEVEL);
        }
        assert!((3..=36).contains(&wrong), "{wrong} of 400");
        let (a, b) = (noise(&mut random, 40, 900.0), noise(&mut random, 40, 0.0));
        let mut found = [change(("eth0", "vienna"), "rtt_p50_ns", &a, &b)];
        judge(&mut found);
        assert_eq!(found[0].says, "better");
        let [low, high] = found[0].interval.unwrap();
        assert!(
            low < -900.0 + 250.0 && high < 0.0 && low < high,
            "{low} {high}"
        );
    }

    #[test]
    fn what_the_interval_does_not_show_is_not_claimed() {
        let says = |interval, after| {
            let mut one = [Change {
                interface: "eth0".into(),
                target: "vienna".into(),
                quantity: "rtt_p95_ns",
                blocks: [100, 100],
                before: 37.0,
                after,
                interval: Some(interval),
                p: Some(0.01),
                says: "too short to say",
            }];
            judge(&mut one);
            one[0].says
        };
        assert_eq!(says([-8.0, 3.0], 31.0), "no difference shown");
        assert_eq!(says([-8.0, -3.0], 31.0), "better");
        assert_eq!(says([2.0, 9.0], 43.0), "worse");
    }

    #[test]
    fn few_blocks_say_nothing_and_equal_ones_no_difference() {
        let mut few = [change(("a", "b"), "loss", &[1.0; 7], &[0.0; 30])];
        judge(&mut few);
        assert_eq!((few[0].says, few[0].p), ("too short to say", None));
        let mut equal = [change(("a", "b"), "loss", &[0.0; 30], &[0.0; 30])];
        judge(&mut equal);
        assert_eq!(equal[0].says, "no difference shown");
    }

    #[test]
    fn slow_waves_are_not_taken_for_a_change() {
        // Two halves of one slow wave: neighbours are alike, so there are few independent blocks.
        let wave = |i: usize| (i as f64 / 60.0 * std::f64::consts::TAU).sin();
        let all: Vec<f64> = (0..60).map(wave).collect();
        assert!(rank_test(&all[..20], &all[15..35]) > LEVEL);
    }
}
