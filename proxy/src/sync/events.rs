//! Server-sent events as they arrive. Of our own, as the crates for it keep what they read in buffers that are not wiped, and these
//! events carry live values.

use zeroize::{Zeroize, Zeroizing};

/// The largest event: more than any policy.
const MOST: usize = 64 << 20;

/// Cuts a stream into the data of its events (WHATWG HTML, section 9.2.6). Names and ids say nothing that the data does not.
#[derive(Default)]
pub(super) struct Events {
    line: Zeroizing<Vec<u8>>,
    data: Zeroizing<Vec<u8>>,
    after_return: bool,
}

/// An event that is too large to be one of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Events {
    /// Reads on; each event's data is given to `each`.
    pub(super) fn push<E: From<TooLarge>>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let (text, end) = match piece.split_last() {
                Some((end @ (b'\n' | b'\r'), text)) => (text, Some(*end)),
                Some(_) | None => (piece, None),
            };
            if std::mem::take(&mut self.after_return) && text.is_empty() && end == Some(b'\n') {
                continue;
            }
            append(&mut self.line, text)?;
            let Some(end) = end else { continue };
            self.after_return = end == b'\r';
            if self.line.is_empty() {
                if !self.data.is_empty() {
                    let event = std::mem::take(&mut self.data);
                    each(&event)?;
                }
                continue;
            }
            if let Some(data) = self.line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    append(&mut self.data, b"\n")?;
                }
                append(&mut self.data, data.strip_prefix(b" ").unwrap_or(data))?;
            }
            self.line.zeroize();
        }
        Ok(())
    }
}

/// By hand, as a vector that grows leaves its old place unwiped.
fn append(to: &mut Zeroizing<Vec<u8>>, more: &[u8]) -> Result<(), TooLarge> {
    let length = to.len() + more.len();
    if length > MOST {
        return Err(TooLarge);
    }
    if length > to.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(length.next_power_of_two().max(4096)));
        larger.extend_from_slice(to);
        *to = larger;
    }
    to.extend_from_slice(more);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<String> {
        let mut events = Events::default();
        let mut seen = Vec::new();
        for piece in pieces {
            let each = |data: &[u8]| {
                seen.push(String::from_utf8(data.to_vec()).unwrap());
                Ok::<(), TooLarge>(())
            };
            events.push(piece.as_ref(), each).unwrap();
        }
        seen
    }

    #[test]
    fn events_are_the_same_wherever_the_stream_is_cut() {
        let stream = ": beat\n\nevent: begin\ndata: {\"a\":1}\n\nid: e.1\r\ndata:x\r\ndata: y\r\n\r\ndata: unfinished\n";
        let expected = ["{\"a\":1}", "x\ny"];
        assert_eq!(read([stream]), expected);
        assert_eq!(read(stream.as_bytes().chunks(1)), expected);
        assert_eq!(read(stream.as_bytes().chunks(7)), expected);
    }

    #[test]
    fn t83_an_event_without_an_end_is_given_up() {
        let mut events = Events::default();
        let piece = vec![b'x'; 1 << 20];
        let read = (0..65).try_for_each(|_| events.push(&piece, |_| Ok::<(), TooLarge>(())));
        assert_eq!(read, Err(TooLarge));
    }
}
