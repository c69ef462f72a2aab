//! Throughput tests of a stretch of time, of a thousand that there are.

use bufferbane_core::time::Monotonic;
use bufferbane_store::{LoadTest, LoadedDelay, Reader, Trust, Writer, WriterOptions};

const S: u64 = 1_000_000_000;
const WALL_NS: i64 = 1_777_593_600_000_000_000;

fn test(interface: &str, start_ns: u64, lasts_ns: u64) -> LoadTest {
    LoadTest {
        boot: 0,
        start_ns,
        end_ns: start_ns + lasts_ns,
        load_start_ns: start_ns,
        load_end_ns: start_ns + lasts_ns,
        ramp_ns: 0,
        interface: interface.into(),
        reflector: "vienna".into(),
        kind: "up".into(),
        protocol: bufferbane_store::Protocol::Tcp,
        asked_by: "schedule".into(),
        congestion: "cubic".into(),
        cut_short: false,
        instead_of: Vec::new(),
        ways: Vec::new(),
        rtt: LoadedDelay::default(),
        icmp: None,
        rpm: None,
        rpm_stable: false,
        rpm_variant: String::new(),
        recovery_ns: None,
        probes: Vec::new(),
    }
}

#[test]
fn tests_of_a_stretch_are_those_that_began_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.redb");
    let options = WriterOptions {
        min_free_bytes: 0,
        ..WriterOptions::default()
    };
    let mut w = Writer::open(&path, options).unwrap();
    // Two boots; the second begins two days later, and its clock is put back by an hour in between.
    for (boot, wall_ns) in [(1u64, WALL_NS), (2, WALL_NS + 48 * 3600 * S as i64)] {
        let id = format!("{boot:08}-0000-4000-8000-000000000001");
        let begin = Monotonic::from_nanos(100 * S);
        w.begin_boot(&id, begin, wall_ns, Trust::Disciplined)
            .unwrap();
        for i in 0..60u64 {
            // One that is short begins later and ends earlier than one that is long.
            let at = (100 + i * 1200) * S;
            w.load_test(test("wwan0", at + 5 * S, 8 * S));
            w.load_test(test("eth0", at, 90 * S));
        }
        if boot == 2 {
            let later = Monotonic::from_nanos(40_000 * S);
            let back_ns = wall_ns + 36_000 * S as i64;
            w.anchor(later, back_ns, Trust::Disciplined);
        }
        w.commit().unwrap();
    }
    w.close().unwrap();

    let reader = Reader::open(&path).unwrap();
    let mut all = reader.tests(i64::MIN, i64::MAX).unwrap();
    assert_eq!(all.len(), 240);
    let mut numbers: Vec<u64> = all.iter().map(|(id, ..)| id.0).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..240));
    all.sort_by_key(|(id, ..)| *id);
    for from_s in (-3600..300_000).step_by(4321) {
        for length_s in [1, 600, 3600, 90_000] {
            let from = WALL_NS + from_s * S as i64;
            let to = from + length_s * S as i64;
            let mut found = reader.tests(from, to).unwrap();
            found.sort_by_key(|(id, ..)| *id);
            let truth: Vec<_> = all
                .iter()
                .filter(|(_, at, _)| (from..to).contains(at))
                .cloned()
                .collect();
            assert_eq!(found, truth, "{length_s} s from {from_s} s");
        }
    }
    // By the clock of a boot alone, whatever the wall clock was put to.
    let first = all[0].2.boot;
    let second = all[239].2.boot;
    assert!(first < second);
    for (boot, from_s) in [
        (first, 0),
        (first, 40_000),
        (second, 40_005),
        (second, 90_000),
        (second + 1, 0),
    ] {
        let found = reader.tests_of_boot(boot, from_s * S).unwrap();
        let of_boot = all.iter().map(|(.., t)| t).filter(|t| t.boot == boot);
        let mut truth: Vec<LoadTest> = of_boot
            .filter(|t| t.start_ns >= from_s * S)
            .cloned()
            .collect();
        truth.sort_by_key(|t| t.start_ns);
        assert_eq!(found, truth, "of boot {boot} from {from_s} s");
    }
    let last = |boot| reader.last_test_before(boot).unwrap();
    let last_of = |boot: u32| {
        let of_boot = all.iter().filter(|(.., t)| t.boot == boot);
        of_boot.max_by_key(|(id, ..)| *id).map(|(_, at, _)| *at)
    };
    assert_eq!((last(first), last(second)), (None, last_of(first)));
    assert_eq!(last(second + 1), last_of(second));
    assert_eq!(last(u32::MAX), last_of(second));
}
