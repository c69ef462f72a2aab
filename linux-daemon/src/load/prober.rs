//! The session in which a test asks and probes, through a socket and a ring of its own.

use std::collections::HashMap;
use std::net::SocketAddr;

use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::limits::{MAX_DATAGRAM, RECEIVE_RECORD_BITS};
use bufferbane_core::load::guest::Guest;
use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::sample::{Observation, SeriesIndex};
use bufferbane_core::seal::PresharedKey;
use bufferbane_core::session::client::{Client, SessionEvent, StreamConfig};
use bufferbane_core::time::{Monotonic, Stamp};
use bufferbane_core::wire::header::{Kind as Message, Prefix};
use bufferbane_core::wire::load::Order;
use bufferbane_linux_io::{
    Engine, EngineOptions, Event, Family, ProbeSocket, SocketId, Transmit, clock,
};
use rand_chacha::ChaCha12Rng;

use super::Kind;
use super::datagrams::{self, Datagrams};
use super::drops::Drops;
use super::pings::Pings;
use super::probes::Probes;
use super::spec::Spec;

/// Probes are sent this often, ns: 100 a second.
const INTERVAL_NS: u64 = 10_000_000;
/// Bytes of UDP payload of each.
const SIZE: u16 = 128;
/// A probe without an answer after this long is lost, ns: buffers of two seconds exist.
const TIMEOUT_NS: u64 = 4_000_000_000;
/// A transmit stamp that has not come after this long will not come, ns.
const STAMP_PATIENCE_NS: u64 = 4_000_000_000;
/// Everything is looked at this often, ns.
const TICK_NS: u64 = 20_000_000;
/// The receive buffer asked for, bytes: what comes in 30 ms at 1 Gbit/s.
const RECEIVE_BUFFER: usize = 4 << 20;

type Session = Client<Vec<Slot>, Vec<LossSlot>>;

/// See the module.
pub(super) struct Prober {
    engine: Engine,
    socket: SocketId,
    remote: SocketAddr,
    client: Session,
    /// Tokens of datagrams whose stamps are awaited, by key, and since when.
    tokens: HashMap<u32, (SendToken, Monotonic)>,
    next_key: u32,
    pub(super) probes: Probes,
    /// Beside them, where they are part of what is tested.
    pub(super) pings: Option<Pings>,
    pub(super) drops: Drops,
}

impl Prober {
    pub(super) fn new(spec: &Spec, rng: &mut ChaCha12Rng) -> Result<Self, String> {
        let options = EngineOptions {
            sockets: 2,
            send_slot_bytes: datagrams::AT_ONCE * usize::from(datagrams::SIZE),
            ..EngineOptions::prober()
        };
        let mut engine = Engine::new(&options).map_err(|e| e.to_string())?;
        let socket = ProbeSocket::udp(Family::of(&spec.path.remote.ip()));
        let way = spec.path.way();
        let socket = way
            .socket(socket)
            .receive_buffer(RECEIVE_BUFFER)
            .join_sends(spec.offer.is_some())
            .build()
            .map_err(|e| e.to_string())?;
        let socket = engine.add_socket(socket).map_err(|e| e.to_string())?;
        let now = clock::now();
        let mut client = Client::new(PresharedKey::clone(&spec.path.key), now, rng);
        let config = StreamConfig {
            series: SeriesIndex(0),
            size: SIZE,
            interval_ns: INTERVAL_NS,
            spread_permille: 800,
            timeout_ns: TIMEOUT_NS,
        };
        let slots = vec![Slot::default(); 2 * (TIMEOUT_NS / INTERVAL_NS) as usize];
        let losses = vec![LossSlot::default(); RECEIVE_RECORD_BITS];
        // The first stream of a client is never one too many.
        let _ = client.add_stream(config, now, slots, losses, rng);
        let with_pings = spec.kind == Kind::Rrul;
        let pings = with_pings
            .then(|| Pings::new(spec, &mut engine, rng))
            .flatten();
        Ok(Self {
            engine,
            socket,
            remote: spec.path.remote,
            client,
            tokens: HashMap::new(),
            next_key: 0,
            probes: Probes::default(),
            pings,
            drops: Drops::default(),
        })
    }

    /// Bytes of a probe, and of its answer, as an interface counts them: with the headers of Ethernet, IP and UDP.
    pub(super) fn frame_bytes(&self) -> u64 {
        let ip = if self.remote.is_ipv6() { 40 } else { 20 };
        u64::from(SIZE) + 14 + ip + 8
    }

    pub(super) fn is_answering(&self) -> bool {
        self.client.is_answering()
    }

    /// Whether the reflector may have a session that cannot be ended from here yet.
    pub(super) fn is_joining(&self) -> bool {
        self.client.is_joining()
    }

