//! Work on several series at a time: most of it is waiting for a disk.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fail::Fail;

/// Reads that wait for a disk at once. A solid-state one answers many in the time of one.
const THREADS: usize = 8;
/// Pieces of work at once that each take megabytes.
const HEAVY_THREADS: usize = 2;

/// What `work` makes of each of `items`, in their order.
///
/// # Errors
/// The first failure, in the order of the items.
pub(crate) fn map<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, Fail> + Sync,
) -> Result<Vec<R>, Fail> {
    with_threads(THREADS, items, work)
}

/// As [`map`], for work that takes a processor and memory rather than waits.
///
/// # Errors
/// See [`map`].
pub(crate) fn map_heavy<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, Fail> + Sync,
) -> Result<Vec<R>, Fail> {
    with_threads(HEAVY_THREADS, items, work)
}

fn with_threads<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R, Fail> + Sync,
) -> Result<Vec<R>, Fail> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else {
                return done;
            };
            done.push((i, work(item)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads.min(items.len()))
            .map(|_| scope.spawn(worker))
            .collect();
        let mut done = worker();
        for helper in helpers {
            match helper.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_kept_and_the_first_failure_told() {
        let numbers: Vec<u64> = (0..100).collect();
        let squares = map(&numbers, |n| Ok(n * n)).unwrap();
        assert!(squares.iter().zip(&numbers).all(|(s, n)| *s == n * n));
        let failed = map(&numbers, |n| match n {
            30.. => Err(Fail::Failed(n.to_string())),
            n => Ok(*n),
        });
        assert_eq!(failed.unwrap_err().to_string(), "30");
        assert!(map(&[], |n: &u64| Ok(*n)).unwrap().is_empty());
    }
}
