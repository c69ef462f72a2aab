//! One line: its two ends, what happens on it, and what the report says.

use std::io::Read;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bufferbane_config::keyfile;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_lab::home::{self, Home, Layout};
use bufferbane_lab::link::{Direction, Way};
use bufferbane_lab::netns::Namespace;
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config as ReflectorConfig};
use bufferbaned::Daemon;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::truth;
use super::{BERLIN, CLOUDFLARE, QUAD9, VIENNA};

const PORT: u16 = 9876;
const RESOLVER: &str = "10.99.0.3";
/// UDP payload of a probe, and bytes of an ICMP message.
pub(super) const PROBE_BYTES: u16 = 128;
/// How long a line is well before its trouble, and how long it runs. Everything of a moment is decided six seconds
/// later, but for the end of loss, which takes longer to be sure of.
const CALM: Duration = Duration::from_secs(8);
const WHOLE: Duration = Duration::from_secs(86);
/// So long it is well where its ways have to be known first: they are walked from the tenth second on.
const WALKED: Duration = Duration::from_secs(22);
/// Of far hosts.
const HOSTS: [(&str, &str); 4] = [
    ("quad9", QUAD9),
    ("cloudflare", CLOUDFLARE),
    ("vienna", VIENNA),
    ("berlin", BERLIN),
];
/// Of a host without time: it stands still for so long, and then runs for so long.
const STILL: [Duration; 2] = [Duration::from_millis(400), Duration::from_millis(1_600)];

/// Where a line is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Behind the gateway.
    Access,
    /// Between the host and the gateway.
    House,
    /// The same twice, of which the first is a radio link.
    RadioAndWire,
}

/// What happens.
#[derive(Clone, Copy)]
pub(super) enum Trouble {
    None,
    /// The line does this to packets beside what it always does.
    Line {
        up: &'static str,
        down: &'static str,
    },
    /// The resolver answers that it cannot.
    Resolver,
    /// The daemon's host gives it no time.
    Host,
}

/// See [`super::LINES`].
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) trouble: Trouble,
    /// How long that lasts.
    pub(super) seconds: u64,
    /// All causes that have to be named, the first one first, each with its direction, or without one.
    pub(super) causes: &'static [(&'static str, &'static str)],
    /// At which hop what one target suffers from starts, where it has to be told: then its way is walked while it is well.
    pub(super) starts_at: Option<u64>,
}

impl Line {
    pub(super) const fn new(
        name: &'static str,
        trouble: Trouble,
        seconds: u64,
        causes: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self {
            name,
            place: Place::Access,
            trouble,
            seconds,
            causes,
            starts_at: None,
        }
    }

    fn uplinks(&self) -> usize {
        1 + usize::from(self.place == Place::RadioAndWire)
    }

    fn home(&self) -> Home {
        let place = match self.place {
            Place::Access => home::Place::BehindGateways,
            Place::House | Place::RadioAndWire => home::Place::InHouse,
        };
        let layout = Layout {
            uplinks: self.uplinks(),
            place,
            plan: [self.plan(""), self.plan("")],
            seed: 1100,
        };
        let home = Home::build(&layout).expect("a lab");
        home.lead_to(&[QUAD9, CLOUDFLARE]).expect("routes");
        home
    }

    /// What a direction does that does `more` than it always does.
    fn plan(&self, more: &str) -> Direction {
        let delay = match self.place {
            Place::Access => "8ms",
            Place::House | Place::RadioAndWire => "200us",
        };
        Direction::parse(&format!("delay={delay},{more}")).expect("a right plan")
    }

