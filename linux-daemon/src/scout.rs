//! The scout: finds out which optional targets there are through an uplink, before they are probed.
//! A target that never answers would only ever be loss.
//!
//! What it sends and waits for happens on a thread of its own. What is not found is no loss.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use bufferbane_core::path::{FirstHop, Outcome, Step, is_home_link};
use bufferbane_core::trace::way::FLOW;
use bufferbane_core::wire::icmp::{Echo, MIN_LEN, Refusal, Report, Version, strip_ipv4_header};
use bufferbane_linux_io::netlink::{Interface, Netlink, RouteQuery};
use bufferbane_linux_io::{Family, HopSocket, ProbeSocket, SocketBuilder, Word, clock, host};

use crate::ask::{self, Lookup};
use crate::config::Uplink;

/// Where most cable modems answer, whatever network is behind them.
pub(crate) const MODEM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 100, 1));
/// Echoes before a host counts as one that does not answer.
const ECHOES: u64 = 3;
/// How long each is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Another first hop than before, or none, has to be seen so often in a row.
const SEEN: u32 = 2;
/// How soon it is asked again for what was not found.
const AGAIN: Duration = Duration::from_secs(300);
/// How soon it is looked whether the provider's first hop is another one.
const REVIEW: Duration = Duration::from_secs(900);
/// Well-known addresses on whose way the provider's first hop is looked for.
const FAR: [(Family, &str); 2] = [(Family::V4, "9.9.9.9"), (Family::V6, "2620:fe::fe")];
/// The port that it is looked for with: traceroute's, at which no service listens.
pub(crate) const FAR_PORT: u16 = 33434;

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

    /// Through an interface, as it is configured among `uplinks` if it is.
    pub(crate) fn through(interface: &str, uplinks: &BTreeMap<String, Self>) -> Self {
        uplinks.get(interface).cloned().unwrap_or_else(|| Self {
            interface: interface.to_owned(),
            source: None,
            mark: None,
        })
    }

    /// The way of what is probed.
    pub(crate) fn to(wanted: &crate::plan::Wanted) -> Self {
        Self {
            interface: wanted.interface.clone(),
            source: wanted.source,
            mark: wanted.mark,
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
    /// The first hop that is the provider's.
    FirstHop(Family),
    /// This resolver, over TCP.
    DnsOverTcp(SocketAddr),
}

impl Sought {
    pub(crate) const fn family(self) -> Family {
        match self {
            Self::Modem => Family::V4,
            Self::FirstHop(family) => family,
            Self::DnsOverTcp(to) => Family::of(&to.ip()),
        }
    }

    /// Whether what has answered once stays, whatever becomes of it.
    const fn stays(self) -> bool {
        match self {
            Self::Modem | Self::DnsOverTcp(_) => true,
            Self::FirstHop(_) => false,
        }
    }
}

/// What is looked for, and which way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Errand {
    pub(crate) way: Way,
    pub(crate) sought: Sought,
}

/// See the module.
pub(crate) struct Scout {
    send: Sender<(Errand, Option<IpAddr>)>,
    returns: Receiver<(Errand, Found)>,
    known: HashMap<Errand, Known>,
}

struct Known {
    found: Option<IpAddr>,
    /// Why there is none, where somebody should know.
    trouble: Option<String>,
    /// Whether it is wanted at present.
    wanted: bool,
    out: bool,
    due: Instant,
}

type Found = Result<IpAddr, Missing>;

/// Why it is not found.
enum Missing {
    /// Who it was before is it no more, and nobody that can be probed is it now.
    Gone(String),
    /// Who it was may be it still. Without words where that is as it should be.
    Unknown(Option<String>),
}

impl Scout {
    pub(crate) fn start() -> Self {
        let (send, errands) = mpsc::channel::<(Errand, Option<IpAddr>)>();
        let (back, returns) = mpsc::channel();
        std::thread::spawn(move || {
            for (errand, before) in errands {
                let found = match errand.sought {
                    Sought::Modem => modem(&errand.way),
                    Sought::FirstHop(family) => first_hop(&errand.way, family, before),
                    Sought::DnsOverTcp(to) => over_tcp(&errand.way, to),
                };
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
                match found {
                    // A moment's silence does not make forget who answered before.
                    Err(Missing::Unknown(_)) if known.found.is_some() => {}
                    Err(missing) => {
                        let trouble = match missing {
                            Missing::Gone(why) => Some(why),
                            Missing::Unknown(why) => why,
                        };
                        news |= known.found.take().is_some() || known.trouble != trouble;
                        if let Some(why) = trouble.as_ref().filter(|_| known.trouble != trouble) {
                            log::info!("{why}");
                        }
                        known.trouble = trouble;
                    }
                    Ok(address) => {
                        news |= known.found != Some(address);
                        known.found = Some(address);
                        known.trouble = None;
                    }
                }
            }
        }
        news
    }

    /// Everything is looked at anew; with other routes also what has been looked for lately.
    pub(crate) fn begin(&mut self, rerouted: bool) {
        let now = Instant::now();
        // Where hosts roam there is no end of resolvers.
        self.known.retain(|errand, known| {
            known.wanted || known.out || !matches!(errand.sought, Sought::DnsOverTcp(_))
        });
        for known in self.known.values_mut() {
            known.wanted = false;
            if rerouted {
                known.due = now;
            }
        }
    }

    /// What was wanted and not found.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = String> + '_ {
        let wanted = self.known.values().filter(|k| k.wanted);
        wanted.filter_map(|k| k.trouble.clone())
    }

