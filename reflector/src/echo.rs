//! The echo thread: one ring, all sockets, and core's responder between them.
//!
//! It allocates nothing once it has started, takes no lock and touches no disk. Other threads reach
//! it over a bounded channel and the ring's waker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{ClockFacts, KeyEntry, Reflector, Session};
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_core::time::{Monotonic, Stamp};
use bufferbane_core::wire::header::{Kind, Prefix};
use bufferbane_linux_io::netlink::Netlink;
use bufferbane_linux_io::stamping::{self, CardClock, Stamping};
use bufferbane_linux_io::{
    Engine, EngineOptions, Event, Family, Outbox, ProbeSocket, Queued, SocketId, Transmit, Waker,
    clock,
};
use nix::errno::Errno;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use zerocopy::FromZeros;

use crate::allowance::Allowance;
use crate::config::{Client, Config, MAX_LISTEN};
use crate::datagrams::{Datagrams, News};
use crate::departures::{Departures, Sent};
use crate::stamp::{MAX_STAMP_LISTEN, StampAnswers};
use crate::stats::{KeyCounts, Snapshot};
use crate::streams::{Asked, Told, Way};
use crate::train::Trains;

/// The receive buffer asked for, bytes: a burst of some thousand probes. What the kernel does not
/// grant without privilege (`net.core.rmem_max`) is done without.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Streams that there is room for, per session: a stream outlives the sessions it goes through.
const STREAMS_PER_SESSION: usize = 2;
/// The thread comes by at least this often, to look at the clock and to show that it lives, ns.
const ROUND_NS: u64 = 500_000_000;

/// What other threads ask of it.
pub(crate) enum Command {
    /// To fill this in and hand it back.
    Fill(Box<Snapshot>),
    /// Other keys and limits.
    Keys(Box<[KeyEntry]>, Vec<Allowance>),
    /// To end.
    Stop,
}

/// How it reaches the streams thread.
pub(crate) struct Mail {
    pub(crate) asked: SyncSender<Asked>,
    pub(crate) told: Receiver<Told>,
    pub(crate) news: Receiver<News>,
    pub(crate) streams: Waker,
}

/// What it tells once it has started.
pub(crate) struct Started {
    pub(crate) waker: Waker,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) stamp_listen: Vec<SocketAddr>,
    pub(crate) warnings: Vec<String>,
}

/// The clients' keys as core wants them.
pub(crate) fn keys(clients: &[Client], sessions_per_client: u16) -> Box<[KeyEntry]> {
    let entry = |(index, client): (usize, &Client)| {
        let (index, max_pps) = (index as u16, client.max_pps);
        let keys = client.keys.clone();
        keys.into_iter()
            .map(move |key| KeyEntry::new(key, index, max_pps, sessions_per_client))
    };
    clients.iter().enumerate().flat_map(entry).collect()
}

pub(crate) type Responder = Reflector<Box<[KeyEntry]>, Box<[Session]>, Box<[StreamRecord]>>;

/// The state of the thread beside its engine.
struct Answering {
    responder: Responder,
    departures: Departures<SendToken>,
    rng: ChaCha20Rng,
    /// Where a request is opened.
    request: Box<[u8]>,
    residence: Box<Histogram>,
    /// Requests that could not be answered because the ring was full or the kernel had no room. What
    /// fails for its destination (no route, forbidden) is not among them: it concerns one client.
    overload: u64,
    /// By the socket's place: its own count as last seen, wrapping.
    socket_counts: [u32; MAX_LISTEN + MAX_STAMP_LISTEN],
    socket_drops: u64,
    woken: bool,
    mail: Mail,
    stamp: Option<StampAnswers>,
    trains: Trains,
    datagrams: Datagrams,
}

/// The thread.
pub(crate) struct Echo {
    engine: Engine,
    answering: Answering,
    started: Monotonic,
    clock: ClockFacts,
    commands: Receiver<Command>,
    snapshots: SyncSender<Box<Snapshot>>,
    alive: Arc<AtomicU64>,
}

