//! Throughput tests as reports, exports and `bbtool test` tell them.

use bufferbane_store::{Datagrams, Direction, Instead, LoadTest, LoadedDelay, Protocol};
use serde::Serialize;

use crate::report::Time;
use crate::show::{self, clean};

/// What one test carried in one direction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Throughput {
    /// When the test began.
    pub(crate) at: Time,
    /// The interface.
    pub(crate) interface: String,
    /// The reflector.
    pub(crate) reflector: String,
    /// `up` or `down`.
    pub(crate) direction: Direction,
    /// Mean of the steady part, by the receiver's count.
    pub(crate) mean_bps: u64,
    /// 10 % of its 100 ms were not faster.
    pub(crate) p10_bps: u64,
    /// 90 % of them were not faster.
    pub(crate) p90_bps: u64,
    /// Received in all.
    pub(crate) bytes: u64,
    /// Segments sent again.
    pub(crate) retransmits: u64,
    /// TCP streams in this direction.
    pub(crate) streams: u8,
    /// `up`, `down`, `both` or `rrul`: what was loaded meanwhile.
    pub(crate) test: String,
    /// Congestion control.
    pub(crate) congestion: String,
    /// Smoothed round-trip time of the streams at the end, µs.
    pub(crate) rtt_us: u64,
    /// Sum of their congestion windows at the end.
    pub(crate) cwnd_bytes: u64,
    /// Whether the test was ended early, because it had moved what the month's budget left.
    pub(crate) cut_short: bool,
    /// `tcp`, or `udp`: datagrams at a given rate.
    pub(crate) protocol: Protocol,
    /// What became of those.
    pub(crate) datagrams: Option<Datagrams>,
    /// Reflectors that were to make the test and did not, in the order in which they were asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) instead_of: Vec<Instead>,
}

/// What the load did to latency in one direction, or to the round trip (`both`).
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Bufferbloat {
    /// When the test began.
    pub(crate) at: Time,
    /// The interface.
    pub(crate) interface: String,
    /// The reflector.
    pub(crate) reflector: String,
    /// `up` or `down`: delay above the direction's floor; `both`: round-trip time.
    pub(crate) direction: Direction,
    /// Median without load.
    pub(crate) idle_ns: u64,
    /// Median under load.
    pub(crate) loaded_ns: u64,
    /// Their difference.
    pub(crate) increase_ns: u64,
    /// Difference of the 90th percentiles.
    pub(crate) increase_p90_ns: u64,
    /// Difference of the 99th percentiles.
    pub(crate) increase_p99_ns: u64,
    /// What stood in the queue; `None` for `both`.
    pub(crate) queue_bytes: Option<u64>,
    /// Round trips per minute under load.
    pub(crate) rpm: Option<u32>,
    /// Whether the last seconds' values of it agree.
    pub(crate) rpm_stable: bool,
    /// Which variant of the draft that is.
    pub(crate) rpm_variant: String,
    /// `A+` to `F`.
    pub(crate) grade: String,
    /// Until latency was back after the load.
    pub(crate) recovery_ns: Option<u64>,
    /// `up`, `down`, `both` or `rrul`: what was loaded.
    pub(crate) test: String,
    /// `tcp`, or `udp`: datagrams at a given rate, which need not fill the line.
    pub(crate) protocol: Protocol,
    /// Reflectors that were to make the test and did not: the way to another one may be slower than the line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) instead_of: Vec<Instead>,
    /// What ICMP echoes waited meanwhile, of `both` under `rrul`, where they are answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) icmp: Option<Echoes>,
}

/// Round-trip times of ICMP echoes during a test, ns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Echoes {
    /// Median without load.
    pub(crate) idle_ns: u64,
    /// Median under load.
    pub(crate) loaded_ns: u64,
    /// Their difference.
    pub(crate) increase_ns: u64,
    /// Difference of the 90th percentiles.
    pub(crate) increase_p90_ns: u64,
    /// Difference of the 99th percentiles.
    pub(crate) increase_p99_ns: u64,
}

