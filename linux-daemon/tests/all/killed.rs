//! `kill -9` at any moment: the store opens, is whole, and has everything that was committed.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::common::{Place, Random, RowId, ids, reopen, rows, sent, sent_since};
use bufferbane_linux_io::clock;
use bufferbane_store::Reader;

const KILLS: u64 = 50;
/// Of a daemon that has never had a store.
const FIRST_KILLS: u64 = 40;
const SEED: u64 = 0x6b69_6c6c_2d39;

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What is durable as of now, seen beside the daemon; nothing while it still repairs the file.
fn durable(place: &Place) -> BTreeSet<RowId> {
    Reader::open(&place.store()).map_or_else(|_| BTreeSet::new(), |r| ids(&rows(&r)))
}

/// Asks for a commit, and gives what it promised: the probes that were known before it.
fn promised(place: &Place, at_least: u64) -> u64 {
    let status = place.status_with("probes", |s| sent(s) > at_least);
    let answer = place.ask("commit").unwrap();
    assert_eq!(answer["ok"], true, "{answer}");
    sent(&status)
}

#[test]
fn nothing_that_was_committed_is_lost_by_kill_9() {
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let place = Place::new();
    let mut known = BTreeSet::new();
    let mut kept_promises = 0;
    for round in 0..KILLS {
        let started_ns = clock::now().as_nanos();
        let mut promise = 0;
        // Where it commits every second by itself, it keeps promises that it forgot.
        let every = if round % 5 > 2 { "1h" } else { "1s" };
        let text = place.usual("5ms");
        place.configure(&text.replace("\"1s\"", &format!("\"{every}\"")));
        match round % 5 {
            // While it starts, or repairs what the kill before left.
            0 => {
                let service = place.start();
                std::thread::sleep(millis(random.below(150)));
                service.kill();
            }
            // While it commits, or just before or after.
            1 | 2 => {
                let service = place.start().ready();
                std::thread::sleep(millis(50 + random.below(500)));
                known.append(&mut durable(&place));
                let unanswered = place.send("commit").unwrap();
                std::thread::sleep(Duration::from_micros(random.below(20_000)));
                service.kill();
                drop(unanswered);
            }
            // While what was committed grows, by itself and on request.
            _ => {
                let service = place.start().ready();
                promise = promised(&place, 0);
                if round % 10 == 3 {
                    // Asked twice, it may not answer that it has done what it has not.
                    promise = promised(&place, promise);
                }
                std::thread::sleep(millis(random.below(300)));
                known.append(&mut durable(&place));
                service.kill();
            }
        }
        // A copy is repaired here; the file itself, by the daemon that is started next.
        let copy = place.path("copy.redb");
        if place.store().exists() {
            std::fs::copy(place.store(), &copy).unwrap();
            let reader = reopen(&copy);
            let found = rows(&reader);
            let lost: Vec<_> = known.difference(&ids(&found)).copied().collect();
            assert!(
                lost.is_empty(),
                "round {round}: {} of {} rows are gone: {:?}",
                lost.len(),
                known.len(),
                &lost[..lost.len().min(5)]
            );
            let kept = sent_since(&found, started_ns);
            assert!(
                kept >= promise,
                "round {round}: {promise} probes were promised, {kept} are there"
            );
            kept_promises += promise;
            let together = ids(&found).len();
            assert_eq!(together, found.len(), "round {round}: rows are there twice");
            known = ids(&found);
            std::fs::remove_file(&copy).unwrap();
        }
    }
    println!("{} rows, {kept_promises} of them promised", known.len());
    assert!(known.len() > 2000 && kept_promises > 1000);
    // In the end it starts as ever, and has it all.
    let service = place.start().ready();
    assert_eq!(service.end().0, Some(0));
    let reader = Reader::open(&place.store()).unwrap();
    assert!(known.is_subset(&ids(&rows(&reader))));
}

#[test]
fn a_store_that_was_being_made_is_made_by_the_next_start() {
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let place = Place::new();
    for round in 0..FIRST_KILLS {
        let service = place.start();
        std::thread::sleep(Duration::from_micros(random.below(60_000)));
        service.kill();
        if round % 4 == 0 {
            let mut service = place.start();
            println!("round {round}: {}", service.line("is ready"));
            assert_eq!(service.end().0, Some(0));
        } else if place.store().exists() {
            println!(
                "round {round}: {} bytes",
                place.store().metadata().unwrap().len()
            );
            reopen(&place.store());
        }
        for left in ["s.redb", "control"] {
            let _ = std::fs::remove_file(place.path(left));
        }
    }
}
