//! Encoding a request body again after a swap.

use std::fmt;
use std::io::{self, Write};
use std::mem;

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use super::{Coding, CodingError};
use crate::stream::Pieces;

/// Levels that keep up with a network: about what a client that compresses on the fly takes.
const DEFLATE_LEVEL: u32 = 4;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// A window of 512 KiB, for bounded memory.
const BROTLI_WINDOW: u32 = 19;
const BROTLI_BUFFER: usize = 4096;

/// Encodes one body. What is pushed may wait for more of its kind; [`flush`](Self::flush) sends it on, and is called when the body
/// stands still. At the end: [`finish`](Self::finish), which consumes the encoder.
pub(crate) struct Encoder(Writer);

enum Writer {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    pub(crate) fn new(coding: Coding) -> Self {
        let level = Compression::new(DEFLATE_LEVEL);
        Self(match coding {
            Coding::Gzip => Writer::Gzip(GzEncoder::new(Vec::new(), level)),
            Coding::Deflate => Writer::Deflate(ZlibEncoder::new(Vec::new(), level)),
            Coding::Brotli => Writer::Brotli(Box::new(CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
            Coding::Zstd => Writer::Zstd(
                zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)
                    .expect("the level is one that zstd has"),
            ),
        })
    }

    pub(crate) fn push(&mut self, piece: &[u8], out: &mut Pieces) -> Result<(), CodingError> {
        self.write(out, |writer| writer.write_all(piece))
    }

    pub(crate) fn flush(&mut self, out: &mut Pieces) -> Result<(), CodingError> {
        self.write(out, |writer| writer.flush())
    }

    pub(crate) fn finish(self, out: &mut Pieces) -> Result<(), CodingError> {
        let coding = self.coding();
        let rest = match self.0 {
            Writer::Gzip(writer) => writer.finish(),
            Writer::Deflate(writer) => writer.finish(),
            Writer::Brotli(writer) => Ok(writer.into_inner()),
            Writer::Zstd(writer) => writer.finish(),
        };
        emit(rest.map_err(|_| CodingError::NotEncoded(coding))?, out);
        Ok(())
    }

    fn coding(&self) -> Coding {
        match self.0 {
            Writer::Gzip(_) => Coding::Gzip,
            Writer::Deflate(_) => Coding::Deflate,
            Writer::Brotli(_) => Coding::Brotli,
            Writer::Zstd(_) => Coding::Zstd,
        }
    }

    fn write(
        &mut self,
        out: &mut Pieces,
        work: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CodingError> {
        let result = match &mut self.0 {
            Writer::Gzip(writer) => work(writer),
            Writer::Deflate(writer) => work(writer),
            Writer::Brotli(writer) => work(writer),
            Writer::Zstd(writer) => work(writer),
        };
        result.map_err(|_| CodingError::NotEncoded(self.coding()))?;
        emit(mem::take(self.encoded()), out);
        Ok(())
    }

    fn encoded(&mut self) -> &mut Vec<u8> {
        match &mut self.0 {
            Writer::Gzip(writer) => writer.get_mut(),
            Writer::Deflate(writer) => writer.get_mut(),
            Writer::Brotli(writer) => writer.get_mut(),
            Writer::Zstd(writer) => writer.get_mut(),
        }
    }
}

fn emit(encoded: Vec<u8>, out: &mut Pieces) {
    if !encoded.is_empty() {
        out.push_back(Bytes::from(encoded));
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Encoder").field(&self.coding()).finish()
    }
}
