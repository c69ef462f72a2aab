//! Packet trains through every uplink that a reflector is reached by, between tests.
//!
//! The load thread looks in some times a second; core says which train is due, this sends it, and
//! tells the recorder what it said. docs/throughput.md says how trains go.

mod alarm;
mod link;

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};

use bufferbane_core::seal::{PresharedKey, wipe_stack};
use bufferbane_core::time::Monotonic;
use bufferbane_core::train::SURE_PERMILLE;
use bufferbane_core::train::estimate::{Estimate, estimate};
use bufferbane_core::train::exchange::Plan;
use bufferbane_core::train::pacer::{Budget, Pacer, When};
use bufferbane_linux_io::netlink::{InterfaceKind, Netlink};
use bufferbane_linux_io::{Family, ProbeSocket, clock};
use bufferbane_store::{Capacity, Direction, Method};
use rand_chacha::ChaCha12Rng;

use crate::load::{MONTH_NS, Path, Settings};
use crate::recorder::Order;
use crate::status::Status;
use alarm::Alarms;
pub use link::Link;

/// A train, the session for it and what is heard of it are over after this, ns.
pub(crate) const LONGEST_NS: i64 = 10_000_000_000;
/// What others use of a line is looked at over this long, ns.
const LOOK_NS: u64 = 500_000_000;
/// A reflector that does not answer, or refuses, is left alone for this long, ns.
const REBUFFED_NS: u64 = 60_000_000_000;
/// The same rate is recorded again after this, ns.
const NEWS_NS: u64 = 300_000_000_000;
/// Another is further away than one in so many.
const OTHER: u64 = 8;
/// What the line can is not sure from a train that says nothing of it, however well its datagrams agree.
const OF_NOTHING: f64 = 0.3;
/// What the reflector is asked about a train, and knocks, bytes: no more than this is our own beside it.
const ASKS_BYTES: u64 = 2_000;
/// What trains need to know and to tell.
pub(crate) struct Ends<'a> {
    pub(crate) paths: &'a [Path],
    pub(crate) settings: &'a Settings,
    pub(crate) status: &'a Arc<Mutex<Status>>,
    pub(crate) orders: &'a SyncSender<Order>,
    /// Whether everything is to end.
    pub(crate) ended: &'a dyn Fn() -> bool,
}

/// One uplink.
struct Line {
    path: Path,
    link: Option<Link>,
    up: Way,
    down: Way,
    not_before: Monotonic,
    /// Its counters as they were read last, and what others carried until then.
    read: Option<(Monotonic, [u64; 2])>,
    others_bps: Option<[u64; 2]>,
    header_bytes: u32,
    alarms: Alarms,
}

/// One direction of it.
struct Way {
    pacer: Pacer,
    /// What was recorded last: when, which rate, and whether that was sure.
    told: Option<(Monotonic, u64, bool)>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Trains {
    netlink: Option<Netlink>,
    lines: BTreeMap<String, Line>,
}

impl Trains {
    /// Sends what is due, one train of each line at most.
    pub(crate) fn tick(&mut self, ends: &Ends<'_>, rng: &mut ChaCha12Rng) {
        if ends.settings.throughput.trains == When::Never {
            self.lines.clear();
            return;
        }
        if self.netlink.is_none() {
            self.netlink = Netlink::open().ok();
        }
        let Some(netlink) = &mut self.netlink else {
            return;
        };
        let reached = |name: &str| ends.paths.iter().find(|p| p.interface == name);
        self.lines.retain(|name, line| {
            let place = |p: &Path| (p.index, p.remote, p.way(), Arc::clone(&p.key));
            reached(name).is_some_and(|p| place(p) == place(&line.path))
        });
        for path in ends.paths {
            if !self.lines.contains_key(&path.interface) {
                let line = Line::new(path, ends.settings, netlink);
                self.lines.insert(path.interface.clone(), line);
            }
        }
        for line in self.lines.values_mut() {
            line.tick(ends, netlink, rng);
        }
    }
}

impl Line {
    fn new(path: &Path, settings: &Settings, netlink: &mut Netlink) -> Self {
        let found = netlink.interface(&path.interface).ok().flatten();
        let (kind, mtu) = found.map_or((InterfaceKind::Wired, 1500), |i| (i.kind, i.mtu));
        let link_header = match kind {
            InterfaceKind::Wired | InterfaceKind::Wifi => 14,
            InterfaceKind::Cellular
            | InterfaceKind::Ppp
            | InterfaceKind::Tunnel
            | InterfaceKind::Loopback => 0,
        };
        let packet_header = if path.remote.is_ipv6() { 48 } else { 28 };
        let most_size = mtu.saturating_sub(packet_header);
        let month_bytes = settings.train_bytes(path);
        let when = if month_bytes == 0 {
            // Not even those by which the line is got to know.
            When::Never
        } else {
            settings.throughput.trains
        };
        let budget = |up| Budget {
            when,
            bytes_per_s: per_second(month_bytes, up),
            header_bytes: link_header + packet_header,
            most_size: u16::try_from(most_size).unwrap_or(u16::MAX),
        };
        let now = clock::now();
        let way = |up| Way {
            pacer: Pacer::new(up, budget(up), now),
            told: None,
        };
        Self {
            path: path.clone(),
            link: None,
            up: way(true),
            down: way(false),
            not_before: now,
            read: None,
            others_bps: None,
            header_bytes: link_header + packet_header,
            alarms: Alarms::default(),
        }
    }

