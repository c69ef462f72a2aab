//! What sessions with reflectors tell: that one answers, or not, and where it sees us.

use std::collections::HashMap;
use std::net::SocketAddr;

use bufferbane_core::session::client::SessionEvent;
use bufferbane_core::time::Monotonic;
use bufferbane_store::Severity;

use super::{Fact, Recorder};
use crate::status::SeriesStatus;

/// What a session leads to, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    /// The interface it leaves by.
    pub(crate) interface: String,
    /// The reflector's name.
    pub(crate) target: String,
    /// 4 or 6.
    pub(crate) family: u8,
}

impl Session {
    /// Names its silence: that of the other family is another.
    fn silence(&self) -> String {
        let Self {
            interface,
            target,
            family,
        } = self;
        format!("reflector_lost {interface} {target} {family}")
    }

    fn fact(&self, kind: &'static str, severity: Severity, text: String) -> Fact {
        Fact {
            values: vec![("family", self.family.into())],
            kind,
            severity,
            interface: self.interface.clone(),
            target: Some(self.target.clone()),
            text,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By the number of their unit.
    units: HashMap<u32, Session>,
    /// Where each one's reflector saw us last; a unit that is made anew goes on with the session of another.
    seen_at: HashMap<Session, SocketAddr>,
}

impl Recorder {
    /// This unit speaks to a reflector from now on.
    pub(super) fn session_begins(&mut self, unit: u32, session: Session) {
        self.sessions.units.insert(unit, session);
    }

    /// And no longer: nobody will know when the reflector is back.
    pub(super) fn session_ends(&mut self, at: Monotonic, unit: u32) {
        if let Some(session) = self.sessions.units.remove(&unit) {
            self.end_fact_so(at, &session.silence(), "; it is no longer probed");
        }
    }

    pub(super) fn session_event(&mut self, unit: u32, at: Monotonic, event: SessionEvent) {
        if !self.sessions.units.contains_key(&unit) {
            // The order that names its reflector came before the unit, and may still wait.
            self.obey_all();
        }
        let Some(session) = self.sessions.units.get(&unit).cloned() else {
            return;
        };
        let Session {
            interface,
            target,
            family,
        } = &session;
        match event {
            SessionEvent::Established => {
                log::info!("{interface} {target}: the reflector answers over IPv{family}");
                self.end_fact(at, &session.silence());
            }
            SessionEvent::Lost => {
                let text = format!("{target} does not answer over IPv{family} through {interface}");
                log::warn!("{text}");
                let fact = session.fact("reflector_lost", Severity::Warning, text);
                self.fact(at, Some(session.silence()), fact, true);
            }
            SessionEvent::Back => {
                let text = format!("{target} answers over IPv{family} through {interface} again");
                log::info!("{text}");
                self.end_fact(at, &session.silence());
                let fact = session.fact("reflector_back", Severity::Info, text);
                self.fact(at, None, fact, false);
            }
            SessionEvent::RemoteRestarted => {
                let text = format!(
                    "{target} was restarted, as its IPv{family} session says: losses across it have no direction"
                );
                log::info!("{interface}: {text}");
                let mut fact = session.fact("reflector_back", Severity::Info, text);
                fact.values.push(("restarted", true.into()));
                self.fact(at, None, fact, false);
            }
            SessionEvent::AddressSeen {
                address,
                new_socket,
            } => self.seen_at(at, &session, address, new_socket),
            SessionEvent::RemoteClock { disciplined, set } => {
                let of_it = |s: &&mut SeriesStatus| {
                    s.kind == "udp" && s.interface == *interface && s.target == *target
                };
                for live in self.live.values_mut().filter(of_it) {
                    live.far_clock_disciplined = Some(disciplined);
                }
                let state = if disciplined { "is" } else { "is not" };
                log::info!("{interface}: the wall clock of {target} {state} synchronised");
                if set {
                    // Delays are of its monotonic clock.
                    log::info!("{interface}: the wall clock of {target} was set; no delay has it");
                }
            }
            SessionEvent::RemoteDrops(n) => {
                self.reflector_dropped(at, interface, target, n);
            }
        }
    }

    /// Another address is news; another port is, where our own is as it was.
    fn seen_at(&mut self, at: Monotonic, session: &Session, address: SocketAddr, new_socket: bool) {
        let known = &mut self.sessions.seen_at;
        let before = known.insert(session.clone(), address);
        let text = format!("{} sees {} at {address}", session.target, session.interface);
        log::info!("{text}");
        let is_news = |b: &SocketAddr| b.ip() != address.ip() || !new_socket;
        if let Some(before) = before.filter(is_news) {
            let text = format!("{text}, before that at {before}");
            let fact = session.fact("address_change", Severity::Info, text);
            self.fact(at, None, fact, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use bufferbane_linux_io::clock;
    use bufferbane_store::{Event, Reader};

    use super::super::Order;
    use super::super::testing::{any_room, recorder};
    use super::*;

    fn session(family: u8) -> Session {
        Session {
            interface: "wan".into(),
            target: "far".into(),
            family,
        }
    }

    /// The events of a recorder to which this happened.
    fn told(happens: impl FnOnce(&mut Recorder)) -> Vec<Event> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let mut recorder = recorder(&path, any_room());
        for (unit, family) in [(0, 4), (1, 6)] {
            recorder.obey(Order::Session(unit, session(family)));
        }
        happens(&mut recorder);
        recorder.finish(clock::now());
        let reader = Reader::open(&path).unwrap();
        let events = reader.events(i64::MIN, i64::MAX).unwrap();
        events.into_iter().map(|(_, event)| event).collect()
    }

    #[test]
    fn each_family_is_lost_and_back_by_itself() {
        let begun = clock::now();
        let at = |ms: u64| begun.saturating_add(ms * 1_000_000);
        let events = told(|r| {
            r.session_event(0, at(100), SessionEvent::Lost);
            r.session_event(1, at(200), SessionEvent::Lost);
            r.session_event(1, at(300), SessionEvent::Back);
            r.session_event(0, at(900), SessionEvent::Back);
            r.session_event(1, at(950), SessionEvent::Lost);
            r.session_event(1, at(960), SessionEvent::Back);
        });
        let lost = events.iter().filter(|e| e.kind == "reflector_lost");
        let lost: Vec<_> = lost
            .map(|e| {
                let end = e.end_ns.map(Monotonic::from_nanos);
                let start = Monotonic::from_nanos(e.start_ns);
                (e.text.as_str(), start, end, &e.values["family"])
            })
            .collect();
        let [four, six] = [4.into(), 6.into()];
        let text = "far does not answer over IPv4 through wan";
        assert_eq!(lost[0], (text, at(100), Some(at(900)), &four));
        let text = "far does not answer over IPv6 through wan (2 times)";
        assert_eq!(lost[1], (text, at(200), Some(at(960)), &six));
        assert_eq!(lost.len(), 2, "{events:?}");
    }

    #[test]
    fn silence_ends_with_the_session_that_would_have_told_of_its_end() {
        let begun = clock::now();
        let at = |ms: u64| begun.saturating_add(ms * 1_000_000);
        let events = told(|r| {
            r.session_event(0, at(100), SessionEvent::Lost);
            r.session_event(1, at(200), SessionEvent::Lost);
            r.obey(Order::SessionEnds(at(500), 0));
            // What it still says comes too late.
            r.session_event(0, at(600), SessionEvent::Lost);
            assert_eq!(r.open_events.len(), 1);
        });
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(events[0].end_ns, Some(at(500).as_nanos()));
        let text = "far does not answer over IPv4 through wan; it is no longer probed";
        assert_eq!(events[0].text, text);
    }

    #[test]
    fn a_new_port_of_our_own_is_no_other_address() {
        let seen = |address: &str, new_socket| SessionEvent::AddressSeen {
            address: address.parse().unwrap(),
            new_socket,
        };
        let now = clock::now();
        let events = told(|r| {
            r.session_event(0, now, seen("192.0.2.1:1", true));
            // The interface was down meanwhile.
            r.session_event(0, now, seen("192.0.2.1:2", true));
            // The unit is another.
            r.obey(Order::SessionEnds(now, 0));
            r.obey(Order::Session(2, session(4)));
            r.session_event(2, now, seen("192.0.2.1:3", true));
            // What it is over the other family is another matter.
            r.session_event(1, now, seen("[2001:db8::1]:3", true));
        });
        assert!(events.is_empty(), "{events:?}");
        let events = told(|r| {
            r.session_event(0, now, seen("192.0.2.1:1", true));
            // A NAT has given another port, and then another address at once with a new socket.
            r.session_event(0, now, seen("192.0.2.1:2", false));
            r.obey(Order::SessionEnds(now, 0));
            r.obey(Order::Session(2, session(4)));
            r.session_event(2, now, seen("192.0.2.9:3", true));
        });
        let [change] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(
            change.text,
            "far sees wan at 192.0.2.9:3, before that at 192.0.2.1:2 (2 changes)"
        );
        assert_eq!(
            change.values["earlier"][0],
            "far sees wan at 192.0.2.1:2, before that at 192.0.2.1:1"
        );
    }
}
