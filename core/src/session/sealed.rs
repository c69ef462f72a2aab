//! Sealed datagrams put together and taken apart, the same way at both ends.

use rand_core::Rng;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::drop_reason::DropReason;
use crate::seal::{Nonce, PresharedKey, Secret, SessionCipher, open, open_with, seal, seal_with};
use crate::wire::header::{Kind, KnockHeader, SessionHeader, TAG_LEN};

/// Writes and seals a knock message at the begin of `out`; gives its length.
pub(super) fn seal_knock(
    kind: Kind,
    key: &PresharedKey,
    knock: &Secret,
    body: &[u8],
    out: &mut [u8],
    rng: &mut impl Rng,
) -> Result<usize, DropReason> {
    let mut nonce = [0; 24];
    rng.fill_bytes(&mut nonce);
    let header = KnockHeader::new(kind, key.id.0, nonce);
    let len = KnockHeader::LEN + body.len() + TAG_LEN;
    let out = out.get_mut(..len).ok_or(DropReason::Length)?;
    write(out, header.as_bytes(), body)?;
    seal(knock, Nonce::Random(nonce), out, KnockHeader::LEN)?;
    Ok(len)
}

/// The clear header of a knock message.
pub(super) fn knock_header(datagram: &[u8]) -> Result<KnockHeader, DropReason> {
    read(datagram)
}

/// Opens a knock message, in place; gives its body.
pub(super) fn open_knock<B: FromBytes + KnownLayout + Immutable>(
    header: &KnockHeader,
    knock: &Secret,
    datagram: &mut [u8],
) -> Result<B, DropReason> {
    let nonce = Nonce::Random(header.nonce);
    read(open(knock, nonce, datagram, KnockHeader::LEN)?)
}

/// Fills `out` with a message of a session, padded with zeros, and seals it. `counter` must be new
/// under `key`.
pub(super) fn seal_message(
    cipher: &dyn SessionCipher,
    kind: Kind,
    session: u32,
    counter: u64,
    key: &Secret,
    body: &[u8],
    out: &mut [u8],
) -> Result<(), DropReason> {
    let header = SessionHeader::new(kind, session, counter);
    write(out, header.as_bytes(), body)?;
    seal_with(cipher, key, counter, out, SessionHeader::LEN)
}

/// The clear header of a message of a session.
pub(super) fn session_header(datagram: &[u8]) -> Result<SessionHeader, DropReason> {
    read(datagram)
}

/// Opens a message of a session, in place; gives its body.
pub(super) fn open_message<B: FromBytes + KnownLayout + Immutable>(
    cipher: &dyn SessionCipher,
    header: &SessionHeader,
    key: &Secret,
    datagram: &mut [u8],
) -> Result<B, DropReason> {
    let counter = header.counter.get();
    read(open_with(
        cipher,
        key,
        counter,
        datagram,
        SessionHeader::LEN,
    )?)
}

fn read<B: FromBytes + KnownLayout + Immutable>(bytes: &[u8]) -> Result<B, DropReason> {
    B::read_from_prefix(bytes)
        .map(|(b, _)| b)
        .map_err(|_| DropReason::Length)
}

/// Puts header and body at the begin of `out` and zeros behind them.
fn write(out: &mut [u8], header: &[u8], body: &[u8]) -> Result<(), DropReason> {
    let (head, rest) = out
        .split_at_mut_checked(header.len())
        .ok_or(DropReason::Length)?;
    let (place, padding) = rest
        .split_at_mut_checked(body.len())
        .ok_or(DropReason::Length)?;
    head.copy_from_slice(header);
    place.copy_from_slice(body);
    padding.fill(0);
    Ok(())
}
