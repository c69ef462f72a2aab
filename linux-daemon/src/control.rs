//! The control socket: one JSON object per line, each way.
//!
//! | command | answer |
//! |---|---|
//! | `{"cmd":"status"}` | `status`: a [`Status`](crate::Status) |
//! | `{"cmd":"targets"}` | `series` of the status as `targets`, and its `troubles` |
//! | `{"cmd":"commit"}` | once everything so far is durable |
//! | `{"cmd":"reload"}` | once the configuration was read again, as on SIGHUP |
//! | `{"cmd":"test"}`, with the fields of a [`TestWish`] | lines with `progress`, then one with `test` |
//!
//! Every answer has `ok`; where that is false, `error` says why, and `unknown` is true where a test was
//! to use a reflector or an interface that is not there. A test is cut off when its client
//! hangs up or says anything.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::http;
use crate::load::{TestNews, TestWish, Tests};
use crate::metrics::Source;
use crate::recorder::Order;

/// Longest command, bytes.
const LONGEST: u64 = 4096;
/// A commit that takes longer than this is said to have failed.
const COMMIT_PATIENCE: Duration = Duration::from_secs(20);

/// What the control thread works with.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) source: Source,
    pub(crate) orders: SyncSender<Order>,
    pub(crate) reload: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    pub(crate) tests: Tests,
}

#[derive(Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    Status,
    Targets,
    Commit,
    Reload,
    Test(TestWish),
}

/// Listens at `path`, and with the live page at `page`, until `stop` says so.
pub(crate) fn serve(
    path: &Path,
    page: Option<SocketAddr>,
    control: Control,
    stop: tokio::sync::oneshot::Receiver<()>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let listener = bind(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let path = path.to_owned();
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let listener = match UnixListener::from_std(listener) {
                    Ok(l) => l,
                    Err(e) => return log::error!("{}: {e}", path.display()),
                };
                if let Some(listen) = page {
                    tokio::task::spawn_local(http::serve(listen, control.source.clone()));
                }
                tokio::select! {
                    () = accept(&listener, &control) => {}
                    _ = stop => {}
                }
                remove(&path);
            });
        })
}

fn bind(path: &Path) -> std::io::Result<std::os::unix::net::UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    // A socket that nobody answers at is left from a run that was killed.
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name("bufferbane") {
        // Only root or a member of the group may; anybody else keeps the socket to themselves.
        let _ = nix::unistd::chown(path, None, Some(group.gid));
    }
    Ok(listener)
}

fn remove(path: &PathBuf) {
    if let Err(e) = std::fs::remove_file(path) {
        log::warn!("{}: {e}", path.display());
    }
}

async fn accept(listener: &UnixListener, control: &Control) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = control.clone();
                tokio::task::spawn_local(async move {
                    // Whoever hangs up in between needs no answer.
                    let _ = talk(stream, &control).await;
                });
            }
            Err(e) => {
                log::warn!("control socket: {e}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn talk(stream: UnixStream, control: &Control) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(LONGEST));
    let mut line = String::new();
    while lines.read_line(&mut line).await? > 0 {
        let mut answer = match serde_json::from_str::<Request>(&line) {
            Ok(Request::Test(wish)) => test(wish, control, lines.get_mut(), &mut write).await?,
            Ok(request) => answer(request, control).await,
            Err(e) => failure(&format!("not a command: {e}")),
        }
        .to_string();
        answer.push('\n');
        write.write_all(answer.as_bytes()).await?;
        line.clear();
        lines.get_mut().set_limit(LONGEST);
    }
    Ok(())
}

/// Runs a throughput test: a line each time there is news, the last of which has `test`. Whoever
/// hangs up or says anything meanwhile cuts it off.
async fn test(
    wish: TestWish,
    control: &Control,
    read: &mut (impl AsyncReadExt + Unpin),
    write: &mut (impl AsyncWriteExt + Unpin),
) -> std::io::Result<Value> {
    let mut news = control.tests.run(wish);
    let mut byte = [0];
    loop {
        let next = tokio::select! {
            next = news.recv() => next,
            _ = read.read(&mut byte) => return Ok(failure("it was cut off")),
        };
        match next {
            Some(TestNews::Progress(progress)) => {
                let mut line = json!({ "ok": true, "progress": progress }).to_string();
                line.push('\n');
                write.write_all(line.as_bytes()).await?;
            }
            Some(TestNews::Done(test)) => return Ok(json!({ "ok": true, "test": test })),
            Some(TestNews::Failed(why)) => return Ok(failure(&why)),
            Some(TestNews::Unknown(why)) => {
                return Ok(json!({ "ok": false, "error": why, "unknown": true }));
            }
            None => return Ok(failure("the daemon is ending")),
        }
    }
}

async fn answer(request: Request, control: &Control) -> Value {
    let Some(status) = control.source.status() else {
        return failure("the daemon is ending");
    };
    match request {
        Request::Status => json!({ "ok": true, "status": status }),
        Request::Targets => json!({
            "ok": true, "targets": status.series, "troubles": status.troubles,
        }),
        Request::Commit => {
            let orders = control.orders.clone();
            let done = tokio::task::spawn_blocking(move || {
                let (sender, receiver) = sync_channel(1);
                orders
                    .send(Order::Commit(sender))
                    .map_err(|_| "the daemon is ending".to_owned())?;
                receiver
                    .recv_timeout(COMMIT_PATIENCE)
                    .unwrap_or_else(|_| Err("the recorder did not answer in time".into()))
            });
            match done.await {
                Ok(Ok(())) => json!({ "ok": true }),
                Ok(Err(why)) => failure(&why),
                Err(e) => failure(&e.to_string()),
            }
        }
        // Told line by line by whoever reads the commands.
        Request::Test(_) => failure("a test is no single answer"),
        Request::Reload => match (control.reload)() {
            Ok(()) => json!({ "ok": true }),
            Err(why) => failure(&why),
        },
    }
}

fn failure(why: &str) -> Value {
    json!({ "ok": false, "error": why })
}
