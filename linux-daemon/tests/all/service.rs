//! The program as it is installed: configuration, signals, systemd, hosts that refuse it.

use std::path::Path;
use std::time::Duration;

use crate::common::{
    PROGRAM, Place, Service, Systemd, inside_namespaces, ip, memory, refuse, reopen, rows, run,
    sent, sent_since, skipped,
};
use bufferbane_config::keyfile;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use bufferbane_store::Reader;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_host_without_io_uring_is_told_what_to_change() {
    let place = Place::new();
    let file = place.file();
    let arguments = ["--config", file.to_str().unwrap()];
    refuse::every_refusal(PROGRAM, &arguments, skipped);
    assert!(!place.store().exists(), "nothing was begun");
}

#[test]
fn everything_wrong_in_a_configuration_is_said_at_once_with_its_place_and_remedy() {
    let place = Place::new();
    place.configure(
        "[daemon]\n\
         comit_interval = \"60s\"\n\
         timezone = \"Europe/Viena\"\n\
         [[interface]]\n\
         name = \"eth0\"\n\
         kind = \"wired \"\n\
         [[target]]\n\
         name = \"a\"\n\
         kind = \"icmp\"\n\
         address = \"9.9.9.900\"\n\
         interval = \"0s\"\n\
         [[reflector]]\n\
         name = \"v\"\n\
         address = \"reflector.example.net:987600\"\n\
         key_file = \"missing.key\"\n\
         interval = 0\n\
         [retention]\n\
         samples = \"5 bananas\"\n",
    );
    let file = place.file();
    let name = file.to_str().unwrap();
    for arguments in [&["--config", name, "--check"][..], &["--config", name]] {
        let output = run(arguments);
        let said = text(&output.stderr);
        println!("{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
        for (at, key, remedy) in [
            (
                "2:1",
                "daemon.comit_interval",
                "did you mean \"commit_interval\"",
            ),
            ("3:1", "daemon.timezone", "did you mean \"Europe/Vienna\"?"),
            ("6:1", "interface.kind", "Allowed are auto, wired, wifi"),
            ("10:1", "target.address", "write for example 9.9.9.9"),
            ("11:1", "target.interval", "1ms to 1h is allowed"),
            ("14:1", "reflector.address", "1 to 65535 is allowed"),
            ("15:1", "reflector.key_file", "make one with bbtool keygen"),
            ("16:1", "reflector.interval", "in quotes"),
            ("18:1", "retention.samples", "5 bananas"),
        ] {
            let begin = format!("{name}:{at}: {key}: ");
            assert!(
                said.lines()
                    .any(|l| l.starts_with(&begin) && l.contains(remedy)),
                "{begin}.. {remedy}\n{said}"
            );
        }
        assert_eq!(said.lines().count(), 9, "{said}");
    }
    // What is not TOML is said with its place as well.
    place.configure("[daemon\nstore = 5\n");
    let said = run(&["--config", name, "--check"]);
    assert_eq!(said.status.code(), Some(2));
    assert!(text(&said.stderr).starts_with(&format!("{name}:1:")));
    let missing = run(&["--config", "/nowhere/at/all.toml", "--check"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("/nowhere/at/all.toml"));
    // An interface may come later, as a PPPoE line does, or be mistyped.
    place.configure("[[interface]]\nname = \"lo\"\n[[interface]]\nname = \"nowhere0\"\n");
    let check = run(&["--config", name, "--check"]);
    let said = text(&check.stderr);
    assert_eq!(check.status.code(), Some(0), "{said}");
    assert!(
        said.contains("\"nowhere0\" is not there now") && said.lines().count() == 1,
        "{said}"
    );
    assert!(text(&check.stdout).contains(&format!("{name}: the configuration is right")));
    if !Path::new(bufferbaned::config::DEFAULT_FILE).exists() {
        let without = run(&["--check"]);
        assert_eq!(without.status.code(), Some(0));
        let said = text(&without.stdout);
        assert!(
            said.contains("there is no /etc/bufferbane/bufferbaned.toml: the defaults"),
            "{said}"
        );
    }
    assert_eq!(run(&["--nonsense"]).status.code(), Some(2));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert!(text(&run(&["--version"]).stdout).starts_with("bufferbaned 0."));
    assert!(!place.store().exists());
}

#[test]
fn systemd_hears_of_start_reload_and_end_and_a_wrong_file_changes_nothing() {
    let place = Place::new();
    let systemd = Systemd::new(place.dir.path());
    let mut service = Service::start(&place, Some(&systemd.socket));
    systemd.wait_for("READY=1");
    systemd.wait_for("WATCHDOG=1");
    systemd.wait_for("STATUS=");
    let before = sent(&place.status_with("probes", |s| sent(s) > 50));

    place.configure(&format!("{}\n[[reflektor]]\n", place.usual("5ms")));
    service.signal(Signal::SIGHUP);
    let said = service.line("the old configuration goes on");
    assert!(
        said.contains("reflektor: unknown key, did you mean"),
        "{said}"
    );
    assert!(systemd.wait_for("RELOADING=1").contains("MONOTONIC_USEC="));
    systemd.wait_for("READY=1");
    let names = |s: &serde_json::Value| -> Vec<String> {
        let series = s["series"].as_array().unwrap();
        let name = |s: &serde_json::Value| s["target"].as_str().unwrap().to_owned();
        series.iter().map(name).collect()
    };
    let status = place.status_with("probes", |s| sent(s) > before + 50);
    assert!(names(&status).contains(&"far".to_owned()), "{status:#}");

    // A right file is taken over; what did not change goes on counting.
    let more = place.usual("5ms").replace(
        "[[reflector]]",
        "[[target]]\nname = \"more\"\nkind = \"icmp\"\naddress = \"127.0.0.2\"\n[[reflector]]",
    );
    let before = sent(&place.status());
    place.configure(&more);
    service.signal(Signal::SIGHUP);
    service.line("the configuration was read again");
    systemd.wait_for("READY=1");
    let status = place.status_with("a new target", |s| names(s).contains(&"more".to_owned()));
    assert!(sent(&status) >= before);

    service.signal(Signal::SIGTERM);
    systemd.wait_for("STOPPING=1");
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    let reader = Reader::open(&place.store()).unwrap();
    let events = reader.events(i64::MIN, i64::MAX).unwrap();
    let mut reloads = events.iter().filter(|(_, e)| e.kind == "config_reload");
    let (_, reload) = reloads.next().expect("a reload");
    assert_eq!(reload.end_ns, Some(reload.start_ns), "it takes no time");
    assert_eq!(reloads.count(), 0, "the wrong file is no reload");
}

#[test]
fn a_key_that_was_replaced_is_nowhere_in_memory() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root is sure to be let into another process's memory");
    }
    let place = Place::new();
    let key = |id: &[u8; 8], n| PresharedKey {
        id: KeyId(*id),
        secret: Secret::new([n; 32]),
    };
    let (old, new) = ([7; 32], [0x59; 32]);
    keyfile::write_new(&place.path("new.key"), &key(b"as-child", new[0])).unwrap();
    let mut service = place.start();
    service.line("is ready");
    place.status_with("probes", |s| sent(s) > 50);
    let pid = service.child.id();
    assert!(memory::holds(pid, &old).unwrap(), "this would see it");
    place.configure(&place.usual("5ms").replace("far.key", "new.key"));
    service.signal(Signal::SIGHUP);
    service.line("the configuration was read again");
    assert_eq!(memory::forgets(pid, &old).unwrap(), 0);
    assert_eq!(
        memory::forgets(pid, key(b"as-child", 7).knock_key().reveal()).unwrap(),
        0
    );
    assert!(memory::holds(pid, &new).unwrap(), "and would still");
    service.signal(Signal::SIGTERM);
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
}

