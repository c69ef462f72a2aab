//! Orders and reports of throughput tests, sealed as the session's other datagrams.

use core::ops::DerefMut;

use zerocopy::{FromBytes, IntoBytes};

use super::{KeyEntry, Reflector, Session, session_place, write};
use crate::drop_reason::DropReason;
use crate::packet::RecvMeta;
use crate::seal::{Nonce, open, seal};
use crate::session::record::StreamRecord;
use crate::time::Monotonic;
use crate::wire::header::{Kind, SessionHeader};
use crate::wire::load::{ORDER_LEN, Order, Report};

/// Whose an order is, and how its report is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderFrom {
    /// Which client.
    pub client: u16,
    session: u32,
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
        let result = self.order(now, meta, datagram);
        let key = self
            .opened
            .and_then(|index| self.keys.get_mut(usize::from(index)));
        match &result {
            Ok(_) => {
                self.answered += 1;
                key.into_iter().for_each(|k| k.answered += 1);
            }
            Err(reason) => {
                self.counters.count(*reason);
                key.into_iter().for_each(|k| k.drops.count(*reason));
            }
        }
        result
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
        let (header, _) =
            SessionHeader::read_from_prefix(datagram).map_err(|_| DropReason::Length)?;
        let (index, generation) = session_place(header.session.get());
        let session = self
            .sessions
            .get_mut(index)
            .filter(|s| s.in_use && s.generation == generation)
            .ok_or(DropReason::UnknownSession)?;
        let now_ns = now.as_nanos();
        if !self.failures.has(now_ns) {
            return Err(DropReason::FailureBudget);
        }
        let counter = header.counter.get();
        let nonce = Nonce::Counter(counter);
        let body = open(&session.keys.up, nonce, datagram, SessionHeader::LEN);
        if body.is_err() {
            self.failures.take(now_ns);
        }
        let (order, _) = Order::read_from_prefix(body?).map_err(|_| DropReason::Length)?;
        self.opened = Some(session.key);
        session.replay.accept(counter)?;
        if !session.budget.take(now_ns) {
            return Err(DropReason::RateLimit);
        }
        session.used_ns = now_ns;
        session.packets += 1;
        let client = self.keys[usize::from(session.key)].client;
        let from = OrderFrom {
            client,
            session: header.session.get(),
        };
        Ok((from, order))
    }

    /// Writes and seals the report on an order; `None` where its session has ended meanwhile.
    pub fn write_report(&mut self, to: OrderFrom, report: &Report) -> Option<[u8; ORDER_LEN]> {
        let (index, generation) = session_place(to.session);
        let session = self
            .sessions
            .get_mut(index)
            .filter(|s| s.in_use && s.generation == generation)?;
        let counter = session.next_counter;
        session.next_counter += 1;
        let header = SessionHeader::new(Kind::Report, to.session, counter);
        let mut out = [0; ORDER_LEN];
        write(&mut out, header.as_bytes(), report.as_bytes()).ok()?;
        let nonce = Nonce::Counter(counter);
        seal(&session.keys.down, nonce, &mut out, SessionHeader::LEN).ok()?;
        Some(out)
    }
}
