//! Close looks: quick echoes that were sent because of an event, and what became of them.

use bufferbane_store::{Echoes, Reader, StoreError};
use serde::Serialize;

use super::model::{Event, Time};
use super::paths::AROUND_NS;
use crate::show::{delay, plural};
use crate::when::Range;

/// What a close look at a host found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CloseLook {
    /// When its first echo left.
    pub(crate) at: Time,
    /// The interface that echoes left through.
    pub(crate) interface: String,
    /// The target's or reflector's name.
    pub(crate) target: String,
    /// Its address.
    pub(crate) address: String,
    /// Echoes that left.
    pub(crate) sent: u64,
    /// Of these, the answered.
    pub(crate) answered: u64,
    /// Of the others, those of which somebody said that they do not get there.
    pub(crate) refused: u64,
    /// Echoes that this host did not let out.
    pub(crate) unsent: u64,
    /// How often one or more in a row were unanswered.
    pub(crate) runs: u64,
    /// When the longest of these runs began.
    pub(crate) silence_at: Option<Time>,
    /// How long it lasted.
    pub(crate) silence_ns: Option<u64>,
    /// Shortest round-trip time.
    pub(crate) rtt_min_ns: Option<u64>,
    /// Median.
    pub(crate) rtt_median_ns: Option<u64>,
    /// 95th percentile.
    pub(crate) rtt_p95_ns: Option<u64>,
    /// Longest.
    pub(crate) rtt_max_ns: Option<u64>,
    /// Of each half second how many left and how many of them were answered.
    pub(crate) halves: Vec<(u64, u64)>,
    /// The regular pings of the same host that were sent meanwhile, where that is known.
    pub(crate) regular_sent: Option<u64>,
    /// Of these, the answered.
    pub(crate) regular_answered: Option<u64>,
    /// Whether the host seems to answer only so many echoes a second.
    pub(crate) limits_answers: bool,
}

impl CloseLook {
    fn of(at_ns: i64, e: Echoes) -> Self {
        let silence_at = e
            .silence_after_ns
            .map(|after_ns| Time(at_ns.saturating_add_unsigned(after_ns)));
        Self {
            at: Time(at_ns),
            limits_answers: e.is_limited(),
            interface: e.interface,
            target: e.target,
            address: e.address.to_string(),
            sent: e.sent,
            answered: e.answered,
            refused: e.refused,
            unsent: e.unsent,
            runs: e.runs,
            silence_at,
            silence_ns: e.silence_ns,
            rtt_min_ns: e.rtt_min_ns,
            rtt_median_ns: e.rtt_median_ns,
            rtt_p95_ns: e.rtt_p95_ns,
            rtt_max_ns: e.rtt_max_ns,
            halves: e.halves,
            regular_sent: e.regular_sent,
            regular_answered: e.regular_answered,
        }
    }

    /// `vienna left 140 of 200 unanswered, in one silence of 7.00 s`.
    fn found(&self, time: &impl Fn(Time) -> String) -> String {
        let Self {
            target,
            sent,
            answered,
            ..
        } = self;
        if self.sent == 0 {
            return format!("none could be sent to {target}");
        }
        let unanswered = self.sent.saturating_sub(self.answered);
        let mut text = match (answered, unanswered) {
            (_, 0) => format!("{target} answered all {sent}"),
            (0, _) => format!("{target} answered none of {sent}"),
            _ => format!("{target} left {unanswered} of {sent} unanswered"),
        };
        if let (Some(at), Some(ns)) = (self.silence_at, self.silence_ns)
            && self.answered > 0
        {
            text.push_str(&match self.runs {
                1 => format!(", in one silence of {} from {} on", delay(ns), time(at)),
                runs => format!(
                    ", in {runs} silences, the longest of {} from {} on",
                    delay(ns),
                    time(at)
                ),
            });
        }
        if let (Some(median), Some(max)) = (self.rtt_median_ns, self.rtt_max_ns) {
            text.push_str(&format!(
                " (median {}, the slowest {})",
                delay(median),
                delay(max)
            ));
        }
        if self.refused > 0 {
            text.push_str(&format!(
                ", and of {} of them somebody on the way said that they do not get there",
                self.refused
            ));
        }
        if self.unsent > 0 {
            text.push_str(&format!("; {} more could not be sent", self.unsent));
        }
        if let (Some(regular), Some(of_them)) = (self.regular_sent, self.regular_answered)
            && unanswered > 0
        {
            let pings = plural(regular, "regular ping", "regular pings");
            text.push_str(&if self.limits_answers {
                format!(
                    "; it answered all of its {pings} of that time, and so seems to limit how many echoes it \
                     answers, which is no loss of the line"
                )
            } else {
                let were = if of_them == 1 { "was" } else { "were" };
                format!("; of its {pings} of that time {of_them} {were} answered")
            });
        }
        text
    }
}