#[test]
fn sigterm_ends_it_within_two_seconds_with_everything_written() {
    let mut fastest = Duration::MAX;
    // A busy machine may keep even a prompt one waiting once.
    for _ in 0..3 {
        let place = Place::new();
        // Nothing is written before the end, and much is waiting.
        place.configure(&place.usual("2ms").replace("\"1s\"", "\"1h\""));
        let service = place.start().ready();
        let known = sent(&place.status_with("probes", |s| sent(s) > 500));
        let (code, took) = service.end();
        assert_eq!(code, Some(0));
        // It was closed as it should be: no recovery is needed.
        let reader = Reader::open(&place.store()).unwrap();
        let kept = sent_since(&rows(&reader), 0);
        assert!(kept >= known, "{known} were known, {kept} are there");
        assert!(!place.path("control").exists());
        fastest = fastest.min(took);
        if fastest < Duration::from_secs(2) {
            break;
        }
    }
    println!("ended in {fastest:?}");
    assert!(fastest < Duration::from_secs(2), "{fastest:?}");
}

#[test]
fn sigterm_is_obeyed_while_the_store_is_being_opened() {
    let place = Place::new();
    let systemd = Systemd::new(place.dir.path());
    // A file whose opening takes for ever, as that of a large one to be repaired takes long.
    nix::unistd::mkfifo(&place.store(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut service = Service::start(&place, Some(&systemd.socket));
    systemd.wait_for("EXTEND_TIMEOUT_USEC=");
    service.line("packets of lo are stamped");
    let (code, took) = service.end();
    println!("ended in {took:?}");
    assert_eq!(code, Some(0));
    systemd.wait_for("STOPPING=1");
}

#[test]
fn what_takes_a_restart_stays_as_it_is_and_is_said() {
    let place = Place::new();
    let mut service = place.start().ready();
    let before = place.status();
    let (store, control) = (place.store(), place.path("control"));
    let moved = |path: &Path| format!("{}.other", path.display());
    let text = place.usual("5ms");
    let text = text.replace(store.to_str().unwrap(), &moved(&store));
    let text = text.replace(control.to_str().unwrap(), &moved(&control));
    place.configure(&format!("{text}[http]\nlisten = \"\"\n"));
    service.signal(Signal::SIGHUP);
    for key in ["daemon.store", "daemon.control_socket", "http.listen"] {
        service.line(&format!("{key} has changed: that takes a restart"));
    }
    service.line("the configuration was read again");
    // The recorder has taken it over once a commit that was ordered later is done, and says so in the
    // second that follows.
    assert_eq!(place.ask("commit").unwrap()["ok"], true);
    let known = sent(&place.status());
    let after = place.status_with("another second", |s| sent(s) > known + 300);
    assert_eq!(after["store"]["path"], store.to_str().unwrap());
    assert_eq!(after["http"], before["http"]);
    assert_eq!(service.end().0, Some(0));
    assert!(!Path::new(&moved(&store)).exists());
}

#[test]
fn a_default_file_that_is_written_later_is_found_on_sighup() {
    if !inside_namespaces(
        module_path!(),
        "a_default_file_that_is_written_later_is_found_on_sighup",
    ) {
        return;
    }
    ip("link set lo up");
    for dir in ["/etc", "/run", "/var/lib"] {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs", dir])
            .status();
        assert!(status.is_ok_and(|s| s.success()), "mount {dir}");
    }
    let mut service = Service::start_without_file().ready();
    service.signal(Signal::SIGHUP);
    service.line("the old configuration goes on: /etc/bufferbane/bufferbaned.toml");
    std::fs::create_dir("/etc/bufferbane").unwrap();
    let text = "[[interface]]\nname = \"lo\"\n[[target]]\nname = \"a\"\nkind = \"icmp\"\n\
                address = \"127.0.0.1\"\n";
    std::fs::write("/etc/bufferbane/bufferbaned.toml", text).unwrap();
    service.signal(Signal::SIGHUP);
    service.line("the configuration was read again");
    service.line("packets of lo are stamped");
    assert_eq!(service.end().0, Some(0));
}

/// The kernel's number of a thread of the service.
fn thread_named(service: &Service, name: &str) -> Pid {
    let tasks = format!("/proc/{}/task", service.child.id());
    let found = std::fs::read_dir(tasks).unwrap().flatten().find(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    let found = found.unwrap_or_else(|| panic!("no thread {name}"));
    Pid::from_raw(found.file_name().to_str().unwrap().parse().unwrap())
}

#[test]
fn systemd_hears_nothing_more_once_the_probe_or_the_recorder_thread_hangs() {
    for hangs in ["probe", "recorder"] {
        let place = Place::new();
        let systemd = Systemd::new(place.dir.path());
        let mut service = Service::start(&place, Some(&systemd.socket)).ready();
        for _ in 0..3 {
            systemd.wait_for("WATCHDOG=1");
        }
        // One thread stands still, all others run on.
        let thread = thread_named(&service, hangs);
        if let Err(e) = ptrace::seize(thread, ptrace::Options::empty()) {
            return skipped(&format!("a thread cannot be held: {e}"));
        }
        ptrace::interrupt(thread).unwrap();
        // Half of the 3 s that systemd would wait, the second at hand, and what a busy machine takes.
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        while systemd.hears("WATCHDOG=1", Duration::from_secs(3)) {
            assert!(
                std::time::Instant::now() < limit,
                "{hangs} hangs, and systemd is told that all is well"
            );
        }
        if hangs == "probe" {
            service.line("the probe thread has not gone round");
        }
        let held: Result<(), nix::Error> = ptrace::detach(thread, None);
        // Where it stood at a system call it may have to be killed as it stands.
        println!("{hangs}: {held:?}");
        service.kill();
    }
}

/// Starts it on `store`, which has to be refused and stay as it is, byte for byte.
fn refuses(place: &Place, bytes: &[u8], what: &str, says: &[&str]) {
    std::fs::write(place.store(), bytes).unwrap();
    let file = place.file();
    let output = run(&["--config", file.to_str().unwrap()]);
    let said = text(&output.stderr);
    println!("{what}: {said}");
    assert_eq!(output.status.code(), Some(1), "{what}: {said}");
    assert!(
        says.iter().any(|s| said.contains(s)) && said.contains("untouched"),
        "{what}: {said}"
    );
    assert!(
        std::fs::read(place.store()).unwrap() == bytes,
        "{what} was changed"
    );
    let beside: Vec<_> = std::fs::read_dir(place.dir.path())
        .unwrap()
        .flatten()
        .filter(|f| f.file_name().to_string_lossy().starts_with("s.redb"))
        .collect();
    assert_eq!(beside.len(), 1, "{what}: {beside:?}");
}

/// A store with some samples in it, closed or left as a power cut leaves it.
fn real_store(place: &Place, closed: bool) -> Vec<u8> {
    let _ = std::fs::remove_file(place.store());
    let service = place.start().ready();
    place.status_with("probes", |s| sent(s) > 200);
    assert_eq!(place.ask("commit").unwrap()["ok"], true);
    if closed {
        assert_eq!(service.end().0, Some(0));
    } else {
        service.kill();
    }
    std::fs::read(place.store()).unwrap()
}

#[test]
fn a_foreign_or_damaged_store_is_refused_and_stays_as_it_is() {
    let place = Place::new();
    let foreign = ["not a Bufferbane store"];
    refuses(&place, b"a letter to my provider\n", "a letter", &foreign);
    refuses(&place, b"SQLite format 3\0 and more", "SQLite", &foreign);
    let mut half = b"redb\x1a\x0a\xa9\x0d\x0a".to_vec();
    half.resize(100_000, 0x5a);
    let damaged = ["damaged", "not a Bufferbane store"];
    refuses(&place, &half, "redb's first bytes and garbage", &damaged);

    for closed in [true, false] {
        let whole = real_store(&place, closed);
        let kind = if closed { "closed" } else { "unclean" };
        let mut cut = whole.clone();
        cut.truncate(whole.len() / 2);
        refuses(&place, &cut, &format!("half of a {kind} store"), &damaged);
        let mut header = whole.clone();
        header[9..320].fill(0xee);
        refuses(
            &place,
            &header,
            &format!("a {kind} store's header"),
            &damaged,
        );
        let mut inside = whole.clone();
        let len = inside.len();
        inside[4096..len].fill(0xee);
        refuses(
            &place,
            &inside,
            &format!("a {kind} store's pages"),
            &damaged,
        );
    }
}

fn free_bytes(dir: &Path) -> u64 {
    let stat = nix::sys::statvfs::statvfs(dir).unwrap();
    stat.blocks_available() * stat.fragment_size()
}

#[test]
fn a_full_disk_stops_recording_and_room_on_it_resumes_it_without_a_loss() {
    const TEST: &str = "a_full_disk_stops_recording_and_room_on_it_resumes_it_without_a_loss";
    if !inside_namespaces(module_path!(), TEST) {
        return;
    }
    ip("link set lo up");
    // Stopped in time by what is to stay free, and by the file system itself.
    for min_free in ["2MiB", "0B"] {
        let place = Place::new();
        let disk = place.path("disk");
        std::fs::create_dir(&disk).unwrap();
        let none: Option<&str> = None;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(none, &disk, Some("tmpfs"), flags, Some("size=16m")).unwrap();
        let store = disk.join("s.redb");
        let text = place.usual("5ms").replace(
            &place.store().display().to_string(),
            &store.display().to_string(),
        );
        place.configure(&text.replace("\"1MiB\"", &format!("\"{min_free}\"")));
        let mut service = place.start().ready();
        place.status_with("probes", |s| sent(s) > 100);

        // All of the disk is taken, but for less than a commit needs.
        let filler = disk.join("filler");
        std::fs::write(&filler, vec![1; free_bytes(&disk) as usize]).unwrap();
        let full = place.status_with("full disk", |s| s["store"]["full"] == true);
        let warned = service.line("full");
        println!("{min_free}: {warned}");
        assert_eq!(full["store"]["dropped_samples"], 0);
        let before = sent(&full);
        // Probing goes on, and is kept in memory.
        place.status_with("probes", |s| {
            sent(s) > before + 300 && s["store"]["uncommitted_samples"].as_u64() > Some(300)
        });
        std::fs::remove_file(&filler).unwrap();
        place.status_with("room", |s| s["store"]["full"] == false);
        let known = sent(&place.status());
        assert_eq!(service.end().0, Some(0));

        let reader = reopen(&store);
        let found = rows(&reader);
        assert!(sent_since(&found, 0) >= known, "{known} probes were known");
        // Nor is there a hole: each series has every number from its first to its last.
        for id in reader.series().unwrap().into_keys() {
            let mut numbers: Vec<u64> = found
                .iter()
                .filter(|r| r.series == id)
                .map(|r| r.sample.seq)
                .collect();
            numbers.sort_unstable();
            numbers.dedup();
            let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
            assert_eq!(numbers.len() as u64, last - first + 1);
        }
        let events = reader.events(i64::MIN, i64::MAX).unwrap();
        let full: Vec<_> = events
            .iter()
            .filter(|(_, e)| e.kind == "store_full")
            .collect();
        assert_eq!(full.len(), 1, "{events:#?}");
        assert!(full[0].1.end_ns > Some(full[0].1.start_ns));
        drop(reader);
        nix::mount::umount(&disk).unwrap();
    }
}
