//! How pages are compressed, undone into a length that is known before, whatever is said within.

use std::io::Read;

use omnimesh_protocol::compute::ledger::FailReason;

use crate::compute::task::OpError;

/// How pages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Snappy,
    Gzip,
    Zstd,
    Lz4Raw,
}

fn bad(detail: String) -> OpError {
    OpError::new(FailReason::BadInput, detail)
}

impl Codec {
    pub(super) fn of(code: i64) -> Result<Codec, OpError> {
        let name = match code {
            0 => return Ok(Codec::None),
            1 => return Ok(Codec::Snappy),
            2 => return Ok(Codec::Gzip),
            6 => return Ok(Codec::Zstd),
            7 => return Ok(Codec::Lz4Raw),
            3 => "LZO",
            4 => "Brotli",
            5 => "LZ4 with frames, which the format has given up",
            _ => "a codec that there is not",
        };
        Err(bad(format!(
            "the Parquet file is compressed with {name}: use zstd, snappy, gzip, lz4_raw or none"
        )))
    }

    /// How many times as long as it is a page can become. What claims more is no page.
    fn ratio_max(self) -> u64 {
        match self {
            Codec::None => 1,
            // A copy of 64 bytes takes two or three.
            Codec::Snappy => 32,
            // A byte of length is 255 bytes.
            Codec::Lz4Raw => 256,
            // 258 bytes take two bits.
            Codec::Gzip => 1032,
            // A block of 128 KiB of one byte takes four.
            Codec::Zstd => 1 << 15,
        }
    }

    /// The bytes that undoing it into `length` bytes takes beside these.
    ///
    /// # Errors
    /// If that cannot be its length, or what is compressed does not begin as it has to.
    pub(super) fn room(self, input: &[u8], length: u64) -> Result<u64, OpError> {
        if length > (input.len() as u64).saturating_add(64).saturating_mul(self.ratio_max()) {
            return Err(self.wrong(format!("{} bytes cannot be {length} bytes", input.len())));
        }
        match self {
            Codec::Zstd => zstd_window(input).ok_or_else(|| self.wrong("its frame has no head")),
            Codec::Gzip => Ok(64 << 10),
            Codec::None | Codec::Snappy | Codec::Lz4Raw => Ok(0),
        }
    }

    fn wrong(self, what: impl std::fmt::Display) -> OpError {
        bad(format!("a page of the Parquet file is not compressed with {self:?}: {what}"))
    }

    /// What was compressed, which has to be so long.
    pub(super) fn undo(self, input: &[u8], length: usize, output: &mut Vec<u8>) -> Result<(), OpError> {
        let before = output.len();
        match self {
            Codec::None => output.extend_from_slice(input),
            Codec::Snappy => {
                let claimed = snap::raw::decompress_len(input).map_err(|error| self.wrong(error))?;
                if claimed == length {
                    output.resize(before + length, 0);
                    let room = output.get_mut(before..).unwrap_or_default();
                    snap::raw::Decoder::new().decompress(input, room).map_err(|error| self.wrong(error))?;
                }
            }
            Codec::Lz4Raw => {
                output.resize(before + length, 0);
                let room = output.get_mut(before..).unwrap_or_default();
                let made =
                    lz4_flex::block::decompress_into(input, room).map_err(|error| self.wrong(error))?;
                output.truncate(before + made);
            }
            Codec::Gzip => self.read(flate2::read::MultiGzDecoder::new(input), length, output)?,
            Codec::Zstd => {
                let decoder = ruzstd::decoding::StreamingDecoder::new(input);
                self.read(decoder.map_err(|error| self.wrong(error))?, length, output)?;
            }
        }
        if output.len() - before != length {
            let detail = format!("it does not have the {length} bytes that its head claims");
            return Err(self.wrong(detail));
        }
        Ok(())
    }

    /// No more than one byte more than there should be.
    fn read(self, from: impl Read, length: usize, output: &mut Vec<u8>) -> Result<(), OpError> {
        output.reserve_exact(length + 1);
        from.take(length as u64 + 1).read_to_end(output).map(drop).map_err(|error| self.wrong(error))
    }
}

/// The length of the window of a frame (RFC 8878, 3.1.1.1).
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let (magic, rest) = frame.split_first_chunk::<4>()?;
    let (descriptor, rest) = rest.split_first()?;
    if *magic != [0x28, 0xb5, 0x2f, 0xfd] {
        return None;
    }
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let window = u64::from(*rest.first()?);
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * (window & 7));
    }
    let dictionary_id = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let content = rest.get(dictionary_id..dictionary_id + length)?;
    let content = content.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    Some(if length == 2 { content.saturating_add(256) } else { content })
}