    /// The daemon's configuration, in `dir`.
    fn configuration(&self, dir: &Path) -> String {
        let store = dir.join("s.redb");
        let socket = dir.join("c.sock");
        let mut text = format!(
            "[daemon]\nstore = \"{}\"\ncontrol_socket = \"{}\"\n[retention]\nmin_free = \"0B\"\n[http]\nlisten = \"\"\n",
            store.display(),
            socket.display()
        );
        for i in 0..self.uplinks() {
            text += &format!("[[interface]]\nname = \"wan{i}\"\n");
            if self.place == Place::RadioAndWire {
                text += ["kind = \"wifi\"\n", "kind = \"wired\"\n"][i];
            }
        }
        if self.starts_at.is_some() {
            text += "[alerts]\ndiffers_for = \"30s\"\n";
        }
        let (pinged, reflectors) = HOSTS.split_at(2);
        for (name, host) in [("gateway", "gateway")].iter().chain(pinged) {
            text += &format!(
                "[[target]]\nname = \"{name}\"\nkind = \"icmp\"\naddress = \"{host}\"\ninterval = \"100ms\"\nsize = {PROBE_BYTES}\n"
            );
        }
        text += &format!(
            "[[target]]\nname = \"resolver\"\nkind = \"dns\"\naddress = \"{RESOLVER}\"\ninterval = \"1s\"\n"
        );
        for (name, host) in reflectors {
            text += &format!(
                "[[reflector]]\nname = \"{name}\"\naddress = \"{host}:{PORT}\"\nkey_file = \"lab.key\"\nsize = {PROBE_BYTES}\n"
            );
        }
        text
    }
}

/// A daemon in this process, or in one of its own, which can be made to stand still.
enum Host {
    Here(Box<Daemon>),
    Apart(Child),
}

impl Host {
    fn start(line: &Line, client: &Namespace, file: &Path) -> Self {
        if matches!(line.trouble, Trouble::Host) {
            let mut command = client.command(std::env::current_exe().expect("this program"));
            command
                .args(["--exact", "line::a_daemon_of_its_own", "--ignored"])
                .env(FILE, file)
                .stdin(Stdio::piped())
                .stdout(Stdio::null());
            return Self::Apart(command.spawn().expect("this program once more"));
        }
        let config = bufferbaned::config::load(file)
            .expect("a right file")
            .config;
        let daemon = client.spawn(move || Daemon::start(config, None));
        let daemon = daemon.expect("the client's namespace").join();
        Self::Here(Box::new(
            daemon.expect("no panic").expect("the daemon starts"),
        ))
    }

    fn stop(self) {
        match self {
            Self::Here(mut daemon) => daemon.stop(),
            Self::Apart(mut child) => {
                drop(child.stdin.take());
                assert!(child.wait().expect("it ends").success());
            }
        }
    }
}

/// Names the file of the daemon's configuration.
const FILE: &str = "BUFFERBANE_TEST_DAEMON";

#[test]
#[ignore = "the daemon of one of the lines, as a process of its own"]
fn a_daemon_of_its_own() {
    let Some(file) = std::env::var_os(FILE) else {
        println!(
            "{FILE} is not set: this is the daemon of a line, which the line's own test runs in a namespace"
        );
        return;
    };
    let config = bufferbaned::config::load(Path::new(&file)).expect("a right file");
    let mut daemon = Daemon::start(config.config, None).expect("the daemon starts");
    // Until whoever started it has closed it.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    daemon.stop();
}

fn key() -> PresharedKey {
    PresharedKey {
        id: KeyId(*b"verdicts"),
        secret: Secret::new([7; 32]),
    }
}

fn reflector(server: &Namespace) -> Running {
    let at = |host: &str| format!("{host}:{PORT}").parse().expect("an address");
    let config = ReflectorConfig {
        listen: vec![at(VIENNA), at(BERLIN)],
        control_socket: None,
        clients: vec![Client {
            name: "home".into(),
            keys: vec![key()],
            max_pps: 1000,
            max_rate_bps: None,
            daily_bytes: None,
            tcp_prefixes: Vec::new(),
        }],
        ..ReflectorConfig::default()
    };
    let started = server.spawn(move || Running::start(&config));
    let started = started.expect("the server's namespace").join();
    started.expect("no panic").expect("the reflector starts")
}

