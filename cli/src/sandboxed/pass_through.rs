//! A command in a sandbox, with the terminal or the pipes of whoever runs it.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use keyferry_sandbox::{Attach, Attached, Exit, Signal, Window};
use rustix::process::{Signal as Number, getpid, kill_process};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Made;
use super::raw::{self, RawTerminal};
use crate::failure::Failure;
use crate::service::Service;
use crate::terminal;

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// Otherwise somebody else must take back what is left.
    pub(crate) nothing_is_left: bool,
}

/// What a command that is told to end may take.
const GRACE: Duration = Duration::from_secs(10);
/// What is read at a time.
const CHUNK: usize = 32 * 1024;

/// Runs the command to its end, and removes the sandbox.
pub(crate) async fn pass_through(mut made: Made<'_>, service: &Service) -> Result<Ended, Failure> {
    // Before the command starts: a signal in between must not leave it behind.
    let mut arriving = Arriving::listen().map_err(|error| Failure::fatal(format!("signals: {error}")))?;
    let ended = {
        let ran = run(&mut made, &mut arriving);
        tokio::select! {
            ended = ran => ended,
            never = service.keep_up() => match never {},
        }
    };
    let deleted = match service.ensure().await {
        Ok(()) => made.delete().await,
        Err(failure) => Err(failure),
    };
    let exit = ended?;
    let nothing_is_left = deleted.is_ok();
    if let Err(failure) = deleted {
        terminal::warning(&format!("something of the sandbox is left for now: {}", failure.message()));
    }
    Ok(Ended { exit, nothing_is_left })
}

async fn run(made: &mut Made<'_>, arriving: &mut Arriving) -> Result<Exit, Failure> {
    let attach = match RawTerminal::is_here() {
        true => Attach::Terminal(raw::size()),
        false => Attach::Pipes,
    };
    let attached = made.start(attach).await?;
    let mut output = JoinSet::new();
    let (window, raw) = match attached {
        Attached::Pipes(pipes) => {
            output.spawn(copy(pipes.stdout, own(rustix::stdio::stdout())?));
            output.spawn(copy(pipes.stderr, own(rustix::stdio::stderr())?));
            tokio::spawn(feed(pipes.stdin));
            (None, None)
        }
        Attached::Terminal(terminal) => {
            let failed = |error| Failure::fatal(format!("the terminal: {error}"));
            let stdout = own(rustix::stdio::stdout())?;
            let window = terminal.window().map_err(failed)?;
            let raw = RawTerminal::enter().map_err(failed)?;
            let (reader, writer) = tokio::io::split(terminal);
            output.spawn(copy(reader, stdout));
            tokio::spawn(feed(writer));
            (Some(window), Some(raw))
        }
    };
    let exit = until_the_end(made, arriving, window.as_ref(), raw.as_ref()).await;
    // Every process is gone, so the end of what they wrote is there; whoever does not take it may be told to.
    let written = async { while output.join_next().await.is_some() {} };
    tokio::select! {
        () = written => {}
        () = arriving.end() => {}
    }
    exit
}

/// Hands on what arrives until the command has ended.
async fn until_the_end(
    made: &mut Made<'_>,
    arriving: &mut Arriving,
    window: Option<&Window>,
    raw: Option<&RawTerminal>,
) -> Result<Exit, Failure> {
    let mut patience: Option<Instant> = None;
    loop {
        let arrival = tokio::select! {
            exit = made.wait() => return exit,
            arrival = arriving.next() => arrival,
            () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => {
                made.signal(Signal::Kill).await;
                return made.wait().await;
            }
        };
        match arrival {
            Arrival::Tell(signal @ (Signal::Terminate | Signal::HangUp)) => {
                patience = patience.or_else(|| Some(Instant::now() + GRACE));
                made.signal(signal).await;
            }
            Arrival::Tell(signal) => made.signal(signal).await,
            Arrival::Stop => {
                made.signal(Signal::Stop).await;
                raw.inspect(|raw| raw.suspend());
                let _ = kill_process(getpid(), Number::STOP);
                // Whoever let us go on goes on here.
                if let Some(raw) = raw {
                    let _ = raw.resume();
                }
                made.signal(Signal::Continue).await;
            }
            Arrival::Resized => {
                // The next change tries again.
                let _ = window.map(|window| window.resize(raw::size()));
            }
        }
    }
}

/// Something that arrived for the command.
enum Arrival {
    Tell(Signal),
    Stop,
    Resized,
}

/// The signals that are the command's. In a terminal, keys reach it by themselves.
struct Arriving {
    told: Vec<(Signal, Arrivals)>,
    stop: Arrivals,
    resized: Arrivals,
}

impl Arriving {
    fn listen() -> std::io::Result<Self> {
        let told = [
            (Signal::HangUp, SignalKind::hangup()),
            (Signal::Interrupt, SignalKind::interrupt()),
            (Signal::Quit, SignalKind::quit()),
            (Signal::Terminate, SignalKind::terminate()),
            (Signal::User1, SignalKind::user_defined1()),
            (Signal::User2, SignalKind::user_defined2()),
        ];
        let told = told.into_iter().map(|(meaning, kind)| Ok((meaning, signal(kind)?)));
        Ok(Self {
            told: told.collect::<std::io::Result<_>>()?,
            stop: signal(SignalKind::from_raw(Number::TSTP.as_raw()))?,
            resized: signal(SignalKind::window_change())?,
        })
    }

    /// Until this process is told to end.
    async fn end(&mut self) {
        while !matches!(
            self.next().await,
            Arrival::Tell(Signal::HangUp | Signal::Interrupt | Signal::Quit | Signal::Terminate)
        ) {}
    }

    async fn next(&mut self) -> Arrival {
        let Self { told, stop, resized } = self;
        let told = std::future::poll_fn(|context| {
            for (meaning, arrivals) in told.iter_mut() {
                if arrivals.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*meaning);
                }
            }
            std::task::Poll::Pending
        });
        tokio::select! {
            meaning = told => Arrival::Tell(meaning),
            _ = stop.recv() => Arrival::Stop,
            _ = resized.recv() => Arrival::Resized,
        }
    }
}

/// Unbuffered, unlike the standard library's own.
fn own(descriptor: BorrowedFd<'_>) -> Result<File, Failure> {
    let owned = descriptor.try_clone_to_owned();
    let owned = owned.map_err(|error| Failure::fatal(format!("the output: {error}")))?;
    Ok(File::from_std(owned.into()))
}

/// To the end of what is read, or of whoever reads it: then the command learns by its pipe.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.flush().await;
}

/// Hands on what this process reads, to its end. In a thread of its own: reading may wait for ever, and must not keep the end waiting.
async fn feed(mut to: impl AsyncWrite + Unpin) {
    let (sender, mut pieces) = mpsc::channel::<Vec<u8>>(4);
    let reader = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) if sender.blocking_send(buffer[..length].to_vec()).is_err() => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    if reader.is_err() {
        return;
    }
    while let Some(piece) = pieces.recv().await {
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    // Dropping it is the end of the command's input; a terminal has none.
}
