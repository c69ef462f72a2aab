//! Stores to test with: plausible lines, the same every time.

#![allow(unreachable_pub, reason = "pub is what every module of tests may use")]

use std::path::Path;
use std::process::{Command, Output};

use bufferbane_core::household::Minute;
use bufferbane_core::look::{BINS, Bin, Found, Rtt, Silence};
use bufferbane_core::sample::{Flags, Sample, SeriesIndex, Status};
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_store as walked;
use bufferbane_store::{
    Capacity, Direction, Event, EventId, Health, LoadTest, LoadedDelay, Method, Percentiles,
    ProbeBin, SeriesInfo, SeriesKind, Severity, TestWay, Trust, Writer, WriterOptions,
};

pub const S: u64 = 1_000_000_000;
/// 2026-05-01 18:00:00 UTC.
pub const START_NS: i64 = 1_777_658_400 * S as i64;

/// What a store is to hold.
#[derive(Clone)]
pub struct Line {
    /// Names of (interface, target, kind).
    pub series: Vec<(String, String, SeriesKind)>,
    /// Length of a slot, ns.
    pub interval_ns: u64,
    /// How long it was measured, ns.
    pub span_ns: u64,
    /// Nothing was recorded between these times after the begin, ns.
    pub gap_ns: std::ops::Range<u64>,
    /// Nothing was answered between these.
    pub outage_ns: std::ops::Range<u64>,
    /// The series of these targets are never answered.
    pub silent: Vec<String>,
    /// An event to record.
    pub event_text: String,
    /// How often it is recorded.
    pub events: u64,
    /// How many throughput tests are recorded.
    pub load_tests: u64,
    /// Whether the file is closed as it should be.
    pub close: bool,
}

impl Line {
    /// `series` series for `span_ns`, with a gap, an outage, bursts and an evening.
    pub fn new(series: usize, interval_ns: u64, span_ns: u64) -> Self {
        let targets = ["vienna", "gateway", "quad9", "isp"];
        let interfaces = ["eth0", "wlan0"];
        let tenth = span_ns / 10;
        Self {
            series: (0..series)
                .map(|i| {
                    let kind = if i % 4 == 0 {
                        SeriesKind::Udp
                    } else {
                        SeriesKind::Icmp
                    };
                    (interfaces[i / 4 % 2].into(), targets[i % 4].into(), kind)
                })
                .collect(),
            interval_ns,
            span_ns,
            gap_ns: 6 * tenth..6 * tenth + tenth / 2,
            outage_ns: 3 * tenth..3 * tenth + tenth / 4,
            silent: Vec::new(),
            event_text: "the cable was pulled".into(),
            events: 1,
            load_tests: 0,
            close: true,
        }
    }

    /// Writes it.
    pub fn write(&self, path: &Path) {
        let options = WriterOptions {
            min_free_bytes: 0,
            backlog_samples: usize::MAX,
        };
        let mut w = Writer::open(path, options).unwrap();
        let boot_id = "0c8d0f9a-5a3e-4f63-9a11-3f6f5a1b2c3d";
        let begin = 1000 * S;
        let boot = w
            .begin_boot(
                boot_id,
                Monotonic::from_nanos(begin),
                START_NS,
                Trust::Disciplined,
            )
            .unwrap();
        let ids: Vec<_> = self
            .series
            .iter()
            .map(|(interface, target, kind)| {
                w.series(&SeriesInfo {
                    interface: interface.clone(),
                    interface_kind: if interface.starts_with('w') {
                        "wifi"
                    } else {
                        "wired"
                    }
                    .into(),
                    target: target.clone(),
                    kind: *kind,
                    family: 4,
                    dscp: 0,
                    size: if *kind == SeriesKind::Udp { 128 } else { 64 },
                    interval_ns: self.interval_ns,
                    address: "192.0.2.1".into(),
                })
            })
            .collect();
        let mut random = Random(7);
        let mut burst = vec![0u32; ids.len()];
        let mut last_commit = 0;
        for slot in 0..self.span_ns / self.interval_ns {
            let at = slot * self.interval_ns;
            if self.gap_ns.contains(&at) {
                continue;
            }
            for (i, id) in ids.iter().enumerate() {
                let sent = begin + at + random.below(self.interval_ns);
                let udp = self.series[i].2 == SeriesKind::Udp;
                let sample =
                    self.sample(slot, sent, sent - begin, i, udp, &mut burst[i], &mut random);
                w.record(*id, sample);
            }
            if at - last_commit > 600 * S {
                last_commit = at;
                w.health(Monotonic::from_nanos(begin + at), &health(at))
                    .unwrap();
                w.commit().unwrap();
            }
        }
        w.health(Monotonic::from_nanos(begin + self.span_ns / 2), &health(1))
            .unwrap();
        let mut event = Event::new(
            "link_down",
            Severity::Warning,
            boot,
            Monotonic::from_nanos(begin + self.outage_ns.start),
            self.event_text.clone(),
        );
        event.interface = self.series[0].0.clone();
        event.end_ns = Some(begin + self.outage_ns.end);
        event.values.insert("carrier".into(), serde_json::json!(0));
        for i in 0..self.events {
            let mut event = event.clone();
            event.start_ns += i * S / 100;
            let id = w.event(event);
            if i == 0 {
                self.write_paths(&mut w, begin, id);
            }
        }
        if self.load_tests > 0 {
            self.write_load(&mut w, begin);
        }
        for i in 0..self.load_tests {
            let (interface, target, _) = &self.series[0];
            w.load_test(load_test(interface, target, begin + i * 30 * S));
        }
        w.commit().unwrap();
        if self.close {
            w.close().unwrap();
        } else {
            // As if the process had been killed.
            std::mem::forget(w);
        }
    }

