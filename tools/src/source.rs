//! Opening the store: beside a running daemon or without one, for the same figures.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bufferbane_store::{OpenError, Reader, SeriesId, SeriesInfo, recover};
use serde_json::Value;

use crate::args::{DEFAULT_STORE, Place, Selection};
use crate::control::{self, ControlError};
use crate::fail::Fail;
use crate::out::warn;
use crate::when;

/// How long the daemon may take to commit; it lets those wait 10 s who ask too often.
const COMMIT_PATIENCE: Duration = Duration::from_secs(20);

/// How long it may take to say how it does.
pub(crate) const DAEMON_PATIENCE: Duration = Duration::from_secs(5);

/// The store that a command works on: the one that was named, else that of the daemon that answers at the
/// socket, else the one that is there by default.
///
/// # Errors
/// A socket was named, and nobody there says where its store is.
pub(crate) fn store_of(place: &Place) -> Result<PathBuf, Fail> {
    if let Some(store) = &place.store {
        return Ok(store.clone());
    }
    match control::ask(&place.socket, "status", DAEMON_PATIENCE) {
        Ok(answer) => Ok(its_store(&answer["status"]).to_owned()),
        Err(e) if place.socket_is_named => Err(Fail::Failed(format!(
            "{}: {e}; --store FILE names a store without it",
            place.socket.display()
        ))),
        // Where it matters, who opens the store says what it is that the daemon does not answer.
        Err(_) => Ok(DEFAULT_STORE.into()),
    }
}

/// Opens the store for reading. A running daemon is asked first to commit what it holds, so that
/// nothing is missing; after an unclean end without a daemon the file is repaired.
pub(crate) fn open(place: &Place) -> Result<Reader, Fail> {
    let store = store_of(place)?;
    match control::ask(&place.socket, "commit", COMMIT_PATIENCE) {
        Ok(_) | Err(ControlError::Absent) => {}
        Err(e) => warn(&format!("the last minute may be missing: {e}")),
    }
    match Reader::open(&store) {
        Err(OpenError::NeedsRecovery(_)) => repair(&store),
        other => other.map_err(|e| explain(&store, e)),
    }
}

/// The store of the daemon that gave this `status`.
fn its_store(status: &Value) -> &Path {
    Path::new(status["store"]["path"].as_str().unwrap_or_default())
}

/// Whether the daemon that gave this `status` writes to `store`.
pub(crate) fn is_its_store(store: &Path, status: &Value) -> bool {
    let real = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_owned());
    real(its_store(status)) == real(store)
}

/// Asks the daemon how it does, for a command that has nothing to do with any store but its own:
/// another one that was named is refused.
pub(crate) fn status(place: &Place, patience: Duration) -> Result<Value, Fail> {
    let mut answer =
        control::ask(&place.socket, "status", patience).map_err(|e| Fail::Failed(e.to_string()))?;
    let status = answer["status"].take();
    if let Some(store) = &place.store
        && !is_its_store(store, &status)
    {
        return Err(Fail::Usage(format!(
            "the daemon at {} writes to {}, not to {}: leave --store out, or name another socket with \
             --socket",
            place.socket.display(),
            crate::show::clean(&its_store(&status).display().to_string()),
            store.display()
        )));
    }
    Ok(status)
}

/// The store that a command is to change; refused while the daemon writes to it.
pub(crate) fn not_in_use(place: &Place) -> Result<PathBuf, Fail> {
    let store = store_of(place)?;
    match control::ask(&place.socket, "status", DAEMON_PATIENCE) {
        Ok(answer) if is_its_store(&store, &answer["status"]) => Err(Fail::Failed(format!(
            "{}: the daemon at {} writes to it; stop it first (systemctl stop bufferbaned)",
            store.display(),
            place.socket.display()
        ))),
        // Who else may have it open is seen when it is opened.
        _ => Ok(store),
    }
}

