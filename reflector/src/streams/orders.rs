//! Orders: which tests are granted, who may connect for them, and their ends.

use bufferbane_core::load::host::{Asker, HostLimits, TestHandle};
use bufferbane_core::stamp::Subnet;
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::TestState;
use bufferbane_linux_io::admission::{self, Prefix};
use bufferbane_linux_io::{Family, clock, tcp};

use super::Streams;
use super::connections::congestion;
use super::granted::Load;
use super::leaving::Route;
use crate::allowance::Allowance;
use crate::mail::{Asked, News, Told, Way};

impl Streams {
    fn port_for(&self, way: &Way) -> Option<u16> {
        let family = Family::of(&way.peer.ip());
        let mut listeners = self.bulk.listeners().iter();
        let listener = listeners.find(|l| l.family() == family)?;
        Some(listener.local_addr().port())
    }

    pub(super) fn answer(&mut self, now: Monotonic, asked: &Asked) {
        let client = asked.from.client;
        let Some(allowance) = self.clients.get(usize::from(client)) else {
            return;
        };
        let port = self.port_for(&asked.way);
        // What is over by now is known no more.
        self.host.handle_timeout(now);
        let asker = Asker {
            client,
            bytes_left: allowance.left(now),
            congestion_known: !self.host.would_open(client, &asked.order)
                || congestion(&asked.order.congestion)
                    .is_some_and(|name| tcp::check_congestion(name).is_ok()),
            port: port.unwrap_or(0),
            max_rate_bps: allowance.max_rate_bps,
            proven: asked.from.proven,
            may_announce: Self::may_announce(allowance, asked),
            figures: asked.figures.clone(),
        };
        // Datagrams need no listener.
        if port.is_none() && asked.order.offer().is_none() {
            self.host.set_limits(HostLimits {
                concurrent: 0,
                ..self.limits
            });
        }
        let report = self
            .host
            .handle_order(now, &asker, &asked.order, &mut self.rng);
        self.host.set_limits(self.limits);
        let Ok(mut report) = report else { return };
        let state = TestState::from_u8(report.state);
        let is_known = matches!(state, Some(TestState::Granted | TestState::Ended));
        if is_known && asked.order.offer().is_some_and(|o| o.down_bps > 0) {
            let (test, op) = (TestHandle(report.handle.get()), asked.order.op);
            let route = Route {
                to: asked.way.peer.ip(),
                from: asked.way.local,
            };
            report.tell_sender_drops(self.sent.ordered(now, test, op, route));
        }
        match state {
            Some(TestState::Granted) => self.granted(TestHandle(report.handle.get()), asked),
            Some(TestState::Busy) => self.counts.busy += 1,
            Some(TestState::Refused) => self.counts.refused += 1,
            _ => {}
        }
        let told = Told {
            to: asked.from,
            report: Box::new(report),
            way: asked.way,
        };
        // A report that finds no room is asked for again.
        if self.ends.told.try_send(told).is_ok()
            && let Some(waker) = &self.echo
        {
            waker.wake();
        }
    }

    /// The addresses that an order says TCP may come from; `None` where it comes as the order did: addresses of IPv4 say
    /// nothing of a client that is reached by IPv6.
    fn announced(asked: &Asked) -> Option<Subnet> {
        let subnet = asked.order.announced().ok().flatten()?;
        (subnet.address.is_ipv4() == asked.way.peer.is_ipv4()).then_some(subnet)
    }

    /// Whether TCP may come from there: around the address that its client has proved to be at, or where the operator
    /// knows that client's carrier to have its own.
    fn may_announce(allowance: &Allowance, asked: &Asked) -> bool {
        let Some(announced) = Self::announced(asked) else {
            return true;
        };
        let holds = |allowed: &Subnet| {
            allowed.prefix <= announced.prefix && allowed.contains(announced.address)
        };
        asked.from.proven && announced.contains(asked.way.peer.ip())
            || allowance.tcp_prefixes.iter().any(holds)
    }

    /// An order of a test that runs came, or the one that opened it.
    fn granted(&mut self, test: TestHandle, asked: &Asked) {
        if !self.granted.knows(test) {
            self.counts.granted += 1;
            let load = match self.host.flow(test) {
                Some(plan) => {
                    // The echo thread counts and sends its datagrams; it is gone only when everything ends.
                    let _ = self.ends.news.send(News::Begins(Box::new(plan)));
                    Load::Datagrams
                }
                None => {
                    // A wider one than is allowed was refused.
                    let subnet = Self::announced(asked);
                    Load::Streams(subnet.and_then(|s| Prefix::new(s.address, s.prefix)))
                }
            };
            self.granted.begin(test, load);
        }
        if asked.from.proven && self.granted.ordered_from(test, asked.way.peer.ip()) {
            self.admit();
        }
    }

    /// Lets those connect to whom a test was granted, and nobody else.
    fn admit(&self) {
        let prefixes = self.granted.admitted();
        for listener in self.bulk.listeners() {
            if let Err(e) = admission::admit(listener, listener.family(), &prefixes) {
                log::error!("who may connect to {}: {e}", listener.local_addr());
            }
        }
    }

    /// Closes the streams of tests that are over.
    pub(super) fn end_tests(&mut self) {
        let mut others = false;
        while let Some((test, client, bytes)) = self.host.poll_ended() {
            match self.granted.end(test) {
                Some(Load::Datagrams) => {
                    self.sent.end(test);
                    // Gone only when everything ends.
                    let _ = self.ends.news.send(News::Ends(test));
                    if let Some(waker) = &self.echo {
                        waker.wake();
                    }
                }
                Some(Load::Streams(_)) => others = true,
                None => {}
            }
            let bulk = &mut self.bulk;
            self.owned.retain(|stream, owned| {
                let stays = owned.admitted.test != test;
                if !stays {
                    bulk.close(*stream);
                }
                stays
            });
            // None are told of a test over UDP: what it moved was counted as it did.
            if bytes > 0
                && let Some(allowance) = self.clients.get(usize::from(client))
            {
                allowance.spend(clock::now(), bytes);
            }
        }
        if others {
            self.admit();
        }
    }
}
