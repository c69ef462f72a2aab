//! Packet trains, and what is asked about them, sealed as the session's other datagrams.

use core::ops::DerefMut;

use zerocopy::IntoBytes;

use super::{KeyEntry, Reflector, Session};
use crate::drop_reason::DropReason;
use crate::limits::MAX_DATAGRAM;
use crate::packet::RecvMeta;
use crate::session::record::StreamRecord;
use crate::time::Monotonic;
use crate::wire::header::Kind;
use crate::wire::train::{Arrived, Ask, Car, MIN_TRAIN_SIZE, TrainReport, arrivals_in};

/// Whose a train is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainFrom {
    /// Which client.
    pub client: u16,
    /// Datagrams per second that its sessions may send.
    pub max_pps: u32,
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
    /// Opens one datagram of a train, in place. It earns no answer.
    ///
    /// # Errors
    /// Why it is none of a session; it has been counted.
    pub fn open_car(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        datagram: &mut [u8],
    ) -> Result<(TrainFrom, Car), DropReason> {
        self.opened = None;
        let opened = self.of_train(now, meta, datagram);
        if opened.is_ok() {
            return opened;
        }
        self.count(opened)
    }

    /// Opens what a client asks about trains, in place. The answer is as long as `datagram`.
    ///
    /// # Errors
    /// Why it is none of a session; it has been counted.
    pub fn open_ask(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        datagram: &mut [u8],
    ) -> Result<(TrainFrom, Ask), DropReason> {
        self.opened = None;
        let opened = self.of_train(now, meta, datagram);
        self.count(opened)
    }

    fn of_train<B>(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        datagram: &mut [u8],
    ) -> Result<(TrainFrom, B), DropReason>
    where
        B: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable,
    {
        if meta.truncated {
            return Err(DropReason::Truncated);
        }
        if !(MIN_TRAIN_SIZE..=MAX_DATAGRAM).contains(&datagram.len()) {
            return Err(DropReason::Length);
        }
        let (index, body) = self.open_in_session(now, meta.from, datagram)?;
        let session = &self.sessions[index];
        let key = &self.keys[usize::from(session.key)];
        let from = TrainFrom {
            client: key.client,
            max_pps: key.max_pps,
            proven: !session.moved && session.is_at(meta.from),
            session: session.number(index),
        };
        Ok((from, body))
    }

    /// Fills `out`, which is as long as the ask was, with a report and as many arrivals as it has
    /// room for, and seals it; `None` where its session has ended meanwhile.
    pub fn write_train_report(
        &mut self,
        to: TrainFrom,
        report: &TrainReport,
        arrivals: &[Arrived],
        out: &mut [u8],
    ) -> Option<()> {
        let index = self.find_session(to.session)?;
        let mut body = [0; MAX_DATAGRAM];
        let head = size_of::<TrainReport>();
        let arrivals = arrivals.get(..arrivals_in(out.len()).min(arrivals.len()))?;
        let arrivals = arrivals.as_bytes();
        body[..head].copy_from_slice(report.as_bytes());
        body.get_mut(head..head + arrivals.len())?
            .copy_from_slice(arrivals);
        let body = &body[..head + arrivals.len()];
        self.sessions[index]
            .seal(self.cipher, Kind::TrainReport, to.session, body, out)
            .ok()
    }

    /// Fills `out` with one datagram of a train to a client and seals it; `None` where its session
    /// has ended meanwhile.
    pub fn write_car(&mut self, to: TrainFrom, car: &Car, out: &mut [u8]) -> Option<()> {
        let index = self.find_session(to.session)?;
        self.sessions[index]
            .seal(self.cipher, Kind::Train, to.session, car.as_bytes(), out)
            .ok()
    }
}
