//! Netlink messages: building requests, and walking answers with every length checked.
//!
//! Layout (`netlink(7)`): a 16-byte header (length, type, flags, sequence, port), a fixed structure
//! that depends on the type, then attributes (length, type, data), all in host order and padded to
//! four bytes.

use crate::sockaddr::take;

pub(super) const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_DUMP: u16 = 0x300;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;

const fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// One message: its type, its flags, and what follows the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages of one datagram, up to the first that is malformed.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let bytes = self.0;
        self.0 = &[];
        let len = u32::from_ne_bytes(take(bytes, 0)?) as usize;
        let body = bytes.get(HEADER..len)?;
        self.0 = bytes.get(align(len)..).unwrap_or(&[]);
        Some(Message {
            kind: u16::from_ne_bytes(take(bytes, 4)?),
            flags: u16::from_ne_bytes(take(bytes, 6)?),
            sequence: u32::from_ne_bytes(take(bytes, 8)?),
            body,
        })
    }
}

/// The attributes in `bytes` (type without its flag bits, data), up to the first malformed one.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let bytes = self.0;
        self.0 = &[];
        let len = usize::from(u16::from_ne_bytes(take(bytes, 0)?));
        let kind = u16::from_ne_bytes(take(bytes, 2)?) & 0x3fff;
        let data = bytes.get(ATTRIBUTE..len)?;
        self.0 = bytes.get(align(len)..).unwrap_or(&[]);
        Some((kind, data))
    }
}

/// A request being put together in fixed memory, large enough for every request made here.
pub(super) struct Request {
    bytes: [u8; 128],
    len: usize,
}

impl Request {
    /// A request of this type with its fixed structure.
    pub(super) fn new<const N: usize>(
        kind: u16,
        flags: u16,
        sequence: u32,
        fixed: [u8; N],
    ) -> Self {
        const { assert!(HEADER + N <= 64) };
        let mut bytes = [0; 128];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes[HEADER..HEADER + N].copy_from_slice(&fixed);
        Self {
            bytes,
            len: align(HEADER + N),
        }
    }

    /// Adds an attribute; one that does not fit is left out, and no request made here is that long.
    pub(super) fn attribute(mut self, kind: u16, data: &[u8]) -> Self {
        let len = ATTRIBUTE + data.len();
        if let Some(room) = self.bytes.get_mut(self.len..self.len + align(len)) {
            room[0..2].copy_from_slice(&(len as u16).to_ne_bytes());
            room[2..4].copy_from_slice(&kind.to_ne_bytes());
            room[ATTRIBUTE..len].copy_from_slice(data);
            self.len += align(len);
        }
        self
    }

    /// The request with its length filled in.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.bytes[0..4].copy_from_slice(&(self.len as u32).to_ne_bytes());
        &self.bytes[..self.len]
    }
}

/// An attribute's data as a number.
pub(super) fn number(data: &[u8]) -> Option<u32> {
    take(data, 0).map(u32::from_ne_bytes)
}

/// An attribute's data as a text that a zero byte ends.
pub(super) fn text(data: &[u8]) -> String {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    String::from_utf8_lossy(&data[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_walks_as_it_was_built() {
        let mut r = Request::new(26, 0x300, 7, [1u8; 12])
            .attribute(1, &[10, 0, 0, 1])
            .attribute(4, &3u32.to_ne_bytes());
        let bytes = r.finish().to_vec();
        let m: Vec<_> = Messages(&bytes).collect();
        assert_eq!(m.len(), 1);
        assert_eq!((m[0].kind, m[0].sequence, m[0].flags), (26, 7, 0x301));
        let a: Vec<_> = Attributes(&m[0].body[12..]).collect();
        assert_eq!(a[0], (1, &[10, 0, 0, 1][..]));
        assert_eq!(number(a[1].1), Some(3));
    }

    proptest! {
        #[test]
        fn walking_is_total(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), lens in proptest::collection::vec((0usize..600, 0u32..120), 0..12)) {
            for (at, len) in lens {
                if let Some(place) = bytes.get_mut(at / 4 * 4..at / 4 * 4 + 4) {
                    place.copy_from_slice(&len.to_ne_bytes());
                }
            }
            for m in Messages(&bytes) {
                for (_, data) in Attributes(m.body) {
                    let _ = (number(data), text(data));
                }
            }
        }
    }
}
