use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::decode::{RATIO, RATIO_FROM};
use super::*;
use crate::stream::Pieces;

const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

fn encode(coding: Coding, body: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(coding);
    let mut out = Pieces::new();
    encoder.push(body, &mut out).expect("memory takes it");
    encoder.finish(&mut out).expect("memory takes it");
    out.into_iter().flatten().collect()
}

/// The whole body, or the first error.
fn decode_within(
    coding: Coding,
    body: &[u8],
    size: usize,
    limit: Option<u64>,
) -> Result<Vec<u8>, CodingError> {
    let mut decoder = Decoder::new(coding, limit);
    let mut decoded = Vec::new();
    for piece in body.chunks(size) {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(piece) = decoder.pull()? {
            assert!((1..=32 << 10).contains(&piece.len()));
            decoded.extend_from_slice(&piece);
        }
    }
    decoder.finish()?;
    Ok(decoded)
}

fn decode(coding: Coding, body: &[u8], size: usize) -> Result<Vec<u8>, CodingError> {
    decode_within(coding, body, size, None)
}

/// Compressible, and not too much.
fn text(length: usize) -> Vec<u8> {
    (0..)
        .flat_map(|line: u32| format!("{line} {:x}\n", line.wrapping_mul(0x9E37_79B1)).into_bytes())
        .take(length)
        .collect()
}

#[test]
fn codings_are_known_by_name() {
    let headers = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
        });
        headers
    };
    let unknown = |name: &str| Err(CodingError::Unknown(name.to_owned()));
    for (values, coding) in [
        (&[][..], Ok(None)),
        (&["identity"], Ok(None)),
        (&["GZip"], Ok(Some(Coding::Gzip))),
        (&["x-gzip"], Ok(Some(Coding::Gzip))),
        (&["deflate"], Ok(Some(Coding::Deflate))),
        (&["identity, br,"], Ok(Some(Coding::Brotli))),
        (&["identity", " zstd\t"], Ok(Some(Coding::Zstd))),
        (&["gzip, br"], Err(CodingError::Stacked)),
        (&["gzip", "gzip"], Err(CodingError::Stacked)),
        (&["compress"], unknown("compress")),
        (&["gzip;q=1"], unknown("gzip;q=1")),
        (&["an-endless-name-that-somebody-upstream-chose"], unknown("an-endless-name-that-somebody-ups")),
    ] {
        let coding = coding.map_err(|error| match error {
            CodingError::Unknown(name) => CodingError::Unknown(name.chars().take(32).collect()),
            other => other,
        });
        assert_eq!(Coding::of(&headers(values)), coding, "{values:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_encoded_is_decoded_however_it_is_cut(
        body in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'a')], 0..3000),
        repeated in 0..60usize,
        cuts in prop::collection::vec((1..5000usize, any::<bool>()), 1..6),
        size in prop_oneof![1..9usize, 1..4000usize],
    ) {
        let body = body.repeat(repeated);
        for coding in ALL {
            let mut encoder = Encoder::new(coding);
            let mut out = Pieces::new();
            let mut rest = &body[..];
            for (cut, flush) in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                encoder.push(piece, &mut out).expect("memory takes it");
                if *flush {
                    encoder.flush(&mut out).expect("memory takes it");
                }
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            encoder.finish(&mut out).expect("memory takes it");
            let encoded: Vec<u8> = out.into_iter().flatten().collect();
            prop_assert!(decode(coding, &encoded, size).as_ref() == Ok(&body), "{}", coding);
        }
    }

    /// Whatever comes in, there is an end, and it is not a panic.
    #[test]
    fn hostile_bytes_end_in_an_error_or_in_bounds(
        body in prop::collection::vec(any::<u8>(), 0..400),
        at in 0..200usize,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        size in 1..50usize,
    ) {
        for coding in ALL {
            let mut damaged = encode(coding, &body);
            for (place, byte) in &flips {
                let place = place.index(damaged.len());
                damaged[place] ^= byte;
            }
            damaged.truncate(damaged.len().saturating_sub(at));
            let _ = decode(coding, &damaged, size);
            let _ = decode(coding, &body, size);
        }
    }
}

