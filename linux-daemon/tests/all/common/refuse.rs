//! Programs on a host that refuses io_uring, in each of the ways there are.

use std::path::Path;
use std::process::{Command, Output};

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Makes `io_uring_setup` fail with `errno` for what `start` starts, as container runtimes do.
fn refused(errno: i32, start: impl FnOnce() -> Output + Send) -> Output {
    let filter = SeccompFilter::new(
        [(libc::SYS_io_uring_setup, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    std::thread::scope(|s| {
        let thread = s.spawn(|| {
            // It binds this thread and its children, and ends with them.
            seccompiler::apply_filter(&program).unwrap();
            start()
        });
        thread.join().unwrap()
    })
}

/// Runs a program as on a host where `errno` is what io_uring gives, and where each of `files`
/// reads as is said. `None` where that takes more than this user may.
fn run(
    dir: &Path,
    errno: i32,
    files: &[(&str, &str)],
    program: &str,
    arguments: &[&str],
) -> Option<Output> {
    if files.is_empty() {
        return Some(refused(errno, || {
            Command::new(program).args(arguments).output().unwrap()
        }));
    }
    let mut script = String::from("set -e; ");
    for (i, (path, text)) in files.iter().enumerate() {
        let fake = dir.join(format!("fake{i}"));
        std::fs::write(&fake, text).unwrap();
        script += &format!("mount --bind {} {path}; ", fake.display());
    }
    script += "echo laid out >&2; exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c", &script, program]);
    let output = refused(errno, || command.args(arguments).output().unwrap());
    String::from_utf8_lossy(&output.stderr)
        .contains("laid out")
        .then_some(output)
}

/// A host that refuses.
struct Host {
    name: &'static str,
    /// What `io_uring_setup` fails with.
    errno: i32,
    /// What these files say there.
    files: Vec<(&'static str, &'static str)>,
    remedy: &'static str,
}

/// Runs `program`, which has to need io_uring, on each kind of host that has none: it says in one
/// line what is the matter and what helps, and exits with 1. `skip` hears what cannot be tried here.
pub(crate) fn every_refusal(program: &str, arguments: &[&str], skip: fn(&str)) {
    let dir = tempfile::tempdir().unwrap();
    let sysctl = "/proc/sys/kernel/io_uring_disabled";
    let release = "/proc/sys/kernel/osrelease";
    let host = |name, errno, files: &[(&'static str, &'static str)], remedy| Host {
        name,
        errno,
        files: files.to_vec(),
        remedy,
    };
    let mut hosts = vec![
        host(
            "a seccomp filter",
            libc::EPERM,
            &[],
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp filter",
        ),
        host(
            "a kernel without",
            libc::ENOSYS,
            &[],
            "built with CONFIG_IO_URING is needed",
        ),
        host(
            "an old kernel",
            libc::EINVAL,
            &[(release, "5.15.0-91-generic\n")],
            "Linux 5.15.0-91-generic is too old; 6.1 or later is needed",
        ),
    ];
    if Path::new(sysctl).exists() {
        hosts.push(host(
            "the sysctl",
            libc::EPERM,
            &[(sysctl, "2\n")],
            "sysctl -w kernel.io_uring_disabled=0",
        ));
    }
    for Host {
        name,
        errno,
        files,
        remedy,
    } in hosts
    {
        let Some(output) = run(dir.path(), errno, &files, program, arguments) else {
            skip(&format!("{name}: no mount namespace"));
            continue;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        println!("{name}: {said}");
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        let lines: Vec<&str> = said.lines().filter(|l| *l != "laid out").collect();
        assert_eq!(lines.len(), 1, "{name}: {said}");
        assert!(lines[0].contains("io_uring is not available: "), "{said}");
        assert!(lines[0].contains(remedy), "{name}: {said}");
    }
}
