//! The part of irtt's protocol (version 1) that a client needs to be echoed.

use std::net::UdpSocket;

use super::super::Fail;

const MAGIC: [u8; 3] = [0x14, 0xa7, 0x5b];
const OPEN: u8 = 1;
const REPLY: u8 = 2;
/// Header: magic, flags, token, number.
const HEADER: usize = 16;
const ATTEMPTS: usize = 10;

/// A connection with the server.
#[derive(Debug)]
pub(super) struct Connection {
    token: [u8; 8],
    number: u32,
}

impl Connection {
    /// Opens one for packets of `size` bytes with all that its own client asks for by default:
    /// statistics, and both stamps on both clocks.
    pub(super) fn open(socket: &UdpSocket, size: usize) -> Result<Self, Fail> {
        let failed = |e: &dyn std::fmt::Display| Fail::of("opening a connection to irtt", e);
        let mut open = MAGIC.to_vec();
        open.push(OPEN);
        // Number and value of: version, duration, interval, length, statistics, stamps, clocks.
        let hour_ns = 3_600_000_000_000;
        let parameters = [
            (1, 1),
            (2, hour_ns),
            (3, 1000),
            (4, size as u64),
            (5, 3),
            (6, 3),
            (7, 3),
        ];
        for (number, value) in parameters {
            open.push(number);
            // Signed, so zigzag: all of them are positive.
            push_varint(&mut open, value << 1);
        }
        let mut answer = [0; 2048];
        for _ in 0..ATTEMPTS {
            socket.send(&open).map_err(|e| failed(&e))?;
            let Ok(len) = socket.recv(&mut answer) else {
                continue;
            };
            let Some(token) = answer[..len].get(4..12) else {
                continue;
            };
            if answer[..3] != MAGIC || answer[3] != OPEN | REPLY {
                continue;
            }
            // What it would not do it has changed.
            if answer[12..len] != open[4..] {
                return Err(failed(&"it will not do what was asked for"));
            }
            let mut connection = Self {
                token: [0; 8],
                number: 0,
            };
            connection.token.copy_from_slice(token);
            return Ok(connection);
        }
        Err(failed(&"no answer"))
    }

    /// The next request.
    pub(super) fn request(&mut self, datagram: &mut [u8]) {
        datagram.fill(0);
        datagram[..3].copy_from_slice(&MAGIC);
        datagram[4..12].copy_from_slice(&self.token);
        datagram[12..HEADER].copy_from_slice(&self.number.to_le_bytes());
        self.number = self.number.wrapping_add(1);
    }

    /// Whether `datagram` is an answer.
    pub(super) fn is_echo(&self, datagram: &[u8]) -> bool {
        datagram[..3] == MAGIC && datagram[3] == REPLY && datagram[4..12] == self.token
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    #[test]
    fn varints_are_as_irtt_writes_them() {
        let mut bytes = Vec::new();
        // A length of 128, and 20 ms.
        super::push_varint(&mut bytes, 256);
        super::push_varint(&mut bytes, 40_000_000);
        assert_eq!(bytes, [0x80, 0x02, 0x80, 0xb4, 0x89, 0x13]);
    }
}
