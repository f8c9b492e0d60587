//! A thread that starts processes and does nothing else. They die with the thread that started them, not with its process: a runtime
//! ends its threads when it likes.

use std::io;
use std::sync::mpsc;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Ends, and what it started with it, when it is dropped.
#[derive(Debug)]
pub(super) struct Spawner {
    orders: mpsc::Sender<Order>,
}

struct Order {
    command: Command,
    runtime: Handle,
    answer: oneshot::Sender<io::Result<Child>>,
}

impl Spawner {
    pub(super) fn start() -> io::Result<Self> {
        let (orders, arriving) = mpsc::channel::<Order>();
        std::thread::Builder::new().name("sandboxes".to_owned()).spawn(move || {
            for Order { mut command, runtime, answer } in arriving {
                let _guard = runtime.enter();
                // Whoever asked and went away is answered by the child's end.
                let _ = answer.send(command.spawn());
            }
        })?;
        Ok(Self { orders })
    }

    pub(super) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts sandboxes has ended");
        self.orders.send(Order { command, runtime: Handle::current(), answer }).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
