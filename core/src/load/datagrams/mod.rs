//! A test over UDP: datagrams at a given rate, and what of them arrives.
//!
//! ```text
//! sender:    pace (when) ─▶ write ─▶ ≈≈≈ ─▶ open ─▶ tally (bins, losses, order)     :receiver
//! ```
//!
//! A datagram is a header and a seal: its number is the header's counter, and what is between them is
//! padding. The keys of both directions are derived from the secret of the test.

pub mod flows;
pub mod pace;
pub mod sends;
pub mod tally;

use zerocopy::{FromBytes, IntoBytes};

use crate::drop_reason::DropReason;
use crate::seal::{Nonce, Secret, open, seal};
use crate::wire::header::{Kind, Prefix, SessionHeader, TAG_LEN};
use crate::wire::load::MIN_LOAD_SIZE;

/// What one end of a test has counted of its datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Those that have arrived here, each once.
    pub received: u32,
    /// Those that arrived once more.
    pub again: u32,
    /// Those of `received` that arrived after one that was sent later.
    pub overtaken: u32,
    /// Those that left here.
    pub sent: u32,
}

impl Counted {
    /// None.
    pub const NONE: Self = Self {
        received: 0,
        again: 0,
        overtaken: 0,
        sent: 0,
    };
}

/// The keys of one test's datagrams.
#[derive(Clone, Debug)]
pub struct LoadKeys {
    /// Seals what the client sends.
    pub up: Secret,
    /// Seals what the reflector sends.
    pub down: Secret,
}

impl LoadKeys {
    /// Those of the test with this secret.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        let none = &[0; 32];
        Self {
            up: secret.derive(&[none, none], b"bufferbane 1 load up"),
            down: secret.derive(&[none, none], b"bufferbane 1 load down"),
        }
    }
}

/// Fills `out` with datagram `number` of the test that the reflector calls `handle`, and seals it.
/// `number` must be new under `key`.
///
/// # Errors
/// [`DropReason::Length`] where `out` has no room for header and seal.
pub fn write(key: &Secret, handle: u32, number: u64, out: &mut [u8]) -> Result<(), DropReason> {
    let header = SessionHeader::new(Kind::Load, handle, number);
    let (head, rest) = out
        .split_at_mut_checked(SessionHeader::LEN)
        .ok_or(DropReason::Length)?;
    head.copy_from_slice(header.as_bytes());
    let padding = rest.len().saturating_sub(TAG_LEN);
    rest[..padding].fill(0);
    seal(key, Nonce::Counter(number), out, SessionHeader::LEN)
}

/// The test that a datagram names, before it is opened.
///
/// # Errors
/// [`DropReason::Type`] and the like where it is no datagram of a test.
pub fn handle_of(datagram: &[u8]) -> Result<u32, DropReason> {
    if Prefix::kind_of(datagram)? != Kind::Load {
        return Err(DropReason::Type);
    }
    if datagram.len() < MIN_LOAD_SIZE {
        return Err(DropReason::Length);
    }
    let (header, _) = SessionHeader::read_from_prefix(datagram).map_err(|_| DropReason::Length)?;
    Ok(header.session.get())
}

/// Opens a datagram in place; gives its number.
///
/// # Errors
/// [`DropReason::Seal`] where it was not sealed with `key`.
pub fn open_datagram(key: &Secret, datagram: &mut [u8]) -> Result<u64, DropReason> {
    let (header, _) = SessionHeader::read_from_prefix(datagram).map_err(|_| DropReason::Length)?;
    let number = header.counter.get();
    open(key, Nonce::Counter(number), datagram, SessionHeader::LEN)?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_opens_with_the_key_of_its_direction_only() {
        let keys = LoadKeys::of(&Secret::new([3; 32]));
        let mut datagram = [0xff; MIN_LOAD_SIZE];
        write(&keys.up, 77, 5, &mut datagram).unwrap();
        assert_eq!(handle_of(&datagram), Ok(77));
        assert_eq!(open_datagram(&keys.up, &mut datagram.clone()), Ok(5));
        let others = [
            keys.down.clone(),
            Secret::new([3; 32]),
            LoadKeys::of(&Secret::new([4; 32])).up,
        ];
        for key in others {
            let opened = open_datagram(&key, &mut datagram.clone());
            assert_eq!(opened, Err(DropReason::Seal));
        }
        for at in 0..MIN_LOAD_SIZE {
            let mut bad = datagram;
            bad[at] ^= 1;
            assert!(open_datagram(&keys.up, &mut bad).is_err(), "byte {at}");
        }
        assert_eq!(handle_of(&datagram[1..]), Err(DropReason::Magic));
        assert_eq!(
            handle_of(&datagram[..MIN_LOAD_SIZE - 1]),
            Err(DropReason::Length)
        );
        assert_eq!(
            write(&keys.up, 77, 5, &mut [0; 35]),
            Err(DropReason::Length)
        );
    }
}
