//! Once the probe thread has started its steady state, an allocation on it ends the process: whatever
//! the line, a stranger or a reflector that is restarted does to any kind of probe.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_core::stamp::{Counting, Subnet};
use bufferbane_core::wire::stamp::Format;
use bufferbane_reflector::Running;
use bufferbane_reflector::config::{Client, Config as ReflectorConfig};
use bufferbane_reflector::stamp::StampConfig;
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Place, Reflector, Stream, Target};
use bufferbaned::pacing::Pacing;
use bufferbaned::stamp::{StampProbe, StampTarget};

/// The thread that must not allocate any more; 0 while every thread may.
static FROZEN: AtomicI32 = AtomicI32::new(0);

struct Frozen;

fn check() {
    let frozen = FROZEN.load(Ordering::Relaxed);
    // SAFETY: gettid has no arguments and touches no memory.
    if frozen != 0 && unsafe { libc::gettid() } == frozen {
        let said = b"the probe thread allocated in its steady state\n";
        // SAFETY: the buffer is readable for its length; writing to standard error does not allocate.
        unsafe { libc::write(2, said.as_ptr().cast(), said.len()) };
        std::process::abort();
    }
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Frozen {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's promises about `layout` are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        check();
        // SAFETY: the caller's promises about `pointer` and `layout` are handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Frozen = Frozen;

/// The kernel's number of the thread of this process with this name.
fn thread_named(name: &str) -> Option<i32> {
    std::fs::read_dir("/proc/self/task")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            (comm.trim() == name).then(|| entry.file_name().to_str()?.parse().ok())?
        })
}

const MS: u64 = 1_000_000;
const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// What is done with a datagram from an address.
type Deed = Box<dyn FnMut(SocketAddr, &[u8]) + Send>;

