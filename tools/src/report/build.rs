//! From the store to a [`Report`].

use bufferbane_core::load::grade::Grade as Letter;
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_core::stats::loss_runs::{LENGTH_CLASSES, LossRuns};
use bufferbane_core::stats::moments::Moments;
use bufferbane_core::stats::summary::{ClockCounts, Summary};
use bufferbane_core::time::ClockSource;
use bufferbane_store::{Direction, Overview, Reader, SeriesId, SeriesInfo, StoreError, by_reason};

use super::model::{
    Clock, Event, Gap, Grade, Jitter, LossRuns as Runs, Report, RunClass, SCHEMA, Series, Spread,
    Stamps, Time, Timestamps,
};
use super::{cable, cover, echoes, health, lines, outages, paths, sizes, trains};
use crate::args::Selection;
use crate::chart::Tested;
use crate::fail::Fail;
use crate::when::{self, Range};
use crate::{abreast, export_tests, loads, source};

/// Shorter stretches without a sample than this are not told, ns.
pub(super) const SHORTEST_GAP_NS: u64 = 2_000_000_000;
/// In a longer range than this gaps are looked for in rollups, ns; see [`shortest_gap_ns`].
const FINE_RANGE_NS: u64 = 7_200_000_000_000;
/// What rollups of a minute can hide, ns.
const COARSE_GAP_NS: u64 = 120_000_000_000;

/// A report with the series it is about.
#[derive(Debug)]
pub(crate) struct Built {
    /// The report.
    pub(crate) report: Report,
    /// The series in the order of the report's.
    pub(crate) series: Vec<(SeriesId, SeriesInfo)>,
    /// Its throughput tests.
    pub(crate) tests: Vec<Tested>,
    /// What it covers.
    pub(crate) range: Range,
}

/// Makes the report of what was asked for.
pub(crate) fn build(reader: &Reader, selection: &Selection, now_ns: i64) -> Result<Built, Fail> {
    let chosen = source::series(reader, selection)?;
    let recorded = source::recorded(reader)?;
    let range = selection.range_or_day(now_ns, recorded)?;
    let found = abreast::map(&chosen, |(id, info)| {
        let shortest = shortest_gap_ns(info, range);
        let (from, to) = (range.from_ns, range.to_ns);
        let all = reader.overview(*id, from, to, shortest, info.interval_ns)?;
        let gaps = gaps(&all, range, shortest);
        Ok((!all.summary.is_empty()).then(|| one(info, &all.summary, gaps)))
    })?;
    let (mut series, mut ids) = (Vec::new(), Vec::new());
    for (found, of) in found.into_iter().zip(chosen) {
        if let Some(found) = found {
            series.push(found);
            ids.push(of);
        }
    }
    let tests = export_tests::chosen(reader, selection, Some(range))?;
    if series.is_empty() {
        return Err(source::nothing_there(range, recorded, selection.utc));
    }
    let health = health::of(reader, range, &series)?;
    let events = events(reader, selection, range)?;
    let zone = when::zone(selection.utc);
    let (from, to) = (Time(range.from_ns), Time(range.to_ns));
    let mut report = Report {
        schema: SCHEMA,
        generated: Time(now_ns),
        from,
        to,
        host: host(),
        verdicts: Vec::new(),
        series,
        throughput: tests
            .iter()
            .flat_map(|(_, at, t)| loads::throughput(*at, t))
            .collect(),
        bufferbloat: tests
            .iter()
            .flat_map(|(_, at, t)| loads::bufferbloat(*at, t))
            .collect(),
        health,
        clock: clocks(reader, &ids, range, &events)?,
        load: lines::load(reader, selection, range)?,
        capacity: lines::capacity(reader, selection, range)?,
        cable: None,
        grades: Vec::new(),
        outages: outages::count(&events, from, to, &zone),
        compared: Vec::new(),
        paths: paths::known(reader, selection, range)?,
        path_mtu: sizes::found(reader, selection, range)?,
        events,
    };
    let infos: Vec<SeriesInfo> = ids.iter().map(|(_, info)| info.clone()).collect();
    let of = (infos.as_slice(), report.series.as_slice());
    report.cable = cable::of(reader, selection, range, of, &report.events)?;
    report.verdicts = super::verdict::verdicts(&report, &zone);
    report.grades = grades(&report);
    Ok(Built {
        report,
        series: ids,
        tests,
        range,
    })
}

