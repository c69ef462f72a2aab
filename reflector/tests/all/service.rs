//! The program as it is installed: configuration, signals, control socket, exit codes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Prober, key, key_file, memory, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bufferbane-reflector");

fn write_config(dir: &Path, port: u16, keys: &[u8]) -> PathBuf {
    let mut text = format!(
        "[reflector]\nlisten = \"127.0.0.1:{port}\"\ncontrol_socket = \"{}\"\n",
        dir.join("control").display()
    );
    for n in keys {
        text += &format!("[[client]]\nname = \"c{n}\"\nkey_file = \"{n}.key\"\n");
    }
    let file = dir.join("r.toml");
    std::fs::write(&file, text).unwrap();
    file
}

struct Service {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Service {
    fn start(file: &Path, notify: Option<&Path>) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(file).stderr(Stdio::piped());
        command.env_remove("JOURNAL_STREAM");
        if let Some(path) = notify {
            command
                .env("NOTIFY_SOCKET", path)
                .env("WATCHDOG_USEC", "300000");
        }
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut service = Self {
            child,
            stderr,
            address: ([127, 0, 0, 1], 0).into(),
        };
        let ready = service.line("ready on UDP ");
        let address = ready.split("ready on UDP ").nth(1).unwrap();
        service.address = address.split(',').next().unwrap().parse().unwrap();
        service
    }

    /// Reads its log until there is a line with this.
    fn line(&mut self, with: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let len = self.stderr.read_line(&mut line).unwrap();
            assert!(len > 0, "it ended before it said {with:?}");
            if line.contains(with) {
                return line.trim_end().to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).unwrap();
    }

    fn end(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Only where a test failed half-way: an ended child can neither be killed nor waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

const NET_ADMIN: u64 = 1 << 12;

/// What each of a program's threads may do, by name; of those that have ended, nothing.
fn permitted(pid: u32) -> BTreeMap<String, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("status")).ok());
    status
        .map(|status| {
            let value = |key: &str| {
                let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
                line.trim().to_owned()
            };
            let bits = u64::from_str_radix(&value("CapPrm:"), 16).unwrap();
            (value("Name:"), bits)
        })
        .collect()
}

#[test]
fn threads_give_up_what_they_may_beyond_an_ordinary_user() {
    if !permitted(std::process::id())
        .values()
        .any(|b| b & NET_ADMIN > 0)
    {
        return skip("this user has nothing to give up");
    }
    let dir = tempfile::tempdir().unwrap();
    key_file(dir.path(), 1);
    // Binding below 1024 takes a capability, which the thread of the tests has no longer than that.
    let file = write_config(dir.path(), 1021, &[1]);
    let service = Service::start(&file, None);
    let begun = Instant::now();
    let held = loop {
        let held = permitted(service.child.id());
        if held["streams"] == NET_ADMIN || begun.elapsed() > Duration::from_secs(10) {
            break held;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!((held["echo"], held["streams"]), (0, NET_ADMIN));
    let asked = run(&["--config", file.to_str().unwrap(), "--status", "--json"]);
    let status: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(status["tests"]["trouble"], "", "{status}");
    assert_eq!(service.end(), Some(0));
}

#[test]
fn it_serves_tells_reloads_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    (1..=2).for_each(|n| drop(key_file(dir.path(), n)));
    let file = write_config(dir.path(), 0, &[1]);
    let file_name = file.to_str().unwrap();
    let systemd = dir.path().join("notify");
    let notified = UnixDatagram::bind(&systemd).unwrap();
    // Read at once, as systemd does: whoever notifies waits while the socket is full.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 500];
        while let Ok(len) = notified.recv(&mut buffer) {
            if tell.send(text(&buffer[..len]).to_owned()).is_err() {
                return;
            }
        }
    });
    let mut service = Service::start(&file, Some(&systemd));
    let wait_for = |what: &str| {
        let five = Duration::from_secs(5);
        while !told.recv_timeout(five).expect(what).contains(what) {}
    };
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    wait_for("STATUS=0 sessions");

    let mut prober = Prober::new(key(1), service.address);
    prober.run(Duration::from_millis(500));
    assert!(prober.is_answering());
    let asked = run(&["--config", file_name, "--status", "--json"]);
    let status: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(asked.status.code(), Some(0));
    assert_eq!(status["sessions"], 1);
    assert_eq!(status["clients"][0]["name"], "c1");
    let asked = run(&["--config", file_name, "--status"]);
    assert!(text(&asked.stdout).contains("client c1: "), "{asked:?}");

    // Who says nothing, or nonsense, keeps nobody waiting for long.
    let silent = UnixStream::connect(dir.path().join("control")).unwrap();
    let mut rude = UnixStream::connect(dir.path().join("control")).unwrap();
    rude.write_all(b"hello\n").unwrap();
    let mut answer = String::new();
    BufReader::new(rude).read_line(&mut answer).unwrap();
    assert!(answer.contains("\"ok\":false"), "{answer}");
    drop(silent);

    // A wrong file changes nothing, and says so.
    std::fs::write(&file, "[reflektor]\n").unwrap();
    service.signal(Signal::SIGHUP);
    assert!(service.line("reflektor").contains("did you mean"));
    service.line("the old configuration runs on");
    // The port is what it was, so that nothing takes a restart but its number.
    write_config(dir.path(), service.address.port(), &[2, 1]);
    service.signal(Signal::SIGHUP);
    service.line("reflector.listen has changed");
    service.line("configuration read again: 2 clients");
    wait_for("RELOADING=1");
    wait_for("READY=1");
    prober.run(Duration::from_millis(500));
    assert_eq!(prober.events.len(), 2, "{:?}", prober.events);
    let mut new = Prober::new(key(2), service.address);
    new.run(Duration::from_millis(500));
    assert!(new.is_answering());

    assert_eq!(service.end(), Some(0));
    assert!(!dir.path().join("control").exists());
    let asked = run(&["--config", file_name, "--status"]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("is it running?"), "{asked:?}");
}

