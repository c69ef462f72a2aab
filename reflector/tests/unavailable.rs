//! The reflector on hosts that have no io_uring.

#[path = "../../linux-daemon/tests/all/common/refuse.rs"]
mod refuse;

mod common;

use bufferbane_config::keyfile;
use bufferbane_core::seal::{KeyId, PresharedKey, Secret};
use common::skip;

#[test]
fn a_host_without_io_uring_is_told_what_to_change() {
    let dir = tempfile::tempdir().unwrap();
    let key = PresharedKey {
        id: KeyId(*b"no-uring"),
        secret: Secret::new([7; 32]),
    };
    keyfile::write_new(&dir.path().join("a.key"), &key).unwrap();
    let file = dir.path().join("r.toml");
    std::fs::write(
        &file,
        "[reflector]\nlisten = \"127.0.0.1:0\"\ncontrol_socket = \"\"\n\
         [[client]]\nname = \"a\"\nkey_file = \"a.key\"\n",
    )
    .unwrap();
    refuse::every_refusal(
        env!("CARGO_BIN_EXE_bufferbane-reflector"),
        &["--config", file.to_str().unwrap()],
        skip,
    );
}
