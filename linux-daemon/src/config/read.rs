//! Reading the sections about the daemon itself.

use std::net::SocketAddr;
use std::path::Path;

use bufferbane_config::{Section, parse_load_rate, parse_size};
use bufferbane_core::train::pacer::When;

use super::probed::{read_interface, read_name, read_reflector, read_target};
use super::quiet::QuietHours;
use super::{Config, Keep, SECOND_NS, Throughput};
use crate::alerts;
use crate::ask;
use crate::load::UdpRates;
use crate::pacing::{MAX_PRIORITY, MAX_WAKE_EARLY_NS, Pacing, REALTIME_WAKE_EARLY_NS};
use crate::remote;
use crate::stamp;

pub(super) fn read(root: &Section<'_>, base: &Path) -> Config {
    let mut config = Config::default();
    let daemon = root.section("daemon");
    if let Some(path) = daemon.text("store") {
        config.store = path.into();
    }
    if let Some(path) = daemon.text("control_socket") {
        config.control_socket = path.into();
    }
    if let Some(ns) = daemon.duration_ns("commit_interval", SECOND_NS..=3600 * SECOND_NS) {
        config.commit_interval_ns = ns;
    }
    if let Some(is_on) = daemon.flag("close_looks") {
        config.close_looks = is_on;
    }
    config.pacing = read_pacing(&daemon);
    config.timezone = daemon.parsed("timezone", timezone).flatten();
    daemon.finish();
    read_retention(&root.section("retention"), &mut config.keep);
    read_http(&root.section("http"), &mut config.http);
    for i in root.sections("interface") {
        read_interface(&i, &mut config.interfaces);
    }
    let targets = root.sections("target");
    let reflectors = root.sections("reflector");
    let mut names = Vec::new();
    // `target = []` names none, and switches the defaults off.
    if root.has("target") {
        let mut pinged = Vec::new();
        for t in &targets {
            let name = read_name(t, &mut names);
            match t.text("kind").as_deref() {
                Some("stamp") => config.stamps.extend(stamp::read(t, base, name)),
                Some("dns") => config.services.extend(ask::config::read_dns(t, name)),
                Some("tcp") => config.services.extend(ask::config::read_tcp(t, name)),
                Some("http") => {
                    let read = ask::config::read_http(t, base, name);
                    config.services.extend(read);
                }
                _ => pinged.extend(read_target(t, name)),
            }
        }
        config.targets = Some(pinged);
    }
    config.reflectors = reflectors
        .iter()
        .filter_map(|r| read_reflector(r, base, &mut names))
        .collect();
    config.throughput = read_throughput(&root.section("throughput"));
    config.alerts = alerts::read(&root.section("alerts"), base);
    for r in root.sections("remote_write") {
        let read = remote::read(&r, base, &config.remote_write);
        config.remote_write.extend(read);
    }
    root.finish();
    config
}

fn read_throughput(s: &Section<'_>) -> Throughput {
    let default = Throughput::default();
    let every = s.parsed("every", |text| match text {
        "never" => Ok(None),
        _ => bufferbane_config::parse_duration(text).and_then(|ns| match ns {
            0..60_000_000_000 => Err(format!("\"{text}\" is too often; 1m is the least")),
            _ => Ok(Some(ns)),
        }),
    });
    let hourly = s.is_present().then_some(3600 * SECOND_NS);
    let throughput = Throughput {
        every_ns: every.unwrap_or(hourly),
        seconds: s.number("seconds", 2..=60).unwrap_or(default.seconds),
        streams: s
            .number("streams", 1..=16)
            .map_or(default.streams, |n| n as u8),
        congestion: s
            .parsed("congestion", |name| {
                let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if (1..=15).contains(&name.len()) && name.chars().all(plain) {
                    Ok(name.to_owned())
                } else {
                    Err(format!(
                        "\"{name}\" is not the name of a congestion control; write for example \
                         cubic"
                    ))
                }
            })
            .unwrap_or(default.congestion),
        dscp: s.number("dscp", 0..=63).map_or(default.dscp, |n| n as u8),
        udp: read_udp(s),
        monthly_budget_bytes: s
            .parsed("monthly_budget", parse_size)
            .unwrap_or(default.monthly_budget_bytes),
        skip_when_busy: s.flag("skip_when_busy").unwrap_or(default.skip_when_busy),
        trains: s
            .parsed("train_budget", trains)
            .unwrap_or(match s.is_present() {
                true => When::AtAlarms,
                false => default.trains,
            }),
        quiet_hours: read_quiet_hours(s),
    };
    s.finish();
    throughput
}

/// A direction that has no rate has no datagrams.
fn read_udp(s: &Section<'_>) -> Option<UdpRates> {
    let rate = |key| s.parsed(key, parse_load_rate);
    let (up_bps, down_bps) = (rate("udp_up"), rate("udp_down"));
    up_bps.or(down_bps).map(|_| UdpRates {
        up_bps: up_bps.unwrap_or(0),
        down_bps: down_bps.unwrap_or(0),
    })
}