/// Answers every question with an address, or that it has failed, as long as `fails`.
fn resolver(server: &Namespace, fails: &Arc<AtomicBool>) {
    let fails = Arc::clone(fails);
    let bound = server.inside(|| UdpSocket::bind((RESOLVER, 53)).expect("a free port"));
    let socket = bound.expect("the server's namespace");
    std::thread::spawn(move || {
        let mut datagram = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut datagram) {
            let mut answer = datagram[..len].to_vec();
            if fails.load(Ordering::Relaxed) {
                answer[2..4].copy_from_slice(&[0x81, 0x82]);
            } else {
                answer[2..4].copy_from_slice(&[0x81, 0x80]);
                answer[7] = 1;
                // The name that was asked for, an address of the internet, for a minute.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80]);
            }
            // Whoever asked may be gone.
            let _ = socket.send_to(&answer, from);
        }
    });
}

/// What `bbtool report` says of a store.
pub(super) fn report(store: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_bbtool"))
        .args(["report", "--format", "json", "--store"])
        .arg(store)
        .output()
        .expect("bbtool runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The causes that a report names, each with its direction, or without one. That this host is too busy with all these
/// lines may be so, and is told of each.
pub(super) fn causes(report: &Value) -> Vec<(&str, &str)> {
    fn word<'a>(verdict: &'a Value, name: &str) -> &'a str {
        verdict[name].as_str().unwrap_or_default()
    }
    let verdicts = report["verdicts"].as_array().into_iter().flatten();
    let events = report["events"].as_array().into_iter().flatten();
    let mut kinds = events.map(|e| word(e, "kind"));
    let is_busy = kinds.any(|kind| kind == "host_overloaded");
    verdicts
        .filter(|v| !is_busy || word(v, "cause") != "this_host")
        .map(|v| (word(v, "cause"), word(v, "direction")))
        .collect()
}

/// Runs a line to its end. What is not told as it was, in words.
pub(super) fn run(line: &Line) -> Vec<String> {
    let home = line.home();
    let dir = tempfile::tempdir().expect("a temporary directory");
    keyfile::write_new(&dir.path().join("lab.key"), &key()).expect("a key file");
    let file = dir.path().join("bufferbaned.toml");
    std::fs::write(&file, line.configuration(dir.path())).expect("a file");
    let fails = Arc::new(AtomicBool::new(false));
    resolver(&home.server, &fails);
    let reflector = reflector(&home.server);
    let host = Host::start(line, &home.client, &file);
    let started = Instant::now();
    let is_walked = line.starts_at.is_some();
    std::thread::sleep(if is_walked { WALKED } else { CALM });
    let begun = Instant::now();
    let lasts = Duration::from_secs(line.seconds);
    match (line.trouble, &host) {
        (Trouble::Host, Host::Apart(child)) => {
            let pid = Pid::from_raw(child.id().cast_signed());
            while begun.elapsed() < lasts {
                for (signal, time) in [Signal::SIGSTOP, Signal::SIGCONT].into_iter().zip(STILL) {
                    kill(pid, signal).expect("it runs");
                    std::thread::sleep(time);
                }
            }
        }
        (trouble, _) => {
            if let Trouble::Line { up, down } = trouble {
                for (way, more) in Way::BOTH.into_iter().zip([up, down]) {
                    home.links[0].change(way, line.plan(more));
                }
            }
            let is_resolver = matches!(trouble, Trouble::Resolver);
            fails.store(is_resolver, Ordering::Relaxed);
            std::thread::sleep(lasts);
        }
    }
    for way in Way::BOTH {
        home.links[0].change(way, line.plan(""));
    }
    fails.store(false, Ordering::Relaxed);
    std::thread::sleep(WHOLE.saturating_sub(started.elapsed()));
    host.stop();
    reflector.stop().expect("it ran to the end");
    let report = report(&dir.path().join("s.redb"));
    let link = &home.links[0];
    assert_eq!((link.missed(), link.left_out()), (0, 0));
    let mut wrong = truth::hold(&link.log(), &report, &HOSTS);
    let named = causes(&report);
    if named != line.causes {
        wrong.push(format!("{named:?} was named"));
    }
    if let Some(hop) = line.starts_at {
        wrong.extend(truth::hold_start(&report, hop));
    }
    if !wrong.is_empty() || std::env::var_os("BUFFERBANE_SHOW").is_some() {
        println!(
            "{}: {:#}\n{:#}",
            line.name, report["verdicts"], report["events"]
        );
    }
    wrong
}