    /// The way to the first target, where it ended two seconds after an event began, and a close look a second later.
    fn write_paths(&self, w: &mut Writer, begin: u64, event: EventId) {
        let (interface, target, _) = &self.series[0];
        let path = |hops: &[[u8; 4]], end| walked::Path {
            interface: interface.clone(),
            target: target.clone(),
            address: [192, 0, 2, 1].into(),
            source: Some([10, 77, 0, 1].into()),
            unsent: None,
            provider_link: false,
            end,
            hops: hops
                .iter()
                .map(|a| walked::PathHop {
                    addresses: vec![(*a).into()],
                    sent: 3,
                    answered: 3,
                    rtt_min_ns: Some(8_100_000),
                    rtt_mean_ns: Some(9_000_000),
                })
                .collect(),
        };
        let hops = [[10, 77, 0, 254], [100, 64, 7, 1], [192, 0, 2, 1]];
        let at = |ns| Monotonic::from_nanos(begin + ns);
        let whole = path(&hops, walked::PathEnd::Target);
        w.path(at(10 * S), at(self.span_ns), 4, whole);
        let look = walked::Look {
            events: vec![event],
            took_ns: 5 * S,
            usual_hops: Some(3),
            other_from: None,
            path: path(&hops[..2], walked::PathEnd::Silence),
        };
        w.escalation(at(self.outage_ns.start + 2 * S), look);
        let begun = at(self.outage_ns.start + 3 * S);
        let well = Found {
            sent: 200,
            answered: 200,
            rtt: Some(Rtt {
                min_ns: 300_000,
                median_ns: 400_000,
                p95_ns: 500_000,
                max_ns: 900_000,
            }),
            bins: [Bin {
                sent: 10,
                answered: 10,
            }; BINS],
            ..Found::default()
        };
        let mut cut = Found {
            answered: 60,
            runs: 1,
            silence: Some(Silence {
                from: begun,
                lasted_ns: 7 * S,
            }),
            ..well
        };
        cut.bins[..14].fill(Bin {
            sent: 10,
            answered: 0,
        });
        for (name, address, found) in [("gateway", hops[0], well), (target, hops[2], cut)] {
            let place = (interface.clone(), name.to_owned(), address.into());
            let mut echoes = walked::Echoes::new(place, begun, &found);
            echoes.events.push(event);
            w.echoes(begun, echoes);
        }
    }

