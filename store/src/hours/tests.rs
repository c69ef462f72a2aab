//! By hours and by minutes the same is told, whatever is recorded, forgotten and damaged.

use std::path::Path;

use bufferbane_core::household::{Class, Minute};
use bufferbane_core::stats::histogram::Histogram;
use bufferbane_core::time::Monotonic;
use proptest::prelude::*;
use redb::{Database, ReadableDatabase, ReadableTableMetadata};

use super::*;
use crate::common::{S, START_WALL_NS as WALL_NS, open};
use crate::tables::META;
use crate::{Health, OpenError, Reader, Retention, StoredLoad, Trust, Window, Writer};

/// In this boot, which began at `begin_ns`.
fn writer(path: &Path, boot: u32, begin_ns: i64) -> Writer {
    let mut w = open(path);
    w.begin_boot(
        &boot.to_string(),
        Monotonic::ZERO,
        begin_ns,
        Trust::Disciplined,
    )
    .unwrap();
    w
}

/// What is recorded of minute `n`, whose rows are large enough to be put in their tables now and then.
fn add(w: &mut Writer, n: u64, is_trouble: bool) {
    let mut late = Histogram::new();
    (1..=400).for_each(|i| late.add(i * i * 37 % 1_000_003 * (1 + n % 7)));
    let mut health = Health {
        cpu_ns: n,
        wall_ns: 60 * S,
        socket_drops: is_trouble.into(),
        ..Health::default()
    };
    health.set_send_late(&late);
    // Written a little after the minute's end.
    w.health(
        Monotonic::from_nanos(n * 60 * S + n % 900 * 1_000_000),
        &health,
    )
    .unwrap();
    for (line, interface) in ["eth0", "wwan0"].iter().enumerate() {
        if n % 11 == 5 && line == 1 {
            continue;
        }
        let mut minute = Minute::new();
        minute.sees_household = n.is_multiple_of(3);
        for i in 0..60 {
            minute.up.add_rate((i * n * 7919) % 40_000_000);
            minute
                .down
                .add_queue(Class::Full, i * i * n * 104_729 % 300_000_000);
        }
        minute.up.standing_s = (n % 60) as u32;
        w.load_minute(Monotonic::from_nanos(n * 60 * S), interface, &minute)
            .unwrap();
    }
}

type Loads = BTreeMap<String, (u64, i64, i64, Minute)>;

fn loads(r: &Reader, window: Window, from: i64, to: i64) -> (Loads, usize) {
    let (mut sums, mut rows) = (Loads::new(), 0);
    r.load(window, from, to, |interface, load: StoredLoad<'_>| {
        rows += 1;
        let sum = sums
            .entry(interface.to_owned())
            .or_insert_with(|| (0, load.from_ns, load.to_ns, Minute::new()));
        sum.0 += load.minutes;
        sum.1 = sum.1.min(load.from_ns);
        sum.2 = sum.2.max(load.to_ns);
        load.add_to(&mut sum.3)
    })
    .unwrap();
    (sums, rows)
}

/// By hours and by minutes the same; gives how many rows that took by hours and by minutes.
fn agree(path: &Path, from: i64, to: i64) -> (usize, usize) {
    let r = Reader::open(path).unwrap();
    let mut by_minutes: Option<HealthSum> = None;
    r.each_health(from, to, |end_ns, row| {
        by_minutes.get_or_insert_default().add(end_ns, &row);
    })
    .unwrap();
    assert_eq!(r.health_sum(from, to).unwrap(), by_minutes);
    let (by_hours, hours) = loads(&r, Window::Hour, from, to);
    let (by_minutes, minutes) = loads(&r, Window::Minute, from, to);
    assert_eq!(by_hours, by_minutes);
    (hours, minutes)
}

fn everywhere(path: &Path) -> (usize, usize) {
    let minute = 60 * S as i64;
    for (from, to) in [(0, 50), (17, 400), (60, 120), (59, 181), (333, 334)] {
        agree(path, WALL_NS + from * minute, WALL_NS + to * minute);
    }
    agree(path, i64::MIN, i64::MAX)
}

fn sums(path: &Path) -> (u64, u64) {
    let db = Database::open(path).unwrap();
    let tx = db.begin_read().unwrap();
    (
        tx.open_table(HEALTH_HOURS).unwrap().len().unwrap(),
        tx.open_table(LOAD_HOURS).unwrap().len().unwrap(),
    )
}

