//! The largest packet that passes on a way, looked for on request.

use bufferbane_core::mtu::{Outcome, SearchConfig};
use bufferbane_linux_io::mtu;
use serde_json::{Value, json};

use super::{Way, echoes, udp};
use crate::args::Path;
use crate::fail::Fail;

/// What was found.
pub(super) struct Size {
    /// What the interface takes.
    interface_mtu: u32,
    outcome: Outcome,
    /// Whether larger ones vanish on the way there, where that was found out.
    is_up: Option<bool>,
    /// Whether all of it is about the way there only.
    is_there_only: bool,
}

/// Looks for it.
pub(super) fn find(args: &Path, way: &Way, cookie: u64) -> Result<Size, Fail> {
    let (builder, port, transport) = echoes(args, way, cookie);
    let config = SearchConfig {
        target: way.address,
        transport,
        cookie,
        smallest: None,
        largest: mtu::largest_of(way.interface.mtu),
    };
    let there = udp(way);
    // Nobody gives it up, and nobody asks what it sends.
    let found = mtu::search_both_ways((builder, port), (there.0, there.1), config, &mut 0, &|| {
        false
    });
    let found = found.map_err(|e| Fail::of("looking for the path MTU", e))?;
    let (outcome, is_there_only, is_up) = found
        .map_or((Outcome::NoAnswer, false, None), |(f, is_up)| {
            (f.outcome, f.is_there_only, is_up)
        });
    Ok(Size {
        interface_mtu: way.interface.mtu,
        outcome,
        is_up,
        is_there_only,
    })
}

impl Size {
    pub(super) fn text(&self) -> String {
        let all = mtu::largest_of(self.interface_mtu);
        let there = if self.is_there_only {
            " on the way there; of the way back nothing is known, because what answers is shorter"
        } else {
            ""
        };
        match self.outcome {
            Outcome::NoAnswer | Outcome::Unsent => {
                "The path MTU is not known: nothing answers what would tell.\n".into()
            }
            Outcome::Unclear { passes } => format!(
                "Packets of {passes} bytes pass; whether larger ones do cannot be told: too much is lost, or this host \
                 does not let them out.\n"
            ),
            Outcome::Whole { passes } if self.interface_mtu > passes.into() => format!(
                "Packets of {passes} bytes pass{there}. Larger ones are not looked for, though the interface takes \
                 {}.\n",
                self.interface_mtu
            ),
            Outcome::Whole { passes } => {
                format!(
                    "Packets of {passes} bytes pass, of the {all} that the interface takes{there}.\n"
                )
            }
            Outcome::Told { passes, by } => format!(
                "Packets of {passes} bytes pass, of the {all} that the interface takes; {} says so to whoever \
                 sends larger ones, as it should.\n",
                by.map_or_else(|| "this host".to_owned(), |(router, _)| router.to_string())
            ),
            Outcome::Silent { passes, .. } => format!(
                "Packets of {passes} bytes pass, of the {all} that the interface takes; larger ones vanish{}, and \
                 nobody says so: what needs them hangs.\n",
                match self.is_up {
                    Some(true) => " on the way there",
                    Some(false) => " on the way back, or the target answers no larger echoes",
                    None => ", or the target answers no larger echoes",
                }
            ),
        }
    }

    pub(super) fn json(&self) -> Value {
        let (larger, by) = match self.outcome {
            Outcome::NoAnswer | Outcome::Unsent | Outcome::Unclear { .. } => (None, None),
            Outcome::Whole { .. } => (Some("none"), None),
            Outcome::Told { by, .. } => (Some("told"), by.map(|b| b.0.to_string())),
            Outcome::Silent { .. } => (Some("silent"), None),
        };
        let is_up = match self.outcome {
            Outcome::Silent { .. } => self.is_up,
            _ => (larger.is_some() && self.is_there_only).then_some(true),
        };
        json!({
            "interface_bytes": mtu::largest_of(self.interface_mtu),
            "passes_bytes": self.outcome.passes(),
            "larger": larger,
            "told_by": by,
            "direction": is_up.map(|up| if up { "up" } else { "down" }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_said_in_words_and_as_data() {
        let size = |outcome, is_up| Size {
            interface_mtu: 1500,
            outcome,
            is_up,
            is_there_only: false,
        };
        let silent = Outcome::Silent {
            passes: 1400,
            vanishes: 1401,
        };
        let by = Some(([10, 0, 0, 1].into(), 1492));
        for (found, word, larger) in [
            (size(Outcome::NoAnswer, None), "not known", None),
            (
                size(Outcome::Unclear { passes: 576 }, None),
                "too much is lost, or this host",
                None,
            ),
            (
                size(Outcome::Whole { passes: 1500 }, None),
                "1500 bytes pass",
                Some("none"),
            ),
            (
                size(Outcome::Told { passes: 1492, by }, None),
                "; 10.0.0.1 says",
                Some("told"),
            ),
            (
                size(silent, Some(true)),
                "vanish on the way there",
                Some("silent"),
            ),
            (
                size(silent, None),
                "vanish, or the target answers no larger echoes, and nobody",
                Some("silent"),
            ),
        ] {
            let said = found.text();
            assert!(said.contains(word), "{said}");
            assert_eq!(found.json()["larger"].as_str(), larger);
        }
        assert_eq!(size(silent, Some(false)).json()["direction"], "down");
        let jumbo = Size {
            interface_mtu: 65_536,
            ..size(Outcome::Whole { passes: 9216 }, None)
        };
        let said = jumbo.text();
        assert!(said.contains("Larger ones are not looked for"), "{said}");
        assert_eq!(jumbo.json()["interface_bytes"], 9216);
        let cut = Size {
            is_there_only: true,
            ..size(silent, None)
        };
        assert_eq!(cut.json()["direction"], Value::Null);
        let well = Size {
            is_there_only: true,
            ..size(Outcome::Whole { passes: 1500 }, None)
        };
        assert!(well.text().contains("on the way there"), "{}", well.text());
        assert_eq!(well.json()["direction"], "up");
    }
}
