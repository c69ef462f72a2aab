//! The thread that searches: one way at a time.

use std::io;

use bufferbane_core::mtu::{Outcome, SearchConfig};
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::netlink::Netlink;
use bufferbane_linux_io::{Family, ProbeSocket, clock, host, mtu};
use bufferbane_store::{Direction, Larger, PathSize};

use crate::errands::{self, Key};
use crate::scout::{FAR_PORT, Way};

/// A way to be searched.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) way: Way,
    pub(super) key: Key,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Searched {
    pub(super) begun: Monotonic,
    /// IP bytes that were sent.
    pub(super) bytes: u64,
    /// What was found; none where nothing can be said; or why it could not be searched.
    pub(super) found: Result<Option<PathSize>, String>,
}

/// The thread's other end.
pub(super) type Worker = errands::Worker<Errand, Searched>;

/// Starts the thread.
pub(super) fn start() -> io::Result<Worker> {
    Worker::start("sizes", |errand, flags| {
        let begun = clock::now();
        let mut bytes = 0;
        let found = search(&errand, &mut bytes, &|| flags.is_over());
        Searched {
            begun,
            bytes,
            found: found.map_err(|e| e.to_string()),
        }
    })
}

fn search(
    errand: &Errand,
    bytes: &mut u64,
    is_over: &dyn Fn() -> bool,
) -> io::Result<Option<PathSize>> {
    let (interface, target, to) = &errand.key;
    let interfaces = Netlink::open()?.interface(interface)?;
    let Some(up) = interfaces.filter(|i| i.up) else {
        return Ok(None);
    };
    let family = Family::of(to);
    let number = getrandom::u64().map_err(io::Error::other)?;
    // Any bits of a random number are one.
    let Some((builder, transport)) = host::echoes(family, number as u16) else {
        return Err(io::Error::other(
            "this process may send no echoes: see bbtool doctor",
        ));
    };
    let config = SearchConfig {
        target: *to,
        transport,
        cookie: number,
        smallest: None,
        largest: mtu::largest_of(up.mtu),
    };
    let echoes = (errand.way.socket(builder), 0);
    let udp = (errand.way.socket(ProbeSocket::udp(family)), FAR_PORT);
    let found = mtu::search_both_ways(echoes, udp, config, bytes, is_over)?;
    let Some((found, is_up)) = found else {
        return Ok(None);
    };
    let (passes, larger, told_by) = match found.outcome {
        Outcome::Whole { passes } => (passes, Larger::None, None),
        Outcome::Told { passes, by } => (passes, Larger::Told, by.map(|b| b.0)),
        Outcome::Silent { passes, .. } => (passes, Larger::Silent, None),
        Outcome::NoAnswer | Outcome::Unsent | Outcome::Unclear { .. } => return Ok(None),
    };
    let direction = match (larger, is_up) {
        (Larger::Silent, Some(true)) => Some(Direction::Up),
        (Larger::Silent, Some(false)) => Some(Direction::Down),
        (Larger::Silent, None) => None,
        (Larger::None | Larger::Told, _) => found.is_there_only.then_some(Direction::Up),
    };
    Ok(Some(PathSize {
        interface: interface.clone(),
        target: target.clone(),
        address: *to,
        interface_bytes: config.largest.into(),
        passes_bytes: passes.into(),
        larger,
        told_by,
        direction,
    }))
}