impl From<LoadedDelay> for Echoes {
    fn from(delay: LoadedDelay) -> Self {
        Self {
            idle_ns: delay.idle.p50,
            loaded_ns: delay.loaded.p50,
            increase_ns: delay.increase.p50,
            increase_p90_ns: delay.increase.p90,
            increase_p99_ns: delay.increase.p99,
        }
    }
}

/// Each direction that a test loaded.
pub(crate) fn throughput(at_ns: i64, test: &LoadTest) -> impl Iterator<Item = Throughput> + '_ {
    test.ways.iter().map(move |w| Throughput {
        at: Time(at_ns),
        interface: test.interface.clone(),
        reflector: test.reflector.clone(),
        direction: w.direction,
        mean_bps: w.mean_bps,
        p10_bps: w.p10_bps,
        p90_bps: w.p90_bps,
        bytes: w.bytes,
        retransmits: w.retransmits,
        streams: w.streams,
        test: test.kind.clone(),
        congestion: test.congestion.clone(),
        rtt_us: w.rtt_us,
        cwnd_bytes: w.cwnd_bytes,
        cut_short: test.cut_short,
        protocol: test.protocol,
        datagrams: w.datagrams,
        instead_of: test.instead_of.clone(),
    })
}

/// Each direction that a test loaded, and the round trip.
pub(crate) fn bufferbloat(at_ns: i64, test: &LoadTest) -> Vec<Bufferbloat> {
    let one = |direction, delay: &LoadedDelay, queue_bytes, grade: String| Bufferbloat {
        at: Time(at_ns),
        interface: test.interface.clone(),
        reflector: test.reflector.clone(),
        direction,
        idle_ns: delay.idle.p50,
        loaded_ns: delay.loaded.p50,
        increase_ns: delay.increase.p50,
        increase_p90_ns: delay.increase.p90,
        increase_p99_ns: delay.increase.p99,
        queue_bytes,
        rpm: test.rpm,
        rpm_stable: test.rpm_stable,
        rpm_variant: test.rpm_variant.clone(),
        grade,
        recovery_ns: test.recovery_ns,
        test: test.kind.clone(),
        protocol: test.protocol,
        instead_of: test.instead_of.clone(),
        icmp: None,
    };
    let ways = test
        .ways
        .iter()
        .map(|w| one(w.direction, &w.delay, Some(w.queue_bytes), w.grade.clone()));
    let grade = test.rtt.grade().as_str().to_owned();
    let mut trip = one(Direction::Both, &test.rtt, None, grade);
    trip.icmp = test.icmp.map(Echoes::from);
    ways.chain([trip]).collect()
}

/// What load adds to latency one way, the 90th percentile as in a test's own grade: of the median test. Only of
/// tests that filled the line, which a rate that somebody chose need not, nor what another reflector than the
/// wanted one took.
pub(crate) fn added(all: &[Bufferbloat], interface: &str, direction: Direction) -> Option<u64> {
    let full = all.iter().filter(|b| {
        b.interface == interface
            && b.direction == direction
            && b.protocol == Protocol::Tcp
            && b.instead_of.is_empty()
    });
    let mut increases_ns: Vec<u64> = full.map(|b| b.increase_p90_ns).collect();
    increases_ns.sort_unstable();
    increases_ns.get(increases_ns.len() / 2).copied()
}

/// `12.3 Mbit/s`.
pub(crate) fn rate(bps: u64) -> String {
    match bps {
        0..1_000_000 => format!("{:.0} kbit/s", bps as f64 / 1e3),
        1_000_000..100_000_000 => format!("{:.1} Mbit/s", bps as f64 / 1e6),
        100_000_000..10_000_000_000 => format!("{:.0} Mbit/s", bps as f64 / 1e6),
        _ => format!("{:.1} Gbit/s", bps as f64 / 1e9),
    }
}

