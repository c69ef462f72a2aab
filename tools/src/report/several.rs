//! One report over one store or several: a laptop on Wi-Fi and the router, say, side by side.

use std::path::Path;

use bufferbane_store::{Reader, SeriesId, SeriesInfo};
use serde_json::Value;

use super::anonymize;
use super::build::{self, Built};
use super::compare::{self, Change};
use super::model::Report;
use crate::args::{Place, Report as Arguments, Selection};
use crate::chart::{self, Material, Tested};
use crate::fail::Fail;
use crate::source;
use crate::when::{self, Range};

/// One store with what of it the report is about.
struct Part {
    reader: Reader,
    series: Vec<(SeriesId, SeriesInfo)>,
    tests: Vec<Tested>,
}

/// The stores of a report, and the report.
pub(crate) struct Stores {
    parts: Vec<Part>,
    /// What each is called where there are several.
    labels: Vec<String>,
    /// The report over all of them.
    pub(crate) report: Report,
    range: Range,
}

impl Stores {
    /// A report of one store.
    pub(crate) fn of(reader: Reader, selection: &Selection, now_ns: i64) -> Result<Self, Fail> {
        let Built {
            report,
            series,
            tests,
            range,
        } = build::build(&reader, selection, now_ns)?;
        Ok(Self {
            parts: vec![Part {
                reader,
                series,
                tests,
            }],
            labels: Vec::new(),
            report,
            range,
        })
    }

    /// The report and its stores without names.
    pub(crate) fn anonymize(&mut self) {
        anonymize::anonymize(&mut self.report, &self.labels);
    }

    /// A report of `reader`'s store and those that `--also` names.
    pub(crate) fn open(
        reader: Reader,
        args: &Arguments,
        selection: &Selection,
        now_ns: i64,
    ) -> Result<Self, Fail> {
        let mut stores = Self::of(reader, selection, now_ns)?;
        if args.also.is_empty() {
            return Ok(stores);
        }
        let own = label(stores.parts[0].reader.path());
        rename(&mut stores.report, &own);
        // All of them over the same time.
        let selection = Selection {
            last: None,
            from: Some(when::rfc3339(stores.range.from_ns)),
            to: Some(when::rfc3339(stores.range.to_ns)),
            ..selection.clone()
        };
        let mut labels = vec![own];
        for path in &args.also {
            // Nobody's daemon: what is in the file is what counts.
            let place = Place {
                store: Some(path.clone()),
                socket: path.with_extension("no-socket"),
                socket_is_named: true,
            };
            let mut other = Self::of(source::open(&place)?, &selection, now_ns)?;
            let mut name = label(path);
            while labels.contains(&name) {
                name.push('*');
            }
            rename(&mut other.report, &name);
            labels.push(name);
            stores.parts.append(&mut other.parts);
            let (all, more) = (&mut stores.report, other.report);
            all.series.extend(more.series);
            all.grades.extend(more.grades);
            all.outages.extend(more.outages);
            all.verdicts.extend(more.verdicts);
            all.throughput.extend(more.throughput);
            all.bufferbloat.extend(more.bufferbloat);
            all.clock.extend(more.clock);
            all.load.extend(more.load);
            all.capacity.extend(more.capacity);
            all.paths.extend(more.paths);
            all.path_mtu.extend(more.path_mtu);
            match (&mut all.cable, more.cable) {
                (Some(all), Some(more)) => all.merge(more),
                (none, more) => *none = none.take().or(more),
            }
            all.events.extend(more.events);
        }
        stores.report.events.sort_by_key(|e| (e.start, e.id));
        stores.labels = labels;
        Ok(stores)
    }

