//! The first gate for every CBOR document from outside: is it shaped like one we would write?
//!
//! OmniMesh writes CBOR (RFC 8949) in one way only: unsigned integers, byte strings, text strings, arrays
//! and null, each with the shortest head, nothing of indefinite length, no tags, maps or floats. A
//! document therefore has exactly one encoding, and a receiver can refuse every other before anything is
//! built from it. The walk is a loop with a small fixed stack; strings are skipped, not read.

use crate::refusal::Refusal;

/// Deepest nesting that any document of ours has.
const DEPTH_MAX: usize = 4;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const NULL: u8 = 0xf6;

/// Checks that `bytes` is one document of ours and nothing more.
///
/// # Errors
/// [`Refusal::Truncated`], [`Refusal::TrailingBytes`], [`Refusal::TooDeep`], [`Refusal::NotCanonical`] or
/// [`Refusal::Malformed`].
pub fn check(bytes: &[u8]) -> Result<(), Refusal> {
    // How many items each open array still wants; the document itself is one item.
    let mut open = [0_u64; DEPTH_MAX + 1];
    open[0] = 1;
    let mut depth = 0;
    let mut rest = bytes;
    loop {
        while open[depth] == 0 {
            if depth == 0 {
                return if rest.is_empty() { Ok(()) } else { Err(Refusal::TrailingBytes) };
            }
            depth -= 1;
        }
        open[depth] -= 1;
        let (&first, after) = rest.split_first().ok_or(Refusal::Truncated)?;
        if first == NULL {
            rest = after;
            continue;
        }
        // The type comes first: a float is malformed whatever its bits would be as a length.
        let kind = first >> 5;
        if !matches!(kind, UNSIGNED | BYTES | TEXT | ARRAY) {
            return Err(Refusal::Malformed);
        }
        let (argument, after) = argument(first, after)?;
        rest = after;
        match kind {
            BYTES | TEXT => {
                let length = usize::try_from(argument).map_err(|_| Refusal::Truncated)?;
                rest = after.get(length..).ok_or(Refusal::Truncated)?;
            }
            ARRAY => {
                if depth == DEPTH_MAX {
                    return Err(Refusal::TooDeep);
                }
                depth += 1;
                open[depth] = argument;
            }
            _ => {}
        }
    }
}

/// The first item of a document that [`check`] has passed, if the document is an array and the item an
/// unsigned integer.
pub(crate) fn first_unsigned(document: &[u8]) -> Option<u64> {
    let (&head, rest) = document.split_first()?;
    if head >> 5 != ARRAY {
        return None;
    }
    let (_, items) = argument(head, rest).ok()?;
    let (&head, rest) = items.split_first()?;
    if head >> 5 != UNSIGNED {
        return None;
    }
    argument(head, rest).ok().map(|(value, _)| value)
}

/// The number in an item's head, which must be in its shortest form, and what follows the head.
pub(crate) fn argument(first: u8, rest: &[u8]) -> Result<(u64, &[u8]), Refusal> {
    fn take<const N: usize>(rest: &[u8]) -> Result<([u8; N], &[u8]), Refusal> {
        rest.split_first_chunk::<N>().map(|(head, rest)| (*head, rest)).ok_or(Refusal::Truncated)
    }
    let (value, least, rest) = match first & 0x1f {
        small @ 0..=23 => return Ok((u64::from(small), rest)),
        24 => take::<1>(rest).map(|(b, rest)| (u64::from(b[0]), 24, rest))?,
        25 => take(rest).map(|(b, rest)| (u64::from(u16::from_be_bytes(b)), 1 << 8, rest))?,
        26 => take(rest).map(|(b, rest)| (u64::from(u32::from_be_bytes(b)), 1 << 16, rest))?,
        27 => take(rest).map(|(b, rest)| (u64::from_be_bytes(b), 1 << 32, rest))?,
        31 => return Err(Refusal::NotCanonical),
        _ => return Err(Refusal::Malformed),
    };
    if value < least { Err(Refusal::NotCanonical) } else { Ok((value, rest)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_we_write_passes() {
        for value in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            check(&serde_cbor::to_vec(&(value, "text", [Some(1), None])).unwrap()).unwrap();
        }
    }

    #[test]
    fn each_fault_has_its_reason() {
        let cases: [(&[u8], Refusal); 17] = [
            (&[], Refusal::Truncated),
            (&[0x82, 0x01], Refusal::Truncated),
            (&[0x43, 1, 2], Refusal::Truncated),
            (&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255], Refusal::Truncated),
            (&[0x01, 0x01], Refusal::TrailingBytes),
            (&[0x81; 6], Refusal::TooDeep),
            (&[0x18, 0x01], Refusal::NotCanonical),
            (&[0x19, 0x00, 0xff], Refusal::NotCanonical),
            (&[0x9f, 0xff], Refusal::NotCanonical),
            (&[0xc1, 0x01], Refusal::Malformed),
            (&[0xa0], Refusal::Malformed),
            (&[0xf5], Refusal::Malformed),
            // Types that are never written, with arguments that would not be the shortest.
            (&[0x38, 0x01], Refusal::Malformed),
            (&[0xd8, 0x01, 0x01], Refusal::Malformed),
            (&[0xbf, 0xff], Refusal::Malformed),
            (&[0xf9, 0x00, 0x00], Refusal::Malformed),
            (&[0xff], Refusal::Malformed),
        ];
        for (bytes, reason) in cases {
            assert_eq!(check(bytes), Err(reason), "{bytes:02x?}");
        }
    }

    #[test]
    fn the_first_item_is_read_behind_any_head() {
        assert_eq!(first_unsigned(&[0x82, 0x01, 0x02]), Some(1));
        assert_eq!(first_unsigned(&[0x81, 0x19, 0x01, 0x00]), Some(256));
        let long = serde_cbor::to_vec(&vec![7; 24]).unwrap();
        assert_eq!(first_unsigned(&long), Some(7));
        for other in [&[][..], &[0x80], &[0x01], &[0x81, 0xf6], &[0x81, 0x41, 0x01], &[0x81, 0x81, 0x01]] {
            assert_eq!(first_unsigned(other), None, "{other:02x?}");
        }
    }

    #[test]
    fn a_hundred_thousand_levels_are_too_deep() {
        assert_eq!(check(&[0x81; 100_000]), Err(Refusal::TooDeep));
        // An array that claims more items than there can be ends with the bytes, not with memory.
        assert_eq!(check(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255, 0]), Err(Refusal::Truncated));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = check(&bytes);
        }
    }
}
