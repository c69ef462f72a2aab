//! Who may open a TCP connection: a filter in the kernel, in front of a listening socket.
//!
//! A classic packet filter (`SO_ATTACH_FILTER`) sees each segment before TCP does. What it drops is
//! answered with nothing: no SYN-ACK, no RST, so to everybody who is not admitted the port looks
//! like a host that is not there. Segments of half-open connections pass it too, and an accepted
//! connection inherits the filter as it was then.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use crate::socket::Family;
use crate::sys;

/// Most prefixes that are admitted at a time, of each family. A filter and the one that replaces it are
/// both charged to the socket's option memory, of which Linux before 6.7 gives 20 KiB
/// (`net.core.optmem_max`), as instructions of the kernel's own kind: up to 22 of 8 bytes for an IPv6
/// prefix.
pub const MAX_ADMITTED: usize = 48;

/// Offset of the network header, from which the source address is read (`SKF_NET_OFF`).
const NETWORK: u32 = libc::SKF_NET_OFF.cast_unsigned();
const SOURCE_V4: u32 = NETWORK + 12;
const SOURCE_V6: u32 = NETWORK + 8;

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const KEEP: u16 = libc::BPF_ST as u16;
const LOAD_KEPT: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_MEM) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
/// What a filter returns is how many bytes of the packet stay; 0 drops it.
const ALL: u32 = u32::MAX;

const _: () = assert!(MAX_ADMITTED * 22 * 8 * 2 < 18 * 1024);

