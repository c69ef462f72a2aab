//! A session with the reflector, made by hand so that probes can be sealed before the clock runs.

use std::io;
use std::net::UdpSocket;

use bufferbane_core::limits::MAX_DATAGRAM;
use bufferbane_core::seal::{Nonce, PresharedKey, SessionKeys, open, seal};
use bufferbane_core::wire::header::{Kind, KnockHeader, Prefix, SessionHeader, TAG_LEN};
use bufferbane_core::wire::knock::{Challenge, Cookie, Hello, Join, KNOCK_LEN, Welcome};
use bufferbane_core::wire::probe::{Probe, Reply, WANT_NOTHING};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;
use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::super::Fail;

/// How often a knock is repeated: the reflector answers 20 a second for each key.
const ATTEMPTS: usize = 40;

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    number: u32,
    keys: SessionKeys,
    counter: u64,
}

impl Session {
    /// Knocks over `socket`, which is connected to the reflector and has a read time-out.
    pub(super) fn knock(
        socket: &UdpSocket,
        key: &PresharedKey,
        rng: &mut ChaCha8Rng,
    ) -> Result<Self, Fail> {
        let mut client_random = [0; 32];
        rng.fill_bytes(&mut client_random);
        let hello = Hello {
            client_random,
            padding: [0; 48],
        };
        let challenge: Challenge = ask(socket, key, rng, (Kind::Hello, &hello), Kind::Challenge)?;
        let join = Join {
            client_random,
            cookie: Cookie { ..challenge.cookie },
            instance: U64::new(rng.next_u64()),
            padding: [0; 16],
        };
        let welcome: Welcome = ask(socket, key, rng, (Kind::Join, &join), Kind::Welcome)?;
        Ok(Self {
            number: welcome.session.get(),
            keys: key.session_keys(&client_random, &welcome.server_random),
            counter: 0,
        })
    }

    /// Seals the next probe of its one stream into `datagram`, all of it.
    pub(super) fn probe(&mut self, datagram: &mut [u8]) {
        let header = SessionHeader::new(Kind::Probe, self.number, self.counter);
        let probe = Probe {
            stream: U16::ZERO,
            flags: U16::ZERO,
            reserved: U32::ZERO,
            seq: U64::new(self.counter),
            sent_ns: U64::new(self.counter + 1),
            earlier_seq: U64::ZERO,
            earlier_tx_ns: U64::ZERO,
            want: U64::new(match self.counter / 64 {
                0 => WANT_NOTHING,
                n => (n - 1) * 64,
            }),
        };
        datagram.fill(0);
        datagram[..SessionHeader::LEN].copy_from_slice(header.as_bytes());
        let body = &mut datagram[SessionHeader::LEN..];
        body[..size_of::<Probe>()].copy_from_slice(probe.as_bytes());
        // Every datagram here has room for header and tag, which is the only thing that can fail.
        let _ = seal(
            &self.keys.up,
            Nonce::Counter(self.counter),
            datagram,
            SessionHeader::LEN,
        );
        self.counter += 1;
    }

    /// Whether `datagram` looks like an echo of this session, at no cost.
    pub(super) fn is_echo(&self, datagram: &[u8]) -> bool {
        matches!(Prefix::kind_of(datagram), Ok(Kind::Reply))
            && datagram[8..12] == self.number.to_be_bytes()
    }

    /// Whether it is one indeed.
    pub(super) fn opens(&self, datagram: &[u8]) -> bool {
        let mut copy = [0; MAX_DATAGRAM];
        let copy = &mut copy[..datagram.len()];
        copy.copy_from_slice(datagram);
        let Ok((header, _)) = SessionHeader::read_from_prefix(copy) else {
            return false;
        };
        let nonce = Nonce::Counter(header.counter.get());
        open(&self.keys.down, nonce, copy, SessionHeader::LEN)
            .is_ok_and(|body| Reply::ref_from_prefix(body).is_ok())
    }
}

/// Sends a knock until there is an answer of that kind.
fn ask<T: FromBytes>(
    socket: &UdpSocket,
    key: &PresharedKey,
    rng: &mut ChaCha8Rng,
    (kind, body): (Kind, &(impl IntoBytes + Immutable)),
    answer: Kind,
) -> Result<T, Fail> {
    let failed = |e: &dyn std::fmt::Display| Fail::of("knocking at the reflector", e);
    let knock_key = key.knock_key();
    let mut bytes = [0; MAX_DATAGRAM];
    for _ in 0..ATTEMPTS {
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        let mut knock = [0; KNOCK_LEN];
        let header = KnockHeader::new(kind, key.id.0, nonce);
        knock[..KnockHeader::LEN].copy_from_slice(header.as_bytes());
        knock[KnockHeader::LEN..KNOCK_LEN - TAG_LEN].copy_from_slice(body.as_bytes());
        let sealed = seal(
            &knock_key,
            Nonce::Random(nonce),
            &mut knock,
            KnockHeader::LEN,
        );
        sealed.map_err(|e| failed(&e.as_str()))?;
        socket.send(&knock).map_err(|e| failed(&e))?;
        let len = match socket.recv(&mut bytes) {
            Ok(len) => len,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                continue;
            }
            Err(e) => return Err(failed(&e)),
        };
        let datagram = &mut bytes[..len];
        if Prefix::kind_of(datagram) != Ok(answer) {
            continue;
        }
        let Ok((header, _)) = KnockHeader::read_from_prefix(datagram) else {
            continue;
        };
        let nonce = Nonce::Random(header.nonce);
        if let Ok(body) = open(&knock_key, nonce, datagram, KnockHeader::LEN)
            && let Ok((body, _)) = T::read_from_prefix(body)
        {
            return Ok(body);
        }
    }
    Err(failed(&"no answer"))
}
