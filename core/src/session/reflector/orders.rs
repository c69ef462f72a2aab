//! Orders and reports of throughput tests, sealed as the session's other datagrams.

use core::net::SocketAddr;
use core::ops::DerefMut;

use zerocopy::IntoBytes;

use super::{KeyEntry, Reflector, Session};
use crate::drop_reason::DropReason;
use crate::load::datagrams::open_datagram;
use crate::packet::RecvMeta;
use crate::seal::Secret;
use crate::session::record::StreamRecord;
use crate::time::Monotonic;
use crate::wire::header::Kind;
use crate::wire::load::{ORDER_LEN, Order, Report};

/// From one order of a session to the next, ns: its client sends four a second, ten where it waits for its turn, and
/// one after the other as it fetches its last figures.
const ORDER_EVERY_NS: u64 = 50_000_000;
/// How many there are at once.
const ORDERS_AT_ONCE: u32 = 30;

/// Whose an order is, and how its report is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderFrom {
    /// Which client.
    pub client: u16,
    /// Whether it came from where the client has answered a challenge.
    pub proven: bool,
    pub(crate) session: u32,
}

impl<K, S, T> Reflector<K, S, T>
where
    K: DerefMut<Target = [KeyEntry]>,
    S: DerefMut<Target = [Session]>,
    T: DerefMut<Target = [StreamRecord]>,
{
    /// Opens an order, in place.
    ///
    /// # Errors
    /// Why it is none of a session; it has been counted.
    pub fn open_order(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        datagram: &mut [u8],
    ) -> Result<(OrderFrom, Order), DropReason> {
        self.opened = None;
        let order = self.order(now, meta, datagram);
        self.count(order)
    }

    fn order(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        datagram: &mut [u8],
    ) -> Result<(OrderFrom, Order), DropReason> {
        if meta.truncated {
            return Err(DropReason::Truncated);
        }
        if datagram.len() != ORDER_LEN {
            return Err(DropReason::Length);
        }
        let (index, order) = self.open_in_session(now, meta.from, datagram)?;
        let session = &mut self.sessions[index];
        session.ordered = true;
        let within = session
            .orders
            .take(now.as_nanos(), ORDER_EVERY_NS, ORDERS_AT_ONCE);
        if !within {
            return Err(DropReason::RateLimit);
        }
        let from = OrderFrom {
            client: self.keys[usize::from(session.key)].client,
            proven: !session.moved && session.is_at(meta.from),
            session: session.number(index),
        };
        Ok((from, order))
    }

    /// Opens a datagram of a throughput test, in place: `of` is the order that the test goes on by and
    /// the key of what its client sends, if there is such a test. Only what comes from where that
    /// client is heard is opened, and it earns no answer. Gives its number.
    ///
    /// # Errors
    /// Why it is none of the test; it has been counted.
    pub fn open_load(
        &mut self,
        meta: &RecvMeta,
        of: Option<(OrderFrom, &Secret)>,
        datagram: &mut [u8],
    ) -> Result<u64, DropReason> {
        self.opened = None;
        let opened = self.load(meta, of, datagram);
        if opened.is_ok() {
            return opened;
        }
        self.count(opened)
    }

    fn load(
        &self,
        meta: &RecvMeta,
        of: Option<(OrderFrom, &Secret)>,
        datagram: &mut [u8],
    ) -> Result<u64, DropReason> {
        if meta.truncated {
            return Err(DropReason::Truncated);
        }
        let (order, key) = of.ok_or(DropReason::UnknownSession)?;
        let session = self.find_session(order.session).map(|i| &self.sessions[i]);
        let is_there = session.is_some_and(|s| s.is_at(meta.from));
        if !is_there {
            return Err(DropReason::UnknownSession);
        }
        open_datagram(key, datagram)
    }

    /// Whether the session that an order came in has been heard from `peer` within `within_ns`, and
    /// nothing of it from elsewhere since its client answered a challenge there.
    #[must_use]
    pub fn hears(
        &self,
        order: OrderFrom,
        peer: SocketAddr,
        now: Monotonic,
        within_ns: u64,
    ) -> bool {
        let session = self.find_session(order.session).map(|i| &self.sessions[i]);
        session.is_some_and(|s| {
            let is_there = !s.moved && s.is_at(peer);
            is_there && now.as_nanos().saturating_sub(s.used_ns) < within_ns
        })
    }

    /// Writes and seals the report on an order; `None` where its session has ended meanwhile.
    pub fn write_report(&mut self, to: OrderFrom, report: &Report) -> Option<[u8; ORDER_LEN]> {
        let index = self.find_session(to.session)?;
        let mut out = [0; ORDER_LEN];
        let body = report.as_bytes();
        self.sessions[index]
            .seal(self.cipher, Kind::Report, to.session, body, &mut out)
            .ok()?;
        Some(out)
    }
}
