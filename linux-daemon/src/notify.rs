//! What systemd is told; without it every call does nothing.

use sd_notify::NotifyState;

fn tell(states: &[NotifyState<'_>]) {
    // Without a socket, or with one that has gone, there is nobody to tell.
    let _ = sd_notify::notify(states);
}

/// The daemon works.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It reads its configuration anew; to be followed by [`ready`].
pub(crate) fn reloading() {
    if let Ok(state) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, state]);
    }
}

/// It ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// It needs more time to start: the store is being repaired.
pub(crate) fn extend_timeout() {
    tell(&[NotifyState::ExtendTimeoutUsec(30_000_000)]);
}

/// It is alive.
pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How long a thread may be silent before it counts as stuck, ns: half of what systemd waits.
pub(crate) fn patience_ns() -> u64 {
    const UNWATCHED_NS: u64 = 15_000_000_000;
    sd_notify::watchdog_enabled().map_or(UNWATCHED_NS, |d| {
        u64::try_from(d.as_nanos() / 2).unwrap_or(UNWATCHED_NS)
    })
}

/// One line about it.
pub(crate) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}
