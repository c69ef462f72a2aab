//! The command line of `bufferbaned`.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

/// Probes the line from every bound interface, and records what becomes of each probe.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(note = "Example: bufferbaned --config /etc/bufferbane/bufferbaned.toml --check")]
#[argh(error_code(0, "done"))]
#[argh(error_code(1, "failed"))]
#[argh(error_code(2, "wrong usage or configuration"))]
pub(crate) struct Arguments {
    /// configuration file (default: /etc/bufferbane/bufferbaned.toml, or none where that is missing)
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
    /// read the configuration, say everything that is wrong with it, and exit with 0 or 2
    #[argh(switch)]
    pub(crate) check: bool,
    /// print the version
    #[argh(switch)]
    pub(crate) version: bool,
}
