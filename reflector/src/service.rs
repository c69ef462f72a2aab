//! The installed service: a [`Running`] reflector with signals, a control socket and systemd.
//!
//! One thread waits for all three with `poll` and serves one of them at a time; none is busy.

use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bufferbane_core::seal::wipe_stack;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sd_notify::NotifyState;
use serde::Serialize;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Running;
use crate::config::{self, Config};

/// How long a client of the control socket may take to say what it wants.
const REQUEST_PATIENCE: Duration = Duration::from_millis(500);
/// And how long, all in all, to read the answer: of thousands of sessions that is a megabyte or two. Signals and systemd wait
/// meanwhile.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How often the line in `systemctl status` is renewed.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// The echo thread is stuck when it did not come by for this long: it does twice a second.
const STUCK: Duration = Duration::from_secs(10);
/// The longest request, bytes.
const REQUEST_BYTES: usize = 4096;

/// Runs the reflector with the configuration in `file` until SIGTERM or SIGINT.
///
/// # Errors
/// Why it could not start or go on, in one line.
pub fn run(file: &Path, config: Config) -> Result<(), String> {
    let stop = signals(&[SIGTERM, SIGINT])?;
    let reload = signals(&[SIGHUP])?;
    let running = Running::start(&config)?;
    // Root by hand may need its right to read keys again; a service's user needs none any more.
    if !nix::unistd::geteuid().is_root() {
        crate::give_up(false)?;
    }
    for warning in running.warnings() {
        log::warn!("{warning}");
    }
    let control = config.control_socket.as_deref().and_then(open_control);
    let listen: Vec<String> = running.listen().iter().map(ToString::to_string).collect();
    log::info!(
        "bufferbane-reflector {} ready on UDP {}, for {}",
        env!("CARGO_PKG_VERSION"),
        listen.join(" and "),
        count(config.clients.len(), "client")
    );
    // The threads have what they need of it, and keys that are taken away are to stay nowhere.
    drop(config);
    wipe_stack();
    tell(&[NotifyState::Ready]);
    let mut service = Service {
        file,
        running,
        watchdog: sd_notify::watchdog_enabled().map(|d| d / 3),
    };
    let result = service.serve(&stop, &reload, control.as_ref());
    tell(&[NotifyState::Stopping]);
    match (result, service.running.stop()) {
        (Err(what), Err(why)) => Err(format!("{what}: {why}")),
        (result, stopped) => result.and(stopped),
    }
}

struct Service<'a> {
    file: &'a Path,
    running: Running,
    /// How often to say that we live.
    watchdog: Option<Duration>,
}

impl Service<'_> {
    fn serve(
        &mut self,
        stop: &UnixStream,
        reload: &UnixStream,
        control: Option<&Control>,
    ) -> Result<(), String> {
        let mut status_due = Instant::now();
        let round = self.watchdog.map_or(STATUS_EVERY, |w| w.min(STATUS_EVERY));
        // The end of a thread is noticed within a second.
        let round = round.min(Duration::from_secs(1));
        loop {
            if let Some(thread) = self.running.has_ended() {
                return Err(format!("the {thread} thread has ended"));
            }
            if self.running.silence() < STUCK {
                tell(&[NotifyState::Watchdog]);
            }
            if Instant::now() >= status_due {
                status_due = Instant::now() + STATUS_EVERY;
                let line = self.running.status_line().unwrap_or_else(|why| why);
                tell(&[NotifyState::Status(&line)]);
            }
            let ready = wait(&[stop, reload], control, round).map_err(|e| format!("poll: {e}"))?;
            if ready[0] {
                return Ok(());
            }
            if ready[1] {
                drain(reload);
                // What went wrong has been logged, and the old configuration runs on.
                let _ = self.reload();
            }
            if let Some(control) = control.filter(|_| ready[2]) {
                match control.listener.accept() {
                    Ok((stream, _)) => self.answer(stream, ANSWER_PATIENCE),
                    Err(e) => log::warn!("control socket: {e}"),
                }
            }
        }
    }

    fn reload(&mut self) -> Result<(), String> {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
        let result = self.take_over();
        match &result {
            Ok(clients) => log::info!("configuration read again: {}", count(*clients, "client")),
            Err(why) => log::error!("the old configuration runs on: {why}"),
        }
        tell(&[NotifyState::Ready]);
        result.map(drop)
    }

    fn take_over(&mut self) -> Result<usize, String> {
        let loaded = config::load(self.file).map_err(|mistakes| {
            for mistake in &mistakes {
                log::error!("{mistake}");
            }
            format!(
                "{} has {}",
                self.file.display(),
                count(mistakes.len(), "mistake")
            )
        })?;
        let restart = self.running.reconfigure(&loaded.config)?;
        for line in loaded.warnings.iter().chain(&restart) {
            log::warn!("{line}");
        }
        let clients = loaded.config.clients.len();
        drop(loaded);
        wipe_stack();
        Ok(clients)
    }

    /// Answers one request to whoever has read the answer within `patience`.
    fn answer(&mut self, mut stream: UnixStream, patience: Duration) {
        let request = read_request(&mut stream);
        let mut out = BufWriter::new(Until {
            patience,
            end: None,
            stream,
        });
        // Who has gone meanwhile, or reads no more, is told no more.
        let _ = self
            .write_answer(request, &mut out)
            .and_then(|()| out.flush());
    }

    /// Writes one object: of what is begun, nothing can fail any more but writing it.
    fn write_answer(
        &mut self,
        request: Result<Value, String>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let why = match request.as_ref().map(|r| r["cmd"].as_str()) {
            Ok(Some("status")) => match self.running.statistics() {
                Ok(told) => {
                    serde_json::to_writer(&mut *out, &Done { ok: true, told })?;
                    return out.write_all(b"\n");
                }
                Err(why) => why,
            },
            Ok(Some("reload")) => match self.reload() {
                Ok(()) => return out.write_all(b"{\"ok\":true}\n"),
                Err(why) => why,
            },
            Ok(_) => "the commands are status and reload".to_owned(),
            Err(why) => why.clone(),
        };
        writeln!(out, "{}", json!({"ok": false, "error": why}))
    }
}

