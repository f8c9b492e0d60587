use std::sync::{Arc, OnceLock};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use keyferry_config::document::{Source, SourceKind};
use keyferry_source::{Environment, SecretValue, Sources};
use proptest::prelude::*;

use super::*;
use crate::redact::Redactor;
use crate::transform::swap::{Action, Swaps};

const PLACEHOLDER: &str = "kf_placeholder";
const ELSEWHERE: &str = "kf_elsewhere";
const UNAVAILABLE: &str = "kf_unavailable";
const REAL: &str = "sk-réal-0123456789";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn real() -> Arc<SecretValue> {
    static REAL_VALUE: OnceLock<Arc<SecretValue>> = OnceLock::new();
    let value = REAL_VALUE.get_or_init(|| {
        let sources = Sources::new(Environment::of([("KEY", REAL)]));
        let kind = SourceKind::Env { var: "KEY".to_owned() };
        let source = sources.get(&Source { kind, json_key: None, ttl: None, failure_ttl: None });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(source.value()).expect("the variable is set")
    });
    Arc::clone(value)
}

fn swap() -> Search {
    let refuse = |reason: Reason| Action::Refuse(Refusal::new(reason, "not here"));
    let actions = vec![
        Action::Replace(7, real()),
        refuse(Reason::PlaceholderMisdirected),
        refuse(Reason::SecretUnavailable),
    ];
    Search::Swap(Arc::new(Swaps::of([PLACEHOLDER, ELSEWHERE, UNAVAILABLE], actions)))
}

fn redact() -> Search {
    Search::Redact(Arc::new(Redactor::new([(PLACEHOLDER.to_owned(), &*real())])))
}

/// What goes out when `wire` comes in pieces of `cut` bytes.
fn streamed(direction: &mut Direction, wire: &[u8], cut: usize) -> Result<Vec<u8>, Stop> {
    let mut out = Vec::new();
    for piece in wire.chunks(cut) {
        direction.input.extend_from_slice(piece);
        loop {
            direction.advance()?;
            if direction.out.is_empty() {
                break;
            }
            out.extend_from_slice(&direction.out.split());
        }
    }
    Ok(out)
}

