//! A host that refuses io_uring is told apart and explained.

use bufferbane_linux_io::support::Unavailable;
use bufferbane_linux_io::{Engine, EngineOptions, StartError};

/// Makes `io_uring_setup` fail with this errno for the calling thread, as a container runtime does.
fn refuse_io_uring(errno: i32) {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut program = [
        // The system call's number is the first word of what the filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_io_uring_setup as u32,
        ),
        statement(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | errno as u32,
        ),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: passes numbers only.
    let bound = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(bound, 0);
    // SAFETY: the program lives until the call returns; it binds the calling thread alone.
    let set = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    assert_eq!(set, 0);
}

fn start_refused_with(errno: i32) -> StartError {
    std::thread::spawn(move || {
        refuse_io_uring(errno);
        match Engine::new(&EngineOptions::prober()) {
            Ok(_) => panic!("the filter did not work"),
            Err(e) => e,
        }
    })
    .join()
    .unwrap()
}

#[test]
fn a_seccomp_filter_is_named_with_its_remedy() {
    let e = start_refused_with(libc::EPERM);
    println!("{e}");
    assert!(matches!(
        e,
        StartError::Unavailable(Unavailable::Refused(_))
    ));
    assert!(e.to_string().contains("io_uring_setup"));
    let e = start_refused_with(libc::ENOSYS);
    println!("{e}");
    assert!(matches!(e, StartError::Unavailable(Unavailable::Missing)));
    // The refusals bound those threads only, and were not remembered.
    assert!(Engine::new(&EngineOptions::prober()).is_ok());
}
