//! Reading a socket's error queue: transmit stamps and ICMP errors; and, outside of the ring, what a
//! socket received.

use std::os::fd::RawFd;

use crate::cmsg::{self, RECEIVE_SPACE};
use crate::sockaddr::{self, NAME_LEN};

/// Entries read by one system call.
const BATCH: usize = 32;
/// How much of a quoted payload is kept, bytes.
const QUOTED: usize = 192;

const NOWHERE: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

#[repr(C, align(8))]
struct Place {
    vectors: [libc::iovec; 2],
    name: [u8; NAME_LEN],
    control: [u8; RECEIVE_SPACE],
    payload: [u8; QUOTED],
}

/// Memory for one batch of entries, allocated once.
#[derive(Default)]
pub(crate) struct ErrorQueue {
    places: Box<[Place]>,
    headers: Box<[libc::mmsghdr]>,
}

/// One entry of an error queue.
pub(crate) struct Entry<'a> {
    pub(crate) facts: cmsg::Received,
    /// Where the datagram went to; of one that was received, where it came from.
    pub(crate) to: Option<std::net::SocketAddr>,
    pub(crate) quoted: &'a [u8],
    /// How long all of it is, bytes, as far as there was room.
    pub(crate) whole_len: usize,
}

impl ErrorQueue {
    pub(crate) fn new() -> Self {
        let places = (0..BATCH)
            .map(|_| Place {
                vectors: [NOWHERE; 2],
                name: [0; NAME_LEN],
                control: [0; RECEIVE_SPACE],
                payload: [0; QUOTED],
            })
            .collect();
        let headers = (0..BATCH)
            // SAFETY: mmsghdr is integers and pointers, for which zero is a valid value.
            .map(|_| unsafe { std::mem::zeroed::<libc::mmsghdr>() })
            .collect();
        Self { places, headers }
    }

    /// Takes up to a batch of entries off the queue of `fd` without waiting; returns how many.
    pub(crate) fn read(&mut self, fd: RawFd) -> usize {
        self.take(fd, libc::MSG_ERRQUEUE, Some(&mut []))
    }

    /// The same of a socket that is told transmit stamps only: neither address nor quotation is asked for, since
    /// each of them costs time with every stamp.
    pub(crate) fn read_stamps(&mut self, fd: RawFd) -> usize {
        self.take(fd, libc::MSG_ERRQUEUE, None)
    }

    /// The same of the datagrams that `fd` received, each cut to what is kept of a quotation. `rest` is where what
    /// is cut off goes, of one after the other, because a ping socket tells the length only of what there is room for.
    pub(crate) fn read_received(&mut self, fd: RawFd, rest: &mut [u8]) -> usize {
        self.take(fd, 0, Some(rest))
    }

    /// Without room for what is beyond a quotation, only the control messages are taken.
    fn take(&mut self, fd: RawFd, queue: libc::c_int, mut rest: Option<&mut [u8]>) -> usize {
        for (place, header) in self.places.iter_mut().zip(self.headers.iter_mut()) {
            // SAFETY: mmsghdr is integers and pointers, for which zero is a valid value: no address, no payload.
            *header = unsafe { std::mem::zeroed() };
            let h = &mut header.msg_hdr;
            if let Some(rest) = &mut rest {
                let [first, second] = &mut place.vectors;
                (first.iov_base, first.iov_len) = (place.payload.as_mut_ptr().cast(), QUOTED);
                (second.iov_base, second.iov_len) = (rest.as_mut_ptr().cast(), rest.len());
                h.msg_name = place.name.as_mut_ptr().cast();
                h.msg_namelen = NAME_LEN as libc::socklen_t;
                h.msg_iov = place.vectors.as_mut_ptr();
                h.msg_iovlen = 2;
            }
            h.msg_control = place.control.as_mut_ptr().cast();
            h.msg_controllen = RECEIVE_SPACE as _;
        }
        // SAFETY: every header was just pointed at memory of the length it says, which lives in
        // `self` and `rest` and is not touched until the call returns. That all share `rest` only means that
        // the last one's bytes stay in it.
        let count = unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                (queue | libc::MSG_DONTWAIT) as _,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(count).unwrap_or(0)
    }

    /// Whether `read` may have left something.
    pub(crate) const fn is_full(count: usize) -> bool {
        count == BATCH
    }

    /// The `i`-th entry read last.
    #[allow(clippy::unnecessary_cast, reason = "a narrower type with musl")]
    pub(crate) fn entry(&self, i: usize) -> Option<Entry<'_>> {
        let (place, header) = (self.places.get(i)?, self.headers.get(i)?);
        let h = &header.msg_hdr;
        let control = place.control.get(..h.msg_controllen as usize)?;
        let name = place.name.get(..h.msg_namelen as usize)?;
        let whole_len = header.msg_len as usize;
        let len = whole_len.min(QUOTED);
        Some(Entry {
            facts: cmsg::parse(control),
            to: sockaddr::parse(name),
            quoted: &place.payload[..len],
            whole_len,
        })
    }
}