fn frame(first: u8, from: Side, payload: &[u8]) -> Vec<u8> {
    let mask_bit = if from == Side::Client { 0x80 } else { 0 };
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(mask_bit | length as u8),
        length @ 126..65_536 => {
            frame.push(mask_bit | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(mask_bit | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    if from == Side::Client {
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        frame.extend(payload);
    }
    frame
}

/// A frame or message as a receiver sees it: opcode, payload.
type Seen = Vec<(u8, Vec<u8>)>;

/// Reads frames byte by byte as the RFC has them, and joins messages; shares nothing with what is tested.
fn received(wire: &[u8], from: Side, mut inflate: Option<Decompress>) -> Seen {
    let mut seen = Seen::new();
    let mut message: Option<(u8, bool, Vec<u8>)> = None;
    let mut at = 0;
    while at < wire.len() {
        let (first, second) = (wire[at], wire[at + 1]);
        assert_eq!((second & 0x80 != 0, first & 0x30), (from == Side::Client, 0));
        at += 2;
        let length = match second & 0x7f {
            126 => {
                at += 2;
                usize::from(u16::from_be_bytes(wire[at - 2..at].try_into().unwrap()))
            }
            127 => {
                at += 8;
                u64::from_be_bytes(wire[at - 8..at].try_into().unwrap()) as usize
            }
            short => usize::from(short),
        };
        let mask: [u8; 4] = if from == Side::Client {
            at += 4;
            wire[at - 4..at].try_into().unwrap()
        } else {
            [0; 4]
        };
        let payload: Vec<u8> = (0..length).map(|n| wire[at + n] ^ mask[n % 4]).collect();
        at += length;
        let opcode = first & 0x0f;
        if opcode >= 8 {
            assert_eq!(first & 0xf0, 0x80);
            seen.push((opcode, payload));
            continue;
        }
        match &mut message {
            None => {
                assert_ne!(opcode, 0);
                message = Some((opcode, first & 0x40 != 0, payload));
            }
            Some((.., joined)) => {
                assert_eq!((opcode, first & 0x40), (0, 0));
                joined.extend(payload);
            }
        }
        if first & 0x80 != 0 {
            let (opcode, compressed, mut payload) = message.take().unwrap();
            if compressed {
                payload.extend([0, 0, 0xff, 0xff]);
                payload = inflated(inflate.as_mut().expect("deflate was agreed on"), &payload);
            }
            seen.push((opcode, payload));
        }
    }
    assert!(message.is_none(), "a message is not over");
    seen
}

fn inflated(inflate: &mut Decompress, mut input: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    loop {
        text.reserve(4096);
        let before = inflate.total_in();
        inflate.decompress_vec(input, &mut text, FlushDecompress::Sync).expect("DEFLATE data");
        input = &input[(inflate.total_in() - before) as usize..];
        if input.is_empty() && text.len() < text.capacity() {
            return text;
        }
    }
}

fn deflated(deflate: &mut Compress, text: &[u8]) -> Vec<u8> {
    if text.is_empty() {
        return vec![0];
    }
    let mut out = Vec::with_capacity(2 * text.len() + 64);
    deflate.compress_vec(text, &mut out, FlushCompress::Sync).expect("it fits");
    out.truncate(out.len() - 4);
    out
}

#[test]
fn t38_what_breaks_the_protocol_stops_the_direction_with_its_code() {
    use Side::{Client, Server};
    let masked = |first: u8, payload: &[u8]| frame(first, Client, payload);
    let agreed = Some(extension::Deflate::default());
    let cases: [(&str, Side, Vec<u8>, u16); 13] = [
        ("an unmasked frame of a client", Client, frame(0x81, Server, b"hi"), 1002),
        ("a masked frame of a server", Server, masked(0x81, b"hi"), 1002),
        ("a continuation of nothing", Client, masked(0x80, b"hi"), 1002),
        ("a message inside a message", Client, [masked(0x01, b"a"), masked(0x81, b"b")].concat(), 1002),
        ("a compressed continuation", Client, [masked(0x01, b"a"), masked(0xc0, b"b")].concat(), 1002),
        ("a length of 2^63", Server, [&[0x82, 127, 0x80][..], &[0; 7]].concat(), 1002),
        ("half a close code", Client, masked(0x88, b"\x03"), 1002),
        ("close code 1005", Server, frame(0x88, Server, &1005u16.to_be_bytes()), 1002),
        ("a reason that is not UTF-8", Server, frame(0x88, Server, b"\x03\xe8\xff"), 1007),
        ("text that is not UTF-8", Client, masked(0x01, b"fine \xc3\x28"), 1007),
        (
            "half a character",
            Server,
            [frame(0x01, Server, b"\xe2\x82"), frame(0x80, Server, b"")].concat(),
            1007,
        ),
        ("no DEFLATE data", Client, masked(0xc1, b"\xff\xff"), 1007),
        (
            "compressed text that is not UTF-8",
            Client,
            { masked(0xc1, &deflated(&mut Compress::new(Compression::fast(), false), b"\xff\xfe")) },
            1007,
        ),
    ];
    for (name, from, wire, code) in cases {
        let reason = if from == Client { Reason::WebsocketViolation } else { Reason::UpstreamProtocol };
        for cut in [1, wire.len()] {
            let search = if from == Client { swap() } else { redact() };
            let stop = streamed(&mut Direction::new(from, agreed, Some(search)), &wire, cut).unwrap_err();
            assert_eq!((stop.code, stop.refusal.reason), (code, reason), "{name}: {stop:?}");
            if code == 1002 {
                let relayed = streamed(&mut Direction::new(from, agreed, None), &wire, cut).unwrap_err();
                assert_eq!(relayed, stop, "{name}: frames are checked also where messages are not read");
            }
        }
    }
}

#[test]
fn t41_a_placeholder_that_is_bound_elsewhere_stops_any_message_and_a_missing_value_only_where_it_is_needed() {
    let cases: [(&str, u8, &str, Option<Reason>); 6] = [
        ("text", 0x81, ELSEWHERE, Some(Reason::PlaceholderMisdirected)),
        ("binary", 0x82, ELSEWHERE, Some(Reason::PlaceholderMisdirected)),
        ("ping", 0x89, ELSEWHERE, Some(Reason::PlaceholderMisdirected)),
        ("text", 0x81, UNAVAILABLE, Some(Reason::SecretUnavailable)),
        ("binary", 0x82, UNAVAILABLE, None),
        ("ping", 0x89, PLACEHOLDER, None),
    ];
    for (kind, first, text, reason) in cases {
        let wire = frame(first, Side::Client, format!("before {text} after").as_bytes());
        let out = streamed(&mut Direction::new(Side::Client, None, Some(swap())), &wire, 3);
        match reason {
            Some(reason) => {
                let stop = out.unwrap_err();
                assert_eq!((stop.code, stop.refusal.reason), (1008, reason), "{kind} {text}");
            }
            None => {
                let seen = received(&out.unwrap(), Side::Client, None);
                assert_eq!(
                    seen,
                    [(first & 0x0f, format!("before {text} after").into_bytes())],
                    "{kind} {text}"
                );
            }
        }
    }
}

#[test]
fn control_frames_towards_the_sandbox_are_redacted_and_stay_control_frames() {
    let long = "kf_".repeat(60);
    let search = Search::Redact(Arc::new(Redactor::new([(long.clone(), &*real())])));
    let mut direction = Direction::new(Side::Server, None, Some(search));
    let close = [&1011u16.to_be_bytes()[..], b"bad key ", REAL.as_bytes()].concat();
    let wire = [frame(0x89, Side::Server, REAL.as_bytes()), frame(0x88, Side::Server, &close)].concat();
    let seen = received(&streamed(&mut direction, &wire, 5).unwrap(), Side::Server, None);
    let reason = [&1011u16.to_be_bytes()[..], b"bad key ", long.as_bytes()].concat();
    assert_eq!(seen, [(9, long.as_bytes()[..125].to_vec()), (8, reason[..125].to_vec())]);
    assert_eq!(direction.tally().map(|tally| tally.redacted), Some(2));
}

#[test]
fn only_the_beginning_of_a_match_waits_and_nothing_beyond_its_message() {
    let mut direction = Direction::new(Side::Client, None, Some(swap()));
    let begun = streamed(&mut direction, &frame(0x01, Side::Client, b"hello kf_place"), 64).unwrap();
    assert_eq!(begun.len(), 6 + "hello ".len(), "what cannot be a part of a match has gone on");
    let ping = streamed(&mut direction, &frame(0x89, Side::Client, b"?"), 64).unwrap();
    assert_eq!(ping.len(), 7, "a control frame overtakes what is held");
    let ended = streamed(&mut direction, &frame(0x80, Side::Client, b""), 64).unwrap();
    let next = streamed(&mut direction, &frame(0x81, Side::Client, b"holder"), 64).unwrap();
    let seen = received(&[begun, ping, ended, next].concat(), Side::Client, None);
    assert_eq!(seen, [(9, b"?".to_vec()), (1, b"hello kf_place".to_vec()), (1, b"holder".to_vec())]);
}

#[test]
fn a_message_of_any_size_takes_bounded_memory() {
    let mut direction = Direction::new(Side::Client, None, Some(swap()));
    direction.input.extend_from_slice(&[0x82, 0xff]);
    direction.input.extend_from_slice(&(1u64 << 40).to_be_bytes());
    direction.input.extend_from_slice(&MASK);
    let (mut out, mut most) = (0, 0);
    for _ in 0..256 {
        direction.input.extend_from_slice(&[0x55; 64 << 10]);
        direction.advance().unwrap();
        most = most.max(direction.out.len());
        out += direction.out.split().len();
    }
    assert!(out >= 256 * (64 << 10) && most <= ENOUGH + FRAGMENT + 14, "{out} {most}");
}

#[test]
fn what_is_not_searched_goes_on_as_it_came() {
    let wire = [
        frame(0xc1, Side::Client, b"\xf2\x48\xcd\xc9\xc9\x07\x00 not even DEFLATE \xff"),
        frame(0x02, Side::Client, &[7; 70_000]),
        frame(0x89, Side::Client, b"now"),
        frame(0x80, Side::Client, b""),
        frame(0x88, Side::Client, &1000u16.to_be_bytes()),
    ]
    .concat();
    for cut in [1, 13, 4096, wire.len()] {
        let mut direction = Direction::new(Side::Client, Some(extension::Deflate::default()), None);
        let behind = [&wire[..], b"nothing goes on behind a close frame"].concat();
        assert_eq!(streamed(&mut direction, &behind, cut).unwrap(), wire, "{cut}");
        assert!(direction.is_closed());
    }
}

#[test]
fn a_close_frame_of_ours_never_lands_inside_another_frame() {
    let half = &frame(0x82, Side::Server, b"0123456789")[..5];
    let mut relayed = Direction::new(Side::Server, None, None);
    streamed(&mut relayed, half, 64).unwrap();
    relayed.close(1001, "");
    assert!(relayed.out.is_empty());

    let mut rewritten = Direction::new(Side::Server, None, Some(redact()));
    let begun = streamed(&mut rewritten, half, 64).unwrap();
    rewritten.close(1008, "policy_changed");
    rewritten.close(1001, "");
    let closed =
        [&frame(0x02, Side::Server, b"012")[..], &frame(0x88, Side::Server, b"\x03\xf0policy_changed")];
    assert_eq!([&begun[..], &rewritten.out].concat(), closed.concat());
}

/// Text with whole matches, parts of them, and other things.
fn content() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => Just(PLACEHOLDER.to_owned()),
        3 => Just(REAL.to_owned()),
        2 => Just(PLACEHOLDER[..9].to_owned()),
        2 => Just("sk-ré".to_owned()),
        1 => Just(UNAVAILABLE[..8].to_owned()),
        3 => "[a-zü€ ]{0,9}",
        1 => Just("ab€".repeat(400)),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

#[derive(Clone, Debug)]
struct Sent {
    is_text: bool,
    content: String,
    compressed: bool,
    fragment: usize,
    ping: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    let fragment = prop_oneof![1usize..40, Just(usize::MAX)];
    (any::<bool>(), content(), any::<bool>(), fragment, any::<bool>()).prop_map(
        |(is_text, content, compressed, fragment, ping)| Sent {
            is_text,
            content,
            compressed,
            fragment,
            ping,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// However messages are fragmented, compressed, interleaved and cut by the network, a receiver sees what a plain replacement in
    /// each whole message would be.
    #[test]
    fn t38_any_split_of_any_message_gives_the_same(
        from_client: bool,
        messages in prop::collection::vec(sent(), 1..5),
        cut in prop_oneof![1usize..50, Just(1 << 20)],
        window in prop_oneof![Just(None), (9u8..=15).prop_map(Some)],
        without_takeover: bool,
    ) {
        let from = if from_client { Side::Client } else { Side::Server };
        let agreed = extension::Deflate {
            server_no_context_takeover: without_takeover,
            client_no_context_takeover: without_takeover,
            server_max_window_bits: window,
            client_max_window_bits: window,
        };
        let mut deflate = Compress::new_with_window_bits(Compression::default(), false, window.unwrap_or(15));
        let (mut wire, mut expected, mut pinged) = (Vec::new(), Seen::new(), 0);
        for Sent { is_text, content, compressed, fragment, ping } in &messages {
            let opcode = if *is_text { 1 } else { 2 };
            let mut payload = content.clone().into_bytes();
            if *compressed {
                payload = deflated(&mut deflate, &payload);
                if without_takeover {
                    deflate.reset();
                }
            }
            let mut pieces: Vec<&[u8]> = payload.chunks(*fragment).collect();
            if pieces.is_empty() {
                pieces.push(b"");
            }
            for (nth, piece) in pieces.iter().enumerate() {
                let fin = if nth + 1 == pieces.len() { 0x80 } else { 0 };
                let first = if nth == 0 { opcode | u8::from(*compressed) << 6 } else { 0 };
                wire.extend(frame(fin | first, from, piece));
                if *ping {
                    wire.extend(frame(0x89, from, b"ping"));
                    pinged += 1;
                }
            }
            let replaced = match from {
                Side::Client if *is_text => content.replace(PLACEHOLDER, REAL),
                Side::Client => content.clone(),
                Side::Server => content.replace(REAL, PLACEHOLDER),
            };
            expected.push((opcode, replaced.into_bytes()));
        }
        let search = if from_client { swap() } else { redact() };
        let mut direction = Direction::new(from, Some(agreed), Some(search));
        let out = streamed(&mut direction, &wire, cut).unwrap();
        let mut seen = received(&out, from, Some(Decompress::new_with_window_bits(false, window.unwrap_or(15))));
        let pings = seen.iter().filter(|(opcode, _)| *opcode == 9).count();
        seen.retain(|(opcode, _)| *opcode != 9);
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(pings, pinged);
    }
}
