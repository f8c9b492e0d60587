//! Counts the requests that a client makes over HTTP/2, beside those that reach the service: the library refuses some by itself, and tells
//! nobody (invariant 12).
//!
//! Only the heads of frames are looked at (RFC 9113 section 4.1). What is in them is the library's to judge.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::Control;

/// What a client sends before its first frame (RFC 9113 section 3.4).
const PREFACE: usize = 24;
/// The head of a frame, and as much as is read of the payload of a GOAWAY: the last stream, and the code.
const HEAD: usize = 9;
const GO_AWAY_PAYLOAD: usize = 8;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GO_AWAY: u8 = 7;
/// The bits of a stream's number; the highest is reserved.
const STREAM_ID: u32 = u32::MAX >> 1;

/// Both directions of a connection.
#[derive(Debug)]
pub(crate) struct Frames<IO> {
    io: IO,
    control: Arc<Control>,
    read: Heads,
    written: Heads,
    /// The last stream that the client has opened.
    last: u32,
    /// The last one that we have not sent away in advance.
    limit: u32,
    /// Streams without an answer, which the client has not given up.
    unanswered: Vec<u32>,
}

/// The heads of the frames in bytes that come in any pieces.
#[derive(Debug, Default)]
struct Heads {
    bytes: [u8; HEAD + GO_AWAY_PAYLOAD],
    filled: usize,
    skip: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Headers(u32),
    Reset(u32),
    /// The last stream that counts, and why none after it does.
    GoAway(u32, u32),
    Other,
}

impl<IO> Frames<IO> {
    pub(crate) fn new(io: IO, control: Arc<Control>) -> Self {
        let read = Heads { skip: PREFACE, ..Heads::default() };
        let (written, unanswered) = (Heads::default(), Vec::new());
        Self { io, control, read, written, last: 0, limit: STREAM_ID, unanswered }
    }

    fn have_read(&mut self, bytes: &[u8]) {
        let Self { control, read, last, limit, unanswered, .. } = self;
        read.follow(bytes, |frame| match frame {
            // Trailers come on a stream that is open.
            Frame::Headers(id) if id > *last => {
                *last = id;
                if id <= *limit {
                    unanswered.push(id);
                    control.opened();
                }
            }
            Frame::Reset(id) => unanswered.retain(|&unanswered| unanswered != id),
            Frame::Headers(_) | Frame::GoAway(..) | Frame::Other => {}
        });
    }

    fn have_written(&mut self, bytes: &[u8]) {
        let Self { control, written, limit, unanswered, .. } = self;
        written.follow(bytes, |frame| match frame {
            Frame::Headers(id) | Frame::Reset(id) => unanswered.retain(|&unanswered| unanswered != id),
            // Streams beyond the last of a farewell are the client's to ask for again, elsewhere (RFC 9113 section 6.8).
            Frame::GoAway(last, 0) => {
                *limit = last;
                let before = unanswered.len();
                unanswered.retain(|&id| id <= last);
                control.unopened((before - unanswered.len()) as u64);
            }
            Frame::GoAway(..) | Frame::Other => {}
        });
    }
}

impl Heads {
    fn follow(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (self.wanted() - self.filled).min(bytes.len());
            self.bytes[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == self.wanted() {
                seen(self.frame());
                self.skip = HEAD + self.length() - self.filled;
                self.filled = 0;
            }
        }
    }

    /// How much of a frame is looked at.
    fn wanted(&self) -> usize {
        let is_go_away = self.filled >= HEAD && self.bytes[3] == GO_AWAY && self.length() >= GO_AWAY_PAYLOAD;
        if is_go_away { HEAD + GO_AWAY_PAYLOAD } else { HEAD }
    }

    fn length(&self) -> usize {
        self.number(0) as usize >> 8
    }

    fn frame(&self) -> Frame {
        let id = self.number(5) & STREAM_ID;
        match self.bytes[3] {
            HEADERS => Frame::Headers(id),
            RST_STREAM => Frame::Reset(id),
            GO_AWAY if self.filled > HEAD => {
                Frame::GoAway(self.number(HEAD) & STREAM_ID, self.number(HEAD + 4))
            }
            _ => Frame::Other,
        }
    }

    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Frames<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.have_read(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Frames<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.have_written(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let length = left.min(buf.len());
            self.have_written(&buf[..length]);
            left -= length;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, id: u32, payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_be_bytes()[1..], &[kind, 0], &id.to_be_bytes(), payload].concat()
    }

    fn go_away(last: u32, code: u32) -> Vec<u8> {
        frame(GO_AWAY, 0, &[last.to_be_bytes(), code.to_be_bytes(), *b"why?"].concat())
    }

    fn seen(bytes: &[u8], piece: usize) -> Vec<Frame> {
        let (mut heads, mut frames) = (Heads::default(), Vec::new());
        bytes.chunks(piece).for_each(|piece| heads.follow(piece, |frame| frames.push(frame)));
        frames
    }

    #[test]
    fn frames_are_told_apart_however_their_bytes_are_cut() {
        let bytes = [
            frame(4, 0, &[0; 18]),
            frame(HEADERS, 1, &[HEADERS; 300]),
            frame(0, 1, &[GO_AWAY; 20]),
            go_away(7, 11),
            frame(RST_STREAM, 1 | 1 << 31, &[0; 4]),
            // Too short to be one; whoever reads it says so.
            frame(GO_AWAY, 0, &[0; 7]),
            frame(HEADERS, 3, &[]),
        ]
        .concat();
        for piece in 1..bytes.len() {
            let expected = [
                Frame::Other,
                Frame::Headers(1),
                Frame::Other,
                Frame::GoAway(7, 11),
                Frame::Reset(1),
                Frame::Other,
                Frame::Headers(3),
            ];
            assert_eq!(seen(&bytes, piece), expected, "{piece}");
        }
    }

    #[test]
    fn a_request_is_a_stream_that_is_opened_and_not_sent_away() {
        let control = Arc::new(Control::default());
        let mut frames = Frames::new((), Arc::clone(&control));
        frames.have_read(&[0; PREFACE]);
        for id in [1, 3, 3, 1, 5, 7] {
            frames.have_read(&frame(HEADERS, id, b"fields"));
        }
        assert_eq!(control.unheard(), 4, "trailers open nothing");
        frames.have_written(&frame(HEADERS, 5, b"fields"));
        frames.have_written(&go_away(STREAM_ID, 0));
        assert_eq!(control.unheard(), 4, "the first farewell names no stream");
        frames.have_written(&go_away(3, 0));
        assert_eq!(control.unheard(), 3, "5 was answered, 7 was not");
        frames.have_read(&frame(HEADERS, 9, b"fields"));
        assert_eq!(control.unheard(), 3, "9 comes behind the farewell");
        frames.have_written(&go_away(0, 1));
        assert_eq!(control.unheard(), 3, "the end of a connection that broke the protocol forgives nothing");
        let _arrived = [control.arrive(), control.arrive()];
        assert_eq!(control.unheard(), 1);
        // Nothing is kept of streams that are over, whoever ended them.
        frames.have_read(&frame(RST_STREAM, 1, &[0; 4]));
        frames.have_written(&frame(RST_STREAM, 3, &[0; 4]));
        assert_eq!((control.unheard(), frames.unanswered), (1, vec![]));
    }
}
