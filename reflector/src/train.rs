//! Packet trains: those from clients are stamped and told about, those to clients are sent a few
//! datagrams at a time, so that echoes pass between them.

use bufferbane_core::packet::{RecvMeta, SendOutcome, SendToken};
use bufferbane_core::train::host::{Departure, Host, Record};
use bufferbane_linux_io::{Outbox, SocketId, Transmit, clock};

use crate::allowance::Allowance;
use crate::departures::Departures;
use crate::echo::Responder;
use crate::mail::Way;

/// Trains whose arrivals are remembered, of all clients (6 kB each).
const RECORDS: usize = 32;
/// Datagrams that are sent between two looks at what has arrived: as much as a line of 500 Mbit/s
/// lets pass meanwhile.
const AT_ONCE: usize = 32;

/// What it counts, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TrainCounts {
    /// Datagrams of trains from clients.
    pub(crate) received: u64,
    /// Datagrams of trains to clients.
    pub(crate) sent: u64,
    /// Trains to clients.
    pub(crate) granted: u64,
}

/// See the module.
pub(crate) struct Trains {
    host: Host<Box<[Record]>, Way>,
    clients: Vec<Allowance>,
    counts: TrainCounts,
}

impl Trains {
    pub(crate) fn new(clients: Vec<Allowance>) -> Self {
        let records = std::iter::repeat_with(Record::default).take(RECORDS);
        Self {
            host: Host::new(records.collect()),
            clients,
            counts: TrainCounts::default(),
        }
    }

    pub(crate) fn set_clients(&mut self, clients: Vec<Allowance>) {
        self.clients = clients;
    }

    pub(crate) const fn counts(&self) -> TrainCounts {
        self.counts
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.host.is_sending()
    }

    /// A datagram of a train from a client.
    pub(crate) fn receive(
        &mut self,
        responder: &mut Responder,
        meta: &RecvMeta,
        datagram: &mut [u8],
    ) {
        let now = clock::now();
        let len = datagram.len() as u64;
        // Why it does not open has been counted.
        let Ok((from, car)) = responder.open_car(now, meta, datagram) else {
            return;
        };
        let Some(client) = self.clients.get(usize::from(from.client)) else {
            return;
        };
        if client.left(now) == Some(0) {
            return;
        }
        client.spend(now, len);
        let taken = self.host.handle_car(from, meta.at, &car, meta.socket_drops);
        self.counts.received += u64::from(taken.is_ok());
    }

    /// An ask: writes the report into `out`, which is as long; gives how much of it.
    pub(crate) fn answer(
        &mut self,
        responder: &mut Responder,
        socket: SocketId,
        meta: &RecvMeta,
        datagram: &mut [u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let now = clock::now();
        let len = datagram.len();
        // Why it does not open has been counted.
        let (from, ask) = responder.open_ask(now, meta, datagram).ok()?;
        let client = self.clients.get(usize::from(from.client))?;
        let way = Way {
            socket,
            peer: meta.from,
            local: meta.to,
        };
        let left = client.left(now);
        // What asks for something that there is not is not answered.
        let mut answer = self.host.handle_ask(now, from, way, &ask, left).ok()?;
        if answer.granted > 0 {
            client.spend(now, answer.granted);
            self.counts.granted += 1;
        }
        answer.fit(len);
        let out = out.get_mut(..len)?;
        responder.write_train_report(from, &answer.report, answer.arrivals, out)?;
        Some(len)
    }

    /// Sends what is due of trains to clients.
    pub(crate) fn send_some(
        &mut self,
        responder: &mut Responder,
        departures: &mut Departures<SendToken>,
        out: &mut Outbox<'_>,
    ) {
        for _ in 0..AT_ONCE {
            let Some(departure) = self.host.poll_car(clock::now()) else {
                break;
            };
            let Departure { to, way, car, size } = departure;
            let transmit = Transmit {
                from: way.local,
                ..Transmit::new(way.socket, way.peer, departures.next_key())
            };
            let mut gone = false;
            // What finds no room is missing at the client, which takes the train for cut short.
            let queued = out.send_with(&transmit, |room| {
                let room = room.get_mut(..usize::from(size))?;
                gone = responder.write_car(to, &car, room).is_none();
                (!gone).then_some(room.len())
            });
            if queued == Ok(true) {
                self.counts.sent += 1;
                if let Some(displaced) = departures.left(None, None) {
                    responder.handle_sent(displaced, SendOutcome::NoStamp);
                }
            }
            if gone {
                self.host.abandon(to);
            }
        }
        // The ring tells of its errors at the next wait.
        let _ = out.flush();
    }
}