    /// What the first uplink carried, and what it was found able to carry both ways.
    fn write_load(&self, w: &mut Writer, begin: u64) {
        let interface = &self.series[0].0;
        for at in (0..self.span_ns).step_by(60 * S as usize) {
            let mut minute = Minute::new();
            for second in 0..60 {
                let used = (at / S / 60 * 7 + second) % 11;
                minute.up.rate_bps.add(used * 900_000);
                minute.down.rate_bps.add(used * used * 400_000);
            }
            minute.sees_household = true;
            w.load_minute(Monotonic::from_nanos(begin + at), interface, &minute)
                .unwrap();
            if at % (86_400 * S) == 0 {
                w.commit().unwrap();
            }
        }
        for (i, method) in [Method::Passive, Method::Test].into_iter().enumerate() {
            for (direction, bps) in [(Direction::Up, 10_400_000), (Direction::Down, 50_000_000)] {
                let at = Monotonic::from_nanos(begin + (i as u64 + 1) * self.span_ns / 3);
                let capacity = Capacity {
                    interface: interface.clone(),
                    direction,
                    method,
                    burst_bps: bps,
                    sustained_bps: Some(bps - 300_000 * i as u64),
                    confidence: 0.8,
                    events: Vec::new(),
                };
                w.capacity(at, capacity);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a generator of one sample")]
    fn sample(
        &self,
        seq: u64,
        sent: u64,
        at: u64,
        series: usize,
        udp: bool,
        burst: &mut u32,
        random: &mut Random,
    ) -> Sample {
        let size = if udp { 128 } else { 64 };
        let mut s = Sample::lost(
            SeriesIndex(series as u16),
            seq,
            Monotonic::from_nanos(sent),
            size,
        );
        s.tx_clock = ClockSource::Kernel;
        s.send_late_ns = random.below(80_000) as i64;
        if *burst == 0 && random.below(2500) == 0 {
            *burst = 1 + random.below(12) as u32;
        }
        let silent = self.silent.contains(&self.series[series].1);
        let lost = *burst > 0 || self.outage_ns.contains(&at) || silent;
        *burst = burst.saturating_sub(1);
        if lost {
            if udp {
                s.status = if random.below(5) == 0 {
                    Status::LostDown
                } else {
                    Status::LostUp
                };
            }
            return s;
        }
        let base = [21_000_000, 900_000, 14_000_000, 8_000_000][series % 4];
        // Evenings are worse, and now and then a queue builds up and drains.
        let evening = (at as f64 / (86_400 * S) as f64 * std::f64::consts::TAU)
            .cos()
            .max(0.0);
        let queue = at / S % 600;
        let queue = if queue < 40 { queue * 1_500_000 } else { 0 };
        let noise = random.below(800_000) + random.below(800_000) * random.below(3);
        let spike = if random.below(700) == 0 {
            random.below(120_000_000)
        } else {
            0
        };
        let rtt = base
            + (evening * 6e6 * (random.below(1000) as f64 / 1000.0)) as u64
            + if series % 4 == 1 {
                noise / 8
            } else {
                noise + queue + spike
            };
        s.status = if rtt > 135_000_000 {
            Status::Late
        } else {
            Status::Ok
        };
        s.rtt_ns = Some(rtt);
        s.rx_clock = ClockSource::Kernel;
        s.ttl_down = Some(57);
        if udp {
            s.raw_up_ns = Some(5_000_000_000 + (rtt / 2) as i64);
            s.raw_down_ns = Some(-5_000_000_000 + (rtt / 2) as i64);
            s.remote_rx_clock = ClockSource::Kernel;
            s.remote_tx_clock = if random.below(50) == 0 {
                ClockSource::User
            } else {
                ClockSource::Kernel
            };
            s.ttl_up = Some(58);
            s.tos_seen = Some(0xb9);
        }
        if random.below(1000) == 0 {
            s.flags = s.flags.with(Flags::REORDERED);
        }
        s
    }
}

/// A test that fills the line upward for four of its ten seconds.
fn load_test(interface: &str, reflector: &str, start_ns: u64) -> LoadTest {
    let three = |p50| Percentiles {
        p50,
        p90: 2 * p50,
        p99: 3 * p50,
    };
    let delay = LoadedDelay {
        idle: three(300_000),
        loaded: three(80_000_000),
        increase: three(79_700_000),
    };
    LoadTest {
        boot: 0,
        start_ns,
        end_ns: start_ns + 10 * S,
        load_start_ns: start_ns + 3 * S,
        load_end_ns: start_ns + 7 * S,
        ramp_ns: S,
        interface: interface.into(),
        reflector: reflector.into(),
        kind: "up".into(),
        protocol: bufferbane_store::Protocol::Tcp,
        asked_by: "command".into(),
        congestion: "cubic".into(),
        cut_short: false,
        instead_of: Vec::new(),
        ways: vec![TestWay {
            direction: Direction::Up,
            streams: 4,
            bytes: 5_000_000,
            mean_bps: 10_400_000,
            p10_bps: 9_100_000,
            p90_bps: 10_900_000,
            retransmits: 31,
            cwnd_bytes: 180_000,
            rtt_us: 101_000,
            bins: (0..40).map(|i| 90_000 + 2_000 * (i % 20)).collect(),
            delay,
            queue_bytes: 103_000,
            grade: "C".into(),
            lost: 2,
            others_bps: None,
            datagrams: None,
        }],
        rtt: delay,
        icmp: None,
        rpm: Some(540),
        rpm_stable: true,
        rpm_variant: "draft-08".into(),
        recovery_ns: Some(400_000_000),
        probes: (0..100)
            .map(|i| ProbeBin {
                up_ns: (i != 50).then_some(if (30..70).contains(&i) {
                    80_000_000
                } else {
                    300_000
                }),
                down_ns: Some(200_000),
                rtt_ns: Some(20_000_000),
                lost: u32::from(i == 50) * 2,
            })
            .collect(),
    }
}

fn health(at: u64) -> Health {
    Health {
        dropped_samples: 0,
        socket_drops: 0,
        skipped_slots: u64::from(at == 1),
        cpu_ns: 300_000_000,
        wall_ns: 60 * S,
        send_late_ns: [12_000, 95_000, 1_400_000],
        ..Health::default()
    }
}

/// xorshift64*, so that every run is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n.max(1)
    }
}

/// Runs `bbtool` on a store, in UTC, without a daemon.
pub fn bbtool(store: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bbtool"));
    command.args(args).env("TZ", "UTC");
    if !args.contains(&"keygen") {
        command.arg("--store").arg(store);
        command
            .arg("--socket")
            .arg(store.with_extension("no-socket"));
    }
    command.output().unwrap()
}

/// What `bbtool` printed; it must have succeeded.
pub fn printed(store: &Path, args: &[&str]) -> String {
    let out = bbtool(store, args);
    assert!(
        out.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}