    /// Where it is, as far as that is known by now.
    pub(crate) fn find(&mut self, errand: Errand) -> Option<IpAddr> {
        let now = Instant::now();
        let known = self.known.entry(errand.clone()).or_insert(Known {
            found: None,
            trouble: None,
            wanted: true,
            out: false,
            due: now,
        });
        known.wanted = true;
        let stays = errand.sought.stays() && known.found.is_some();
        if !stays && !known.out && now >= known.due {
            known.due = now + if known.found.is_some() { REVIEW } else { AGAIN };
            // The thread lives as long as this end of its queue.
            known.out = self.send.send((errand, known.found)).is_ok();
        }
        known.found
    }
}

/// Most lines have none that answers, and nobody need know.
fn modem(way: &Way) -> Found {
    let there = leads_to(way, MODEM).and_then(|leads| Ok(leads && answers(way, MODEM)?));
    match there {
        Ok(true) => Ok(MODEM),
        Ok(false) => Err(Missing::Unknown(None)),
        Err(e) => {
            log::debug!("the modem through {}: {e}", way.interface);
            Err(Missing::Unknown(None))
        }
    }
}

/// Many routers take questions over UDP only, and nobody need know.
fn over_tcp(way: &Way, to: SocketAddr) -> Found {
    let lookup = Lookup {
        tcp: true,
        ..Lookup::default()
    };
    match ask::is_answered(way, to, &lookup, PATIENCE) {
        Ok(true) => Ok(to.ip()),
        Ok(false) => Err(Missing::Unknown(None)),
        Err(e) => {
            log::debug!("DNS over TCP to {to} through {}: {e}", way.interface);
            Err(Missing::Unknown(None))
        }
    }
}

fn first_hop(way: &Way, family: Family, before: Option<IpAddr>) -> Found {
    let of = format!("the provider's first hop through {}", way.interface);
    let unknown = |why: String| Missing::Unknown(Some(why));
    let (mut found, mut nowhere) = (None, 0);
    // Where a hop misses every datagram, the next one looks like the first: another one than
    // before has to be seen twice.
    for _ in 0..SEEN {
        let (outcome, is_whole) =
            search(way, family).map_err(|e| unknown(format!("{of} is not known: {e}")))?;
        let address = match outcome {
            Outcome::Found { address, .. } => address,
            Outcome::None { answered } => {
                let why = format!(
                    "{of} is not known: {answered} hops answer, none of them from a public address"
                );
                // While the line is well, that is how it is, unless who it was only says nothing of what passes.
                let Some(before) = before.filter(|_| is_whole) else {
                    return Err(unknown(why));
                };
                nowhere += 1;
                if nowhere == SEEN {
                    return Err(match answers(way, before) {
                        Ok(false) => Missing::Gone(why),
                        Ok(true) | Err(_) => unknown(why),
                    });
                }
                continue;
            }
        };
        if before.is_none_or(|b| b == address) || found == Some(address) {
            found = Some(address);
            break;
        }
        if found.replace(address).is_some() {
            return Err(Missing::Unknown(None));
        }
    }
    let is_another = before.is_some() && found != before;
    if is_another && nowhere > 0 {
        // One of each is nothing seen twice.
        return Err(Missing::Unknown(None));
    }
    match found.map(|address| (address, answers(way, address))) {
        Some((address, Ok(true))) => Ok(address),
        Some((address, Ok(false))) => {
            let why = format!("{of} is {address}, which answers no ping");
            Err(match is_another {
                true => Missing::Gone(why),
                false => unknown(why),
            })
        }
        Some((_, Err(e))) => Err(unknown(format!("{of} cannot be pinged: {e}"))),
        None => Err(Missing::Unknown(None)),
    }
}

