//! `bbtool export`: raw data, row by row.

mod table;

use std::collections::{BTreeMap, VecDeque};

use bufferbane_core::stats::summary::Summary;
use bufferbane_core::time::StampErrors;
use bufferbane_store::{Filter, Reader, Row, Segment, SeriesId, SeriesInfo, Window};

use crate::args::Export as Arguments;
use crate::export_tests::{self, Membership};
use crate::fail::Fail;
use crate::report::{self, Event};
use crate::when::{self, Range};
use crate::{out, source};
use table::{Field, Format, Table};

/// Columns of `--what samples`.
const SAMPLES: [&str; 28] = [
    "time_ns",
    "interface",
    "target",
    "kind",
    "seq",
    "size",
    "dscp",
    "status",
    "rtt_ns",
    "raw_up_ns",
    "raw_down_ns",
    "queue_up_ns",
    "queue_down_ns",
    "send_late_ns",
    "tx_clock",
    "rx_clock",
    "remote_rx_clock",
    "remote_tx_clock",
    "err_ns",
    "errno",
    "flags",
    "dscp_seen",
    "ecn_seen",
    "ttl_up",
    "ttl_down",
    "boot",
    "mono_ns",
    "test",
];

/// Columns of `--what rollups`.
const ROLLUPS: [&str; 48] = [
    "time_ns",
    "window_ns",
    "interface",
    "target",
    "kind",
    "family",
    "dscp",
    "size",
    "interval_ns",
    "sent",
    "received",
    "lost",
    "lost_up",
    "lost_down",
    "late",
    "duplicated",
    "reordered",
    "unsent",
    "rtt_min_ns",
    "rtt_p50_ns",
    "rtt_p90_ns",
    "rtt_p95_ns",
    "rtt_p99_ns",
    "rtt_p999_ns",
    "rtt_max_ns",
    "rtt_mean_ns",
    "rtt_stddev_ns",
    "ipdv_p50_ns",
    "ipdv_p95_ns",
    "ipdv_p99_ns",
    "ipdv_max_ns",
    "queue_up_p50_ns",
    "queue_up_p95_ns",
    "queue_up_p99_ns",
    "queue_up_max_ns",
    "queue_down_p50_ns",
    "queue_down_p95_ns",
    "queue_down_p99_ns",
    "queue_down_max_ns",
    "loss_runs",
    "longest_run",
    "longest_run_ns",
    "boot",
    "mono_ns",
    "jitter_mean_ns",
    "jitter_last_ns",
    "failures",
    "reordered_up",
];

/// Columns of `--what events`.
const EVENTS: [&str; 10] = [
    "id",
    "kind",
    "severity",
    "interface",
    "target",
    "direction",
    "start_ns",
    "end_ns",
    "values",
    "text",
];

