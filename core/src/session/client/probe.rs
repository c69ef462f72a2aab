//! Probes and their echoes, and the keys that seal both.

use core::ops::DerefMut;

use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Client, Knock, REKEY_NS, REKEY_PACKETS, SessionEvent, Unanswered};
use crate::drop_reason::DropReason;
use crate::flight::{LossSlot, Slot};
use crate::limits::MIN_PROBE_SIZE;
use crate::packet::{RecvMeta, SendToken};
use crate::seal::{Portable, ReplayWindow, SessionKeys};
use crate::session::address_from_bytes;
use crate::session::sealed::{open_message, seal_message, session_header};
use crate::time::Monotonic;
use crate::wire::header::Kind;
use crate::wire::probe::{NO_STREAM, Probe, Reply, WANT_NOTHING};

/// What the reflector dropped may have been sent this much before the probe whose echo told of fewer drops, and after
/// the one whose echo tells of it, ns: datagrams overtake each other, and that an echo could not be sent is known late.
const APART_NS: u64 = 50_000_000;

/// The present keys, or those before.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u32,
    pub(super) keys: SessionKeys,
    pub(super) since: Monotonic,
    pub(super) next_counter: u64,
    /// What the reflector has sealed and this client has opened.
    pub(super) down: ReplayWindow,
}

/// What the counter of an authentic datagram from the reflector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Nothing that was sent later has come so far.
    Newest,
    /// It was overtaken, by others of its session or by new keys: what it says of the present is out of
    /// date.
    Overtaken,
    /// It has come before: the line doubled it, or somebody who has captured it sends it again. It does
    /// not say that the reflector is still there.
    Again,
}

impl Session {
    /// Whether it is time for new keys.
    pub(super) fn is_old(&self, now: Monotonic) -> bool {
        now.saturating_since(self.since) > REKEY_NS || self.next_counter >= REKEY_PACKETS
    }

    /// Fills `out` with a message to the reflector, and seals it.
    pub(super) fn seal(
        &mut self,
        kind: Kind,
        body: &[u8],
        out: &mut [u8],
    ) -> Result<(), DropReason> {
        let counter = self.next_counter;
        self.next_counter += 1;
        seal_message(
            &Portable,
            kind,
            self.number,
            counter,
            &self.keys.up,
            body,
            out,
        )
    }
}

