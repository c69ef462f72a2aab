//! When what is recorded is made durable, and when it is given up.

use bufferbane_core::time::Monotonic;
use bufferbane_linux_io::clock;
use bufferbane_store::{Retention, Severity};

use super::{Fact, MINUTE_NS, Recorder, SECOND_NS};

/// Between two tries while the disk is full, ns.
const FULL_RETRY_NS: u64 = 5 * SECOND_NS;
/// Between two commits that readers ask for, ns, in the long run: each wears the flash.
const FORCED_NS: u64 = 10 * SECOND_NS;
/// So many may come at once before that.
const FORCED_AT_ONCE: u64 = 6;

impl Recorder {
    /// Commits for those who asked, as soon as that is not too often.
    pub(super) fn commit_for_readers(&mut self, now: Monotonic) {
        let ahead = self.forced_until.saturating_since(now);
        if self.commit_waits.is_empty() || ahead > (FORCED_AT_ONCE - 1) * FORCED_NS {
            return;
        }
        self.forced_until = self.forced_until.max(now).saturating_add(FORCED_NS);
        self.take_reports();
        let result = self.commit(now);
        for answer in self.commit_waits.drain(..) {
            // Whoever has not waited needs no answer.
            let _ = answer.try_send(result.clone());
        }
    }

    /// Makes durable what is recorded so far; an event tells where there is no room for it.
    pub(super) fn commit(&mut self, now: Monotonic) -> Result<(), String> {
        self.commit_soon = false;
        self.commit_at = now.saturating_add(self.settings.commit_interval_ns);
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        match writer.commit() {
            Ok(_) => {
                if self.open_events.contains_key("store_full") {
                    log::info!("there is room again: recording goes on");
                    let rows = writer.shed_rows();
                    if rows > 0 {
                        log::warn!(
                            "{rows} rows of minutes, of load and of health, had to be given up since the start"
                        );
                    }
                    self.end_fact(now, "store_full");
                    self.commit_soon = true;
                }
                Ok(())
            }
            Err(e) => {
                self.commit_at = now.saturating_add(FULL_RETRY_NS);
                if e.is_full() {
                    let fact = Fact {
                        values: Vec::new(),
                        kind: "store_full",
                        severity: Severity::Critical,
                        interface: String::new(),
                        target: None,
                        text: e.to_string(),
                    };
                    self.fact(now, Some("store_full".into()), fact, true);
                    self.commit_soon = false;
                }
                Err(e.to_string())
            }
        }
    }

    /// Gives up what is older than the configuration wants, or does not fit.
    pub(super) fn retain(&mut self, now: Monotonic) {
        let keep = self.settings.keep;
        let retention = Retention {
            samples_ns: keep.samples_ns,
            minutes_ns: keep.minutes_ns,
            hours_ns: keep.hours_ns,
            events_ns: keep.events_ns,
            max_bytes: keep
                .max_bytes
                .or_else(|| default_max_bytes(&self.settings.store)),
        };
        let Some(writer) = &mut self.writer else {
            return;
        };
        match writer.enforce_retention(&retention, clock::wall_now(), self.trust) {
            Ok(report) => {
                if report.rows() > 0 {
                    log::info!(
                        "retention: {} blocks of samples and {} events given up",
                        report.blocks,
                        report.events
                    );
                }
                if report.unfinished {
                    self.retention_at = self.retention_at.min(now.saturating_add(MINUTE_NS));
                }
            }
            Err(e) => log::error!("retention: {e}"),
        }
    }
}

/// The smaller of 2 GiB and a tenth of the file system.
fn default_max_bytes(store: &std::path::Path) -> Option<u64> {
    let dir = store.parent()?;
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    let tenth = stat.blocks().saturating_mul(stat.fragment_size()) / 10;
    Some(tenth.min(2 << 30))
}
