//! TCP streams: those that show a good token are counted or filled, and TCP is asked about them.

use std::collections::HashMap;

use bufferbane_core::drop_reason::DropReason;
use bufferbane_core::load::arrivals::Segments;
use bufferbane_core::load::host::{Admitted, SenderFacts, TestHandle};
use bufferbane_core::load::marks::Marks;
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::TOKEN_LEN;
use bufferbane_linux_io::{BulkEvent, Role, StreamId, clock};
use rand_core::Rng;

use super::Streams;

/// A stream that showed a good token.
pub(super) struct Owned {
    pub(super) admitted: Admitted,
    marks: Box<Marks>,
}

impl Streams {
    pub(super) fn handle(&mut self, now: Monotonic, event: BulkEvent) -> Result<(), String> {
        match event {
            BulkEvent::Arrived(stream, _, token) => self.arrived(now, stream, &token)?,
            BulkEvent::Sent {
                stream,
                bytes,
                offset,
            } => {
                if let Some(o) = self.owned.get_mut(&stream) {
                    o.marks.handed_over(offset, now);
                    self.host.sent(o.admitted.test, now, bytes);
                    self.counts.sent += bytes;
                }
            }
            BulkEvent::Received { stream, bytes } => {
                if let Some(o) = self.owned.get(&stream) {
                    self.host
                        .received(o.admitted.test, o.admitted.stream, now, bytes);
                    self.counts.received += bytes;
                }
            }
            BulkEvent::Note { stream, received } => {
                if let Some(o) = self.owned.get_mut(&stream)
                    && let Some(delay_ns) = o.marks.received(received, now)
                {
                    self.host.in_band(o.admitted.test, now, delay_ns);
                }
            }
            BulkEvent::Ended(stream, _) => drop(self.owned.remove(&stream)),
            BulkEvent::Connected(_) | BulkEvent::Wake => {}
        }
        Ok(())
    }

    fn arrived(
        &mut self,
        now: Monotonic,
        stream: StreamId,
        token: &[u8; TOKEN_LEN],
    ) -> Result<(), String> {
        let admitted = match self.host.admit(now, token) {
            Ok(admitted) => admitted,
            Err(reason) => {
                self.turn_away(stream, reason);
                return Ok(());
            }
        };
        let name = congestion(&admitted.congestion).unwrap_or_default();
        if let Err(e) = self.bulk.configure(stream, admitted.dscp, name) {
            log::warn!("a stream of a test: {e}");
            self.turn_away(stream, DropReason::Field);
            return Ok(());
        }
        let client = self.clients.get(usize::from(admitted.client));
        if let Some(rate_bps) = client.and_then(|c| c.max_rate_bps) {
            let share = rate_bps / 8 / u64::from(admitted.siblings.max(1));
            self.bulk.limit(stream, share.max(1));
        }
        let role = if admitted.up {
            Role::Receive
        } else {
            if !std::mem::replace(&mut self.filled, true) {
                self.bulk.fill(|bytes| self.rng.fill_bytes(bytes));
            }
            Role::Send
        };
        self.bulk
            .begin(stream, role, &[])
            .map_err(|e| e.to_string())?;
        let marks = Box::new(Marks::new());
        self.owned.insert(stream, Owned { admitted, marks });
        Ok(())
    }

    fn turn_away(&mut self, stream: StreamId, reason: DropReason) {
        self.counts.drops.count(reason);
        self.bulk.close(stream);
    }

    /// What TCP says of streams: of those that this end sends on, summed up for each test; of others, how
    /// much has come.
    pub(super) fn ask_tcp(&mut self) {
        let now = clock::now();
        for (stream, owned) in self.owned.iter().filter(|(_, o)| o.admitted.up) {
            if let Some(facts) = self.bulk.facts(*stream) {
                let segments = Segments {
                    all: facts.segments_in,
                    out_of_order: facts.out_of_order,
                    size: facts.segment_bytes,
                };
                let Admitted { test, stream, .. } = owned.admitted;
                self.host.segments(test, stream, now, segments);
            }
        }
        let mut sums: HashMap<TestHandle, (u32, u32, u64, u32)> = HashMap::new();
        for (stream, owned) in self.owned.iter().filter(|(_, o)| !o.admitted.up) {
            if let Some(facts) = self.bulk.facts(*stream) {
                let sum = sums.entry(owned.admitted.test).or_default();
                sum.0 = sum.0.saturating_add(facts.retransmits);
                sum.1 = sum.1.saturating_add(facts.cwnd_bytes);
                sum.2 += u64::from(facts.rtt_us);
                sum.3 += 1;
            }
        }
        for (test, (retransmits, cwnd_bytes, rtt, n)) in sums {
            let facts = SenderFacts {
                retransmits,
                cwnd_bytes,
                rtt_us: u32::try_from(rtt / u64::from(n)).unwrap_or(u32::MAX),
            };
            self.host.set_facts(test, facts);
        }
    }
}

/// The name before the zeros, if it can be one.
pub(super) fn congestion(bytes: &[u8; 16]) -> Option<&str> {
    let len = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let name = std::str::from_utf8(&bytes[..len]).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::congestion;

    #[test]
    fn only_what_can_be_a_name_is_asked_of_the_kernel() {
        let bytes = |s: &str| {
            let mut b = [0; 16];
            b[..s.len()].copy_from_slice(s.as_bytes());
            b
        };
        assert_eq!(congestion(&bytes("cubic")), Some("cubic"));
        assert_eq!(
            congestion(&bytes("sixteen_letters_")),
            Some("sixteen_letters_")
        );
        for bad in ["", "a b", "../x", "ü"] {
            assert_eq!(congestion(&bytes(bad)), None, "{bad}");
        }
    }
}
