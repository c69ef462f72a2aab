//! Events with their fields in systemd's journal, by its native protocol: one datagram of
//! `NAME=value` lines (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL>).

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use bufferbane_store::{Direction, Severity};

use super::{Alert, News};

const SOCKET: &str = "/run/systemd/journal/socket";
/// All events have this message id, so that `journalctl MESSAGE_ID=...` finds them.
const MESSAGE_ID: &str = "5f8a1c2e7b0d4f6c9a3e1d7b2c4f6a80";

/// See the module.
pub(super) struct Journal(UnixDatagram);

impl Journal {
    /// The journal, where it takes what this service writes to standard error.
    pub(super) fn of_this_service() -> Option<Self> {
        std::env::var_os("JOURNAL_STREAM")?;
        Self::at(Path::new(SOCKET))
            .map_err(|e| log::info!("{SOCKET}: {e}: events are told as plain lines"))
            .ok()
    }

    fn at(path: &Path) -> std::io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A journal that does not keep up must not stop recording.
        socket.set_nonblocking(true)?;
        socket.connect(path)?;
        Ok(Self(socket))
    }

    /// Tells an alert; whether it was taken.
    pub(super) fn tell(&self, alert: &Alert) -> bool {
        self.0.send(&entry(alert)).is_ok()
    }
}

fn entry(alert: &Alert) -> Vec<u8> {
    let over = alert.phase == News::End;
    let priority = match alert.severity {
        _ if over => "6",
        Severity::Info => "6",
        Severity::Warning => "4",
        Severity::Critical => "3",
    };
    let place = [alert.interface.as_str(), alert.kind.as_str()].join(" ");
    let is_over = if over { " is over" } else { "" };
    let mut out = Vec::new();
    let mut field = |name: &str, value: &str| {
        out.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            out.push(b'\n');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend_from_slice(value.as_bytes());
        out.push(b'\n');
    };
    field("MESSAGE", &format!("{place}{is_over}: {}", alert.text));
    field("PRIORITY", priority);
    field("MESSAGE_ID", MESSAGE_ID);
    field("SYSLOG_IDENTIFIER", "bufferbaned");
    field("BUFFERBANE_PHASE", if over { "end" } else { "begin" });
    field("BUFFERBANE_ID", &alert.id.to_string());
    field("BUFFERBANE_KIND", &alert.kind);
    let severity = match alert.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    field("BUFFERBANE_SEVERITY", severity);
    field("BUFFERBANE_INTERFACE", &alert.interface);
    if let Some(target) = &alert.target {
        field("BUFFERBANE_TARGET", target);
    }
    if let Some(direction) = alert.direction {
        let word = match direction {
            Direction::Up => "up",
            Direction::Down => "down",
            Direction::Both => "both",
        };
        field("BUFFERBANE_DIRECTION", word);
    }
    field("BUFFERBANE_START", &alert.start);
    if let Some(end) = &alert.end {
        field("BUFFERBANE_END", end);
    }
    for (name, value) in &alert.values {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        field(&format!("BUFFERBANE_{}", name.to_ascii_uppercase()), &text);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn the_journal_gets_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let mut alert = example(News::Begin, 3);
        alert.text = "two\nlines".into();
        assert!(Journal::at(&path).unwrap().tell(&alert));
        let mut got = [0; 4096];
        let len = journal.recv(&mut got).unwrap();
        let got = &got[..len];
        let message = b"eth0 outage: two\nlines";
        let mut begin = b"MESSAGE\n".to_vec();
        begin.extend_from_slice(&(message.len() as u64).to_le_bytes());
        begin.extend_from_slice(message);
        assert!(got.starts_with(&begin));
        let rest = String::from_utf8_lossy(&got[begin.len()..]).into_owned();
        for line in [
            "PRIORITY=3",
            "BUFFERBANE_PHASE=begin",
            "BUFFERBANE_KIND=outage",
            "BUFFERBANE_INTERFACE=eth0",
            "BUFFERBANE_START=2027-01-15T07:59:45.000000000Z",
            "BUFFERBANE_PROBES=240",
        ] {
            assert!(rest.lines().any(|l| l == line), "{line}: {rest}");
        }
    }
}
