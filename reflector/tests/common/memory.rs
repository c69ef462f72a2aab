//! What stands in the memory of another process.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Bytes read at a time.
const PIECE: usize = 1 << 16;
/// How long a copy may take to vanish: threads get to it one after the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often any of `secrets` stands in what process `pid`, a child of this one, can write to.
fn copies(pid: u32, secrets: &[&[u8]]) -> std::io::Result<usize> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let (mut piece, zeros) = (vec![0; PIECE], vec![0; PIECE]);
    let longest = secrets.iter().map(|s| s.len()).max().unwrap_or(1);
    let mut found = 0;
    for line in maps.lines().filter(|l| l.contains(" rw")) {
        let (range, _) = line.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let [mut at, to] = [from, to].map(|n| u64::from_str_radix(n, 16).unwrap());
        // What cannot be read (rings, devices) holds no memory of the program's own.
        while at < to
            && let len = PIECE.min((to - at) as usize)
            && memory.read_exact_at(&mut piece[..len], at).is_ok()
        {
            // Most of it was never written to.
            let written = piece[..len] != zeros[..len];
            for secret in secrets.iter().filter(|_| written) {
                // One that begins in the next piece is counted there.
                let end = if len == PIECE {
                    len - longest + secret.len()
                } else {
                    len
                };
                found += piece[..end]
                    .windows(secret.len())
                    .filter(|w| w == secret)
                    .count();
            }
            if len < PIECE {
                break;
            }
            at += (len - longest + 1) as u64;
        }
    }
    Ok(found)
}

/// Whether `key`, or its digits in a key file, stands in the memory of process `pid`.
pub fn holds(pid: u32, key: &[u8; 32]) -> std::io::Result<bool> {
    let digits: String = key.iter().map(|b| format!("{b:02x}")).collect();
    Ok(copies(pid, &[key, digits.as_bytes()])? > 0)
}

/// Waits until it stands there no more; how many copies stay if it does not come to that.
pub fn forgets(pid: u32, key: &[u8; 32]) -> std::io::Result<usize> {
    let begun = Instant::now();
    let digits: String = key.iter().map(|b| format!("{b:02x}")).collect();
    loop {
        let stay = copies(pid, &[key, digits.as_bytes()])?;
        if stay == 0 || begun.elapsed() > PATIENCE {
            return Ok(stay);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
