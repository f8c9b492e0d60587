//! One direction of a WebSocket, without I/O: bytes in; checked and, where something is looked for, rewritten bytes out.

use bytes::{Bytes, BytesMut};
use keyferry_config::policy::{Reason, Refusal};

use super::deflate::{Deflate, Inflate};
use super::extension;
use super::frame::{Fault, Head, MAX_CONTROL, Masks, Opcode, Side, apply_mask, check_close};
use super::search::{Scan, Search, Tally};
use super::utf8::Utf8;
use crate::stream::Pieces;

/// So much may be ready to go on before more is read.
const ENOUGH: usize = 64 << 10;
/// A message goes on in frames of about this size, where it does not come in smaller ones.
const FRAGMENT: usize = 64 << 10;

/// Why a WebSocket must end, and the code that both sides are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) code: u16,
    pub(super) refusal: Refusal,
}

/// The sender's bytes on their way to the receiver.
///
/// Append to [`input`](Self::input), [`advance`](Self::advance), take from [`out`](Self::out); again until nothing comes out. Where
/// nothing is looked for, frames are checked and go on as they are, compressed or not. Else each message is unmasked, inflated,
/// searched and written anew, in as many frames as it takes: what cannot be part of a match goes on when the sender pauses, and what
/// is held is the beginning of a match at most, never beyond the end of a message.
///
/// Never printed: what it holds may be a secret (T46).
pub(super) struct Direction {
    from: Side,
    deflates: bool,
    pub(super) input: BytesMut,
    pub(super) out: BytesMut,
    /// The data frame whose payload comes.
    frame: Option<Frame>,
    /// A message has begun and not ended.
    in_message: bool,
    rewriter: Option<Rewriter>,
    closed: bool,
}

struct Frame {
    left: u64,
    /// How much of the payload has come.
    at: u64,
    mask: Option<[u8; 4]>,
    fin: bool,
}

impl Direction {
    /// `search`: what is looked for, if anything is.
    pub(super) fn new(from: Side, deflate: Option<extension::Deflate>, search: Option<Search>) -> Self {
        Self {
            from,
            deflates: deflate.is_some(),
            input: BytesMut::new(),
            out: BytesMut::new(),
            frame: None,
            in_message: false,
            rewriter: search.map(|search| Rewriter::new(from, deflate, search)),
            closed: false,
        }
    }

    /// Whether messages are looked into.
    pub(super) fn searches(&self) -> bool {
        self.rewriter.is_some()
    }

    /// Looks for something else from the next message on.
    pub(super) fn search(&mut self, search: Search) {
        if let Some(rewriter) = &mut self.rewriter {
            rewriter.search = search;
        }
    }

    /// The sender has sent its close frame; nothing that follows goes on.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// What was found so far.
    pub(super) fn tally(&self) -> Option<&Tally> {
        self.rewriter.as_ref().map(|rewriter| &rewriter.tally)
    }

