//! Packet trains, and what is asked about them, sealed as the session's other datagrams.

use core::ops::DerefMut;

use zerocopy::IntoBytes;

use super::Client;
use crate::drop_reason::DropReason;
use crate::flight::{LossSlot, Slot};
use crate::time::Monotonic;
use crate::wire::header::Kind;
use crate::wire::train::{Ask, Car, MIN_TRAIN_SIZE, TrainReport};

impl<S, L> Client<S, L>
where
    S: DerefMut<Target = [Slot]>,
    L: DerefMut<Target = [LossSlot]>,
{
    /// Fills `out` with one datagram of a train and seals it; `None` while there is no session, or
    /// where `out` is too small for one.
    pub fn write_car(&mut self, car: &Car, out: &mut [u8]) -> Option<()> {
        self.session
            .as_mut()?
            .seal(Kind::Train, car.as_bytes(), out)
            .ok()
    }

    /// Fills `out`, which is as long as the report may be, with an ask and seals it; `None` while
    /// there is no session, or where `out` is too small.
    pub fn write_ask(&mut self, ask: &Ask, out: &mut [u8]) -> Option<()> {
        self.session
            .as_mut()?
            .seal(Kind::TrainAsk, ask.as_bytes(), out)
            .ok()
    }

    /// Opens a datagram of a train to this client, in place.
    ///
    /// # Errors
    /// Why it is none of this session's.
    pub fn open_car(&mut self, now: Monotonic, datagram: &mut [u8]) -> Result<Car, DropReason> {
        if datagram.len() < MIN_TRAIN_SIZE {
            return Err(DropReason::Length);
        }
        let (_, car) = self.open_in_session(now, datagram)?;
        Ok(car)
    }

    /// Opens the report on an ask, in place; [`crate::wire::train::arrivals`] finds what follows it.
    ///
    /// # Errors
    /// Why it is none of this session's.
    pub fn open_train_report(
        &mut self,
        now: Monotonic,
        datagram: &mut [u8],
    ) -> Result<TrainReport, DropReason> {
        if datagram.len() < MIN_TRAIN_SIZE {
            return Err(DropReason::Length);
        }
        let (_, report) = self.open_in_session(now, datagram)?;
        Ok(report)
    }
}
