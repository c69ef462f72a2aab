//! `bbtool doctor`: everything this host needs for measuring, each line with its remedy.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bufferbane_core::stats::histogram::Histogram;
use bufferbane_linux_io::netlink::{Interface, Netlink};
use bufferbane_linux_io::stamping::{self, Stamping};
use bufferbane_linux_io::{Family, StampMeter, clock, host, support};
use bufferbane_store::{OpenError, Reader};
use serde::Serialize;
use serde_json::Value;

use crate::args::Doctor as Arguments;
use crate::control::{self, ControlError};
use crate::fail::Fail;
use crate::show::{bytes, clean, delay};
use crate::{out, source, when};

/// The oldest kernel that works: major, minor.
const OLDEST_KERNEL: (u32, u32) = (6, 1);
/// Datagrams over loopback that are measured, and how far apart, ns: a second.
const DATAGRAMS: u32 = 500;
const EVERY_NS: u64 = 2_000_000;
/// A clock that may be off by more than this deserves a word, ns.
const CLOCK_ERROR_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Line {
    verdict: Verdict,
    what: String,
    found: String,
    remedy: Option<String>,
}

#[derive(Default)]
struct Findings(Vec<Line>);

impl Findings {
    fn put(&mut self, verdict: Verdict, what: &str, found: impl Into<String>, remedy: &str) {
        self.0.push(Line {
            verdict,
            what: what.to_owned(),
            found: clean(&found.into()).replace('\u{a0}', " "),
            remedy: (!remedy.is_empty()).then(|| remedy.to_owned()),
        });
    }

    fn ok(&mut self, what: &str, found: impl Into<String>) {
        self.put(Verdict::Ok, what, found, "");
    }
}

/// `bbtool doctor`.
pub(crate) fn run(args: &Arguments) -> Result<(), Fail> {
    let mut f = Findings::default();
    kernel(&mut f);
    ring(&mut f);
    privileges(&mut f);
    interfaces(&mut f);
    accuracy(&mut f);
    wall_clock(&mut f, args.utc);
    let place = args.place();
    let runs = daemon(&mut f, &place.socket);
    match source::store_of(&place) {
        Ok(path) => store(&mut f, &path, runs),
        Err(_) => f.put(
            Verdict::Warn,
            "store",
            "which one it is is not known without the daemon",
            "name it with --store",
        ),
    }
    let failed = f.0.iter().filter(|l| l.verdict == Verdict::Fail).count();
    if args.json {
        out::print_json(&f.0)?;
    } else {
        out::print(&text(&f.0))?;
    }
    match failed {
        0 => Ok(()),
        n => Err(Fail::Failed(format!("{n} of {} checks failed", f.0.len()))),
    }
}

fn text(lines: &[Line]) -> String {
    let width = lines
        .iter()
        .map(|l| l.what.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for l in lines {
        let verdict = match l.verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        out.push_str(&format!("{verdict}  {:width$}  {}", l.what, l.found));
        if let Some(remedy) = &l.remedy {
            out.push_str(&format!("; {remedy}"));
        }
        out.push('\n');
    }
    out
}

fn kernel(f: &mut Findings) {
    let release = support::kernel_release();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse::<u32>().ok());
    let version = (numbers.next(), numbers.next());
    match version {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_KERNEL => {
            f.ok("kernel", format!("Linux {release}"));
        }
        (Some(_), Some(_)) => f.put(
            Verdict::Fail,
            "kernel",
            format!("Linux {release} is too old"),
            "6.1 or later is needed",
        ),
        _ => f.put(
            Verdict::Warn,
            "kernel",
            format!("Linux {release}"),
            "6.1 or later is needed",
        ),
    }
}

fn ring(f: &mut Findings) {
    match support::check() {
        Ok(features) => {
            f.ok("io_uring", "works");
            for line in features.list() {
                let what = format!("io_uring: {}", line.name);
                if line.available {
                    f.ok(&what, "yes");
                } else {
                    // Nothing is wrong: a newer kernel would only be a little better.
                    f.ok(
                        &what,
                        format!("not before Linux {}; {}", line.since, line.fallback),
                    );
                }
            }
        }
        // The text says what to do.
        Err(e) => f.put(Verdict::Fail, "io_uring", e.to_string(), ""),
    }
}

