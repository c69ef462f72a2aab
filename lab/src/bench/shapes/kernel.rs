//! A line that the kernel shapes: a router between client and server with a token bucket (tbf) each way,
//! whose counters are read all the time.
//!
//! ```text
//! client wan0 ── in0 (tbf down)  router  (tbf up) out0 ── lan0 server
//! ```

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bufferbane_core::load::latency::Spread;
use bufferbane_linux_io::clock;
use serde_json::Value;

use super::super::Fail;
use super::ask::{self, Told};
use super::{Lane, Row, Shape, Truth};
use crate::link::Way;
use crate::netns::Namespace;

/// What may pass at once, bytes: more than a millisecond's worth at 500 Mbit/s.
const BURST: &str = "100kb";
/// Ethernet, IPv4, and TCP with time stamps: bytes of a frame that are no payload.
const HEADERS: u64 = 14 + 20 + 32;
/// Between two readings.
const READ_EVERY: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct Shaped {
    pub(super) client: Namespace,
    pub(super) server: Namespace,
    router: Namespace,
}

/// What the counters of a bucket were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    at_ns: i64,
    /// Frames that left so far, and their bytes.
    bytes: u64,
    packets: u64,
    /// Bytes of frames that wait.
    backlog: u64,
}

impl Shaped {
    pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);

    pub(super) fn new(shape: &Shape) -> std::io::Result<Self> {
        let client = Namespace::new("client")?;
        let server = Namespace::new("server")?;
        let router = Namespace::new("router")?;
        router.forward()?;
        client.cable("wan0", &router, "in0")?;
        router.cable("out0", &server, "lan0")?;
        client.ip(&["addr", "add", "10.77.0.1/24", "dev", "wan0"])?;
        router.ip(&["addr", "add", "10.77.0.254/24", "dev", "in0"])?;
        router.ip(&["addr", "add", "10.78.0.1/24", "dev", "out0"])?;
        server.ip(&["addr", "add", "10.78.0.2/24", "dev", "lan0"])?;
        client.ip(&[
            "route",
            "add",
            "default",
            "via",
            "10.77.0.254",
            "dev",
            "wan0",
        ])?;
        server.ip(&["route", "add", "default", "via", "10.78.0.1", "dev", "lan0"])?;
        for way in Way::BOTH {
            let Lane {
                rate_bps,
                buffer_ms,
            } = shape.lane(way);
            let (rate, latency) = (format!("{rate_bps}bit"), format!("{buffer_ms}ms"));
            let bucket = ["tbf", "rate", &rate, "burst", BURST, "latency", &latency];
            let place = ["qdisc", "add", "dev", device(way), "root"];
            router.run("tc", &[&place[..], &bucket[..]].concat())?;
        }
        Ok(Self {
            client,
            server,
            router,
        })
    }

    /// Has the daemon behind `socket` test the line one way, and holds what it says against the counters.
    pub(super) fn hold(
        &self,
        lane: Lane,
        socket: &Path,
        way: Way,
        seconds: u64,
    ) -> Result<Row, Fail> {
        let stop = AtomicBool::new(false);
        let mut tc = Tc::start(&self.router)?;
        let (told, readings) = std::thread::scope(|scope| {
            let reading = scope.spawn(|| tc.read_until(&stop, device(way)));
            let told = ask::ask(socket, way, seconds);
            stop.store(true, Ordering::Relaxed);
            (told, reading.join())
        });
        let readings = readings.map_err(|_| Fail::Failed("reading counters panicked".into()))??;
        let told = told?;
        Ok(Row::new(&told, truth(&readings, lane.rate_bps, &told)?))
    }
}

/// Where what goes this way leaves the router.
const fn device(way: Way) -> &'static str {
    match way {
        Way::Up => "out0",
        Way::Down => "in0",
    }
}

