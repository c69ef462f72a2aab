//! What the fuzz targets reach of this crate, which is private otherwise.

use crate::{cmsg, netlink, sockaddr, tag};

/// Whatever the kernel may say.
///
/// # Panics
/// Where more is read than there is, or what was read does not come back the same when it is written.
pub fn kernel(bytes: &[u8]) {
    let messages: Vec<_> = cmsg::messages(bytes).collect();
    let data: usize = messages.iter().map(|m| cmsg::space(0) + m.data.len()).sum();
    assert!(data <= bytes.len());
    let _ = cmsg::parse(bytes);
    if let Some(address) = sockaddr::parse(bytes) {
        let raw = sockaddr::RawAddr::new(address);
        assert_eq!(sockaddr::parse(raw.bytes()), Some(address));
    }
    netlink::walk(bytes);
    if let Some(first) = bytes.first_chunk() {
        let bits = u64::from_le_bytes(*first);
        if let Some(tag) = tag::Tag::unpack(bits) {
            assert_eq!(tag.pack(), bits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{Seeds, replay};

    #[test]
    fn what_the_kernel_says_goes_through_its_corpus() {
        let mut control = cmsg::Builder::new();
        let from = "2001:db8::7".parse().unwrap();
        assert!(control.source(from) && control.tos(true, 0xb8) && control.stamp_key(77));
        let seeds: Seeds = [
            ("control", control.as_bytes().to_vec()),
            ("stamps", stamps()),
            ("address", netlink_message(20, &ADDRESS)),
            ("route", netlink_message(24, &ROUTE)),
        ]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into();
        let stamps = cmsg::parse(&seeds["stamps"]);
        assert!(stamps.stamps.is_some() && stamps.error.is_some());
        replay("kernel", &seeds, kernel);
    }

    /// A transmit stamp as the error queue has it: `struct scm_timestamping` and its
    /// `sock_extended_err`.
    fn stamps() -> Vec<u8> {
        let message = |level: i32, kind: i32, data: &[u8]| {
            let len = (cmsg::space(0) + data.len()).to_ne_bytes();
            [&len[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data].concat()
        };
        let mut times = [0; 48];
        times[..8].copy_from_slice(&1_790_000_000i64.to_ne_bytes());
        times[8..16].copy_from_slice(&123_456_789i64.to_ne_bytes());
        let mut error = [0; 16];
        error[..4].copy_from_slice(&libc::ENOMSG.to_ne_bytes());
        error[4] = 4;
        error[12..].copy_from_slice(&77u32.to_ne_bytes());
        [
            message(libc::SOL_SOCKET, crate::sys::SO_TIMESTAMPING, &times),
            message(libc::IPPROTO_IP, libc::IP_RECVERR, &error),
        ]
        .concat()
    }

    /// 192.0.2.7/24 at interface 2.
    const ADDRESS: [u8; 16] = [2, 24, 0x80, 0, 2, 0, 0, 0, 8, 0, 2, 0, 192, 0, 2, 7];
    /// The default route over interface 2.
    const ROUTE: [u8; 28] = [
        2, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 5, 0, 192, 0, 2, 1, 8, 0, 4, 0, 2, 0, 0, 0,
    ];

    fn netlink_message(kind: u16, body: &[u8]) -> Vec<u8> {
        let len = (16 + body.len()) as u32;
        let rest = [0; 10];
        [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &rest, body].concat()
    }
}
