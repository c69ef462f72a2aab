//! Orders and reports of throughput tests, sealed as the session's other datagrams.

use core::ops::DerefMut;

use zerocopy::IntoBytes;

use super::Client;
use crate::drop_reason::DropReason;
use crate::flight::{LossSlot, Slot};
use crate::time::Monotonic;
use crate::wire::header::Kind;
use crate::wire::load::{ORDER_LEN, Order, Report};

impl<S, L> Client<S, L>
where
    S: DerefMut<Target = [Slot]>,
    L: DerefMut<Target = [LossSlot]>,
{
    /// Writes and seals an order; `None` while there is no session.
    pub fn write_order(&mut self, order: &Order) -> Option<[u8; ORDER_LEN]> {
        let session = self.session.as_mut()?;
        let mut out = [0; ORDER_LEN];
        session.seal(Kind::Order, order.as_bytes(), &mut out).ok()?;
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
        let (_, report) = self.open_in_session(now, datagram)?;
        Ok(report)
    }
}
