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
mod path;
mod report;
mod show;
mod source;
mod store;
mod test;
mod when;

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use argh::{FromArgs, SubCommands};
use bufferbane_config::suggestion;

use args::{Arguments, Command};
use fail::Fail;

/// What redb said as it panicked. It does so at pages that make no sense: that is the file's fault, and
/// told as such.
static DAMAGE: Mutex<Option<String>> = Mutex::new(None);

/// Does what was asked for; a damaged store ends it with a word and not with a trace.
fn guarded() -> Result<(), Fail> {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|l| l.file().contains("/redb")) {
            let why = panic.payload_as_str().unwrap_or("no reason").to_owned();
            *DAMAGE.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        } else {
            usual(panic);
        }
    }));
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        if let Some(why) = DAMAGE.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Fail::Failed(format!(
                "the store is damaged, its pages make no sense ({why}); restore a copy, or move it away \
                 and bufferbaned starts a new one"
            )));
        }
        std::panic::resume_unwind(panic)
    })
}

fn main() -> ExitCode {
    match guarded() {
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
        Err(exit) => return Err(Fail::Usage(misread(exit.output.trim_end(), &words))),
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
        Some(Command::Path(a)) => path::run(a),
        Some(Command::Store(a)) => store::run(&a.action),
        #[cfg(feature = "demo")]
        Some(Command::Demo(a)) => demo::run(a),
    }
}

/// What could not be read of a command line, and which help says what could.
fn misread(why: &str, words: &[&str]) -> String {
    let commands: Vec<&str> = Command::COMMANDS.iter().map(|c| c.name).collect();
    match words.first() {
        Some(command) if commands.contains(command) => {
            format!("{why}\nbbtool {command} --help lists its options")
        }
        first => {
            let near = first.map(|word| suggestion(word, &commands));
            let near = near.unwrap_or_default();
            format!("{why}{near}\nbbtool --help lists the commands")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_mistypes_is_shown_the_way() {
        for (typed, says) in [
            (
                &["reprot"][..],
                "Unrecognized argument: reprot, did you mean \"report\"?\n\
                 bbtool --help lists the commands",
            ),
            (
                &["bananas"],
                "Unrecognized argument: bananas\nbbtool --help lists the commands",
            ),
            (
                &["report", "--lats", "7d"],
                "Unrecognized argument: --lats\nbbtool report --help lists its options",
            ),
        ] {
            let exit = Arguments::from_args(&["bbtool"], typed).unwrap_err();
            assert_eq!(misread(exit.output.trim_end(), typed), says);
        }
    }
}
