//! What a raw ICMP socket is handed of all the ICMP that comes to this host.

use std::io;
use std::os::fd::RawFd;

use libc::{
    BPF_B, BPF_H, BPF_IMM, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET,
    sock_filter,
};

use crate::socket::Family;
use crate::sockopt::set_bytes;
use crate::sys;

/// Echo replies that carry `identifier` and the errors that say what became of a request pass. Everything else does
/// not wake us: the kernel gives each raw socket whatever the host receives, the answers to all others too.
pub(crate) fn attach(fd: RawFd, family: Family, identifier: u16) -> io::Result<()> {
    only_own_replies(fd, family, identifier)?;
    only_types(fd, family)
}

/// Of the types of messages those that matter.
fn only_types(fd: RawFd, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => {
            // Echo reply, destination unreachable, time exceeded, parameter problem.
            let pass = 1u32 | 1 << 3 | 1 << 11 | 1 << 12;
            set_bytes(fd, sys::SOL_RAW, sys::ICMP_FILTER, &(!pass).to_ne_bytes())
        }
        Family::V6 => {
            // A set bit blocks the type. Unreachable, too big, time exceeded, parameter problem,
            // echo reply.
            let mut blocked = [u32::MAX; 8];
            for kind in [1usize, 2, 3, 4, 129] {
                blocked[kind / 32] &= !(1 << (kind % 32));
            }
            let mut bytes = [0u8; 32];
            for (place, word) in bytes.chunks_exact_mut(4).zip(blocked) {
                place.copy_from_slice(&word.to_ne_bytes());
            }
            set_bytes(fd, sys::SOL_ICMPV6, sys::ICMPV6_FILTER, &bytes)
        }
    }
}

/// Of echo replies those with this identifier.
fn only_own_replies(fd: RawFd, family: Family, identifier: u16) -> io::Result<()> {
    let mut program = program(family, identifier);
    let filter = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `filter` and the program that it points to live until the call returns, which copies both; the
    // kernel is told the length of each, checks the program, and checks the descriptor.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    };
    sys::check(result).map(drop)
}

/// In the kernel's classic filter language: what is kept of a packet that a raw socket receives, which begins with the
/// IPv4 header, options and all, or with the ICMPv6 header. What is too short to be looked at is not kept.
fn program(family: Family, identifier: u16) -> [sock_filter; 7] {
    let step = |code: u32, jt, jf, k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let (message, reply_type) = match family {
        Family::V4 => (step(BPF_LDX | BPF_B | BPF_MSH, 0, 0, 0), 0),
        Family::V6 => (step(BPF_LDX | BPF_IMM, 0, 0, 0), 129),
    };
    [
        // Where the message begins.
        message,
        step(BPF_LD | BPF_B | BPF_IND, 0, 0, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 2, reply_type),
        step(BPF_LD | BPF_H | BPF_IND, 0, 0, 4),
        step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, u32::from(identifier)),
        // The whole of it, or nothing.
        step(BPF_RET | BPF_K, 0, 0, u32::MAX),
        step(BPF_RET | BPF_K, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    /// Which of these packets such a filter lets pass, by their places.
    fn passed(family: Family, packets: &[Vec<u8>]) -> Vec<usize> {
        // The same filter works on any socket, and this kind needs no privilege.
        let (from, to) = UnixDatagram::pair().unwrap();
        only_own_replies(to.as_raw_fd(), family, 0x1234).unwrap();
        to.set_nonblocking(true).unwrap();
        let mut passed = Vec::new();
        for (place, packet) in packets.iter().enumerate() {
            from.send(packet).unwrap();
            let mut bytes = [0; 100];
            if let Ok(len) = to.recv(&mut bytes) {
                assert_eq!(bytes[..len], packet[..], "cut off");
                passed.push(place);
            }
        }
        passed
    }

    /// A message of this type with this identifier, or whatever stands there, after an IPv4 header with so many
    /// words of options.
    fn message(kind: u8, identifier: u16, options: Option<usize>) -> Vec<u8> {
        let mut packet = Vec::new();
        if let Some(words) = options {
            packet.push(0x45 + words as u8);
            packet.resize(20 + 4 * words, 7);
        }
        packet.extend([kind, 0, 0xab, 0xcd]);
        packet.extend(identifier.to_be_bytes());
        packet.extend([0; 18]);
        packet
    }

    #[test]
    fn own_replies_and_all_errors_pass_and_replies_to_others_do_not() {
        let v4 = [
            message(0, 0x1234, Some(0)),
            message(0, 0x1235, Some(0)),
            message(0, 0x3412, Some(0)),
            message(0, 0x1234, Some(10)),
            message(0, 0x1235, Some(10)),
            // The rest of an error's header is not an identifier.
            message(3, 0, Some(0)),
            message(11, 0x1235, Some(2)),
            message(12, 0, Some(0)),
            // Too short to be anything.
            message(0, 0x1234, Some(0))[..24].to_vec(),
            message(3, 0, Some(10))[..24].to_vec(),
        ];
        assert_eq!(passed(Family::V4, &v4), [0, 3, 5, 6, 7]);
        let v6 = [
            message(129, 0x1234, None),
            message(129, 0x1235, None),
            message(1, 0, None),
            message(2, 0x1235, None),
            message(3, 0, None),
            message(4, 0, None),
            message(129, 0x1234, None)[..4].to_vec(),
        ];
        assert_eq!(passed(Family::V6, &v6), [0, 2, 3, 4, 5]);
    }
}