/// Grades by direction where that is known, else of both together.
fn grades(report: &Report) -> Vec<Grade> {
    let mut interfaces: Vec<&str> = report.series.iter().map(|s| s.interface.as_str()).collect();
    interfaces.dedup();
    let mut grades = Vec::new();
    for interface in interfaces {
        let far = || {
            let own = report.series.iter().filter(|s| s.interface == interface);
            own.filter(|s| !cover::is_near(s) && !s.of_service)
        };
        let mut put = |direction, method, increase_ns: Option<u64>| {
            if let Some(increase_ns) = increase_ns {
                grades.push(Grade {
                    interface: interface.to_owned(),
                    direction,
                    grade: Letter::of_increase(increase_ns).as_str(),
                    increase_ns,
                    method,
                });
            }
        };
        let tested = |direction| loads::added(&report.bufferbloat, interface, direction);
        // The least queue of all targets is the line's own; more is beyond it.
        let queued = |of: fn(&Series) -> Option<&Spread>| {
            far().filter_map(|s| of(s).and_then(|q| q.p99)).min()
        };
        let (up, down) = (tested(Direction::Up), tested(Direction::Down));
        let (queue_up, queue_down) = (
            queued(|s| s.queue_up_ns.as_ref()),
            queued(|s| s.queue_down_ns.as_ref()),
        );
        if up.is_some() || down.is_some() {
            put("up", "test", up);
            put("down", "test", down);
        } else if queue_up.is_some() || queue_down.is_some() {
            put("up", "queue", queue_up);
            put("down", "queue", queue_down);
        } else {
            let added = far()
                .filter_map(|s| Some(s.rtt_ns.p99? - s.rtt_ns.min?))
                .min();
            put("both", "round_trip", added);
        }
    }
    grades
}

fn host() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default()
}

fn one(info: &SeriesInfo, s: &Summary, gaps: Vec<Gap>) -> Series {
    // Only the far end's own counts give a loss its direction.
    let directed = info.kind.tells_direction();
    Series {
        interface: info.interface.clone(),
        interface_kind: info.interface_kind.clone(),
        target: info.target.clone(),
        kind: info.kind.as_str(),
        of_service: info.kind.asks_a_service(),
        interval_ns: info.interval_ns,
        sent: s.sent,
        received: s.received,
        failures: by_reason(&s.failures),
        lost: s.lost,
        lost_up: directed.then_some(s.lost_up),
        lost_down: directed.then_some(s.lost_down),
        late: s.late,
        duplicated: s.duplicated,
        reordered: s.reordered,
        reordered_up: directed.then_some(s.reordered_up),
        unsent: s.unsent,
        family: info.family,
        dscp: info.dscp,
        size: info.size,
        rtt_ns: spread(&s.rtt, &s.rtt_moments),
        ipdv_ns: spread(&s.ipdv, &moments(&s.ipdv)),
        jitter_ns: Jitter {
            mean: s.jitter.and_then(|j| j.mean_ns()),
            last: s.jitter.and_then(|j| j.last_ns()),
        },
        queue_up_ns: queueing(&s.queue_up),
        queue_down_ns: queueing(&s.queue_down),
        dscp_seen: s.tos_seen.last.map(|t| t >> 2),
        ecn_seen: s.tos_seen.last.map(|t| t & 3),
        dscp_changes: s.tos_seen.changes,
        ttl_up: s.ttl_up.last,
        ttl_down: s.ttl_down.last,
        ttl_changes: s.ttl_up.changes + s.ttl_down.changes,
        timestamps: Timestamps {
            tx: stamps(&s.tx_clocks),
            rx: stamps(&s.rx_clocks),
            remote_rx: stamps(&s.remote_rx_clocks),
            remote_tx: stamps(&s.remote_tx_clocks),
        },
        loss_runs: runs(&s.runs),
        gaps,
    }
}