impl Echo {
    /// Opens the ring and the sockets; to be called on the thread that will [`Echo::run`].
    pub(crate) fn start(
        config: &Config,
        commands: Receiver<Command>,
        snapshots: SyncSender<Box<Snapshot>>,
        alive: Arc<AtomicU64>,
        mail: Mail,
        clients: Vec<Allowance>,
    ) -> Result<(Self, Started), String> {
        let options = EngineOptions {
            sockets: (MAX_LISTEN + MAX_STAMP_LISTEN) as u16,
            ..EngineOptions::reflector()
        };
        let mut engine = Engine::new(&options).map_err(|e| e.to_string())?;
        let (listen, warnings) = open_sockets(&mut engine, config)?;
        let (stamp, stamp_listen) = match &config.stamp {
            Some(stamp) => {
                let (answers, listen) = StampAnswers::start(&mut engine, stamp)?;
                (Some(answers), listen)
            }
            None => (None, Vec::new()),
        };
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| format!("random numbers: {e}"))?;
        let mut rng = ChaCha20Rng::from_seed(seed);
        let sessions = usize::from(config.limits.sessions);
        let responder = Reflector::new(
            keys(&config.clients, config.limits.sessions_per_client),
            zeroed::<Session>(sessions, "sessions")?,
            zeroed::<StreamRecord>(sessions * STREAMS_PER_SESSION, "records of streams")?,
            config.limits.failed_opens_per_second,
            &mut rng,
        );
        let started = Started {
            waker: engine.waker(),
            listen,
            stamp_listen,
            warnings,
        };
        let echo = Self {
            engine,
            answering: Answering {
                responder,
                departures: Departures::new(),
                rng,
                request: vec![0; EngineOptions::reflector().receive_buffer_bytes]
                    .into_boxed_slice(),
                residence: Box::default(),
                overload: 0,
                socket_counts: [0; MAX_LISTEN + MAX_STAMP_LISTEN],
                socket_drops: 0,
                woken: false,
                mail,
                stamp,
                trains: Trains::new(clients.clone()),
                datagrams: Datagrams::new(clients),
            },
            started: clock::now(),
            clock: ClockFacts::default(),
            commands,
            snapshots,
            alive,
        };
        Ok((echo, started))
    }

    /// Echoes until it is told to stop.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let mut next_round = Monotonic::ZERO;
        loop {
            let now = clock::now();
            if now >= next_round {
                self.look_at_the_clock();
                self.answering.datagrams.handle_timeout(now);
                self.alive.store(now.as_nanos(), Ordering::Relaxed);
                next_round = now.saturating_add(ROUND_NS);
            }
            let answering = &mut self.answering;
            let until = if answering.trains.is_sending() {
                now
            } else {
                let due = answering.datagrams.poll_timeout(now);
                due.map_or(next_round, |due| due.min(next_round))
            };
            self.engine
                .wait(until, &mut |out: &mut Outbox<'_>, event: Event<'_>| {
                    answering.handle(out, event);
                })
                .map_err(|e| e.to_string())?;
            if self.answering.trains.is_sending() {
                self.answering.send_cars(&mut self.engine.outbox());
            }
            let now = clock::now();
            if self.answering.datagrams.poll_timeout(now) == Some(now) {
                self.answering.send_datagrams(&mut self.engine.outbox());
            }
            if std::mem::take(&mut self.answering.woken) {
                // Before the report by which a client hears of its test.
                while let Ok(news) = self.answering.mail.news.try_recv() {
                    self.answering.datagrams.hear(news);
                }
                self.answering.send_reports(&mut self.engine.outbox());
                while let Ok(command) = self.commands.try_recv() {
                    match command {
                        Command::Stop => return Ok(()),
                        Command::Keys(keys, clients) => {
                            self.answering.responder.replace_keys(keys);
                            self.answering.trains.set_clients(clients.clone());
                            self.answering.datagrams.set_clients(clients);
                        }
                        Command::Fill(mut snapshot) => {
                            self.fill(&mut snapshot);
                            // Whoever asked may have gone.
                            let _ = self.snapshots.try_send(snapshot);
                        }
                    }
                }
            }
        }
    }

    fn look_at_the_clock(&mut self) {
        if self.engine.take_clock_step().is_some() {
            self.clock.epoch = self.clock.epoch.wrapping_add(1);
        }
        self.clock.disciplined = clock::is_disciplined();
        self.answering.responder.set_clock(self.clock);
        if let Some(stamp) = &mut self.answering.stamp {
            stamp.set_synchronised(self.clock.disciplined);
        }
    }

    fn fill(&self, s: &mut Snapshot) {
        let a = &self.answering;
        let now = clock::now();
        s.now_ns = now.as_nanos();
        s.started_ns = self.started.as_nanos();
        s.answered = a.responder.answered();
        s.drops = *a.responder.counters();
        s.overload = a.overload;
        s.trains = a.trains.counts();
        s.datagrams = a.datagrams.counts();
        s.stamp = a.stamp.as_ref().map(StampAnswers::counts);
        s.socket_drops = a.socket_drops;
        s.engine = self.engine.counters();
        s.residence.clone_from(&a.residence);
        s.disciplined = self.clock.disciplined;
        s.clock_epoch = self.clock.epoch;
        s.keys.clear();
        let keys = a.responder.keys().iter();
        // No more than there was room made for.
        s.keys.extend(
            keys.map(|k| KeyCounts {
                client: k.client,
                answered: k.answered(),
                displaced: k.displaced(),
                drops: *k.drops(),
            })
            .take(s.keys.capacity()),
        );
        s.session_count = a.responder.sessions(now).count();
        s.sessions.clear();
        s.sessions
            .extend(a.responder.sessions(now).take(s.sessions.capacity()));
    }
}

