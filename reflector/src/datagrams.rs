//! Tests over UDP: the echo thread counts what clients send, and sends what they ordered, a few
//! datagrams at a time, so that echoes pass between them.

use bufferbane_core::load::datagrams::flows::{Departure, Figures, Flows, SILENCE_NS};
use bufferbane_core::load::datagrams::sends::Sends;
use bufferbane_core::load::datagrams::{handle_of, write};
use bufferbane_core::load::host::TestHandle;
use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::session::reflector::OrderFrom;
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::Order;
use bufferbane_linux_io::{Outbox, Queued, Transmit, clock};

use crate::allowance::Allowance;
use crate::departures::Departures;
use crate::echo::Responder;
use crate::mail::{News, Way};

/// Datagrams that are sent between two looks at what has arrived.
const AT_ONCE: usize = 64;

/// What it counts, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DatagramCounts {
    /// Datagrams of tests from clients.
    pub(crate) received: u64,
    /// Datagrams of tests to clients.
    pub(crate) sent: u64,
}

/// See the module.
pub(crate) struct Datagrams {
    /// Large, and this is handed over by value.
    flows: Box<Flows<Way>>,
    clients: Vec<Allowance>,
    sends: Box<Sends<TestHandle>>,
    counts: DatagramCounts,
}

impl Datagrams {
    pub(crate) fn new(clients: Vec<Allowance>) -> Self {
        Self {
            flows: Box::new(Flows::new()),
            clients,
            sends: Box::default(),
            counts: DatagramCounts::default(),
        }
    }

    pub(crate) fn set_clients(&mut self, clients: Vec<Allowance>) {
        self.clients = clients;
    }

    pub(crate) const fn counts(&self) -> DatagramCounts {
        self.counts
    }

    pub(crate) fn hear(&mut self, news: News) {
        match news {
            News::Begins(plan) => self.flows.begin(*plan),
            News::Ends(test) => self.flows.end(clock::now(), test),
        }
    }

    /// An order on its way to the streams thread: what has been counted of its test.
    pub(crate) fn pass_by(&mut self, from: OrderFrom, way: Way, order: &Order) -> Option<Figures> {
        self.flows.handle_order(clock::now(), from, way, order)
    }

    /// A datagram of a test from a client.
    pub(crate) fn receive(
        &mut self,
        responder: &mut Responder,
        meta: &RecvMeta,
        datagram: &mut [u8],
    ) {
        let test = handle_of(datagram).map(TestHandle);
        let of = test.ok().and_then(|test| self.flows.key_of(test));
        let client = of.map(|(from, _)| from.client);
        // Why it does not open has been counted.
        let Ok(number) = responder.open_load(meta, of, datagram) else {
            return;
        };
        let (Ok(test), Some(client)) = (test, client) else {
            return;
        };
        let (now, len) = (clock::now(), datagram.len() as u64);
        // One that comes again is not its client's: anybody who has seen it can send it.
        if self.has_left(client, now) && self.flows.handle_datagram(test, meta.at.at, number, len) {
            self.counts.received += 1;
            self.spend(client, now, len);
        }
    }

    /// Forgets what ended long ago.
    pub(crate) fn handle_timeout(&mut self, now: Monotonic) {
        self.flows.handle_timeout(now);
    }

    /// When [`Datagrams::send_some`] is next needed.
    pub(crate) fn poll_timeout(&self, now: Monotonic) -> Option<Monotonic> {
        self.flows.poll_timeout(now)
    }

    /// Sends what is due.
    pub(crate) fn send_some(
        &mut self,
        responder: &mut Responder,
        departures: &mut Departures<SendToken>,
        out: &mut Outbox<'_>,
    ) {
        for _ in 0..AT_ONCE {
            let now = clock::now();
            let hears = |from, way: Way| responder.hears(from, way.peer, now, SILENCE_NS);
            let Some(departure) = self.flows.poll_departure(now, hears) else {
                break;
            };
            let Departure {
                way,
                client,
                test,
                number,
                size,
                dscp,
                key,
            } = departure;
            let transmit = Transmit {
                from: way.local,
                tos: (dscp > 0).then_some(dscp << 2),
                ..Transmit::new(way.socket, way.peer, departures.next_key())
            };
            let size = usize::from(size);
            let queued = out.send_joined(&transmit, size, |room| {
                write(key, test.0, number, &mut room[..size]).ok()?;
                Some(size)
            });
            let with = match queued {
                Ok(Queued::First) => None,
                Ok(Queued::With(first)) => Some(first),
                // It was not sent, and its number is the next one's.
                Ok(Queued::Nothing) | Err(_) => continue,
            };
            self.sends.add(transmit.key, with, test);
            self.flows.handle_sent(test);
            self.counts.sent += 1;
            if let Some(displaced) = departures.left(None, with) {
                responder.handle_sent(displaced, SendOutcome::NoStamp);
            }
            if self.has_left(client, now) {
                self.spend(client, now, size as u64);
            }
        }
        // The ring tells of its errors at the next wait.
        let _ = out.flush();
    }

    /// A send failed: what was in it was not lost by the line.
    pub(crate) fn failed(&mut self, key: u32) {
        if let Some((test, count)) = self.sends.take(key) {
            self.flows.handle_failed(test, count);
        }
    }

    /// Whether a client has bytes of its day left; where it has none its tests move no more.
    fn has_left(&mut self, client: u16, now: Monotonic) -> bool {
        let Some(allowance) = self.clients.get(usize::from(client)) else {
            return false;
        };
        let has_left = allowance.left(now) != Some(0);
        if !has_left {
            self.flows.use_up(client);
        }
        has_left
    }

    /// Takes bytes off a client's day.
    fn spend(&self, client: u16, now: Monotonic, bytes: u64) {
        if let Some(allowance) = self.clients.get(usize::from(client)) {
            allowance.spend(now, bytes);
        }
    }
}
