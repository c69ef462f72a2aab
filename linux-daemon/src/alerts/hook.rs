//! One hook: a thread that delivers alerts in the order they came, and tries again what failed.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bufferbane_linux_io::clock;

use super::config::{HookConfig, To};
use super::debounce::Debounce;
use super::deliver;
use super::{Alert, News};

/// Alerts that wait for a hook; one that is full loses the newest.
const WAITING: usize = 64;
/// The first pause after a failure; each further one is twice as long, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// An alert that could not be delivered in so many tries (an hour, about) is given up.
const TRIES: u32 = 18;

/// See the module.
pub(super) struct Hook {
    config: HookConfig,
    queue: SyncSender<Alert>,
    debounce: Debounce,
    lost: u64,
}

impl Hook {
    pub(super) fn start(config: &HookConfig) -> Option<Self> {
        let (queue, alerts) = sync_channel(WAITING);
        let to = config.to.clone();
        std::thread::Builder::new()
            .name("hook".into())
            .spawn(move || work(&to, &alerts, PAUSE))
            .map_err(|e| log::error!("{} gets no alerts: no thread for it: {e}", config.to))
            .ok()?;
        Some(Self {
            config: config.clone(),
            queue,
            debounce: Debounce::new(config.every_ns),
            lost: 0,
        })
    }

    pub(super) const fn config(&self) -> &HookConfig {
        &self.config
    }

    /// Takes an alert, if it is one for this hook; never waits.
    pub(super) fn tell(&mut self, alert: &Alert) {
        // The end of what was told is told, however bad it is by then.
        if alert.phase == News::Begin && !self.config.wants(&alert.kind, alert.severity) {
            return;
        }
        let now_ns = clock::now().as_nanos();
        if let Some(alert) = self.debounce.pass(alert.clone(), now_ns) {
            self.queue(alert);
        }
    }

    /// Takes what was told before, and not at once because the same trouble just had been; never waits.
    pub(super) fn tick(&mut self, now_ns: u64) {
        while let Some(alert) = self.debounce.due(now_ns) {
            self.queue(alert);
        }
    }

    fn queue(&mut self, alert: Alert) {
        if self.queue.try_send(alert).is_err() {
            self.lost += 1;
            log::error!(
                "{} is behind: {} alerts could not be handed to it",
                self.config.to,
                self.lost
            );
        }
    }
}

/// Delivers until the hook is gone.
fn work(to: &To, alerts: &Receiver<Alert>, pause: Duration) {
    let mut waiting: VecDeque<Alert> = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match alerts.recv() {
                Ok(alert) => waiting.push_back(alert),
                Err(_) => return,
            }
        }
        let Some(alert) = waiting.pop_front() else {
            continue;
        };
        if !deliver_one(to, &alert, alerts, &mut waiting, pause) {
            return;
        }
    }
}

/// Delivers one alert, with pauses in which others may come; `false` once the hook is gone.
fn deliver_one(
    to: &To,
    alert: &Alert,
    alerts: &Receiver<Alert>,
    waiting: &mut VecDeque<Alert>,
    mut pause: Duration,
) -> bool {
    let json = match serde_json::to_vec(alert) {
        Ok(json) => json,
        Err(e) => {
            log::error!("an alert cannot be written as JSON: {e}");
            return true;
        }
    };
    for tries in 1..=TRIES {
        let done = match to {
            To::Program(program) => deliver::run(program, &json),
            To::Endpoint(endpoint) => endpoint.post(&json),
        };
        let Err(why) = done else {
            if tries > 1 {
                log::info!("the alert of {} is delivered, at try {tries}", alert.kind);
            }
            return true;
        };
        if tries == TRIES {
            log::error!("the alert of {} is given up: {why}", alert.kind);
            return true;
        }
        if tries == 1 {
            log::warn!("the alert of {} is tried again: {why}", alert.kind);
        }
        let until = Instant::now() + pause;
        pause = (2 * pause).min(LONGEST_PAUSE);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match alerts.recv_timeout(left) {
                Ok(next) if waiting.len() < WAITING => waiting.push_back(next),
                Ok(next) => log::error!("the alert of {} is lost: too many wait", next.kind),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use bufferbane_store::Severity;

    use super::super::config::HookConfig;
    use super::super::deliver::Endpoint;
    use super::super::example;
    use super::*;
    use crate::tls::Roots;
    use crate::url::Url;

    fn endpoint(listener: &TcpListener) -> To {
        let url = format!("http://{}/alerts", listener.local_addr().unwrap());
        To::Endpoint(Endpoint {
            url: Url::parse(&url, "").unwrap(),
            roots: Roots::Public,
        })
    }

    /// Takes a request and answers it: its JSON.
    fn serve(listener: &TcpListener, status: &str) -> serde_json::Value {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut length, mut line) = (0, String::new());
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "POST /alerts HTTP/1.1\r\n");
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let line = line.to_lowercase();
            if let Some(n) = line.strip_prefix("content-length: ") {
                length = n.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Each event of this severity or a graver one, at once.
    fn everything_from(least: Severity, listener: &TcpListener) -> HookConfig {
        HookConfig {
            to: endpoint(listener),
            kinds: Vec::new(),
            least,
            every_ns: 0,
        }
    }

    #[test]
    fn what_an_endpoint_refuses_comes_again_and_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = endpoint(&listener);
        let (queue, alerts) = sync_channel(WAITING);
        let hook = std::thread::spawn(move || work(&to, &alerts, Duration::from_millis(10)));
        queue.send(example(News::Begin, 1)).unwrap();
        queue.send(example(News::End, 1)).unwrap();
        let refused = serve(&listener, "503 Service Unavailable");
        assert_eq!(
            (&refused["phase"], &refused["id"]),
            (&"begin".into(), &1.into())
        );
        // A connection that breaks is a failure, too.
        drop(listener.accept().unwrap());
        assert_eq!(serve(&listener, "200 OK"), refused);
        assert_eq!(serve(&listener, "204 No Content")["phase"], "end");
        drop(queue);
        hook.join().unwrap();
    }

    #[test]
    fn the_end_of_what_was_told_is_told_however_little_it_is_by_then() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut hook = Hook::start(&everything_from(Severity::Warning, &listener)).unwrap();
        for (id, phase, severity) in [
            // Nobody waits for the end of this one.
            (1, News::Begin, Severity::Info),
            (1, News::End, Severity::Info),
            (2, News::Begin, Severity::Warning),
            (2, News::End, Severity::Info),
            (3, News::Begin, Severity::Warning),
        ] {
            let mut alert = example(phase, id);
            alert.severity = severity;
            hook.tell(&alert);
        }
        let told: Vec<_> = (0..3).map(|_| serve(&listener, "200 OK")).collect();
        let told: Vec<_> = told.iter().map(|t| (&t["id"], &t["phase"])).collect();
        let [two, three] = [2.into(), 3.into()];
        let [begin, end] = ["begin".into(), "end".into()];
        assert_eq!(told, [(&two, &begin), (&two, &end), (&three, &begin)]);
    }

    #[test]
    fn whoever_tells_never_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut hook = Hook::start(&everything_from(Severity::Warning, &listener)).unwrap();
        // Nobody answers: more than there is room for is counted, and that is all.
        for id in 0..3 * WAITING as u64 {
            hook.tell(&example(News::Begin, id));
        }
        assert!(hook.lost >= WAITING as u64, "{}", hook.lost);
        let mut minor = example(News::Begin, 1);
        minor.severity = Severity::Info;
        let lost = hook.lost;
        hook.tell(&minor);
        assert_eq!(hook.lost, lost);
    }
}
