//! Frames in a stream of bytes: an unsigned varint with the length, then the frame.
//!
//! A read buffer hands out frames as slices of itself. It begins small, for most peers are quiet; it doubles
//! while reads fill it, up to [`CHUNK_MAX`], and goes beyond that only for a longer frame, and only as fast as
//! the bytes of that frame arrive: a peer that announces much and sends little makes us hold little. Only a frame no longer than
//! the one before, which came whole, has its room at once. What is beyond
//! [`CHUNK_MAX`] is of the memory of all connections, and there is none for such a frame when that is used up.

use bytes::{Buf, Bytes, BytesMut};

use super::event::Malformed;
use crate::memory::Account;

/// The smallest buffer.
const CHUNK_MIN: usize = 4 << 10;
/// The largest buffer, but for frames that do not fit in it.
const CHUNK_MAX: usize = 64 << 10;
/// The longest frame that has its room before it came: a group of a blob, and what is around it.
const AT_ONCE_MAX: usize = (1 << 20) + (4 << 10);
/// A buffer with less room than this is exchanged for a new one, or reads would be tiny.
const ROOM_MIN: usize = 1 << 10;

/// Appends the length prefix of a frame of `length` bytes.
pub(super) fn put_prefix(length: usize, into: &mut Vec<u8>) {
    let mut rest = length as u64;
    while let (low, true) = ((rest & 0x7f) as u8, rest > 0x7f) {
        into.push(low | 0x80);
        rest >>= 7;
    }
    into.push((rest & 0x7f) as u8);
}

/// The length and the size of the prefix at the start of `bytes`; `None` if it is not all there.
fn prefix(bytes: &[u8]) -> Result<Option<(u64, usize)>, Malformed> {
    let mut length = 0u64;
    for (index, byte) in (0u32..).zip(bytes) {
        let low = u64::from(byte & 0x7f);
        // The tenth byte holds the 64th bit only.
        if index >= 9 && (index > 9 || *byte > 1) {
            return Err(Malformed::BadPrefix);
        }
        length |= low << (7 * index);
        if byte & 0x80 == 0 {
            if *byte == 0 && index > 0 {
                return Err(Malformed::BadPrefix); // Not minimal.
            }
            return Ok(Some((length, index as usize + 1)));
        }
    }
    Ok(None)
}

/// Turns what is read into frames.
#[derive(Debug)]
pub(super) struct FrameBuffer {
    /// All of it is initialised; the first `filled` bytes were read and not handed out yet.
    buffer: BytesMut,
    filled: usize,
    /// The size of the next buffer.
    chunk: usize,
    /// Whether some read filled all the room it was given since the last exchange.
    busy: bool,
    /// Bytes of the last frame that came whole, with its prefix.
    last: usize,
    frame_bytes_max: usize,
    memory: Account,
}

/// There is no memory for so long a frame now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoMemory;

impl FrameBuffer {
    pub(super) fn new(frame_bytes_max: usize, memory: Account) -> Self {
        let buffer = BytesMut::new();
        FrameBuffer { buffer, filled: 0, chunk: CHUNK_MIN, busy: false, last: 0, frame_bytes_max, memory }
    }

    /// Room for the next read; never empty.
    pub(super) fn room(&mut self) -> Result<&mut [u8], NoMemory> {
        if self.buffer.len() - self.filled < ROOM_MIN {
            self.exchange()?;
        }
        Ok(self.buffer.get_mut(self.filled..).unwrap_or_default())
    }

    /// Whose memory it is of.
    pub(super) fn memory(&self) -> &Account {
        &self.memory
    }

    /// Tells that `read` bytes were put at the start of the room.
    pub(super) fn advance(&mut self, read: usize) {
        self.filled = (self.filled + read).min(self.buffer.len());
        self.busy |= self.filled == self.buffer.len();
    }

