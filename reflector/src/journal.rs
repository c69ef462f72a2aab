//! Log lines on standard error, with the priority that systemd's journal reads off their beginning.

use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

static LOGGER: OnceLock<StandardError> = OnceLock::new();

struct StandardError {
    journal: bool,
}

impl Log for StandardError {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if self.journal {
            eprintln!("<{}>{}", priority(record.level()), record.args());
        } else {
            eprintln!("{}: {}", word(record.level()), record.args());
        }
    }

    fn flush(&self) {}
}

/// The numbers of syslog(3).
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    }
}

/// Whether standard error is the stream that `journal_stream` (device:inode) names.
fn is_journal(journal_stream: Option<&str>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(|s| s.split_once(':')) else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|m| device.parse() == Ok(m.dev()) && inode.parse() == Ok(m.ino()))
}

/// Sends log lines to standard error from now on.
pub fn init() {
    let stream = std::env::var("JOURNAL_STREAM").ok();
    let logger = LOGGER.get_or_init(|| StandardError {
        journal: is_journal(stream.as_deref()),
    });
    // Only fails where a logger is set already, which is then used.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_that_systemd_names_is_the_journal() {
        let own = std::fs::metadata("/proc/self/fd/2").unwrap();
        let (device, inode) = (own.dev(), own.ino());
        assert!(is_journal(Some(&format!("{device}:{inode}"))));
        assert!(!is_journal(Some(&format!("{device}:{}", inode + 1))));
        assert!(!is_journal(Some("nonsense")));
        assert!(!is_journal(None));
    }
}
