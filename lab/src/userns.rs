//! Namespaces for who is not root: the whole program runs once more as the root of a user namespace.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;

use nix::sched::{CloneFlags, unshare};

use crate::netns::Namespace;

/// Whether network namespaces can be made here.
///
/// For root they can. Anybody else may get them in a user namespace, which only a process with a
/// single thread can enter; so the first call starts this program anew inside, with the arguments it
/// has, waits for it, and ends this process with its exit status. Where user namespaces are not
/// allowed either, `Err` says so, and what would help.
///
/// # Errors
/// In words.
pub fn possible() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER.get_or_init(find_out).clone()
}

fn find_out() -> Result<(), String> {
    let made = match Namespace::new("try") {
        Ok(_) => return Ok(()),
        Err(e) => e,
    };
    // Here a user namespace would not change anything.
    if nix::unistd::geteuid().is_root() || made.kind() == io::ErrorKind::NotFound {
        return Err(format!("no network namespaces: {made}"));
    }
    let why = match again_inside() {
        Ok(status) => {
            // A child that a signal ended has no code.
            std::process::exit(status.code().unwrap_or(1));
        }
        Err(e) => e,
    };
    Err(format!(
        "no network namespaces: {made}; and no user namespace to make them in: {why} (run this as root, \
         or allow user namespaces: sysctl user.max_user_namespaces, \
         kernel.apparmor_restrict_unprivileged_userns, kernel.unprivileged_userns_clone)"
    ))
}

fn again_inside() -> io::Result<std::process::ExitStatus> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1));
    let text = |s: String| CString::new(s).map_err(io::Error::other);
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let maps = [
        (c"/proc/self/setgroups", text("deny".into())?),
        (c"/proc/self/uid_map", text(format!("0 {user} 1"))?),
        (c"/proc/self/gid_map", text(format!("0 {group} 1"))?),
    ];
    let enter = move || {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
        for (path, text) in &maps {
            write_whole(path, text)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec there are only system calls on memory that was made before.
    unsafe { command.pre_exec(enter) };
    command.status()
}

/// Writes without allocating.
fn write_whole(path: &std::ffi::CStr, text: &CString) -> io::Result<()> {
    // SAFETY: the path ends with a zero.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = text.as_bytes();
    // SAFETY: the bytes are readable for their length.
    let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    let failed = io::Error::last_os_error();
    // SAFETY: the descriptor was opened above and nobody else has it.
    unsafe { libc::close(fd) };
    if written == bytes.len() as isize {
        Ok(())
    } else {
        Err(failed)
    }
}
