//! Knocking: twice, ever more slowly, until there is a session.

use core::ops::DerefMut;

use rand_core::Rng;
use zerocopy::byteorder::network_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::probe::Session;
use super::{Client, SessionEvent, Unanswered};
use crate::drop_reason::DropReason;
use crate::flight::{LossSlot, Slot};
use crate::seal::ReplayWindow;
use crate::session::sealed::{knock_header, open_knock, seal_knock};
use crate::time::Monotonic;
use crate::wire::header::Kind;
use crate::wire::knock::{Challenge, Cookie, Hello, Join, KNOCK_LEN, Welcome};

/// A knock that is not answered is repeated after this, ns, and then ever more slowly.
pub(super) const FIRST_RETRY_NS: u64 = 300_000_000;
/// The slowest repetition, ns.
pub(super) const LAST_RETRY_NS: u64 = 1_500_000_000;

/// Where knocking has got to.
#[derive(Debug)]
pub(super) enum Knock {
    Idle,
    /// The first knock is to be sent, or has been and is not answered.
    Hello {
        client_random: [u8; 32],
    },
    /// The second one.
    Join {
        client_random: [u8; 32],
        cookie: Cookie,
    },
}

impl<S, L> Client<S, L>
where
    S: DerefMut<Target = [Slot]>,
    L: DerefMut<Target = [LossSlot]>,
{
    /// Writes the knock that is due.
    pub(super) fn write_knock(
        &mut self,
        now: Monotonic,
        rng: &mut impl Rng,
        out: &mut [u8],
    ) -> Option<usize> {
        // A second knock that stays without an answer is given up: its challenge may be too old.
        if self.retry_ns >= LAST_RETRY_NS && matches!(self.knock, Knock::Join { .. }) {
            self.knock = Knock::Hello {
                client_random: [0; 32],
            };
            self.retry_ns = FIRST_RETRY_NS;
        }
        self.knock_at = now.saturating_add(self.retry_ns);
        self.retry_ns = (self.retry_ns * 2).min(LAST_RETRY_NS);
        if let Knock::Hello { client_random } = &mut self.knock {
            // A random value names one attempt: each first knock has its own.
            rng.fill_bytes(client_random);
        }
        let (key, knock) = (&self.key, &self.knock_key);
        let sealed = match &self.knock {
            Knock::Idle => return None,
            Knock::Hello { client_random } => {
                let body = Hello {
                    client_random: *client_random,
                    padding: [0; 48],
                };
                seal_knock(Kind::Hello, key, knock, body.as_bytes(), out, rng)
            }
            Knock::Join {
                client_random,
                cookie,
            } => {
                let body = Join {
                    client_random: *client_random,
                    cookie: *cookie,
                    instance: U64::new(self.instance),
                    padding: [0; 16],
                };
                seal_knock(Kind::Join, key, knock, body.as_bytes(), out, rng)
            }
        };
        sealed.ok()
    }

    fn take_knock<B: FromBytes + KnownLayout + Immutable>(
        &self,
        datagram: &mut [u8],
    ) -> Result<B, DropReason> {
        let header = knock_header(datagram)?;
        if header.key_id != self.key.id.0 {
            return Err(DropReason::UnknownKey);
        }
        open_knock(&header, &self.knock_key, datagram)
    }

    /// The answer to a first knock.
    pub(super) fn challenged(
        &mut self,
        now: Monotonic,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        let challenge: Challenge = self.take_knock(datagram)?;
        match &self.knock {
            Knock::Hello { client_random } if *client_random == challenge.client_random => {
                self.knock = Knock::Join {
                    client_random: *client_random,
                    cookie: challenge.cookie,
                };
                self.knock_at = now;
                self.retry_ns = FIRST_RETRY_NS;
                Ok(())
            }
            _ => Err(DropReason::Unmatched),
        }
    }

    /// The answer to a second knock: new keys, and perhaps a reflector that was restarted.
    pub(super) fn welcomed(
        &mut self,
        now: Monotonic,
        datagram: &mut [u8],
    ) -> Result<(), DropReason> {
        if datagram.len() != KNOCK_LEN {
            return Err(DropReason::Length);
        }
        let welcome: Welcome = self.take_knock(datagram)?;
        match &self.knock {
            Knock::Join { client_random, .. } if *client_random == welcome.client_random => {}
            _ => return Err(DropReason::Unmatched),
        }
        self.knock = Knock::Idle;
        self.has_moved = false;
        let session = Session {
            number: welcome.session.get(),
            keys: self
                .key
                .session_keys(&welcome.client_random, &welcome.server_random),
            since: now,
            next_counter: 0,
            down: ReplayWindow::new(),
        };
        let first = self.boot.is_none();
        if self
            .boot
            .replace(welcome.boot.get())
            .is_some_and(|b| b != welcome.boot.get())
        {
            for s in &mut self.streams {
                s.flight.on_remote_restart();
                s.believe_from = s.flight.next_seq();
                s.newest = None;
                s.run = None;
            }
            self.remote_drops = None;
            self.remote_clock = None;
            self.before = None;
            self.session = None;
            self.event(SessionEvent::RemoteRestarted);
        }
        self.before = self.session.replace(session);
        self.heard_at = now;
        self.unanswered = Unanswered::default();
        if first {
            self.event(SessionEvent::Established);
        }
        if core::mem::take(&mut self.silent) {
            self.event(SessionEvent::Back);
        }
        Ok(())
    }
}