fn privileges(f: &mut Findings) {
    for (family, name) in [(Family::V4, "ICMP sockets"), (Family::V6, "ICMPv6 sockets")] {
        let access = host::icmp_access(family);
        match (access.ping, access.raw) {
            (true, true) => f.ok(name, "ping and raw sockets work"),
            (true, false) => f.ok(name, "ping sockets work"),
            (false, true) => f.ok(name, "raw sockets work"),
            (false, false) => f.put(
                if family == Family::V4 {
                    Verdict::Fail
                } else {
                    Verdict::Warn
                },
                name,
                "neither ping nor raw sockets work for this user",
                "sysctl -w net.ipv4.ping_group_range=\"0 2147483647\", or give the service \
                 CAP_NET_RAW",
            ),
        }
    }
    match host::capabilities() {
        Ok(caps) => {
            // What the daemon does better with them, and does not need.
            let others = [
                (caps.net_admin, "CAP_NET_ADMIN"),
                (caps.sys_nice, "CAP_SYS_NICE"),
                (caps.ipc_lock, "CAP_IPC_LOCK"),
            ];
            let mut names = vec!["CAP_NET_RAW"];
            names.extend(others.iter().filter(|(has, _)| *has).map(|o| o.1));
            if caps.net_raw {
                f.ok("capabilities", names.join(", "));
            } else {
                f.put(
                    Verdict::Warn,
                    "capabilities",
                    "this user lacks CAP_NET_RAW",
                    "the service gets it from its unit; try sudo bbtool doctor",
                );
            }
        }
        Err(e) => f.put(
            Verdict::Warn,
            "capabilities",
            format!("cannot be read: {e}"),
            "",
        ),
    }
}

fn interfaces(f: &mut Findings) {
    let all = Netlink::open().and_then(|mut n| Ok((n.interfaces()?, n.default_routes()?)));
    let (interfaces, routes) = match all {
        Ok(all) => all,
        Err(e) => {
            return f.put(
                Verdict::Fail,
                "interfaces",
                format!("cannot be listed: {e}"),
                "",
            );
        }
    };
    if routes.is_empty() {
        f.put(
            Verdict::Warn,
            "default route",
            "there is none",
            "without one only interfaces that are configured by name are probed",
        );
    } else {
        // IPv4 and IPv6 have routes of their own, through the same interfaces more often than not.
        let mut names: Vec<&str> = Vec::new();
        for r in &routes {
            let of_it = interfaces.iter().find(|i| i.index == r.interface);
            let name = of_it.map(|i| i.name.as_str());
            names.extend(name.filter(|n| !names.contains(n)));
        }
        f.ok("default route", names.join(", "));
    }
    for i in interfaces.iter().filter(|i| i.up) {
        stamps(f, i);
    }
}

/// Who stamps what passes an interface, as the daemon would decide it.
fn stamps(f: &mut Findings, i: &Interface) {
    let what = format!("time stamps: {}", i.name);
    let support = match stamping::stamp_support(&i.name) {
        Ok(support) => support,
        Err(e) => {
            let found = format!("the driver does not say: {e}");
            return f.put(Verdict::Warn, &what, found, "");
        }
    };
    match stamping::choose(&i.name, false) {
        Stamping::Card { number, .. } => f.ok(
            &what,
            format!("RX network card, TX network card (clock /dev/ptp{number})"),
        ),
        Stamping::Kernel(_) if !support.software_receive => f.put(
            Verdict::Warn,
            &what,
            "RX program, TX program: the driver has none",
            "times are the program's own, which costs accuracy",
        ),
        Stamping::Kernel(_) if !support.software_transmit => f.put(
            Verdict::Warn,
            &what,
            "RX kernel, TX program: the driver does not stamp what leaves",
            "departures are stamped by the program, which costs accuracy",
        ),
        Stamping::Kernel(why) => f.ok(&what, format!("RX kernel, TX kernel; {why}")),
    }
}

