//! What becomes of each datagram that comes, and of each that has left.

use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::session::record::StreamRecord;
use bufferbane_core::session::reflector::{KeyEntry, Reflector, Session};
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_core::time::Stamp;
use bufferbane_core::wire::header::{Kind, Prefix};
use bufferbane_linux_io::{EngineOptions, Event, Outbox, Queued, SocketId, Transmit, clock};
use nix::errno::Errno;
use rand_chacha::ChaCha20Rng;

use crate::allowance::Allowance;
use crate::config::MAX_LISTEN;
use crate::datagrams::Datagrams;
use crate::departures::{Departures, Sent};
use crate::mail::{Asked, Mail, Way};
use crate::stamp::{MAX_STAMP_LISTEN, StampAnswers};
use crate::train::Trains;

pub(crate) type Responder = Reflector<Box<[KeyEntry]>, Box<[Session]>, Box<[StreamRecord]>>;

/// The state of the thread beside its engine.
pub(super) struct Answering {
    pub(super) responder: Responder,
    departures: Departures<SendToken>,
    rng: ChaCha20Rng,
    /// Where a request is opened.
    request: Box<[u8]>,
    pub(super) residence: Box<Histogram>,
    /// Requests that could not be answered because the ring was full or the kernel had no room. What
    /// fails for its destination (no route, forbidden) is not among them: it concerns one client.
    pub(super) overload: u64,
    /// Orders, asks and reports that found no room: whoever waits for an answer asks again, and no probe was
    /// lost with them.
    pub(super) orders_lost: u64,
    /// By the socket's place: its own count as last seen, wrapping.
    socket_counts: [u32; MAX_LISTEN + MAX_STAMP_LISTEN],
    pub(super) socket_drops: u64,
    woken: bool,
    pub(super) mail: Mail,
    pub(super) stamp: Option<StampAnswers>,
    pub(super) trains: Trains,
    pub(super) datagrams: Datagrams,
}

impl Answering {
    pub(super) fn new(
        responder: Responder,
        rng: ChaCha20Rng,
        mail: Mail,
        stamp: Option<StampAnswers>,
        clients: Vec<Allowance>,
    ) -> Self {
        Self {
            responder,
            departures: Departures::new(),
            rng,
            request: vec![0; EngineOptions::reflector().receive_buffer_bytes].into_boxed_slice(),
            residence: Box::default(),
            overload: 0,
            orders_lost: 0,
            socket_counts: [0; MAX_LISTEN + MAX_STAMP_LISTEN],
            socket_drops: 0,
            woken: false,
            mail,
            stamp,
            trains: Trains::new(clients.clone()),
            datagrams: Datagrams::new(clients),
        }
    }

    /// Whether another thread has something to say since this was last asked.
    pub(super) fn take_woken(&mut self) -> bool {
        std::mem::take(&mut self.woken)
    }

    /// Something happened on the ring.
    pub(super) fn handle(&mut self, out: &mut Outbox<'_>, event: Event<'_>) {
        match event {
            Event::Received {
                socket,
                meta,
                bytes,
            } => self.receive(out, socket, meta, bytes),
            Event::TxStamp { key, stamp, .. } => self.stamped(key, stamp),
            Event::Sent {
                socket,
                key,
                errno: Some(errno),
            } => {
                if self.stamp.as_ref().is_some_and(|s| s.owns(socket)) {
                    return;
                }
                // An echo that was not sent is as little lost by the line as one that found no room.
                let no_room = is_for_want_of_room(errno);
                self.datagrams.failed(key);
                for sent in self.departures.take(key) {
                    if no_room {
                        self.overload += 1;
                    } else {
                        let failed = SendOutcome::Failed(errno);
                        self.responder.handle_sent(sent.token, failed);
                    }
                }
            }
            Event::Wake => self.woken = true,
            Event::Sent { errno: None, .. } | Event::SocketError { .. } => {}
        }
    }

    fn receive(&mut self, out: &mut Outbox<'_>, socket: SocketId, meta: RecvMeta, bytes: &[u8]) {
        if let Some(seen) = self.socket_counts.get_mut(socket.index()) {
            self.socket_drops += u64::from(meta.socket_drops.wrapping_sub(*seen));
            *seen = meta.socket_drops;
        }
        if let Some(stamp) = self.stamp.as_mut().filter(|s| s.owns(socket)) {
            self.overload += u64::from(!stamp.receive(out, socket, &meta, bytes));
            return;
        }
        let len = bytes.len().min(self.request.len());
        let request = &mut self.request[..len];
        request.copy_from_slice(&bytes[..len]);
        match Prefix::kind_of(request) {
            Ok(Kind::Order) => return self.pass_on(socket, &meta, len),
            Ok(Kind::Train) => return self.trains.receive(&mut self.responder, &meta, request),
            Ok(Kind::Load) => {
                let (datagrams, responder) = (&mut self.datagrams, &mut self.responder);
                return datagrams.receive(responder, &meta, request);
            }
            Ok(Kind::TrainAsk) => return self.answer_ask(out, socket, &meta, len),
            _ => {}
        }
        let arrived = meta.at.at;
        let transmit = Transmit {
            // From the address that was hit, whatever the routing table would choose.
            from: meta.to,
            ..Transmit::new(socket, meta.from, self.departures.next_key())
        };
        let meta = RecvMeta {
            // What was lost for want of room here is as little the line's as what the socket lost.
            socket_drops: meta.socket_drops.wrapping_add(self.overload as u32),
            ..meta
        };
        let (responder, rng) = (&mut self.responder, &mut self.rng);
        let mut token = None;
        // No answer is longer than what it answers.
        let queued = out.send_joined(&transmit, len, |room| {
            let answer = responder.handle_request(clock::now(), &meta, request, room, rng);
            // Why there is none has been counted.
            let answer = answer.ok()?;
            token = answer.token;
            Some(answer.len)
        });
        let with = match queued {
            Ok(Queued::Nothing) => return,
            Ok(Queued::First) => None,
            Ok(Queued::With(first)) => Some(first),
            Err(_) => {
                // It was not even queued: no destination does that.
                self.overload += 1;
                return;
            }
        };
        let sent = token.map(|token| Sent { token, arrived });
        if let Some(displaced) = self.departures.left(sent, with) {
            responder.handle_sent(displaced, SendOutcome::NoStamp);
        }
    }