/// T44: what a server flushed comes out with the bytes that carry it.
#[test]
fn t44_an_event_comes_out_as_soon_as_its_bytes_are_there() {
    for coding in ALL {
        let (mut encoder, mut decoder) = (Encoder::new(coding), Decoder::new(coding, None));
        for event in 0..50 {
            let event = format!("data: {{\"event\": {event}}}\n\n");
            let mut out = Pieces::new();
            encoder.push(event.as_bytes(), &mut out).expect("memory takes it");
            encoder.flush(&mut out).expect("memory takes it");
            let mut decoded = Vec::new();
            for piece in out {
                decoder.push(piece);
                while let Some(piece) = decoder.pull().expect("what was encoded is valid") {
                    decoded.extend_from_slice(&piece);
                }
            }
            assert_eq!(String::from_utf8(decoded), Ok(event), "{coding}");
        }
        assert_eq!(decoder.finish(), Err(CodingError::Truncated(coding)));
    }
}

#[test]
fn a_body_that_breaks_off_is_an_error_wherever_it_does() {
    for coding in ALL {
        let encoded = encode(coding, &text(500));
        for end in 1..encoded.len() {
            assert_eq!(
                decode(coding, &encoded[..end], 64),
                Err(CodingError::Truncated(coding)),
                "{coding}, {end} of {} bytes",
                encoded.len()
            );
        }
    }
}

#[test]
fn an_empty_body_is_empty_in_any_coding_and_so_is_an_encoded_empty_one() {
    for coding in ALL {
        assert_eq!(decode(coding, b"", 1), Ok(Vec::new()));
        assert_eq!(decode(coding, &encode(coding, b""), 1), Ok(Vec::new()), "{coding}");
    }
}

#[test]
fn members_and_frames_are_concatenated_and_nothing_else_may_follow() {
    for coding in ALL {
        let twice = [encode(coding, b"one, "), encode(coding, b"two")].concat();
        let expected = match coding {
            Coding::Gzip | Coding::Zstd => Ok(b"one, two".to_vec()),
            Coding::Deflate | Coding::Brotli => Err(CodingError::Trailing(coding)),
        };
        for size in [1, 7, 1000] {
            assert_eq!(decode(coding, &twice, size), expected, "{coding}");
        }
        let trailed = [&encode(coding, b"one")[..], b"\0\0\0\0garbage"].concat();
        let error = match coding {
            Coding::Zstd => CodingError::Malformed(coding),
            Coding::Gzip | Coding::Deflate | Coding::Brotli => CodingError::Trailing(coding),
        };
        assert_eq!(decode(coding, &trailed, 1000), Err(error), "{coding}");
    }
}

#[test]
fn deflate_without_its_zlib_wrapping_is_understood() {
    use std::io::Write;
    for body in [text(100_000), b"a".to_vec(), Vec::new()] {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&body).unwrap();
        let raw = encoder.finish().unwrap();
        for size in [1, 2, 1000] {
            assert_eq!(decode(Coding::Deflate, &raw, size).as_ref(), Ok(&body));
        }
    }
    // One stored, empty, last block, and half of it.
    assert_eq!(decode(Coding::Deflate, b"\x01\x00\x00\xff\xff", 1), Ok(Vec::new()));
    // A stored block whose padding looks like zlib's method, but the checksum of the header does not hold.
    assert_eq!(decode(Coding::Deflate, b"\x08\x01\x00\xfe\xffa\x03\x00", 1), Ok(b"a".to_vec()));
    assert_eq!(decode(Coding::Deflate, b"\x01", 1), Err(CodingError::Truncated(Coding::Deflate)));
}