/// Looks for the first hop of the provider on the way to a well-known host; and whether that has answered.
fn search(way: &Way, family: Family) -> io::Result<(Outcome, bool)> {
    let far = FAR.iter().find(|(f, _)| *f == family);
    let far = far.and_then(|(_, ip)| ip.parse::<IpAddr>().ok());
    let far = far.ok_or(io::ErrorKind::InvalidInput)?;
    if !leads_to(way, far)? {
        return Err(io::Error::other(format!("no route to {far}")));
    }
    let any = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let from = SocketAddr::new(way.source.unwrap_or(any), FLOW);
    let to = SocketAddr::new(far, FAR_PORT);
    let builder = way.socket(ProbeSocket::udp(family));
    let socket = HopSocket::new(builder.clone().bind(from), to);
    let mut socket = socket
        .or_else(|_| HopSocket::new(builder, to))
        .map_err(io::Error::other)?;
    let mut is_whole = false;
    let mut hops = FirstHop::new(getrandom::u64()?, home_address(way, far)?);
    loop {
        match hops.step(clock::now()) {
            Step::Send { ttl, payload } => {
                // What cannot be sent is not answered either.
                let _ = socket.send(ttl, &payload);
            }
            Step::Wait(until) => {
                let left = Duration::from_nanos(until.saturating_since(clock::now()));
                socket.wait(left, |heard| match heard.word {
                    Word::Report(Report::Exceeded, quoted) => hops.exceeded(heard.from, quoted),
                    Word::Report(Report::Unreachable(Refusal::Port), _) if heard.from == far => {
                        is_whole = true;
                        hops.reached();
                    }
                    Word::Report(..) | Word::TooBig(..) | Word::Message(..) => {}
                })?;
            }
            Step::End(outcome) => return Ok((outcome, is_whole)),
        }
    }
}

/// Whether an interface is on a link of the household.
pub(crate) fn is_at_home(interface: &Interface) -> bool {
    let addresses = interface.addresses.iter().map(|a| a.ip);
    is_home_link(addresses, host::is_ipv6_router(&interface.name))
}

/// The address that what is sent to `to` this way leaves from, where that is on a link of the household.
fn home_address(way: &Way, to: IpAddr) -> io::Result<Option<IpAddr>> {
    let mut netlink = Netlink::open()?;
    let interface = netlink.interface(&way.interface)?;
    if interface.as_ref().is_some_and(|i| !is_at_home(i)) {
        return Ok(None);
    }
    let query = RouteQuery {
        interface: interface.map(|i| i.index),
        from: way.source,
        mark: way.mark,
        ..RouteQuery::to(to)
    };
    Ok(netlink.route_for(&query)?.and_then(|r| r.source))
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
    let cookie = getrandom::u64()?;
    // Any bits of a random number are one.
    let identifier = cookie as u16;
    let builder = if ping {
        ProbeSocket::ping(family)
    } else {
        ProbeSocket::raw_icmp(family, identifier)
    };
    let socket = way.socket(builder).build().map_err(io::Error::other)?;
    let socket = UdpSocket::from(OwnedFd::from(socket));
    let version = match family {
        Family::V4 => Version::V4,
        Family::V6 => Version::V6,
    };
    let (mut request, mut reply) = ([0; MIN_LEN], [0; 256]);
    for seq in 0..ECHOES {
        let echo = Echo {
            identifier,
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Closes the first connection, answers what is asked on the second one, and takes no more.
    fn hesitant(listener: TcpListener) {
        drop(listener.accept().unwrap());
        let (mut stream, _) = listener.accept().unwrap();
        let mut question = [0; 512];
        let len = stream.read(&mut question).unwrap();
        let mut answer = question[2..len].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80]);
        let len = answer.len() as u16;
        stream.write_all(&len.to_be_bytes()).unwrap();
        stream.write_all(&answer).unwrap();
    }

    #[test]
    fn a_resolver_is_asked_over_tcp_once_it_has_answered_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || hesitant(listener));
        let errand = Errand {
            way: Way::of(&"lo".into()),
            sought: Sought::DnsOverTcp(to),
        };
        let mut scout = Scout::start();
        let ask = |scout: &mut Scout| {
            scout.begin(true);
            let at_first = scout.find(errand.clone());
            while scout.known[&errand].out {
                scout.has_news();
                std::thread::sleep(Duration::from_millis(1));
            }
            (at_first, scout.find(errand.clone()))
        };
        assert_eq!(ask(&mut scout), (None, None));
        assert_eq!(scout.troubles().count(), 0);
        assert_eq!(ask(&mut scout), (None, Some(to.ip())));
        // What becomes of it then is for who asks it to tell.
        server.join().unwrap();
        assert_eq!(ask(&mut scout), (Some(to.ip()), Some(to.ip())));
        // Nobody wants it any more.
        scout.begin(false);
        scout.begin(false);
        assert!(scout.known.is_empty());
    }
}
