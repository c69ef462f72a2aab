//! Files that hold a secret, read into room that is there from the first: what grows is moved, and what it was moved
//! from could not be wiped.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The longest such file, bytes, with room for remarks.
pub(crate) const MOST_BYTES: usize = 4096;

/// Reads the text of the file at `path` into `room`, which whoever lends it wipes. `missing` says what to do where it
/// cannot be opened.
pub(crate) fn read<'a>(
    path: &Path,
    missing: &str,
    room: &'a mut [u8; MOST_BYTES],
) -> Result<&'a str, String> {
    let said = |what: &dyn std::fmt::Display| format!("key file {}: {what}", path.display());
    let mut file = File::open(path).map_err(|e| said(&format!("{e}; {missing}")))?;
    let meta = file.metadata().map_err(|e| said(&e))?;
    if !meta.is_file() {
        return Err(said(&"not a file"));
    }
    if meta.mode() & 0o007 != 0 {
        return Err(said(&format!(
            "every user may read it (mode {:03o}); chmod 600 {}",
            meta.mode() & 0o777,
            path.display()
        )));
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
