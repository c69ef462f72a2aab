//! Echoes: what a probe asked for, and what is to be known about its arrival.

use core::ops::DerefMut;

use zerocopy::IntoBytes;
use zerocopy::byteorder::network_endian::{U16, U32, U64};

use super::{Answer, KeyEntry, Reflector, Session};
use crate::drop_reason::DropReason;
use crate::limits::MIN_PROBE_SIZE;
use crate::packet::{RecvMeta, SendToken};
use crate::session::record::StreamRecord;
use crate::time::Monotonic;
use crate::wire::header::Kind;
use crate::wire::probe::{NO_RECORD, NO_STREAM, Probe, Reply, WANT_NOTHING};

/// What an echo tells of its stream, as it stands on the wire.
struct Told {
    tx_ns: [U64; 2],
    tx_back: [U16; 2],
    /// Whose clocks `tx_ns` are of, in their places.
    clocks: u8,
    received: u32,
    record: u64,
    record_back: u32,
}

impl Told {
    const NOTHING: Self = Self {
        tx_ns: [U64::ZERO; 2],
        tx_back: [U16::ZERO; 2],
        clocks: 0,
        received: 0,
        record: 0,
        record_back: NO_RECORD,
    };

    fn of(stream: &StreamRecord, probe: &Probe) -> Self {
        let seq = probe.seq.get();
        let asked = Some(probe.want.get()).filter(|w| *w != WANT_NOTHING);
        let known = asked.and_then(|first| {
            let (begin, word) = stream.record(first)?;
            let back = u32::try_from(seq.checked_sub(begin)?)
                .ok()
                .filter(|b| *b != NO_RECORD)?;
            Some((word, back))
        });
        let (record, record_back) = known.unwrap_or((0, NO_RECORD));
        let mut told = Self {
            received: stream.received as u32,
            record,
            record_back,
            ..Self::NOTHING
        };
        for (i, left) in stream.departures().into_iter().enumerate() {
            if let Some(left) = left
                && let Some(back) = seq.checked_sub(left.seq)
                && let Ok(back) = u16::try_from(back)
            {
                told.tx_ns[i] = U64::new(left.at_ns);
                told.tx_back[i] = U16::new(back);
                told.clocks |= (left.clock as u8) << (2 * i + 2);
            }
        }
        told
    }
}

impl<K, S, T> Reflector<K, S, T>
where
    K: DerefMut<Target = [KeyEntry]>,
    S: DerefMut<Target = [Session]>,
    T: DerefMut<Target = [StreamRecord]>,
{
    /// A probe is echoed to where it came from, wherever the session was before; so is a check, which leaves no trace in
    /// any record.
    pub(super) fn echo(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        request: &mut [u8],
        out: &mut [u8],
    ) -> Result<Answer, DropReason> {
        if request.len() < MIN_PROBE_SIZE {
            return Err(DropReason::Length);
        }
        let (index, probe): (usize, Probe) = self.open_in_session(now, meta.from, request)?;
        let now_ns = now.as_nanos();
        let session = &mut self.sessions[index];
        session.set_address(meta.from);
        let slot = match probe.stream.get() {
            NO_STREAM => None,
            stream => Some(
                self.stream_for(now_ns, index, stream)
                    .inspect_err(|_| self.add_own_drop(index))?,
            ),
        };
        let session = &mut self.sessions[index];
        let own_drops = self.keys[usize::from(session.key)].own_drops;
        let mut told = Told::NOTHING;
        if let Some(slot) = slot {
            let stream = &mut self.streams[usize::from(slot)];
            stream.session = index as u16;
            stream.used_ns = now_ns;
            stream.receive(probe.seq.get());
            told = Told::of(stream, &probe);
        }
        let rx_ns = meta.at.at.as_nanos();
        let reply = Reply {
            stream: probe.stream,
            flags: U16::new(if self.clock.disciplined {
                Reply::DISCIPLINED
            } else {
                0
            }),
            ttl: meta.ttl.unwrap_or(0),
            tos: meta.tos.unwrap_or(0),
            clocks: meta.at.clock as u8 | told.clocks,
            reserved: 0,
            seq: probe.seq,
            rx_ns: U64::new(rx_ns),
            residence_ns: U32::new(u32::try_from(now_ns.saturating_sub(rx_ns)).unwrap_or(u32::MAX)),
            socket_drops: U32::new(meta.socket_drops.wrapping_add(own_drops)),
            tx_ns: told.tx_ns,
            tx_back: told.tx_back,
            received: U32::new(told.received),
            record: U64::new(told.record),
            record_back: U32::new(told.record_back),
            clock_epoch: U32::new(self.clock.epoch),
            address: session.address,
            port: U16::new(session.port),
            reserved2: U16::ZERO,
        };
        let number = session.number(index);
        session.seal(self.cipher, Kind::Reply, number, reply.as_bytes(), out)?;
        Ok(Answer {
            len: out.len(),
            token: slot.map(|stream| SendToken {
                stream,
                seq: probe.seq.get(),
            }),
        })
    }
}