/// A stream that is written to for so long from its first byte on, however slowly its other end reads.
struct Until {
    patience: Duration,
    end: Option<Instant>,
    stream: UnixStream,
}

impl Write for Until {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = Instant::now();
        let end = *self.end.get_or_insert(now + self.patience);
        let left = end.saturating_duration_since(now);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_write_timeout(Some(left))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What was asked for.
#[derive(Serialize)]
struct Done<T> {
    ok: bool,
    #[serde(flatten)]
    told: T,
}

/// One line in one piece, as it is sent; whoever dribbles is not waited for.
fn read_request(stream: &mut UnixStream) -> Result<Value, String> {
    let mut buffer = [0; REQUEST_BYTES];
    let len = stream
        .set_read_timeout(Some(REQUEST_PATIENCE))
        .and_then(|()| stream.read(&mut buffer))
        .map_err(|e| format!("no request came: {e}"))?;
    serde_json::from_slice(&buffer[..len])
        .map_err(|_| "a request is one line of JSON: {\"cmd\":\"status\"}".to_owned())
}

/// Asks the reflector behind the control socket at `path` for its statistics.
///
/// # Errors
/// Why there are none, and what helps.
pub fn ask_status(path: &Path) -> Result<Value, String> {
    let failed = |e: io::Error| {
        let remedy = match e.kind() {
            io::ErrorKind::PermissionDenied => "; members of the group bufferbane may ask",
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "; is it running?",
            _ => "",
        };
        format!("control socket {}: {e}{remedy}", path.display())
    };
    let mut stream = UnixStream::connect(path).map_err(failed)?;
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).map_err(failed)?;
    stream
        .write_all(b"{\"cmd\":\"status\"}\n")
        .map_err(failed)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).map_err(failed)?;
    let mut reply: Value =
        serde_json::from_str(&reply).map_err(|e| format!("an answer that is no JSON: {e}"))?;
    if reply["ok"] != true {
        let why = reply["error"].as_str().unwrap_or("no reason given");
        return Err(why.to_owned());
    }
    if let Some(object) = reply.as_object_mut() {
        object.remove("ok");
    }
    Ok(reply)
}

/// The listening control socket; its file goes with it.
struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Opens the control socket. Without one the reflector still reflects, so failing is only told.
fn open_control(path: &Path) -> Option<Control> {
    let bound = match UnixListener::bind(path) {
        // What an unclean end left behind; a socket that somebody answers at is left alone.
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            std::fs::remove_file(path).and_then(|()| UnixListener::bind(path))
        }
        bound => bound,
    };
    let opened = bound.and_then(|listener| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(listener)
    });
    match opened {
        Ok(listener) => Some(Control {
            listener,
            path: path.to_owned(),
        }),
        Err(e) => {
            log::warn!(
                "no statistics on request: control socket {}: {e}; set reflector.control_socket \
                 to a path that can be written, or to \"\"",
                path.display()
            );
            None
        }
    }
}