    fn tick(&mut self, ends: &Ends<'_>, netlink: &mut Netlink, rng: &mut ChaCha12Rng) {
        let now = clock::now();
        self.look(now, netlink);
        let is_new = ends
            .status
            .lock()
            .is_ok_and(|s| self.alarms.look(now, &self.path.interface, &s.events));
        if is_new {
            self.up.pacer.alarm();
            self.down.pacer.alarm();
        }
        // What others carry is not known at the first look.
        let is_first_look = self.others_bps.is_none() && self.read.is_some();
        let is_at_alarms = ends.settings.throughput.trains == When::AtAlarms;
        // What looked wrong may be over before its train may be sent.
        let is_too_late = is_at_alarms && self.alarms.events().is_empty();
        if now < self.not_before || is_first_look || is_too_late {
            return;
        }
        let others = self.others_bps;
        let up = self.up.pacer.poll_train(now, others.map(|o| o[0]), rng);
        let plan = up.or_else(|| self.down.pacer.poll_train(now, others.map(|o| o[1]), rng));
        if let Some(plan) = plan
            && let Err(why) = self.send(plan, ends, netlink, rng)
            && !(ends.ended)()
        {
            log::info!("no packet trains through {}: {why}", self.path.interface);
            self.link = None;
            self.not_before = clock::now().saturating_add(REBUFFED_NS);
        }
    }

    fn send(
        &mut self,
        plan: Plan,
        ends: &Ends<'_>,
        netlink: &mut Netlink,
        rng: &mut ChaCha12Rng,
    ) -> Result<(), String> {
        let link = match &mut self.link {
            Some(link) => link,
            none => {
                let p = &self.path;
                let socket = ProbeSocket::udp(Family::of(&p.remote.ip()));
                let key = PresharedKey::clone(&p.key);
                let link = Link::open(p.way().socket(socket), p.remote, key, rng);
                wipe_stack();
                none.insert(link?)
            }
        };
        link.greet(rng, ends.ended)?;
        let interface = &self.path.interface;
        let before = netlink.counters(self.path.index).ok();
        let begun = clock::now();
        // The recorder is gone only when everything ends.
        let _ = ends
            .orders
            .send(Order::TrainBegins(interface.clone(), begun));
        let exchange = link.run(plan, rng, ends.ended);
        let now = clock::now();
        let after = netlink.counters(self.path.index).ok();
        let _ = ends.orders.send(Order::TrainEnds(interface.clone(), now));
        // What was read before the train is no measure of others any more.
        self.read = None;
        let mut exchange = exchange?;
        let (sent, arrivals) = exchange.result(self.header_bytes);
        let result = estimate(&sent, arrivals);
        let own_bytes = u64::from(sent.count) * u64::from(sent.frame_bytes) + ASKS_BYTES;
        let others_bps = before.zip(after).map(|(a, b)| {
            let moved = if plan.up {
                b.tx_bytes.wrapping_sub(a.tx_bytes)
            } else {
                b.rx_bytes.wrapping_sub(a.rx_bytes)
            };
            bits_per_second(moved.saturating_sub(own_bytes), now.saturating_since(begun))
        });
        let way = if plan.up {
            &mut self.up
        } else {
            &mut self.down
        };
        if let Some(most) = exchange.most() {
            way.pacer.set_most(most);
        }
        let told_bps = way.pacer.handle_result(now, result, others_bps);
        let direction = if plan.up {
            Direction::Up
        } else {
            Direction::Down
        };
        match result {
            Ok(e) => {
                log::debug!("{interface} {direction:?}: {e:?}, others {others_bps:?} bit/s");
                let found = Capacity {
                    interface: interface.clone(),
                    direction,
                    method: Method::Train,
                    burst_bps: e.burst_bps,
                    sustained_bps: e.sustained_bps,
                    confidence: confidence(&e, told_bps),
                    events: self.alarms.events(),
                };
                // What was seen because something looks wrong is kept with that.
                let is_news = way.is_news(now, &e, told_bps.is_some()) || !found.events.is_empty();
                // Trains at alarms alone say nothing of what is usual, which detectors would hold them against.
                let is_all_the_time = matches!(ends.settings.throughput.trains, When::Share(_));
                let told_bps = told_bps.filter(|_| is_all_the_time);
                let order = Order::Train(now, Box::new(found), is_news, told_bps);
                let _ = ends.orders.send(order);
            }
            Err(why) => log::debug!("{interface} {direction:?}: {}", why.as_str()),
        }
        Ok(())
    }

