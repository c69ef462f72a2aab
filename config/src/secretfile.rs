//! Files that hold a secret, read into room that is there from the first: what grows is moved, and what it was moved
//! from could not be wiped.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The longest such file, bytes, with room for remarks.
pub(crate) const MOST_BYTES: usize = 4096;

/// What is wrong with a file at `path` of this `mode` that every user may read, and what to do. The services run as a user
/// of their own: what only root may read, they cannot.
#[must_use]
pub fn open_to_all(path: &Path, mode: u32) -> String {
    let name = path.display();
    format!(
        "every user may read it (mode {:03o}); chmod 640 {name}, and for the service chgrp bufferbane {name}",
        mode & 0o777
    )
}

/// Why a file with a secret cannot be opened, and what to do; `missing` where it is not there.
fn closed(path: &Path, e: &std::io::Error, missing: &str) -> String {
    let name = path.display();
    match e.kind() {
        ErrorKind::PermissionDenied => {
            format!("{e}; for the service chgrp bufferbane {name}, chmod 640 {name}")
        }
        _ => format!("{e}; {missing}"),
    }
}

/// Reads the text of the file at `path` into `room`, which whoever lends it wipes. `missing` says what to do where it
/// cannot be opened.
pub(crate) fn read<'a>(
    path: &Path,
    missing: &str,
    room: &'a mut [u8; MOST_BYTES],
) -> Result<&'a str, String> {
    let said = |what: &dyn std::fmt::Display| format!("key file {}: {what}", path.display());
    let mut file = File::open(path).map_err(|e| said(&closed(path, &e, missing)))?;
    let meta = file.metadata().map_err(|e| said(&e))?;
    if !meta.is_file() {
        return Err(said(&"not a file"));
    }
    if meta.mode() & 0o007 != 0 {
        return Err(said(&open_to_all(path, meta.mode())));
    }
    let mut len = 0;
    loop {
        match file.read(&mut room[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(said(&e)),
        }
    }
    if len == MOST_BYTES {
        return Err(said(&format!(
            "it is {MOST_BYTES} bytes long or longer, which no key file is"
        )));
    }
    std::str::from_utf8(&room[..len]).map_err(|e| said(&format!("it is not text: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_files_mode_leaves_the_service_able_to_read_it() {
        let path = Path::new("/etc/bufferbane/keys/a.key");
        let open = open_to_all(path, 0o100_644);
        assert_eq!(
            open,
            "every user may read it (mode 644); chmod 640 /etc/bufferbane/keys/a.key, and for the service chgrp \
             bufferbane /etc/bufferbane/keys/a.key"
        );
        let denied = closed(path, &ErrorKind::PermissionDenied.into(), "make one");
        assert!(
            denied.contains("chgrp bufferbane") && !denied.contains("make one"),
            "{denied}"
        );
        let missing = closed(path, &ErrorKind::NotFound.into(), "make one");
        assert!(missing.ends_with("; make one"), "{missing}");
    }
}
