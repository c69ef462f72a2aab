//! Orders and reports of throughput tests, sealed as the session's other datagrams.

use core::ops::DerefMut;

use zerocopy::IntoBytes;

use super::{KeyEntry, Reflector, Session};
use crate::drop_reason::DropReason;
use crate::packet::RecvMeta;
use crate::session::record::StreamRecord;
use crate::time::Monotonic;
use crate::wire::header::Kind;
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
        let from = OrderFrom {
            client: self.keys[usize::from(session.key)].client,
            session: session.number(index),
        };
        Ok((from, order))
    }

    /// Writes and seals the report on an order; `None` where its session has ended meanwhile.
    pub fn write_report(&mut self, to: OrderFrom, report: &Report) -> Option<[u8; ORDER_LEN]> {
        let index = self.find_session(to.session)?;
        let mut out = [0; ORDER_LEN];
        let body = report.as_bytes();
        self.sessions[index]
            .seal(Kind::Report, to.session, body, &mut out)
            .ok()?;
        Some(out)
    }
}
