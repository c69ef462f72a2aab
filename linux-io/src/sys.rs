//! Kernel constants that the libc crate lacks for some of our targets, and checked system calls.

use std::io;

/// `SO_TIMESTAMPING_NEW`: 64-bit times on every architecture (Linux 5.1).
pub(crate) const SO_TIMESTAMPING: libc::c_int = 65;
/// `SCM_TS_OPT_ID`: the caller's own key for a transmit stamp (Linux 6.13).
pub(crate) const SCM_TS_OPT_ID: libc::c_int = 81;
/// `SO_RXQ_OVFL`: the socket's count of dropped datagrams beside each datagram.
pub(crate) const SO_RXQ_OVFL: libc::c_int = 40;
/// `SO_RCVBUFFORCE`: a receive buffer beyond `net.core.rmem_max`, with `CAP_NET_ADMIN`.
pub(crate) const SO_RCVBUFFORCE: libc::c_int = 33;
/// `SO_MAX_PACING_RATE`: bytes per second that a socket may send.
pub(crate) const SO_MAX_PACING_RATE: libc::c_int = 47;
/// `TCP_NOTSENT_LOWAT`: unsent bytes at which a TCP socket counts as full.
pub(crate) const TCP_NOTSENT_LOWAT: libc::c_int = 25;
/// `ICMP_FILTER` at level `SOL_RAW`: a set bit drops that ICMP type.
pub(crate) const ICMP_FILTER: libc::c_int = 1;
/// `ICMPV6_FILTER` at level `SOL_ICMPV6` (its value in the kernel, `ICMP6_FILTER` elsewhere).
pub(crate) const ICMPV6_FILTER: libc::c_int = 1;
pub(crate) const SOL_RAW: libc::c_int = 255;
pub(crate) const SOL_ICMPV6: libc::c_int = 58;

pub(crate) const SOF_TIMESTAMPING_TX_HARDWARE: u32 = 1 << 0;
pub(crate) const SOF_TIMESTAMPING_TX_SOFTWARE: u32 = 1 << 1;
pub(crate) const SOF_TIMESTAMPING_RX_HARDWARE: u32 = 1 << 2;
pub(crate) const SOF_TIMESTAMPING_RX_SOFTWARE: u32 = 1 << 3;
pub(crate) const SOF_TIMESTAMPING_SOFTWARE: u32 = 1 << 4;
pub(crate) const SOF_TIMESTAMPING_RAW_HARDWARE: u32 = 1 << 6;
pub(crate) const SOF_TIMESTAMPING_OPT_ID: u32 = 1 << 7;
pub(crate) const SOF_TIMESTAMPING_OPT_TSONLY: u32 = 1 << 11;

/// `ee_origin` of an entry of the error queue that is a transmit stamp.
pub(crate) const SO_EE_ORIGIN_TIMESTAMPING: u8 = 4;

/// The result of a system call that returns -1 and sets errno where it fails.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
