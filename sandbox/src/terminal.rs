//! A terminal of the sandbox's own: nothing that happens in it reaches the caller's but what the caller copies.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::driver::Size;

/// The caller's end of the command's terminal.
#[derive(Debug)]
pub struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    /// A terminal, and the command's end of it.
    pub(crate) fn open(size: Size) -> io::Result<(Self, OwnedFd)> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        // By descriptor, not by name: a name in /dev/pts may mean another mount's.
        let theirs =
            ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe; an OwnedFd never changes its number, which is all that is asked"
        )]
        let terminal = Self(AsyncFd::new(ours)?);
        terminal.resize(size)?;
        Ok((terminal, theirs))
    }

    /// Tells the command that the terminal has another size.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        set_size(self.0.get_ref(), size)
    }

    /// Its size alone.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn window(&self) -> io::Result<Window> {
        Ok(Window(self.0.get_ref().try_clone()?))
    }
}

/// The size of a [`Terminal`], for whoever has given away its ends.
#[derive(Debug)]
pub struct Window(OwnedFd);

impl Window {
    /// Tells the command that the terminal has another size.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        set_size(&self.0, size)
    }
}

fn set_size(terminal: &OwnedFd, size: Size) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match ready.try_io(|terminal| Ok(rustix::io::read(terminal.get_ref(), &mut *unfilled)?)) {
                Ok(Ok(read)) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                // Nobody holds the other end any more: the end of the output.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            if let Ok(result) = ready.try_io(|terminal| Ok(rustix::io::write(terminal.get_ref(), bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
