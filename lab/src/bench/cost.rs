//! `cost`: what the daemon takes of the machine it runs on, per probe also against Debian's irtt.

use std::time::Duration;

use argh::FromArgs;

use super::child::{Program, installed};
use super::setup::{Bench, free_port, wait_until};
use super::{Fail, within};

/// CPU time and memory of the daemon with ten series on loopback.
#[derive(Clone, Copy, Debug, FromArgs)]
#[argh(
    subcommand,
    name = "cost",
    note = "Example: bufferbane-lab cost --seconds 60"
)]
pub struct Options {
    /// how long it is measured, 5 to 86400 (default: 30)
    #[argh(option, default = "30")]
    pub seconds: u64,
}

/// Streams to the reflector, and hosts that are pinged: ten series.
const STREAMS: usize = 5;
const PINGED: usize = 5;
/// Each stream sends one probe in so many ms, and each host is pinged once in so many.
const STREAM_MS: usize = 50;
const PING_MS: usize = 1000;
/// irtt sends one packet in so many ms, which makes as many as all streams together.
const IRTT_MS: usize = STREAM_MS / STREAMS;
/// What the daemon is meant to stay below, bytes.
const AIM_BYTES: u64 = 16 << 20;
/// It has settled this long after its start.
const SETTLE: Duration = Duration::from_secs(4);

/// Runs it and prints the result.
///
/// # Errors
/// What could not be done.
pub fn run(options: Options) -> Result<(), Fail> {
    within("--seconds", options.seconds, 5..=86_400)?;
    let bench = Bench::new()?;
    let port = free_port()?;
    let _reflector = bench.reflector(([127, 0, 0, 1], port).into(), None, None)?;
    let daemon = bench.daemon(&configuration(port), None)?;
    wait_until(|| matches!(probes(&bench), Ok((n, _)) if n == STREAMS + PINGED));
    std::thread::sleep(SETTLE);
    let (series, before) = probes(&bench)?;
    if series != STREAMS + PINGED {
        return Err(Fail::Failed(format!(
            "the daemon has {series} series instead of {}; may this user ping?",
            STREAMS + PINGED
        )));
    }
    let cpu_before_ns = daemon.cpu_ns()?;
    std::thread::sleep(Duration::from_secs(options.seconds));
    let cpu_ns = daemon.cpu_ns()? - cpu_before_ns;
    let memory = daemon.memory()?;
    let sent = probes(&bench)?.1 - before;
    daemon.stop();
    if sent == 0 {
        return Err(Fail::Failed("the daemon sent no probe".into()));
    }

    let irtt_ns = irtt(&bench, options.seconds)?;

    println!(
        "bufferbaned as a process of its own on loopback, {} s: {STREAMS} streams to a reflector, a\n\
         probe in {STREAM_MS} ms each, and {PINGED} hosts pinged once in {PING_MS} ms; it stores and commits \
         as always.\n",
        options.seconds
    );
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let cpu_ms = cpu_ns as f64 / 1e6;
    println!("probes                      {sent:>10}");
    println!(
        "CPU time per 1000 probes    {:>10.1} ms",
        cpu_ms * 1000.0 / sent as f64
    );
    println!(
        "irtt's client at {} packets/s {:>8.1} ms; ours is {:.2} of it (aim: at most 1): {}",
        1000 / IRTT_MS,
        irtt_ns as f64 / 1000.0,
        cpu_ns as f64 / sent as f64 / irtt_ns as f64,
        if cpu_ns / sent <= irtt_ns {
            "kept"
        } else {
            "missed"
        }
    );
    println!(
        "share of one core           {:>10.2} %",
        cpu_ms / (options.seconds as f64 * 1000.0) * 100.0
    );
    println!(
        "resident memory             {:>10.1} MiB, {:.1} MiB of it no pages of files (at most {:.1} MiB so far)",
        mib(memory.resident_bytes),
        mib(memory.anonymous_bytes),
        mib(memory.peak_bytes)
    );
    let kept = if memory.resident_bytes < AIM_BYTES {
        "kept"
    } else {
        "missed"
    };
    println!(
        "aim, below                  {:>10.1} MiB: {kept}",
        mib(AIM_BYTES)
    );
    Ok(())
}

/// CPU time that irtt's client takes for one packet, ns, with the length and the rate of our streams
/// together. It neither stores nor prints anything.
fn irtt(bench: &Bench, seconds: u64) -> Result<u64, Fail> {
    let irtt = installed("irtt", "irtt")?;
    let at = format!("127.0.0.1:{}", free_port()?);
    let log = |name: &str| bench.path(name);
    let server = ["server", "-b", &at];
    let server = server.map(std::ffi::OsStr::new);
    let _server = Program::start(&irtt, &server, None, None, &log("irtt-server.log"))?;
    std::thread::sleep(Duration::from_secs(1));
    let duration = format!("{}s", seconds + 30);
    let interval = format!("{IRTT_MS}ms");
    let client = [
        "client", "-Q", "-i", &interval, "-d", &duration, "-l", "128", &at,
    ];
    let client = client.map(std::ffi::OsStr::new);
    let mut client = Program::start(&irtt, &client, None, None, &log("irtt.log"))?;
    std::thread::sleep(SETTLE);
    let before = client.cpu_ns()?;
    std::thread::sleep(Duration::from_secs(seconds));
    let used = client.cpu_ns()? - before;
    if !client.runs() {
        return Err(Fail::Failed("irtt's client ended before its time".into()));
    }
    Ok(used / (seconds * 1000 / IRTT_MS as u64))
}

fn configuration(port: u16) -> String {
    let mut text = String::from("[[interface]]\nname = \"lo\"\n");
    for i in 1..=PINGED {
        text.push_str(&format!(
            "[[target]]\nname = \"host{i}\"\nkind = \"icmp\"\naddress = \"127.0.0.{}\"\n\
             interval = \"{PING_MS}ms\"\n",
            i + 1
        ));
    }
    text.push_str(&format!(
        "[[reflector]]\nname = \"lab\"\naddress = \"127.0.0.1:{port}\"\nkey_file = \"lab.key\"\n\
         interval = \"{STREAM_MS}ms\"\nfamily = \"4\"\n"
    ));
    for i in 1..STREAMS {
        text.push_str(&format!("[[reflector.stream]]\ndscp = {}\n", 8 * i));
    }
    text
}

/// How many series the daemon has, and how many of their probes have come to an end.
fn probes(bench: &Bench) -> Result<(usize, u64), Fail> {
    let answer = bench.status("daemon.sock")?;
    let series = answer["status"]["series"]
        .as_array()
        .ok_or_else(|| Fail::Failed("the daemon's status has no series".into()))?;
    let sent = series.iter().filter_map(|s| s["total"]["sent"].as_u64());
    Ok((series.len(), sent.sum()))
}
