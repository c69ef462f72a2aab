//! A house with a router, on which the daemon runs, and somebody else in it.
//!
//! ```text
//! pc eth0 ── home0  client (the router)  wan0 ── emulated line ── lan0  server: reflector, iperf3
//! ```

use std::ffi::OsStr;
use std::io;
use std::time::Duration;

use bufferbane_linux_io::clock;
use tempfile::TempDir;

use super::super::Fail;
use super::super::child::{Program, installed};
use super::super::setup::wait_until;
use super::judge::{Cause, Episode};
use crate::home::Home;
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
        let (home, pc) = Self::build().map_err(|e| Fail::of("a house", e))?;
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
            home,
            dir,
        })
    }

    fn build() -> io::Result<(Home, Namespace)> {
        let [up, down] = &PLAN;
        let home = Home::new(1, up, down, 11)?;
        let pc = Namespace::new("pc")?;
        let router = &home.client;
        pc.cable("eth0", router, "home0")?;
        pc.ip(&["addr", "add", "192.168.1.2/24", "dev", "eth0"])?;
        router.ip(&["addr", "add", "192.168.1.1/24", "dev", "home0"])?;
        router.forward()?;
        pc.ip(&["route", "add", "default", "via", "192.168.1.1"])?;
        let back = ["route", "add", "192.168.1.0/24", "via", "10.77.0.1"];
        home.server.ip(&back)?;
        Ok((home, pc))
    }

    /// Somebody loads the line one way, for so many seconds, with cubic as most senders have it.
    ///
    /// # Errors
    /// Where iperf3 did not run to its end.
    pub fn load(&self, way: Way, seconds: u64, streams: u32) -> Result<Episode, Fail> {
        let (time, streams) = (seconds.to_string(), streams.to_string());
        let mut args = vec!["-c", IPERF3, "-t", &time, "-P", &streams, "-C", "cubic"];
        let cause = match way {
            Way::Up => Cause::Upload,
            Way::Down => {
                args.push("-R");
                Cause::Download
            }
        };
        let args: Vec<&OsStr> = args.into_iter().map(OsStr::new).collect();
        let path = installed("iperf3", "iperf3")?;
        let begin_ns = clock::wall_now();
        let log = self.dir.path().join("client.log");
        let client = Program::start(&path, &args, Some(&self.pc), None, &log)?;
        client.wait(Duration::from_secs(seconds) + AFTERMATH)?;
        Ok(Episode {
            cause,
            during: begin_ns..clock::wall_now(),
        })
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
