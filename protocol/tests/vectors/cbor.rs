//! A writer of CBOR as `docs/protocol.md` defines it, apart from the crate's own.

pub(crate) const NULL: &[u8] = &[0xf6];

/// The head of an item, in its shortest form.
pub(crate) fn head(major: u8, argument: u64) -> Vec<u8> {
    let mut bytes = match argument {
        0..=23 => return vec![major << 5 | u8::try_from(argument).unwrap()],
        24..=0xff => vec![24],
        0x100..=0xffff => vec![25],
        0x1_0000..=0xffff_ffff => vec![26],
        _ => vec![27],
    };
    let length = 1 << (bytes[0] - 24);
    bytes[0] |= major << 5;
    bytes.extend_from_slice(&argument.to_be_bytes()[8 - length..]);
    bytes
}

pub(crate) fn uint(value: u64) -> Vec<u8> {
    head(0, value)
}

pub(crate) fn bytes(value: impl AsRef<[u8]>) -> Vec<u8> {
    string(2, value.as_ref())
}

pub(crate) fn text(value: impl AsRef<[u8]>) -> Vec<u8> {
    string(3, value.as_ref())
}

pub(crate) fn array(items: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = head(4, items.len() as u64);
    bytes.extend(items.iter().flatten());
    bytes
}

fn string(major: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = head(major, value.len() as u64);
    bytes.extend_from_slice(value);
    bytes
}

#[test]
fn the_writer_agrees_with_the_library() {
    for n in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        assert_eq!(uint(n), serde_cbor::to_vec(&n).unwrap());
    }
    let items = [text("abc"), NULL.to_vec(), bytes([1, 2]), uint(1000)];
    let value = ("abc", None::<u8>, serde_cbor::Value::Bytes(vec![1, 2]), 1000);
    assert_eq!(array(&items), serde_cbor::to_vec(&value).unwrap());
}
