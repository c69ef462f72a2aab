//! Once the probe thread has started its steady state, an allocation on it ends the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Place, Target};
use bufferbaned::pacing::Pacing;

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

#[test]
fn the_probe_thread_allocates_nothing_once_it_runs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let target = |name: &str, address: &str| Target {
        name: name.into(),
        place: Place::Host(address.into()),
        family: FamilyChoice::Auto,
        interval_ns: 5_000_000,
        size: 64,
    };
    let mut config = Config {
        store: dir.path().join("s.redb"),
        control_socket: dir.path().join("c.sock"),
        commit_interval_ns: 1_000_000_000,
        interfaces: vec!["lo".into()],
        // The second has no route: what cannot be sent takes another path.
        targets: Some(vec![
            target("self", "127.0.0.1"),
            target("nowhere", "192.0.2.1"),
        ]),
        // Scheduled as a busy router's would be; spinning must allocate as little.
        pacing: Pacing {
            priority: 10,
            cpu: Some(0),
            wake_early_ns: 100_000,
        },
        ..Config::default()
    };
    config.keep.min_free_bytes = 0;
    let mut daemon = Daemon::start(config, None).expect("the daemon starts");
    std::thread::sleep(Duration::from_secs(2));
    let count = |d: &Daemon| -> u64 {
        d.status()
            .series
            .iter()
            .map(|s| s.total.sent + s.total.unsent)
            .sum()
    };
    let before = count(&daemon);
    let probe = thread_named("probe").expect("a thread named probe");
    if nix::unistd::geteuid().is_root() {
        let only = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(probe));
        let only = only.expect("the thread's processors");
        assert!((1..8).all(|cpu| !only.is_set(cpu).unwrap_or(false)));
        // SAFETY: passes a number only.
        let policy = unsafe { libc::sched_getscheduler(probe) };
        assert_eq!(policy, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK);
    }
    FROZEN.store(probe, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(4));
    let after = count(&daemon);
    FROZEN.store(0, Ordering::Relaxed);
    daemon.stop();
    assert!(after - before > 1000, "{before} to {after} probes");
}