/// `bbtool export`.
pub(crate) fn run(args: &Arguments) -> Result<(), Fail> {
    let format = match (args.format.as_deref(), args.json) {
        (None | Some("csv"), false) => Format::Csv,
        (Some("json"), _) | (None, true) => Format::Json,
        (Some("parquet"), false) => Format::Parquet,
        (Some(other @ ("csv" | "parquet")), true) => {
            return Err(Fail::Usage(format!(
                "--json and --format {other} contradict each other"
            )));
        }
        (Some(other), _) => {
            return Err(Fail::Usage(format!(
                "--format \"{other}\" is not known for exports; csv, json or parquet"
            )));
        }
    };
    let what = args.what.as_deref().unwrap_or("samples");
    if !["samples", "rollups", "events", "tests"].contains(&what) {
        return Err(Fail::Usage(format!(
            "--what \"{what}\" is not known; samples, rollups, events or tests"
        )));
    }
    let selection = args.selection();
    let asked = selection.range(when::now_ns())?;
    let reader = source::open(&args.place())?;
    let path = args.out.as_deref();
    if format == Format::Parquet && path.is_none() && out::is_terminal() {
        return Err(Fail::Usage(
            "parquet is no text for a terminal; name a file with --out".into(),
        ));
    }
    if what == "events" {
        let range = report::range_of_events(&selection, &reader, when::now_ns())?;
        let events = report::events(&reader, &selection, range)?;
        return self::events(&events, Table::begin(path, format, &EVENTS)?);
    }
    if what == "tests" {
        let tests = export_tests::chosen(&reader, &selection, asked)?;
        if tests.is_empty() {
            return Err(Fail::NoData("there is no throughput test there".into()));
        }
        let boots = reader.boots()?;
        let mut table = Table::begin(path, format, &export_tests::COLUMNS)?;
        for test in &tests {
            for way in &test.2.ways {
                let row = export_tests::row(test, way, &boots);
                let fields: Vec<Field<'_>> = row.into_iter().map(Field::from).collect();
                table.row(&fields)?;
            }
        }
        return table.end();
    }
    let series = source::series(&reader, &selection)?;
    let recorded = source::recorded(&reader)?;
    // The minute of the first sample began before it.
    let first_ns = match what {
        "rollups" => recorded
            .0
            .saturating_sub(Window::Minute.length_ns().cast_signed()),
        _ => recorded.0,
    };
    let whole = Range {
        from_ns: first_ns,
        to_ns: recorded.1,
        begin_typed: false,
    };
    let range = asked.unwrap_or(whole);
    // Nothing is outside of what was recorded, and looking for it takes time.
    let clipped = Range {
        from_ns: range.from_ns.max(first_ns),
        to_ns: range.to_ns.min(recorded.1),
        ..range
    };
    let nothing = || source::nothing_there(range, recorded, selection.utc);
    if clipped.from_ns >= clipped.to_ns {
        return Err(nothing());
    }
    let series: BTreeMap<SeriesId, SeriesInfo> = series.into_iter().collect();
    let wrote = if what == "samples" {
        samples(&reader, &series, clipped, || {
            Table::begin(path, format, &SAMPLES)
        })?
    } else {
        rollups(&reader, &series, clipped, || {
            Table::begin(path, format, &ROLLUPS)
        })?
    };
    if wrote { Ok(()) } else { Err(nothing()) }
}

/// Writes all samples. Gives whether there were any; where not, nothing is opened or written.
fn samples<'a>(
    reader: &Reader,
    series: &BTreeMap<SeriesId, SeriesInfo>,
    range: Range,
    begin: impl FnOnce() -> Result<Table<'a>, Fail>,
) -> Result<bool, Fail> {
    let boots = reader.boots()?;
    let tests = Membership::read(reader)?;
    let filter = Filter {
        from_ns: range.from_ns,
        to_ns: range.to_ns,
        series: series.keys().copied().collect(),
    };
    let mut rows = reader.samples(&filter).peekable();
    if rows.peek().is_none() {
        return Ok(false);
    }
    let mut table = begin()?;
    let mut errors = Errors::new(reader);
    for row in rows {
        let row = row?;
        if let Some(info) = series.get(&row.series) {
            let test = tests.of(&row, info);
            let err_ns = row.sample.err_ns(&errors.at(row.wall_ns)?);
            table.row(&sample(&row, info, boots.get(&row.boot), test, err_ns))?;
        }
    }
    table.end()?;
    Ok(true)
}

fn sample<'a>(
    row: &Row,
    info: &'a SeriesInfo,
    boot: Option<&'a String>,
    test: Option<u64>,
    err_ns: Option<u64>,
) -> [Field<'a>; 28] {
    let s = &row.sample;
    let unsent = s.status == bufferbane_core::sample::Status::Unsent;
    let errno = unsent || s.failure().is_some();
    [
        Field::Signed(row.wall_ns),
        Field::Text(&info.interface),
        Field::Text(&info.target),
        Field::Text(info.kind.as_str()),
        Field::Unsigned(s.seq),
        Field::Unsigned(u64::from(s.size)),
        Field::Unsigned(u64::from(info.dscp)),
        Field::Text(s.status.as_str()),
        s.rtt_ns.into(),
        s.raw_up_ns.into(),
        s.raw_down_ns.into(),
        row.queueing.map(|q| q.up_ns).into(),
        row.queueing.map(|q| q.down_ns).into(),
        Field::Signed(s.send_late_ns),
        s.tx_clock.into(),
        s.rx_clock.into(),
        s.remote_rx_clock.into(),
        s.remote_tx_clock.into(),
        err_ns.into(),
        errno.then_some(u64::from(s.errno)).into(),
        Field::Owned(s.flags.letters().collect()),
        s.tos_seen.map(|t| t >> 2).into(),
        s.tos_seen.map(|t| t & 3).into(),
        s.ttl_up.into(),
        s.ttl_down.into(),
        boot.map_or(Field::Empty, |b| Field::Text(b)),
        Field::Unsigned(s.sent.as_nanos()),
        test.into(),
    ]
}

