//! One probed path: a prober of core with the socket it speaks through.

use std::net::SocketAddr;

use bufferbane_core::awaited::{Awaited, Place};
use bufferbane_core::drop_reason::DropCounters;
use bufferbane_core::flight::{LossSlot, Slot};
use bufferbane_core::icmp::IcmpProber;
use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::sample::Observation;
use bufferbane_core::session::client::{Client, SessionEvent};
use bufferbane_core::stamp::StampProber;
use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::{SocketId, clock};
use rand_core::Rng;

/// How long a transmit stamp may take before its probe is treated as unstamped, ns. Software stamps
/// come within microseconds, a NIC's within milliseconds.
const STAMP_PATIENCE_NS: u64 = 500_000_000;
/// Datagrams that may wait for their stamps at least.
const LEAST_AWAITED: usize = 8;

/// A client with its storage on the heap.
pub(crate) type BoxedClient = Client<Box<[Slot]>, Box<[LossSlot]>>;

/// A STAMP prober with its storage on the heap.
pub(crate) type BoxedStamp = StampProber<Box<[Slot]>, Box<[LossSlot]>>;

/// The prober of core that a unit drives.
#[derive(Debug)]
pub(crate) enum Prober {
    /// ICMP or ICMPv6 echo to one target.
    Icmp(Box<IcmpProber<Box<[Slot]>>>),
    /// STAMP with a reflector of others.
    Stamp(Box<BoxedStamp>),
    /// A session with one reflector, with all its streams.
    Session(Box<BoxedClient>),
}

/// A prober with its socket.
#[derive(Debug)]
pub(crate) struct Unit {
    /// Names it between the keeper, the probe thread and the recorder.
    pub(crate) id: u32,
    /// Where its probes go.
    pub(crate) remote: SocketAddr,
    /// The socket, or the errno that says why there is none.
    pub(crate) socket: Result<SocketId, i32>,
    pub(super) drops: DropCounters,
    prober: Prober,
    /// TOS of each stream's probes.
    tos: Vec<u8>,
    tokens: Awaited<Box<[Option<Place<SendToken>>]>>,
}