/// A bad line on the way to a port of this host: what goes through it is lost now and then, either
/// way, comes twice, or comes damaged.
struct BadLine {
    port: u16,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl BadLine {
    fn to(port: u16) -> Self {
        let open = || {
            let socket = UdpSocket::bind((HOST, 0)).expect("a port");
            let patience = Some(Duration::from_millis(50));
            socket.set_read_timeout(patience).expect("a time-out");
            Arc::new(socket)
        };
        let (near, far) = (open(), open());
        let ended = Arc::new(AtomicBool::new(false));
        let near_port = near.local_addr().expect("its number").port();
        // Where the prober was heard last: a new socket has another port.
        let prober = Arc::new(AtomicU16::new(0));
        let carry = |from: &Arc<UdpSocket>, mut deed: Deed| {
            let (from, ended) = (from.clone(), ended.clone());
            std::thread::spawn(move || {
                let mut bytes = [0; 2048];
                while !ended.load(Ordering::Relaxed) {
                    if let Ok((len, at)) = from.recv_from(&mut bytes) {
                        deed(at, &bytes[..len]);
                    }
                }
            })
        };
        let (heard, out, mut n) = (prober.clone(), far.clone(), 0u32);
        let up = carry(
            &near,
            Box::new(move |from, bytes| {
                heard.store(from.port(), Ordering::Relaxed);
                n += 1;
                if !n.is_multiple_of(11) {
                    // Nobody is there while the reflector is away.
                    let _ = out.send_to(bytes, (HOST, port));
                }
            }),
        );
        let (out, mut n) = (near.clone(), 0u32);
        let down = carry(
            &far,
            Box::new(move |_, bytes| {
                let to = (HOST, prober.load(Ordering::Relaxed));
                let say = |bytes: &[u8]| drop(out.send_to(bytes, to));
                n += 1;
                if n.is_multiple_of(13) {
                    return;
                }
                say(bytes);
                match n % 16 {
                    0 => say(bytes),
                    4 => say(&[]),
                    8 => say(&bytes[..bytes.len() / 4]),
                    12 => {
                        let mut damaged = bytes.to_vec();
                        damaged.iter_mut().for_each(|b| *b ^= 0x5a);
                        say(&damaged);
                    }
                    _ => {}
                }
            }),
        );
        Self {
            port: near_port,
            ended,
            threads: vec![up, down],
        }
    }
}

impl Drop for BadLine {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn key() -> PresharedKey {
    PresharedKey {
        id: KeyId([3; 8]),
        secret: Secret::new([0x5b; 32]),
    }
}

/// A reflector for sessions and for STAMP at these ports; 0 is any that is free.
fn reflector_config(session: u16, stamp: u16) -> ReflectorConfig {
    ReflectorConfig {
        listen: vec![(HOST, session).into()],
        listen_is_default: false,
        control_socket: None,
        clients: vec![Client {
            name: "home".into(),
            keys: vec![key()],
            max_pps: 10_000,
            max_rate_bps: None,
            daily_bytes: None,
            tcp_prefixes: Vec::new(),
        }],
        stamp: Some(StampConfig {
            listen: vec![(HOST, stamp).into()],
            allow: vec![Subnet {
                address: IpAddr::V4(HOST),
                prefix: 32,
            }],
            max_pps: 10_000,
            key: None,
        }),
        ..ReflectorConfig::default()
    }
}

fn daemon_config(dir: &std::path::Path, session: u16, stamp: u16) -> Config {
    let target = |name: &str, address: &str| Target {
        name: name.into(),
        place: Place::Host(address.into()),
        family: FamilyChoice::Auto,
        interval_ns: 5 * MS,
        size: 64,
        more_sizes: [0; 3],
    };
    let stream = |dscp, more_sizes| Stream {
        dscp,
        size: 128,
        interval_ns: 5 * MS,
        more_sizes,
    };
    let mut config = Config {
        store: dir.join("s.redb"),
        control_socket: dir.join("c.sock"),
        commit_interval_ns: 1000 * MS,
        interfaces: vec!["lo".into()],
        // The second has no route: what cannot be sent takes another path.
        targets: Some(vec![
            target("self", "127.0.0.1"),
            target("nowhere", "192.0.2.1"),
        ]),
        reflectors: vec![Reflector {
            name: "vienna".into(),
            host: HOST.to_string(),
            port: session,
            key: key().into(),
            tcp_prefix: None,
            family: FamilyChoice::V4,
            streams: vec![stream(0, [0; 3]), stream(46, [256, 1200, 0])],
        }],
        stamps: vec![StampTarget {
            name: "other".into(),
            host: HOST.to_string(),
            port: stamp,
            family: FamilyChoice::V4,
            probe: StampProbe {
                key: None,
                format: Format::Ntp,
                counting: Counting::Auto,
                dscp: 0,
                size: 200,
                more_sizes: [900, 0, 0],
                interval_ns: 5 * MS,
            },
        }],
        // Scheduled as a busy router's would be; spinning must allocate as little.
        pacing: Pacing {
            priority: 10,
            cpu: Some(0),
            wake_early_ns: 100_000,
        },
        ..Config::default()
    };
    config.keep.min_free_bytes = 0;
    config
}

/// Received, lost and unsent of each series since the start, by target and place in the list.
type Counts = BTreeMap<(String, usize), [u64; 3]>;

fn counts(daemon: &Daemon) -> Counts {
    let series = daemon.status().series;
    let each = series.iter().enumerate().map(|(i, s)| {
        let t = s.total;
        ((s.target.clone(), i), [t.received, t.lost, t.unsent])
    });
    each.collect()
}

/// Waits until `enough` of what was counted since `before`, and gives that.
fn count_until(
    daemon: &Daemon,
    before: &Counts,
    enough: impl Fn(&str, [u64; 3]) -> bool,
) -> Result<Counts, Counts> {
    let begun = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let mut since = counts(daemon);
        for (series, now) in &mut since {
            let known = before.get(series).copied().unwrap_or_default();
            *now = std::array::from_fn(|i| now[i] - known[i]);
        }
        if since.len() == before.len() && since.iter().all(|((name, _), n)| enough(name, *n)) {
            return Ok(since);
        }
        if begun.elapsed() > Duration::from_secs(30) {
            return Err(since);
        }
    }
}

/// Whether what came of a series' probes is all that can come of them here.
fn every_end(target: &str, [received, lost, unsent]: [u64; 3]) -> bool {
    match target {
        "nowhere" => unsent > 500,
        "self" => received > 500,
        _ => received > 500 && lost > 10,
    }
}

#[test]
fn the_probe_thread_allocates_nothing_once_it_runs() {
    let reflector = Running::start(&reflector_config(0, 0)).expect("the reflector starts");
    let (session, stamp) = (
        reflector.listen()[0].port(),
        reflector.stamp_listen()[0].port(),
    );
    let lines = (BadLine::to(session), BadLine::to(stamp));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = daemon_config(dir.path(), lines.0.port, lines.1.port);
    let mut daemon = Daemon::start(config, None).expect("the daemon starts");
    // Every kind of probe is under way, and every kind of end has been seen once.
    let steady = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let now = counts(&daemon);
        now.len() == 5 && now.iter().all(|((name, _), n)| every_end(name, *n))
    });
    assert!(
        steady,
        "{:?} {:?}",
        counts(&daemon),
        daemon.status().troubles
    );
    let probe = thread_named("probe").expect("a thread named probe");
    if nix::unistd::geteuid().is_root() {
        let only = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(probe));
        let only = only.expect("the thread's processors");
        assert!((1..8).all(|cpu| !only.is_set(cpu).unwrap_or(false)));
        // SAFETY: passes a number only.
        let policy = unsafe { libc::sched_getscheduler(probe) };
        assert_eq!(policy, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK);
    }

    let (before, drops_before) = (counts(&daemon), daemon.status().drops);
    FROZEN.store(probe, Ordering::Relaxed);
    let as_it_is = count_until(&daemon, &before, every_end);
    let drops = daemon.status().drops;
    // Away long enough to be missed, and back without the sessions it had.
    reflector.stop().expect("it ran to the end");
    std::thread::sleep(Duration::from_millis(1500));
    let mut reflector = Running::start(&reflector_config(session, stamp)).expect("it starts again");
    let restarted = counts(&daemon);
    let once_more = count_until(&daemon, &restarted, every_end);
    FROZEN.store(0, Ordering::Relaxed);

    let sessions = reflector.status().expect("it answers");
    let events = daemon.status().events;
    daemon.stop();
    println!("{as_it_is:?}\nafter the restart {once_more:?}\n{drops_before:?} to {drops:?}");
    as_it_is.expect("answers, losses and what cannot be sent of every series");
    once_more.expect("the same in a new session");
    assert_eq!(sessions["sessions"], 1, "a new session: {sessions}");
    assert!(
        events
            .iter()
            .any(|e| e.kind == "reflector_back" && e.text.contains("restarted")),
        "{events:?}"
    );
    for reason in ["length", "magic", "seal"] {
        let of = |drops: &BTreeMap<String, u64>| drops.get(reason).copied().unwrap_or(0);
        assert!(of(&drops) > of(&drops_before), "{reason}: {drops:?}");
    }
}