impl<S, L> Client<S, L>
where
    S: DerefMut<Target = [Slot]>,
    L: DerefMut<Target = [LossSlot]>,
{
    /// Writes and seals the next probe of stream `index`; `None` where it cannot be sent.
    pub(super) fn write_probe(
        &mut self,
        index: usize,
        now: Monotonic,
        deadline: Monotonic,
        out: &mut [u8],
    ) -> Option<(usize, SendToken)> {
        let session = self.session.as_mut()?;
        let stream = &mut self.streams[index];
        let size = stream
            .mix
            .size(stream.config.size, stream.flight.next_seq());
        let out = out.get_mut(..usize::from(size))?;
        let seq = stream.flight.on_send(now, deadline, size)?;
        stream.asked = stream
            .flight
            .oldest_undirected()
            .map_or(WANT_NOTHING, |s| s - s % 64);
        let probe = Probe {
            stream: U16::new(index as u16),
            flags: U16::ZERO,
            reserved: U32::ZERO,
            seq: U64::new(seq),
            sent_ns: U64::new(now.as_nanos()),
            earlier_seq: U64::new(stream.earlier.0),
            earlier_tx_ns: U64::new(stream.earlier.1),
            want: U64::new(stream.asked),
        };
        let sealed = session.seal(Kind::Probe, probe.as_bytes(), out);
        debug_assert!(
            sealed.is_ok(),
            "a probe of {size} bytes has room for header and tag"
        );
        self.unanswered.probed(now);
        Some((
            out.len(),
            SendToken {
                stream: index as u16,
                seq,
            },
        ))
    }

    /// Writes and seals a check whether the session is still there; `None` where there is none.
    pub(super) fn write_check(&mut self, now: Monotonic, out: &mut [u8]) -> Option<usize> {
        let session = self.session.as_mut()?;
        let out = out.get_mut(..MIN_PROBE_SIZE)?;
        let check = Probe {
            stream: U16::new(NO_STREAM),
            flags: U16::ZERO,
            reserved: U32::ZERO,
            seq: U64::ZERO,
            sent_ns: U64::new(now.as_nanos()),
            earlier_seq: U64::ZERO,
            earlier_tx_ns: U64::ZERO,
            want: U64::new(WANT_NOTHING),
        };
        let sealed = session.seal(Kind::Probe, check.as_bytes(), out);
        debug_assert!(sealed.is_ok(), "a check has room for header and tag");
        self.unanswered.probed(now);
        Some(out.len())
    }

    /// Opens what the reflector sealed under the present keys or those before, in place, and notes that
    /// it is there unless that has come before.
    pub(super) fn open_in_session<B: FromBytes + KnownLayout + Immutable>(
        &mut self,
        now: Monotonic,
        datagram: &mut [u8],
    ) -> Result<(Freshness, B), DropReason> {
        let header = session_header(datagram)?;
        let number = header.session.get();
        let is_present = self.session.as_ref().is_some_and(|s| s.number == number);
        let session = [&mut self.session, &mut self.before]
            .into_iter()
            .flatten()
            .find(|s| s.number == number)
            .ok_or(DropReason::UnknownSession)?;
        let body = open_message(&Portable, &header, &session.keys.down, datagram)?;
        let counter = header.counter.get();
        let is_newest = is_present && counter >= session.down.next();
        if session.down.accept(counter).is_err() {
            return Ok((Freshness::Again, body));
        }
        self.heard_at = now;
        self.unanswered = Unanswered::default();
        let freshness = if is_newest {
            Freshness::Newest
        } else {
            Freshness::Overtaken
        };
        Ok((freshness, body))
    }

    /// An echo.
    pub(super) fn replied(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let (freshness, reply): (_, Reply) = self.open_in_session(now, datagram)?;
        if freshness != Freshness::Again {
            // A knock that was only meant to find the reflector again is not needed any more.
            let session = self.session.as_ref();
            if !session.is_some_and(|s| self.wants_keys(s, now)) {
                self.knock = Knock::Idle;
            }
            if core::mem::take(&mut self.silent) {
                self.event(SessionEvent::Back);
            }
        }
        if freshness == Freshness::Newest {
            self.take_present(now, &reply);
        }
        if reply.stream.get() == NO_STREAM {
            return Ok(());
        }
        // One that has come before is told, too: as a duplicate it says something of the line.
        let index = usize::from(reply.stream.get());
        let stream = self.streams.get_mut(index).ok_or(DropReason::Field)?;
        stream.take_reply(meta, &reply, reply.seq.get())
    }

    /// What an echo says of the reflector and of our address as they are now.
    fn take_present(&mut self, now: Monotonic, reply: &Reply) {
        let address = address_from_bytes(reply.address, reply.port.get());
        let before = self.address.replace(address);
        let new_socket = core::mem::take(&mut self.new_socket);
        if before != Some(address) {
            self.has_moved |= before.is_some();
            self.event(SessionEvent::AddressSeen {
                address,
                new_socket,
            });
        }
        let clock = (
            reply.flags.get() & Reply::DISCIPLINED != 0,
            reply.clock_epoch.get(),
        );
        let known = self.remote_clock.replace(clock);
        if known != Some(clock) {
            self.event(SessionEvent::RemoteClock {
                disciplined: clock.0,
                set: known.is_some_and(|(_, epoch)| epoch != clock.1),
            });
        }
        let drops = reply.socket_drops.get();
        let stream = self.streams.get(usize::from(reply.stream.get()));
        let sent = stream.and_then(|s| s.flight.sent_at(reply.seq.get()));
        let as_of = sent.unwrap_or(now);
        let before = self.remote_drops.replace((drops, as_of));
        // Among the first count there may be drops of the probes before it.
        let (count, since) = before.unwrap_or((0, Monotonic::ZERO));
        let rise = drops.wrapping_sub(count);
        if rise == 0 || rise >= u32::MAX / 2 {
            return;
        }
        if before.is_some() {
            self.event(SessionEvent::RemoteDrops(rise));
        }
        for s in &mut self.streams {
            s.believe_from = s.flight.next_seq();
            let (from, to) = (
                since.saturating_sub(APART_NS),
                as_of.saturating_add(APART_NS),
            );
            s.flight.on_far_drops(from, to);
        }
    }
}