impl Answering {
    fn handle(&mut self, out: &mut Outbox<'_>, event: Event<'_>) {
        match event {
            Event::Received {
                socket,
                meta,
                bytes,
            } => self.receive(out, socket, meta, bytes),
            Event::TxStamp { key, stamp, .. } => self.stamped(key, stamp),
            Event::Sent {
                socket,
                key,
                errno: Some(errno),
            } => {
                if self.stamp.as_ref().is_some_and(|s| s.owns(socket)) {
                    return;
                }
                // An echo that was not sent is as little lost by the line as one that found no room.
                let no_room = is_for_want_of_room(errno);
                self.datagrams.failed(key);
                for sent in self.departures.take(key) {
                    if no_room {
                        self.overload += 1;
                    } else {
                        let failed = SendOutcome::Failed(errno);
                        self.responder.handle_sent(sent.token, failed);
                    }
                }
            }
            Event::Wake => self.woken = true,
            Event::Sent { errno: None, .. } | Event::SocketError { .. } => {}
        }
    }

    fn receive(&mut self, out: &mut Outbox<'_>, socket: SocketId, meta: RecvMeta, bytes: &[u8]) {
        if let Some(seen) = self.socket_counts.get_mut(socket.index()) {
            self.socket_drops += u64::from(meta.socket_drops.wrapping_sub(*seen));
            *seen = meta.socket_drops;
        }
        if let Some(stamp) = self.stamp.as_mut().filter(|s| s.owns(socket)) {
            self.overload += u64::from(!stamp.receive(out, socket, &meta, bytes));
            return;
        }
        let len = bytes.len().min(self.request.len());
        let request = &mut self.request[..len];
        request.copy_from_slice(&bytes[..len]);
        match Prefix::kind_of(request) {
            Ok(Kind::Order) => return self.pass_on(socket, &meta, len),
            Ok(Kind::Train) => return self.trains.receive(&mut self.responder, &meta, request),
            Ok(Kind::Load) => {
                let (datagrams, responder) = (&mut self.datagrams, &mut self.responder);
                return datagrams.receive(responder, &meta, request);
            }
            Ok(Kind::TrainAsk) => return self.answer_ask(out, socket, &meta, len),
            _ => {}
        }
        let arrived = meta.at.at;
        let transmit = Transmit {
            // From the address that was hit, whatever the routing table would choose.
            from: meta.to,
            ..Transmit::new(socket, meta.from, self.departures.next_key())
        };
        let meta = RecvMeta {
            // What was lost for want of room here is as little the line's as what the socket lost.
            socket_drops: meta.socket_drops.wrapping_add(self.overload as u32),
            ..meta
        };
        let (responder, rng) = (&mut self.responder, &mut self.rng);
        let mut token = None;
        // No answer is longer than what it answers.
        let queued = out.send_joined(&transmit, len, |room| {
            let answer = responder.handle_request(clock::now(), &meta, request, room, rng);
            // Why there is none has been counted.
            let answer = answer.ok()?;
            token = answer.token;
            Some(answer.len)
        });
        let with = match queued {
            Ok(Queued::Nothing) => return,
            Ok(Queued::First) => None,
            Ok(Queued::With(first)) => Some(first),
            Err(_) => {
                // It was not even queued: no destination does that.
                self.overload += 1;
                return;
            }
        };
        let sent = token.map(|token| Sent { token, arrived });
        if let Some(displaced) = self.departures.left(sent, with) {
            responder.handle_sent(displaced, SendOutcome::NoStamp);
        }
    }

