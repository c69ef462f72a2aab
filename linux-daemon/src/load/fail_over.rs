//! Which reflector makes a test where the one that is meant does not.

use bufferbane_store::{Instead, LoadTest};

use super::Path;
use super::run::Failed;
use super::spec::Patience;

/// So many may be asked beside the one that is meant: each takes its time, and quiet hours may be near.
pub(super) const OTHERS: usize = 4;

/// The paths that may stand in for each other, the one that is meant first: those of its uplink, in the
/// order of the configuration from it on, [`OTHERS`] at most beside it.
pub(super) fn stand_ins(paths: &[Path], meant: &Path) -> Vec<Path> {
    let is_same = |p: &&Path| p.interface == meant.interface && p.remote == meant.remote;
    let mut of_uplink: Vec<Path> = paths
        .iter()
        .filter(|p| p.interface == meant.interface)
        .cloned()
        .collect();
    let first = of_uplink.iter().position(|p| is_same(&p));
    of_uplink.rotate_left(first.unwrap_or(0));
    of_uplink.truncate(1 + OTHERS);
    of_uplink
}

/// Has one of `paths` make a test: the first that can, tried in order. `attempt` hears how long to wait for a
/// reflector that others test, and of those that it stands in for.
///
/// # Errors
/// Why there is none, of each that was tried.
pub(super) fn first_that_can(
    paths: &[Path],
    mut attempt: impl FnMut(&Path, Patience, &[Instead]) -> Result<LoadTest, Failed>,
) -> Result<LoadTest, String> {
    let mut failed: Vec<Instead> = Vec::new();
    for (n, path) in paths.iter().enumerate() {
        let next = paths.get(n + 1);
        let patience = match next {
            Some(_) => Patience::WithOthers,
            None => Patience::Alone,
        };
        match attempt(path, patience, &failed) {
            Ok(test) => return Ok(test),
            Err(Failed { why, elsewhere, .. }) => {
                if let Some(next) = next.filter(|_| elsewhere) {
                    log::warn!(
                        "no test through {} to {}: {why}; {} is asked instead",
                        path.interface,
                        path.reflector,
                        next.reflector
                    );
                }
                failed.push(Instead {
                    reflector: path.reflector.clone(),
                    why,
                });
                if !elsewhere {
                    break;
                }
            }
        }
    }
    let all: Vec<String> = match &failed[..] {
        [only] => vec![only.why.clone()],
        all => all
            .iter()
            .map(|f| format!("{}: {}", f.reflector, f.why))
            .collect(),
    };
    Err(all.join("; "))
}

#[cfg(test)]
mod tests {
    use super::super::tests::path;
    use super::*;

    fn places(paths: &[Path]) -> Vec<String> {
        let place = |p: &Path| format!("{} {}", p.interface, p.reflector);
        paths.iter().map(place).collect()
    }

    #[test]
    fn the_next_in_the_order_of_the_configuration_stands_in_through_the_same_uplink() {
        let mut all = [
            path("eth0", "vienna"),
            path("wwan0", "vienna"),
            path("eth0", "oslo"),
            path("eth0", "rome"),
        ];
        for (n, p) in all.iter_mut().enumerate() {
            p.remote.set_port(9000 + n as u16);
        }
        let [vienna, mobile, oslo, _] = all.each_ref().map(Clone::clone);
        assert_eq!(
            places(&stand_ins(&all, &vienna)),
            ["eth0 vienna", "eth0 oslo", "eth0 rome"]
        );
        assert_eq!(
            places(&stand_ins(&all, &oslo)),
            ["eth0 oslo", "eth0 rome", "eth0 vienna"]
        );
        // What is paid for by what it carries is no stand-in, nor is anything for it.
        assert_eq!(places(&stand_ins(&all, &mobile)), ["wwan0 vienna"]);
    }

    #[test]
    fn so_many_are_asked_that_the_time_for_it_is_known() {
        let mut all: Vec<Path> = (0..9).map(|n| path("eth0", &format!("r{n}"))).collect();
        for (n, p) in all.iter_mut().enumerate() {
            p.remote.set_port(9000 + n as u16);
        }
        assert_eq!(
            places(&stand_ins(&all, &all[7])),
            ["eth0 r7", "eth0 r8", "eth0 r0", "eth0 r1", "eth0 r2"]
        );
    }

    /// Who was asked, how patiently, and for whom, and what came of it.
    fn tried(fates: &[Option<bool>]) -> (Vec<(String, Patience, usize)>, Option<String>) {
        let names = ["vienna", "oslo", "rome"];
        let paths: Vec<Path> = names.iter().map(|n| path("eth0", n)).collect();
        let mut asked = Vec::new();
        let result = first_that_can(&paths, |path, patience, instead| {
            asked.push((path.reflector.clone(), patience, instead.len()));
            match fates[asked.len() - 1] {
                None => Ok(LoadTest::default()),
                Some(elsewhere) => Err(Failed {
                    why: "busy".into(),
                    moved: 0,
                    elsewhere,
                }),
            }
        });
        (asked, result.err())
    }

    #[test]
    fn each_is_asked_until_one_can_or_it_is_no_matter_of_the_reflector() {
        use Patience::{Alone, WithOthers};
        let asked = |all: &[(&str, Patience, usize)]| -> Vec<(String, Patience, usize)> {
            all.iter()
                .map(|(n, p, i)| ((*n).to_owned(), *p, *i))
                .collect()
        };
        let first = asked(&[("vienna", WithOthers, 0)]);
        assert_eq!(tried(&[None]), (first.clone(), None));
        assert_eq!(tried(&[Some(false)]), (first, Some("busy".into())));
        assert_eq!(
            tried(&[Some(true), None]),
            (
                asked(&[("vienna", WithOthers, 0), ("oslo", WithOthers, 1)]),
                None
            )
        );
        let all = asked(&[
            ("vienna", WithOthers, 0),
            ("oslo", WithOthers, 1),
            ("rome", Alone, 2),
        ]);
        let why = "vienna: busy; oslo: busy; rome: busy";
        assert_eq!(tried(&[Some(true); 3]), (all, Some(why.into())));
    }
}
