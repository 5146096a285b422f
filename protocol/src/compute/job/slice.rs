//! Chunks of lines, and of row groups: which bytes a task has to have, and which of them are its own.
//!
//! ```text
//!  …\nlast line of the chunk before\nfirst line …            … last line that begins in the chunk\n…
//!               ▲                 ▲                     ▲                                         ▲
//!             from               first line begins      to                                     the end
//! ```
//!
//! A line belongs to the chunk in which it begins. So the chunks of a blob share its lines among them, whatever the
//! length of a chunk, and nobody has to look for line ends before the job begins. With row groups of Parquet files it is
//! the same, but for where they begin: only the footer of the file says that, so the worker reads the footer first.

use super::spec::Align;

/// The longest line that a chunk of lines finds the end of, in bytes. Longer ones are cut there. Default: guess.
pub const RECORD_BYTES_MAX: u64 = 1 << 20;

/// The bytes that are needed to make a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first byte to fetch.
    pub from: u64,
    /// The byte after the last to fetch.
    pub to: u64,
}

/// Which bytes of a blob of this size are needed to make the chunk `from..to`; at most, with row groups: the footer says which
/// of them.
pub fn window(size: u64, from: u64, to: u64, align: Align) -> Window {
    let to = to.min(size);
    let from = from.min(to);
    match align {
        Align::Byte => Window { from, to },
        Align::RowGroup => Window { from: 0, to: size },
        // One byte before shows whether a line begins at `from`.
        Align::Line => Window {
            from: from.saturating_sub(1),
            to: if from == to { to } else { to.saturating_add(RECORD_BYTES_MAX).min(size) },
        },
    }
}

/// The lines that begin in `from..to`, of the bytes of [`window`] with [`Align::Line`].
pub fn cut_lines(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    let length = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
    // Where in `bytes` the chunk begins: behind the one byte before it, if there is one.
    let begin = usize::from(from > 0);
    let Some(chunk_end) = begin.checked_add(length).filter(|end| *end <= bytes.len()) else { return &[] };
    if length == 0 {
        return &[];
    }
    let feed = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b'\n');
    // The first line begins behind the first line feed from the byte before the chunk on.
    let first = if from == 0 {
        0
    } else {
        match feed(&bytes[..chunk_end - 1]) {
            Some(place) => place + 1,
            None => return &[],
        }
    };
    // The last one ends with the first line feed from the chunk's last byte on.
    let last = chunk_end - 1;
    let end = feed(&bytes[last..]).map_or(bytes.len(), |place| last + place + 1);
    &bytes[first..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunk(text: &[u8], from: u64, to: u64) -> Vec<u8> {
        let window = window(text.len() as u64, from, to, Align::Line);
        let bytes = &text[usize::try_from(window.from).unwrap()..usize::try_from(window.to).unwrap()];
        cut_lines(bytes, from, to.min(text.len() as u64)).to_vec()
    }

    proptest! {
        #[test]
        fn chunks_share_the_lines(text in "[ab\n]{0,60}", bytes in 1_u64..20) {
            let text = text.as_bytes();
            let chunks: Vec<_> = (0..(text.len() as u64).div_ceil(bytes).max(1))
                .map(|n| chunk(text, n * bytes, ((n + 1) * bytes).min(text.len() as u64)))
                .collect();
            prop_assert_eq!(chunks.concat(), text.to_vec());
            // Each ends where a line does.
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                prop_assert!(chunk.ends_with(b"\n") || text.ends_with(chunk));
            }
        }

        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..64), from: u64, to: u64) {
            let _ = cut_lines(&bytes, from, to);
        }
    }
}
