//! One hook: a thread that delivers alerts in the order they came, and tries again what failed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use bufferbane_linux_io::clock;
use bufferbane_store::{Event, EventId};

use super::config::{HookConfig, To};
use super::debounce::Debounce;
use super::deliver;
use super::{Alert, News};

/// Alerts that wait for a hook; one that is full loses the newest.
const WAITING: usize = 64;
/// The first pause after a failure; each further one is twice as long, up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// An alert that could not be delivered in so many tries (three quarters of an hour, about) is given up.
const TRIES: u32 = 18;

/// How often it is looked whether a hook has taken everything.
const LOOK: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct Hook {
    config: HookConfig,
    queue: SyncSender<Alert>,
    debounce: Debounce,
    /// Alerts that were handed over, and are neither delivered nor given up.
    left: Arc<AtomicU64>,
    lost: u64,
    untold: Untold,
}

/// Events whose begin did not come through, the latest.
#[derive(Default)]
struct Untold(VecDeque<u64>);

impl Untold {
    /// An alert is lost.
    fn lose(&mut self, alert: &Alert) {
        if alert.phase == News::Begin {
            if self.0.len() >= WAITING {
                self.0.pop_front();
            }
            self.0.push_back(alert.id);
        }
    }

    /// An alert is to be delivered: an end says where nothing was heard before.
    fn mark(&mut self, alert: &mut Alert) {
        if let Some(n) = self.0.iter().position(|id| *id == alert.id) {
            alert.begin_lost |= alert.phase == News::End;
            self.0.remove(n);
        }
    }
}

impl Hook {
    pub(super) fn start(config: &HookConfig) -> Option<Self> {
        let (queue, alerts) = sync_channel(WAITING);
        let to = config.to.clone();
        let left = Arc::<AtomicU64>::default();
        let of_thread = Arc::clone(&left);
        std::thread::Builder::new()
            .name("hook".into())
            .spawn(move || work(&to, &alerts, PAUSE, &of_thread))
            .map_err(|e| log::error!("{} gets no alerts: no thread for it: {e}", config.to))
            .ok()?;
        Some(Self {
            config: config.clone(),
            queue,
            debounce: Debounce::new(config.every_ns),
            left,
            lost: 0,
            untold: Untold::default(),
        })
    }

    pub(super) const fn config(&self) -> &HookConfig {
        &self.config
    }

