//! The thread that walks: one way at a time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bufferbane_core::time::Monotonic;
use bufferbane_core::trace::way::{FLOW, flow_cookie};
use bufferbane_core::trace::{End, MAX_HOPS, Step, Trace, TraceConfig, Transport};
use bufferbane_linux_io::netlink::{Netlink, RouteQuery};
use bufferbane_linux_io::{Family, HopSocket, ProbeSocket, Word, clock, host};
use bufferbane_store::{Path, PathEnd, PathHop};

use crate::errands::{self, Key};
use crate::scout::{self, FAR_PORT, Way};

/// How far apart messages to a hop are, ns: routers answer about one a second.
const ROUND_NS: u64 = 1_000_000_000;

/// How much is to be known of each hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Thoroughness {
    /// Who it is.
    Quick,
    /// From which hop on packets are lost, or late.
    Exact,
}

impl Thoroughness {
    /// Messages to each hop.
    const fn rounds(self) -> u16 {
        match self {
            Self::Quick => 3,
            Self::Exact => 10,
        }
    }
}

/// A way to be walked.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) way: Way,
    pub(super) key: Key,
    /// Something looks wrong: others wait for this one.
    pub(super) urgent: bool,
    pub(super) how: Thoroughness,
}

/// What became of an errand.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) begun: Monotonic,
    pub(super) took_ns: u64,
    /// The way; none where it was given up for a more urgent one; or why it could not be walked.
    pub(super) path: Result<Option<Path>, String>,
}

/// The thread's other end.
pub(super) type Worker = errands::Worker<Errand, Walked>;

/// Starts the thread.
pub(super) fn start() -> io::Result<Worker> {
    Worker::start("walk", |errand, flags| {
        let begun = clock::now();
        let is_over = || flags.is_over() || (!errand.urgent && flags.is_hurried());
        let path = walk(&errand, &is_over);
        Walked {
            begun,
            took_ns: clock::now().saturating_since(begun),
            path,
        }
    })
}

/// Walks a way, unless `is_over`.
fn walk(errand: &Errand, is_over: &dyn Fn() -> bool) -> Result<Option<Path>, String> {
    let text = |e: io::Error| e.to_string();
    let (interface, target, to) = &errand.key;
    let mut path = Path {
        interface: interface.clone(),
        target: target.clone(),
        address: *to,
        source: None,
        unsent: None,
        provider_link: false,
        end: PathEnd::Unsent,
        hops: Vec::new(),
    };
    let Some((source, at_home)) = route(&errand.way, *to).map_err(text)? else {
        return Ok(Some(path));
    };
    (path.source, path.provider_link) = (source, !at_home);
    let cookie = flow_cookie(getrandom::u32().map_err(|e| e.to_string())?);
    let (mut socket, transport) = socket(&errand.way, *to)?;
    let mut trace = Box::new(Trace::new(TraceConfig {
        target: *to,
        source: path.source,
        transport,
        cookie,
        rounds: errand.how.rounds(),
        round_ns: ROUND_NS,
        max_hops: MAX_HOPS,
    }));
    let mut rtts = vec![Rtts::default(); usize::from(MAX_HOPS)];
    let (mut sent, mut refused) = (false, None);
    loop {
        if is_over() {
            return Ok(None);
        }
        match trace.step(clock::now()) {
            Step::Send(message) => match socket.send(message.ttl, message.message()) {
                Ok(()) => sent = true,
                Err(e) if !sent && forbids(&e) => return Err(e.to_string()),
                Err(e) => {
                    trace.handle_unsent(message.number);
                    refused.get_or_insert(e);
                }
            },
            Step::Wait(until) => {
                let left = Duration::from_nanos(until.saturating_since(clock::now()));
                let heard = socket.wait(left, |heard| {
                    let answer = match heard.word {
                        Word::Report(report, quoted) => {
                            trace.handle_report(heard.at, heard.from, report, quoted)
                        }
                        Word::Message(message, _) => {
                            trace.handle_reply(heard.at, heard.from, message)
                        }
                        // No link is too narrow for these.
                        Word::TooBig(..) => return,
                    };
                    // What answers nothing of ours is others' business.
                    if let Ok(answer) = answer
                        && let Some(of) = rtts.get_mut(usize::from(answer.hop).saturating_sub(1))
                    {
                        of.add(answer.rtt_ns);
                    }
                });
                heard.map_err(text)?;
            }
            Step::End => break,
        }
    }
    path.end = match trace.end() {
        End::Target => PathEnd::Target,
        End::Refused(_) => PathEnd::Refused,
        End::Silence if sent => PathEnd::Silence,
        End::Silence => PathEnd::Unsent,
    };
    if path.end == PathEnd::Unsent {
        path.unsent = refused.map(|e: io::Error| e.to_string());
    }
    path.hops = trace
        .hops()
        .iter()
        .zip(&rtts)
        .map(|(hop, rtts)| PathHop {
            addresses: hop.addresses.to_vec(),
            sent: hop.sent.into(),
            answered: hop.answered.into(),
            rtt_min_ns: rtts.min_ns,
            rtt_mean_ns: rtts.sum_ns.checked_div(rtts.count),
        })
        .collect();
    Ok(Some(path))
}

