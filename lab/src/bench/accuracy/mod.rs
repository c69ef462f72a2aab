//! `accuracy`: what tools say of a line against what the line did, packet by packet.
//!
//! All tools run side by side over one emulated line, each to a host of its own, so that they meet
//! the same machine and the same line; the line's log knows each packet by its number. What is left
//! over a virtual cable, on which nothing takes any time, is each tool's own share.

pub mod episode;
mod ours;
mod peers;
mod site;
mod truth;

use std::collections::BTreeMap;

use argh::FromArgs;

use self::ours::Ours;
use self::peers::Said;
use self::site::{
    FPING, INTERVAL_MS, IRTT, IRTT_BYTES, OURS, PING, PROBE_BYTES, Readings, Run, Site, WrongClock,
};
use self::truth::{Exchanges, Line, Truth};
use super::{Fail, percentile, within};
use crate::link::{Passage, Way};

/// The error of our probes, ping, fping and irtt against what an emulated line really did, packet by
/// packet: idle and with every core busy, per direction, with a clock that is wrong, and what is left
/// over a plain virtual cable. Needs root or user namespaces, and ping, fping, irtt and stress-ng.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "accuracy",
    note = "Example: bufferbane-lab accuracy --quick"
)]
pub struct Options {
    /// seconds of each of the six runs, 6 to 600 (default: 30)
    #[argh(option, default = "30")]
    pub seconds: u64,
    /// runs of 8 seconds
    #[argh(switch)]
    pub quick: bool,
}

/// What `--quick` makes of it, s.
const QUICK_S: u64 = 8;
const WRONG: WrongClock = WrongClock {
    drift_ppb: 50_000,
    step_ns: 100_000_000,
};
/// Aims, ns: residual round trip over a cable, p99; queueing delay, p95.
const IDLE_AIM_NS: i64 = 10_000;
const LOADED_AIM_NS: i64 = 30_000;
const QUEUE_AIM_NS: i64 = 200_000;
/// How much smaller than irtt's the loaded residual is meant to be.
const RATIO_AIM: f64 = 50.0;

/// Runs it and prints the result.
///
/// # Errors
/// What could not be measured. An aim that is missed is printed as missed.
pub fn run(options: Options) -> Result<(), Fail> {
    let seconds = if options.quick {
        QUICK_S
    } else {
        options.seconds
    };
    within("--seconds", seconds, 6..=600)?;
    crate::netns::possible().map_err(Fail::Failed)?;
    println!(
        "All tools at once, a packet in {INTERVAL_MS} ms each, {} s a run. Errors are against the line's own log of the \
         same packets, in µs,\nwithout sign. ping and fping print three digits: up to 50 µs of theirs is \
         rounding here.",
        seconds
    );
    let line = Site::line()?;
    for loaded in [false, true] {
        over_line(&line, seconds, loaded)?;
    }
    for loaded in [false, true] {
        wrong_clock(&line, seconds, loaded)?;
    }
    drop(line);
    let cable = Site::cable()?;
    let mut cpu_ns = [0.0; 2];
    for loaded in [false, true] {
        let readings = over_cable(&cable, seconds, loaded)?;
        if !loaded {
            cpu_ns = readings.cpu_ns;
        }
    }
    println!(
        "\nCPU time per probe, idle: bufferbaned {:.1} µs (with recording), irtt client {:.1} µs, ratio {:.2}{}",
        cpu_ns[0] / 1000.0,
        cpu_ns[1] / 1000.0,
        cpu_ns[0] / cpu_ns[1],
        verdict(cpu_ns[0] <= cpu_ns[1], "no more than irtt's"),
    );
    Ok(())
}

fn state(loaded: bool) -> &'static str {
    if loaded { "every core busy" } else { "idle" }
}

fn verdict(kept: bool, aim: &str) -> String {
    format!("  aim {aim}: {}", if kept { "kept" } else { "missed" })
}