    /// Hands an order to the streams thread; one that finds no room there is asked again.
    fn pass_on(&mut self, socket: SocketId, meta: &RecvMeta, len: usize) {
        let request = &mut self.request[..len];
        // Why it does not open has been counted.
        let Ok((from, order)) = self.responder.open_order(clock::now(), meta, request) else {
            return;
        };
        let way = Way {
            socket,
            peer: meta.from,
            local: meta.to,
        };
        let figures = self.datagrams.pass_by(from, way, &order);
        let asked = Asked {
            from,
            order,
            way,
            figures,
        };
        if self.mail.asked.try_send(asked).is_ok() {
            self.mail.streams.wake();
        } else {
            self.overload += 1;
        }
    }

    /// Answers what is asked about a train; an answer that finds no room is asked for again.
    fn answer_ask(&mut self, out: &mut Outbox<'_>, socket: SocketId, meta: &RecvMeta, len: usize) {
        let transmit = Transmit {
            from: meta.to,
            ..Transmit::new(socket, meta.from, self.departures.next_key())
        };
        let request = &mut self.request[..len];
        let (trains, responder) = (&mut self.trains, &mut self.responder);
        let queued = out.send_with(&transmit, |room| {
            trains.answer(responder, socket, meta, request, room)
        });
        match queued {
            Ok(true) => self.left_unawaited(),
            Ok(false) => {}
            Err(_) => self.overload += 1,
        }
    }

    /// Sends some of the trains to clients.
    fn send_cars(&mut self, out: &mut Outbox<'_>) {
        let (departures, responder) = (&mut self.departures, &mut self.responder);
        self.trains.send_some(responder, departures, out);
    }

    /// Sends what is due of tests over UDP.
    fn send_datagrams(&mut self, out: &mut Outbox<'_>) {
        let (departures, responder) = (&mut self.departures, &mut self.responder);
        self.datagrams.send_some(responder, departures, out);
    }

    /// What has just been queued under the next key is no echo.
    fn left_unawaited(&mut self) {
        if let Some(displaced) = self.departures.left(None, None) {
            self.responder.handle_sent(displaced, SendOutcome::NoStamp);
        }
    }

    /// Seals and sends what the streams thread has to say.
    fn send_reports(&mut self, out: &mut Outbox<'_>) {
        while let Ok(told) = self.mail.told.try_recv() {
            let Some(datagram) = self.responder.write_report(told.to, &told.report) else {
                continue;
            };
            let transmit = Transmit {
                from: told.way.local,
                ..Transmit::new(told.way.socket, told.way.peer, self.departures.next_key())
            };
            if out.send(&transmit, &datagram).is_ok() {
                if let Some(displaced) = self.departures.left(None, None) {
                    self.responder.handle_sent(displaced, SendOutcome::NoStamp);
                }
            } else {
                self.overload += 1;
            }
        }
    }

