//! The log goes to standard error; under the journal each line says how grave it is.

use std::io::Write;

use bufferbaned::CRITICAL;

struct Log {
    journal: bool,
}

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (priority, word) = match record.level() {
            log::Level::Error if record.target() == CRITICAL => (3, "critical: "),
            log::Level::Error => (3, "error: "),
            log::Level::Warn => (4, "warning: "),
            log::Level::Info => (6, ""),
            log::Level::Debug | log::Level::Trace => (7, ""),
        };
        let mut out = std::io::stderr().lock();
        // There is nowhere left to complain where standard error is closed.
        let _ = if self.journal {
            writeln!(out, "<{priority}>{}", record.args())
        } else {
            writeln!(out, "{word}{}", record.args())
        };
    }

    fn flush(&self) {}
}

/// Starts logging: `BUFFERBANE_LOG` may be `error`, `warn`, `info` (the default) or `debug`.
pub(crate) fn start() {
    let level = std::env::var("BUFFERBANE_LOG")
        .ok()
        .and_then(|l| l.parse().ok())
        .unwrap_or(log::LevelFilter::Info);
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    // It fails only where there is a logger already.
    if log::set_logger(Box::leak(Box::new(Log { journal }))).is_ok() {
        log::set_max_level(level);
    }
}
