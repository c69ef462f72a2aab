//! `bbtool demo`: a reflector, a daemon and a report on this host, without configuration or root.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_linux_io::{Family, host, tcp};
use bufferbane_reflector::Running;
use bufferbane_reflector::config as reflector;
use bufferbaned::Daemon;
use bufferbaned::config::{Config, FamilyChoice, Place, Reflector, Stream, Target};
use bufferbaned::load::{Kind as Load, TestNews, TestWish};

use crate::args::Demo;
use crate::fail::Fail;
use crate::test::Bar;
use crate::{out, report};

/// Probes are sent this often, ns.
const INTERVAL_NS: u64 = 50_000_000;
/// How fast the throughput test may be each way, bit/s: enough to see that it works, and little enough
/// for this host to go on with everything else.
const TEST_BPS: u64 = 1_000_000_000;
/// How long it loads the line, s.
const TEST_SECONDS: u64 = 2;
/// Columns of the progress bar.
const BAR: u64 = 40;

/// `bbtool demo`.
pub(crate) fn run(args: &Demo) -> Result<(), Fail> {
    if !(2..=3600).contains(&args.seconds) {
        return Err(Fail::Usage(format!(
            "--seconds {} is out of range; 2 to 3600 is allowed",
            args.seconds
        )));
    }
    // That the report cannot be written is said before the wait for it.
    std::fs::create_dir_all(&args.out).map_err(|e| {
        let said = format!("{e}; say with --out where this user may write");
        Fail::of(args.out.display(), said)
    })?;
    let scratch = Scratch::new()?;
    let key = random_key()?;
    let listen = reflector::Config {
        listen: vec![([127, 0, 0, 1], 0).into()],
        listen_is_default: false,
        control_socket: None,
        clients: vec![reflector::Client {
            name: "demo".into(),
            keys: vec![key.clone()],
            max_pps: reflector::DEFAULT_MAX_PPS,
            max_rate_bps: Some(TEST_BPS),
            daily_bytes: None,
            tcp_prefixes: Vec::new(),
        }],
        ..reflector::Config::default()
    };
    let far_end = Running::start(&listen).map_err(Fail::Failed)?;
    let port = far_end
        .listen()
        .first()
        .map(std::net::SocketAddr::port)
        .ok_or_else(|| Fail::Failed("the reflector has no port".into()))?;

    let access = host::icmp_access(Family::V4);
    let mut left_out = Vec::new();
    let mut targets = Vec::new();
    if access.ping || access.raw {
        targets.push(Target {
            name: "this-host".into(),
            place: Place::Host("127.0.0.1".into()),
            family: FamilyChoice::V4,
            interval_ns: INTERVAL_NS,
            size: 64,
            more_sizes: [0; 3],
        });
    } else {
        left_out.push(
            "no ping: this user may not (net.ipv4.ping_group_range or CAP_NET_RAW would allow it)"
                .to_owned(),
        );
    }
    let mut config = Config {
        store: scratch.0.join("demo.redb"),
        control_socket: scratch.0.join("control.sock"),
        commit_interval_ns: 5_000_000_000,
        http: None,
        interfaces: vec!["lo".into()],
        targets: Some(targets),
        reflectors: vec![Reflector {
            name: "demo-reflector".into(),
            host: "127.0.0.1".into(),
            port,
            key: key.into(),
            family: FamilyChoice::V4,
            streams: vec![Stream {
                dscp: 0,
                size: 128,
                interval_ns: INTERVAL_NS,
                more_sizes: [0; 3],
            }],
            tcp_prefix: None,
        }],
        ..Config::default()
    };
    config.keep.min_free_bytes = 1 << 20;
    if tcp::check_congestion(&config.throughput.congestion).is_err() {
        // In every kernel, and allowed to everybody.
        config.throughput.congestion = "reno".into();
    }
    let store = config.store.clone();
    let mut daemon = Daemon::start(config, None).map_err(|e| Fail::Failed(e.to_string()))?;
    wait(Duration::from_secs(args.seconds), &daemon);
    if let Err(why) = load(&daemon) {
        left_out.push(format!("no throughput test: {why}"));
    }
    daemon.stop();
    far_end.stop().map_err(Fail::Failed)?;

    let bundle = report::bundle(&store, &args.out)?;
    let mut text = bundle.text;
    text.push_str(
        "\nThis was the loopback of this host: the daemon's own accuracy, not a line's, and \
         throughput that its reflector limits to 1 Gbit/s.\n",
    );
    for line in left_out {
        text.push_str(&format!("Left out: {line}.\n"));
    }
    text.push('\n');
    for file in &bundle.files {
        text.push_str(&format!("{}\n", file.display()));
    }
    out::print(&text)
}

/// Runs one short throughput test in both directions.
fn load(daemon: &Daemon) -> Result<(), String> {
    let mut news = daemon.test(TestWish {
        direction: Some(Load::Both),
        seconds: Some(TEST_SECONDS),
        ..TestWish::default()
    });
    let mut bar = Bar::new();
    let result = loop {
        match news.blocking_recv() {
            Some(TestNews::Progress(progress)) => {
                bar.show(&serde_json::to_value(progress).unwrap_or_default());
            }
            Some(TestNews::Done(_)) => break Ok(()),
            Some(TestNews::Failed(why) | TestNews::Unknown(why)) => break Err(why),
            None => break Err("the daemon ended".to_owned()),
        }
    };
    bar.end();
    result
}

/// Lets the measurement run, and shows how far it is.
fn wait(duration: Duration, daemon: &Daemon) {
    let begin = Instant::now();
    while begin.elapsed() < duration && daemon.is_running() {
        std::thread::sleep(Duration::from_millis(100));
        let done = begin.elapsed().as_millis() as u64;
        let all = duration.as_millis() as u64;
        let filled = (done * BAR / all.max(1)).min(BAR) as usize;
        let series = daemon.status().series;
        let (sent, lost) = series
            .iter()
            .fold((0, 0), |(s, l), x| (s + x.total.sent, l + x.total.lost));
        progress(&format!(
            "\r[{:<width$}] {:>3} s  {sent} probes, {lost} lost ",
            "=".repeat(filled),
            done / 1000,
            width = BAR as usize,
        ));
    }
    progress("\n");
}

/// A progress bar is for people: it goes to standard error, and only to a terminal.
fn progress(text: &str) {
    let mut error = std::io::stderr();
    if std::io::IsTerminal::is_terminal(&error) {
        // Whoever closed their terminal does not miss it.
        let _ = error
            .write_all(text.as_bytes())
            .and_then(|()| error.flush());
    }
}

fn random_key() -> Result<PresharedKey, Fail> {
    let (mut id, mut secret) = ([0; 8], [0; 32]);
    getrandom::fill(&mut id)
        .and_then(|()| getrandom::fill(&mut secret))
        .map_err(|e| Fail::of("random numbers", e))?;
    Ok(PresharedKey {
        id: KeyId(id),
        secret: Secret::new(secret),
    })
}

/// A directory of our own that goes when the demonstration does.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self, Fail> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| Fail::of("random numbers", e))?;
        let name = format!("bufferbane-demo-{:016x}", u64::from_ne_bytes(random));
        let path = std::env::temp_dir().join(name);
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(&path)
            .map_err(|e| Fail::of(path.display(), e))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let left: &Path = &self.0;
        if let Err(e) = std::fs::remove_dir_all(left) {
            out::warn(&format!("{} stays behind: {e}", left.display()));
        }
    }
}