#[derive(Clone, Debug)]
enum Step {
    Minutes(u64),
    /// So many minutes nothing is recorded.
    Pause(u64),
    /// The last minute again, by a run that began within it.
    Again,
    Commit,
    Crash,
    Close,
    Reboot,
    Forget(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..90u64).prop_map(Step::Minutes),
        2 => (1..200u64).prop_map(Step::Pause),
        1 => Just(Step::Again),
        4 => Just(Step::Commit),
        1 => Just(Step::Crash),
        1 => Just(Step::Close),
        2 => Just(Step::Reboot),
        3 => (1..300u64).prop_map(Step::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn hours_say_what_their_minutes_say(steps in proptest::collection::vec(step(), 1..12)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.redb");
        let (mut boot, mut begin_ns, mut at) = (0, WALL_NS, 1);
        let now_ns = |begin_ns, at| begin_ns + (at * 60 * S) as i64;
        let mut w = writer(&path, boot, begin_ns);
        for step in steps {
            match step {
                Step::Minutes(count) => for _ in 0..count {
                    at += 1;
                    add(&mut w, at, at % 13 < 2);
                    if at % 4 == 0 {
                        w.commit().unwrap();
                    }
                },
                Step::Pause(minutes) => at += minutes,
                Step::Again => add(&mut w, at, true),
                Step::Commit => drop(w.commit().unwrap()),
                Step::Crash => {
                    drop(w);
                    w = writer(&path, boot, begin_ns);
                }
                Step::Close => {
                    w.close().unwrap();
                    w = writer(&path, boot, begin_ns);
                }
                Step::Reboot => {
                    w.close().unwrap();
                    // So soon that what is forgotten may end in the middle of the boot before.
                    begin_ns = now_ns(begin_ns, at + 5);
                    (boot, at) = (boot + 1, 1);
                    w = writer(&path, boot, begin_ns);
                }
                Step::Forget(minutes) => {
                    let keep = Some(minutes * 60 * S);
                    let retention = Retention {
                        samples_ns: keep,
                        minutes_ns: keep,
                        hours_ns: keep,
                        events_ns: None,
                        max_bytes: None,
                    };
                    let now_ns = now_ns(begin_ns, at);
                    w.enforce_retention(&retention, now_ns, Trust::Disciplined).unwrap();
                }
            }
            everywhere(&path);
        }
    }
}

#[test]
fn a_day_is_read_in_hours_and_one_of_the_schema_before_in_minutes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path, 0, WALL_NS);
    for n in 0..24 * 60 {
        add(&mut w, n, n % 100 < 3);
        w.commit().unwrap();
    }
    let (hours, minutes) = everywhere(&path);
    assert!(minutes > 2600 && hours < 500, "{hours} {minutes}");
    w.close().unwrap();
    let (hours, minutes) = everywhere(&path);
    assert!(minutes > 2600 && hours == 48, "{hours} {minutes}");
    assert_eq!(sums(&path), (24, 48));
    let copy = dir.path().join("copy.redb");
    Reader::open(&path).unwrap().copy(&copy).unwrap();
    assert_eq!(everywhere(&copy), (hours, minutes));

    let db = Database::open(&path).unwrap();
    let tx = db.begin_write().unwrap();
    assert!(tx.delete_table(HEALTH_HOURS).unwrap() && tx.delete_table(LOAD_HOURS).unwrap());
    tx.open_table(META).unwrap().insert("schema", 6).unwrap();
    tx.commit().unwrap();
    drop(db);
    let (hours, minutes) = everywhere(&path);
    assert_eq!(hours, minutes);
    // What is recorded then is summed up, the hour that it begins in from all its minutes, and the one
    // before.
    let mut w = writer(&path, 0, WALL_NS);
    (24 * 60 - 10..26 * 60).for_each(|n| add(&mut w, n, false));
    w.close().unwrap();
    let (hours, minutes) = everywhere(&path);
    assert!(hours < minutes - 2 * 3 * 55, "{hours} {minutes}");
    assert_eq!(sums(&path), (4, 8));
}

#[test]
fn what_is_forgotten_within_an_earlier_boot_is_in_no_sum() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path, 0, WALL_NS);
    (0..300).for_each(|n| add(&mut w, n, false));
    w.close().unwrap();
    let minute_ns = 60 * S as i64;
    let begin_ns = WALL_NS + 310 * minute_ns;
    let mut w = writer(&path, 1, begin_ns);
    (0..200).for_each(|n| add(&mut w, n, false));
    w.close().unwrap();
    everywhere(&path);
    assert_eq!(sums(&path), (5 + 4, 2 * (5 + 4)));
    let mut w = writer(&path, 1, begin_ns);
    let keep = Some(350 * 60 * S);
    let retention = Retention {
        samples_ns: keep,
        minutes_ns: keep,
        hours_ns: keep,
        events_ns: None,
        max_bytes: None,
    };
    // Of the first boot, 160 minutes.
    let now_ns = begin_ns + 200 * minute_ns;
    w.enforce_retention(&retention, now_ns, Trust::Disciplined)
        .unwrap();
    drop(w);
    everywhere(&path);
    // Of the first boot the last two hours are whole; minutes of health go by the hour.
    assert_eq!(sums(&path), (3 + 4, 2 * (2 + 4)));
}

#[test]
fn a_damaged_minute_ends_no_recording() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let mut w = writer(&path, 0, WALL_NS);
    (0..200).for_each(|n| add(&mut w, n, false));
    w.close().unwrap();
    let db = Database::open(&path).unwrap();
    let tx = db.begin_write().unwrap();
    tx.open_table(LOAD)
        .unwrap()
        .insert((1, 7 * 60 * S, "eth0"), &[9, 9][..])
        .unwrap();
    tx.commit().unwrap();
    drop(db);
    let mut w = writer(&path, 0, WALL_NS);
    add(&mut w, 8, false);
    (200..300).for_each(|n| add(&mut w, n, false));
    w.close().unwrap();
    assert_eq!(sums(&path), (5, 8));
    let r = Reader::open(&path)
        .map_err(|e: OpenError| e.to_string())
        .unwrap();
    let read = |from: i64| {
        r.load(
            Window::Hour,
            WALL_NS + from * 60 * S as i64,
            i64::MAX,
            |_, load| load.add_to(&mut Minute::new()),
        )
    };
    assert!(read(60).is_ok() && matches!(read(0), Err(StoreError::Damaged(_))));
}