    /// Compares two ranges in each store.
    pub(crate) fn compare(&mut self, before: Range, after: Range) -> Result<(), Fail> {
        let mut named = self.report.series.iter();
        for part in &self.parts {
            let mut compared = compare::ranges(&part.reader, &part.series, before, after)?;
            for ((_, info), series) in part.series.iter().zip(&mut named) {
                let of_it =
                    |c: &&mut Change| c.interface == info.interface && c.target == info.target;
                for change in compared.changes.iter_mut().filter(of_it) {
                    change.interface.clone_from(&series.interface);
                    change.target.clone_from(&series.target);
                }
            }
            self.report.compared.push(compared);
        }
        Ok(())
    }

    /// What charts are drawn of, with the names of the report.
    pub(crate) fn material(&self, pixels: usize) -> Result<Material, Fail> {
        let mut all: Option<Material> = None;
        let mut names = self.report.series.iter();
        for part in &self.parts {
            let about = (self.report.events.clone(), part.tests.clone());
            let own = &part.series;
            let mut part = chart::material(&part.reader, own, about, self.range, pixels)?;
            let named: Vec<&str> = names
                .by_ref()
                .take(own.len())
                .map(|s| s.interface.as_str())
                .collect();
            for line in &mut part.lines {
                let at = own.iter().position(|(_, i)| i.interface == line.interface);
                if let Some(name) = at.and_then(|at| named.get(at)) {
                    line.interface = (*name).to_owned();
                }
            }
            match &mut all {
                Some(all) => {
                    all.tracks.extend(part.tracks);
                    all.tests.extend(part.tests);
                    all.lines.extend(part.lines);
                }
                None => all = Some(part),
            }
        }
        let mut all = all.ok_or_else(|| Fail::NoData("nothing has been recorded yet".into()))?;
        for (track, series) in all.tracks.iter_mut().zip(&self.report.series) {
            track.info.interface.clone_from(&series.interface);
            track.info.target.clone_from(&series.target);
        }
        // The report has a line for each direction of a test, and one for the round trip.
        let mut named = self.report.bufferbloat.iter();
        for (_, _, test) in &mut all.tests {
            if let Some(first) = named.next() {
                test.interface.clone_from(&first.interface);
                test.reflector.clone_from(&first.reflector);
            }
            named.by_ref().take(test.ways.len()).for_each(drop);
        }
        Ok(all)
    }
}

/// What a store is called beside another: its file's name.
fn label(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    crate::show::cut(&crate::show::clean(&stem.to_string_lossy()), 20)
}

/// Says of everything in a report which store it is from.
fn rename(report: &mut Report, label: &str) {
    let name = |interface: &mut String| {
        *interface = if interface.is_empty() {
            label.to_owned()
        } else {
            format!("{label}: {interface}")
        };
    };
    report
        .series
        .iter_mut()
        .for_each(|s| name(&mut s.interface));
    report
        .grades
        .iter_mut()
        .for_each(|g| name(&mut g.interface));
    for v in &mut report.verdicts {
        name(&mut v.interface);
        v.text = format!("{label}: {}", v.text);
    }
    report
        .throughput
        .iter_mut()
        .for_each(|t| name(&mut t.interface));
    report
        .bufferbloat
        .iter_mut()
        .for_each(|b| name(&mut b.interface));
    report.clock.iter_mut().for_each(|c| name(&mut c.interface));
    for value in report.load.iter_mut().chain(&mut report.capacity) {
        if let Some(Value::String(interface)) = value.get_mut("interface") {
            name(interface);
        }
    }
    report
        .outages
        .iter_mut()
        .for_each(|o| name(&mut o.interface));
    let cables = report.cable.iter_mut().flat_map(|c| c.interfaces());
    cables.for_each(&name);
    let known = report.paths.iter_mut();
    known.for_each(|k| name(&mut k.way.interface));
    let sizes = report.path_mtu.iter_mut();
    sizes.for_each(|p| name(&mut p.interface));
    for e in &mut report.events {
        name(&mut e.interface);
        let seen = e.seen.iter_mut();
        seen.for_each(|s| name(&mut s.way.interface));
        let close = e.close_looks.iter_mut();
        close.for_each(|l| name(&mut l.interface));
    }
}
