use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

fn patterns<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Arc<Patterns> {
    Arc::new(Patterns::new(texts.into_iter().map(|text| Zeroizing::new(text.as_ref().to_vec()))))
}

/// What the whole text becomes, by trying every text at every place.
fn naive(texts: &[Vec<u8>], decide: impl Fn(u32) -> Decision<'static>, text: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let matches =
            (0..texts.len() as u32).zip(texts).filter(|(_, p)| !p.is_empty() && text[at..].starts_with(p));
        // The last of the longest would be an equal text with a higher number.
        let longest = matches.rev().max_by_key(|(_, pattern)| pattern.len());
        match longest {
            Some((number, pattern)) => {
                match decide(number) {
                    Decision::Replace(with) => replaced.extend_from_slice(with),
                    Decision::Leave => replaced.extend_from_slice(pattern),
                    Decision::Abort => unreachable!("not decided here"),
                }
                at += pattern.len();
            }
            None => {
                replaced.push(text[at]);
                at += 1;
            }
        }
    }
    replaced
}

/// Some replaced, some left, some removed.
fn mixed(number: u32) -> Decision<'static> {
    match number % 4 {
        0 => Decision::Replace(b"<>"),
        1 => Decision::Leave,
        2 => Decision::Replace(b""),
        _ => Decision::Replace(b"a longer replacement than most"),
    }
}

/// `text`, cut after each of `cuts` bytes in turn, over and over.
fn cut<'t>(text: &'t [u8], cuts: &'t [usize]) -> impl Iterator<Item = Bytes> + 't {
    let mut rest = text;
    cuts.iter().cycle().map_while(move |&size| {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        let ended = rest.is_empty();
        rest = after;
        (!ended).then(|| Bytes::copy_from_slice(piece))
    })
}

/// Streams `text` and holds the replacer to its promises on the way.
fn streamed(texts: &[Vec<u8>], text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut replacer = Replacer::new(patterns(texts), Caps::NONE);
    let mut out = Pieces::new();
    let mut seen = 0;
    for piece in cut(text, cuts) {
        seen += piece.len();
        replacer.push(piece, mixed, &mut out).expect("no caps");
        let held = &text[seen - replacer.held.len()..seen];
        assert_eq!(held, &replacer.held[..], "what is held is the end of what was pushed");
        let undecided = texts.iter().any(|p| p.len() > held.len() && p.starts_with(held));
        assert!(held.is_empty() || undecided, "{held:?} is held, and it is the beginning of no text");
    }
    replacer.finish(mixed, &mut out).expect("no caps");
    assert!(out.iter().all(|piece| !piece.is_empty()));
    out.iter().flatten().copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn cutting_changes_nothing_with_short_texts_that_overlap(
        texts in prop::collection::vec("[ab]{1,5}|[abc]{1,9}", 0..7),
        text in "[abc]{0,60}",
        cuts in prop::collection::vec(1..9usize, 1..9),
    ) {
        let texts: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
        prop_assert_eq!(streamed(&texts, text.as_bytes(), &cuts), naive(&texts, mixed, text.as_bytes()));
    }

    #[test]
    fn cutting_changes_nothing_with_long_texts(
        texts in prop::collection::vec("[ab]{4,40}|kf_[0-9a-f]{8,32}", 1..12),
        fillers in prop::collection::vec("[ab]{0,30}|[ -~]{0,30}|k|kf_0", 1..40),
        order in prop::collection::vec((any::<prop::sample::Index>(), 0..60usize), 40),
        cuts in prop::collection::vec(prop_oneof![1..4usize, 1..80usize, 900..1400usize], 1..6),
    ) {
        // Whole texts, and beginnings of texts, between other things.
        let mut text = Vec::new();
        for (filler, (chosen, length)) in fillers.iter().zip(&order) {
            let chosen = chosen.get(&texts).as_bytes();
            text.extend_from_slice(filler.as_bytes());
            text.extend_from_slice(&chosen[..chosen.len().min(*length)]);
        }
        let texts: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
        prop_assert_eq!(streamed(&texts, &text, &cuts), naive(&texts, mixed, &text));
    }

    #[test]
    fn cutting_changes_nothing_in_pieces_larger_than_what_is_joined(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 8..20), 1..40),
        places in prop::collection::vec((0..8000usize, any::<prop::sample::Index>()), 0..40),
        cuts in prop::collection::vec(1000..3000usize, 1..4),
    ) {
        let mut text: Vec<u8> = (0..8000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for (place, chosen) in places {
            let chosen = chosen.get(&texts);
            let end = text.len().min(place + chosen.len());
            text[place..end].copy_from_slice(&chosen[..end - place]);
        }
        prop_assert_eq!(streamed(&texts, &text, &cuts), naive(&texts, mixed, &text));
    }
}

fn replacing(texts: &[&str], caps: Caps) -> Replacer {
    Replacer::new(patterns(texts), caps)
}

fn value(_: u32) -> Decision<'static> {
    Decision::Replace(b"VALUE")
}

#[test]
fn a_piece_without_a_match_goes_on_uncopied() {
    let mut replacer = replacing(&["KEY"], Caps::SWAP);
    let mut out = Pieces::new();
    let piece = Bytes::from(vec![b'x'; 4096]);
    replacer.push(piece.clone(), value, &mut out).unwrap();
    assert_eq!((out.len(), out[0].as_ptr(), out[0].len()), (1, piece.as_ptr(), 4096));
    assert_eq!(replacer.held.len(), 0);
}

