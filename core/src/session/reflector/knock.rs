//! Knocking: what does not open earns nothing, a first knock a challenge, a second one a session.

use core::net::SocketAddr;
use core::ops::DerefMut;

use rand_core::Rng;
use subtle::ConstantTimeEq;
use zerocopy::byteorder::network_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Answer, KeyEntry, Reflector, Session};
use crate::drop_reason::DropReason;
use crate::packet::RecvMeta;
use crate::session::address_bytes;
use crate::session::record::StreamRecord;
use crate::session::sealed::{knock_header, open_knock, seal_knock};
use crate::time::Monotonic;
use crate::wire::header::Kind;
use crate::wire::knock::{Challenge, Cookie, Hello, Join, KNOCK_LEN, Welcome};

/// A challenge must come back within this, ns.
const CHALLENGE_LIFE_NS: u64 = 15_000_000_000;

impl<K, S, T> Reflector<K, S, T>
where
    K: DerefMut<Target = [KeyEntry]>,
    S: DerefMut<Target = [Session]>,
    T: DerefMut<Target = [StreamRecord]>,
{
    /// Opens a knock; gives its key's index, its nonce and its body.
    fn take_knock<B: FromBytes + KnownLayout + Immutable>(
        &mut self,
        now: Monotonic,
        request: &mut [u8],
    ) -> Result<(u16, [u8; 24], B), DropReason> {
        if request.len() != KNOCK_LEN {
            return Err(DropReason::Length);
        }
        let header = knock_header(request)?;
        let index = self
            .keys
            .iter()
            .position(|k| k.key.id.0 == header.key_id)
            .ok_or(DropReason::UnknownKey)?;
        // Opening costs time, and sources can be spoofed: what fails is only tried so often.
        if !self.failures.has(now.as_nanos()) {
            return Err(DropReason::FailureBudget);
        }
        let body = open_knock(&header, &self.keys[index].knock, request);
        if matches!(body, Err(DropReason::Seal)) {
            self.failures.take(now.as_nanos());
        }
        let body = body?;
        self.opened = Some(index as u16);
        Ok((index as u16, header.nonce, body))
    }

    /// A first knock earns a challenge, and costs no state.
    pub(super) fn challenge(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        request: &mut [u8],
        out: &mut [u8],
        rng: &mut impl Rng,
    ) -> Result<Answer, DropReason> {
        let (key, nonce, hello): (u16, _, Hello) = self.take_knock(now, request)?;
        self.may_challenge(now.as_nanos(), key, meta.from, &nonce)?;
        let client_random = hello.client_random;
        let issued_ns = U64::new(now.as_nanos());
        let mac = self.cookie_mac(meta.from, key, &client_random, issued_ns);
        let body = Challenge {
            client_random,
            cookie: Cookie { issued_ns, mac },
        };
        self.seal_knock(Kind::Challenge, key, body.as_bytes(), out, rng)
    }

    /// A second knock that brings the challenge back makes a session, or finds the one it made.
    pub(super) fn welcome(
        &mut self,
        now: Monotonic,
        meta: &RecvMeta,
        request: &mut [u8],
        out: &mut [u8],
        rng: &mut impl Rng,
    ) -> Result<Answer, DropReason> {
        let (key, _, join): (u16, _, Join) = self.take_knock(now, request)?;
        let issued_ns = join.cookie.issued_ns.get();
        let age_ns = now
            .as_nanos()
            .checked_sub(issued_ns)
            .ok_or(DropReason::Challenge)?;
        let mac = self.cookie_mac(meta.from, key, &join.client_random, join.cookie.issued_ns);
        if age_ns > CHALLENGE_LIFE_NS || !bool::from(mac.ct_eq(&join.cookie.mac)) {
            return Err(DropReason::Challenge);
        }
        let index = self.session_for(now, key, &join)?;
        let server_random = self.server_random(index, &join.client_random);
        let session = &mut self.sessions[index];
        session.set_address(meta.from);
        session.moved = false;
        let body = Welcome {
            client_random: join.client_random,
            server_random,
            boot: U64::new(self.boot),
            session: U32::new(session.number(index)),
            reserved: U32::ZERO,
        };
        self.seal_knock(Kind::Welcome, key, body.as_bytes(), out, rng)
    }

    /// The reflector's random value for the session in place `index`, which this client random made. It is not
    /// kept: a secret of this run gives it again, and another to each other session, for no two have both their number
    /// and the time of their beginning in common.
    pub(super) fn server_random(&self, index: usize, client_random: &[u8; 32]) -> [u8; 32] {
        let session = &self.sessions[index];
        let mut bound = [0; 32];
        bound[..8].copy_from_slice(&session.since_ns.to_be_bytes());
        bound[8..12].copy_from_slice(&session.number(index).to_be_bytes());
        let derived = self
            .cookie_secret
            .derive(&[client_random, &bound], b"server random");
        *derived.reveal()
    }

    fn cookie_mac(
        &self,
        from: SocketAddr,
        key: u16,
        client_random: &[u8; 32],
        issued_ns: U64,
    ) -> [u8; 16] {
        let (address, port) = address_bytes(from);
        let mut bound = [0; 32];
        bound[..16].copy_from_slice(&address);
        bound[16..18].copy_from_slice(&port.to_be_bytes());
        bound[18..26].copy_from_slice(issued_ns.as_bytes());
        let id = self.keys[usize::from(key)].key.id;
        // A key derived from all that the cookie is bound to, cut to 16 bytes, is a keyed hash of it.
        let derived = self.cookie_secret.derive(&[client_random, &bound], &id.0);
        let mut mac = [0; 16];
        mac.copy_from_slice(&derived.reveal()[..16]);
        mac
    }

    fn seal_knock(
        &self,
        kind: Kind,
        key: u16,
        body: &[u8],
        out: &mut [u8],
        rng: &mut impl Rng,
    ) -> Result<Answer, DropReason> {
        let entry = &self.keys[usize::from(key)];
        let len = seal_knock(kind, &entry.key, &entry.knock, body, out, rng)?;
        Ok(Answer { len, token: None })
    }
}
