//! The reflector's part.

use std::time::Duration;

use super::super::echo::load::{Load, Shape, Speech, stay_on};
use super::super::setup::{Bench, Reflecting, free_port, key_number};
use super::{DAY_S, Fail, HEADER_BYTES, Options, PROBE_BYTES, PROBES_HZ, mib};

/// The reflector has this CPU, and all routers together that one.
const REFLECTOR_CPU: usize = 0;
const ROUTERS_CPU: usize = 1;
/// How long the reflector is asked for all that it can do.
const FLAT_OUT: Duration = Duration::from_secs(2);
/// More echoes than it gives in that time.
const MOST: usize = 1_000_000;

pub(super) fn run(options: Options) -> Result<(), Fail> {
    // The thread that is bound to a CPU is not the one that measures the receiver later.
    let work = std::thread::spawn(move || {
        stay_on(ROUTERS_CPU)?;
        measure(options)
    });
    work.join()
        .map_err(|_| Fail::Failed("the load panicked".into()))?
}

fn measure(options: Options) -> Result<(), Fail> {
    let routers = options.routers as usize;
    let bench = Bench::new()?;
    let at = ([127, 0, 0, 1], free_port()?).into();
    let what = Reflecting {
        clients: routers,
        sessions_each: 2,
        transmit_stamps: true,
    };
    let reflector = bench.reflector_for(at, what, None, Some(REFLECTOR_CPU))?;
    let empty = reflector.memory()?;
    let joining_ns = reflector.cpu_ns()?;
    let keys: Vec<_> = (0..routers).map(key_number).collect();
    let shape = Shape {
        clients: routers,
        train: 1,
        window: 2,
    };
    let mut load = Load::new(at, Speech::Ours, shape, PROBE_BYTES, &keys)?;
    let joining_ns = reflector.cpu_ns()? - joining_ns;

    let rate = options.routers * PROBES_HZ;
    // Not all send equally many, and none may run out early.
    load.prepare((rate * options.seconds) as usize * 3 / 2);
    let before_ns = reflector.cpu_ns()?;
    let outcome = load.run_paced(Duration::from_secs(options.seconds), 1_000_000_000 / rate)?;
    let cpu_ns = (reflector.cpu_ns()? - before_ns) as f64;
    let wall_ns = outcome.wall_ns as f64;
    let memory = reflector.memory()?;
    let status = bench.status("reflector.sock")?;

    load.prepare(MOST);
    let before_ns = reflector.cpu_ns()?;
    let flat_out = load.run(FLAT_OUT)?;
    let flat_out_busy = (reflector.cpu_ns()? - before_ns) as f64 / flat_out.wall_ns as f64;

    let echoes = outcome.echoes as f64;
    println!(
        "{routers} routers against one reflector over loopback, IPv4, payloads of {PROBE_BYTES} bytes, {} s. The \
         reflector has CPU {REFLECTOR_CPU}; CPU {ROUTERS_CPU} has all routers, each with a socket, a key and counters \
         of its own; what they send is sealed beforehand.\n",
        options.seconds
    );
    println!(
        "echoes a second             {:>10.0} of {rate} asked for; {} lost; the routers' CPU was busy by {:.2}",
        echoes / wall_ns * 1e9,
        outcome.lost,
        outcome.cpu_ns as f64 / wall_ns
    );
    println!(
        "reflector's CPU             {:>10.3} of one; {:.2} µs a probe, {:.1} µs a second for each router",
        cpu_ns / wall_ns,
        cpu_ns / echoes / 1000.0,
        cpu_ns / wall_ns * 1e6 / routers as f64
    );
    println!(
        "  residence                 {:>10} µs in the middle, {} µs of 99 of 100",
        status["residence_ns"]["p50"].as_u64().unwrap_or(0) / 1000,
        status["residence_ns"]["p99"].as_u64().unwrap_or(0) / 1000
    );
    println!(
        "  joining                   {:>10.1} µs of it for each router (a key check, a cookie, session keys)",
        joining_ns as f64 / 1000.0 / routers as f64
    );
    println!(
        "reflector's memory          {:>10.1} MiB resident with all keys and no session, {:.1} MiB with {} sessions: \
         {:.1} KiB each",
        mib(empty.resident_bytes),
        mib(memory.resident_bytes),
        status["sessions"].as_u64().unwrap_or(0),
        memory.resident_bytes.saturating_sub(empty.resident_bytes) as f64 / 1024.0 / routers as f64
    );
    let datagram = (PROBE_BYTES + HEADER_BYTES) as f64;
    println!(
        "on the wire                 {:>10.1} MB a day each way for each router, {:.1} Mbit/s for all",
        datagram * PROBES_HZ as f64 * DAY_S as f64 / 1e6,
        datagram * 8.0 * rate as f64 / 1e6
    );
    let most = flat_out.echoes as f64 / flat_out.wall_ns as f64 * 1e9;
    println!(
        "at most                     {most:>10.0} echoes a second, busy {flat_out_busy:.2} (the routers' CPU {:.2}): as \
         many as {:.0} routers ask for",
        flat_out.cpu_ns as f64 / flat_out.wall_ns as f64,
        most / PROBES_HZ as f64
    );
    Ok(())
}
