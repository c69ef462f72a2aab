//! `bufferbaned` as a child of the test, what it says, and what is in its store.

#![allow(unreachable_pub, reason = "pub is what every module of tests may use")]

pub mod links;
#[path = "../../../../reflector/tests/common/memory.rs"]
pub mod memory;
pub mod refuse;
pub mod web;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bufferbane_config::keyfile;
use bufferbane_core::sample::Status;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_linux_io::{Family, host};
use bufferbane_reflector::{Running, config as reflector};
use bufferbane_store::{Filter, Reader, Row};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_bufferbaned");
/// The most that anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Says loudly that a test cannot run here; where everything has to run, that is a failure.
pub fn skipped(why: &str) {
    // Not by a macro, whose output a passing test keeps to itself.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("SKIPPED: {why}\n").as_bytes(),
    );
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
}

/// Set for the copy of a test that runs in namespaces of its own: a file it makes to show that it ran.
const INSIDE: &str = "BUFFERBANE_TEST_NAMESPACE";

/// Runs the named test of this module (`module_path!()`) again in a network and a mount namespace; true in the copy.
pub fn inside_namespaces(module: &str, test: &str) -> bool {
    if let Some(shown) = std::env::var_os(INSIDE) {
        std::fs::write(shown, "").unwrap();
        return true;
    }
    let mut unshare = vec!["--net", "--mount"];
    if !nix::unistd::geteuid().is_root() {
        unshare.push("--map-root-user");
    }
    if Command::new("ip").arg("-V").output().is_err() {
        skipped("no ip command (iproute2)");
        return false;
    }
    let tried = Command::new("unshare").args(&unshare).arg("true").output();
    if !tried.is_ok_and(|o| o.status.success()) {
        skipped("unshare (util-linux) cannot make network and mount namespaces for this user");
        return false;
    }
    let (_, module) = module.split_once("::").unwrap();
    let name = format!("{module}::{test}");
    let dir = tempfile::tempdir().unwrap();
    let shown = dir.path().join("ran");
    let status = Command::new("unshare")
        .args(&unshare)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, &shown)
        .status()
        .unwrap();
    assert!(status.success(), "the copy in the namespaces failed");
    assert!(shown.exists(), "no test is called {name}");
    false
}

/// Runs `ip`, which has to succeed.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.is_ok_and(|s| s.success()), "ip {arguments}");
}

/// What a service tells systemd, read at once, as systemd does.
pub struct Systemd {
    pub socket: PathBuf,
    told: Receiver<String>,
}

impl Systemd {
    pub fn new(dir: &Path) -> Self {
        let socket = dir.join("notify");
        let listen = UnixDatagram::bind(&socket).unwrap();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(len) = listen.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
                if tell.send(text).is_err() {
                    return;
                }
            }
        });
        Self { socket, told }
    }

    /// The next message with this in it.
    pub fn wait_for(&self, what: &str) -> String {
        loop {
            let said = self.told.recv_timeout(PATIENCE).expect(what);
            if said.contains(what) {
                return said;
            }
        }
    }

    /// Whether something with this comes within `time`.
    pub fn hears(&self, what: &str, time: Duration) -> bool {
        let until = Instant::now() + time;
        while let Ok(said) = self
            .told
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            if said.contains(what) {
                return true;
            }
        }
        false
    }
}

/// A reflector for one client.
fn serve(listen: SocketAddr, key: PresharedKey) -> Running {
    Running::start(&reflector::Config {
        listen: vec![listen],
        control_socket: None,
        clients: vec![reflector::Client {
            name: "child".into(),
            keys: vec![key],
            max_pps: 10_000,
            max_rate_bps: Some(50_000_000),
            daily_bytes: None,
            tcp_prefixes: Vec::new(),
        }],
        ..reflector::Config::default()
    })
    .unwrap()
}

