//! `bbtool test`: a throughput and bufferbloat test now.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bufferbane_config::parse_load_rate;
use bufferbane_linux_io::clock;
use bufferbane_store::LoadTest;
use serde_json::{Map, Value, json};

use crate::args::Test;
use crate::control::{self, ControlError};
use crate::fail::Fail;
use crate::{loads, out, show, source, when};

/// The daemon says how far it is several times a second; a test before this one may take its time.
const PATIENCE: Duration = Duration::from_secs(240);
/// Columns of the progress bar.
const BAR: u64 = 16;

/// `bbtool test`.
pub(crate) fn run(args: &Test) -> Result<(), Fail> {
    let mut wish = Map::new();
    wish.insert("cmd".into(), "test".into());
    if let Some(direction) = &args.direction {
        let known = ["up", "down", "both", "rrul"];
        if !known.contains(&direction.as_str()) {
            return Err(Fail::Usage(format!(
                "--direction \"{}\" is not known; up, down, both or rrul",
                show::clean(direction)
            )));
        }
        wish.insert("direction".into(), direction.as_str().into());
    }
    if let Some(seconds) = args.seconds {
        if !(2..=60).contains(&seconds) {
            return Err(Fail::Usage(format!(
                "--seconds {seconds} is out of range; 2 to 60 is allowed"
            )));
        }
        wish.insert("seconds".into(), seconds.into());
    }
    if let Some([up_bps, down_bps]) = udp_rates(args)? {
        let rates = json!({ "up_bps": up_bps, "down_bps": down_bps });
        wish.insert("udp".into(), rates);
    }
    for (key, value) in [
        ("reflector", &args.reflector),
        ("interface", &args.interface),
    ] {
        if let Some(value) = value {
            wish.insert(key.into(), value.as_str().into());
        }
    }
    let failed = |e: ControlError| Fail::Failed(e.to_string());
    let place = args.place();
    if place.store.is_some() {
        source::status(&place, source::DAEMON_PATIENCE)?;
    }
    let mut stream = control::connect(&place.socket, PATIENCE).map_err(failed)?;
    let broken = |e: std::io::Error| failed(ControlError::Broken(e.to_string()));
    writeln!(stream, "{}", Value::Object(wish)).map_err(broken)?;
    let mut bar = Bar::new();
    let test = follow(stream, &mut bar);
    bar.end();
    let test = test?;
    if args.json {
        let at_ns = began(&test);
        let throughput: Vec<_> = loads::throughput(at_ns, &test).collect();
        return out::print_json(&json!({
            "throughput": throughput,
            "bufferbloat": loads::bufferbloat(at_ns, &test),
        }));
    }
    out::print(&loads::describe(&test))
}

/// Rates of datagrams up and down, bit/s, where there are to be any; 0 is none that way.
fn udp_rates(args: &Test) -> Result<Option<[u64; 2]>, Fail> {
    let rate = |name: &str, text: &Option<String>| {
        let text = text.as_deref();
        text.map(parse_load_rate)
            .transpose()
            .map_err(|why| Fail::Usage(format!("{name}: {}", show::clean(&why))))
    };
    let up = rate("--udp-up", &args.udp_up)?;
    let down = rate("--udp-down", &args.udp_down)?;
    let each = rate("--udp-rate", &args.udp_rate)?;
    let direction = args.direction.as_deref();
    match (each, up.or(down)) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Fail::Usage(
            "--udp-rate is one rate for each direction, beside --udp-up or --udp-down; give either"
                .into(),
        )),
        (None, Some(_)) if direction.is_some() => Err(Fail::Usage(
            "--direction goes with --udp-rate; --udp-up and --udp-down say by themselves which way"
                .into(),
        )),
        (None, Some(_)) => Ok(Some([up, down].map(Option::unwrap_or_default))),
        (Some(bps), None) => match direction {
            Some("rrul") => Err(Fail::Usage(
                "--direction rrul is of TCP streams; up, down or both goes with --udp-rate".into(),
            )),
            Some("down") => Ok(Some([0, bps])),
            Some("both") => Ok(Some([bps; 2])),
            _ => Ok(Some([bps, 0])),
        },
    }
}

/// When a test of this boot that has just ended began, ns since 1970.
fn began(test: &LoadTest) -> i64 {
    let ago_ns = clock::now().as_nanos().saturating_sub(test.start_ns);
    when::now_ns().saturating_sub(i64::try_from(ago_ns).unwrap_or(i64::MAX))
}

/// Reads the news until the result comes.
fn follow(stream: UnixStream, bar: &mut Bar) -> Result<LoadTest, Fail> {
    let broken = |why: String| Fail::Failed(ControlError::Broken(why).to_string());
    for line in BufReader::new(stream).lines() {
        let line = line.map_err(|e| broken(e.to_string()))?;
        let mut said: Value = serde_json::from_str(&line).map_err(|e| broken(e.to_string()))?;
        if said["ok"] != Value::Bool(true) {
            let why = said["error"].as_str().unwrap_or("it does not say why");
            let why = format!("no test: {}", show::clean(why));
            return Err(match said["unknown"] {
                Value::Bool(true) => Fail::Usage(why),
                _ => Fail::Failed(why),
            });
        }
        if said["test"].is_object() {
            return serde_json::from_value(said["test"].take()).map_err(|e| broken(e.to_string()));
        }
        bar.show(&said["progress"]);
    }
    Err(broken("it hung up".into()))
}

