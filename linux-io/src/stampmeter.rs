//! What this host's stamps are worth, measured: datagrams over loopback, on which nothing takes any
//! time but this host.
//!
//! Two stamps of the kernel on the same datagram, one as it leaves and one as it arrives, are as far
//! apart as the two may be off together. What the program's own clock says round the system calls, held
//! against them, is what a time without the kernel's stamp would be off by. What a network card and its
//! interrupt add outside this host's kernel does not show here.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bufferbane_core::stats::histogram::Histogram;
use bufferbane_core::time::{ClockSource, StampErrors};

use crate::{
    Engine, EngineError, EngineOptions, Event, Family, ProbeSocket, SocketId, StartError, clock,
};

/// How long a datagram over loopback is waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// What a histogram does not tell from nothing, ns.
const FINEST_NS: u64 = 512;
/// With fewer datagrams than this there is no 99th percentile.
const FEWEST: u64 = 100;

/// Sends datagrams to itself, and keeps how far their stamps are apart.
pub struct StampMeter {
    engine: Engine,
    socket: SocketId,
    to: SocketAddr,
    key: u32,
    readings: Readings,
}

/// What was measured since it was last asked, ns.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// From the kernel's stamp on leaving to its stamp on arriving.
    pub kernel: Histogram,
    /// From the program's clock before the send to the kernel's stamp.
    pub user_transmit: Histogram,
    /// From the kernel's stamp on arriving to the program's clock once it has the datagram.
    pub user_receive: Histogram,
    /// From a deadline to the program's clock once it is woken for it.
    pub woken_late: Histogram,
    /// Datagrams that came without both of the kernel's stamps, or not at all.
    pub unstamped: u64,
}

impl Readings {
    /// Takes `other` in.
    pub fn merge(&mut self, other: &Self) {
        self.kernel.merge(&other.kernel);
        self.user_transmit.merge(&other.user_transmit);
        self.user_receive.merge(&other.user_receive);
        self.woken_late.merge(&other.woken_late);
        self.unstamped += other.unstamped;
    }

    /// Whether it is of no use to go on: loopback is down, or a firewall lets nothing through.
    #[must_use]
    pub const fn is_hopeless(&self) -> bool {
        self.unstamped > 2 && self.kernel.count() == 0
    }

    /// What 99 of 100 stamps of each kind stay within; `None` from fewer than a hundred datagrams.
    #[must_use]
    pub fn errors(&self) -> Option<StampErrors> {
        if self.kernel.count() < FEWEST {
            return None;
        }
        let p99 = |h: &Histogram| h.quantile(0.99).unwrap_or(0).max(FINEST_NS);
        let user_ns = p99(&self.user_transmit).max(p99(&self.user_receive));
        Some(StampErrors {
            kernel_ns: p99(&self.kernel),
            // A time of the program's own is late by as much as it is woken late.
            user_ns: user_ns.saturating_add(p99(&self.woken_late)),
            ..StampErrors::ASSUMED
        })
    }
}

impl StampMeter {
    /// A meter with a ring and a socket of its own.
    ///
    /// # Errors
    /// Where this host offers no ring, or no socket on loopback.
    pub fn new() -> Result<Self, StartError> {
        let options = EngineOptions {
            sockets: 1,
            send_slots: 8,
            receive_buffers: 16,
            completions: 64,
            ..EngineOptions::prober()
        };
        let mut engine = Engine::new(&options)?;
        let failed = |step| move |source| StartError::Failed(EngineError { step, source });
        let socket = ProbeSocket::udp(Family::V4)
            .bind((Ipv4Addr::LOCALHOST, 0).into())
            .build()
            .map_err(|e| failed("a socket on loopback")(e.source))?;
        let to = socket.local_addr();
        let socket = engine.add_socket(socket).map_err(StartError::Failed)?;
        Ok(Self {
            engine,
            socket,
            to,
            key: 0,
            readings: Readings::default(),
        })
    }

    /// Sends `count` datagrams to itself, one at each of as many deadlines `every_ns` apart, as probes are
    /// sent: one right after the other would find everything warm.
    ///
    /// # Errors
    /// When the ring fails.
    pub fn measure(&mut self, count: u32, every_ns: u64) -> Result<(), EngineError> {
        let mut deadline = clock::now();
        for _ in 0..count {
            deadline = deadline.max(clock::now()).saturating_add(every_ns);
            while clock::now() < deadline {
                self.engine.wait(deadline, &mut |_, _| {})?;
            }
            let late_ns = clock::now().saturating_since(deadline);
            self.readings.woken_late.add(late_ns);
            self.once()?;
        }
        Ok(())
    }

    fn once(&mut self) -> Result<(), EngineError> {
        self.key = self.key.wrapping_add(1);
        let key = self.key;
        let before = clock::now();
        let until = before.saturating_add(PATIENCE.as_nanos() as u64);
        let (mut left, mut arrived) = (None, None);
        if self
            .engine
            .send(self.socket, self.to, &key.to_be_bytes(), key)
            .is_ok()
        {
            let mut refused = false;
            while !refused && (left.is_none() || arrived.is_none()) && clock::now() < until {
                self.engine.wait(until, &mut |_, event| match event {
                    Event::Received { meta, bytes, .. } if bytes == key.to_be_bytes() => {
                        arrived = Some((meta.at, clock::now()));
                    }
                    Event::TxStamp { key: k, stamp, .. } if k == key => left = Some(stamp),
                    Event::Sent { errno: Some(_), .. } => refused = true,
                    _ => {}
                })?;
            }
        }
        let r = &mut self.readings;
        match (left, arrived) {
            (Some(left), Some((arrived, had)))
                if left.clock == ClockSource::Kernel && arrived.clock == ClockSource::Kernel =>
            {
                r.kernel.add(arrived.at.saturating_since(left.at));
                r.user_transmit.add(left.at.saturating_since(before));
                r.user_receive.add(had.saturating_since(arrived.at));
            }
            _ => r.unstamped += 1,
        }
        Ok(())
    }

    /// What was measured since this was last called.
    pub fn take(&mut self) -> Readings {
        std::mem::take(&mut self.readings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_on_loopback_are_closer_to_each_other_than_to_the_program() {
        let mut meter = match StampMeter::new() {
            Ok(meter) => meter,
            Err(e) => panic!("{e}"),
        };
        assert!(meter.take().errors().is_none());
        let median = |h: &Histogram| h.quantile(0.5).unwrap();
        // The kernel is kept waiting too where others want the processor, but hardly each time.
        let found = (0..10).find_map(|_| {
            meter.measure(300, 200_000).unwrap();
            let readings = meter.take();
            assert_eq!(readings.kernel.count() + readings.unstamped, 300);
            assert!(readings.unstamped < 10, "{}", readings.unstamped);
            println!(
                "kernel to kernel {} ns, program before {} ns and after {} ns",
                median(&readings.kernel),
                median(&readings.user_transmit),
                median(&readings.user_receive)
            );
            (median(&readings.kernel) < median(&readings.user_receive)).then_some(readings)
        });
        let readings = found.expect("stamps that are no closer to each other than to the program");
        let errors = readings.errors().unwrap();
        assert!(errors.user_ns > readings.woken_late.quantile(0.99).unwrap());
        assert_eq!(readings.woken_late.count(), 300);
        assert_eq!(meter.take().kernel.count(), 0);
    }
}