    /// What others carry, over some hundreds of milliseconds without a train.
    fn look(&mut self, now: Monotonic, netlink: &mut Netlink) {
        let since = self.read.map(|(at, _)| now.saturating_since(at));
        if since.is_some_and(|ns| ns < LOOK_NS) {
            return;
        }
        let Ok(c) = netlink.counters(self.path.index) else {
            (self.read, self.others_bps) = (None, None);
            return;
        };
        let bytes = [c.tx_bytes, c.rx_bytes];
        if let Some((at, before)) = self.read {
            let ns = now.saturating_since(at);
            self.others_bps = Some(std::array::from_fn(|i| {
                bits_per_second(bytes[i].wrapping_sub(before[i]), ns)
            }));
        }
        self.read = Some((now, bytes));
    }
}

impl Way {
    /// Whether an estimate is to be recorded: a sure one that is another than before, or the first
    /// for a while.
    fn is_news(&mut self, now: Monotonic, e: &Estimate, sure: bool) -> bool {
        let is_news = self.told.is_none_or(|(at, bps, was_sure)| {
            let other = bps.abs_diff(e.burst_bps) > bps / OTHER;
            now.saturating_since(at) >= NEWS_NS || (sure && (other || !was_sure))
        });
        if is_news {
            self.told = Some((now, e.burst_bps, sure));
        }
        is_news
    }
}

/// How sure it is that a train says what the line can, where the detectors were told so much: where they were told
/// nothing, the train passed at the rate of an empty token bucket, or beside others.
fn confidence(e: &Estimate, told_bps: Option<u64>) -> f64 {
    let confidence = f64::from(e.confidence_permille) / 1000.0;
    if told_bps.is_none() && e.confidence_permille >= SURE_PERMILLE {
        return OF_NOTHING;
    }
    confidence
}

/// Of what trains may move in a month two thirds are for those upward.
fn per_second(month_bytes: u64, up: bool) -> u64 {
    let part = if up { 2 } else { 1 };
    month_bytes / 3 * part / (MONTH_NS / 1_000_000_000)
}

fn bits_per_second(bytes: u64, ns: u64) -> u64 {
    let bits = u128::from(bytes) * 8_000_000_000;
    let bps = bits.checked_div(u128::from(ns)).unwrap_or(0);
    u64::try_from(bps).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::household::SURE;

    /// Two trains that outlasted a token bucket, and what passes while it is empty, or beside others.
    #[test]
    fn a_train_that_says_nothing_of_the_line_is_not_recorded_as_sure() {
        let budget = Budget {
            when: When::Share(10_000),
            bytes_per_s: u64::MAX,
            header_bytes: 42,
            most_size: 1452,
        };
        let mut pacer = Pacer::new(true, budget, Monotonic::ZERO);
        let mut recorded = |second: u64, mbit: u64, sustained_bps, others_bps| {
            let e = Estimate {
                burst_bps: mbit * 1_000_000,
                sustained_bps,
                confidence_permille: 950,
                span_ns: 60_000_000,
                arrived: 60,
            };
            let now = Monotonic::from_nanos(second * 1_000_000_000);
            confidence(&e, pacer.handle_result(now, Ok(e), others_bps))
        };
        for second in 0..5 {
            let sustained = (second < 2).then_some(4_000_000);
            assert_eq!(recorded(second, 20, sustained, None), 0.95);
        }
        assert!(recorded(5, 4, None, None) < SURE);
        assert!(recorded(6, 10, None, Some(11_000_000)) < SURE);
        // Slower than any of that.
        assert_eq!(recorded(7, 10, None, None), 0.95);
    }
}