/// What stamps were worth at a time, an hour of it in memory.
struct Errors<'a> {
    reader: &'a Reader,
    hour: std::ops::Range<i64>,
    /// When each minute ended, and what was measured in it.
    minutes: Vec<(i64, StampErrors)>,
}

impl<'a> Errors<'a> {
    const HOUR_NS: i64 = 3600 * 1_000_000_000;
    const MINUTE_NS: i64 = Self::HOUR_NS / 60;

    const fn new(reader: &'a Reader) -> Self {
        Self {
            reader,
            hour: 0..0,
            minutes: Vec::new(),
        }
    }

    /// What was measured in the minute that `wall_ns` is in; assumed where nothing was.
    fn at(&mut self, wall_ns: i64) -> Result<StampErrors, Fail> {
        if !self.hour.contains(&wall_ns) {
            self.hour = wall_ns..wall_ns.saturating_add(Self::HOUR_NS);
            // The minute in which the last second of it is ends after it.
            let to_ns = self.hour.end.saturating_add(2 * Self::MINUTE_NS);
            self.minutes.clear();
            self.reader.each_health(wall_ns, to_ns, |end, row| {
                self.minutes.push((end, row.stamp_errors()));
            })?;
            self.minutes.sort_by_key(|m| m.0);
        }
        let next = self.minutes.partition_point(|m| m.0 < wall_ns);
        let minute = self.minutes.get(next);
        let within = minute.filter(|m| m.0 - wall_ns <= 2 * Self::MINUTE_NS);
        Ok(within.map_or(StampErrors::ASSUMED, |m| m.1))
    }
}

/// Goes through the rollups of one series, a few in memory at a time.
struct Cursor {
    series: SeriesId,
    next_ns: u64,
    done: bool,
    rows: VecDeque<(u64, Summary)>,
}

impl Cursor {
    fn fill(&mut self, reader: &Reader, segment: &Segment) -> Result<(), Fail> {
        if self.rows.is_empty() && !self.done {
            let rest = self.next_ns..segment.to_ns;
            self.rows = reader
                .rollups(Window::Minute, self.series, segment.boot, rest)?
                .into();
            match self.rows.back() {
                Some((last, _)) => self.next_ns = last + 1,
                None => self.done = true,
            }
        }
        Ok(())
    }
}

/// Writes all rollups of a minute. Gives whether there were any.
fn rollups<'a>(
    reader: &Reader,
    series: &BTreeMap<SeriesId, SeriesInfo>,
    range: Range,
    begin: impl FnOnce() -> Result<Table<'a>, Fail>,
) -> Result<bool, Fail> {
    let boots = reader.boots()?;
    let mut begin = Some(begin);
    let mut table: Option<Table<'a>> = None;
    for segment in reader.time_map().clip(range.from_ns, range.to_ns) {
        let mut cursors: Vec<Cursor> = series
            .keys()
            .map(|id| Cursor {
                series: *id,
                next_ns: segment.from_ns,
                done: false,
                rows: VecDeque::new(),
            })
            .collect();
        loop {
            for c in &mut cursors {
                c.fill(reader, &segment)?;
            }
            let earliest = cursors
                .iter_mut()
                .filter(|c| !c.rows.is_empty())
                .min_by_key(|c| c.rows.front().map(|(at, _)| *at));
            let Some(cursor) = earliest else { break };
            let Some((at, summary)) = cursor.rows.pop_front() else {
                break;
            };
            let Some(info) = series.get(&cursor.series) else {
                continue;
            };
            if let Some(begin) = begin.take() {
                table = Some(begin()?);
            }
            if let Some(table) = &mut table {
                let boot = boots.get(&segment.boot);
                table.row(&rollup(segment.wall_ns(at), at, &summary, info, boot))?;
            }
        }
    }
    match table {
        Some(table) => {
            table.end()?;
            Ok(true)
        }
        None => Ok(false),
    }
}