#[test]
fn only_the_beginning_of_a_text_waits_and_it_waits_for_ever() {
    let mut replacer = replacing(&["KEY", "KEY_LONG"], Caps::SWAP);
    let mut push = |piece: &'static str| {
        let mut out = Pieces::new();
        replacer.push(Bytes::from(piece), value, &mut out).unwrap();
        String::from_utf8(out.into_iter().flatten().collect()).unwrap()
    };
    assert_eq!(push("data: a\n\n"), "data: a\n\n");
    assert_eq!(push("data: KE"), "data: ");
    assert_eq!(push(""), "");
    // A whole text, but a longer one may follow.
    assert_eq!(push("Y"), "");
    assert_eq!(push("_LO"), "");
    assert_eq!(push("SER\n\n"), "VALUE_LOSER\n\n");
    assert_eq!(push("KEY_LONG"), "VALUE");
    assert_eq!(push("KEK"), "KE");
    assert_eq!(push("EY "), "VALUE ");
}

#[test]
fn the_end_decides_what_is_held() {
    let mut replacer = replacing(&["KEY", "KEY_LONG"], Caps::SWAP);
    let mut out = Pieces::new();
    replacer.push(Bytes::from("a KEY_LO"), value, &mut out).unwrap();
    replacer.finish(value, &mut out).unwrap();
    assert_eq!(out, [Bytes::from("a "), Bytes::from("VALUE_LO")]);
}

#[test]
fn without_texts_everything_goes_on() {
    let mut replacer = replacing(&[], Caps::SWAP);
    let mut out = Pieces::new();
    replacer.push(Bytes::from("anything"), value, &mut out).unwrap();
    replacer.finish(value, &mut out).unwrap();
    assert_eq!(out, [Bytes::from("anything")]);
}

/// T34.
#[test]
fn replacements_are_capped_in_number() {
    let mut replacer = replacing(&["KEY"], Caps { replacements: 2, growth: 100 });
    let mut out = Pieces::new();
    replacer.push(Bytes::from("KEY KEY"), value, &mut out).unwrap();
    let result = replacer.push(Bytes::from("KEY "), value, &mut out);
    assert_eq!((result, out), (Err(ReplaceError::TooMany(2)), Pieces::from([Bytes::from("VALUE VALUE")])));
}

/// T34.
#[test]
fn growth_is_capped_and_what_shrinks_does_not_make_room() {
    let decide = |number| if number == 0 { Decision::Replace(b"VALUE") } else { Decision::Replace(b"") };
    let mut replacer = replacing(&["KEY", "LONG_TEXT"], Caps { replacements: 100, growth: 5 });
    let mut out = Pieces::new();
    replacer.push(Bytes::from("KEY LONG_TEXT KEY LONG_TEXT"), decide, &mut out).unwrap();
    assert_eq!(out.pop_back(), Some(Bytes::from("VALUE  VALUE ")));
    assert_eq!(
        replacer.push(Bytes::from("KEY"), decide, &mut out),
        Err(ReplaceError::TooMuchGrowth(5)),
        "two bytes each, and one is left"
    );
}

#[test]
fn after_an_abort_nothing_goes_on() {
    let decide = |number| if number == 1 { Decision::Abort } else { value(number) };
    let mut replacer = replacing(&["KEY", "STOP"], Caps::SWAP);
    let mut out = Pieces::new();
    replacer.push(Bytes::from("first ST"), decide, &mut out).unwrap();
    let aborted = Err(ReplaceError::Aborted(1));
    assert_eq!(replacer.push(Bytes::from("OP and KEY"), decide, &mut out), aborted);
    assert_eq!(replacer.push(Bytes::from("more"), decide, &mut out), aborted);
    assert_eq!(replacer.finish(decide, &mut out), aborted);
    assert_eq!(out, [Bytes::from("first ")]);
}

/// What is held is decided together with no more of a large piece than that takes, which may end in the middle of a longer text.
#[test]
fn a_text_after_what_is_held_is_not_taken_for_a_shorter_one() {
    let decide = |number| if number == 0 { Decision::Replace(b"SHORT") } else { Decision::Replace(b"LONG") };
    let mut replacer = replacing(&["ab", "abcdefgh"], Caps::SWAP);
    let mut out = Pieces::new();
    let filler = "-".repeat(2 * JOINED);
    replacer.push(Bytes::from("a"), decide, &mut out).unwrap();
    replacer.push(Bytes::from(format!("xabcdefgh{filler}")), decide, &mut out).unwrap();
    assert_eq!(out, [Bytes::from("a"), Bytes::from(format!("xLONG{filler}"))]);
}

#[test]
fn nothing_of_the_piece_that_fails_goes_on_though_what_was_held_is_decided() {
    let decide = |number| if number == 1 { Decision::Abort } else { value(number) };
    let mut replacer = replacing(&["KEY", "STOP"], Caps::SWAP);
    let mut out = Pieces::new();
    replacer.push(Bytes::from("KE"), decide, &mut out).unwrap();
    let piece = Bytes::from(format!("Y{}STOP", "-".repeat(2 * JOINED)));
    assert_eq!((replacer.push(piece, decide, &mut out), out), (Err(ReplaceError::Aborted(1)), Pieces::new()));
}