/// What this host's stamps are worth, measured over loopback.
fn accuracy(f: &mut Findings) {
    let what = "stamp error";
    let measured = StampMeter::new()
        .map_err(|e| e.to_string())
        .and_then(|mut meter| {
            let measured = meter.measure(DATAGRAMS, EVERY_NS);
            measured.map_err(|e| e.to_string())?;
            Ok(meter.take())
        });
    let readings = match measured {
        Ok(measured) => measured,
        Err(e) => return f.put(Verdict::Warn, what, format!("cannot be measured: {e}"), ""),
    };
    let at = |h: &Histogram, q| delay(h.quantile(q).unwrap_or(0));
    let pair = |h: &Histogram| format!("{} (p50), {} (p99)", at(h, 0.5), at(h, 0.99));
    let Some(errors) = readings.errors() else {
        let found = format!(
            "{} of {DATAGRAMS} datagrams over loopback had no stamps",
            readings.unstamped
        );
        return f.put(
            Verdict::Warn,
            what,
            found,
            "is loopback up, and not firewalled?",
        );
    };
    f.ok(
        what,
        format!(
            "kernel: {} between its stamps of one datagram over loopback, {} at the finest",
            pair(&readings.kernel),
            delay(readings.kernel.min().unwrap_or(0)),
        ),
    );
    f.ok(
        what,
        format!(
            "without the kernel's stamps: {} off on leaving, {} on arriving",
            pair(&readings.user_transmit),
            pair(&readings.user_receive),
        ),
    );
    f.ok(
        "timer",
        format!("{} late at ordinary priority", pair(&readings.woken_late)),
    );
    f.ok(
        "round trip",
        format!(
            "this host's part believed to {} by kernel stamps, to {} without",
            delay(2 * errors.kernel_ns),
            delay(2 * errors.user_ns)
        ),
    );
}

fn wall_clock(f: &mut Findings, utc: bool) {
    let d = clock::discipline();
    let zone = when::zone(utc);
    let now = format!(
        "{} {}",
        when::civil(when::now_ns(), &zone),
        when::zone_label(when::now_ns(), &zone)
    );
    if !d.synchronised {
        f.put(
            Verdict::Warn,
            "clock",
            format!("{now}, not synchronised"),
            "run an NTP client (systemd-timesyncd, chrony); round-trip times do not need it, dates do",
        );
    } else if d.maximum_error_ns > CLOCK_ERROR_NS {
        f.put(
            Verdict::Warn,
            "clock",
            format!(
                "{now}, synchronised, but may be off by {}",
                delay(d.maximum_error_ns)
            ),
            "look at the NTP client",
        );
    } else {
        f.ok(
            "clock",
            format!("{now}, synchronised within {}", delay(d.maximum_error_ns)),
        );
    }
}

/// Gives whether a daemon runs there.
fn daemon(f: &mut Findings, socket: &Path) -> bool {
    let what = "daemon";
    match control::ask(socket, "status", Duration::from_secs(5)) {
        Ok(answer) => {
            let status = &answer["status"];
            let version = status["version"].as_str().unwrap_or("of unknown version");
            f.ok(
                what,
                format!("{version} runs and answers at {}", socket.display()),
            );
            for trouble in status["troubles"].as_array().into_iter().flatten() {
                f.put(
                    Verdict::Warn,
                    "daemon",
                    trouble.as_str().unwrap_or_default(),
                    "",
                );
            }
            let events = status["events"].as_array().into_iter().flatten();
            for e in events.filter(|e| e["kind"] == "not_watched" && e["ongoing"] == true) {
                let text = e["text"].as_str().unwrap_or_default();
                f.put(
                    Verdict::Warn,
                    "daemon",
                    text,
                    "name fewer targets or interfaces",
                );
            }
            reflectors(f, status);
            true
        }
        Err(ControlError::Absent) => {
            f.put(
                Verdict::Warn,
                what,
                format!("does not run, or not with {}", socket.display()),
                "systemctl start bufferbaned, or name its socket with --socket",
            );
            false
        }
        Err(e) => {
            f.put(Verdict::Fail, what, e.to_string(), "");
            true
        }
    }
}

