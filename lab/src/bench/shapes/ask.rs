//! Asking a daemon for a throughput test, and what it says.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bufferbane_core::load::latency::Spread;
use bufferbane_linux_io::clock;
use bufferbane_store::{Direction, LoadTest, Percentiles};
use serde_json::{Value, json};

use super::super::Fail;
use crate::link::Way;

/// Longer than a daemon is ever silent while a test runs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a test of one direction said, with the stretches that it looked at, `CLOCK_REALTIME`, ns.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which.
    pub way: Way,
    /// Before the load.
    pub idle: Range<i64>,
    /// The part of the load that counts.
    pub steady: Range<i64>,
    /// TCP payload, bit/s.
    pub rate_bps: u64,
    /// What others carried meanwhile, bit/s of frames.
    pub others_bps: Option<u64>,
    /// Delay in this direction under load above that without, ns.
    pub increase: Spread,
}

/// Asks the daemon behind the control socket `socket` for a test and waits for the answer.
///
/// # Errors
/// Why there is none.
pub fn ask(socket: &Path, way: Way, seconds: u64) -> Result<Told, Fail> {
    let mut news = begin(socket, way, seconds)?;
    loop {
        let said = next(&mut news)?;
        if said["test"].is_object() {
            let test = serde_json::from_value(said["test"].clone());
            return told(way, &test.map_err(|e| Fail::of("the test's result", e))?);
        }
        if said["ok"] != true {
            return Err(Fail::of("the test", &said["error"]));
        }
    }
}

/// Asks for a test, and leaves its news to be read. Whoever drops them cuts it off.
///
/// # Errors
/// Where the daemon cannot be asked.
pub fn begin(socket: &Path, way: Way, seconds: u64) -> Result<BufReader<UnixStream>, Fail> {
    let direction = match way {
        Way::Up => "up",
        Way::Down => "down",
    };
    let wish = json!({ "cmd": "test", "direction": direction, "seconds": seconds });
    ask_for(socket, &wish)
}

/// The same for any `wish`, as the control socket takes it.
///
/// # Errors
/// Where the daemon cannot be asked.
pub fn ask_for(socket: &Path, wish: &Value) -> Result<BufReader<UnixStream>, Fail> {
    let failed = |e: std::io::Error| Fail::of(socket.display(), e);
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    writeln!(stream, "{wish}").map_err(failed)?;
    Ok(BufReader::new(stream))
}

/// The next line of a test's news.
///
/// # Errors
/// Where there is none.
pub fn next(news: &mut BufReader<UnixStream>) -> Result<Value, Fail> {
    let mut line = String::new();
    news.read_line(&mut line)
        .map_err(|e| Fail::of("a test's news", e))?;
    serde_json::from_str(&line).map_err(|e| Fail::of("a test's news", e))
}

fn told(way: Way, test: &LoadTest) -> Result<Told, Fail> {
    let direction = match way {
        Way::Up => Direction::Up,
        Way::Down => Direction::Down,
    };
    let found = test.ways.iter().find(|w| w.direction == direction);
    let found = found.ok_or_else(|| Fail::Failed("the test says nothing of its way".into()))?;
    // The daemon's clock is this host's.
    let ahead_ns = clock::wall_now() - clock::now().as_nanos() as i64;
    let wall = |ns: u64| ns as i64 + ahead_ns;
    let Percentiles { p50, p90, p99 } = found.delay.increase;
    Ok(Told {
        way,
        idle: wall(test.start_ns)..wall(test.load_start_ns),
        steady: wall(test.load_start_ns + test.ramp_ns)..wall(test.load_end_ns),
        rate_bps: found.mean_bps,
        others_bps: found.others_bps,
        increase: Spread { p50, p90, p99 },
    })
}