/// `1.20 %` of the datagrams that were sent; `None` where it is not known what the line lost.
fn lost_share(d: &Datagrams) -> Option<String> {
    Some(show::percent(d.lost?, d.sent))
}

/// `1.20 % lost`, or that it is not known.
pub(crate) fn lost(d: &Datagrams, direction: Direction) -> String {
    lost_share(d).map_or_else(
        || format!("lost {}", why_not_known(d, direction)),
        |share| format!("{share} lost"),
    )
}

/// Why it is not known what of the datagrams in `direction` the line lost.
fn why_not_known(d: &Datagrams, direction: Direction) -> String {
    let receiver = match direction {
        Direction::Up => "the reflector",
        Direction::Down | Direction::Both => "this host",
    };
    let dropped = d.receiver_drops;
    let datagrams = show::plural(dropped, "datagram", "datagrams");
    format!("not known: {receiver} itself dropped {datagrams}")
}

/// `up`, `down` or `both`.
pub(crate) const fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
        Direction::Both => "both",
    }
}

/// What a report says of its tests: a line for each direction of each, the newest last, no more than
/// `most`.
pub(crate) fn lines(
    throughput: &[Throughput],
    bufferbloat: &[Bufferbloat],
    time: impl Fn(i64) -> String,
    most: usize,
) -> Vec<String> {
    let skipped = throughput.len().saturating_sub(most);
    let mut lines: Vec<String> = throughput
        .iter()
        .skip(skipped)
        .map(|t| {
            let mut line = format!(
                "{}  {} → {} {}: {} ({} to {})",
                time(t.at.0),
                clean(&t.interface),
                clean(&t.reflector),
                word(t.direction),
                rate(t.mean_bps),
                rate(t.p10_bps),
                rate(t.p90_bps),
            );
            if let Some(d) = &t.datagrams {
                line.push_str(&format!(
                    " of {} over UDP, {}",
                    rate(d.offered_bps),
                    lost(d, t.direction)
                ));
            }
            if t.cut_short {
                line.push_str(", cut short by the month's budget");
            }
            for other in &t.instead_of {
                line.push_str(&format!(", instead of {}", clean(&other.reflector)));
            }
            let delay = bufferbloat
                .iter()
                .find(|b| b.at == t.at && b.interface == t.interface && b.direction == t.direction);
            if let Some(b) = delay {
                line.push_str(&format!(
                    "; latency {} higher under load (90th percentile {})",
                    match b.increase_ns {
                        0 => "no".into(),
                        ns => show::delay(ns),
                    },
                    show::delay(b.increase_p90_ns),
                ));
                if t.protocol == Protocol::Tcp {
                    line.push_str(&format!(": grade {}", b.grade));
                }
                if let Some(rpm) = b.rpm {
                    line.push_str(&format!(", {rpm} RPM"));
                }
            }
            line
        })
        .collect();
    if skipped > 0 {
        lines.push(format!("and {skipped} before these"));
    }
    lines
}