/// More is no longer "almost no data".
const MAX_TRAIN_SHARE_PPM: f64 = 50_000.0;

/// From a percentage; "0" is none at all.
fn trains(text: &str) -> Result<When, String> {
    let number = text.strip_suffix('%').map(str::trim_end);
    let percent: Option<f64> = number
        .or((text == "0").then_some("0"))
        .and_then(|n| n.parse().ok());
    match percent.map(|p| p * 10_000.0) {
        Some(ppm) if (0.0..=MAX_TRAIN_SHARE_PPM).contains(&ppm) => match ppm.round() as u32 {
            0 => Ok(When::Never),
            ppm => Ok(When::Share(ppm)),
        },
        _ => Err(format!(
            "\"{text}\" is no share of a line; write for example \"1%\", at most 5%, or \"0\" for no \
             packet trains"
        )),
    }
}

fn read_quiet_hours(s: &Section<'_>) -> Vec<QuietHours> {
    let texts = s.texts("quiet_hours").unwrap_or_default();
    let read = texts.iter().filter_map(|text| {
        let hours = QuietHours::parse(text);
        hours.map_err(|why| s.mistake("quiet_hours", why)).ok()
    });
    read.collect()
}

fn read_pacing(daemon: &Section<'_>) -> Pacing {
    let priority = daemon
        .number("realtime_priority", 0..=MAX_PRIORITY.into())
        .unwrap_or(0) as u8;
    Pacing {
        priority,
        cpu: daemon.number("cpu", 0..=1023).map(|n| n as u16),
        wake_early_ns: daemon
            .duration_ns("wake_early", 0..=MAX_WAKE_EARLY_NS)
            .unwrap_or(if priority > 0 {
                REALTIME_WAKE_EARLY_NS
            } else {
                0
            }),
    }
}

/// A name of the time zone database, or `None` for the system's zone.
fn timezone(name: &str) -> Result<Option<String>, String> {
    if name == "auto" {
        return Ok(None);
    }
    let zones = jiff::tz::db();
    if zones.get(name).is_ok() {
        return Ok(Some(name.to_owned()));
    }
    let known: Vec<String> = zones.available().map(|z| z.to_string()).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let meant = bufferbane_config::suggestion(name, &known);
    let meant = if meant.is_empty() {
        ";".into()
    } else {
        format!("{meant} Otherwise")
    };
    Err(format!(
        "\"{name}\" is not a time zone{meant} write \"auto\" for the system's, or a name such as \
         \"Europe/Vienna\""
    ))
}

fn read_retention(s: &Section<'_>, keep: &mut Keep) {
    let age = |key| {
        s.parsed(key, |text| match text {
            "forever" => Ok(None),
            _ => bufferbane_config::parse_duration(text).and_then(|ns| match ns {
                0..3_600_000_000_000 => Err(format!("\"{text}\" is too short; 1h is the least")),
                _ => Ok(Some(ns)),
            }),
        })
    };
    if let Some(v) = age("samples") {
        keep.samples_ns = v;
    }
    if let Some(v) = age("rollups_1m") {
        keep.minutes_ns = v;
    }
    if let Some(v) = age("rollups_1h") {
        keep.hours_ns = v;
    }
    if let Some(v) = age("events") {
        keep.events_ns = v;
    }
    let size = s.parsed("max_size", |text| match text {
        "auto" => Ok(None),
        _ => parse_size(text).and_then(|bytes| match bytes {
            0..8_388_608 => Err(format!("\"{text}\" is too small; 8MiB is the least")),
            _ => Ok(Some(bytes)),
        }),
    });
    if let Some(v) = size {
        keep.max_bytes = v;
    }
    if let Some(v) = s.parsed("min_free", parse_size) {
        keep.min_free_bytes = v;
    }
    s.finish();
}

fn read_http(s: &Section<'_>, http: &mut Option<SocketAddr>) {
    // Unlike other texts this one may be empty.
    match s.texts("listen").as_deref() {
        None => {}
        Some([text]) if text.is_empty() => *http = None,
        Some([text]) => match text.parse::<SocketAddr>() {
            Ok(listen) => {
                if !listen.ip().is_loopback() {
                    s.warning(
                        "listen",
                        "whoever reaches this address can read what is measured; there is no password",
                    );
                }
                *http = Some(listen);
            }
            Err(_) => s.mistake(
                "listen",
                format!(
                    "\"{text}\" is no address with a port; write for example \"127.0.0.1:9816\", or \
                     \"\" for no page"
                ),
            ),
        },
        Some(_) => s.mistake("listen", "takes one address"),
    }
    s.finish();
}
