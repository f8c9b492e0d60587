//! One direction, for the target of `fuzz/`.

use std::sync::Arc;

use super::direction::Direction;
use super::extension::Deflate;
use super::frame::Side;
use super::search::Search;
use crate::fuzzing::Relayed;
use crate::redact::Redactor;

pub(crate) fn relay<'p>(
    redactor: Option<Arc<Redactor>>,
    deflate: bool,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Relayed {
    let from = if redactor.is_some() { Side::Server } else { Side::Client };
    let deflate = deflate.then(Deflate::default);
    let mut direction = Direction::new(from, deflate, redactor.map(Search::Redact));
    let mut frames = Vec::new();
    for piece in pieces {
        direction.input.extend_from_slice(piece);
        loop {
            let advanced = direction.advance();
            let rests = advanced.is_ok() && direction.out.is_empty();
            frames.extend_from_slice(&direction.out.split());
            if let Err(stop) = advanced {
                return Relayed { frames, stopped: Some(stop.code) };
            }
            if rests {
                break;
            }
        }
    }
    Relayed { frames, stopped: None }
}