/// A histogram and the moments of the same values.
pub(crate) fn spread(h: &Histogram, moments: &Moments) -> Spread {
    let whole = |v: f64| v.round() as u64;
    Spread {
        min: h.min(),
        p50: h.quantile(0.5),
        p90: h.quantile(0.9),
        p95: h.quantile(0.95),
        p99: h.quantile(0.99),
        p999: h.quantile(0.999),
        max: h.max(),
        mean: moments.mean_ns().map(whole),
        stddev: moments.variance().map(f64::sqrt).map(whole),
    }
}

/// Moments from a histogram, as exact as its buckets: within 1 %.
pub(crate) fn moments(h: &Histogram) -> Moments {
    let mut all = Moments::new();
    let (Some(min), Some(max)) = (h.min(), h.max()) else {
        return all;
    };
    let mut count = 0u64;
    let mut sum = 0.0;
    for (low, high, n) in h.iter() {
        count += u64::from(n);
        sum += middle(low, high, min, max) * f64::from(n);
    }
    let mean = sum / count as f64;
    let squares: f64 = h
        .iter()
        .map(|(low, high, n)| (middle(low, high, min, max) - mean).powi(2) * f64::from(n))
        .sum();
    // Two values with the same mean and variance stand for all.
    let deviation = (squares / count as f64).sqrt();
    all.add(mean - deviation);
    all.add(mean + deviation);
    all
}

fn middle(low: u64, high: u64, min: u64, max: u64) -> f64 {
    (low + (high - low) / 2).clamp(min, max) as f64
}

fn stamps(counts: &ClockCounts) -> Stamps {
    let of = |c: ClockSource| counts[c as usize];
    Stamps {
        nic: of(ClockSource::Nic),
        kernel: of(ClockSource::Kernel),
        user: of(ClockSource::User),
        none: of(ClockSource::None),
    }
}

fn runs(runs: &LossRuns) -> Runs {
    let longest = runs.longest();
    let histogram = runs
        .length_classes()
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(i, &count)| RunClass {
            from: 1 << i,
            to: (i + 1 < LENGTH_CLASSES).then(|| (1 << (i + 1)) - 1),
            count: u64::from(count),
        })
        .collect();
    Runs {
        count: runs.count(),
        longest: longest.packets,
        longest_ns: longest.duration_ns(),
        histogram,
    }
}

/// Gaps shorter than this are not told: a few slots; and in a long range what rollups can hide.
fn shortest_gap_ns(info: &SeriesInfo, range: Range) -> u64 {
    let fine = SHORTEST_GAP_NS.max(info.interval_ns.saturating_mul(3));
    if range.to_ns.abs_diff(range.from_ns) > FINE_RANGE_NS {
        fine.max(COARSE_GAP_NS)
    } else {
        fine
    }
}

/// The gaps between samples, and what is missing before the first and after the last of them.
fn gaps(found: &Overview, range: Range, shortest_ns: u64) -> Vec<Gap> {
    let between = found.gaps.iter().map(|g| Gap::new(g.from_ns, g.to_ns));
    let mut gaps: Vec<Gap> = between.collect();
    if let Some((first, last)) = found.extent {
        if first.abs_diff(range.from_ns) > shortest_ns {
            gaps.insert(0, Gap::new(range.from_ns, first));
        }
        if range.to_ns.abs_diff(last) > shortest_ns {
            gaps.push(Gap::new(last, range.to_ns));
        }
    }
    gaps
}

/// `None` where the far end tells nothing.
fn queueing(h: &Histogram) -> Option<Spread> {
    (h.count() > 0).then(|| spread(h, &moments(h)))
}

