//! Fuzz targets without a fuzzer: ordinary tests of the crates include this, and go through the seed
//! corpus of their targets, which is made of real input.
//!
//! With `BUFFERBANE_WRITE_CORPUS=1` in the environment, the tests write the seeds anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Inputs by the names of their files.
pub(crate) type Seeds = BTreeMap<String, Vec<u8>>;

/// The folder of the fuzz targets and their corpus, from that of the crate that includes this.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Runs `target` on all of its committed corpus, whole and cut short. That has to hold `seeds`, which
/// the code makes today.
pub(crate) fn replay(target: &str, seeds: &Seeds, run: impl Fn(&[u8])) {
    let dir = folder().join("corpus").join(target);
    if std::env::var_os("BUFFERBANE_WRITE_CORPUS").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in seeds {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }
    for (name, bytes) in seeds {
        let path = dir.join(name);
        let committed = std::fs::read(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; see fuzz/replay.rs", path.display()));
        assert!(committed == *bytes, "{} is out of date", path.display());
    }
    let mut ran = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        let bytes = std::fs::read(&path).unwrap();
        run(&bytes);
        // And cut short, at every place near its begin.
        (0..bytes.len().min(64)).for_each(|len| run(&bytes[..len]));
        ran += 1;
    }
    assert!(ran >= 3, "{target}: {ran} seeds");
}