    /// An event of the run before lasts, for all that is known: if it is one for this hook, it was told its begin.
    pub(super) fn recall(&mut self, id: EventId, event: &Event) {
        if self.config.wants(&event.kind, event.severity) {
            self.debounce.recall(id, event.severity);
        }
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

    /// Ends: what was handed over has until then to be delivered, and what is left is counted and lost. What was held back
    /// and lasts is told now, as the next run tells its end.
    pub(super) fn finish(mut self, until: Instant) {
        for alert in self.debounce.rest() {
            self.queue(alert);
        }
        let Self {
            config,
            queue,
            left,
            ..
        } = self;
        drop(queue);
        while left.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        let left = left.load(Ordering::Acquire);
        if left > 0 {
            log::error!(
                "{left} alerts for {} are lost: they were not delivered before the end",
                config.to
            );
        }
    }

    fn queue(&mut self, mut alert: Alert) {
        self.untold.mark(&mut alert);
        self.left.fetch_add(1, Ordering::AcqRel);
        if let Err(TrySendError::Full(alert) | TrySendError::Disconnected(alert)) =
            self.queue.try_send(alert)
        {
            self.left.fetch_sub(1, Ordering::AcqRel);
            self.untold.lose(&alert);
            self.lost += 1;
            log::error!(
                "{} is behind: {} alerts could not be handed to it",
                self.config.to,
                self.lost
            );
        }
    }
}

/// Delivers until the hook is gone, and what waits then with no further pauses.
fn work(to: &To, alerts: &Receiver<Alert>, pause: Duration, left: &AtomicU64) {
    let mut waiting: VecDeque<Alert> = VecDeque::new();
    let mut untold = Untold::default();
    loop {
        let mut alert = match waiting.pop_front() {
            Some(alert) => alert,
            None => match alerts.recv() {
                Ok(alert) => alert,
                Err(_) => return,
            },
        };
        untold.mark(&mut alert);
        let mut lose = |alert: &Alert, why: &str| {
            log::error!("the alert of {} to {to} is lost: {why}", alert.kind);
            untold.lose(alert);
            left.fetch_sub(1, Ordering::AcqRel);
        };
        let mut more = |until: Instant| {
            loop {
                let patience = until.saturating_duration_since(Instant::now());
                match alerts.recv_timeout(patience) {
                    Ok(next) if waiting.len() < WAITING => waiting.push_back(next),
                    Ok(next) => lose(&next, "too many wait"),
                    Err(RecvTimeoutError::Timeout) => return true,
                    Err(RecvTimeoutError::Disconnected) => return false,
                }
            }
        };
        match deliver_one(to, &alert, pause, &mut more) {
            Ok(()) => {
                left.fetch_sub(1, Ordering::AcqRel);
            }
            Err(why) => lose(&alert, &why),
        }
    }
}

/// Delivers one alert; `more` takes in others until then, and says whether there is a hook yet.
///
/// # Errors
/// Why it is given up.
fn deliver_one(
    to: &To,
    alert: &Alert,
    mut pause: Duration,
    more: &mut dyn FnMut(Instant) -> bool,
) -> Result<(), String> {
    let json = serde_json::to_vec(alert).map_err(|e| format!("it is no JSON: {e}"))?;
    let mut tries = 0;
    loop {
        tries += 1;
        let done = match to {
            To::Program(program) => deliver::run(program, &json),
            To::Endpoint(endpoint) => endpoint.post(&json),
        };
        let Err(why) = done else {
            if tries > 1 {
                log::info!("the alert of {} is delivered, at try {tries}", alert.kind);
            }
            return Ok(());
        };
        if tries == TRIES {
            return Err(why);
        }
        if tries == 1 {
            log::warn!("the alert of {} is tried again: {why}", alert.kind);
        }
        if !more(Instant::now() + pause) {
            return Err(format!("the hook ends, and {why}"));
        }
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
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
        let left = AtomicU64::new(2);
        let pause = Duration::from_millis(10);
        let hook = std::thread::spawn(move || work(&to, &alerts, pause, &left));
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

    /// What can be delivered is, and of the rest it is known that it is lost.
    #[test]
    fn at_the_end_each_alert_is_tried_once_more_without_pauses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = endpoint(&listener);
        let (queue, alerts) = sync_channel(WAITING);
        for id in 0..3 {
            queue.send(example(News::Begin, id)).unwrap();
        }
        drop(queue);
        let serving = std::thread::spawn(move || {
            let answers = ["200 OK", "503 Service Unavailable", "200 OK"];
            answers.map(|answer| serve(&listener, answer)["id"].as_u64())
        });
        let left = AtomicU64::new(3);
        work(&to, &alerts, Duration::from_secs(3600), &left);
        assert_eq!(left.load(Ordering::Acquire), 0);
        assert_eq!(serving.join().unwrap(), [Some(0), Some(1), Some(2)]);
    }

    #[test]
    fn a_hook_that_takes_nothing_holds_up_no_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut hook = Hook::start(&everything_from(Severity::Warning, &listener)).unwrap();
        hook.tell(&example(News::Begin, 1));
        let left = Arc::clone(&hook.left);
        hook.finish(Instant::now() + 2 * LOOK);
        assert_eq!(left.load(Ordering::Acquire), 1);
    }

    /// Its end is told by the next run, which is no first word then.
    #[test]
    fn what_was_held_back_and_lasts_is_told_at_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let seldom = HookConfig {
            every_ns: 3_600_000_000_000,
            ..everything_from(Severity::Warning, &listener)
        };
        let mut hook = Hook::start(&seldom).unwrap();
        for (id, phase) in [
            (1, News::Begin),
            (2, News::Begin),
            (2, News::End),
            (3, News::Begin),
        ] {
            hook.tell(&example(phase, id));
        }
        let left = Arc::clone(&hook.left);
        assert_eq!(left.load(Ordering::Acquire), 1);
        hook.finish(Instant::now() + 2 * LOOK);
        assert_eq!(left.load(Ordering::Acquire), 2);
    }

    #[test]
    fn who_did_not_hear_of_a_begin_is_told_so_with_the_end() {
        let mut untold = Untold::default();
        let mut marked = |phase, id| {
            let mut alert = example(phase, id);
            untold.mark(&mut alert);
            if phase == News::Begin {
                untold.lose(&alert);
            }
            alert.begin_lost
        };
        assert!(!marked(News::Begin, 1) && !marked(News::Begin, 2));
        assert!(!marked(News::End, 3) && marked(News::End, 1));
        // It is worse, and that came through.
        let mut worse = example(News::Begin, 2);
        untold.mark(&mut worse);
        let mut end = example(News::End, 2);
        untold.mark(&mut end);
        assert!(!worse.begin_lost && !end.begin_lost);
        for id in 10..10 + 2 * WAITING as u64 {
            untold.lose(&example(News::Begin, id));
        }
        assert_eq!(untold.0.len(), WAITING);
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
