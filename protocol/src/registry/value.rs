//! What a field holds: JSON with integers apart from floats, and bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::id::Hash;

use super::cbor::{Item, Reader, Writer, key_order};
use super::fault::Fault;

/// Most bytes of one value, encoded. Default: guess; an embedding of 1,536 floats has 13.8 KB.
pub const VALUE_BYTES_MAX: usize = 16_384;
/// How many lists and maps may be nested in one another. Default: guess.
pub const VALUE_DEPTH_MAX: usize = 8;

/// A value, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing. As the value of a field it can only stand in an update, where it removes the field.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A finite number. There is no NaN and no infinity, and −0.0 is written as 0.0.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// The value in its bytes.
    ///
    /// # Errors
    /// [`Fault::TooLarge`], [`Fault::TooDeep`] or, for a float that is not finite, [`Fault::BadNumber`].
    pub fn encode(&self) -> Result<Encoded, Fault> {
        let mut writer = Writer::default();
        self.write(&mut writer, VALUE_DEPTH_MAX)?;
        if writer.bytes.len() > VALUE_BYTES_MAX {
            return Err(Fault::TooLarge);
        }
        Ok(Encoded::new(&writer.bytes))
    }

    /// How many bytes [`Value::encode`] gives, or would give if they were not too many.
    ///
    /// # Errors
    /// As [`Value::encode`], but for [`Fault::TooLarge`].
    pub fn bytes(&self) -> Result<usize, Fault> {
        let mut writer = Writer::default();
        self.write(&mut writer, VALUE_DEPTH_MAX)?;
        Ok(writer.bytes.len())
    }

    fn write(&self, writer: &mut Writer, depth_left: usize) -> Result<(), Fault> {
        match self {
            Value::Null => writer.null(),
            Value::Bool(value) => writer.bool(*value),
            Value::Integer(value) => writer.integer(*value),
            Value::Float(value) if value.is_finite() => writer.float(*value),
            Value::Float(_) => return Err(Fault::BadNumber),
            Value::Text(text) => writer.text(text),
            Value::Bytes(bytes) => writer.bytes(bytes),
            Value::List(values) => {
                let depth_left = depth_left.checked_sub(1).ok_or(Fault::TooDeep)?;
                writer.array(values.len());
                for value in values {
                    value.write(writer, depth_left)?;
                }
            }
            Value::Map(values) => {
                let depth_left = depth_left.checked_sub(1).ok_or(Fault::TooDeep)?;
                writer.map(values.len());
                let mut pairs: Vec<_> = values.iter().collect();
                pairs.sort_by(|a, b| key_order(a.0, b.0));
                for (key, value) in pairs {
                    writer.text(key);
                    value.write(writer, depth_left)?;
                }
            }
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>, depth_left: usize) -> Result<Self, Fault> {
        Ok(match reader.item()? {
            Item::Null => Value::Null,
            Item::Bool(value) => Value::Bool(value),
            Item::Unsigned(n) => Value::Integer(i64::try_from(n).map_err(|_| Fault::BadNumber)?),
            Item::Negative(n) => Value::Integer(!i64::try_from(n).map_err(|_| Fault::BadNumber)?),
            Item::Float(value) => Value::Float(value),
            Item::Text(text) => Value::Text(text.to_owned()),
            Item::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Item::Array(items) => {
                let depth_left = depth_left.checked_sub(1).ok_or(Fault::TooDeep)?;
                // The bytes bound how many there are, whatever the head claims.
                let mut values = Vec::new();
                for _ in 0..items {
                    values.push(Value::read(reader, depth_left)?);
                }
                Value::List(values)
            }
            Item::Map(pairs) => {
                let depth_left = depth_left.checked_sub(1).ok_or(Fault::TooDeep)?;
                let mut values = BTreeMap::new();
                let mut last: Option<&str> = None;
                for _ in 0..pairs {
                    let key = next_key(reader, &mut last)?;
                    values.insert(key.to_owned(), Value::read(reader, depth_left)?);
                }
                Value::Map(values)
            }
        })
    }
}

/// The next key of a map, which must come after the last one.
pub(crate) fn next_key<'a>(reader: &mut Reader<'a>, last: &mut Option<&'a str>) -> Result<&'a str, Fault> {
    let key = reader.text()?;
    if last.is_some_and(|last| key_order(last, key).is_ge()) {
        return Err(Fault::NotCanonical);
    }
    *last = Some(key);
    Ok(key)
}