/// Whether this host does not let us send at all: no matter of the way.
fn forbids(e: &io::Error) -> bool {
    // EPERM and EACCES.
    e.kind() == io::ErrorKind::PermissionDenied
}

/// Round-trip times of one hop.
#[derive(Clone, Copy, Debug, Default)]
struct Rtts {
    count: u64,
    sum_ns: u64,
    min_ns: Option<u64>,
}

impl Rtts {
    fn add(&mut self, rtt_ns: u64) {
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(rtt_ns);
        self.min_ns = Some(self.min_ns.map_or(rtt_ns, |m| m.min(rtt_ns)));
    }
}

/// The address that is sent from, as far as the kernel tells, and whether that is on a link of the household; `None`
/// where nothing can be sent.
fn route(way: &Way, to: IpAddr) -> io::Result<Option<(Option<IpAddr>, bool)>> {
    let mut netlink = Netlink::open()?;
    let Some(interface) = netlink.interface(&way.interface)?.filter(|i| i.up) else {
        return Ok(None);
    };
    let query = RouteQuery {
        interface: Some(interface.index),
        from: way.source,
        mark: way.mark,
        ..RouteQuery::to(to)
    };
    let route = netlink.route_for(&query)?;
    Ok(route.map(|r| (way.source.or(r.source), scout::is_at_home(&interface))))
}

/// Echoes where they can be had, else UDP; of the same flow every time if that is free.
fn socket(way: &Way, to: IpAddr) -> Result<(HopSocket, Transport), String> {
    let family = Family::of(&to);
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let (builder, port, transport) = match host::echoes(family, FLOW) {
        Some((builder, transport)) => (builder, 0, transport),
        None => (ProbeSocket::udp(family), FAR_PORT, Transport::Udp),
    };
    let builder = way.socket(builder);
    let to = SocketAddr::new(to, port);
    let is_raw = matches!(
        transport,
        Transport::Echo {
            identifier: Some(_),
            ..
        }
    );
    let socket = if is_raw {
        HopSocket::new(builder, to)
    } else {
        // To a ping socket the port is its identifier.
        let from = SocketAddr::new(way.source.unwrap_or(any), FLOW);
        HopSocket::new(builder.clone().bind(from), to).or_else(|_| HopSocket::new(builder, to))
    };
    Ok((socket.map_err(|e| e.to_string())?, transport))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_forbids_to_send_is_no_matter_of_the_way() {
        for (name, errno, is_forbidden) in [
            ("EPERM", 1, true),
            ("EACCES", 13, true),
            ("ENETUNREACH", 101, false),
            ("EHOSTUNREACH", 113, false),
            ("ENOBUFS", 105, false),
        ] {
            let e = io::Error::from_raw_os_error(errno);
            assert_eq!(forbids(&e), is_forbidden, "{name}: {e}");
        }
    }
}
