//! Asking the running daemon: one line of JSON there, one back.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// The longest answer that is read, bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// Why the daemon did not answer.
#[derive(Debug)]
pub(crate) enum ControlError {
    /// Nobody listens there: the daemon does not run.
    Absent,
    /// This user may not ask.
    Denied,
    /// It answered that it cannot.
    Refused(String),
    /// It did not answer in time, or not as it should.
    Broken(String),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str(
                "the daemon does not run; start it (systemctl start bufferbaned), or name its \
                 socket with --socket",
            ),
            Self::Denied => f.write_str(
                "this user may not ask the daemon; join the group bufferbane (usermod -aG \
                 bufferbane USER, then log in again), or use sudo",
            ),
            Self::Refused(why) => write!(f, "the daemon refused: {why}"),
            Self::Broken(why) => write!(f, "the daemon does not answer as it should: {why}"),
        }
    }
}

/// Connects to the daemon; it may take `patience` for each line of its answers.
pub(crate) fn connect(socket: &Path, patience: Duration) -> Result<UnixStream, ControlError> {
    let stream = UnixStream::connect(socket).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::NotADirectory => ControlError::Absent,
        io::ErrorKind::PermissionDenied => ControlError::Denied,
        _ => ControlError::Broken(e.to_string()),
    })?;
    for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
        set(&stream, Some(patience)).map_err(|e| ControlError::Broken(e.to_string()))?;
    }
    Ok(stream)
}

/// Sends `{"cmd": command}` and gives the answer, whose `ok` is true.
pub(crate) fn ask(socket: &Path, command: &str, patience: Duration) -> Result<Value, ControlError> {
    let broken = |e: io::Error| match e.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ControlError::Broken(format!("nothing within {} s", patience.as_secs()))
        }
        _ => ControlError::Broken(e.to_string()),
    };
    let mut stream = connect(socket, patience)?;
    let request = serde_json::json!({ "cmd": command });
    writeln!(stream, "{request}").map_err(broken)?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER))
        .read_line(&mut line)
        .map_err(broken)?;
    if line.is_empty() {
        return Err(ControlError::Broken("it hung up".into()));
    }
    let answer: Value = serde_json::from_str(&line)
        .map_err(|e| ControlError::Broken(format!("no JSON in its answer: {e}")))?;
    if answer["ok"] == Value::Bool(true) {
        return Ok(answer);
    }
    let why = answer["error"].as_str().unwrap_or("it does not say why");
    Err(ControlError::Refused(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    fn answering(dir: &Path, answer: &'static [u8]) -> PathBuf {
        let path = dir.join("s");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut line).unwrap();
            assert_eq!(line, "{\"cmd\":\"status\"}\n");
            stream.write_all(answer).unwrap();
        });
        path
    }

    #[test]
    fn every_kind_of_answer_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let ask = |answer| {
            let path = answering(dir.path(), answer);
            ask(&path, "status", Duration::from_secs(5))
        };
        assert_eq!(ask(b"{\"ok\":true,\"x\":1}\n").unwrap()["x"], 1);
        for (answer, said) in [
            (&b"{\"ok\":false,\"error\":\"busy\"}\n"[..], "refused: busy"),
            (b"hello\n", "no JSON"),
            (b"", "hung up"),
            (b"[]\n", "does not say why"),
        ] {
            let error = ask(answer).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let absent = super::ask(&dir.path().join("none"), "status", Duration::from_secs(1));
        assert!(matches!(absent, Err(ControlError::Absent)));
    }
}
