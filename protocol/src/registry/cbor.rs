//! Reading and writing CBOR in one way only: the deterministic encoding of RFC 8949, section 4.2.1, with the types
//! that registry entries have. (Envelopes have fewer types, see [`crate::shape`].)

use super::fault::Fault;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const FLOAT: u8 = 0xfb;

/// One item as it stands in the bytes; arrays and maps by how many items follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// −1 − n.
    Negative(u64),
    Float(f64),
    Bytes(&'a [u8]),
    Text(&'a str),
    Array(u64),
    Map(u64),
}

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn finish(self) -> Result<(), Fault> {
        if self.rest.is_empty() { Ok(()) } else { Err(Fault::TrailingBytes) }
    }

    pub(crate) fn item(&mut self) -> Result<Item<'a>, Fault> {
        let first = self.take::<1>()?[0];
        match first {
            FALSE => return Ok(Item::Bool(false)),
            TRUE => return Ok(Item::Bool(true)),
            NULL => return Ok(Item::Null),
            FLOAT => return self.float(),
            _ => {}
        }
        let major = first >> 5;
        if major > MAP {
            return Err(Fault::Malformed);
        }
        let argument = self.argument(first)?;
        Ok(match major {
            UNSIGNED => Item::Unsigned(argument),
            NEGATIVE => Item::Negative(argument),
            BYTES => Item::Bytes(self.slice(argument)?),
            TEXT => Item::Text(std::str::from_utf8(self.slice(argument)?).map_err(|_| Fault::Malformed)?),
            ARRAY => Item::Array(argument),
            _ => Item::Map(argument),
        })
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, Fault> {
        if let Item::Unsigned(n) = self.item()? { Ok(n) } else { Err(Fault::Malformed) }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Fault> {
        if let Item::Text(text) = self.item()? { Ok(text) } else { Err(Fault::Malformed) }
    }

    pub(crate) fn byte_string(&mut self) -> Result<&'a [u8], Fault> {
        if let Item::Bytes(bytes) = self.item()? { Ok(bytes) } else { Err(Fault::Malformed) }
    }

    pub(crate) fn fixed_bytes<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let Item::Bytes(bytes) = self.item()? else { return Err(Fault::Malformed) };
        bytes.try_into().map_err(|_| Fault::Malformed)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Fault> {
        if let Item::Bool(value) = self.item()? { Ok(value) } else { Err(Fault::Malformed) }
    }

    /// An array's head; how many items follow.
    pub(crate) fn array(&mut self) -> Result<u64, Fault> {
        if let Item::Array(items) = self.item()? { Ok(items) } else { Err(Fault::Malformed) }
    }

    /// The head of an array of exactly this many items.
    pub(crate) fn array_of(&mut self, items: u64) -> Result<(), Fault> {
        if self.array()? == items { Ok(()) } else { Err(Fault::Malformed) }
    }

    pub(crate) fn map(&mut self) -> Result<u64, Fault> {
        if let Item::Map(pairs) = self.item()? { Ok(pairs) } else { Err(Fault::Malformed) }
    }

    /// Takes a null, if that is what comes next.
    pub(crate) fn null(&mut self) -> bool {
        match self.rest.split_first() {
            Some((&NULL, rest)) => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn slice(&mut self, length: u64) -> Result<&'a [u8], Fault> {
        let length = usize::try_from(length).map_err(|_| Fault::Truncated)?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn argument(&mut self, first: u8) -> Result<u64, Fault> {
        let (value, least) = match first & 0x1f {
            small @ 0..=23 => return Ok(u64::from(small)),
            24 => (u64::from(self.take::<1>()?[0]), 24),
            25 => (u64::from(u16::from_be_bytes(self.take()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.take()?)), 1 << 16),
            27 => (u64::from_be_bytes(self.take()?), 1 << 32),
            31 => return Err(Fault::NotCanonical),
            _ => return Err(Fault::Malformed),
        };
        if value < least { Err(Fault::NotCanonical) } else { Ok(value) }
    }

    /// Always eight bytes, always finite, and no negative zero: so equal numbers are equal bytes.
    fn float(&mut self) -> Result<Item<'a>, Fault> {
        let value = f64::from_bits(u64::from_be_bytes(self.take()?));
        if !value.is_finite() || (value == 0.0 && value.is_sign_negative()) {
            return Err(Fault::NotCanonical);
        }
        Ok(Item::Float(value))
    }
}

/// Writes items one after another.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn unsigned(&mut self, value: u64) {
        self.head(UNSIGNED, value);
    }

    pub(crate) fn integer(&mut self, value: i64) {
        if value < 0 {
            self.head(NEGATIVE, !value.cast_unsigned());
        } else {
            self.head(UNSIGNED, value.cast_unsigned());
        }
    }

    /// The caller has made sure that the value is finite.
    pub(crate) fn float(&mut self, value: f64) {
        // Adding zero makes the negative zero a positive one.
        let bits = (value + 0.0).to_bits();
        self.bytes.push(FLOAT);
        self.bytes.extend_from_slice(&bits.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.head(BYTES, value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.head(TEXT, value.len() as u64);
        self.bytes.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn array(&mut self, items: usize) {
        self.head(ARRAY, items as u64);
    }

    pub(crate) fn map(&mut self, pairs: usize) {
        self.head(MAP, pairs as u64);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.bytes.push(if value { TRUE } else { FALSE });
    }

    pub(crate) fn null(&mut self) {
        self.bytes.push(NULL);
    }

    /// An item that is encoded already.
    pub(crate) fn raw(&mut self, item: &[u8]) {
        self.bytes.extend_from_slice(item);
    }

    fn head(&mut self, major: u8, argument: u64) {
        let major = major << 5;
        if let Ok(byte) = u8::try_from(argument) {
            if byte < 24 {
                self.bytes.push(major | byte);
            } else {
                self.bytes.extend_from_slice(&[major | 24, byte]);
            }
        } else if let Ok(short) = u16::try_from(argument) {
            self.bytes.push(major | 25);
            self.bytes.extend_from_slice(&short.to_be_bytes());
        } else if let Ok(word) = u32::try_from(argument) {
            self.bytes.push(major | 26);
            self.bytes.extend_from_slice(&word.to_be_bytes());
        } else {
            self.bytes.push(major | 27);
            self.bytes.extend_from_slice(&argument.to_be_bytes());
        }
    }
}

/// The order of map keys: that of their encodings, which is shorter first, then by bytes.
pub(crate) fn key_order(a: &str, b: &str) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(bytes: &[u8]) -> Result<Vec<Item<'_>>, Fault> {
        let mut reader = Reader::new(bytes);
        let mut items = Vec::new();
        while !reader.rest().is_empty() {
            items.push(reader.item()?);
        }
        Ok(items)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 8949, appendix A.
        assert_eq!(
            items(&[0x1b, 0, 0, 0, 0xe8, 0xd4, 0xa5, 0x10, 0]),
            Ok(vec![Item::Unsigned(1_000_000_000_000)])
        );
        assert_eq!(items(&[0x38, 0x63]), Ok(vec![Item::Negative(99)]));
        assert_eq!(
            items(&[0xfb, 0x3f, 0xf1, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a]),
            Ok(vec![Item::Float(1.1)])
        );
        assert_eq!(items(&[0xf4, 0xf5, 0xf6]), Ok(vec![Item::Bool(false), Item::Bool(true), Item::Null]));
        assert_eq!(items(&[0x62, 0xc3, 0xbc]), Ok(vec![Item::Text("ü")]));
    }

    #[test]
    fn each_fault_has_its_reason() {
        let nan = [&[0xfb], &f64::NAN.to_bits().to_be_bytes()[..]].concat();
        let infinity = [&[0xfb], &f64::INFINITY.to_bits().to_be_bytes()[..]].concat();
        let negative_zero = [&[0xfb], &(-0.0_f64).to_bits().to_be_bytes()[..]].concat();
        let cases: [(&[u8], Fault); 13] = [
            (&[0x42, 1], Fault::Truncated),
            (&[0x5b, 255, 255, 255, 255, 255, 255, 255, 255], Fault::Truncated),
            (&[0x18, 23], Fault::NotCanonical),
            (&[0x39, 0, 255], Fault::NotCanonical),
            (&[0xbf, 0xff], Fault::NotCanonical),
            (&nan, Fault::NotCanonical),
            (&infinity, Fault::NotCanonical),
            (&negative_zero, Fault::NotCanonical),
            (&[0xf9, 0x3c, 0x00], Fault::Malformed),
            (&[0xfa, 0, 0, 0, 0], Fault::Malformed),
            (&[0xc0, 0x60], Fault::Malformed),
            (&[0xf7], Fault::Malformed),
            (&[0x61, 0xff], Fault::Malformed),
        ];
        for (bytes, fault) in cases {
            assert_eq!(items(bytes), Err(fault), "{bytes:02x?}");
        }
    }

    #[test]
    fn key_order_is_that_of_the_encodings() {
        for (a, b) in [("b", "aa"), ("a", "b"), ("", "a"), ("z", "ä"), (&"a".repeat(23), &"a".repeat(24))] {
            let [mut x, mut y] = [Writer::default(), Writer::default()];
            x.text(a);
            y.text(b);
            assert!(x.bytes < y.bytes);
            assert!(key_order(a, b).is_lt());
        }
    }

    proptest! {
        #[test]
        fn integers_return(value: i64) {
            let mut writer = Writer::default();
            writer.integer(value);
            let expected = if value < 0 { Item::Negative(u64::try_from(-1 - value).unwrap()) } else {
                Item::Unsigned(u64::try_from(value).unwrap())
            };
            prop_assert_eq!(items(&writer.bytes), Ok(vec![expected]));
        }

        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = items(&bytes);
        }
    }
}