#[test]
fn a_damaged_checksum_is_an_error() {
    for coding in [Coding::Gzip, Coding::Deflate] {
        let mut encoded = encode(coding, &text(500));
        let checksum = encoded.len() - if coding == Coding::Gzip { 8 } else { 4 };
        encoded[checksum] ^= 1;
        assert_eq!(decode(coding, &encoded, 64), Err(CodingError::Malformed(coding)));
    }
}

/// T79.
#[test]
fn t79_a_bomb_stops_at_a_hundred_times_its_size_past_the_first_mebibyte() {
    let zeros = vec![0; 64 << 20];
    for coding in ALL {
        let bomb = encode(coding, &zeros);
        let mut decoder = Decoder::new(coding, None);
        decoder.push(Bytes::from(bomb.clone()));
        let mut decoded = 0;
        let error = loop {
            match decoder.pull() {
                Ok(Some(piece)) => decoded += piece.len() as u64,
                Ok(None) => panic!("{coding}: all {decoded} bytes came out of {}", bomb.len()),
                Err(error) => break error,
            }
        };
        assert_eq!(error, CodingError::Ratio { coding, ratio: RATIO }, "{coding}");
        assert!(
            decoded >= RATIO_FROM - (32 << 10),
            "{coding}: {decoded} bytes are within the free allowance"
        );
        assert!(decoded <= RATIO_FROM.max(bomb.len() as u64 * RATIO), "{coding}: {decoded}");
    }
}

#[test]
fn what_is_small_may_be_as_dense_as_it_likes() {
    for coding in ALL {
        let zeros = vec![0; 1 << 20];
        assert!(decode(coding, &encode(coding, &zeros), 100).as_ref() == Ok(&zeros), "{coding}");
    }
}

/// T79.
#[test]
fn t79_the_callers_limit_holds_to_the_byte() {
    for coding in ALL {
        let body = text(100_000);
        let encoded = encode(coding, &body);
        assert!(decode_within(coding, &encoded, 999, Some(100_000)).as_ref() == Ok(&body), "{coding}");
        assert_eq!(
            decode_within(coding, &encoded, 999, Some(99_999)),
            Err(CodingError::TooLarge { coding, limit: 99_999 })
        );
    }
}

/// A peer chooses the window, and with it the memory (RFC 9659, RFC 7932 section 9.1).
#[test]
fn t79_windows_beyond_the_standards_are_refused() {
    // A zstd frame header that asks for 16 MiB: magic, descriptor without content size, window exponent 14.
    let zstd = b"\x28\xb5\x2f\xfd\x00\x70\x01\x00\x00";
    assert_eq!(decode(Coding::Zstd, zstd, 100), Err(CodingError::Malformed(Coding::Zstd)));
    // With 8 MiB the same frame is valid: one raw, last, empty block.
    assert_eq!(decode(Coding::Zstd, b"\x28\xb5\x2f\xfd\x00\x68\x01\x00\x00", 100), Ok(Vec::new()));
    // The reserved window of brotli that its large-window extension uses.
    assert_eq!(decode(Coding::Brotli, b"\x11\x1e\x03", 100), Err(CodingError::Malformed(Coding::Brotli)));
}

#[test]
fn after_an_error_the_body_is_over() {
    for coding in ALL {
        let mut damaged = encode(coding, &text(5000));
        let error = match coding {
            Coding::Brotli => {
                damaged.extend_from_slice(b"more");
                CodingError::Trailing(coding)
            }
            Coding::Gzip | Coding::Deflate | Coding::Zstd => {
                damaged[0] ^= 0xff;
                CodingError::Malformed(coding)
            }
        };
        let mut decoder = Decoder::new(coding, None);
        decoder.push(Bytes::from(damaged));
        while let Ok(Some(_)) = decoder.pull() {}
        decoder.push(Bytes::from(encode(coding, b"valid")));
        assert_eq!(decoder.pull(), Err(error.clone()), "{coding}");
        assert_eq!(decoder.finish(), Err(error));
    }
}
