//! Our side: `bbtool` as a process, with its time and its most memory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Fail;

/// What an answer took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    pub(super) seconds: f64,
    pub(super) peak_bytes: u64,
}

/// `bbtool command` about a wall time of `store`, ns since 1970, to `to`.
pub(super) fn ask(
    bbtool: &Path,
    command: &[&str],
    store: &Path,
    range: (i64, i64),
    to: &Path,
) -> Result<Took, Fail> {
    let time = |ns: i64| {
        let time = jiff::Timestamp::from_nanosecond(i128::from(ns));
        time.map(|t| t.to_string())
            .map_err(|e| Fail::of("a time", e))
    };
    let (from, to_time) = (time(range.0)?, time(range.1)?);
    let begun = Instant::now();
    let mut child = Command::new(bbtool)
        .args(command)
        .args(["--utc", "--from", &from, "--to", &to_time])
        .arg("--store")
        .arg(store)
        .arg("--socket")
        .arg(store.with_extension("no-socket"))
        .arg("--out")
        .arg(to)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| Fail::of(bbtool.display(), e))?;
    let status = format!("/proc/{}/status", child.id());
    let mut peak_bytes = 0;
    loop {
        let peak = std::fs::read_to_string(&status).ok().and_then(|text| {
            let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        peak_bytes = peak.map_or(peak_bytes, |kib| peak_bytes.max(kib * 1024));
        if let Some(ended) = child.try_wait().map_err(|e| Fail::of("bbtool", e))? {
            if !ended.success() {
                return Err(Fail::Failed(format!("bbtool {command:?}: {ended}")));
            }
            let seconds = begun.elapsed().as_secs_f64();
            return Ok(Took {
                seconds,
                peak_bytes,
            });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