/// Errors of what was said against what was the case, without sign, ns.
fn errors(said: &BTreeMap<u64, i64>, truth: &Truth, pick: impl Fn(&Line) -> i64) -> Vec<i64> {
    said.iter()
        .filter_map(|(n, v)| Some((v - pick(truth.get(n)?)).abs()))
        .collect()
}

fn print_row(name: &str, values: &[i64], note: &str) -> Result<(), Fail> {
    if values.is_empty() {
        return Err(Fail::Failed(format!("{name}: nothing to compare")));
    }
    let micros = |permille| percentile(values, permille) as f64 / 1000.0;
    println!(
        "  {name:<28}{:>8}{:>10.1}{:>10.1}{:>10.1}{:>10.1}{note}",
        values.len(),
        micros(500),
        micros(950),
        micros(990),
        micros(1000),
    );
    Ok(())
}

fn print_head(title: &str) {
    println!(
        "\n{title}\n  {:<28}{:>8}{:>10}{:>10}{:>10}{:>10}",
        "", "packets", "p50", "p95", "p99", "max"
    );
}

fn round_trip(line: &Line) -> i64 {
    line.up_ns + line.down_ns
}

/// Our probes with the line's numbers, and what the line did to them.
fn matched(ours: &mut Ours, log: &[Passage]) -> Result<Exchanges, Fail> {
    let exchanges = truth::probes(log, OURS, PROBE_BYTES);
    let shift = truth::align(&ours.sent, &exchanges.truth())
        .ok_or_else(|| Fail::Failed("our probes and the line's log do not fit together".into()))?;
    ours.renumber(shift);
    Ok(exchanges)
}

/// What was said to be lost against what the line lost: how many of the line's were told with their
/// direction, how many without, and how many with the other one or without having been lost.
fn print_losses(name: &str, said: &Said, line: &Exchanges, aim: bool) {
    let lost = line.lost();
    let truth = line.truth();
    let (mut right, mut open, mut wrong) = (0, 0, 0);
    for (n, way) in &said.lost {
        match (lost.get(n), way) {
            (Some(_), None) => open += 1,
            (Some(line), Some(said)) if line == said => right += 1,
            (Some(_), Some(_)) => wrong += 1,
            // What the line's log does not have was not sent while it was kept.
            (None, _) => wrong += usize::from(truth.contains_key(n)),
        }
    }
    let of = |way| lost.values().filter(|w| **w == way).count();
    let kept = if aim {
        verdict(wrong == 0, "none wrong")
    } else {
        String::new()
    };
    println!(
        "  lost  {name:<22}{:>8} up, {} down; {right} told so, {open} without a direction, {wrong} wrong{kept}",
        of(Way::Up),
        of(Way::Down),
    );
}

fn over_line(site: &Site, seconds: u64, loaded: bool) -> Result<(), Fail> {
    site.log()?;
    let run = Run {
        seconds,
        loaded,
        upload: true,
    };
    let mut readings = site::side_by_side(site, run)?;
    let log = site.log()?;
    let probes = matched(&mut readings.ours, &log)?;
    let packets = truth::irtt(&log, IRTT, IRTT_BYTES);
    let (udp, irtt) = (probes.truth(), packets.truth());
    print_head(&format!(
        "line of 20 ms each way, an upload in the middle third, {}",
        state(loaded)
    ));
    let said = &readings;
    for (name, said, truth) in [
        ("RTT   bufferbane UDP", &said.ours.udp, &udp),
        (
            "RTT   bufferbane ICMP",
            &said.ours.icmp,
            &truth::echoes(&log, OURS),
        ),
        ("RTT   ping", &said.ping, &truth::echoes(&log, PING)),
        ("RTT   fping", &said.fping, &truth::echoes(&log, FPING)),
        ("RTT   irtt", &said.irtt, &irtt),
    ] {
        print_row(name, &errors(&said.rtt, truth, round_trip), "")?;
    }
    for (name, said, truth) in [
        ("bufferbane UDP", &said.ours.udp, &udp),
        ("irtt", &said.irtt, &irtt),
    ] {
        print_row(
            &format!("up    {name}"),
            &errors(&said.up, truth, |l| l.up_ns),
            "",
        )?;
        print_row(
            &format!("down  {name}"),
            &errors(&said.down, truth, |l| l.down_ns),
            "",
        )?;
    }
    print_queues(&readings.ours.queue, &udp)?;
    print_losses("bufferbane UDP", &readings.ours.udp, &probes, true);
    print_losses("irtt", &readings.irtt, &packets, false);
    Ok(())
}

