//! The command line of `bufferbane-reflector`.

use std::path::PathBuf;

use argh::{ArgsInfo, FromArgs};

/// Echoes the sealed probes of Bufferbane's daemons with kernel time stamps.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(error_code(0, "done"))]
#[argh(error_code(1, "failed"))]
#[argh(error_code(2, "wrong usage or configuration"))]
pub(crate) struct Arguments {
    /// configuration file (default: /etc/bufferbane/reflector.toml)
    #[argh(option, arg_name = "file")]
    pub(crate) config: Option<PathBuf>,
    /// read the configuration, say every mistake in it, and end
    #[argh(switch)]
    pub(crate) check: bool,
    /// ask the running reflector for its statistics
    #[argh(switch)]
    pub(crate) status: bool,
    /// statistics as JSON
    #[argh(switch)]
    pub(crate) json: bool,
    /// print the version
    #[argh(switch)]
    pub(crate) version: bool,
}