/// A place of its own with a key, a reflector, and a configuration that probes it over loopback.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub reflector: Option<Running>,
    pub address: SocketAddr,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = PresharedKey {
            id: KeyId(*b"as-child"),
            secret: Secret::new([7; 32]),
        };
        keyfile::write_new(&dir.path().join("far.key"), &key).unwrap();
        let running = serve(([127, 0, 0, 1], 0).into(), key);
        let address = running.listen()[0];
        let place = Self {
            dir,
            reflector: Some(running),
            address,
        };
        place.configure(&place.usual("5ms"));
        place
    }

    /// Another place, whose daemon goes to the same reflector with the same key.
    pub fn beside(other: &Self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(other.path("far.key"), dir.path().join("far.key")).unwrap();
        Self {
            dir,
            reflector: None,
            address: other.address,
        }
    }

    /// Its reflector is gone, and others are to be asked.
    pub fn lose_reflector(&mut self) {
        self.reflector.take().unwrap().stop().unwrap();
    }

    /// In its place there is one in the network namespace of that process, at that address.
    pub fn move_reflector(&mut self, process: u32, listen: SocketAddr) {
        self.lose_reflector();
        let key = keyfile::read(&self.path("far.key")).unwrap();
        let enter = move || {
            let there = std::fs::File::open(format!("/proc/{process}/ns/net")).unwrap();
            setns(there, CloneFlags::CLONE_NEWNET).unwrap();
            serve(listen, key)
        };
        // Only that thread, and those that it starts, are elsewhere.
        self.reflector = Some(std::thread::spawn(enter).join().unwrap());
        self.address = listen;
    }

    /// It is back where it was.
    pub fn regain_reflector(&mut self) {
        let key = keyfile::read(&self.path("far.key")).unwrap();
        self.reflector = Some(serve(self.address, key));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("s.redb")
    }

    pub fn file(&self) -> PathBuf {
        self.path("d.toml")
    }

    /// Store and control socket in this place, and loopback as the only interface.
    pub fn head(&self) -> String {
        format!(
            "[daemon]\nstore = \"{}\"\ncontrol_socket = \"{}\"\ncommit_interval = \"1s\"\n\
             [retention]\nmin_free = \"1MiB\"\n[[interface]]\nname = \"lo\"\n",
            self.store().display(),
            self.path("control").display()
        )
    }

    /// With the reflector and, where this user may ping, an address of this host.
    pub fn usual(&self, interval: &str) -> String {
        let mut text = self.head();
        text += &format!(
            "[[reflector]]\nname = \"far\"\naddress = \"{}\"\nkey_file = \"far.key\"\n\
             interval = \"{interval}\"\n",
            self.address
        );
        let access = host::icmp_access(Family::V4);
        if access.ping || access.raw {
            text += &format!(
                "[[target]]\nname = \"self\"\nkind = \"icmp\"\naddress = \"127.0.0.1\"\n\
                 interval = \"{interval}\"\n"
            );
            text
        } else {
            format!("target = []\n{text}")
        }
    }

    pub fn configure(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
    }

    pub fn start(&self) -> Service {
        Service::start(self, None)
    }

    /// Its answer to one command over the control socket.
    pub fn ask(&self, command: &str) -> std::io::Result<Value> {
        let mut stream = self.send(command)?;
        let mut line = String::new();
        BufReader::new(&mut stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Sends a command, and leaves the answer where it is.
    pub fn send(&self, command: &str) -> std::io::Result<UnixStream> {
        let mut stream = UnixStream::connect(self.path("control"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{{\"cmd\":\"{command}\"}}\n").as_bytes())?;
        Ok(stream)
    }

    pub fn status(&self) -> Value {
        let mut answer = self.ask("status").unwrap();
        assert_eq!(answer["ok"], true, "{answer}");
        answer["status"].take()
    }

    /// What `status` says as soon as it is such that `right` agrees.
    pub fn status_with(&self, what: &str, right: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        loop {
            let status = self.status();
            if right(&status) {
                return status;
            }
            assert!(begin.elapsed() < PATIENCE, "no {what}: {status:#}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Probes that the daemon counts as sent since it started.
pub fn sent(status: &Value) -> u64 {
    let series = status["series"].as_array().unwrap();
    series
        .iter()
        .map(|s| s["total"]["sent"].as_u64().unwrap())
        .sum()
}

/// A running `bufferbaned`.
pub struct Service {
    pub child: Child,
    lines: Receiver<String>,
    /// All it has said as far as it was looked at.
    pub said: Vec<String>,
}

impl Service {
    /// Starts it; it may not be ready yet.
    pub fn start(place: &Place, notify: Option<&Path>) -> Self {
        Self::start_with(&["--config".as_ref(), place.file().as_os_str()], notify)
    }

    /// Starts it with the configuration that it finds by itself.
    pub fn start_without_file() -> Self {
        Self::start_with(&[], None)
    }

    fn start_with(arguments: &[&OsStr], notify: Option<&Path>) -> Self {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .stderr(Stdio::piped())
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("BUFFERBANE_LOG");
        if let Some(path) = notify {
            command
                .env("NOTIFY_SOCKET", path)
                .env("WATCHDOG_USEC", "3000000");
        }
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            lines,
            said: Vec::new(),
        }
    }

    /// Reads its log until there is a line with this.
    pub fn line(&mut self, with: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("it did not say {with:?} but {:#?}", self.said);
            };
            self.said.push(line.clone());
            if line.contains(with) {
                return line;
            }
        }
    }

    pub fn ready(mut self) -> Self {
        self.line("is ready");
        self
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).unwrap();
    }

    /// Kills it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as systemd does; gives its exit code and how long that took.
    pub fn end(mut self) -> (Option<i32>, Duration) {
        let begin = Instant::now();
        self.signal(Signal::SIGTERM);
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), begin.elapsed());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Only where a test failed half-way: an ended child can neither be killed nor waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .env_remove("JOURNAL_STREAM")
        .output()
        .unwrap()
}

/// A row's series, boot, number and send time: what tells it from every other.
pub type RowId = (u32, u32, u64, u64);

pub fn rows(reader: &Reader) -> Vec<Row> {
    let filter = Filter {
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        series: reader.series().unwrap().into_keys().collect(),
    };
    reader.samples(&filter).map(Result::unwrap).collect()
}

pub fn ids(rows: &[Row]) -> BTreeSet<RowId> {
    rows.iter()
        .map(|r| {
            let sample = &r.sample;
            (r.series.0, r.boot, sample.seq, sample.sent.as_nanos())
        })
        .collect()
}

/// How many of the rows are probes sent at or after `since_ns` of the monotonic clock.
pub fn sent_since(rows: &[Row], since_ns: u64) -> u64 {
    let counts = |r: &&Row| {
        let s = &r.sample;
        s.sent.as_nanos() >= since_ns && !matches!(s.status, Status::Unsent | Status::Duplicate)
    };
    rows.iter().filter(counts).count() as u64
}

/// Reads a store that may have been left behind uncleanly, and checks it.
pub fn reopen(path: &Path) -> Reader {
    bufferbane_store::recover(path).unwrap_or_else(|e| panic!("{e}"));
    let reader = Reader::open(path).unwrap_or_else(|e| panic!("{e}"));
    reader.check().unwrap_or_else(|e| panic!("{e}"));
    reader
}

/// Repeatable chance: xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
}
