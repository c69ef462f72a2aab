//! How the probe thread is scheduled, so that probes leave on time beside other programs.

use bufferbane_linux_io::host;

/// Highest real-time priority that may be configured: below the kernel's own threads, and what the
/// unit's `LimitRTPRIO` grants.
pub const MAX_PRIORITY: u8 = 50;
/// Longest early wake, ns: beyond it a processor would be kept busy for nothing.
pub const MAX_WAKE_EARLY_NS: u64 = 2_000_000;
/// How early a thread of real-time priority wakes unless told otherwise, ns: about what such a wake
/// takes on a busy machine.
pub const REALTIME_WAKE_EARLY_NS: u64 = 150_000;

/// What is asked for the probe thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pacing {
    /// `SCHED_FIFO` at this priority, 1 to [`MAX_PRIORITY`]; 0 is ordinary scheduling.
    pub priority: u8,
    /// The only processor that it runs on; `None` is any.
    pub cpu: Option<u16>,
    /// It wakes this much before a deadline and waits for it awake, ns.
    pub wake_early_ns: u64,
}

impl Pacing {
    /// Schedules the calling thread so, as far as the system allows. Gives what it refused and what
    /// helps, one line each; the thread then goes on without that.
    pub(crate) fn apply(&self, before: Self) -> Vec<String> {
        let mut refused = Vec::new();
        if self.priority != before.priority {
            let result = match self.priority {
                0 => host::run_ordinary(),
                n => host::run_realtime(n),
            };
            if let Err(e) = result {
                refused.push(format!(
                    "daemon.realtime_priority = {}: {e}; it takes LimitRTPRIO={} in the unit, or \
                     CAP_SYS_NICE",
                    self.priority, self.priority
                ));
            }
        }
        if self.cpu != before.cpu {
            let result = match self.cpu {
                Some(cpu) => host::run_on(&[usize::from(cpu)]),
                None => host::run_anywhere(),
            };
            if let Err(e) = result {
                refused.push(format!(
                    "daemon.cpu: {e}; name a processor that this host has and the service may use"
                ));
            }
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_that_is_not_there_is_refused_and_said() {
        std::thread::spawn(|| {
            let odd = Pacing {
                cpu: Some(1023),
                ..Pacing::default()
            };
            let said = odd.apply(Pacing::default());
            assert!(
                said.len() == 1 && said[0].contains("daemon.cpu"),
                "{said:?}"
            );
            let first = Pacing {
                cpu: Some(0),
                ..Pacing::default()
            };
            assert_eq!(first.apply(Pacing::default()), Vec::<String>::new());
            assert_eq!(Pacing::default().apply(first), Vec::<String>::new());
        })
        .join()
        .expect("no panic");
    }
}
