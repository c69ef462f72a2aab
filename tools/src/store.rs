//! `bbtool store`: check, copy, compact, prune.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use bufferbane_store::{CheckReport, OpenError, Reader, Retention, Writer, WriterOptions, compact};
use serde_json::json;

use crate::args::{StoreAction, StoreCheck, StoreCompact, StoreCopy, StorePrune};
use crate::fail::Fail;
use crate::show::{bytes, count, plural, stretch};
use crate::{out, source, when};

/// `bbtool store`.
pub(crate) fn run(action: &StoreAction) -> Result<(), Fail> {
    match action {
        StoreAction::Check(args) => check(args),
        StoreAction::Copy(args) => copy(args),
        StoreAction::Compact(args) => shrink(args),
        StoreAction::Prune(args) => prune(args),
    }
}

fn file_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

fn check(args: &StoreCheck) -> Result<(), Fail> {
    let reader = source::open(&args.place())?;
    let path = reader.path();
    let report = reader
        .check()
        .map_err(|e| Fail::Failed(format!("{}: damaged: {e}", path.display())))?;
    let span = reader.span()?;
    if args.json {
        return out::print_json(&json!({
            "path": path.display().to_string(),
            "whole": true,
            "file_bytes": file_bytes(path),
            "series": report.series,
            "blocks": report.blocks,
            "samples": report.samples,
            "rollups": report.rollups,
            "events": report.events,
            "first": span.map(|s| when::rfc3339(s.0)),
            "last": span.map(|s| when::rfc3339(s.1)),
        }));
    }
    let per_sample = match report.samples {
        0 => String::new(),
        n => format!(
            " ({:.1} bytes of file for each)",
            file_bytes(path) as f64 / n as f64
        ),
    };
    let zone = when::zone(args.utc);
    let text = format!(
        "{}: whole\n{} in the file\n{}\n{}\n",
        path.display(),
        bytes(file_bytes(path)),
        held(&report, &per_sample),
        span.map_or_else(
            || "nothing recorded yet".to_owned(),
            |s| when::range_label(s.0, s.1, &zone)
        ),
    );
    out::print(&text.replace('\u{a0}', " "))
}

/// What the store holds, a line for each kind.
fn held(report: &CheckReport, per_sample: &str) -> String {
    format!(
        "{} series\n{} in {}{per_sample}\n{}\n{}",
        count(report.series),
        plural(report.samples, "sample", "samples"),
        plural(report.blocks, "block", "blocks"),
        plural(report.rollups, "rollup", "rollups"),
        plural(report.events, "event", "events"),
    )
}

fn copy(args: &StoreCopy) -> Result<(), Fail> {
    let reader = source::open(&args.place())?;
    let path = reader.path();
    reader.copy(&args.out)?;
    if args.json {
        return out::print_json(&json!({
            "path": path.display().to_string(),
            "file_bytes": file_bytes(path),
            "copy": args.out.display().to_string(),
            "copy_bytes": file_bytes(&args.out),
        }));
    }
    let text = format!(
        "{}: {} copied to {}, {}\n",
        path.display(),
        bytes(file_bytes(path)),
        args.out.display(),
        bytes(file_bytes(&args.out))
    );
    out::print(&text.replace('\u{a0}', " "))
}

fn shrink(args: &StoreCompact) -> Result<(), Fail> {
    let path = &source::not_in_use(&args.place())?;
    is_there(path)?;
    let before = file_bytes(path);
    compact(path)?;
    if args.json {
        return out::print_json(&json!({
            "path": path.display().to_string(),
            "file_bytes_before": before,
            "file_bytes": file_bytes(path),
        }));
    }
    let text = format!(
        "{} before, {} now\n",
        bytes(before),
        bytes(file_bytes(path))
    );
    out::print(&text.replace('\u{a0}', " "))
}

/// Refuses what is no store, without making one where there is none.
fn is_there(path: &Path) -> Result<(), Fail> {
    match Reader::open(path) {
        Ok(_) | Err(OpenError::NeedsRecovery(_)) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn prune(args: &StorePrune) -> Result<(), Fail> {
    let keep = |option: &str, typed: &Option<String>| -> Result<Option<u64>, Fail> {
        typed
            .as_ref()
            .map(|t| match t.as_str() {
                "forever" => Ok(None),
                t => when::duration(t)
                    .map(|ns| Some(ns.unsigned_abs()))
                    .map_err(|e| Fail::Usage(format!("{option}: {e}"))),
            })
            .transpose()
            .map(Option::flatten)
    };
    let retention = Retention {
        samples_ns: keep("--samples", &args.samples)?,
        minutes_ns: keep("--rollups-1m", &args.rollups_1m)?,
        hours_ns: keep("--rollups-1h", &args.rollups_1h)?,
        events_ns: keep("--events", &args.events)?,
        max_bytes: None,
    };
    let kept = [
        ("samples", retention.samples_ns),
        ("rollups of a minute", retention.minutes_ns),
        ("rollups of an hour", retention.hours_ns),
        ("events", retention.events_ns),
    ];
    let planned: Vec<String> = kept
        .iter()
        .filter_map(|(what, ns)| ns.map(|ns| format!("{what} older than {}", stretch(ns))))
        .collect();
    if planned.is_empty() {
        return Err(Fail::Usage(
            "say what to keep how long: --samples, --rollups-1m, --rollups-1h, --events".into(),
        ));
    }
    let path = source::not_in_use(&args.place())?;
    // Refused before anything is asked.
    is_there(&path)?;
    let what = planned.join(", ").replace('\u{a0}', " ");
    if !args.yes && !confirmed(&format!("Remove {what} from {}?", path.display()))? {
        return Err(Fail::Failed("nothing was removed".into()));
    }
    let options = WriterOptions {
        // Removing is what makes room.
        min_free_bytes: 0,
        ..WriterOptions::default()
    };
    let mut writer = Writer::open(&path, options)?;
    let gone = writer.prune(&retention, when::now_ns())?;
    writer.close()?;
    if args.json {
        return out::print_json(&json!({
            "path": path.display().to_string(),
            "removed": {
                "blocks": gone.blocks,
                "rollups_1m": gone.minutes,
                "rollups_1h": gone.hours,
                "events": gone.events,
            },
        }));
    }
    out::print(
        &format!(
            "removed {} of samples, {} of a minute, {} of an hour, {}\n",
            plural(gone.blocks, "block", "blocks"),
            plural(gone.minutes, "rollup", "rollups"),
            plural(gone.hours, "rollup", "rollups"),
            plural(gone.events, "event", "events")
        )
        .replace('\u{a0}', " "),
    )
}

/// Asks a person; without one the answer is no.
fn confirmed(question: &str) -> Result<bool, Fail> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Fail::Usage(format!(
            "{question} There is nobody to ask here; say --yes to mean it"
        )));
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_is_no_plural() {
        let report = CheckReport {
            series: 1,
            blocks: 1,
            samples: 205,
            rollups: 3,
            events: 1,
        };
        let said = held(&report, "").replace('\u{a0}', " ");
        assert_eq!(said, "1 series\n205 samples in 1 block\n3 rollups\n1 event");
    }
}