/// For people, on standard error: a bar on a terminal, else a line for what is waited for.
pub(crate) struct Bar {
    on: bool,
    /// What was waited for when that was last said.
    waits_for: String,
}

impl Bar {
    pub(crate) fn new() -> Self {
        Self {
            on: std::io::stderr().is_terminal(),
            waits_for: String::new(),
        }
    }

    /// Shows the `progress` of an answer.
    pub(crate) fn show(&mut self, progress: &Value) {
        let waits_for = progress["waits_for"].as_str().unwrap_or_default();
        if self.on {
            // What is longer than the terminal is wide is cut off by it, and leaves no rows behind (DECAWM).
            self.write(&format!("\r\u{1b}[?7l{}\u{1b}[K\u{1b}[?7h", text(progress)));
        } else if !waits_for.is_empty() && waits_for != self.waits_for {
            self.write(&format!("waiting for {}\n", show::clean(waits_for)));
        }
        self.waits_for = waits_for.to_owned();
    }

    /// Takes it away.
    pub(crate) fn end(&self) {
        if self.on {
            self.write("\r\u{1b}[K");
        }
    }

    fn write(&self, text: &str) {
        let mut error = std::io::stderr();
        // Whoever closed their terminal does not miss it.
        let _ = error
            .write_all(text.as_bytes())
            .and_then(|()| error.flush());
    }
}

fn text(progress: &Value) -> String {
    let number = |key: &str| progress[key].as_u64();
    let phase = match progress["waits_for"].as_str() {
        Some(what) => format!("waiting for {}", show::clean(what)),
        None => show::clean(progress["phase"].as_str().unwrap_or("?")),
    };
    let (done, all) = (number("elapsed_ns"), number("phase_ns"));
    let filled = done.unwrap_or(0).saturating_mul(BAR) / all.unwrap_or(1).max(1);
    let filled = filled.min(BAR) as usize;
    let mut line = format!(
        "{phase:<8} [{:<width$}]",
        "=".repeat(filled),
        width = BAR as usize
    );
    for (key, word) in [("up_bps", "up"), ("down_bps", "down")] {
        if let Some(bps) = number(key) {
            line.push_str(&format!("  {word} {}", loads::rate(bps)));
        }
    }
    if let Some(rtt_ns) = number("rtt_ns") {
        line.push_str(&format!("  round trip {}", show::delay(rtt_ns)));
    }
    line.replace('\u{a0}', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_wrong_usage_and_no_failure() {
        for (answer, code) in [
            (
                json!({ "ok": false, "error": "no reflector \"oslo\"", "unknown": true }),
                2,
            ),
            (json!({ "ok": false, "error": "no reflector \"oslo\"" }), 1),
        ] {
            let (mut daemon, stream) = UnixStream::pair().unwrap();
            writeln!(daemon, "{answer}").unwrap();
            let fail = follow(stream, &mut Bar::new()).unwrap_err();
            assert_eq!(fail.code(), code, "{answer}");
            assert_eq!(fail.to_string(), "no test: no reflector \"oslo\"");
        }
    }

    #[test]
    fn each_direction_may_have_its_own_rate() {
        let rates = |options: &str| {
            let words: Vec<&str> = options.split_whitespace().collect();
            let test =
                <Test as argh::FromArgs>::from_args(&["test"], &words).expect("known options");
            udp_rates(&test).map_err(|fail| (fail.code(), fail.to_string()))
        };
        const MBIT: u64 = 1_000_000;
        for (options, up_bps, down_bps) in [
            ("--udp-up 5Mbit --udp-down 50Mbit", 5 * MBIT, 50 * MBIT),
            ("--udp-up 5Mbit", 5 * MBIT, 0),
            ("--udp-down 50Mbit", 0, 50 * MBIT),
            ("--udp-rate 5Mbit", 5 * MBIT, 0),
            ("--udp-rate 5Mbit --direction down", 0, 5 * MBIT),
            ("--udp-rate 5Mbit --direction both", 5 * MBIT, 5 * MBIT),
        ] {
            assert_eq!(rates(options), Ok(Some([up_bps, down_bps])), "{options}");
        }
        assert_eq!(rates("--direction down"), Ok(None));
        for (options, why) in [
            ("--udp-rate 5Mbit --udp-down 9Mbit", "give either"),
            ("--udp-up 5Mbit --direction up", "by themselves which way"),
            ("--udp-rate 5Mbit --direction rrul", "of TCP streams"),
            ("--udp-down 50", "--udp-down: \"50\" is not a rate"),
            ("--udp-up 2Gbit", "--udp-up: 2000000000 bit/s"),
        ] {
            let (code, said) = rates(options).expect_err(options);
            assert!(code == 2 && said.contains(why), "{options}: {said}");
        }
    }

    #[test]
    fn the_bar_says_phase_rates_and_latency() {
        let said = text(&json!({
            "phase": "load", "elapsed_ns": 4, "phase_ns": 8, "up_bps": 10_000_000,
            "down_bps": null, "rtt_ns": 180_000_000,
        }));
        assert!(said.starts_with("load     [========  "), "{said}");
        assert!(
            said.contains("up 10.0 Mbit/s") && !said.contains("down"),
            "{said}"
        );
        assert!(said.contains("round trip 180"), "{said}");
        let said = text(&json!({
            "phase": "waiting", "waits_for": "the reflector", "elapsed_ns": 0, "phase_ns": 8,
        }));
        assert!(said.starts_with("waiting for the reflector ["), "{said}");
        // Whatever comes, there is a line.
        assert!(text(&Value::Null).starts_with('?'));
    }
}
