//! Echo requests beside the probes of a test: what becomes of them under load is what becomes of ICMP, which
//! a line may queue apart from everything else.

use std::collections::HashMap;
use std::net::SocketAddr;

use bufferbane_core::flight::Slot;
use bufferbane_core::icmp::{Framing, IcmpConfig, IcmpProber};
use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::sample::{Observation, SeriesIndex};
use bufferbane_core::time::{Monotonic, Stamp};
use bufferbane_core::wire::icmp::Version;
use bufferbane_linux_io::{Engine, Family, ProbeSocket, SocketId, Transmit, clock, host};
use rand_chacha::ChaCha12Rng;

use super::probes::Probes;
use super::spec::Spec;

/// They are sent this often, ns: 50 a second.
const INTERVAL_NS: u64 = 20_000_000;
/// Bytes of the ICMP message of each.
const SIZE: u16 = 64;
/// One without an answer after this long is lost, ns: buffers of two seconds exist.
const TIMEOUT_NS: u64 = 4_000_000_000;

/// See the module.
pub(super) struct Pings {
    socket: SocketId,
    remote: SocketAddr,
    prober: IcmpProber<Vec<Slot>>,
    tokens: HashMap<u32, SendToken>,
    pub(super) probes: Probes,
}

impl Pings {
    /// To the reflector of a test, through a socket of `engine`; `None` where this process may send none.
    pub(super) fn new(spec: &Spec, engine: &mut Engine, rng: &mut ChaCha12Rng) -> Option<Self> {
        let mut remote = spec.path.remote;
        remote.set_port(0);
        let family = Family::of(&remote.ip());
        let may_ping = host::icmp_access(family).ping;
        let config = IcmpConfig {
            series: SeriesIndex(0),
            version: if remote.is_ipv4() {
                Version::V4
            } else {
                Version::V6
            },
            framing: if remote.is_ipv4() && !may_ping {
                Framing::Ipv4Packet
            } else {
                Framing::Message
            },
            size: SIZE,
            interval_ns: INTERVAL_NS,
            spread_permille: 800,
            timeout_ns: TIMEOUT_NS,
        };
        let slots = vec![Slot::default(); 2 * (TIMEOUT_NS / INTERVAL_NS) as usize];
        let prober = IcmpProber::new(config, clock::now(), slots, rng);
        let socket = if may_ping {
            ProbeSocket::ping(family)
        } else {
            ProbeSocket::raw_icmp(family, prober.identifier())
        };
        let socket = spec.path.way().socket(socket).build().ok()?;
        Some(Self {
            socket: engine.add_socket(socket).ok()?,
            remote,
            prober,
            tokens: HashMap::new(),
            probes: Probes::default(),
        })
    }

    /// Whether what comes through this socket is theirs.
    pub(super) fn is_of(&self, socket: SocketId) -> bool {
        self.socket == socket
    }

    /// Sends the one that is due.
    pub(super) fn send_due(
        &mut self,
        engine: &mut Engine,
        next_key: &mut u32,
        rng: &mut ChaCha12Rng,
    ) {
        let now = clock::now();
        self.prober.handle_timeout(now);
        let mut message = [0; SIZE as usize];
        while let Some((len, token)) = self.prober.poll_transmit(now, rng, &mut message) {
            let key = *next_key;
            *next_key = key.wrapping_add(1);
            self.probes.handed(token.seq(), now);
            let transmit = Transmit::new(self.socket, self.remote, key);
            match engine.outbox().send(&transmit, &message[..len]) {
                Ok(()) => drop(self.tokens.insert(key, token)),
                Err(_) => self
                    .prober
                    .handle_sent(token, SendOutcome::Failed(nix::libc::ENOBUFS)),
            }
            // At once: what it waits before it leaves the host is part of the delay.
            let _ = engine.outbox().flush();
        }
    }

    /// What became of a send with this key, if it was one of theirs.
    pub(super) fn sent(&mut self, key: u32, outcome: SendOutcome) {
        if let Some(token) = self.tokens.remove(&key) {
            self.prober.handle_sent(token, outcome);
        }
    }

    /// Something came through their socket.
    pub(super) fn receive(&mut self, meta: &RecvMeta, bytes: &[u8]) {
        // A receive stamp of the kernel is older than now; without one, now is what there is.
        let now = clock::now();
        let at = Stamp {
            at: meta.at.at.min(now),
            ..meta.at
        };
        // Replies to others are none of ours.
        let _ = self.prober.handle_reply(&RecvMeta { at, ..*meta }, bytes);
    }

    /// When [`Pings::send_due`] is next needed.
    pub(super) fn poll_timeout(&self) -> Option<Monotonic> {
        self.prober.poll_timeout()
    }

    /// Takes down what has become of them.
    pub(super) fn observe(&mut self) {
        while let Some(observation) = self.prober.poll_observation() {
            let (Observation::New(s) | Observation::Revised(s)) = observation;
            self.probes.take(&s);
        }
    }
}
