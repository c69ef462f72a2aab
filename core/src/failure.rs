//! Why something that was asked for and answered was not what was wanted.

use core::fmt;

/// A reason, as its number in the store ([`crate::sample::Sample::errno`]): up to 4095 an errno of
/// Linux, from 4096 on a response code of DNS, and further ones below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Failure(u16);

const DNS: u16 = 0x1000;
const OWN: u16 = 0x3000;

impl Failure {
    /// The answer was cut to fit into a datagram (TC, RFC 1035 section 4.1.1).
    pub const TRUNCATED: Self = Self(OWN);
    /// What came is no answer of the protocol that was spoken.
    pub const MALFORMED: Self = Self(OWN + 1);
    /// The other end closed the connection before it had answered.
    pub const CLOSED: Self = Self(OWN + 2);

    /// The reason with this number; 0 is none.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Self> {
        match code {
            0 => None,
            _ => Some(Self(code)),
        }
    }

    /// Its number.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The kernel reported this errno, 1 to 4095; others become [`Failure::MALFORMED`].
    #[must_use]
    pub const fn errno(errno: i32) -> Self {
        match errno {
            1..0x1000 => Self(errno as u16),
            _ => Self::MALFORMED,
        }
    }

    /// A DNS server answered with this response code (RCODE, RFC 1035 section 4.1.1), 1 to 15.
    #[must_use]
    pub const fn dns(rcode: u8) -> Self {
        Self(DNS + (rcode & 15) as u16)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Numbers of Linux on every architecture that has the generic table.
        let word = match self.0 {
            101 => "network unreachable",
            104 => "connection reset",
            111 => "connection refused",
            113 => "host unreachable",
            n @ 1..DNS => return write!(f, "errno {n}"),
            0x1001 => "FORMERR",
            0x1002 => "SERVFAIL",
            0x1003 => "NXDOMAIN",
            0x1004 => "NOTIMP",
            0x1005 => "REFUSED",
            n @ DNS..=0x100f => return write!(f, "RCODE {}", n - DNS),
            _ => match *self {
                Self::TRUNCATED => "truncated",
                Self::MALFORMED => "not an answer",
                Self::CLOSED => "closed early",
                Self(n) => return write!(f, "failure {n}"),
            },
        };
        f.write_str(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn numbers_and_words_are_fixed() {
        for (failure, code, word) in [
            (Failure::errno(111), 111, "connection refused"),
            (Failure::errno(9), 9, "errno 9"),
            (Failure::errno(-1), 0x3001, "not an answer"),
            (Failure::dns(2), 4098, "SERVFAIL"),
            (Failure::dns(9), 4105, "RCODE 9"),
            (Failure::TRUNCATED, 0x3000, "truncated"),
            (Failure::CLOSED, 0x3002, "closed early"),
        ] {
            assert_eq!(failure.code(), code);
            assert_eq!(Failure::from_code(code), Some(failure));
            assert_eq!(failure.to_string(), word);
        }
        assert_eq!(Failure::from_code(0), None);
    }
}
