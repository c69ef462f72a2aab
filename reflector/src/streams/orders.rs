//! Orders: which tests are granted, who may connect for them, and their ends.

use bufferbane_core::load::datagrams::flows::FlowPlan;
use bufferbane_core::load::host::{Asker, HostLimits, MAX_TESTS, TestHandle};
use bufferbane_core::time::Monotonic;
use bufferbane_core::wire::load::TestState;
use bufferbane_linux_io::admission::{self, Prefix};
use bufferbane_linux_io::{Family, clock, tcp};

use super::Streams;
use super::connections::congestion;
use crate::mail::{Asked, News, Told, Way};

/// Addresses that are let in for a test, the latest: a client may move to another, and tests in all
/// are at most sixteen.
const ADDRESSES_PER_TEST: usize = 2;
/// With the prefix that each may have announced they fit the filter.
const _: () = assert!(MAX_TESTS * (ADDRESSES_PER_TEST + 1) <= admission::MAX_ADMITTED);

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
        let asker = Asker {
            client,
            bytes_left: allowance.left(now),
            congestion_known: congestion(&asked.order.congestion)
                .is_some_and(|name| tcp::check_congestion(name).is_ok()),
            port: port.unwrap_or(0),
            max_rate_bps: allowance.max_rate_bps,
            proven: asked.from.proven,
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
        let Ok(report) = report else { return };
        match TestState::from_u8(report.state) {
            Some(TestState::Granted) => {
                let test = TestHandle(report.handle.get());
                let entry = (test, asked.way.peer.ip());
                // What the test is, its first order said; this one may say anything.
                if let Some(plan) = self.host.flow(test) {
                    self.begin_over_udp(plan);
                } else if !self.admitted.contains(&entry) {
                    let of_test = |(t, _): &(TestHandle, _)| *t == test;
                    let others = self.admitted.iter().filter(|a| of_test(a)).count();
                    if others == 0 {
                        self.counts.granted += 1;
                        // A wider one than is allowed was refused.
                        let subnet = asked.order.announced().ok().flatten();
                        let prefix = subnet.and_then(|s| Prefix::new(s.address, s.prefix));
                        self.announced.extend(prefix.map(|p| (test, p)));
                    }
                    if others >= ADDRESSES_PER_TEST
                        && let Some(oldest) = self.admitted.iter().position(of_test)
                    {
                        self.admitted.remove(oldest);
                    }
                    self.admitted.push(entry);
                    self.admit();
                }
            }
            Some(TestState::Busy) => self.counts.busy += 1,
            Some(TestState::Refused) => self.counts.refused += 1,
            _ => {}
        }
        let told = Told {
            to: asked.from,
            report,
            way: asked.way,
        };
        // A report that finds no room is asked for again.
        if self.ends.told.try_send(told).is_ok()
            && let Some(waker) = &self.echo
        {
            waker.wake();
        }
    }

    /// Has the echo thread count and send the datagrams of a test, from its begin on.
    fn begin_over_udp(&mut self, plan: FlowPlan) {
        if self.over_udp.contains(&plan.test) {
            return;
        }
        self.over_udp.push(plan.test);
        self.counts.granted += 1;
        // Gone only when everything ends.
        let _ = self.ends.news.send(News::Begins(Box::new(plan)));
    }

    /// Lets those connect to whom a test was granted, and nobody else.
    fn admit(&self) {
        let addresses = self.admitted.iter().map(|(_, ip)| Prefix::only(*ip));
        let announced = self.announced.iter().map(|(_, prefix)| *prefix);
        let prefixes: Vec<Prefix> = addresses.chain(announced).collect();
        for listener in self.bulk.listeners() {
            if let Err(e) = admission::admit(listener, listener.family(), &prefixes) {
                log::error!("who may connect to {}: {e}", listener.local_addr());
            }
        }
    }

    /// Closes the streams of tests that are over.
    pub(super) fn end_tests(&mut self) {
        let mut ended = false;
        while let Some((test, client, bytes)) = self.host.poll_ended() {
            if let Some(place) = self.over_udp.iter().position(|t| *t == test) {
                self.over_udp.swap_remove(place);
                // Gone only when everything ends.
                let _ = self.ends.news.send(News::Ends(test));
                if let Some(waker) = &self.echo {
                    waker.wake();
                }
            }
            ended = true;
            let bulk = &mut self.bulk;
            self.owned.retain(|stream, owned| {
                let stays = owned.admitted.test != test;
                if !stays {
                    bulk.close(*stream);
                }
                stays
            });
            self.admitted.retain(|(t, _)| *t != test);
            self.announced.retain(|(t, _)| *t != test);
            // None are told of a test over UDP: what it moved was counted as it did.
            if bytes > 0
                && let Some(allowance) = self.clients.get(usize::from(client))
            {
                allowance.spend(clock::now(), bytes);
            }
        }
        if ended {
            self.admit();
        }
    }
}
