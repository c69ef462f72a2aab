//! What the integration tests share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bufferbane_linux_io::support::Features;
use bufferbane_linux_io::{
    Engine, EngineOptions, Event, Family, Outbox, ProbeSocket, SocketBuilder, SocketId, clock,
};

/// Every way an engine can work on this kernel: with all features, without each, without any.
pub(crate) fn all_features() -> [Features; 5] {
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
        Features {
            stamp_command: false,
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
    println!("SKIPPED: {why}");
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {why}");
}
