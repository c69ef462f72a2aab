//! `bbtool`: what the recorder has recorded, for people and for programs.
//!
//! Each command reads the store through `source`, which works beside a running daemon and without
//! one, and gives the same figures in both cases. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no
//! data in that range.

mod abreast;
mod args;
mod chart;
mod control;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod export;
mod export_tests;
mod fail;
mod keygen;
mod lists;
mod live;
mod loads;
mod out;
mod report;
mod show;
mod source;
mod store;
mod test;
mod when;

use std::process::ExitCode;

use argh::FromArgs;

use args::{Arguments, Command};
use fail::Fail;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fail) => {
            if !matches!(fail, Fail::Closed) {
                out::warn(&fail.to_string());
            }
            ExitCode::from(fail.code())
        }
    }
}

fn run() -> Result<(), Fail> {
    let typed: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| {
            a.into_string().map_err(|a| {
                Fail::Usage(format!(
                    "\"{}\" is not UTF-8",
                    show::clean(&a.to_string_lossy())
                ))
            })
        })
        .collect::<Result<_, _>>()?;
    let words: Vec<&str> = typed.iter().map(String::as_str).collect();
    let arguments = match Arguments::from_args(&["bbtool"], &words) {
        Ok(arguments) => arguments,
        Err(exit) if exit.status.is_ok() => return out::print(&exit.output),
        Err(exit) => return Err(Fail::Usage(exit.output.trim_end().to_owned())),
    };
    if arguments.version {
        return out::print(&format!("bbtool {}\n", env!("CARGO_PKG_VERSION")));
    }
    match &arguments.command {
        None => Err(Fail::Usage(
            "what is to be done? bbtool --help lists the commands".into(),
        )),
        Some(Command::Report(a)) => report::run(a),
        Some(Command::Chart(a)) => chart::run(a),
        Some(Command::Export(a)) => export::run(a),
        Some(Command::Events(a)) => lists::events(a),
        Some(Command::Live(a)) => live::run(a),
        Some(Command::Status(a)) => lists::status(a),
        Some(Command::Targets(a)) => lists::targets(a),
        Some(Command::Keygen(a)) => keygen::run(a),
        Some(Command::Doctor(a)) => doctor::run(a),
        Some(Command::Test(a)) => test::run(a),
        Some(Command::Store(a)) => store::run(&a.action),
        #[cfg(feature = "demo")]
        Some(Command::Demo(a)) => demo::run(a),
    }
}
