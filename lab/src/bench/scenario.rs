//! `scenario`: the detectors held against simulated lines that know what they did.

use bufferbane_sim::scenario::{list, table};

use super::{Fail, within};

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// A scenario's name, or `all`.
    pub name: String,
    /// How many seeds.
    pub seeds: u64,
    /// The first of them.
    pub first_seed: u64,
    /// Days that it takes, where not as long as it is made for.
    pub days: Option<u64>,
    /// Whether every event is printed, not only those that are wrong.
    pub verbose: bool,
}

/// Runs them and prints what came of it.
///
/// # Errors
/// [`Fail::Usage`] where no scenario has that name; [`Fail::Failed`] where what is told is not good
/// enough, see [`table::Table::good`].
pub fn run(options: &Options) -> Result<(), Fail> {
    within("--seeds", options.seeds, 1..=1000)?;
    if let Some(days) = options.days {
        within("--days", days, 1..=400)?;
    }
    let usual = || list::ALL.iter().chain(&list::MIXED);
    let all = || usual().chain(&list::MONTHS);
    let chosen: Vec<_> = if options.name == "all" {
        usual().copied().collect()
    } else {
        all()
            .filter(|(name, _)| options.name == *name)
            .copied()
            .collect()
    };
    if chosen.is_empty() {
        let names: Vec<&str> = all().map(|(name, _)| *name).collect();
        return Err(Fail::Usage(format!(
            "no scenario is called \"{}\"; there are: all {}",
            options.name,
            names.join(" ")
        )));
    }
    let seeds = options.first_seed..options.first_seed + options.seeds;
    let table = table::run(&chosen, seeds, options.days, options.verbose);
    print!("{}", table.text);
    if table.good {
        Ok(())
    } else {
        Err(Fail::Failed("what is told is not good enough".into()))
    }
}