impl Unit {
    /// A unit without a socket. `in_flight` is the most datagrams that may wait for their stamps.
    pub(crate) fn new(
        id: u32,
        remote: SocketAddr,
        prober: Prober,
        tos: Vec<u8>,
        in_flight: usize,
    ) -> Self {
        let places = in_flight.next_power_of_two().max(LEAST_AWAITED);
        Self {
            id,
            remote,
            socket: Err(0),
            drops: DropCounters::default(),
            prober,
            tos,
            tokens: Awaited::new((0..places).map(|_| None).collect()),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Monotonic> {
        match &self.prober {
            Prober::Icmp(p) => p.poll_timeout(),
            Prober::Stamp(p) => p.poll_timeout(),
            Prober::Session(c) => c.poll_timeout(),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Monotonic) {
        match &mut self.prober {
            Prober::Icmp(p) => p.handle_timeout(now),
            Prober::Stamp(p) => p.handle_timeout(now),
            Prober::Session(c) => c.handle_timeout(now),
        }
    }

    pub(super) fn poll_transmit(
        &mut self,
        now: Monotonic,
        rng: &mut impl Rng,
        out: &mut [u8],
    ) -> Option<(usize, SendToken)> {
        match &mut self.prober {
            Prober::Icmp(p) => p.poll_transmit(now, rng, out),
            Prober::Stamp(p) => {
                let wall_ns = clock::wall_now().unsigned_abs();
                p.poll_transmit(now, wall_ns, rng, out)
            }
            Prober::Session(c) => c.poll_transmit(now, rng, out),
        }
    }

    pub(super) fn handle_sent(&mut self, token: SendToken, outcome: SendOutcome) {
        match &mut self.prober {
            Prober::Icmp(p) => p.handle_sent(token, outcome),
            Prober::Stamp(p) => p.handle_sent(token, outcome),
            Prober::Session(c) => c.handle_sent(token, outcome),
        }
    }

    /// It goes on through another socket.
    pub(super) fn handle_socket(&mut self, socket: SocketId) {
        self.socket = Ok(socket);
        if let Prober::Session(c) = &mut self.prober {
            c.handle_new_socket();
        }
    }

    pub(super) fn handle_own_drops(&mut self) {
        match &mut self.prober {
            Prober::Icmp(p) => p.handle_own_drops(),
            Prober::Stamp(p) => p.handle_own_drops(),
            Prober::Session(c) => c.handle_own_drops(),
        }
    }

    pub(super) fn handle_reply(&mut self, now: Monotonic, meta: &RecvMeta, bytes: &mut [u8]) {
        let result = match &mut self.prober {
            Prober::Icmp(p) => p.handle_reply(meta, bytes),
            Prober::Stamp(p) => p.handle_reply(meta, bytes),
            Prober::Session(c) => c.handle_reply(now, meta, bytes),
        };
        if let Err(reason) = result {
            self.drops.count(reason);
        }
    }

    pub(super) fn poll_observation(&mut self) -> Option<Observation> {
        match &mut self.prober {
            Prober::Icmp(p) => p.poll_observation(),
            Prober::Stamp(p) => p.poll_observation(),
            Prober::Session(c) => c.poll_observation(),
        }
    }

    /// What has been answered is complete as it is: nothing more will be heard.
    pub(super) fn end_answered(&mut self) {
        match &mut self.prober {
            Prober::Icmp(p) => p.end_answered(),
            Prober::Stamp(p) => p.end_answered(),
            Prober::Session(c) => c.end_answered(),
        }
    }

    /// Observations that were lost since the last call for want of room.
    pub(super) fn take_overflowed(&mut self) -> u64 {
        match &mut self.prober {
            Prober::Icmp(p) => p.take_overflowed(),
            Prober::Stamp(p) => p.take_overflowed(),
            Prober::Session(c) => c.take_overflowed(),
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<SessionEvent> {
        match &mut self.prober {
            Prober::Icmp(_) | Prober::Stamp(_) => None,
            Prober::Session(c) => c.poll_event(),
        }
    }

    pub(super) fn skipped_slots(&self) -> u64 {
        match &self.prober {
            Prober::Icmp(p) => p.skipped_slots(),
            Prober::Stamp(p) => p.skipped_slots(),
            Prober::Session(c) => c.skipped_slots(),
        }
    }

    /// TOS octet of the datagram that `token` stands for, where it is not the socket's.
    pub(super) fn tos_of(&self, token: &SendToken) -> Option<u8> {
        token
            .stream()
            .and_then(|s| self.tos.get(usize::from(s)).copied())
            .filter(|t| *t != 0)
    }

    /// The key under which the stamp of the next datagram will come.
    pub(super) fn next_key(&self) -> u32 {
        self.tokens.next_key()
    }

    /// Keeps a token until its stamp comes, under [`Unit::next_key`].
    pub(super) fn keep_token(&mut self, token: SendToken, now: Monotonic) {
        if let Some(displaced) = self.tokens.insert(token, now) {
            self.handle_sent(displaced, SendOutcome::NoStamp);
        }
    }

    /// Gives the token kept under `key` back to the prober; a second stamp finds none.
    pub(super) fn return_token(&mut self, key: u32, outcome: SendOutcome) {
        if let Some(token) = self.tokens.take(key) {
            self.handle_sent(token, outcome);
        }
    }

    /// Gives back every token whose stamp has not come within its patience.
    pub(super) fn expire_tokens(&mut self, now: Monotonic) {
        self.expire(now, STAMP_PATIENCE_NS);
    }

    fn expire(&mut self, now: Monotonic, patience_ns: u64) {
        while let Some(token) = self.tokens.take_expired(now, patience_ns) {
            self.handle_sent(token, SendOutcome::NoStamp);
        }
    }

    /// Gives back every token: no stamp can come through a socket that is closed.
    pub(super) fn abandon_tokens(&mut self) {
        self.expire(Monotonic::MAX, 0);
    }
}