/// A stream that becomes readable when one of these signals comes.
fn signals(which: &[i32]) -> Result<UnixStream, String> {
    let failed = |e: io::Error| format!("signals: {e}");
    let (read, write) = UnixStream::pair().map_err(failed)?;
    read.set_nonblocking(true).map_err(failed)?;
    for signal in which {
        let write = write.try_clone().map_err(failed)?;
        signal_hook::low_level::pipe::register(*signal, write).map_err(failed)?;
    }
    Ok(read)
}

/// Several signals of a kind that came together are one.
fn drain(mut stream: &UnixStream) {
    let mut buffer = [0; 64];
    while matches!(stream.read(&mut buffer), Ok(1..)) {}
}

/// Which of the streams, and then whether the control socket, can be read.
fn wait(
    streams: &[&UnixStream; 2],
    control: Option<&Control>,
    most: Duration,
) -> io::Result<[bool; 3]> {
    let mut fds = vec![
        PollFd::new(streams[0].as_fd(), PollFlags::POLLIN),
        PollFd::new(streams[1].as_fd(), PollFlags::POLLIN),
    ];
    if let Some(control) = control {
        fds.push(PollFd::new(control.listener.as_fd(), PollFlags::POLLIN));
    }
    let timeout = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        // Interrupted by the very signal that is then readable at the next round.
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(e) => return Err(e.into()),
    }
    let ready = |i: usize| {
        fds.get(i)
            .is_some_and(|fd: &PollFd<'_>| fd.any() == Some(true))
    };
    Ok([ready(0), ready(1), ready(2)])
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a socket, or with one that has gone, there is nobody to tell.
    let _ = sd_notify::notify(states);
}

fn count(n: usize, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::echo::Command;
    use crate::stats::{Filled, Listed};

    fn reflector() -> Running {
        let config = Config {
            listen: vec![([127, 0, 0, 1], 0).into()],
            control_socket: None,
            ..Config::default()
        };
        Running::start(&config).unwrap()
    }

    fn service() -> Service<'static> {
        Service {
            file: Path::new(""),
            running: reflector(),
            watchdog: None,
        }
    }

    /// Both ends of a connection over which statistics have been requested.
    fn request() -> (UnixStream, UnixStream) {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"{\"cmd\":\"status\"}\n").unwrap();
        (here, there)
    }

    /// What comes back for a request for statistics.
    fn asked(service: &mut Service<'_>) -> String {
        let (mut here, there) = request();
        service.answer(there, ANSWER_PATIENCE);
        let mut answer = String::new();
        here.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn an_answer_is_whole_or_says_only_why_there_is_none() {
        let mut service = service();
        let whole: Value = serde_json::from_str(&asked(&mut service)).unwrap();
        assert_eq!(
            (&whole["ok"], &whole["sessions"]),
            (&true.into(), &0.into())
        );
        // An echo thread that ends when some sessions have been listed.
        let (commands, to_do) = sync_channel(4);
        let (fill, filled) = sync_channel(4);
        let real = std::mem::replace(&mut service.running.commands, commands);
        service.running.filled = filled;
        let echo = std::thread::spawn(move || {
            for _ in 0..2 {
                let answer = match to_do.recv().unwrap() {
                    Command::Fill(snapshot) => Filled::Counts(snapshot),
                    Command::List(room) => Filled::Sessions(Listed { clients: 1, ..room }),
                    _ => panic!("something else is asked"),
                };
                fill.send(answer).unwrap();
            }
        });
        let answer = asked(&mut service);
        echo.join().unwrap();
        service.running.commands = real;
        let told: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"));
        assert_eq!(told["ok"], false, "{told}");
        assert!(
            told["error"]
                .as_str()
                .is_some_and(|why| why.contains("echo"))
        );
    }

    #[test]
    fn who_reads_an_answer_slowly_is_not_waited_for() {
        let mut service = service();
        // More than the kernel holds for a reader, by far.
        service.running.clients = vec!["c".repeat(1000); 2000];
        let (mut here, there) = request();
        let reader = std::thread::spawn(move || {
            let (mut read, mut part) = (0, [0; 8192]);
            loop {
                match here.read(&mut part).unwrap() {
                    0 => return read,
                    len => read += len,
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let begun = Instant::now();
        service.answer(there, Duration::from_millis(200));
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        // And this one was read all the time.
        let read = reader.join().unwrap();
        assert!((10_000..1_000_000).contains(&read), "{read}");
    }
}