/// Some neighbouring addresses: those that share their first bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// One address alone.
    #[must_use]
    pub const fn only(address: IpAddr) -> Self {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Self { address, bits }
    }

    /// The addresses that share the first `bits` with this one; None where an address has not that
    /// many.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Option<Self> {
        (bits <= Self::only(address).bits).then_some(Self { address, bits })
    }

    /// Its family.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self.address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// The words of the address, each with the mask of the bits that count.
    fn words(&self) -> impl Iterator<Item = (u32, u32)> {
        let octets = match self.address {
            IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
            IpAddr::V6(a) => a.octets(),
        };
        let skipped = if self.address.is_ipv4() { 3 } else { 0 };
        let bits = u32::from(self.bits);
        (skipped..4).map(move |i| {
            let word = u32::from_be_bytes([0, 1, 2, 3].map(|b| octets[4 * i + b]));
            let known = bits.saturating_sub(32 * (i - skipped) as u32).min(32);
            let mask = u32::MAX.checked_shl(32 - known).unwrap_or(0);
            (word & mask, mask)
        })
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Admits only connections from these prefixes to `listener`, a TCP socket of this family. Replaces
/// in one step what was admitted before; an empty list admits nobody. Put it in place before
/// `listen`, or the first strangers are answered.
///
/// # Errors
/// `InvalidInput` for more than [`MAX_ADMITTED`] prefixes of the family; what the kernel said.
pub fn admit(listener: &impl AsFd, family: Family, admitted: &[Prefix]) -> io::Result<()> {
    let mut program = compile(family, admitted)?;
    let filter = libc::sock_fprog {
        // No longer than MAX_ADMITTED allows, which was asserted to fit.
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the option's value is a sock_fprog that lives until the call returns, and points to as
    // many instructions as it says; the kernel copies them and checks both them and the descriptor.
    let result = unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    sys::check(result).map(drop)
}

/// The filter's program: compares the source with one prefix after the other. Reading a word of the
/// packet is a call in the kernel, so each is read once.
fn compile(family: Family, admitted: &[Prefix]) -> io::Result<Vec<libc::sock_filter>> {
    let of_family = admitted.iter().filter(|p| p.family() == family);
    if of_family.clone().count() > MAX_ADMITTED {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("more than {MAX_ADMITTED} prefixes to admit"),
        ));
    }
    let (source, words) = match family {
        Family::V4 => (SOURCE_V4, 1),
        Family::V6 => (SOURCE_V6, 4),
    };
    let step = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = Vec::new();
    for i in 0..words {
        program.extend([step(LOAD_WORD, source + 4 * i), step(KEEP, i)]);
    }
    for prefix in of_family {
        let words: Vec<(usize, (u32, u32))> = prefix.words().enumerate().collect();
        let mut checks = Vec::new();
        for (i, (word, mask)) in words.into_iter().filter(|(_, (_, mask))| *mask != 0) {
            checks.push(step(LOAD_KEPT, i as u32));
            if mask != u32::MAX {
                checks.push(step(AND, mask));
            }
            checks.push(step(JUMP_IF_EQUAL, word));
        }
        checks.push(step(RETURN, ALL));
        // A word that differs leads behind this prefix.
        let end = checks.len();
        for (i, check) in checks.iter_mut().enumerate() {
            if check.code == JUMP_IF_EQUAL {
                check.jf = (end - i - 1) as u8;
            }
        }
        program.append(&mut checks);
    }
    program.push(step(RETURN, 0));
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the kernel does with such a program and a packet from `source`.
    fn passes(program: &[libc::sock_filter], source: IpAddr) -> bool {
        let octets = match source {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        let begin = if source.is_ipv4() {
            SOURCE_V4
        } else {
            SOURCE_V6
        };
        let (mut at, mut accumulator, mut kept) = (0, 0u32, [0u32; 4]);
        loop {
            let step = &program[at];
            at += 1;
            match step.code {
                LOAD_WORD => {
                    let i = (step.k - begin) as usize;
                    accumulator = u32::from_be_bytes(octets[i..i + 4].try_into().unwrap());
                }
                KEEP => kept[step.k as usize] = accumulator,
                LOAD_KEPT => accumulator = kept[step.k as usize],
                AND => accumulator &= step.k,
                JUMP_IF_EQUAL if accumulator == step.k => at += usize::from(step.jt),
                JUMP_IF_EQUAL => at += usize::from(step.jf),
                _ => return step.k > 0,
            }
        }
    }

    fn shares(a: IpAddr, b: IpAddr, bits: u8) -> bool {
        let number = |ip| match ip {
            IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
            IpAddr::V6(a) => a.to_bits(),
        };
        (number(a) ^ number(b)).leading_zeros() >= u32::from(bits)
    }

    proptest! {
        #[test]
        fn a_filter_admits_whom_the_prefixes_hold(
            v6: bool,
            prefixes in proptest::collection::vec((any::<u128>(), 0u8..=128), 0..20),
            near in any::<proptest::sample::Index>(),
            flip in 0u32..130,
        ) {
            let address = |n: u128| if v6 {
                IpAddr::V6(n.into())
            } else {
                IpAddr::V4(((n >> 96) as u32).into())
            };
            let family = if v6 { Family::V6 } else { Family::V4 };
            let most = if v6 { 128 } else { 32 };
            let list: Vec<Prefix> = prefixes
                .iter()
                .map(|(n, bits)| Prefix::new(address(*n), (*bits).min(most)).unwrap())
                .collect();
            let program = compile(family, &list).unwrap();
            // One that is a bit away from an admitted one, or is it.
            let base = if prefixes.is_empty() { 5 } else { prefixes[near.index(prefixes.len())].0 };
            let source = address(base ^ 1u128.checked_shl(flip).unwrap_or(0));
            let admitted = list.iter().any(|p| shares(p.address, source, p.bits));
            prop_assert_eq!(passes(&program, source), admitted, "{:?} {}", list, source);
        }
    }

    #[test]
    fn the_longest_list_fits_and_a_longer_one_is_refused() {
        let prefix = |i: u32| {
            let ip = (u128::from(i) << 64) + 1;
            Prefix::new(IpAddr::V6(ip.into()), 127).unwrap()
        };
        let mut list: Vec<Prefix> = (0..MAX_ADMITTED as u32).map(prefix).collect();
        list.push(Prefix::only([10, 0, 0, 1].into()));
        let program = compile(Family::V6, &list).unwrap();
        assert!(program.len() < libc::BPF_MAXINSNS as usize);
        let last = prefix(MAX_ADMITTED as u32 - 1).address;
        assert!(passes(&program, last));
        assert!(!passes(&compile(Family::V6, &[]).unwrap(), last));
        list.push(prefix(9999));
        let refused = compile(Family::V6, &list).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(Prefix::new([10, 0, 0, 1].into(), 33), None);
    }
}
