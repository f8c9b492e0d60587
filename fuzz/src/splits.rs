//! Ways in which bytes may arrive in pieces.

/// A few ways to cut `data`, whole and byte by byte among them. They depend on `data` alone, so that a finding can be repeated.
pub(crate) fn splits(data: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    // Long inputs byte by byte cost more than they find.
    let single = if data.len() <= 4096 { 1 } else { 509 };
    let seed = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        // FNV-1a.
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    [vec![data], data.chunks(single).collect(), irregular(data, seed, 7), irregular(data, seed, 300)]
        .into_iter()
}

fn irregular(mut data: &[u8], mut state: u64, longest: usize) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while !data.is_empty() {
        // An MMIX step (Knuth); its high bits are good enough for lengths.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = (1 + (state >> 33) as usize % longest).min(data.len());
        let (piece, rest) = data.split_at(length);
        pieces.push(piece);
        data = rest;
    }
    pieces
}