/// Reads past a value, checking all that [`Value::read`] checks, without building it.
fn skip(reader: &mut Reader<'_>, depth_left: usize) -> Result<(), Fault> {
    match reader.item()? {
        Item::Unsigned(n) | Item::Negative(n) if i64::try_from(n).is_err() => Err(Fault::BadNumber),
        Item::Array(items) => {
            let depth_left = depth_left.checked_sub(1).ok_or(Fault::TooDeep)?;
            (0..items).try_for_each(|_| skip(reader, depth_left))
        }
        Item::Map(pairs) => {
            let depth_left = depth_left.checked_sub(1).ok_or(Fault::TooDeep)?;
            let mut last = None;
            (0..pairs).try_for_each(|_| {
                next_key(reader, &mut last)?;
                skip(reader, depth_left)
            })
        }
        _ => Ok(()),
    }
}

/// A value in its bytes: what state and wire hold. Equal values are equal bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encoded {
    bytes: Arc<[u8]>,
    hash: Hash,
}

impl Encoded {
    fn new(bytes: &[u8]) -> Self {
        Encoded { bytes: bytes.into(), hash: Hash::of(bytes) }
    }

    /// The value.
    pub fn decode(&self) -> Value {
        Value::read(&mut Reader::new(&self.bytes), VALUE_DEPTH_MAX)
            .expect("the bytes were checked when they came in")
    }

    /// The bytes: one item of deterministic CBOR.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The hash of the bytes; it is made once.
    pub fn hash(&self) -> &Hash {
        &self.hash
    }

    /// True if the value is [`Value::Null`].
    pub fn is_null(&self) -> bool {
        *self.bytes == [0xf6]
    }

    /// Takes the next value, checked.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let start = reader.rest();
        skip(reader, VALUE_DEPTH_MAX)?;
        let (value, _) = start.split_at(start.len() - reader.rest().len());
        if value.len() > VALUE_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(Encoded::new(value)) }
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.decode(), f)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| Value::Float(v + 0.0)),
            ".{0,12}".prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..12).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                proptest::collection::btree_map(".{0,4}", inner, 0..4).prop_map(Value::Map),
            ]
        })
    }

    fn read(bytes: &[u8]) -> Result<Encoded, Fault> {
        let mut reader = Reader::new(bytes);
        let value = Encoded::read(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }

    proptest! {
        #[test]
        fn values_return(value in any_value()) {
            let encoded = value.encode().unwrap();
            prop_assert_eq!(encoded.decode(), value);
            prop_assert_eq!(read(encoded.as_bytes()), Ok(encoded));
        }

        #[test]
        fn what_is_taken_has_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(encoded) = read(&bytes) {
                let again = encoded.decode().encode().unwrap();
                prop_assert_eq!(again.as_bytes(), &bytes[..]);
            }
        }
    }

    #[test]
    fn bounds_are_exact() {
        let nested = |levels| (0..levels).fold(Value::Null, |inner, _| Value::List(vec![inner]));
        assert_eq!(read(nested(VALUE_DEPTH_MAX).encode().unwrap().as_bytes()).unwrap().decode(), nested(8));
        assert_eq!(nested(VALUE_DEPTH_MAX + 1).encode(), Err(Fault::TooDeep));
        assert_eq!(read(&[&[0x81; VALUE_DEPTH_MAX + 1][..], &[0xf6]].concat()), Err(Fault::TooDeep));
        assert_eq!(read(&[0x81; 100_000]), Err(Fault::TooDeep));
        // A byte string of n bytes takes n + 3.
        let bytes = |n| Value::Bytes(vec![0; n]).encode();
        assert_eq!(
            read(bytes(VALUE_BYTES_MAX - 3).unwrap().as_bytes()).unwrap().as_bytes().len(),
            VALUE_BYTES_MAX
        );
        assert_eq!(bytes(VALUE_BYTES_MAX - 2), Err(Fault::TooLarge));
        assert_eq!(Value::Bytes(vec![0; VALUE_BYTES_MAX]).bytes(), Ok(VALUE_BYTES_MAX + 3));
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Value::Float(number).encode(), Err(Fault::BadNumber));
        }
        assert_eq!(Value::Float(-0.0).encode(), Value::Float(0.0).encode());
        assert_eq!(read(&[0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(Fault::BadNumber));
        assert_eq!(read(&[0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(Fault::BadNumber));
        assert_eq!(read(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255, 0]), Err(Fault::Truncated));
    }

    #[test]
    fn maps_have_one_order_and_no_key_twice() {
        assert_eq!(read(&[0xa2, 0x61, b'b', 1, 0x61, b'a', 2]), Err(Fault::NotCanonical));
        assert_eq!(read(&[0xa2, 0x61, b'a', 1, 0x61, b'a', 2]), Err(Fault::NotCanonical));
        assert_eq!(read(&[0xa1, 0x01, 0x02]), Err(Fault::Malformed));
        read(&[0xa2, 0x61, b'b', 1, 0x62, b'a', b'a', 2]).unwrap();
    }
}
