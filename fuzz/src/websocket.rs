//! Frames of a WebSocket are relayed, or stopped, as RFC 6455 section 5 has it, however they are cut; and no value comes through.
//!
//! An input is a byte of flags (1: from a client, whose messages nobody reads; 2: permessage-deflate was agreed on) and what is sent.

use keyferry_proxy::fuzzing::{redact, websocket};

use crate::splits::splits;

const VALUE: &str = "live-value-0123";
const LABEL: &str = "kf_1";

const TEXT: u8 = 1;
const CLOSE: u8 = 8;

/// Relays one direction.
pub fn run(data: &[u8]) {
    let Some((flags, wire)) = data.split_first() else { return };
    let (from_client, deflate) = (flags & 1 != 0, flags & 2 != 0);
    let searched = (!from_client).then_some((LABEL, VALUE));
    let mut results = splits(wire).map(|pieces| websocket(searched, deflate, pieces));
    let whole = results.next().expect("a first way");
    let others: Vec<_> = results.collect();
    for other in &others {
        assert_eq!(other.stopped, whole.stopped, "the verdict depends on how the bytes are cut");
    }
    if deflate {
        // What inflates to what is held to an oracle by the property tests of the proxy.
        return;
    }
    let sent = read(wire, from_client, searched.is_some());
    match sent.end {
        End::Fine => assert_eq!(whole.stopped, None),
        End::Broken => assert!(whole.stopped.is_some(), "what breaks the protocol was relayed"),
        // It may be judged by what has come of it.
        End::InAHead => {}
    }
    let expected: Vec<Message> =
        sent.messages.into_iter().map(|message| scanned(message, from_client)).collect();
    for relayed in others.iter().chain([&whole]) {
        let arrived = read(&relayed.frames, from_client, false);
        assert_eq!(arrived.messages, expected);
        if from_client && relayed.stopped.is_none() {
            assert!(wire.starts_with(&relayed.frames), "a frame that nobody reads was altered");
        }
    }
}

/// An opcode and a payload.
type Message = (u8, Vec<u8>);

/// What a receiver makes of frames, byte by byte.
struct Read {
    /// Those that are whole, control frames among them, in the order of their ends.
    messages: Vec<Message>,
    end: End,
}

enum End {
    Fine,
    Broken,
    InAHead,
}

fn scanned((opcode, payload): Message, from_client: bool) -> Message {
    match from_client {
        true => (opcode, payload),
        false => (opcode, redact(&[(LABEL.to_owned(), VALUE.to_owned())], [payload.as_slice()])),
    }
}

/// `texts`: those of messages are looked at.
fn read(wire: &[u8], from_client: bool, texts: bool) -> Read {
    let mut messages = Vec::new();
    let mut begun: Option<Message> = None;
    let mut rest = wire;
    let end = loop {
        if rest.is_empty() {
            break End::Fine;
        }
        let Some((head, behind)) = head(rest, from_client) else { break End::InAHead };
        let Some(head) = head else { break End::Broken };
        let length = usize::try_from(head.length).unwrap_or(usize::MAX).min(behind.len());
        let complete = length as u64 == head.length;
        let mut payload = behind[..length].to_vec();
        for (at, byte) in payload.iter_mut().enumerate() {
            *byte ^= head.mask[at % 4];
        }
        rest = &behind[length..];
        if head.opcode >= CLOSE {
            if !complete {
                break End::Fine;
            }
            if head.opcode == CLOSE && !is_close(&payload) {
                break End::Broken;
            }
            messages.push((head.opcode, payload));
            if head.opcode == CLOSE {
                break End::Fine;
            }
            continue;
        }
        match (&mut begun, head.opcode) {
            (Some((_, joined)), 0) => joined.extend(payload),
            (None, opcode @ 1..) => begun = Some((opcode, payload)),
            (Some(_), _) | (None, 0) => break End::Broken,
        }
        let over = complete && head.fin;
        if let Some((TEXT, text)) = &begun
            && texts
            && !is_text(text, over)
        {
            break End::Broken;
        }
        if !complete {
            break End::Fine;
        }
        if over {
            messages.extend(begun.take());
        }
    };
    Read { messages, end }
}

struct Head {
    fin: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
}

/// The head of a frame and what is behind it; `None` where it is cut off, `Some(None)` where it is none.
fn head(bytes: &[u8], from_client: bool) -> Option<(Option<Head>, &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (extended, least) = match second & 0x7f {
        126 => (2, 126),
        127 => (8, 65_536),
        _ => (0, 0),
    };
    let (long, rest) = rest.split_at_checked(extended)?;
    let (mask, rest) = rest.split_at_checked(if from_client { 4 } else { 0 })?;
    let length = match extended {
        0 => u64::from(second & 0x7f),
        _ => long.iter().fold(0, |length, &byte| length << 8 | u64::from(byte)),
    };
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    let fits = first & 0x70 == 0
        && matches!(opcode, 0..=2 | 8..=10)
        && (second & 0x80 != 0) == from_client
        && length >= least
        && length >> 63 == 0
        && (opcode < CLOSE || (fin && length <= 125));
    let mask = mask.try_into().unwrap_or_default();
    Some((fits.then_some(Head { fin, opcode, length, mask }), rest))
}

/// RFC 6455 sections 5.5.1 and 7.4.
fn is_close(payload: &[u8]) -> bool {
    match payload {
        [] => true,
        [_] => false,
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) && std::str::from_utf8(reason).is_ok()
        }
    }
}

fn is_text(bytes: &[u8], over: bool) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => !over && error.error_len().is_none(),
    }
}
