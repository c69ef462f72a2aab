//! Programs under test as processes of their own, and what they use.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;

use super::Fail;
use crate::netns::Namespace;

/// How long a program may take to end once it is told to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that was started here; it ends when this is dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
}

/// Where a program's words go.
#[derive(Clone, Copy, Debug)]
pub struct Streams<'a> {
    /// Standard error.
    pub log: &'a Path,
    /// Standard output; `None` is nowhere.
    pub output: Option<&'a Path>,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now, bytes.
    pub resident_bytes: u64,
    /// The part of it that is not pages of files, bytes.
    pub anonymous_bytes: u64,
    /// The most that ever was resident, bytes.
    pub peak_bytes: u64,
}

impl Memory {
    /// What a process has, by its number or as `self`, from `/proc/PID/status`.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn of(process: &str) -> Result<Self, Fail> {
        let path = format!("/proc/{process}/status");
        let text = std::fs::read_to_string(&path).map_err(|e| Fail::of(&path, e))?;
        let bytes = |key: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
                .map(|kib: u64| kib * 1024)
                .ok_or_else(|| Fail::Failed(format!("{path} has no line {key}")))
        };
        Ok(Self {
            resident_bytes: bytes("VmRSS:")?,
            anonymous_bytes: bytes("RssAnon:")?,
            peak_bytes: bytes("VmHWM:")?,
        })
    }
}

impl Program {
    /// Starts `program` with nothing on its standard streams but what it says to standard error,
    /// which goes into the file `log`. In `inside`, where there is one; on CPU `cpu`, where given.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(
        program: &Path,
        args: &[&OsStr],
        inside: Option<&Namespace>,
        cpu: Option<usize>,
        log: &Path,
    ) -> Result<Self, Fail> {
        let streams = Streams { log, output: None };
        Self::start_with(program, args, inside, cpu, streams)
    }

    /// The same with its standard output in a file as well.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start_with(
        program: &Path,
        args: &[&OsStr],
        inside: Option<&Namespace>,
        cpu: Option<usize>,
        streams: Streams<'_>,
    ) -> Result<Self, Fail> {
        let name = program.display().to_string();
        let failed = |e: std::io::Error| Fail::of(&name, e);
        let mut command = match inside {
            Some(ns) => ns.command(program),
            None => Command::new(program),
        };
        let file = |path: &Path| std::fs::File::create(path).map_err(failed);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(match streams.output {
                Some(path) => file(path)?.into(),
                None => Stdio::null(),
            })
            .stderr(file(streams.log)?);
        // A program takes over where its starter may run, so it never runs anywhere else.
        let child = match cpu {
            Some(cpu) => on_cpu(cpu, || command.spawn())?,
            None => command.spawn(),
        };
        let child = child.map_err(failed)?;
        Ok(Self { name, child })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time of all its threads so far, also of those that have ended, ns.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn cpu_ns(&self) -> Result<u64, Fail> {
        let pid = Pid::from_raw(self.child.id() as i32);
        let time = ClockId::pid_cpu_clock_id(pid)
            .and_then(ClockId::now)
            .map_err(|e| Fail::of(format!("CPU time of {}", self.name), e))?;
        Ok(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
    }

    /// The memory it has, from `/proc/PID/status`.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn memory(&self) -> Result<Memory, Fail> {
        Memory::of(&self.child.id().to_string())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// Where it does not within `patience`.
    pub fn wait(mut self, patience: Duration) -> Result<(), Fail> {
        let begun = Instant::now();
        while self.runs() {
            if begun.elapsed() > patience {
                return Err(Fail::of(&self.name, "it does not come to an end"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until it ends well by itself; the most memory that ever was resident, bytes.
    ///
    /// # Errors
    /// Where it ends otherwise.
    pub fn peak_bytes(mut self) -> Result<u64, Fail> {
        let mut peak_bytes = 0;
        loop {
            // One that has just ended has none.
            if let Ok(memory) = self.memory() {
                peak_bytes = memory.peak_bytes.max(peak_bytes);
            }
            let ended = self.child.try_wait().map_err(|e| Fail::of(&self.name, e))?;
            match ended {
                Some(status) if status.success() => return Ok(peak_bytes),
                Some(status) => return Err(Fail::of(&self.name, status)),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Sends it `signal`, and waits for its end.
    ///
    /// # Errors
    /// Where it still runs after `patience`.
    pub fn signal(self, signal: Signal, patience: Duration) -> Result<(), Fail> {
        kill(Pid::from_raw(self.child.id() as i32), signal).map_err(|e| Fail::of(&self.name, e))?;
        self.wait(patience)
    }

    /// Tells it to end, and waits for that.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if !self.runs() {
            return;
        }
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let begun = Instant::now();
        while self.runs() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        // What does not listen is ended all the same; what has ended does not mind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

/// Does `work` on this thread while it may run on `cpu` only.
fn on_cpu<T>(cpu: usize, work: impl FnOnce() -> T) -> Result<T, Fail> {
    let this = Pid::from_raw(0);
    let failed = |e: nix::Error| Fail::of(format!("running on CPU {cpu}"), e);
    let before = sched_getaffinity(this).map_err(failed)?;
    let mut only = CpuSet::new();
    only.set(cpu).map_err(failed)?;
    sched_setaffinity(this, &only).map_err(failed)?;
    let result = work();
    sched_setaffinity(this, &before).map_err(failed)?;
    Ok(result)
}

/// The binary `name` of this project, which lies beside the one that runs.
///
/// # Errors
/// Where it has not been built, with the command that builds it.
pub fn ours(name: &str) -> Result<PathBuf, Fail> {
    let own = std::env::current_exe().map_err(|e| Fail::of("this program's own path", e))?;
    let path = own.with_file_name(name);
    if path.exists() {
        return Ok(path);
    }
    let profile = if cfg!(debug_assertions) {
        ""
    } else {
        "--release "
    };
    Err(Fail::Failed(format!(
        "{} is missing; build it with: cargo build {profile}-p {name}",
        path.display()
    )))
}

/// Where `program` is in the search path.
///
/// # Errors
/// Where it is not installed; names the Debian package.
pub fn installed(program: &str, package: &str) -> Result<PathBuf, Fail> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|p| p.is_file())
        .ok_or_else(|| {
            Fail::Failed(format!(
                "{program} is missing; it is in the Debian package {package}"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_program_that_ends_well_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let shell = |script: &str| {
            let args = [OsStr::new("-c"), OsStr::new(script)];
            let log = dir.path().join("log");
            let program = Program::start(Path::new("/bin/sh"), &args, None, None, &log);
            program.unwrap().peak_bytes()
        };
        assert!(shell("sleep 0.2").unwrap() > 100_000);
        assert!(shell("exit 3").unwrap_err().to_string().contains("3"));
    }
}
