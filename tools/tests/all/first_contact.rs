//! Three commands from nothing to a running pair: `bbtool keygen`, the reflector, the daemon. What keygen
//! prints goes into their files as it is pasted.

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bufferbane_core::sample::Status;
use bufferbane_reflector::Running;
use bufferbane_store::{Filter, Reader, SeriesKind};
use bufferbaned::Daemon;

/// How many of the probes in the store were answered.
fn answered(store: &Path) -> usize {
    let reader = Reader::open(store).expect("a store that was closed");
    let Some((from_ns, to_ns)) = reader.span().expect("readable") else {
        return 0;
    };
    let series = reader.series().expect("readable");
    let probes = series.iter().filter(|(_, i)| i.kind == SeriesKind::Udp);
    let filter = Filter {
        from_ns,
        to_ns: to_ns + 1,
        series: probes.map(|(id, _)| *id).collect(),
    };
    let rows = reader.samples(&filter).map(|r| r.expect("readable"));
    rows.filter(|r| r.sample.status == Status::Ok).count()
}

#[test]
fn the_blocks_that_keygen_prints_make_a_running_pair() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let free = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = free.local_addr().expect("bound").to_string();
    drop(free);

    let keygen = Command::new(env!("CARGO_BIN_EXE_bbtool"))
        .args(["keygen", "vienna", "--address", &at, "--dir"])
        .arg(dir.path())
        .output()
        .expect("bbtool runs");
    assert!(keygen.status.success(), "{keygen:?}");
    let said = String::from_utf8(keygen.stdout).expect("text");
    let block = |begin: &str| {
        let from = said.find(begin).expect("the block");
        let block = &said[from..];
        &block[..block.find("\n\n").unwrap_or(block.len())]
    };

    let file = |name: &str, own: &str, pasted: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("{own}\n{pasted}\n")).expect("written");
        path
    };
    // Beside what is pasted only what keeps the test from the places of an installed service.
    let own = format!("[reflector]\nlisten = [\"{at}\"]\ncontrol_socket = \"\"\n");
    let reflector = file("reflector.toml", &own, block("[[client]]"));
    let reflector = bufferbane_reflector::config::load(&reflector).expect("a right file");
    let mut reflector = Running::start(&reflector.config).expect("the reflector starts");

    let store = dir.path().join("store.redb");
    let own = format!(
        "[daemon]\nstore = \"{}\"\ncontrol_socket = \"{}\"\n[http]\nlisten = \"\"\n\
         [[interface]]\nname = \"lo\"\n",
        store.display(),
        dir.path().join("control.sock").display()
    );
    let daemon = file("bufferbaned.toml", &own, block("[[reflector]]"));
    let mut config = bufferbaned::config::load(&daemon)
        .expect("a right file")
        .config;
    config.keep.min_free_bytes = 0;
    let mut daemon = Daemon::start(config, None).expect("the daemon starts");

    let begun = Instant::now();
    let mut echoes = 0;
    while echoes < 10 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(100));
        let status = reflector.status().expect("statistics");
        echoes = status["answered"].as_u64().expect("a number");
        assert_eq!(status["clients"][0]["name"], "vienna");
    }
    daemon.stop();
    assert!(answered(&store) > 2, "{echoes} answers, {said}");
}

#[test]
fn a_demo_whose_report_has_no_place_says_so_before_it_probes() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let demo = Command::new(env!("CARGO_BIN_EXE_bbtool"))
        .arg("demo")
        .arg("--out")
        .arg(file.path().join("x"))
        .output()
        .expect("bbtool runs");
    let said = String::from_utf8_lossy(&demo.stderr);
    assert_eq!(demo.status.code(), Some(1), "{said}");
    assert!(
        said.contains("say with --out") && !said.contains("waiting"),
        "{said}"
    );
}