fn repair(store: &Path) -> Result<Reader, Fail> {
    if store == Path::new(DEFAULT_STORE)
        && let Some(state) = unit_state()
        && state != "inactive"
        && state != "failed"
    {
        return Err(Fail::Failed(format!(
            "{}: the daemon did not end cleanly before, and repairs the file now (bufferbaned.service \
             is {state}); try again in a minute",
            store.display()
        )));
    }
    warn("the daemon did not end cleanly; repairing the store");
    match recover(store) {
        // Between the two attempts a daemon may have come up, and repairs it itself.
        Ok(()) | Err(OpenError::Busy(_)) => {}
        Err(e) => return Err(explain(store, e)),
    }
    Reader::open(store).map_err(|e| explain(store, e))
}

/// What systemd says of the daemon's unit; `None` where there is no systemd to ask.
fn unit_state() -> Option<String> {
    let output = Command::new("systemctl")
        .args([
            "show",
            "--property=ActiveState",
            "--value",
            "bufferbaned.service",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    let state = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!state.is_empty()).then_some(state)
}

fn explain(path: &Path, error: OpenError) -> Fail {
    match &error {
        OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Fail::Failed(format!(
                "{}: this user may not read it; join the group bufferbane (usermod -aG bufferbane \
                 USER, then log in again), or use sudo",
                path.display()
            ))
        }
        _ => error.into(),
    }
}

/// The series that were asked for, in the order people read them.
pub(crate) fn series(
    reader: &Reader,
    selection: &Selection,
) -> Result<Vec<(SeriesId, SeriesInfo)>, Fail> {
    let all = reader.series()?;
    let wanted = |what: &Option<String>, name: &str| what.as_ref().is_none_or(|w| w == name);
    let chosen = all
        .iter()
        .filter(|(_, i)| {
            wanted(&selection.interface, &i.interface) && wanted(&selection.target, &i.target)
        })
        .map(|(id, i)| (*id, i.clone()));
    let chosen = sorted(chosen);
    if chosen.is_empty() {
        return Err(nothing_of(selection, &all));
    }
    Ok(chosen)
}

/// Series in the order people read them.
pub(crate) fn sorted(
    series: impl IntoIterator<Item = (SeriesId, SeriesInfo)>,
) -> Vec<(SeriesId, SeriesInfo)> {
    let mut all: Vec<(SeriesId, SeriesInfo)> = series.into_iter().collect();
    all.sort_by(|(a_id, a), (b_id, b)| {
        let key = |i: &SeriesInfo| (i.interface.clone(), i.target.clone());
        let fine = |i: &SeriesInfo| (i.kind, i.family, i.dscp, i.size, i.interval_ns);
        (key(a), fine(a), a_id).cmp(&(key(b), fine(b), b_id))
    });
    all
}

fn nothing_of(selection: &Selection, all: &BTreeMap<SeriesId, SeriesInfo>) -> Fail {
    if all.is_empty() {
        return Fail::NoData("nothing has been recorded yet".into());
    }
    let names = |of: fn(&SeriesInfo) -> &str| {
        let mut names: Vec<&str> = all.values().map(of).collect();
        names.sort_unstable();
        names.dedup();
        crate::show::clean(&names.join(", "))
    };
    let asked = [
        selection
            .interface
            .as_ref()
            .map(|i| format!("interface \"{i}\"")),
        selection.target.as_ref().map(|t| format!("target \"{t}\"")),
    ];
    let asked: Vec<String> = asked.into_iter().flatten().collect();
    Fail::NoData(format!(
        "there is no data of {}; the store has the interfaces {} and the targets {}",
        asked.join(" with "),
        names(|i| &i.interface),
        names(|i| &i.target)
    ))
}

/// The whole stretch of time there is data of.
pub(crate) fn recorded(reader: &Reader) -> Result<(i64, i64), Fail> {
    reader
        .span()?
        .ok_or_else(|| Fail::NoData("nothing has been recorded yet".into()))
}

/// There is nothing in the range that was asked for; says where there is something.
pub(crate) fn nothing_there(range: when::Range, recorded: (i64, i64), utc: bool) -> Fail {
    let zone = when::zone(utc);
    Fail::NoData(format!(
        "no data from {}; the store has data from {}",
        when::range_label(range.from_ns, range.to_ns, &zone),
        when::range_label(recorded.0, recorded.1, &zone)
    ))
}