/// One `tc` that is asked again and again.
struct Tc {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Tc {
    fn start(inside: &Namespace) -> Result<Self, Fail> {
        let mut command = inside.command("tc");
        command.args(["-s", "-j", "-b", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Fail::of("tc", e))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (ask, answers) = pipes.ok_or_else(|| Fail::Failed("tc has no pipes".into()))?;
        Ok(Self {
            child,
            ask,
            answers: BufReader::new(answers),
        })
    }

    fn read_until(&mut self, stop: &AtomicBool, device: &str) -> Result<Vec<Reading>, Fail> {
        let mut readings = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            readings.push(self.read(device)?);
            std::thread::sleep(READ_EVERY);
        }
        Ok(readings)
    }

    fn read(&mut self, device: &str) -> Result<Reading, Fail> {
        let failed = |e: std::io::Error| Fail::of("tc", e);
        writeln!(self.ask, "qdisc show dev {device}").map_err(failed)?;
        let mut line = String::new();
        while line.trim().is_empty() {
            line.clear();
            if self.answers.read_line(&mut line).map_err(failed)? == 0 {
                return Err(Fail::Failed("tc has ended".into()));
            }
        }
        let at_ns = clock::wall_now();
        let said: Value = serde_json::from_str(&line).map_err(|e| Fail::of("tc's answer", e))?;
        let number = |key: &str| {
            let missing = || Fail::Failed(format!("tc says nothing of {key}: {line}"));
            said[0][key].as_u64().ok_or_else(missing)
        };
        Ok(Reading {
            at_ns,
            bytes: number("bytes")?,
            packets: number("packets")?,
            backlog: number("backlog")?,
        })
    }
}

impl Drop for Tc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a bucket of `rate_bps` did while a test was run.
fn truth(readings: &[Reading], rate_bps: u64, told: &Told) -> Result<Truth, Fail> {
    let short = || Fail::Failed("the counters were not read all through the test".into());
    let (from, to) = (&told.steady.start, &told.steady.end);
    let (a, b) = payload_at(readings, *from)
        .zip(payload_at(readings, *to))
        .ok_or_else(short)?;
    let held = |during: &Range<i64>| {
        let mut held: Vec<u64> = readings
            .iter()
            .filter(|r| during.contains(&r.at_ns))
            .map(|r| (u128::from(r.backlog) * 8_000_000_000 / u128::from(rate_bps)) as u64)
            .collect();
        Spread::of(&mut held)
    };
    let (idle, loaded) = held(&told.idle).zip(held(&told.steady)).ok_or_else(short)?;
    Ok(Truth {
        rate_bps: ((b - a) * 8e9 / (to - from) as f64) as u64,
        idle,
        loaded,
    })
}

/// Payload that had left by `at_ns`, bytes, on the straight line between the readings round it.
fn payload_at(readings: &[Reading], at_ns: i64) -> Option<f64> {
    let next = readings.partition_point(|r| r.at_ns < at_ns);
    let (a, b) = (readings.get(next.checked_sub(1)?)?, readings.get(next)?);
    let payload = |r: &Reading| r.bytes.saturating_sub(HEADERS * r.packets) as f64;
    let part = (at_ns - a.at_ns) as f64 / (b.at_ns - a.at_ns) as f64;
    Some(payload(a) + (payload(b) - payload(a)) * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_say_payload_and_how_long_what_waits_will_wait() {
        const MS: i64 = 1_000_000;
        // 1000 frames of 1066 bytes a second; from 1 s on 100 000 bytes wait.
        let readings: Vec<Reading> = (0..300)
            .map(|i| Reading {
                at_ns: i * 10 * MS,
                bytes: i as u64 * 10 * 1066,
                packets: i as u64 * 10,
                backlog: if i < 100 { 0 } else { 100_000 },
            })
            .collect();
        let told = Told {
            way: Way::Up,
            idle: 0..1000 * MS,
            steady: 1005 * MS..2505 * MS,
            rate_bps: 0,
            others_bps: None,
            increase: Spread::default(),
        };
        let truth = super::truth(&readings, 8_000_000, &told).expect("it was read all through");
        assert_eq!(truth.rate_bps, 8_000_000);
        assert_eq!(truth.loaded.above(truth.idle).p50, 100 * MS as u64);
        assert!(super::truth(&readings[..200], 8_000_000, &told).is_err());
    }
}
