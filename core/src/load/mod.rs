//! Throughput and the latency that comes with it: who may test, how far a test is, and what its
//! figures say.
//!
//! ```text
//! client:    guest ─ orders ─▶ ◀─ reports ─ host     :reflector
//!            phases (idle, load, recovery)  bins (the receiver's count)
//!            marks (in-band response)       marks
//!            datagrams (at a given rate)    datagrams
//!            latency, responsiveness, grade
//! ```
//!
//! All of it is sans-IO: sockets and clocks are the drivers'.

pub mod arrivals;
pub mod bins;
pub mod datagrams;
pub mod grade;
pub mod guest;
pub mod host;
pub mod latency;
pub mod marks;
pub mod phases;
pub mod responsiveness;

use crate::drop_reason::DropReason;
use crate::seal::{Nonce, Secret, open, seal};
use crate::wire::header::{Kind, Prefix, SessionHeader};
use crate::wire::load::{TOKEN_LEN, Token};
use zerocopy::{FromBytes, IntoBytes};

/// Most streams of one test in both directions together.
pub const MAX_STREAMS: usize = 32;
/// Longest time that the streams of a test run, ns.
pub const MAX_LOAD_NS: u64 = 60_000_000_000;

/// Writes the token that opens stream `stream` of the test that the reflector calls `handle`.
#[must_use]
pub fn write_token(handle: u32, secret: &Secret, stream: u8) -> [u8; TOKEN_LEN] {
    let mut out = [0; TOKEN_LEN];
    let header = SessionHeader::new(Kind::Stream, handle, u64::from(stream));
    let token = Token {
        stream,
        reserved: [0; 15],
    };
    out[..SessionHeader::LEN].copy_from_slice(header.as_bytes());
    out[SessionHeader::LEN..][..size_of::<Token>()].copy_from_slice(token.as_bytes());
    let sealed = seal(
        secret,
        Nonce::Counter(u64::from(stream)),
        &mut out,
        SessionHeader::LEN,
    );
    debug_assert!(sealed.is_ok(), "a token has room for header and tag");
    out
}

/// The test that a token names, before it is opened.
///
/// # Errors
/// [`DropReason::Magic`] and the like where it is none.
pub fn token_handle(token: &[u8; TOKEN_LEN]) -> Result<u32, DropReason> {
    if Prefix::kind_of(token)? != Kind::Stream {
        return Err(DropReason::Type);
    }
    let (header, _) = SessionHeader::read_from_prefix(token).map_err(|_| DropReason::Length)?;
    Ok(header.session.get())
}

/// Opens a token; gives the number of the stream.
///
/// # Errors
/// [`DropReason::Seal`] where it was not sealed with `secret`, [`DropReason::Field`] where its number
/// is not the one that it was sealed under.
pub fn open_token(secret: &Secret, mut token: [u8; TOKEN_LEN]) -> Result<u8, DropReason> {
    let (header, _) = SessionHeader::read_from_prefix(&token).map_err(|_| DropReason::Length)?;
    let counter = header.counter.get();
    let body = open(
        secret,
        Nonce::Counter(counter),
        &mut token,
        SessionHeader::LEN,
    )?;
    let (token, _) = Token::read_from_prefix(body).map_err(|_| DropReason::Length)?;
    if u64::from(token.stream) != counter || usize::from(token.stream) >= MAX_STREAMS {
        return Err(DropReason::Field);
    }
    Ok(token.stream)
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod negotiation;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_with_its_secret_and_is_of_one_stream() {
        let secret = Secret::new([3; 32]);
        let token = write_token(77, &secret, 5);
        assert_eq!(token_handle(&token), Ok(77));
        assert_eq!(open_token(&secret, token), Ok(5));
        assert_eq!(
            open_token(&Secret::new([4; 32]), token),
            Err(DropReason::Seal)
        );
        for at in 0..TOKEN_LEN {
            let mut bad = token;
            bad[at] ^= 1;
            assert!(open_token(&secret, bad).is_err(), "byte {at}");
        }
    }
}
