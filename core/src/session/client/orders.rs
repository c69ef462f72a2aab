//! Orders and reports of throughput tests, sealed as the session's other datagrams.

use core::ops::DerefMut;

use zerocopy::{FromBytes, IntoBytes};

use super::Client;
use crate::drop_reason::DropReason;
use crate::flight::{LossSlot, Slot};
use crate::seal::{Nonce, open, seal};
use crate::session::reflector::write;
use crate::time::Monotonic;
use crate::wire::header::{Kind, SessionHeader};
use crate::wire::load::{ORDER_LEN, Order, Report};

impl<S, L> Client<S, L>
where
    S: DerefMut<Target = [Slot]>,
    L: DerefMut<Target = [LossSlot]>,
{
    /// Writes and seals an order; `None` while there is no session.
    pub fn write_order(&mut self, order: &Order) -> Option<[u8; ORDER_LEN]> {
        let session = self.session.as_mut()?;
        let counter = session.next_counter;
        session.next_counter += 1;
        let header = SessionHeader::new(Kind::Order, session.number, counter);
        let mut out = [0; ORDER_LEN];
        write(&mut out, header.as_bytes(), order.as_bytes()).ok()?;
        let nonce = Nonce::Counter(counter);
        seal(&session.keys.up, nonce, &mut out, SessionHeader::LEN).ok()?;
        Some(out)
    }

    /// Opens a report, in place.
    ///
    /// # Errors
    /// Why it is none of this session's.
    pub fn open_report(
        &mut self,
        now: Monotonic,
        datagram: &mut [u8],
    ) -> Result<Report, DropReason> {
        if datagram.len() != ORDER_LEN {
            return Err(DropReason::Length);
        }
        let (header, _) =
            SessionHeader::read_from_prefix(datagram).map_err(|_| DropReason::Length)?;
        let session = [&self.session, &self.before]
            .into_iter()
            .flatten()
            .find(|s| s.number == header.session.get())
            .ok_or(DropReason::UnknownSession)?;
        let nonce = Nonce::Counter(header.counter.get());
        let body = open(&session.keys.down, nonce, datagram, SessionHeader::LEN)?;
        let (report, _) = Report::read_from_prefix(body).map_err(|_| DropReason::Length)?;
        self.heard_at = now;
        Ok(report)
    }
}