    /// The next whole frame.
    pub(super) fn next_frame(&mut self) -> Result<Option<Bytes>, Malformed> {
        let bytes = self.buffer.get(..self.filled).unwrap_or_default();
        let Some((length, prefix)) = prefix(bytes)? else { return Ok(None) };
        let size = match usize::try_from(length) {
            Ok(size) if size <= self.frame_bytes_max => size,
            _ => return Err(Malformed::TooLong { length, max: self.frame_bytes_max }),
        };
        let end = prefix + size;
        if self.filled < end {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(end);
        self.filled -= end;
        self.last = end;
        frame.advance(prefix);
        Ok(Some(frame.freeze()))
    }

    /// Whether part of a frame was read.
    pub(super) fn is_partial(&self) -> bool {
        self.filled > 0
    }

    /// The bytes of the frame of which a part was read, with its prefix.
    fn awaited(&self) -> Option<usize> {
        let (length, prefix) = prefix(self.buffer.get(..self.filled)?).ok()??;
        usize::try_from(length).ok()?.checked_add(prefix)
    }

    /// Takes a new buffer, with what was not handed out at its start.
    fn exchange(&mut self) -> Result<(), NoMemory> {
        self.chunk = if self.busy { self.chunk * 2 } else { self.chunk / 2 }.clamp(CHUNK_MIN, CHUNK_MAX);
        self.busy = false;
        let doubled = (2 * self.filled).max(self.filled + self.chunk);
        let at_once = self.awaited().filter(|end| *end <= self.last.min(AT_ONCE_MAX) && *end > doubled);
        // And a little: the last bytes of the frame are not to be what it is exchanged for.
        let at_once = at_once.map(|end| end + ROOM_MIN);
        // The old one goes: frames of it that somebody still has are counted there.
        self.memory.shrink(usize::MAX);
        let size = match at_once {
            Some(size) if self.memory.grow(size) => size,
            _ if doubled <= CHUNK_MAX => {
                self.memory.force(doubled);
                doubled
            }
            _ if self.memory.grow(doubled) => doubled,
            _ => {
                self.memory.force(self.buffer.len());
                return Err(NoMemory);
            }
        };
        // Not `zeroed`: for that jemalloc gives long memory back to the system and has it come anew, page by page.
        let mut buffer = BytesMut::with_capacity(size);
        buffer.resize(size, 0);
        let filled = self.buffer.get(..self.filled).unwrap_or_default();
        if let Some(start) = buffer.get_mut(..filled.len()) {
            start.copy_from_slice(filled);
        }
        self.buffer = buffer;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::Meter;

    fn frames_of(frame_bytes_max: usize) -> FrameBuffer {
        FrameBuffer::new(frame_bytes_max, Account::new(Arc::new(Meter::new(usize::MAX))))
    }

    #[test]
    fn long_frames_share_their_memory_and_all_is_given_back() {
        let memory = Arc::new(Meter::new(1 << 20));
        let buffer = || FrameBuffer::new(1 << 20, Account::new(Arc::clone(&memory)));
        let fill = |buffer: &mut FrameBuffer| {
            let mut prefix = Vec::new();
            put_prefix(1 << 20, &mut prefix);
            let room = buffer.room().unwrap();
            room[..prefix.len()].copy_from_slice(&prefix);
            loop {
                let Ok(room) = buffer.room() else { return };
                let room = room.len();
                buffer.advance(room);
                assert_eq!(buffer.next_frame(), Ok(None));
                if buffer.filled > 700_000 {
                    return;
                }
            }
        };
        let (mut first, mut second) = (buffer(), buffer());
        fill(&mut first);
        fill(&mut second);
        assert!(memory.used() <= (1 << 20) + CHUNK_MAX, "{}", memory.used());
        assert_eq!(second.room().err(), Some(NoMemory));
        drop((first, second));
        assert_eq!(memory.used(), 0);
        // A short one is always read.
        let mut hog = Account::new(Arc::clone(&memory));
        hog.force(1 << 20);
        assert!(buffer().room().is_ok());
    }

    fn encode(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for frame in frames {
            put_prefix(frame.len(), &mut bytes);
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    /// Feeds `bytes` in reads of at most `step`.
    fn decode(buffer: &mut FrameBuffer, mut bytes: &[u8], step: usize) -> Result<Vec<Bytes>, Malformed> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let room = buffer.room().unwrap();
            let read = room.len().min(step).min(bytes.len());
            room[..read].copy_from_slice(&bytes[..read]);
            buffer.advance(read);
            bytes = &bytes[read..];
            while let Some(frame) = buffer.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let lengths = [0, 1, 127, 128, 129, 1000, 16383, 16384, 70_000, 5, 200_000, 3, 0, 64 << 10];
        let frames: Vec<Vec<u8>> =
            lengths.iter().enumerate().map(|(i, length)| vec![u8::try_from(i).unwrap(); *length]).collect();
        let bytes = encode(&frames);
        for step in [1, 2, 3, 7, 100, 1024, 4096, 65_537, usize::MAX] {
            let mut buffer = frames_of(200_000);
            let decoded = decode(&mut buffer, &bytes, step).unwrap();
            assert_eq!(decoded.len(), frames.len(), "step {step}");
            assert!(decoded.iter().zip(&frames).all(|(a, b)| a == b), "step {step}");
            assert!(!buffer.is_partial());
        }
    }

    #[test]
    fn prefixes_are_minimal_varints() {
        assert_eq!(prefix(&[]), Ok(None));
        assert_eq!(prefix(&[0x80]), Ok(None));
        assert_eq!(prefix(&[0]), Ok(Some((0, 1))));
        assert_eq!(prefix(&[0xac, 0x02]), Ok(Some((300, 2))));
        assert_eq!(prefix(&[0x80, 0]), Err(Malformed::BadPrefix));
        assert_eq!(prefix(&[0xff; 10]), Err(Malformed::BadPrefix));
        assert_eq!(prefix(&[0xff; 20]), Err(Malformed::BadPrefix));
        let mut max = [0xff; 10];
        max[9] = 1;
        assert_eq!(prefix(&max), Ok(Some((u64::MAX, 10))));
        for length in [0, 1, 127, 128, 16_383, 16_384, usize::MAX] {
            let mut bytes = Vec::new();
            put_prefix(length, &mut bytes);
            assert_eq!(prefix(&bytes), Ok(Some((length as u64, bytes.len()))));
        }
    }

    #[test]
    fn too_long_a_frame_is_refused_by_its_prefix_alone() {
        let mut buffer = frames_of(1000);
        let mut bytes = encode(&[vec![1; 1000]]);
        put_prefix(1001, &mut bytes);
        let refused = decode(&mut buffer, &bytes, usize::MAX);
        assert_eq!(refused, Err(Malformed::TooLong { length: 1001, max: 1000 }));
    }

    #[test]
    fn an_announced_frame_takes_no_memory_before_it_comes() {
        let mut buffer = frames_of(1 << 30);
        let mut bytes = Vec::new();
        put_prefix(1 << 30, &mut bytes);
        bytes.extend_from_slice(&[0; 10_000]);
        decode(&mut buffer, &bytes, 500).unwrap();
        buffer.room().unwrap();
        assert!(buffer.buffer.capacity() < 4 * 10_000, "{}", buffer.buffer.capacity());
    }

    #[test]
    fn a_long_frame_after_another_has_its_room_at_once() {
        let mut buffer = frames_of(1 << 30);
        let long = encode(&[vec![7; 1 << 20]]);
        let exchanges = |buffer: &mut FrameBuffer, bytes: &[u8]| {
            let mut sizes = Vec::new();
            for part in bytes.chunks(1000) {
                decode(buffer, part, usize::MAX).unwrap();
                sizes.push(buffer.buffer.len());
            }
            sizes.dedup();
            sizes.len()
        };
        let first = exchanges(&mut buffer, &long);
        let second = exchanges(&mut buffer, &long);
        assert!(second < first, "{second} {first}");
        for part in long.chunks(CHUNK_MAX) {
            decode(&mut buffer, part, usize::MAX).unwrap();
            buffer.room().unwrap();
            assert!(buffer.buffer.len() < long.len() + 2 * ROOM_MIN, "{}", buffer.buffer.len());
        }
        // Not one that is longer.
        let mut longer = Vec::new();
        put_prefix(1 << 29, &mut longer);
        longer.extend_from_slice(&vec![0; 1 << 20]);
        decode(&mut buffer, &longer, 500).unwrap();
        buffer.room().unwrap();
        assert!(buffer.buffer.len() < 4 << 20, "{}", buffer.buffer.len());
    }

    #[test]
    fn a_quiet_stream_keeps_a_small_buffer() {
        let mut buffer = frames_of(1 << 20);
        for _ in 0..10_000 {
            decode(&mut buffer, &encode(&[vec![7; 50]]), usize::MAX).unwrap();
        }
        assert_eq!(buffer.chunk, CHUNK_MIN);
        decode(&mut buffer, &encode(&vec![vec![7; 50]; 10_000]), usize::MAX).unwrap();
        assert_eq!(buffer.chunk, CHUNK_MAX);
    }
}
