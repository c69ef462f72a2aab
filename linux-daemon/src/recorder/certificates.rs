//! Certificates that nobody accepts: an event for each server that shows one, until it shows a good one.

use bufferbane_core::sample::{Sample, SeriesIndex};
use bufferbane_core::time::Monotonic;
use bufferbane_store::{SeriesInfo, SeriesKind, Severity};

use super::{Fact, Recorder};

impl Recorder {
    /// What a handshake of TLS says of its server's certificate.
    pub(super) fn note_certificate(&mut self, sample: &Sample) {
        let Some((info, _)) = self.ids.get(&sample.series) else {
            return;
        };
        if info.kind != SeriesKind::Tls {
            return;
        }
        let name = name(info);
        let is_told = self.open_events.contains_key(&name);
        match sample.failure() {
            Some(why) if why.is_of_certificate() && !is_told => {
                let text = format!("{}: {why}, so that no program connects to it", info.target);
                log::warn!("{}: {text}", info.interface);
                let fact = Fact {
                    kind: "certificate_bad",
                    severity: Severity::Warning,
                    interface: info.interface.clone(),
                    target: Some(info.target.clone()),
                    text,
                    values: Vec::new(),
                };
                self.fact(sample.sent, Some(name), fact, true);
            }
            // Of one that was not shown nothing is known.
            None if sample.rtt_ns.is_some() && is_told => {
                log::info!(
                    "{}: the certificate of {} is good again",
                    info.interface,
                    info.target
                );
                self.end_fact(sample.sent, &name);
            }
            _ => {}
        }
    }

    /// A server is asked no more.
    pub(super) fn certificate_no_more(&mut self, now: Monotonic, index: SeriesIndex) {
        if let Some((info, _)) = self.ids.get(&index)
            && info.kind == SeriesKind::Tls
        {
            let name = name(info);
            self.end_fact(now, &name);
        }
    }
}

fn name(info: &SeriesInfo) -> String {
    format!(
        "certificate_bad {} {} {}",
        info.interface, info.target, info.address
    )
}

#[cfg(test)]
mod tests {
    use bufferbane_core::failure::Failure;
    use bufferbane_core::sample::{Observation, Status};

    use super::super::testing::{any_room, recorder, series};
    use super::*;
    use crate::recorder::Order;

    const SHOP: SeriesIndex = SeriesIndex(0);

    #[test]
    fn a_certificate_that_has_expired_is_told_once_until_a_good_one_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(&dir.path().join("store.redb"), any_room());
        let info = series(SeriesKind::Tls);
        recorder.obey(Order::Series(SHOP, info.clone()));
        let shake = |recorder: &mut Recorder, s: u64, why: Option<Failure>| {
            let mut sample = Sample::lost(SHOP, s, Monotonic::from_nanos(s * 1_000_000_000), 0);
            match why {
                None => (sample.status, sample.rtt_ns) = (Status::Ok, Some(20_000_000)),
                // Nobody answered.
                Some(Failure::CLOSED) => {}
                Some(why) => (sample.status, sample.errno) = (Status::Ok, why.code()),
            }
            recorder.obey(Order::Observation(Observation::New(sample)));
            let told = recorder.open_events.get(&name(&info));
            told.map(|(id, e)| (*id, e.start_ns / 1_000_000_000, e.text.clone()))
        };
        assert_eq!(shake(&mut recorder, 100, None), None);
        assert_eq!(shake(&mut recorder, 110, Some(Failure::TLS)), None);
        let told = shake(&mut recorder, 120, Some(Failure::EXPIRED)).unwrap();
        assert_eq!(
            (told.1, told.2.as_str()),
            (
                120,
                "far: certificate expired, so that no program connects to it"
            )
        );
        for why in [Failure::EXPIRED, Failure::CLOSED, Failure::OTHER_NAME] {
            assert_eq!(shake(&mut recorder, 130, Some(why)).as_ref(), Some(&told));
        }
        assert_eq!(shake(&mut recorder, 140, None), None);
        // One that is asked no more shows nothing.
        assert!(shake(&mut recorder, 150, Some(Failure::CERTIFICATE)).is_some());
        recorder.obey(Order::Forget(SHOP));
        assert!(recorder.open_events.is_empty());
    }
}
