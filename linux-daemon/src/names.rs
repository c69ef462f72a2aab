//! Addresses of names. They are resolved on a thread of their own: an answer may take seconds.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// How often names are asked for again.
const RESOLVE: Duration = Duration::from_secs(300);
/// How soon a name that could not be resolved is asked for again.
const RESOLVE_AGAIN: Duration = Duration::from_secs(10);

/// A name and the port that belongs to it.
type Question = (String, u16);
/// Its addresses, or why there are none.
type Answer = Result<Vec<SocketAddr>, String>;

/// See the module.
pub(crate) struct Resolver {
    ask: mpsc::Sender<Question>,
    answers: Receiver<(Question, Answer)>,
    known: HashMap<Question, Known>,
}

struct Known {
    addresses: Answer,
    asked: Instant,
    waiting: bool,
}

impl Resolver {
    pub(crate) fn start() -> Self {
        let (ask, questions) = mpsc::channel::<Question>();
        let (answer, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for (name, port) in questions {
                let found = (name.as_str(), port)
                    .to_socket_addrs()
                    .map(Iterator::collect)
                    .map_err(|e| format!("{name} cannot be resolved: {e}"));
                if answer.send(((name, port), found)).is_err() {
                    return;
                }
            }
        });
        Self {
            ask,
            answers,
            known: HashMap::new(),
        }
    }

    /// Takes in what was answered; whether there was anything new.
    pub(crate) fn has_news(&mut self) -> bool {
        let mut news = false;
        while let Ok((question, found)) = self.answers.try_recv() {
            if let Err(why) = &found {
                log::warn!("{why}");
            }
            if let Some(known) = self.known.get_mut(&question) {
                known.waiting = false;
                // An answer that fails does not make forget one that did not.
                if found.is_ok() || known.addresses.is_err() {
                    news |= known.addresses != found;
                    known.addresses = found;
                }
            }
        }
        news
    }

    /// The addresses of a name, as far as they are known by now.
    pub(crate) fn get(&mut self, name: &str, port: u16) -> Vec<SocketAddr> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return vec![SocketAddr::new(ip, port)];
        }
        let question = (name.to_owned(), port);
        let now = Instant::now();
        let known = self.known.entry(question.clone()).or_insert_with(|| Known {
            addresses: Err(format!("{name} is being resolved")),
            asked: now.checked_sub(RESOLVE).unwrap_or(now),
            waiting: false,
        });
        let after = if known.addresses.is_ok() {
            RESOLVE
        } else {
            RESOLVE_AGAIN
        };
        if !known.waiting && now.duration_since(known.asked) >= after {
            known.asked = now;
            // The thread lives as long as this end of its queue.
            known.waiting = self.ask.send(question).is_ok();
        }
        known.addresses.clone().unwrap_or_default()
    }

    pub(crate) fn troubles(&self) -> impl Iterator<Item = String> + '_ {
        self.known
            .values()
            .filter_map(|k| k.addresses.as_ref().err().cloned())
    }
}
