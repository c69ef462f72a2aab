//! A disk without room: what is told, and that nothing is lost while it lasts.

use crate::common::{S, START_WALL_NS, everything, info, sample, writer};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{Health, Trust, Writer, WriterOptions};

#[test]
fn a_full_disk_is_told_and_nothing_is_lost_while_it_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = Writer::open(
        &path,
        WriterOptions {
            min_free_bytes: u64::MAX,
            backlog_samples: 500,
        },
    )
    .unwrap();
    w.begin_boot("b", Monotonic::ZERO, START_WALL_NS, Trust::Plausible)
        .unwrap();
    let id = w.series(&info("a"));
    for i in 0..400 {
        w.record(id, sample(i, i * S, Some(1_000_000)));
    }
    let error = w.commit().unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!((w.shed(), w.uncommitted()), (0, 400));
    for i in 400..600 {
        w.record(id, sample(i, i * S, Some(1_000_000)));
    }
    assert_eq!(w.shed(), 100, "the oldest give way beyond the backlog");
    for minute in 0..10_007 {
        let at = Monotonic::from_nanos(minute * 60 * S);
        w.health(at, &Health::default()).unwrap();
    }
    assert_eq!(w.shed_rows(), 7);
}

#[test]
fn a_file_system_that_really_fills_up_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = nix::mount::mount(
        Some("none"),
        dir.path(),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=4m"),
    );
    if let Err(e) = mounted {
        assert!(
            std::env::var_os("CI").is_none(),
            "cannot mount a small tmpfs: {e}"
        );
        println!("SKIPPED: cannot mount a small tmpfs ({e}); run as root");
        return;
    }
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    w.commit().unwrap();
    let ballast = dir.path().join("ballast");
    let mut room = vec![0u8; 4 << 20];
    while std::fs::write(&ballast, &room).is_err() {
        room.truncate(room.len() - 4096);
    }
    let (mut failed, mut i) = (false, 0u64);
    while !failed && i < 200_000 {
        for _ in 0..500 {
            w.record(
                id,
                sample(i, i * S / 10, Some(1_000_000 + i * 7919 % 5_000_000)),
            );
            i += 1;
        }
        failed = w.commit().is_err_and(|e| {
            assert!(e.is_full(), "{e}");
            true
        });
    }
    assert!(failed, "the disk never became full");
    assert!(w.commit().is_err());
    std::fs::remove_file(&ballast).unwrap();
    w.commit().unwrap();
    w.close().unwrap();
    let seqs: Vec<u64> = everything(&path).iter().map(|(_, _, s)| s.seq).collect();
    assert!(seqs.iter().copied().eq(0..i), "{} of {i}", seqs.len());
    nix::mount::umount(dir.path()).unwrap();
}

#[test]
fn a_disk_that_is_called_full_is_written_to_when_less_has_to_stay_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path);
    let id = w.series(&info("a"));
    w.set_min_free_bytes(u64::MAX);
    w.record(id, sample(0, 0, None));
    assert!(w.commit().is_err_and(|e| e.is_full()));
    w.set_min_free_bytes(0);
    assert_eq!(w.commit().unwrap().samples, 1);
}
