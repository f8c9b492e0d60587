//! UTF-8 that arrives in pieces, checked as early as it can be (RFC 6455 section 8.1).

/// What was seen of one text.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    /// The beginning of a character.
    partial: [u8; 4],
    length: usize,
}

impl Utf8 {
    /// Whether the text may still be UTF-8 with `piece` behind what came before.
    pub(super) fn accepts(&mut self, mut piece: &[u8]) -> bool {
        while self.length > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return true };
            piece = rest;
            self.partial[self.length] = byte;
            self.length += 1;
            match std::str::from_utf8(&self.partial[..self.length]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                let tail = &piece[error.valid_up_to()..];
                self.partial[..tail.len()].copy_from_slice(tail);
                self.length = tail.len();
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the text may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn judged(pieces: &[&[u8]]) -> bool {
        let mut utf8 = Utf8::default();
        pieces.iter().all(|piece| utf8.accepts(piece)) && utf8.is_complete()
    }

    #[test]
    fn a_text_that_cannot_become_valid_any_more_is_refused_at_that_byte() {
        let mut surrogate = Utf8::default();
        assert!(surrogate.accepts(b"fine \xed"));
        assert!(!surrogate.accepts(b"\xa0"));
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(
            bytes in prop_oneof![any::<String>().prop_map(String::into_bytes), any::<Vec<u8>>()],
            size in 1usize..5,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(judged(&pieces), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
