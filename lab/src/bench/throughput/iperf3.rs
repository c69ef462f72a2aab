//! Debian's iperf3, a process at each end.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::Value;
use tempfile::TempDir;

use super::super::Fail;
use super::super::child::{Program, Streams};
use super::{CLIENT_CPU, Round, SERVER, SERVER_CPU, Shape, Site};

const PORT: u16 = 5201;
const PATIENCE: Duration = Duration::from_secs(10);
/// The server tidies up after a client has its result.
const AFTERMATH: Duration = Duration::from_millis(200);

/// Its server, which runs.
pub(super) struct Iperf3 {
    program: PathBuf,
    server: Program,
    dir: TempDir,
}

impl Iperf3 {
    /// Starts the server.
    pub(super) fn start(program: &Path, site: &Site) -> Result<Self, Fail> {
        let dir = tempfile::Builder::new()
            .prefix("bufferbane-lab-")
            .tempdir()
            .map_err(|e| Fail::of("a temporary directory", e))?;
        let bind = SERVER.to_string();
        let args = ["-s", "-B", &bind].map(OsStr::new);
        let log = dir.path().join("server.log");
        let mut server =
            Program::start(program, &args, Some(&site.server), Some(SERVER_CPU), &log)?;
        let sockets = format!("/proc/{}/net/tcp", server.id());
        let listens = format!(":{PORT:04X} 00000000:0000 0A");
        let begun = Instant::now();
        while !std::fs::read_to_string(&sockets).is_ok_and(|s| s.contains(&listens)) {
            if !server.runs() || begun.elapsed() > PATIENCE {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(Fail::of(
                    "the server of iperf3 does not listen",
                    said.trim(),
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            program: program.to_owned(),
            server,
            dir,
        })
    }

    /// Runs a client to its end.
    pub(super) fn round(&self, site: &Site, shape: Shape) -> Result<Round, Fail> {
        let (server, seconds) = (SERVER.to_string(), shape.time.as_secs().to_string());
        let streams = shape.streams.to_string();
        let mut args = vec!["-J", "-c", &server, "-t", &seconds, "-P", &streams];
        args.extend(["-C", shape.congestion]);
        args.extend((!shape.up).then_some("-R"));
        let args: Vec<&OsStr> = args.into_iter().map(OsStr::new).collect();
        let output = self.dir.path().join("client.json");
        let log = self.dir.path().join("client.log");
        let streams = Streams {
            log: &log,
            output: Some(&output),
        };
        let (client_before, server_before) = (ended_children_s()?, self.server.cpu_ns()?);
        let inside = Some(&site.client);
        Program::start_with(&self.program, &args, inside, Some(CLIENT_CPU), streams)?
            .wait(shape.time + PATIENCE)?;
        std::thread::sleep(AFTERMATH);
        let client_s = ended_children_s()? - client_before;
        let server_s = (self.server.cpu_ns()? - server_before) as f64 / 1e9;
        let text = std::fs::read_to_string(&output).map_err(|e| Fail::of(output.display(), e))?;
        let said: Value =
            serde_json::from_str(&text).map_err(|e| Fail::of("what iperf3 said", e))?;
        if let Some(error) = said["error"].as_str() {
            return Err(Fail::of("iperf3", error));
        }
        let used = &said["end"]["sender_tcp_congestion"];
        if used != shape.congestion {
            let why = format!("{used} instead of {}", shape.congestion);
            return Err(Fail::of("iperf3 used", why));
        }
        let received = &said["end"]["sum_received"];
        let number = |key: &str| {
            let missing = || Fail::Failed(format!("iperf3 did not say end.sum_received.{key}"));
            received[key].as_f64().ok_or_else(missing)
        };
        let (sender_s, receiver_s) = if shape.up {
            (client_s, server_s)
        } else {
            (server_s, client_s)
        };
        Ok(Round {
            bits_per_second: number("bits_per_second")?,
            bits: number("bytes")? * 8.0,
            sender_s,
            receiver_s,
            both_s: sender_s + receiver_s,
        })
    }
}

/// CPU time of all programs started here that have ended, s.
fn ended_children_s() -> Result<f64, Fail> {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| Fail::of("getrusage", e))?;
    let all = used.user_time() + used.system_time();
    Ok(all.num_microseconds() as f64 / 1e6)
}
