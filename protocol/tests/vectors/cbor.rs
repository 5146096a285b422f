//! A writer of CBOR as `docs/protocol.md` defines it, apart from the crate's own.

pub(crate) const NULL: &[u8] = &[0xf6];
pub(crate) const FALSE: &[u8] = &[0xf4];
pub(crate) const TRUE: &[u8] = &[0xf5];

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

/// A map of these pairs, in the order in which they are given.
pub(crate) fn map(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = head(5, pairs.len() as u64);
    bytes.extend(pairs.iter().flat_map(|(key, value)| [key, value]).flatten());
    bytes
}

/// The items of a good array, each as it stands there.
pub(crate) fn items(array: &[u8]) -> Vec<&[u8]> {
    let (major, count, mut at) = read_head(array);
    assert_eq!(major, 4, "an array");
    let mut items = Vec::new();
    for _ in 0..count {
        let end = at + length(&array[at..]);
        items.push(&array[at..end]);
        at = end;
    }
    assert_eq!(at, array.len(), "nothing follows");
    items
}

/// How long the item is that the bytes begin with.
fn length(bytes: &[u8]) -> usize {
    let (major, argument, head) = read_head(bytes);
    let children = match major {
        2 | 3 => return head + argument,
        4 => argument,
        5 => 2 * argument,
        _ => 0,
    };
    (0..children).fold(head, |at, _| at + length(&bytes[at..]))
}

/// Major type, argument, and the length of the head.
fn read_head(bytes: &[u8]) -> (u8, usize, usize) {
    let (major, info) = (bytes[0] >> 5, bytes[0] & 0x1f);
    if info < 24 {
        return (major, usize::from(info), 1);
    }
    let end = 1 + (1 << (info - 24));
    let argument = bytes[1..end].iter().fold(0, |argument: u64, byte| argument << 8 | u64::from(*byte));
    // Of a number only the length counts here.
    (major, usize::try_from(argument).unwrap(), end)
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
    let pairs = map(&[(text("a"), TRUE.to_vec()), (text("b"), FALSE.to_vec())]);
    assert_eq!(
        pairs,
        serde_cbor::to_vec(&std::collections::BTreeMap::from([("a", true), ("b", false)])).unwrap()
    );
}

#[test]
fn arrays_are_taken_apart() {
    let nested = array(&[bytes([7; 300]), map(&[(text("k"), array(&[NULL.to_vec()]))])]);
    let parts = [uint(u64::MAX), nested, [&[0xfb][..], &[0; 8]].concat(), text("")];
    assert_eq!(items(&array(&parts)), parts);
}
