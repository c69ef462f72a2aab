//! The Session-Reflector of RFC 8762: answers configured addresses, and never by more than it got.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::ops::DerefMut;

use crate::drop_reason::{DropCounters, DropReason};
use crate::packet::RecvMeta;
use crate::time::Monotonic;
use crate::wire::stamp::{ErrorEstimate, Format, Key, Reply, Request};

const SECOND_NS: u64 = 1_000_000_000;
/// A sender that has been quiet for this long is forgotten when its place is needed, ns.
const IDLE_NS: u64 = 60 * SECOND_NS;

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// One of them.
    pub address: IpAddr,
    /// How many bits they share.
    pub prefix: u8,
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Subnet {
    /// Whether `ip` is one of them.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (bits, width) = match (self.address, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
            _ => return false,
        };
        let free = width - u32::from(self.prefix).min(width);
        bits.checked_shr(free).unwrap_or(0) == 0
    }
}

/// Somebody who is answered; the caller lends a slice of these.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer(Option<Known>);

#[derive(Clone, Copy, Debug)]
struct Known {
    from: SocketAddr,
    session: u16,
    next: u32,
    used: Monotonic,
}

/// The wall clock of the reflector at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampClock {
    /// Wall time minus monotonic time, ns.
    pub offset_ns: i64,
    /// Whether it is synchronised to an outside clock.
    pub synchronised: bool,
    /// Within what error, ns.
    pub error_ns: u64,
}

impl StampClock {
    fn wall_ns(&self, at: Monotonic) -> u64 {
        at.as_nanos().saturating_add_signed(self.offset_ns)
    }
}

/// Answers STAMP requests in stateful mode: replies to a sender (address, port, session identifier)
/// are numbered from 0, so that the sender can tell the direction of a loss.
#[derive(Debug)]
pub struct StampResponder<A, P> {
    allow: A,
    peers: P,
    key: Option<Key>,
    max_pps: u32,
    /// How many replies may be sent at once, in billionths.
    credit: u64,
    credit_at: Monotonic,
    answered: u64,
    drops: DropCounters,
}

impl<A, P> StampResponder<A, P>
where
    A: core::ops::Deref<Target = [Subnet]>,
    P: DerefMut<Target = [Peer]>,
{
    /// A responder that answers at most `max_pps` requests per second in all, of the addresses in
    /// `allow`, and with a key only what is authenticated by it.
    pub fn new(allow: A, peers: P, key: Option<Key>, max_pps: u32) -> Self {
        Self {
            allow,
            peers,
            key,
            max_pps,
            credit: u64::from(max_pps) * SECOND_NS,
            credit_at: Monotonic::ZERO,
            answered: 0,
            drops: DropCounters::default(),
        }
    }

    /// How many requests were answered.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// How many were not, by reason.
    #[must_use]
    pub const fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// A request arrived; its reply, which is just as long, is written into `out`. Gives the length.
    ///
    /// # Errors
    /// Why it is not answered; that has been counted.
    pub fn handle_request(
        &mut self,
        now: Monotonic,
        clock: &StampClock,
        meta: &RecvMeta,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        let result = self.answer(now, clock, meta, bytes, out);
        match result {
            Ok(_) => self.answered += 1,
            Err(reason) => self.drops.count(reason),
        }
        result
    }

    fn answer(
        &mut self,
        now: Monotonic,
        clock: &StampClock,
        meta: &RecvMeta,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        if !self.allow.iter().any(|s| s.contains(meta.from.ip())) {
            return Err(DropReason::UnknownKey);
        }
        if meta.truncated {
            return Err(DropReason::Truncated);
        }
        if !self.spend(now) {
            return Err(DropReason::RateLimit);
        }
        let request = Request::parse(self.key.as_ref(), bytes)?;
        let seq = self
            .number(now, meta.from, request.session)
            .ok_or(DropReason::Full)?;
        // In the sender's own format, so that it need not know ours.
        let format: Format = ErrorEstimate::read(request.error).format;
        let error = ErrorEstimate {
            synchronised: clock.synchronised,
            format,
            error_ns: clock.error_ns,
        };
        let reply = Reply {
            seq,
            timestamp: format.write(clock.wall_ns(now)),
            error: error.write(),
            session: request.session,
            receive_timestamp: format.write(clock.wall_ns(meta.at.at)),
            request,
            ttl: meta.ttl.unwrap_or(0),
        };
        reply
            .emit(self.key.as_ref(), bytes, out)
            .ok_or(DropReason::Length)
    }

    /// Takes one reply from the second's budget.
    fn spend(&mut self, now: Monotonic) -> bool {
        let most = u64::from(self.max_pps) * SECOND_NS;
        let gained = now
            .saturating_since(self.credit_at)
            .min(SECOND_NS)
            .saturating_mul(self.max_pps.into());
        self.credit_at = now.max(self.credit_at);
        self.credit = self.credit.saturating_add(gained).min(most);
        match self.credit.checked_sub(SECOND_NS) {
            Some(rest) => {
                self.credit = rest;
                true
            }
            None => false,
        }
    }

    /// The number of the next reply to this sender; `None` where there is no room for another.
    fn number(&mut self, now: Monotonic, from: SocketAddr, session: u16) -> Option<u32> {
        let known = self.peers.iter_mut().find_map(|p| {
            p.0.as_mut()
                .filter(|k| k.from == from && k.session == session)
        });
        if let Some(known) = known {
            let seq = known.next;
            known.next = seq.wrapping_add(1);
            known.used = now;
            return Some(seq);
        }
        let place = self.peers.iter_mut().min_by_key(|p| p.0.map(|k| k.used))?;
        if place
            .0
            .is_some_and(|k| now.saturating_since(k.used) < IDLE_NS)
        {
            return None;
        }
        place.0 = Some(Known {
            from,
            session,
            next: 1,
            used: now,
        });
        Some(0)
    }
}