/// What looks found that began together, at one or more hosts: `quick echoes: gateway answered all 200; …`.
pub(super) fn found(looks: &[&CloseLook], time: impl Fn(Time) -> String) -> String {
    let hosts: Vec<String> = looks.iter().map(|l| l.found(&time)).collect();
    format!("quick echoes: {}", hosts.join("; "))
}

/// Puts to each event the close looks that were made because of it.
pub(super) fn put_to(
    events: &mut [Event],
    reader: &Reader,
    range: Range,
) -> Result<(), StoreError> {
    let Some(first) = events.iter().filter_map(|e| e.start).min() else {
        return Ok(());
    };
    let from_ns = first.0.saturating_sub(AROUND_NS);
    for known in reader.echoes(from_ns, range.to_ns.saturating_add(AROUND_NS))? {
        let of = known.echoes.events.clone();
        let told = CloseLook::of(known.at_ns, known.echoes);
        let own = events
            .iter_mut()
            .filter(|e| of.iter().any(|id| id.0 == e.id));
        own.for_each(|e| e.close_looks.push(told.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn look(target: &str, answered: u64) -> CloseLook {
        CloseLook {
            at: Time(0),
            interface: "eth0".into(),
            target: target.into(),
            address: "192.0.2.1".into(),
            sent: 200,
            answered,
            refused: 0,
            unsent: 0,
            runs: 0,
            silence_at: None,
            silence_ns: None,
            rtt_min_ns: Some(MS),
            rtt_median_ns: Some(2 * MS),
            rtt_p95_ns: Some(3 * MS),
            rtt_max_ns: Some(30 * MS),
            halves: vec![(10, 10); 20],
            regular_sent: None,
            regular_answered: None,
            limits_answers: false,
        }
    }

    fn said(looks: &[&CloseLook]) -> String {
        found(looks, |t| format!("{} s", t.0 / 1_000_000_000)).replace('\u{a0}', " ")
    }

    #[test]
    fn hosts_of_one_look_are_one_sentence_and_loss_is_told_with_care() {
        let gateway = look("gateway", 200);
        let mut far = look("far", 60);
        far.runs = 1;
        far.silence_at = Some(Time(3_000_000_000));
        far.silence_ns = Some(7_000 * MS);
        far.unsent = 2;
        assert_eq!(
            said(&[&gateway, &far]),
            "quick echoes: gateway answered all 200 (median 2.00 ms, the slowest 30.0 ms); far left 140 of 200 \
             unanswered, in one silence of 7.00 s from 3 s on (median 2.00 ms, the slowest 30.0 ms); 2 more could \
             not be sent"
        );
        (far.unsent, far.runs, far.refused) = (0, 4, 5);
        (far.regular_sent, far.regular_answered) = (Some(10), Some(4));
        assert_eq!(
            said(&[&far]),
            "quick echoes: far left 140 of 200 unanswered, in 4 silences, the longest of 7.00 s from 3 s on (median \
             2.00 ms, the slowest 30.0 ms), and of 5 of them somebody on the way said that they do not get there; of \
             its 10 regular pings of that time 4 were answered"
        );
        (far.refused, far.regular_answered, far.limits_answers) = (0, Some(10), true);
        let limited = said(&[&far]);
        assert!(
            limited.ends_with(
                "; it answered all of its 10 regular pings of that time, and so seems to limit how many echoes it \
                 answers, which is no loss of the line"
            ),
            "{limited}"
        );
        let mut none = look("far", 0);
        (none.rtt_median_ns, none.rtt_max_ns) = (None, None);
        (none.runs, none.silence_at, none.silence_ns) = (1, Some(Time(0)), Some(10_000 * MS));
        assert_eq!(said(&[&none]), "quick echoes: far answered none of 200");
        none.sent = 0;
        assert_eq!(said(&[&none]), "quick echoes: none could be sent to far");
    }
}
