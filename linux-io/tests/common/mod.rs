//! What the integration tests share.
#![allow(
    dead_code,
    reason = "five programs, kept apart for their load on loopback, use a part each"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use bufferbane_linux_io::support::Features;
use bufferbane_linux_io::{
    Engine, EngineOptions, Event, Family, Outbox, ProbeSocket, SocketBuilder, SocketId, clock,
};

/// Every way an engine can work on this kernel: with all features, without each, without any.
pub(crate) fn all_features() -> [Features; 4] {
    [
        Features::ALL,
        Features {
            absolute_wait: false,
            ..Features::ALL
        },
        Features {
            stamp_keys: false,
            ..Features::ALL
        },
        Features::NONE,
    ]
}

pub(crate) fn engine(features: Features) -> Engine {
    let options = EngineOptions {
        features,
        ..EngineOptions::prober()
    };
    Engine::new(&options).unwrap()
}

pub(crate) fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

pub(crate) fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Adds a socket bound to a free port of the loopback address.
pub(crate) fn add_local(
    engine: &mut Engine,
    builder: SocketBuilder,
    family: Family,
) -> (SocketId, SocketAddr) {
    let socket: ProbeSocket = builder
        .bind(SocketAddr::new(loopback(family), 0))
        .build()
        .unwrap();
    let at = socket.local_addr();
    (engine.add_socket(socket).unwrap(), at)
}

/// Waits until `done` says so, at most so many milliseconds; whether it did.
pub(crate) fn wait_for(
    engine: &mut Engine,
    millis: u64,
    mut done: impl FnMut(&mut Outbox<'_>, Event<'_>) -> bool,
) -> bool {
    let until = clock::now().saturating_add(millis * 1_000_000);
    let mut finished = false;
    while !finished && clock::now() < until {
        engine
            .wait(until, &mut |out: &mut Outbox<'_>, event: Event<'_>| {
                finished |= done(out, event);
            })
            .unwrap();
    }
    finished
}

/// Switches the kernel's stamping on and waits until it is: that happens in the background.
pub(crate) fn warm_up() {
    let mut engine = engine(Features::ALL);
    let (id, at) = add_local(&mut engine, ProbeSocket::udp(Family::V4), Family::V4);
    for _ in 0..200 {
        engine.send(id, at, b"warm", 0).unwrap();
        let mut stamped = false;
        wait_for(&mut engine, 100, |_, event| match event {
            Event::Received { meta, .. } => {
                stamped = meta.at.clock == bufferbane_core::time::ClockSource::Kernel;
                true
            }
            _ => false,
        });
        if stamped {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("the kernel does not stamp");
}

/// Says loudly that a test cannot run here; where everything has to run, that is a failure.
pub(crate) fn skipped(why: &str) {
    // Not by a macro, whose output a passing test keeps to itself.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("SKIPPED: {why}\n").as_bytes(),
    );
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
}

/// Set for the copy of a test that runs inside the namespace: a file it makes to show that it ran.
const INSIDE: &str = "BUFFERBANE_TEST_NAMESPACE";

/// Enters a new network namespace; who is not root makes a user namespace first.
fn enter_namespace() -> std::io::Result<()> {
    // SAFETY: asks for a number.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let flags = if uid == 0 {
        libc::CLONE_NEWNET
    } else {
        libc::CLONE_NEWUSER | libc::CLONE_NEWNET
    };
    // SAFETY: passes a number; this process has one thread.
    if unsafe { libc::unshare(flags) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    if uid != 0 {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    Ok(())
}

/// Runs the named test of this module (`module_path!()`) again inside a namespace; true in the copy.
pub(crate) fn inside_namespace(module: &str, test: &str) -> bool {
    if let Some(shown) = std::env::var_os(INSIDE) {
        std::fs::write(shown, "").unwrap();
        return true;
    }
    let (_, module) = module.split_once("::").unwrap();
    let name = format!("{module}::{test}");
    let dir = tempfile::tempdir().unwrap();
    let shown = dir.path().join("ran");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, &shown);
    // SAFETY: between fork and exec only system calls and short-lived allocations happen, in a
    // child whose parent's other threads hold no lock of the allocator that is not restored by
    // libc's own fork handlers.
    unsafe { command.pre_exec(enter_namespace) };
    match command.status() {
        Ok(status) => {
            assert!(status.success(), "the copy in the namespace failed");
            assert!(shown.exists(), "no test is called {name}");
        }
        Err(e) => skipped(&format!("no network namespace: {e}")),
    }
    false
}