/// Queueing delay per direction: what lies above the smallest delay that the line gave any packet.
fn print_queues(queue: &Said, truth: &Truth) -> Result<(), Fail> {
    let least = |pick: fn(&Line) -> i64| truth.values().map(pick).min().unwrap_or(0);
    let (up_floor, down_floor) = (least(|l| l.up_ns), least(|l| l.down_ns));
    let up = errors(&queue.up, truth, |l| l.up_ns - up_floor);
    let down = errors(&queue.down, truth, |l| l.down_ns - down_floor);
    for (name, errors) in [
        ("queue up    bufferbane UDP", up),
        ("queue down  bufferbane UDP", down),
    ] {
        let kept = percentile(&errors, 950) <= QUEUE_AIM_NS;
        print_row(name, &errors, &verdict(kept, "p95 200 µs"))?;
    }
    Ok(())
}

fn wrong_clock(site: &Site, seconds: u64, loaded: bool) -> Result<(), Fail> {
    site.log()?;
    let run = Run {
        seconds,
        loaded,
        upload: true,
    };
    let mut ours = site::with_wrong_clock(site, run, WRONG)?;
    let log = site.log()?;
    let probes = matched(&mut ours, &log)?;
    let udp = probes.truth();
    print_head(&format!(
        "the same, {}, from a client whose clock runs {} ppm fast and steps {} ms in the middle",
        state(loaded),
        WRONG.drift_ppb / 1000,
        WRONG.step_ns / 1_000_000
    ));
    print_row(
        "RTT   bufferbane UDP",
        &errors(&ours.udp.rtt, &udp, round_trip),
        "",
    )?;
    let icmp = truth::echoes(&log, OURS);
    print_row(
        "RTT   bufferbane ICMP",
        &errors(&ours.icmp.rtt, &icmp, round_trip),
        "",
    )?;
    print_queues(&ours.queue, &udp)?;
    print_losses("bufferbane UDP", &ours.udp, &probes, true);
    Ok(())
}

fn over_cable(site: &Site, seconds: u64, loaded: bool) -> Result<Readings, Fail> {
    let run = Run {
        seconds,
        loaded,
        upload: false,
    };
    let readings = site::side_by_side(site, run)?;
    print_head(&format!(
        "round trip over a virtual cable, {}",
        state(loaded)
    ));
    let values = |said: &Said| said.rtt.values().copied().collect::<Vec<_>>();
    let irtt_p99 = percentile(&values(&readings.irtt), 990);
    let p99 = percentile(&values(&readings.ours.udp), 990);
    let (aim_ns, aim) = if loaded {
        (LOADED_AIM_NS, "p99 30 µs")
    } else {
        (IDLE_AIM_NS, "p99 10 µs")
    };
    print_row(
        "bufferbane UDP",
        &values(&readings.ours.udp),
        &verdict(p99 <= aim_ns, aim),
    )?;
    print_row("bufferbane ICMP", &values(&readings.ours.icmp), "")?;
    print_row("ping", &values(&readings.ping), "")?;
    print_row("fping", &values(&readings.fping), "")?;
    print_row("irtt", &values(&readings.irtt), "")?;
    let ratio = irtt_p99 as f64 / p99.max(1) as f64;
    let note = if loaded {
        verdict(ratio >= RATIO_AIM, "50")
    } else {
        String::new()
    };
    println!("  irtt's p99 is {ratio:.0} times ours{note}");
    Ok(readings)
}
