//! Bodies of any size whose every block is different, made as they are sent.

use aws_lc_rs::digest::{Context, SHA256, digest};
use bytes::{Bytes, BytesMut};

const BLOCK: u64 = 64 * 1024;

/// A body's blocks, one after the other.
pub(crate) fn blocks(length: u64) -> impl Iterator<Item = Bytes> {
    (0..length.div_ceil(BLOCK)).map(move |index| block(index, (length - index * BLOCK).min(BLOCK)))
}

/// The digest of the body that `/bytes/LENGTH` sends.
pub fn pattern_sha256(length: u64) -> String {
    let mut context = Context::new(&SHA256);
    blocks(length).for_each(|block| context.update(&block));
    hex(context.finish().as_ref())
}

/// A digest as `sha256sum` prints it.
pub fn sha256_hex(content: &[u8]) -> String {
    hex(digest(&SHA256, content).as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// A block that names its place, so that a lost or swapped one changes the digest.
fn block(index: u64, length: u64) -> Bytes {
    let length = usize::try_from(length).expect("at most one block");
    let mut block = BytesMut::with_capacity(length + 8);
    let mut word = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    while block.len() < length {
        word = word.wrapping_add(0x2545_f491_4f6c_dd1d);
        block.extend_from_slice(&word.to_le_bytes());
    }
    block.truncate(length);
    block.freeze()
}