    /// Hands an order to the streams thread; one that finds no room there is asked again.
    fn pass_on(&mut self, socket: SocketId, meta: &RecvMeta, len: usize) {
        let request = &mut self.request[..len];
        // Why it does not open has been counted.
        let Ok((from, order)) = self.responder.open_order(clock::now(), meta, request) else {
            return;
        };
        let way = Way {
            socket,
            peer: meta.from,
            local: meta.to,
        };
        let figures = self.datagrams.pass_by(from, way, &order);
        let asked = Asked {
            from,
            order,
            way,
            figures,
        };
        if self.mail.asked.try_send(asked).is_ok() {
            self.mail.streams.wake();
        } else {
            self.orders_lost += 1;
        }
    }

    /// Answers what is asked about a train; an answer that finds no room is asked for again.
    fn answer_ask(&mut self, out: &mut Outbox<'_>, socket: SocketId, meta: &RecvMeta, len: usize) {
        let transmit = Transmit {
            from: meta.to,
            ..Transmit::new(socket, meta.from, self.departures.next_key())
        };
        let request = &mut self.request[..len];
        let (trains, responder) = (&mut self.trains, &mut self.responder);
        let queued = out.send_with(&transmit, |room| {
            trains.answer(responder, socket, meta, request, room)
        });
        match queued {
            Ok(true) => self.left_unawaited(),
            Ok(false) => {}
            Err(_) => self.orders_lost += 1,
        }
    }

    /// Sends some of the trains to clients.
    pub(super) fn send_cars(&mut self, out: &mut Outbox<'_>) {
        let (departures, responder) = (&mut self.departures, &mut self.responder);
        self.trains.send_some(responder, departures, out);
    }

    /// Sends what is due of tests over UDP.
    pub(super) fn send_datagrams(&mut self, out: &mut Outbox<'_>) {
        let (departures, responder) = (&mut self.departures, &mut self.responder);
        self.datagrams.send_some(responder, departures, out);
    }

    /// What has just been queued under the next key is no echo.
    fn left_unawaited(&mut self) {
        if let Some(displaced) = self.departures.left(None, None) {
            self.responder.handle_sent(displaced, SendOutcome::NoStamp);
        }
    }

    /// Seals and sends what the streams thread has to say.
    pub(super) fn send_reports(&mut self, out: &mut Outbox<'_>) {
        while let Ok(told) = self.mail.told.try_recv() {
            let Some(datagram) = self.responder.write_report(told.to, &told.report) else {
                continue;
            };
            let transmit = Transmit {
                from: told.way.local,
                ..Transmit::new(told.way.socket, told.way.peer, self.departures.next_key())
            };
            if out.send(&transmit, &datagram).is_ok() {
                if let Some(displaced) = self.departures.left(None, None) {
                    self.responder.handle_sent(displaced, SendOutcome::NoStamp);
                }
            } else {
                self.orders_lost += 1;
            }
        }
    }

    fn stamped(&mut self, key: u32, stamp: Stamp) {
        for sent in self.departures.take(key) {
            let stay_ns = stamp.at.saturating_since(sent.arrived);
            self.residence.add(stay_ns);
            self.responder
                .handle_sent(sent.token, SendOutcome::Stamped(stamp));
        }
    }
}

/// Whether an echo was not sent because this host had no room for it: whatever else the kernel says
/// is about where it was to go.
fn is_for_want_of_room(errno: i32) -> bool {
    matches!(
        Errno::from_raw(errno),
        Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_destination_says_nothing_of_this_host() {
        use Errno::{
            EACCES, EAFNOSUPPORT, ECONNREFUSED, EHOSTUNREACH, EINVAL, EMSGSIZE, ENETDOWN,
            ENETUNREACH, EPERM,
        };
        for errno in [
            EACCES,
            EAFNOSUPPORT,
            ECONNREFUSED,
            EHOSTUNREACH,
            EINVAL,
            EMSGSIZE,
            ENETDOWN,
            ENETUNREACH,
            EPERM,
        ] {
            assert!(!is_for_want_of_room(errno as i32), "{errno}");
        }
        for errno in [Errno::ENOBUFS, Errno::ENOMEM, Errno::EAGAIN] {
            assert!(is_for_want_of_room(errno as i32), "{errno}");
        }
    }
}
