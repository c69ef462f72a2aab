//! Our side: `bbtool` as a process, with its time and its most memory.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use super::super::child::Program;
use super::super::setup::last_line;
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
    let socket = store.with_extension("no-socket");
    let mut args: Vec<&OsStr> = command.iter().map(OsStr::new).collect();
    args.extend(["--utc", "--from", &from, "--to", &to_time].map(OsStr::new));
    args.extend([OsStr::new("--store"), store.as_os_str()]);
    args.extend([OsStr::new("--socket"), socket.as_os_str()]);
    args.extend([OsStr::new("--out"), to.as_os_str()]);
    let log = to.with_extension("log");
    let program = Program::start(bbtool, &args, None, None, &log)?;
    let peak_bytes = program
        .peak_bytes()
        .map_err(|e| Fail::of(e, last_line(&log)))?;
    Ok(Took {
        seconds: begun.elapsed().as_secs_f64(),
        peak_bytes,
    })
}
