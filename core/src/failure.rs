//! Why something that was asked for and answered was not what was wanted.

use core::fmt;

/// A reason, as its number in the store ([`crate::sample::Sample::errno`]): up to 4095 an errno of
/// Linux, from 4096 on a response code of DNS, from 8192 on a status code of HTTP, and further ones below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Failure(u16);

const DNS: u16 = 0x1000;
const HTTP: u16 = 0x2000;
const OWN: u16 = 0x3000;

impl Failure {
    /// The answer was cut to fit into a datagram (TC, RFC 1035 section 4.1.1).
    pub const TRUNCATED: Self = Self(OWN);
    /// What came is no answer of the protocol that was spoken.
    pub const MALFORMED: Self = Self(OWN + 1);
    /// The other end closed the connection before it had answered.
    pub const CLOSED: Self = Self(OWN + 2);
    /// The two ends did not agree on a TLS connection (RFC 8446).
    pub const TLS: Self = Self(OWN + 3);
    /// The server's certificate comes from nobody who is believed (RFC 5280 section 6.1), or is none.
    pub const CERTIFICATE: Self = Self(OWN + 4);
    /// The server's certificate is no longer valid.
    pub const EXPIRED: Self = Self(OWN + 5);
    /// The server's certificate is not valid yet; or this host's clock is behind.
    pub const NOT_YET: Self = Self(OWN + 6);
    /// The server's certificate is for other names (RFC 9525).
    pub const OTHER_NAME: Self = Self(OWN + 7);
    /// The answer has nothing of what was asked for (NODATA, RFC 2308 section 2.2).
    pub const EMPTY: Self = Self(OWN + 8);

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

    /// The response code of DNS that it is, 1 to 15.
    #[must_use]
    pub const fn rcode(self) -> Option<u8> {
        match self.0 {
            0x1001..=0x100f => Some((self.0 - DNS) as u8),
            _ => None,
        }
    }

    /// The errno that it is, 1 to 4095.
    #[must_use]
    pub const fn as_errno(self) -> Option<u16> {
        match self.0 {
            1..DNS => Some(self.0),
            _ => None,
        }
    }

    /// Whether it is that a server's certificate is not accepted.
    #[must_use]
    pub const fn is_of_certificate(self) -> bool {
        matches!(
            self,
            Self::CERTIFICATE | Self::EXPIRED | Self::NOT_YET | Self::OTHER_NAME
        )
    }

    /// A server of HTTP answered with this status code (RFC 9110 section 15), 100 to 599; others become
    /// [`Failure::MALFORMED`].
    #[must_use]
    pub const fn http(status: u16) -> Self {
        match status {
            100..600 => Self(HTTP + status),
            _ => Self::MALFORMED,
        }
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
            n @ HTTP..0x2fff if Self::http(n - HTTP) == *self => {
                return write!(f, "HTTP {}", n - HTTP);
            }
            _ => match *self {
                Self::TRUNCATED => "truncated",
                Self::MALFORMED => "not an answer",
                Self::CLOSED => "closed early",
                Self::TLS => "no TLS",
                Self::CERTIFICATE => "certificate not trusted",
                Self::EXPIRED => "certificate expired",
                Self::NOT_YET => "certificate not yet valid",
                Self::OTHER_NAME => "certificate of another name",
                Self::EMPTY => "empty answer",
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
            (Failure::http(100), 8292, "HTTP 100"),
            (Failure::http(599), 8791, "HTTP 599"),
            (Failure::http(600), 0x3001, "not an answer"),
            (Failure::TLS, 0x3003, "no TLS"),
            (Failure::CERTIFICATE, 0x3004, "certificate not trusted"),
            (Failure::EXPIRED, 0x3005, "certificate expired"),
            (Failure::NOT_YET, 0x3006, "certificate not yet valid"),
            (Failure::OTHER_NAME, 0x3007, "certificate of another name"),
            (Failure::EMPTY, 0x3008, "empty answer"),
        ] {
            assert_eq!(failure.code(), code);
            assert_eq!(Failure::from_code(code), Some(failure));
            assert_eq!(failure.to_string(), word);
        }
        assert_eq!(Failure::from_code(0), None);
        let numbers = |f: Failure| (f.rcode(), f.as_errno());
        assert_eq!(numbers(Failure::dns(2)), (Some(2), None));
        assert_eq!(numbers(Failure::errno(111)), (None, Some(111)));
        assert_eq!(numbers(Failure::TLS), (None, None));
    }
}
