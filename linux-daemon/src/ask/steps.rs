//! How far a question came, and what its samples say of that.

use std::io;

use bufferbane_core::failure::Failure;
use bufferbane_core::limits::SENT_LATE_NS;
use bufferbane_core::sample::{Flags, Sample, Status};
use bufferbane_core::time::{ClockSource, Monotonic};
use bufferbane_linux_io::clock;
use nix::libc;

/// What became of a question, or of a step of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was answered, after so many ns.
    Answered(u64),
    /// The answer is that it is not answered.
    Failed(Failure),
    /// Nobody has answered, and it is known that nobody will.
    Silent,
    /// It could not be asked.
    Unsent(i32),
}

impl Outcome {
    /// What an error says that came once something had been sent.
    pub(super) fn of(e: &io::Error) -> Self {
        match errno(e) {
            _ if e.kind() == io::ErrorKind::UnexpectedEof => Self::Failed(Failure::CLOSED),
            n @ (libc::ECONNREFUSED | libc::ECONNRESET) => Self::Failed(Failure::errno(n)),
            // It was reset before.
            libc::EPIPE => Self::Failed(Failure::CLOSED),
            // A router's word that it cannot be reached, or this host's that nobody on the link has that
            // address, or that time is up: whoever was asked has not said anything.
            _ => Self::Silent,
        }
    }
}

/// A step of a question.
#[derive(Clone, Copy, Debug)]
struct Step {
    begun: Monotonic,
    outcome: Outcome,
}

/// The steps of a question, as far as it came.
#[derive(Debug)]
pub(super) struct Steps(Vec<Step>);

impl Steps {
    /// The first one begins.
    pub(super) fn begin() -> Self {
        let mut steps = Self(Vec::new());
        steps.next();
        steps
    }

    /// The next one begins. Until more is known of it, nobody has answered.
    pub(super) fn next(&mut self) {
        self.0.push(Step {
            begun: clock::now(),
            outcome: Outcome::Silent,
        });
    }

    /// The present one has ended so.
    pub(super) fn end(&mut self, outcome: Outcome) {
        if let Some(step) = self.0.last_mut() {
            step.outcome = outcome;
        }
    }

    /// The present one was answered now.
    pub(super) fn answered(&mut self) {
        if let Some(step) = self.0.last_mut() {
            step.outcome = Outcome::Answered(clock::now().saturating_since(step.begun));
        }
    }

    /// The samples of a question that came so far.
    pub(super) fn finish(&self, samples: &[Sample]) -> Vec<Sample> {
        let mut finished = Vec::with_capacity(samples.len());
        for (i, sample) in samples.iter().enumerate() {
            let mut sample = *sample;
            let outcome = match (self.0.get(i), self.0.last()) {
                (Some(step), _) if i == 0 => step.outcome,
                (Some(step), _) => {
                    sample.sent = step.begun;
                    step.outcome
                }
                (None, Some(last)) if i + 1 == samples.len() => last.outcome,
                _ => continue,
            };
            finished.push(finish(sample, outcome));
        }
        finished
    }
}

/// The sample of a step of which this became.
pub(super) fn finish(mut sample: Sample, outcome: Outcome) -> Sample {
    if let Outcome::Unsent(errno) = outcome {
        sample.status = Status::Unsent;
        sample.errno = u16::try_from(errno).unwrap_or(u16::MAX);
        return sample;
    }
    sample.tx_clock = ClockSource::User;
    if sample.send_late_ns > SENT_LATE_NS as i64 {
        sample.flags = sample.flags.with(Flags::SENT_LATE);
    }
    match outcome {
        Outcome::Answered(rtt_ns) => {
            (sample.status, sample.rtt_ns) = (Status::Ok, Some(rtt_ns));
            sample.rx_clock = ClockSource::User;
        }
        Outcome::Failed(why) => {
            (sample.status, sample.errno) = (Status::Ok, why.code());
            sample.rx_clock = ClockSource::User;
        }
        Outcome::Unsent(_) | Outcome::Silent => {}
    }
    sample
}

pub(super) fn errno(e: &io::Error) -> i32 {
    e.raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bufferbane_core::sample::SeriesIndex;

    fn sample(series: u16, seq: u64) -> Sample {
        Sample::lost(SeriesIndex(series), seq, Monotonic::from_nanos(5), 29)
    }

    #[test]
    fn the_last_step_always_has_a_sample_and_what_was_not_reached_has_none() {
        let samples = [sample(0, 1), sample(1, 1), sample(2, 1)];
        let mut steps = Steps::begin();
        let told = |steps: &Steps| -> Vec<(u16, Status, u16)> {
            let finished = steps.finish(&samples);
            finished
                .iter()
                .map(|s| (s.series.0, s.status, s.errno))
                .collect()
        };
        assert_eq!(told(&steps), [(0, Status::Lost, 0), (2, Status::Lost, 0)]);
        steps.end(Outcome::Unsent(101));
        let unsent = [(0, Status::Unsent, 101), (2, Status::Unsent, 101)];
        assert_eq!(told(&steps), unsent);
        steps.answered();
        steps.next();
        steps.end(Outcome::Failed(Failure::EXPIRED));
        let code = Failure::EXPIRED.code();
        let failed = [
            (0, Status::Ok, 0),
            (1, Status::Ok, code),
            (2, Status::Ok, code),
        ];
        assert_eq!(told(&steps), failed);
        steps.answered();
        steps.next();
        let silent = [(0, Status::Ok, 0), (1, Status::Ok, 0), (2, Status::Lost, 0)];
        assert_eq!(told(&steps), silent);
        let sent: Vec<Monotonic> = steps.finish(&samples).iter().map(|s| s.sent).collect();
        assert_eq!(sent, [samples[0].sent, steps.0[1].begun, steps.0[2].begun]);
    }

    #[test]
    fn every_question_ends_in_one_status() {
        let sample = sample(3, 7);
        let ends = |outcome| {
            let s = finish(sample, outcome);
            assert_eq!((s.seq, s.series), (7, SeriesIndex(3)));
            (s.status, s.rtt_ns, s.errno)
        };
        let failed = Outcome::Failed;
        assert_eq!(ends(Outcome::Silent), (Status::Lost, None, 0));
        let of = |errno| Outcome::of(&io::Error::from_raw_os_error(errno));
        for silent in [libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENETUNREACH] {
            assert_eq!(ends(of(silent)), (Status::Lost, None, 0));
        }
        assert_eq!(ends(of(111)), (Status::Ok, None, 111));
        assert_eq!(ends(of(104)), (Status::Ok, None, 104));
        assert_eq!(ends(of(libc::EPIPE)), ends(failed(Failure::CLOSED)));
        let early = Outcome::of(&io::ErrorKind::UnexpectedEof.into());
        assert_eq!(early, Outcome::Failed(Failure::CLOSED));
        assert_eq!(
            ends(failed(Failure::TRUNCATED)),
            (Status::Ok, None, Failure::TRUNCATED.code())
        );
        let answered = Outcome::Answered(9);
        assert_eq!(ends(answered), (Status::Ok, Some(9), 0));
        let unsent = Outcome::Unsent(101);
        assert_eq!(ends(unsent), (Status::Unsent, None, 101));
    }
}