    /// Works on what has come, until nothing is left to do or enough is ready.
    pub(super) fn advance(&mut self) -> Result<(), Stop> {
        while self.out.len() < ENOUGH {
            if !self.step()? {
                if let Some(rewriter) = &mut self.rewriter {
                    rewriter.emit(false, &mut self.out);
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Appends a close frame of ours, unless the receiver has one, or is in the middle of a frame that is relayed as it comes.
    pub(super) fn close(&mut self, code: u16, reason: &str) {
        if self.closed || (self.rewriter.is_none() && self.frame.is_some()) {
            return;
        }
        self.closed = true;
        let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
        let mask = (self.from == Side::Client).then(|| Masks::new().next());
        write_frame(Opcode::Close, (true, false), mask, &[Bytes::from(payload)], &mut self.out);
    }

    fn step(&mut self) -> Result<bool, Stop> {
        let from = self.from;
        if self.closed {
            self.input.clear();
            return Ok(false);
        }
        if let Some(rewriter) = &mut self.rewriter
            && rewriter.work(&mut self.out).map_err(|end| end.stop(from))?
        {
            return Ok(true);
        }
        match &mut self.frame {
            Some(frame) if frame.left > 0 => {
                let length = usize::try_from(frame.left).unwrap_or(usize::MAX).min(self.input.len());
                if length == 0 {
                    return Ok(false);
                }
                let mut piece = self.input.split_to(length);
                if let Some(rewriter) = &mut self.rewriter {
                    if let Some(mask) = frame.mask {
                        apply_mask(mask, frame.at, &mut piece);
                    }
                    rewriter.take(piece.freeze(), &mut self.out).map_err(|end| end.stop(from))?;
                } else {
                    pass(piece, &mut self.out);
                }
                frame.left -= length as u64;
                frame.at += length as u64;
            }
            Some(frame) => {
                if frame.fin {
                    self.in_message = false;
                    if let Some(rewriter) = &mut self.rewriter {
                        rewriter.end_message();
                    }
                }
                self.frame = None;
            }
            None => return self.begin().map_err(|end| end.stop(from)),
        }
        Ok(true)
    }

    /// The next frame. Answers whether its head, or all of a control frame, was there.
    fn begin(&mut self) -> Result<bool, End> {
        let Some((head, size)) = Head::parse(&self.input, self.from, self.deflates)? else {
            return Ok(false);
        };
        if head.opcode.is_control() {
            let total = size + head.length as usize;
            if self.input.len() < total {
                return Ok(false);
            }
            let frame = self.input.split_to(total);
            self.control(&head, size, frame)?;
            return Ok(true);
        }
        match (head.opcode, self.in_message) {
            (Opcode::Continuation, false) => {
                return Err(Fault::protocol("a continuation frame continues no message").into());
            }
            (Opcode::Text | Opcode::Binary, true) => {
                return Err(Fault::protocol("a message begins before the one before it has ended").into());
            }
            _ => {}
        }
        let raw = self.input.split_to(size);
        match &mut self.rewriter {
            Some(rewriter) if !self.in_message => rewriter.begin(&head),
            Some(_) => {}
            None => pass(raw, &mut self.out),
        }
        self.in_message = true;
        self.frame = Some(Frame { left: head.length, at: 0, mask: head.mask, fin: head.fin });
        Ok(true)
    }

    fn control(&mut self, head: &Head, size: usize, frame: BytesMut) -> Result<(), End> {
        let mut payload = BytesMut::from(&frame[size..]);
        if let Some(mask) = head.mask {
            apply_mask(mask, 0, &mut payload);
        }
        if head.opcode == Opcode::Close {
            check_close(&payload)?;
        }
        match &mut self.rewriter {
            Some(rewriter) => rewriter.control(head.opcode, payload.freeze(), &mut self.out)?,
            None => pass(frame, &mut self.out),
        }
        self.closed = head.opcode == Opcode::Close;
        Ok(())
    }
}

/// Without a copy where nothing else waits.
fn pass(piece: BytesMut, out: &mut BytesMut) {
    out.unsplit(piece);
}

/// Why a direction cannot go on.
enum End {
    Fault(Fault),
    Refused(Refusal),
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl End {
    fn stop(self, from: Side) -> Stop {
        match self {
            Self::Fault(Fault { code, what }) => {
                let (reason, whose) = match from {
                    Side::Client => (Reason::WebsocketViolation, "client"),
                    Side::Server => (Reason::UpstreamProtocol, "upstream"),
                };
                Stop {
                    code,
                    refusal: Refusal::new(
                        reason,
                        format!("the {whose} broke the WebSocket protocol: {what}"),
                    ),
                }
            }
            Self::Refused(refusal) => {
                let code = if refusal.reason == Reason::BodyTooLarge { 1009 } else { 1008 };
                Stop { code, refusal }
            }
        }
    }
}

/// Reads messages and writes them anew.
struct Rewriter {
    search: Search,
    /// Towards the upstream.
    masks: Option<Masks>,
    inflate: Inflate,
    deflate: Deflate,
    message: Option<Message>,
    tally: Tally,
}

struct Message {
    opcode: Opcode,
    compressed: bool,
    /// Its first frame has gone on.
    begun: bool,
    ending: Ending,
    utf8: Option<Utf8>,
    scan: Scan,
    /// Ready for the next frame, if not compressed.
    ready: Pieces,
    length: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    NotYet,
    /// All of its frames have come.
    Arrived,
    /// What DEFLATE leaves away has been put behind it.
    Completed,
}

impl Rewriter {
    fn new(from: Side, agreed: Option<extension::Deflate>, search: Search) -> Self {
        let agreed = agreed.unwrap_or_default();
        let (without_takeover, window) = match from {
            Side::Client => (agreed.client_no_context_takeover, agreed.client_max_window_bits),
            Side::Server => (agreed.server_no_context_takeover, agreed.server_max_window_bits),
        };
        Self {
            search,
            masks: (from == Side::Client).then(Masks::new),
            inflate: Inflate::new(!without_takeover),
            deflate: Deflate::new(!without_takeover, window),
            message: None,
            tally: Tally::default(),
        }
    }

    fn begin(&mut self, head: &Head) {
        let is_text = head.opcode == Opcode::Text;
        self.message = Some(Message {
            opcode: head.opcode,
            compressed: head.compressed,
            begun: false,
            ending: Ending::NotYet,
            utf8: is_text.then(Utf8::default),
            scan: self.search.begin(is_text),
            ready: Pieces::new(),
            length: 0,
        });
    }

    /// The next bytes of the message's payload.
    fn take(&mut self, piece: Bytes, out: &mut BytesMut) -> Result<(), End> {
        match &self.message {
            Some(message) if message.compressed => self.inflate.push(piece),
            Some(_) | None => self.feed(piece, out)?,
        }
        Ok(())
    }

    /// The message's last frame has come.
    fn end_message(&mut self) {
        if let Some(message) = &mut self.message {
            message.ending = Ending::Arrived;
        }
    }

    /// Does a part of what is due before more is taken. Answers whether there was something.
    fn work(&mut self, out: &mut BytesMut) -> Result<bool, End> {
        let Some(message) = &mut self.message else { return Ok(false) };
        if message.compressed
            && let Some(piece) = self.inflate.pull()?
        {
            self.feed(piece, out)?;
            return Ok(true);
        }
        match message.ending {
            Ending::NotYet => return Ok(false),
            Ending::Arrived if message.compressed => {
                self.inflate.push_tail();
                message.ending = Ending::Completed;
            }
            Ending::Arrived | Ending::Completed => self.finish(out)?,
        }
        Ok(true)
    }

    fn feed(&mut self, piece: Bytes, out: &mut BytesMut) -> Result<(), End> {
        let Some(message) = &mut self.message else { return Ok(()) };
        if message.utf8.as_mut().is_some_and(|utf8| !utf8.accepts(&piece)) {
            return Err(Fault::data("a text message is not UTF-8").into());
        }
        let mut found = Pieces::new();
        message.scan.push(piece, &mut found, &mut self.tally)?;
        if self.collect(found) >= FRAGMENT {
            self.emit(false, out);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut BytesMut) -> Result<(), End> {
        let Some(message) = &mut self.message else { return Ok(()) };
        if message.utf8.as_ref().is_some_and(|utf8| !utf8.is_complete()) {
            return Err(Fault::data("a text message ends in the middle of a character").into());
        }
        let mut found = Pieces::new();
        let over = self.search.begin(false);
        std::mem::replace(&mut message.scan, over).finish(&mut found, &mut self.tally)?;
        self.collect(found);
        self.emit(true, out);
        self.inflate.end_message();
        self.message = None;
        Ok(())
    }

    /// Puts what goes on behind what waits for the next frame. Answers how much waits.
    fn collect(&mut self, mut found: Pieces) -> usize {
        let Some(message) = &mut self.message else { return 0 };
        if message.compressed {
            found.iter().for_each(|piece| self.deflate.push(piece));
            return self.deflate.length();
        }
        message.length += found.iter().map(Bytes::len).sum::<usize>();
        message.ready.append(&mut found);
        message.length
    }

    /// Writes what waits as a frame.
    fn emit(&mut self, fin: bool, out: &mut BytesMut) {
        let Some(message) = &mut self.message else { return };
        if message.compressed {
            message.ready.push_back(if fin { self.deflate.finish() } else { self.deflate.flush() });
        }
        let payload = std::mem::take(&mut message.ready);
        message.length = 0;
        if !fin && payload.iter().all(Bytes::is_empty) {
            return;
        }
        let first = !std::mem::replace(&mut message.begun, true);
        let opcode = if first { message.opcode } else { Opcode::Continuation };
        let compressed = first && message.compressed;
        let mask = self.masks.as_mut().map(Masks::next);
        write_frame(opcode, (fin, compressed), mask, payload.iter(), out);
    }

    /// A control frame, which stands between two frames of a message or of none.
    fn control(&mut self, opcode: Opcode, mut payload: Bytes, out: &mut BytesMut) -> Result<(), End> {
        self.emit(false, out);
        // The code of a close frame is no text.
        let code = payload.split_to(if opcode == Opcode::Close { payload.len().min(2) } else { 0 });
        let (mut scan, mut found) = (self.search.begin(false), Pieces::new());
        scan.push(payload, &mut found, &mut self.tally)?;
        scan.finish(&mut found, &mut self.tally)?;
        found.push_front(code);
        let mut payload: Vec<u8> = found.into_iter().flatten().collect();
        // What stands in for a value may be longer than the value.
        if payload.len() > MAX_CONTROL {
            payload.truncate(MAX_CONTROL);
            while opcode == Opcode::Close && std::str::from_utf8(&payload[2..]).is_err() {
                payload.pop();
            }
        }
        let mask = self.masks.as_mut().map(Masks::next);
        write_frame(opcode, (true, false), mask, &[Bytes::from(payload)], out);
        Ok(())
    }
}

fn write_frame<'p>(
    opcode: Opcode,
    (fin, compressed): (bool, bool),
    mask: Option<[u8; 4]>,
    payload: impl IntoIterator<Item = &'p Bytes, IntoIter: Clone>,
    out: &mut BytesMut,
) {
    let payload = payload.into_iter();
    let length = payload.clone().map(Bytes::len).sum::<usize>();
    out.reserve(14 + length);
    Head { fin, compressed, opcode, mask, length: length as u64 }.write(out);
    let start = out.len();
    payload.for_each(|piece| out.extend_from_slice(piece));
    if let Some(mask) = mask {
        apply_mask(mask, 0, &mut out[start..]);
    }
}

#[cfg(test)]
mod tests;
