//! The thread that looks: at the hosts of one errand at the same time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bufferbane_core::look::{Found, Look, LookConfig, Step, packet_bytes};
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::{Family, HopSocket, Word, clock, host};

use crate::errands::{self, Flags, Key};
use crate::scout::Way;

/// Hops that an echo may pass.
const TTL: u8 = 64;
/// It is noticed so soon that nobody waits any more.
const BREATH_NS: u64 = 250_000_000;

/// Hosts to be looked at, through one uplink.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) way: Way,
    pub(super) keys: Vec<Key>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) begun: Monotonic,
    /// IP bytes that were sent.
    pub(super) bytes: u64,
    /// What was found of each host, or why it could not be looked at; nothing where nobody waited any more.
    pub(super) found: Vec<(Key, Result<Found, String>)>,
}

/// The thread's other end.
pub(super) type Worker = errands::Worker<Errand, Looked>;

/// Starts the thread.
pub(super) fn start() -> io::Result<Worker> {
    Worker::start("look", look)
}

/// The hosts of an errand that can be looked at, side by side.
#[derive(Default)]
struct Hosts {
    keys: Vec<Key>,
    looks: Vec<Look>,
    sockets: Vec<HopSocket>,
}

fn look(errand: Errand, flags: &Flags) -> Looked {
    let begun = clock::now();
    let mut hosts = Hosts::default();
    let mut found = Vec::new();
    for key in errand.keys {
        match open(&errand.way, &key, begun) {
            Ok((look, socket)) => {
                hosts.keys.push(key);
                hosts.looks.push(look);
                hosts.sockets.push(socket);
            }
            Err(why) => found.push((key, Err(why))),
        }
    }
    let mut forbidden: Vec<Option<String>> = vec![None; hosts.keys.len()];
    let ended = hosts.run(flags, &mut forbidden);
    let mut bytes = 0;
    for ((key, look), why) in hosts.keys.into_iter().zip(&hosts.looks).zip(forbidden) {
        let own = look.found();
        bytes += own.sent * packet_bytes(key.2);
        match (&ended, why) {
            (Ok(true), None) => found.push((key, Ok(own))),
            (Ok(_), Some(why)) => found.push((key, Err(why))),
            (Ok(false), None) => {}
            (Err(e), _) => found.push((key, Err(e.to_string()))),
        }
    }
    Looked {
        begun,
        bytes,
        found,
    }
}

/// A look that begins at `begun`, and the socket for it.
fn open(way: &Way, key: &Key, begun: Monotonic) -> Result<(Look, HopSocket), String> {
    let cookie = getrandom::u64().map_err(|e| e.to_string())?;
    // Any bits of a random number are one.
    let echoes = host::echoes(Family::of(&key.2), cookie as u16);
    let Some((builder, transport)) = echoes else {
        return Err("this process may send no echoes: see bbtool doctor".into());
    };
    let socket = HopSocket::new(way.socket(builder), SocketAddr::new(key.2, 0));
    let config = LookConfig {
        target: key.2,
        transport,
        cookie,
    };
    let socket = socket.map_err(|e| e.to_string())?;
    Ok((Look::new(config, begun), socket))
}

impl Hosts {
    /// Looks until all is done, and says so; or until nobody waits any more. Where this host does not let echoes out at
    /// all, why is put to `forbidden`.
    fn run(&mut self, flags: &Flags, forbidden: &mut [Option<String>]) -> io::Result<bool> {
        loop {
            if flags.is_over() {
                return Ok(false);
            }
            let mut until: Option<Monotonic> = None;
            for (i, look) in self.looks.iter_mut().enumerate() {
                loop {
                    match look.step(clock::now()) {
                        Step::Send(echo) => {
                            if let Err(e) = self.sockets[i].send(TTL, echo.message()) {
                                look.handle_unsent(echo.number);
                                if e.kind() == io::ErrorKind::PermissionDenied {
                                    forbidden[i].get_or_insert_with(|| e.to_string());
                                }
                            }
                        }
                        Step::Wait(at) => {
                            until = Some(until.map_or(at, |u| u.min(at)));
                            break;
                        }
                        Step::End => break,
                    }
                }
            }
            let Some(until) = until else {
                return Ok(true);
            };
            let left_ns = until.saturating_since(clock::now()).min(BREATH_NS);
            let looks = &mut self.looks;
            HopSocket::wait_any(
                &mut self.sockets,
                Duration::from_nanos(left_ns),
                |i, heard| {
                    // What answers nothing of ours is others' business.
                    let _ = match heard.word {
                        Word::Report(_, quoted) => looks[i].handle_refused(quoted),
                        Word::Message(message, _) => {
                            looks[i].handle_reply(heard.at, heard.from, message)
                        }
                        // No link is too narrow for these.
                        Word::TooBig(..) => return,
                    };
                },
            )?;
        }
    }
}