    fn stamped(&mut self, key: u32, stamp: Stamp) {
        for sent in self.departures.take(key) {
            let stay_ns = stamp.at.saturating_since(sent.arrived);
            self.residence.add(stay_ns);
            self.responder
                .handle_sent(sent.token, SendOutcome::Stamped(stamp));
        }
    }
}

/// Whether an echo was not sent because this host had no room for it: whatever else the kernel says
/// is about where it was to go.
fn is_for_want_of_room(errno: i32) -> bool {
    matches!(
        Errno::from_raw(errno),
        Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN
    )
}

/// A table of zeroed memory, of which the kernel hands out only what is written to.
fn zeroed<T: FromZeros>(len: usize, what: &str) -> Result<Box<[T]>, String> {
    <[T]>::new_box_zeroed_with_elems(len)
        .map_err(|_| format!("no memory for {len} {what}: lower limits.sessions"))
}

/// The number of the clock of the network card that stamps what this host receives, if one does.
fn card() -> Option<u32> {
    let interfaces = match Netlink::open().and_then(|mut n| n.interfaces()) {
        Ok(interfaces) => interfaces,
        Err(e) => {
            log::info!("packets are stamped by the kernel: the interfaces cannot be listed: {e}");
            return None;
        }
    };
    let up = interfaces.iter().filter(|i| i.up).map(|i| i.name.as_str());
    let stamping = stamping::choose_among(up);
    log::info!("packets are stamped {stamping}");
    match stamping {
        Stamping::Card { number, .. } => Some(number),
        Stamping::Kernel(_) => None,
    }
}

/// One socket for each address. A host without IPv6 is content with the rest of the defaults.
fn open_sockets(
    engine: &mut Engine,
    config: &Config,
) -> Result<(Vec<SocketAddr>, Vec<String>), String> {
    let (mut listen, mut warnings) = (Vec::new(), Vec::new());
    let card = card();
    for address in &config.listen {
        let socket = ProbeSocket::udp(Family::of(&address.ip()))
            .bind(*address)
            .receive_buffer(RECEIVE_BUFFER)
            .stamps(true, config.transmit_stamps)
            .join_sends(true)
            .build();
        match socket {
            Ok(socket) => {
                listen.push(socket.local_addr());
                // Each socket reads the card's clock by itself.
                let clock = card.and_then(|number| CardClock::open(number).ok());
                let socket = match clock {
                    Some(clock) => socket.with_card(clock),
                    None => socket,
                };
                engine.add_socket(socket).map_err(|e| e.to_string())?;
            }
            Err(e)
                if config.listen_is_default
                    && address.is_ipv6()
                    && !listen.is_empty()
                    && e.source.kind() != std::io::ErrorKind::AddrInUse =>
            {
                warnings.push(format!("IPv6 is left out: {e}"));
            }
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok((listen, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_destination_says_nothing_of_this_host() {
        use Errno::{
            EACCES, EAFNOSUPPORT, ECONNREFUSED, EHOSTUNREACH, EINVAL, EMSGSIZE, ENETDOWN,
            ENETUNREACH, EPERM,
        };
        for errno in [
            EACCES,
            EAFNOSUPPORT,
            ECONNREFUSED,
            EHOSTUNREACH,
            EINVAL,
            EMSGSIZE,
            ENETDOWN,
            ENETUNREACH,
            EPERM,
        ] {
            assert!(!is_for_want_of_room(errno as i32), "{errno}");
        }
        for errno in [Errno::ENOBUFS, Errno::ENOMEM, Errno::EAGAIN] {
            assert!(is_for_want_of_room(errno as i32), "{errno}");
        }
    }
}
