//! The receiver, and a connection of a router to it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::super::child::{Memory, Program, installed};
use super::super::super::setup::{Bench, last_line, wait_until};
use super::{Fail, PATIENCE};

/// Merging begins in the background, this long after it was asked for at most.
const BEGINS_MERGING: Duration = Duration::from_secs(1);
/// Routers that are asked about at a time: all whose numbers, of eight digits, differ in the last two.
const ASKED_AT_ONCE: usize = 100;

/// What a receiver has left on its disk, bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    pub(super) data: u64,
    pub(super) index: u64,
}

/// A VictoriaMetrics that ends with this.
#[derive(Debug)]
pub(super) struct Receiver {
    program: Program,
    at: SocketAddr,
    dir: PathBuf,
}

impl Receiver {
    /// Starts one with an empty store of this name.
    pub(super) fn start(bench: &Bench, name: &str) -> Result<Self, Fail> {
        let dir = bench.path(name);
        // Port 0 would be one that nobody is told of.
        let at = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .map_err(|e| Fail::of("a free TCP port", e))?;
        let args = [
            format!("-storageDataPath={}", dir.display()),
            format!("-httpListenAddr={at}"),
            "-loggerLevel=ERROR".to_owned(),
            // Answers are of all that has come.
            "-search.latencyOffset=0s".to_owned(),
        ];
        let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        let log = bench.path(&format!("{name}.log"));
        let program = installed("victoria-metrics", "victoria-metrics")?;
        let program = Program::start(&program, &args, None, None, &log)?;
        let receiver = Self { program, at, dir };
        wait_until(|| receiver.get("/health").is_ok());
        receiver
            .get("/health")
            .map_err(|_| Fail::of("victoria-metrics did not become ready", last_line(&log)))?;
        Ok(receiver)
    }

    /// CPU time that it has taken, ns.
    pub(super) fn cpu_ns(&self) -> Result<u64, Fail> {
        self.program.cpu_ns()
    }

    pub(super) fn memory(&self) -> Result<Memory, Fail> {
        self.program.memory()
    }

    /// Connects a router.
    pub(super) fn connect(&self) -> Result<Connection, Fail> {
        let open = || {
            let stream = TcpStream::connect(self.at)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        open()
            .map(|stream| Connection(BufReader::new(stream)))
            .map_err(|e: std::io::Error| Fail::of("a connection to the receiver", e))
    }

    /// How many samples it has of each router, within so many seconds before `at_s` since 1970.
    pub(super) fn samples(
        &self,
        routers: usize,
        at_s: u64,
        seconds: u64,
    ) -> Result<BTreeMap<String, usize>, Fail> {
        self.get("/internal/force_flush")?;
        let mut samples = BTreeMap::new();
        for hundred in 0..routers.div_ceil(ASKED_AT_ONCE) {
            let query = format!(
                "sum by (instance) (count_over_time({{instance=~\"router-{hundred:06}..\"}}[{seconds}s]))"
            );
            let path = format!(
                "/api/v1/query?nocache=1&time={at_s}&query={}",
                encoded(&query)
            );
            samples.extend(counts(&self.get(&path)?)?);
        }
        Ok(samples)
    }

    /// Has it merge what it holds, ends it, and looks at what it leaves.
    pub(super) fn end(self) -> Result<Disk, Fail> {
        self.get("/internal/force_merge")?;
        std::thread::sleep(BEGINS_MERGING);
        let begun = Instant::now();
        while !self
            .get("/metrics")?
            .lines()
            .any(|l| l == "vm_active_force_merges 0")
        {
            if begun.elapsed() > PATIENCE {
                return Err(Fail::Failed("the receiver is not done merging".into()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.program.stop();
        let index = self.dir.join("indexdb");
        Ok(Disk {
            data: bytes_under(&self.dir.join("data"))?,
            index: bytes_under(&index)?,
        })
    }

    /// The body of its answer.
    fn get(&self, path: &str) -> Result<String, Fail> {
        let failed = |e: std::io::Error| Fail::of(format!("asking the receiver for {path}"), e);
        let mut stream = TcpStream::connect(self.at).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        // An answer of 1.0 comes in one piece and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(failed)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.lines().next().unwrap_or("it hung up");
        if !status.contains(" 200 ") {
            return Err(Fail::of(
                format!("the receiver, asked for {path}"),
                format!("{status} {}", body.trim_end()),
            ));
        }
        Ok(body.to_owned())
    }
}

/// The instances of an answer, and their values.
fn counts(answer: &str) -> Result<BTreeMap<String, usize>, Fail> {
    let strange = || Fail::of("the receiver's answer", answer);
    let answer: Value = serde_json::from_str(answer).map_err(|_| strange())?;
    let rows = answer["data"]["result"].as_array().ok_or_else(strange)?;
    rows.iter()
        .map(|row| {
            let instance = row["metric"]["instance"].as_str().ok_or_else(strange)?;
            let value = row["value"][1].as_str().and_then(|v| v.parse().ok());
            Ok((instance.to_owned(), value.ok_or_else(strange)?))
        })
        .collect()
}

/// A query within a URL.
fn encoded(query: &str) -> String {
    query.bytes().map(|b| format!("%{b:02X}")).collect()
}

/// What the files under `dir` take.
fn bytes_under(dir: &Path) -> Result<u64, Fail> {
    let failed = |e: std::io::Error| Fail::of(dir.display(), e);
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        bytes += if metadata.is_dir() {
            bytes_under(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}

/// A router's connection, which stays open.
#[derive(Debug)]
pub(super) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Posts a batch; the bytes that went out, with the head of the request.
    pub(super) fn post(&mut self, body: &[u8]) -> Result<u64, Fail> {
        let head = format!(
            "POST /api/v1/write HTTP/1.1\r\nHost: receiver\r\nUser-Agent: bufferbane\r\n\
             Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
             X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        let failed = |e: std::io::Error| Fail::of("posting to the receiver", e);
        self.0.get_mut().write_all(&request).map_err(failed)?;
        let (mut first, mut line) = (String::new(), String::new());
        self.0.read_line(&mut first).map_err(failed)?;
        // An answer of 204 has no body.
        if !first.starts_with("HTTP/1.1 204") {
            return Err(Fail::of("the receiver", first.trim_end()));
        }
        while line != "\r\n" {
            line.clear();
            if self.0.read_line(&mut line).map_err(failed)? == 0 {
                return Err(Fail::of("the receiver", "it hung up"));
            }
        }
        Ok(request.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_query_are_read_and_others_refused() {
        let answer = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"instance":"router-00000001"},"value":[1790000000,"6600"]},
            {"metric":{"instance":"router-00000002"},"value":[1790000000,"6599"]}]}}"#;
        let expected = [("router-00000001", 6600), ("router-00000002", 6599)];
        let expected = expected.map(|(name, n)| (name.to_owned(), n));
        assert_eq!(counts(answer).unwrap(), expected.into());
        for strange in [
            "",
            "{}",
            r#"{"data":{"result":[{"metric":{},"value":[1,"2"]}]}}"#,
        ] {
            assert!(counts(strange).is_err(), "{strange}");
        }
    }

    #[test]
    fn a_query_is_encoded_as_a_whole() {
        assert_eq!(encoded("a{b=\"~1\"}"), "%61%7B%62%3D%22%7E%31%22%7D");
    }
}