fn rollup<'a>(
    wall_ns: i64,
    mono_ns: u64,
    s: &Summary,
    info: &'a SeriesInfo,
    boot: Option<&'a String>,
) -> [Field<'a>; 48] {
    let n = |v: u64| Field::Unsigned(v);
    let rtt = report::spread(&s.rtt, &s.rtt_moments);
    let directed = info.kind.tells_direction();
    let longest = s.runs.longest();
    [
        Field::Signed(wall_ns),
        n(Window::Minute.length_ns()),
        Field::Text(&info.interface),
        Field::Text(&info.target),
        Field::Text(info.kind.as_str()),
        n(u64::from(info.family)),
        n(u64::from(info.dscp)),
        n(u64::from(info.size)),
        n(info.interval_ns),
        n(s.sent),
        n(s.received),
        n(s.lost),
        directed.then_some(s.lost_up).into(),
        directed.then_some(s.lost_down).into(),
        n(s.late),
        n(s.duplicated),
        n(s.reordered),
        n(s.unsent),
        rtt.min.into(),
        rtt.p50.into(),
        rtt.p90.into(),
        rtt.p95.into(),
        rtt.p99.into(),
        rtt.p999.into(),
        rtt.max.into(),
        rtt.mean.into(),
        rtt.stddev.into(),
        s.ipdv.quantile(0.5).into(),
        s.ipdv.quantile(0.95).into(),
        s.ipdv.quantile(0.99).into(),
        s.ipdv.max().into(),
        s.queue_up.quantile(0.5).into(),
        s.queue_up.quantile(0.95).into(),
        s.queue_up.quantile(0.99).into(),
        s.queue_up.max().into(),
        s.queue_down.quantile(0.5).into(),
        s.queue_down.quantile(0.95).into(),
        s.queue_down.quantile(0.99).into(),
        s.queue_down.max().into(),
        n(s.runs.count()),
        n(longest.packets),
        n(longest.duration_ns()),
        boot.map_or(Field::Empty, |b| Field::Text(b)),
        n(mono_ns),
        s.jitter.and_then(|j| j.mean_ns()).into(),
        s.jitter.and_then(|j| j.last_ns()).into(),
        n(s.failures.count()),
        directed.then_some(s.reordered_up).into(),
    ]
}

fn events(events: &[Event], mut table: Table<'_>) -> Result<(), Fail> {
    for e in events {
        // As the report writes them.
        let word = |v: serde_json::Value| match v {
            serde_json::Value::String(s) => Field::Owned(s),
            _ => Field::Empty,
        };
        table.row(&[
            Field::Unsigned(e.id),
            Field::Text(&e.kind),
            word(serde_json::to_value(e.severity)?),
            Field::Text(&e.interface),
            e.target.as_deref().map_or(Field::Empty, Field::Text),
            word(serde_json::to_value(e.direction)?),
            e.start.map(|t| t.0).into(),
            e.end.map(|t| t.0).into(),
            Field::Values(&e.values),
            Field::Text(&e.text),
        ])?;
    }
    table.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_the_documented_one() {
        assert_eq!(
            SAMPLES.join(","),
            "time_ns,interface,target,kind,seq,size,dscp,status,rtt_ns,raw_up_ns,raw_down_ns,\
             queue_up_ns,queue_down_ns,send_late_ns,tx_clock,rx_clock,remote_rx_clock,\
             remote_tx_clock,err_ns,errno,flags,dscp_seen,ecn_seen,ttl_up,ttl_down,boot,mono_ns,test"
        );
    }
}
