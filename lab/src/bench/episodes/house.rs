//! A house with a router, on which the daemon runs, somebody else in it, and neighbours on the same segment.
//!
//! ```text
//! pc eth0 ── home0  client (the router)  wan0 ──┐
//!                                            segment ── emulated line ── lan0  server: reflector, iperf3
//!                            neighbour eth0 ────┘
//! ```

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::time::Duration;

use bufferbane_linux_io::clock;
use tempfile::TempDir;

use super::super::Fail;
use super::super::child::{Program, installed};
use super::super::setup::wait_until;
use super::judge::{Cause, Episode};
use crate::home::{Home, Layout, Place};
use crate::link::{Bin, Direction, Record, Way};
use crate::netns::Namespace;

/// Where the reflector listens.
pub const REFLECTOR: ([u8; 4], u16) = ([10, 99, 0, 1], 9876);
/// Where iperf3 does.
const IPERF3: &str = "10.99.0.2";
const IPERF3_PORT: u16 = 5201;
/// Its client ends this much later than it sends, at most.
const AFTERMATH: Duration = Duration::from_secs(20);
const MS: u64 = 1_000_000;

/// The line, up and down.
const PLAN: [Direction; 2] = [direction(10_000_000, 250), direction(40_000_000, 200)];

const fn direction(rate_bps: u64, buffer_ms: u64) -> Direction {
    Direction {
        rate_bps,
        buffer_ns: buffer_ms * MS,
        buffer_bytes: u64::MAX,
        ..Direction::delay(10 * MS)
    }
}

/// See the module.
pub struct House {
    // Ended before its namespace goes.
    _iperf3: Program,
    pc: Namespace,
    neighbour: Namespace,
    /// The router, the line and what is behind it.
    pub home: Home,
    dir: TempDir,
}

/// What the daemon on the router is to read. Whether it sees the household is for it to find out.
#[must_use]
pub fn configuration(key_file: &str) -> String {
    let ([a, b, c, d], port) = REFLECTOR;
    format!(
        "target = []\n[[interface]]\nname = \"wan0\"\n[[reflector]]\nname = \"lab\"\n\
         address = \"{a}.{b}.{c}.{d}:{port}\"\nkey_file = \"{key_file}\"\ninterval = \"25ms\"\nfamily = \"4\"\n\
         [throughput]\nevery = \"never\"\n[alerts]\nhold_down = \"0s\"\n"
    )
}

impl House {
    /// A house with nobody at work yet.
    ///
    /// # Errors
    /// What could not be made.
    pub fn new() -> Result<Self, Fail> {
        let (home, pc, neighbour) = Self::build().map_err(|e| Fail::of("a house", e))?;
        // Of what fills the line the log has the sums.
        home.links[0].record(Record::Probes);
        let dir = tempfile::Builder::new()
            .prefix("bufferbane-lab-")
            .tempdir()
            .map_err(|e| Fail::of("a temporary directory", e))?;
        let path = installed("iperf3", "iperf3")?;
        let args = ["-s", "-B", IPERF3].map(OsStr::new);
        let log = dir.path().join("server.log");
        let mut iperf3 = Program::start(&path, &args, Some(&home.server), None, &log)?;
        let sockets = format!("/proc/{}/net/tcp", iperf3.id());
        let listens = format!(":{IPERF3_PORT:04X} 00000000:0000 0A");
        let ready = || std::fs::read_to_string(&sockets).is_ok_and(|s| s.contains(&listens));
        wait_until(ready);
        if !iperf3.runs() || !ready() {
            return Err(Fail::Failed("the server of iperf3 does not listen".into()));
        }
        Ok(Self {
            _iperf3: iperf3,
            pc,
            neighbour,
            home,
            dir,
        })
    }