/// The clock of each reflector against ours, as the best of its series knows it.
fn clocks(
    reader: &Reader,
    series: &[(SeriesId, SeriesInfo)],
    range: Range,
    events: &[Event],
) -> Result<Vec<Clock>, StoreError> {
    let mut clocks: Vec<Clock> = Vec::new();
    for (id, info) in series {
        let Some(knot) = reader.floor(*id, range.from_ns, range.to_ns)? else {
            continue;
        };
        let clock = Clock {
            interface: info.interface.clone(),
            reflector: info.target.clone(),
            skew_ppm: f64::from(knot.slope_ppb) / 1e3,
            quality: f64::from(knot.quality) / 100.0,
            err_ns: u64::from(knot.err_ns),
            steps: events
                .iter()
                .filter(|e| e.kind == "clock_step" && e.target.as_ref() == Some(&info.target))
                .filter(|e| e.interface == info.interface)
                .filter_map(|e| e.start)
                .collect(),
        };
        let same = clocks
            .iter_mut()
            .find(|c| c.interface == clock.interface && c.reflector == clock.reflector);
        match same {
            Some(best) if best.quality < clock.quality => *best = clock,
            Some(_) => {}
            None => clocks.push(clock),
        }
    }
    Ok(clocks)
}

/// The events of the range and selection, by their begin.
pub(crate) fn events(
    reader: &Reader,
    selection: &Selection,
    range: Range,
) -> Result<Vec<Event>, StoreError> {
    let map = reader.time_map();
    let mut events: Vec<Event> = reader
        .events(range.from_ns, range.to_ns)?
        .into_iter()
        // What concerns the host concerns every interface and target.
        .filter(|(_, e)| {
            selection
                .interface
                .as_ref()
                .is_none_or(|i| e.interface.is_empty() || *i == e.interface)
                && selection
                    .target
                    .as_ref()
                    .is_none_or(|t| e.target.as_ref().is_none_or(|of| of == t))
        })
        .map(|(id, e)| Event {
            id: id.0,
            start: map.wall_ns(e.boot, e.start_ns).map(Time),
            end: e.end_ns.and_then(|at| map.wall_ns(e.boot, at)).map(Time),
            kind: e.kind,
            severity: e.severity,
            interface: e.interface,
            target: e.target,
            direction: e.direction,
            values: e.values,
            text: e.text,
            seen: Vec::new(),
            trains: Vec::new(),
            close_looks: Vec::new(),
        })
        .collect();
    paths::put_to(&mut events, reader, range)?;
    trains::put_to(&mut events, reader, range)?;
    echoes::put_to(&mut events, reader, range)?;
    events.sort_by_key(|e| (e.start, e.id));
    Ok(events)
}

/// The range that was asked for, or all that was recorded, for commands that list what happened.
pub(crate) fn range_of_events(
    selection: &Selection,
    reader: &Reader,
    now_ns: i64,
) -> Result<Range, Fail> {
    match selection.range(now_ns)? {
        Some(range) => Ok(range),
        None => {
            let begin = reader.span()?.map_or(0, |s| s.0);
            Ok(Range {
                from_ns: begin.min(now_ns),
                to_ns: when::now_ns().max(now_ns).saturating_add(1),
                begin_typed: false,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moments_of_a_histogram_are_those_of_its_values(
            values in proptest::collection::vec(1_000u64..1_000_000_000, 1..200),
        ) {
            let (mut h, mut truth) = (Histogram::new(), Moments::new());
            for v in &values {
                h.add(*v);
                truth.add(*v as f64);
            }
            let said = moments(&h);
            let (mean, true_mean) = (said.mean_ns().unwrap(), truth.mean_ns().unwrap());
            prop_assert!((mean - true_mean).abs() <= true_mean * 0.01);
            let deviation = |m: &Moments| m.variance().unwrap().sqrt();
            prop_assert!((deviation(&said) - deviation(&truth)).abs() <= true_mean * 0.02 + 1.0);
        }
    }
}