    /// Sends what is due, of the test's datagrams too, and takes what comes until the next tick.
    pub(super) fn step(
        &mut self,
        rng: &mut ChaCha12Rng,
        guest: &mut Guest,
        mut datagrams: Option<&mut Datagrams>,
    ) -> Result<(), String> {
        let now = clock::now();
        self.client.handle_timeout(now);
        self.expire_tokens(now);
        let mut datagram = [0; MAX_DATAGRAM];
        while let Some((len, token)) = self.client.poll_transmit(now, rng, &mut datagram) {
            self.send(token, &datagram[..len]);
        }
        if self.client.is_answering() {
            guest.handle_timeout(now);
            if let Some(order) = guest.poll_order(now) {
                self.ask(&order);
            }
        }
        if let Some(pings) = &mut self.pings {
            pings.send_due(&mut self.engine, &mut self.next_key, rng);
        }
        if let Some(datagrams) = &mut datagrams {
            let transmit = Transmit::new(self.socket, self.remote, 0);
            let mut outbox = self.engine.outbox();
            datagrams.send_due(now, &transmit, &mut self.next_key, &mut outbox);
        }
        let until = [
            self.client.poll_timeout(),
            guest.poll_timeout(),
            datagrams.as_deref().and_then(Datagrams::poll_timeout),
            self.pings.as_ref().and_then(Pings::poll_timeout),
        ];
        let tick = now.saturating_add(TICK_NS);
        let until = until.into_iter().flatten().fold(tick, Monotonic::min);
        self.wait(until, guest, datagrams)?;
        while let Some(observation) = self.client.poll_observation() {
            let (Observation::New(s) | Observation::Revised(s)) = observation;
            self.probes.take(&s);
        }
        if let Some(pings) = &mut self.pings {
            pings.observe();
        }
        while let Some(event) = self.client.poll_event() {
            if let SessionEvent::RemoteDrops(more) = event {
                self.drops.at_reflector(more);
            }
        }
        Ok(())
    }

    fn wait(
        &mut self,
        until: Monotonic,
        guest: &mut Guest,
        mut datagrams: Option<&mut Datagrams>,
    ) -> Result<(), String> {
        let Self {
            engine,
            client,
            tokens,
            drops,
            pings,
            ..
        } = self;
        let mut copy = [0; 2048];
        engine
            .wait(until, &mut |_, event| match event {
                Event::Received {
                    socket,
                    meta,
                    bytes,
                } => {
                    if let Some(pings) = pings.as_mut().filter(|p| p.is_of(socket)) {
                        return pings.receive(&meta, bytes);
                    }
                    if drops.arrived(meta.socket_drops) {
                        client.handle_own_drops();
                    }
                    if let Some(datagram) = copy.get_mut(..bytes.len()) {
                        datagram.copy_from_slice(bytes);
                        match &mut datagrams {
                            Some(d) if Prefix::kind_of(datagram) == Ok(Message::Load) => {
                                d.receive(meta.at.at, datagram);
                            }
                            _ => receive(client, guest, &meta, datagram),
                        }
                    }
                }
                Event::TxStamp { key, stamp, .. } => {
                    if let Some((token, _)) = tokens.remove(&key) {
                        client.handle_sent(token, SendOutcome::Stamped(stamp));
                    } else if let Some(pings) = pings {
                        pings.sent(key, SendOutcome::Stamped(stamp));
                    }
                }
                Event::Sent {
                    key,
                    errno: Some(errno),
                    ..
                } => {
                    if let Some((token, _)) = tokens.remove(&key) {
                        client.handle_sent(token, SendOutcome::Failed(errno));
                    } else if let Some(datagrams) = &mut datagrams {
                        datagrams.failed(key);
                    } else if let Some(pings) = pings {
                        pings.sent(key, SendOutcome::Failed(errno));
                    }
                }
                Event::Sent { errno: None, .. } | Event::SocketError { .. } | Event::Wake => {}
            })
            .map(drop)
            .map_err(|e| e.to_string())
    }

    /// Seals an order and queues it; one that finds no room is asked again.
    fn ask(&mut self, order: &Order) {
        if let Some(datagram) = self.client.write_order(order) {
            let transmit = Transmit::new(self.socket, self.remote, self.key());
            let _ = self.engine.outbox().send(&transmit, &datagram);
        }
    }

    /// The same at once, for who does not come back to [`Prober::step`].
    pub(super) fn ask_last(&mut self, order: &Order) {
        self.ask(order);
        let _ = self.engine.outbox().flush();
    }

    fn key(&mut self) -> u32 {
        let key = self.next_key;
        self.next_key = key.wrapping_add(1);
        key
    }

    fn send(&mut self, token: SendToken, datagram: &[u8]) {
        let key = self.key();
        let transmit = Transmit::new(self.socket, self.remote, key);
        let now = clock::now();
        if token.stream().is_some() {
            self.probes.handed(token.seq(), now);
        }
        match self.engine.outbox().send(&transmit, datagram) {
            Ok(()) => drop(self.tokens.insert(key, (token, now))),
            Err(_) => self
                .client
                .handle_sent(token, SendOutcome::Failed(nix::libc::ENOBUFS)),
        }
        // At once: what a probe waits before it leaves the host is part of the delay.
        let _ = self.engine.outbox().flush();
    }

    fn expire_tokens(&mut self, now: Monotonic) {
        let old = |since: &Monotonic| now.saturating_since(*since) > STAMP_PATIENCE_NS;
        let expired: Vec<u32> = self
            .tokens
            .iter()
            .filter(|(_, (_, since))| old(since))
            .map(|(key, _)| *key)
            .collect();
        for key in expired {
            if let Some((token, _)) = self.tokens.remove(&key) {
                self.client.handle_sent(token, SendOutcome::NoStamp);
            }
        }
    }
}

fn receive(client: &mut Session, guest: &mut Guest, meta: &RecvMeta, datagram: &mut [u8]) {
    let now = clock::now();
    if Prefix::kind_of(datagram) == Ok(Message::Report) {
        if let Ok(report) = client.open_report(now, datagram) {
            // One that answers no order of this test is no concern of it.
            let _ = guest.handle_report(now, &report);
        }
        return;
    }
    // A receive stamp of the kernel is older than now; without one, now is what there is.
    let at = if meta.at.at > now {
        Stamp { at: now, ..meta.at }
    } else {
        meta.at
    };
    // What is none of ours is dropped.
    let _ = client.handle_reply(now, &RecvMeta { at, ..*meta }, datagram);
}