#[test]
fn a_key_is_rotated_with_two_files_and_two_signals() {
    let dir = tempfile::tempdir().unwrap();
    (1..=2).for_each(|n| drop(key_file(dir.path(), n)));
    let mut port = 0;
    let configure = |port: u16, files: &str| {
        let file = write_config(dir.path(), port, &[]);
        let mut text = std::fs::read_to_string(&file).unwrap();
        text += &format!("[[client]]\nname = \"home\"\nkey_files = [{files}]\n");
        std::fs::write(&file, text).unwrap();
        file
    };
    let file = configure(port, "\"1.key\"");
    let mut service = Service::start(&file, None);
    port = service.address.port();
    let half = Duration::from_millis(500);
    let (mut old, mut new) = (
        Prober::new(key(1), service.address),
        Prober::new(key(2), service.address),
    );
    old.run(half);
    new.run(half);
    assert!(old.is_answering() && !new.is_answering());

    configure(port, "\"2.key\", \"1.key\"");
    service.signal(Signal::SIGHUP);
    service.line("configuration read again: 1 client");
    old.run(half);
    new.run(Duration::from_secs(2));
    assert!(old.is_answering() && new.is_answering(), "both are good");
    let asked = run(&["--config", file.to_str().unwrap(), "--status", "--json"]);
    let status: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(status["clients"].as_array().unwrap().len(), 1, "{status:#}");
    assert_eq!(
        status["clients"][0]["sessions"].as_array().unwrap().len(),
        2
    );

    configure(port, "\"2.key\"");
    service.signal(Signal::SIGHUP);
    service.line("configuration read again: 1 client");
    if nix::unistd::geteuid().is_root() {
        let [old, new] = [key(1), key(2)].map(|k| *k.secret.reveal());
        let pid = service.child.id();
        assert!(memory::holds(pid, &new).unwrap(), "this would see it");
        assert_eq!(memory::forgets(pid, &old).unwrap(), 0);
        let knock = *key(1).knock_key().reveal();
        assert_eq!(memory::forgets(pid, &knock).unwrap(), 0);
    } else {
        skip("only root is sure to be let into another process's memory");
    }
    new.run(half);
    old.run(Duration::from_secs(2));
    assert!(
        new.is_answering() && !old.is_answering(),
        "the old one is gone"
    );
    assert_eq!(service.end(), Some(0));
}

#[test]
fn a_port_that_is_taken_and_a_socket_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), 0, &[]);
    let mut first = Service::start(&file, None);
    // As after a power cut: the file is there, and nobody answers.
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    assert!(dir.path().join("control").exists());
    write_config(dir.path(), first.address.port(), &[]);
    let again = Service::start(&file, None);
    assert_eq!(again.address, first.address);
    let second = run(&["--config", file.to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let said = text(&second.stderr);
    assert!(said.contains("another program has this port"), "{said}");
    assert_eq!(again.end(), Some(0));
}

#[test]
fn wrong_usage_and_wrong_configurations_are_told_apart_from_failures() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("r.toml");
    std::fs::write(&file, "[limits]\nsession = 1\n[[client]]\nname = 3\n").unwrap();
    let checked = run(&["--config", file.to_str().unwrap(), "--check"]);
    assert_eq!(checked.status.code(), Some(2));
    let said = text(&checked.stderr);
    assert!(
        said.contains("r.toml:2:1: limits.session: unknown key"),
        "{said}"
    );
    assert!(said.contains("r.toml:4:1: client.name: "), "{said}");
    let started = run(&["--config", file.to_str().unwrap()]);
    assert_eq!(started.status.code(), Some(2));
    assert_eq!(run(&["--config", "/nowhere"]).status.code(), Some(2));
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    let version = run(&["--version"]);
    assert!(text(&version.stdout).starts_with("bufferbane-reflector 0."));
}