    fn build() -> io::Result<(Home, Namespace, Namespace)> {
        let home = Home::build(&Layout {
            uplinks: 1,
            place: Place::BehindGateways,
            plan: PLAN,
            seed: 11,
        })?;
        let [pc, neighbour] = [Namespace::new("pc")?, Namespace::new("neighbour")?];
        let (router, segment) = (&home.client, &home.gateways[0]);
        for (host, at, near, network) in [
            (&pc, router, "home0", "192.168.1"),
            (&neighbour, segment, "next0", "192.168.2"),
        ] {
            host.cable("eth0", at, near)?;
            host.ip(&["addr", "add", &format!("{network}.2/24"), "dev", "eth0"])?;
            let gateway = format!("{network}.1");
            at.ip(&["addr", "add", &format!("{gateway}/24"), "dev", near])?;
            host.ip(&["route", "add", "default", "via", &gateway])?;
            let back = ["route", "add", &format!("{network}.0/24"), "via"];
            home.server.ip(&[&back[..], &["10.78.0.1"]].concat())?;
        }
        router.forward()?;
        segment.ip(&["route", "add", "192.168.1.0/24", "via", "10.77.0.1"])?;
        Ok((home, pc, neighbour))
    }

    /// Somebody in the house loads the line one way, for so many seconds, with cubic as most senders have it.
    ///
    /// # Errors
    /// Where iperf3 did not run to its end.
    pub fn load(&self, way: Way, seconds: u64, streams: u32) -> Result<Episode, Fail> {
        let cause = match way {
            Way::Up => Cause::Upload,
            Way::Down => Cause::Download,
        };
        let during = self.iperf3(&self.pc, way, seconds, streams)?;
        Ok(Episode { cause, during })
    }

    /// Neighbours load it upward, where a segment is narrow, and nobody in the house does.
    ///
    /// # Errors
    /// The same.
    pub fn congest(&self, seconds: u64, streams: u32) -> Result<Episode, Fail> {
        let during = self.iperf3(&self.neighbour, Way::Up, seconds, streams)?;
        Ok(Episode {
            cause: Cause::Neighbours,
            during,
        })
    }

    fn iperf3(
        &self,
        host: &Namespace,
        way: Way,
        seconds: u64,
        streams: u32,
    ) -> Result<Range<i64>, Fail> {
        let (time, streams) = (seconds.to_string(), streams.to_string());
        let mut args = vec!["-c", IPERF3, "-t", &time, "-P", &streams, "-C", "cubic"];
        if way == Way::Down {
            args.push("-R");
        }
        let args: Vec<&OsStr> = args.into_iter().map(OsStr::new).collect();
        let path = installed("iperf3", "iperf3")?;
        let begin_ns = clock::wall_now();
        let log = self.dir.path().join("client.log");
        let client = Program::start(&path, &args, Some(host), None, &log)?;
        client.wait(Duration::from_secs(seconds) + AFTERMATH)?;
        Ok(begin_ns..clock::wall_now())
    }

    /// The line is slow, or loses packets upward, although nobody uses it.
    #[must_use]
    pub fn trouble(&self, cause: Cause, time: Duration) -> Episode {
        let [up, _] = PLAN;
        let (delay_ns, loss_ppm) = match cause {
            Cause::LossWithoutLoad => (up.delay_ns, 200_000),
            _ => (up.delay_ns + 120 * MS, 0),
        };
        let bad = Direction {
            delay_ns,
            loss_ppm,
            ..up.clone()
        };
        self.home.links[0].change(Way::Up, bad);
        let during = self.pass(time).during;
        self.home.links[0].change(Way::Up, up);
        Episode { cause, during }
    }

    /// Nothing happens.
    #[must_use]
    pub fn pass(&self, time: Duration) -> Episode {
        let begin_ns = clock::wall_now();
        std::thread::sleep(time);
        Episode {
            cause: Cause::Nothing,
            during: begin_ns..clock::wall_now(),
        }
    }

    /// What the line carried.
    ///
    /// # Errors
    /// Where its log does not have everything.
    pub fn carried(&self) -> Result<Vec<Bin>, Fail> {
        let link = &self.home.links[0];
        if link.missed() > 0 {
            return Err(Fail::Failed(format!(
                "the line missed {} packets",
                link.missed()
            )));
        }
        Ok(link.bins())
    }
}