/// Whether each reflector answers over each interface, as the daemon says in its `status`.
fn reflectors(f: &mut Findings, status: &Value) {
    let list = |name: &str| status[name].as_array().into_iter().flatten();
    let mut looked_at = BTreeSet::new();
    for s in list("series").filter(|s| s["kind"] == "udp") {
        let [interface, target, address] =
            ["interface", "target", "address"].map(|key| s[key].as_str().unwrap_or_default());
        if !looked_at.insert((interface, target, address)) {
            continue;
        }
        let what = format!("reflector: {target} over {interface}");
        let lost = list("events").any(|e| {
            e["kind"] == "reflector_lost"
                && e["ongoing"] == true
                && e["target"] == target
                && e["interface"] == interface
                && e["family"] == s["family"]
        });
        match s["total"]["rtt_ns"].as_u64() {
            Some(rtt_ns) if !lost => {
                let clock = match s["far_clock_disciplined"].as_bool() {
                    Some(true) => ", its clock is synchronised",
                    Some(false) => ", its clock is not synchronised (which no delay needs)",
                    None => "",
                };
                f.ok(
                    &what,
                    format!("answers from {address}, {}{clock}", delay(rtt_ns)),
                );
            }
            answered => f.put(
                Verdict::Warn,
                &what,
                if answered.is_some() {
                    format!("{address} does not answer any more")
                } else {
                    format!("{address} has not answered")
                },
                "does it run there (systemctl status bufferbane-reflector), is its UDP port open, \
                 and is the same key on both ends?",
            ),
        }
    }
}

fn store(f: &mut Findings, path: &Path, runs: bool) {
    let size = std::fs::metadata(path).map_or(0, |m| m.len());
    match Reader::open(path) {
        Ok(_) => f.ok("store", format!("{}, {}", path.display(), bytes(size))),
        Err(OpenError::Missing(_)) if !runs => f.put(
            Verdict::Warn,
            "store",
            format!("{} is not there yet", path.display()),
            "bufferbaned makes it; name another with --store",
        ),
        Err(OpenError::NeedsRecovery(_)) => f.put(
            Verdict::Warn,
            "store",
            format!("{} was not closed cleanly", path.display()),
            "bufferbaned, or the next bbtool report, repairs it",
        ),
        Err(e) => f.put(Verdict::Fail, "store", e.to_string(), ""),
    }
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty());
    if let Ok(stat) = nix::sys::statvfs::statvfs(dir.unwrap_or(Path::new("."))) {
        let free = stat.blocks_available().saturating_mul(stat.fragment_size());
        const LITTLE: u64 = 200 << 20;
        if free < LITTLE {
            f.put(
                Verdict::Warn,
                "disk",
                format!("{} free", bytes(free)),
                "recording stops at retention.min_free (100 MiB); make room",
            );
        } else {
            f.ok("disk", format!("{} free", bytes(free)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reflector_that_does_not_answer_is_named_with_its_interface() {
        let series = |interface: &str, rtt_ns: Option<u64>| {
            json!({"interface": interface, "target": "vps", "address": "192.0.2.9", "kind": "udp",
                   "family": 4, "total": {"rtt_ns": rtt_ns}})
        };
        let lost = |interface: &str, family: u8, ongoing: bool| {
            json!({"kind": "reflector_lost", "target": "vps", "interface": interface,
                   "family": family, "ongoing": ongoing})
        };
        let status = json!({
            "series": [
                series("wan0", Some(12_000_000)),
                series("wan0", Some(12_000_000)),
                series("wan1", Some(9_000_000)),
                series("lte", None),
                {"interface": "wan0", "target": "gateway", "kind": "icmp"},
            ],
            "events": [
                lost("wan0", 4, false),
                lost("wan0", 6, true),
                lost("wan1", 4, true),
            ],
        });
        let mut f = Findings::default();
        reflectors(&mut f, &status);
        let said = text(&f.0);
        let mut lines = said.lines();
        let mut next = || lines.next().unwrap_or_default();
        assert!(next().starts_with("ok    reflector: vps over wan0  answers from 192.0.2.9, 12"));
        assert!(next().contains("vps over wan1  192.0.2.9 does not answer any more; does it run"));
        assert!(next().contains("vps over lte   192.0.2.9 has not answered; does it run"));
        assert_eq!(next(), "");
    }
}