/// A test for people, at its end.
pub(crate) fn describe(test: &LoadTest) -> String {
    let mut out = format!(
        "{} through {} to {}, {} s {}\n\n",
        match test.kind.as_str() {
            "up" => "Upload",
            "down" => "Download",
            "both" => "Both directions at once",
            _ => "Realtime response under load (RRUL)",
        },
        clean(&test.interface),
        clean(&test.reflector),
        (test.load_end_ns.saturating_sub(test.load_start_ns) + 500_000_000) / 1_000_000_000,
        match test.protocol {
            Protocol::Tcp => format!("with {}", clean(&test.congestion)),
            Protocol::Udp => "of UDP at a given rate".to_owned(),
        },
    );
    for other in &test.instead_of {
        let (name, why) = (clean(&other.reflector), clean(&other.why));
        out.push_str(&format!("Instead of {name}: {why}\n"));
    }
    if !test.instead_of.is_empty() {
        out.push('\n');
    }
    let millis = |ns: u64| format!("{:.1}", ns as f64 / 1e6);
    let mut rows = Vec::new();
    for way in &test.ways {
        let d = &way.delay;
        rows.push(vec![
            word(way.direction).to_owned(),
            rate(way.mean_bps),
            format!("{} – {}", rate(way.p10_bps), rate(way.p90_bps)),
            millis(d.increase.p50),
            millis(d.increase.p90),
            millis(d.increase.p99),
            show::bytes(way.queue_bytes),
        ]);
        let row = rows.last_mut().into_iter();
        row.for_each(|row| match &way.datagrams {
            None => row.extend([show::count(way.retransmits), way.grade.clone()]),
            Some(d) => row.extend([lost_share(d).unwrap_or_else(|| "not known".into())]),
        });
    }
    let columns = [
        "",
        "rate",
        "10 % – 90 %",
        "added ms",
        "p90",
        "p99",
        "in queue",
    ];
    let last: &[&str] = match test.protocol {
        Protocol::Tcp => &["retrans", "grade"],
        Protocol::Udp => &["lost"],
    };
    out.push_str(&show::table(&[&columns[..], last].concat(), &rows, 1));
    for (way, d) in test
        .ways
        .iter()
        .filter_map(|w| Some((w, w.datagrams.as_ref()?)))
    {
        out.push_str(&format!(
            "Datagrams {}: {} sent at {}, {} received, {}, {} reordered, {} duplicated\n",
            word(way.direction),
            show::count(d.sent),
            rate(d.offered_bps),
            show::count(d.received),
            d.lost.map_or_else(
                || format!("lost {}", why_not_known(d, way.direction)),
                |lost| format!(
                    "{} lost on the way or in the sender's own queue",
                    show::count(lost)
                )
            ),
            show::count(d.reordered),
            show::count(d.duplicated),
        ));
    }
    out.push_str(&format!(
        "\nRound trip: {} ms idle, {} ms under load (99 % below {} ms)\n",
        millis(test.rtt.idle.p50),
        millis(test.rtt.loaded.p50),
        millis(test.rtt.loaded.p99),
    ));
    if let Some(icmp) = test.icmp {
        out.push_str(&format!(
            "Round trip of ICMP: {} ms idle, {} ms under load (99 % below {} ms)\n",
            millis(icmp.idle.p50),
            millis(icmp.loaded.p50),
            millis(icmp.loaded.p99),
        ));
    }
    if let Some(rpm) = test.rpm {
        let stable = if test.rpm_stable {
            ""
        } else {
            ", not stable yet"
        };
        out.push_str(&format!(
            "Responsiveness: {rpm} round trips per minute{stable} ({})\n",
            clean(&test.rpm_variant)
        ));
    }
    out.push_str(&match test.recovery_ns {
        Some(ns) => format!("Latency was back {:.1} s after the load\n", ns as f64 / 1e9),
        None => "Latency was not back within the time that was looked at\n".to_owned(),
    });
    let graded = test.ways.iter().filter(|_| test.protocol == Protocol::Tcp);
    for way in graded {
        out.push_str(&format!("Grade {}: {}\n", word(way.direction), way.grade));
    }
    out.replace('\u{a0}', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_store::{Percentiles, TestWay};

    fn test() -> LoadTest {
        let p = |p50, p90, p99| Percentiles { p50, p90, p99 };
        let ms = 1_000_000;
        let delay = LoadedDelay {
            idle: p(ms, 2 * ms, 3 * ms),
            loaded: p(161 * ms, 172 * ms, 183 * ms),
            increase: p(160 * ms, 170 * ms, 180 * ms),
        };
        LoadTest {
            boot: 1,
            start_ns: 0,
            end_ns: 20_000 * ms,
            load_start_ns: 3_000 * ms,
            load_end_ns: 11_000 * ms,
            ramp_ns: 2_000 * ms,
            interface: "eth0".into(),
            reflector: "vienna".into(),
            kind: "up".into(),
            protocol: bufferbane_store::Protocol::Tcp,
            asked_by: "command".into(),
            congestion: "cubic".into(),
            cut_short: false,
            instead_of: Vec::new(),
            ways: vec![TestWay {
                direction: Direction::Up,
                streams: 4,
                bytes: 10_000_000,
                mean_bps: 10_360_000,
                p10_bps: 9_900_000,
                p90_bps: 10_500_000,
                retransmits: 7,
                cwnd_bytes: 250_000,
                rtt_us: 170_000,
                bins: vec![125_000; 80],
                delay,
                queue_bytes: 207_200,
                grade: "C".into(),
                lost: 0,
                datagrams: None,
            }],
            rtt: delay,
            icmp: None,
            rpm: Some(340),
            rpm_stable: true,
            rpm_variant: "a variant".into(),
            recovery_ns: Some(1_500 * ms),
            probes: Vec::new(),
        }
    }

    #[test]
    fn a_test_is_told_with_its_grade() {
        let text = describe(&test());
        for said in [
            "Upload through eth0 to vienna, 8 s with cubic",
            "10.4 Mbit/s",
            "160.0",
            "340 round trips per minute (a variant)",
            "back 1.5 s after",
            "Grade up: C",
        ] {
            assert!(text.contains(said), "{said} not in {text}");
        }
    }

    #[test]
    fn echoes_are_told_beside_probes_where_there_were_any() {
        let mut test = test();
        assert!(!describe(&test).contains("ICMP"));
        test.icmp = Some(test.rtt);
        let text = describe(&test);
        let line = "Round trip of ICMP: 1.0 ms idle, 161.0 ms under load (99 % below 183.0 ms)";
        assert!(text.contains(line), "{text}");
        let told = serde_json::to_value(bufferbloat(5, &test)).unwrap();
        assert!(told[0].get("icmp").is_none());
        assert_eq!(told[1]["direction"], "both");
        assert_eq!(told[1]["icmp"]["increase_p90_ns"], 170_000_000);
    }

    #[test]
    fn arrays_have_the_keys_that_programs_rely_on() {
        let t: Vec<Throughput> = throughput(5, &test()).collect();
        let json = serde_json::to_value(&t).unwrap();
        assert_eq!(json[0]["direction"], "up");
        for key in [
            "at",
            "interface",
            "reflector",
            "mean_bps",
            "p10_bps",
            "p90_bps",
            "bytes",
            "retransmits",
            "streams",
        ] {
            assert!(!json[0][key].is_null(), "{key}");
        }
        let b = bufferbloat(5, &test());
        let json = serde_json::to_value(&b).unwrap();
        assert_eq!(json[1]["direction"], "both");
        assert_eq!(json[0]["increase_ns"], 160_000_000);
        assert_eq!(
            (&json[0]["rpm"], &json[0]["grade"]),
            (&340.into(), &"C".into())
        );
        let cut = LoadTest {
            cut_short: true,
            ..test()
        };
        let cut: Vec<Throughput> = throughput(5, &cut).collect();
        let told = |t| lines(t, &b, |_| "now".into(), 5);
        assert!(told(&cut)[0].contains("cut short") && !told(&t)[0].contains("cut short"));
        let instead = LoadTest {
            instead_of: vec![Instead {
                reflector: "oslo".into(),
                why: "is busy".into(),
            }],
            ..test()
        };
        assert!(describe(&instead).contains("Instead of oslo: is busy\n"));
        let instead: Vec<Throughput> = throughput(5, &instead).collect();
        assert!(told(&instead)[0].contains(", instead of oslo"));
        let lines = told(&t);
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].contains("eth0 → vienna up: 10.4 Mbit/s"),
            "{lines:?}"
        );
        assert!(
            lines[0].contains("(90th percentile 170\u{a0}ms): grade C, 340 RPM"),
            "{lines:?}"
        );
    }

    #[test]
    fn of_datagrams_losses_are_said_and_no_grade() {
        let mut test = LoadTest {
            protocol: Protocol::Udp,
            congestion: String::new(),
            rpm: None,
            ..test()
        };
        test.ways[0].datagrams = Some(Datagrams {
            offered_bps: 12_000_000,
            size: 1200,
            sent: 10_000,
            received: 8_750,
            lost: Some(1_250),
            receiver_drops: 0,
            reordered: 3,
            duplicated: 2,
        });
        let t: Vec<Throughput> = throughput(5, &test).collect();
        let json = serde_json::to_value(&t).unwrap();
        assert_eq!(json[0]["protocol"], "udp");
        assert_eq!(json[0]["datagrams"]["lost"], 1250);
        let b = bufferbloat(5, &test);
        let line = &lines(&t, &b, |_| "now".into(), 5)[0];
        let share = "of 12.0 Mbit/s over UDP, 12.5\u{a0}% lost; latency";
        assert!(line.contains(share), "{line}");
        let told = describe(&test);
        let counts = "up: 10 000 sent at 12.0 Mbit/s, 8 750 received, 1 250 lost on the way or in the sender's own queue, 3 reordered, 2 dup";
        assert!(told.contains(counts), "{told}");
        for text in [line, &told] {
            let text = text.to_lowercase();
            assert!(
                !text.contains("grade") && !text.contains("retrans"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_the_receiver_dropped_makes_the_loss_unknown() {
        let mut test = LoadTest {
            protocol: Protocol::Udp,
            ..test()
        };
        test.ways[0].datagrams = Some(Datagrams {
            sent: 10_000,
            received: 8_750,
            lost: None,
            receiver_drops: 1_240,
            ..Datagrams::default()
        });
        let t: Vec<Throughput> = throughput(5, &test).collect();
        let json = serde_json::to_value(&t).unwrap();
        assert_eq!(json[0]["datagrams"]["lost"], serde_json::Value::Null);
        assert_eq!(json[0]["datagrams"]["receiver_drops"], 1240);
        let line = &lines(&t, &bufferbloat(5, &test), |_| "now".into(), 5)[0];
        let why = "lost not known: the reflector itself dropped 1 240 datagrams";
        for text in [line, &describe(&test)] {
            let text = text.replace('\u{a0}', " ");
            assert!(text.contains(why) && !text.contains("% lost"), "{text}");
        }
    }

    #[test]
    fn what_load_adds_is_graded_as_each_test_is_and_by_tests_that_say_something_of_the_line() {
        let of = |p50, p90, change: fn(&mut LoadTest)| {
            let mut test = test();
            test.ways[0].delay.increase.p50 = p50;
            test.ways[0].delay.increase.p90 = p90;
            test.ways[0].grade = test.ways[0].delay.grade().as_str().into();
            change(&mut test);
            bufferbloat(5, &test)
        };
        let ms = 1_000_000;
        let low_median = of(4 * ms, 149 * ms, |_| {});
        let added_ns = added(&low_median, "eth0", Direction::Up);
        assert_eq!(added_ns, Some(149 * ms));
        let letter = bufferbane_core::load::grade::Grade::of_increase(149 * ms).as_str();
        assert_eq!((letter, low_median[0].grade.as_str()), ("C", "C"));
        let at_a_rate = of(ms, ms, |t| t.protocol = Protocol::Udp);
        let elsewhere = of(ms, ms, |t| {
            t.instead_of.push(Instead {
                reflector: "oslo".into(),
                why: "is busy".into(),
            });
        });
        let wlan = of(ms, ms, |t| t.interface = "wlan0".into());
        let all = [low_median, at_a_rate, elsewhere, wlan].concat();
        assert_eq!(added(&all, "eth0", Direction::Up), added_ns);
        assert_eq!(added(&all, "eth0", Direction::Down), None);
    }
}
