//! Where output goes.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use crate::fail::Fail;

/// A file that is being written, or standard output.
pub(crate) fn writer(path: Option<&Path>) -> Result<Box<dyn Write>, Fail> {
    match path {
        Some(p) => {
            let file = File::create(p).map_err(|e| not_made(p, &e))?;
            Ok(Box::new(BufWriter::new(file)))
        }
        None => Ok(Box::new(BufWriter::new(io::stdout().lock()))),
    }
}

/// Why a file cannot be made, and what to do.
fn not_made(path: &Path, e: &io::Error) -> Fail {
    match e.kind() {
        io::ErrorKind::NotFound => {
            Fail::of(path.display(), format!("{e}; make the directory first"))
        }
        io::ErrorKind::PermissionDenied => Fail::of(
            path.display(),
            format!("{e}; say with --out where this user may write"),
        ),
        _ => Fail::of(path.display(), e),
    }
}

/// Writes all of `bytes` to a file, or to standard output.
pub(crate) fn write(path: Option<&Path>, bytes: &[u8]) -> Result<(), Fail> {
    let mut out = writer(path)?;
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// Prints `text` to standard output as it is.
pub(crate) fn print(text: &str) -> Result<(), Fail> {
    write(None, text.as_bytes())
}

/// Prints JSON for people and programs to standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Fail> {
    let mut out = writer(None)?;
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// Whether a person looks at standard output.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Says something beside the output.
pub(crate) fn warn(text: &str) {
    // There is nobody left to tell if this fails.
    let _ = writeln!(io::stderr(), "bbtool: {text}");
}
