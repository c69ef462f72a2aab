//! Looks for the largest packet that passes on the way to a host; `bufferbane_core::mtu` says how.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bufferbane_core::mtu::{MAX_SIZE, Outcome, Search, SearchConfig, Step, is_upward};
use bufferbane_core::trace::Transport;

use crate::clock;
use crate::hops::{HopSocket, Word};
use crate::socket::SocketBuilder;

/// Hops that a message may pass.
const TTL: u8 = 64;

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it found.
    pub outcome: Outcome,
    /// Whether it is about the way there only: the answers are shorter than what was sent.
    pub is_there_only: bool,
}

/// Searches with a socket of `builder`'s, to `port` of the target (0 for echoes). Takes some tenths of a second
/// on a line that is well, mostly less than a minute where larger ones vanish, and never more than four minutes
/// ([`bufferbane_core::mtu::LONGEST_SEARCH_NS`]). Asks `is_over` once in three seconds at least, and gives `None` if it
/// is. What is sent, IP headers included, is added to `bytes`, whatever comes of it.
///
/// # Errors
/// Why there is no socket, or what the kernel says when it is waited on.
pub fn search(
    builder: SocketBuilder,
    port: u16,
    config: SearchConfig,
    bytes: &mut u64,
    is_over: &dyn Fn() -> bool,
) -> io::Result<Option<Found>> {
    let to = SocketAddr::new(config.target, port);
    let mut socket = HopSocket::new(builder.whole(true), to).map_err(io::Error::other)?;
    let mut search = Box::new(Search::new(config));
    let found = run(&mut socket, &mut search, is_over);
    *bytes += search.bytes();
    found
}

/// The same; and where larger packets vanish, whether they do upward, if that can be found out by UDP datagrams of the
/// two sizes with a socket of `udp`'s, to its port, at which nobody listens. That is a search more: twice the time
/// and the messages of one at most.
///
/// # Errors
/// As [`search`].
pub fn search_both_ways(
    (builder, port): (SocketBuilder, u16),
    udp: (SocketBuilder, u16),
    config: SearchConfig,
    bytes: &mut u64,
    is_over: &dyn Fn() -> bool,
) -> io::Result<Option<(Found, Option<bool>)>> {
    let Some(found) = search(builder, port, config, bytes, is_over)? else {
        return Ok(None);
    };
    let Outcome::Silent { passes, vanishes } = found.outcome else {
        return Ok(Some((found, None)));
    };
    if config.transport == Transport::Udp {
        return Ok(Some((found, Some(true))));
    }
    let two = SearchConfig {
        transport: Transport::Udp,
        smallest: Some(passes),
        largest: vanishes,
        ..config
    };
    let there = search(udp.0, udp.1, two, bytes, is_over)?;
    Ok(there.map(|there| (found, is_upward(found.is_there_only, there.outcome))))
}

fn run(
    socket: &mut HopSocket,
    search: &mut Search,
    is_over: &dyn Fn() -> bool,
) -> io::Result<Option<Found>> {
    let mut room = vec![0; usize::from(MAX_SIZE)];
    loop {
        if is_over() {
            return Ok(None);
        }
        match search.step(clock::now()) {
            Step::Send(message) => {
                let Some(len) = message.write(&mut room) else {
                    return Err(io::Error::other("a message larger than the largest"));
                };
                if let Err(e) = socket.send(TTL, &room[..len]) {
                    let is_too_big = e.raw_os_error() == Some(libc::EMSGSIZE);
                    search.handle_unsent(message.number, is_too_big);
                }
            }
            Step::Wait(until) => {
                let left = Duration::from_nanos(until.saturating_since(clock::now()));
                socket.wait(left, |heard| {
                    // What answers nothing of ours is others' business.
                    let _ = match heard.word {
                        Word::TooBig(mtu, quoted) => search.handle_too_big(heard.from, mtu, quoted),
                        Word::Report(report, quoted) => {
                            search.handle_report(heard.at, heard.from, report, quoted)
                        }
                        Word::Message(message, whole_len) => {
                            search.handle_reply(heard.at, heard.from, message, whole_len)
                        }
                    };
                })?;
            }
            Step::End(outcome) => {
                return Ok(Some(Found {
                    outcome,
                    is_there_only: search.is_there_only(),
                }));
            }
        }
    }
}

/// The largest packet of an interface with this MTU that is worth looking for.
#[must_use]
pub fn largest_of(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX).min(MAX_SIZE)
}
