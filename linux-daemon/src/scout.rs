//! The scout: finds out which optional targets there are through an uplink, before they are probed.
//! A target that never answers would only ever be loss.
//!
//! What it sends and waits for happens on a thread of its own, and what fails there is no trouble
//! of the line: nobody asked for these targets by address.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use bufferbane_core::wire::icmp::{Echo, MIN_LEN, Version, strip_ipv4_header};
use bufferbane_linux_io::netlink::{Netlink, RouteQuery};
use bufferbane_linux_io::{Family, ProbeSocket, SocketBuilder, host};

use crate::config::Uplink;

/// Where most cable modems answer, whatever network is behind them.
pub(crate) const MODEM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 100, 1));
/// Echoes before a host counts as one that does not answer.
const ECHOES: u64 = 3;
/// How long each is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How soon it is asked again for what was not found.
const AGAIN: Duration = Duration::from_secs(300);

/// How packets leave for an uplink's targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    pub(crate) interface: String,
    /// The address that is sent from, where one is configured.
    pub(crate) source: Option<IpAddr>,
    /// The firewall mark that is sent with.
    pub(crate) mark: Option<u32>,
}

impl Way {
    pub(crate) fn of(uplink: &Uplink) -> Self {
        Self {
            interface: uplink.name.clone(),
            source: uplink.source,
            mark: uplink.mark,
        }
    }

    /// A socket of this kind that sends this way.
    pub(crate) fn socket(&self, builder: SocketBuilder) -> SocketBuilder {
        let mut builder = builder.interface(&self.interface);
        if let Some(source) = self.source {
            builder = builder.bind(SocketAddr::new(source, 0));
        }
        if let Some(mark) = self.mark {
            builder = builder.mark(mark);
        }
        builder
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sought {
    /// The modem, at its usual address.
    Modem,
}

/// What is looked for, and which way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Errand {
    pub(crate) way: Way,
    pub(crate) sought: Sought,
}

/// See the module.
pub(crate) struct Scout {
    send: Sender<Errand>,
    returns: Receiver<(Errand, Option<IpAddr>)>,
    known: HashMap<Errand, Known>,
}

struct Known {
    found: Option<IpAddr>,
    out: bool,
    due: Instant,
}

impl Scout {
    pub(crate) fn start() -> Self {
        let (send, errands) = mpsc::channel::<Errand>();
        let (back, returns) = mpsc::channel();
        std::thread::spawn(move || {
            for errand in errands {
                let found = run(&errand).unwrap_or_else(|e| {
                    log::debug!("{errand:?}: {e}");
                    None
                });
                if back.send((errand, found)).is_err() {
                    return;
                }
            }
        });
        Self {
            send,
            returns,
            known: HashMap::new(),
        }
    }

    /// Takes in what was found; whether there is anything new.
    pub(crate) fn has_news(&mut self) -> bool {
        let mut news = false;
        while let Ok((errand, found)) = self.returns.try_recv() {
            if let Some(known) = self.known.get_mut(&errand) {
                known.out = false;
                news |= known.found != found;
                known.found = found;
            }
        }
        news
    }

    /// Looks again at once for what was not found: the routes have changed.
    pub(crate) fn look_again(&mut self) {
        let now = Instant::now();
        self.known.values_mut().for_each(|k| k.due = now);
    }

    /// Where it is, as far as that is known by now. A modem that has answered once stays.
    pub(crate) fn find(&mut self, errand: Errand) -> Option<IpAddr> {
        let now = Instant::now();
        let known = self.known.entry(errand.clone()).or_insert(Known {
            found: None,
            out: false,
            due: now,
        });
        if known.found.is_none() && !known.out && now >= known.due {
            known.due = now + AGAIN;
            // The thread lives as long as this end of its queue.
            known.out = self.send.send(errand).is_ok();
        }
        known.found
    }
}

fn run(errand: &Errand) -> io::Result<Option<IpAddr>> {
    match errand.sought {
        Sought::Modem => {
            let there = leads_to(&errand.way, MODEM)? && answers(&errand.way, MODEM)?;
            Ok(there.then_some(MODEM))
        }
    }
}

/// Whether what is sent to `to` this way may arrive. Not without a route, because the kernel would
/// look for `to` on the link itself; and not where a route more special than a default one leads
/// through another interface, because then this address is another host's, or our own.
fn leads_to(way: &Way, to: IpAddr) -> io::Result<bool> {
    let mut netlink = Netlink::open()?;
    let Some(interface) = netlink.interface(&way.interface)? else {
        return Ok(false);
    };
    if !interface.up {
        return Ok(false);
    }
    let query = RouteQuery {
        interface: Some(interface.index),
        from: way.source,
        mark: way.mark,
        ..RouteQuery::to(to)
    };
    if netlink.route_for(&query)?.is_none() {
        return Ok(false);
    }
    let usual = netlink.route_for(&RouteQuery::to(to))?;
    Ok(usual.is_none_or(|r| r.prefix == 0 || r.interface == interface.index))
}

/// Whether `to` answers one of a few echoes.
fn answers(way: &Way, to: IpAddr) -> io::Result<bool> {
    let family = Family::of(&to);
    let ping = host::icmp_access(family).ping;
    let builder = if ping {
        ProbeSocket::ping(family)
    } else {
        ProbeSocket::raw_icmp(family)
    };
    let socket = way.socket(builder).build().map_err(io::Error::other)?;
    let socket = UdpSocket::from(OwnedFd::from(socket));
    let version = match family {
        Family::V4 => Version::V4,
        Family::V6 => Version::V6,
    };
    let cookie = getrandom::u64()?;
    let (mut request, mut reply) = ([0; MIN_LEN], [0; 256]);
    for seq in 0..ECHOES {
        let echo = Echo {
            identifier: cookie as u16,
            cookie,
            seq,
        };
        let size = echo
            .emit_request(version, MIN_LEN, &mut request)
            .unwrap_or(0);
        // What cannot be sent is not answered either, but may be next time.
        let sent = socket.send_to(&request[..size], SocketAddr::new(to, 0));
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if sent.is_err() {
                std::thread::sleep(left);
                break;
            }
            socket.set_read_timeout(Some(left))?;
            // Any error but the end of patience is an earlier echo's, reported once.
            let Ok((len, from)) = socket.recv_from(&mut reply) else {
                continue;
            };
            let packet = &reply[..len];
            let message = if family == Family::V4 && !ping {
                strip_ipv4_header(packet)
            } else {
                Ok(packet)
            };
            let ours = message
                .and_then(|m| Echo::parse_reply(version, m))
                .is_ok_and(|e| e.cookie == cookie);
            if ours && from.ip() == to {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
