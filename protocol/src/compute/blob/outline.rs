//! The upper part of a blob's hash tree.

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

use crate::compute::id::BlobRef;
use crate::id::Hash;

/// Length of a group; the last of a blob may be shorter. 1 MiB, a subtree of 1,024 chunks of BLAKE3: long enough that an
/// outline is small (32 KiB for 1 GiB) and a request is worth it, short enough that several peers share a blob.
pub const GROUP_BYTES: u64 = 1 << 20;

/// How many groups a blob of this size has; an empty one has one.
pub const fn groups_of(size: u64) -> u64 {
    let groups = size.div_ceil(GROUP_BYTES);
    if groups == 0 { 1 } else { groups }
}

/// Why bytes are not the outline of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutlineError {
    /// It has not one chaining value for each group.
    #[error("the outline has {found} chaining values, and the blob has {expected} groups")]
    Count {
        /// As the size demands.
        expected: u64,
        /// As they are.
        found: u64,
    },
    /// It is that of something else.
    #[error("the outline does not give the hash of the blob")]
    WrongHash,
}

/// The chaining values of a blob's groups, which give its hash: none if there is one group only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    blob: BlobRef,
    values: Vec<ChainingValue>,
}

fn chaining_value(group: u64, bytes: &[u8]) -> ChainingValue {
    blake3::Hasher::new().set_input_offset(group * GROUP_BYTES).update(bytes).finalize_non_root()
}

impl Outline {
    /// The outline of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let blob = BlobRef::of(bytes);
        let values = if blob.size <= GROUP_BYTES {
            Vec::new()
        } else {
            let length = usize::try_from(GROUP_BYTES).expect("1 MiB fits");
            (0..).zip(bytes.chunks(length)).map(|(group, bytes)| chaining_value(group, bytes)).collect()
        };
        Outline { blob, values }
    }

    /// Puts an outline together whose groups were hashed one by one, by [`Outline::value_of`].
    ///
    /// # Errors
    /// If it is not that of the blob.
    pub fn new(blob: BlobRef, values: Vec<ChainingValue>) -> Result<Self, OutlineError> {
        let groups = groups_of(blob.size);
        let expected = if groups == 1 { 0 } else { groups };
        if values.len() as u64 != expected {
            return Err(OutlineError::Count { expected, found: values.len() as u64 });
        }
        let outline = Outline { blob, values };
        match outline.root() {
            Some(root) if root != blob.hash => Err(OutlineError::WrongHash),
            _ => Ok(outline),
        }
    }

    /// Reads what a peer has sent: the values one after another.
    ///
    /// # Errors
    /// If it is not that of the blob.
    pub fn from_bytes(blob: BlobRef, bytes: &[u8]) -> Result<Self, OutlineError> {
        let (values, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(OutlineError::Count {
                expected: groups_of(blob.size),
                found: values.len() as u64 + 1,
            });
        }
        Outline::new(blob, values.to_vec())
    }

    /// The values one after another.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.concat()
    }

    /// The chaining value of one group of a blob that has more than one.
    pub fn value_of(group: u64, bytes: &[u8]) -> ChainingValue {
        chaining_value(group, bytes)
    }

    /// Whose it is.
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// The hash that it gives; `None` if there is one group only.
    fn root(&self) -> Option<Hash> {
        if self.values.is_empty() {
            return None;
        }
        let left = left_subtree_len(self.blob.size);
        let (left, right) = self.halves(0, self.blob.size, left);
        Some(Hash::from_bytes(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()))
    }

    /// The chaining values of the two subtrees of the bytes from `group` on.
    fn halves(&self, group: u64, length: u64, left: u64) -> (ChainingValue, ChainingValue) {
        (self.subtree(group, left), self.subtree(group + left / GROUP_BYTES, length - left))
    }

    fn subtree(&self, group: u64, length: u64) -> ChainingValue {
        if length <= GROUP_BYTES {
            let place = usize::try_from(group).expect("there are as many values as groups");
            return self.values[place];
        }
        let (left, right) = self.halves(group, length, left_subtree_len(length));
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }

    /// The length of a group; 0 if there is no such group.
    pub fn length_of(&self, group: u64) -> u64 {
        length_of(self.blob.size, group)
    }

    /// True if these are the bytes of this group.
    pub fn is_group(&self, group: u64, bytes: &[u8]) -> bool {
        if group >= groups_of(self.blob.size) || bytes.len() as u64 != self.length_of(group) {
            return false;
        }
        if self.values.is_empty() {
            return Hash::of(bytes) == self.blob.hash;
        }
        usize::try_from(group).ok().and_then(|place| self.values.get(place))
            == Some(&chaining_value(group, bytes))
    }
}

fn length_of(size: u64, group: u64) -> u64 {
    size.saturating_sub(group.saturating_mul(GROUP_BYTES)).min(GROUP_BYTES)
}

/// Makes the outline of content that comes group by group, in order.
#[derive(Clone, Debug, Default)]
pub struct OutlineBuilder {
    size: u64,
    values: Vec<ChainingValue>,
    /// The hash of the first group, which is that of a blob without others.
    first: Option<Hash>,
}

impl OutlineBuilder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next group: [`GROUP_BYTES`], but for the last.
    pub fn push(&mut self, bytes: &[u8]) {
        let group = self.values.len() as u64;
        if group == 0 {
            self.first = Some(Hash::of(bytes));
        }
        self.values.push(chaining_value(group, bytes));
        self.size += bytes.len() as u64;
    }

    /// The outline of all that came.
    pub fn finish(self) -> Outline {
        let first = self.first.unwrap_or_else(|| Hash::of(b""));
        if self.values.len() < 2 {
            return Outline { blob: BlobRef { hash: first, size: self.size }, values: Vec::new() };
        }
        let mut outline = Outline { blob: BlobRef { hash: first, size: self.size }, values: self.values };
        if let Some(root) = outline.root() {
            outline.blob.hash = root;
        }
        outline
    }
}

/// Which groups of a blob somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Groups {
    /// All of them.
    All,
    /// Those whose bits are set: bit n % 8 of byte n / 8.
    Some(Vec<u8>),
}

impl Groups {
    /// None of a blob of this size.
    pub fn none(size: u64) -> Self {
        let bytes = usize::try_from(groups_of(size).div_ceil(8)).unwrap_or(usize::MAX);
        Groups::Some(vec![0; bytes])
    }

    /// True if the group is there.
    pub fn contains(&self, group: u64) -> bool {
        match self {
            Groups::All => true,
            Groups::Some(bits) => {
                let byte = usize::try_from(group / 8).ok().and_then(|place| bits.get(place));
                byte.is_some_and(|byte| byte & 1 << (group % 8) != 0)
            }
        }
    }

    /// Adds a group.
    pub fn add(&mut self, group: u64) {
        if let Groups::Some(bits) = self
            && let Some(byte) = usize::try_from(group / 8).ok().and_then(|place| bits.get_mut(place))
        {
            *byte |= 1 << (group % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|place| u8::try_from(place * 31 % 251).unwrap()).collect()
    }

    #[test]
    fn outlines_give_the_hash_of_every_length() {
        let mib = usize::try_from(GROUP_BYTES).unwrap();
        for length in [
            0,
            1,
            1024,
            mib - 1,
            mib,
            mib + 1,
            2 * mib,
            2 * mib + 5,
            3 * mib,
            4 * mib + 1,
            5 * mib,
            7 * mib - 1,
        ] {
            let bytes = bytes(length);
            let outline = Outline::of(&bytes);
            let blob = BlobRef::of(&bytes);
            assert_eq!(Outline::from_bytes(blob, &outline.to_bytes()), Ok(outline.clone()), "{length}");
            assert!(length <= mib || outline.root() == Some(blob.hash), "{length}");
            let mut builder = OutlineBuilder::new();
            bytes.chunks(mib).for_each(|group| builder.push(group));
            assert_eq!(builder.finish(), outline, "{length}");
            for (group, part) in (0..).zip(bytes.chunks(mib)) {
                assert!(outline.is_group(group, part), "{length}, group {group}");
                assert!(!outline.is_group(group + 1, part));
                let mut other = part.to_vec();
                other[0] ^= 1;
                assert!(!outline.is_group(group, &other));
                assert!(!outline.is_group(group, &part[1..]));
            }
        }
    }

    #[test]
    fn lies_are_found() {
        let mib = usize::try_from(GROUP_BYTES).unwrap();
        let bytes = bytes(3 * mib + 9);
        let blob = BlobRef::of(&bytes);
        let good = Outline::of(&bytes).to_bytes();
        for place in [0, 40, good.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_eq!(Outline::from_bytes(blob, &bad), Err(OutlineError::WrongHash));
        }
        assert!(Outline::from_bytes(blob, &good[32..]).is_err());
        assert!(Outline::from_bytes(blob, &good[1..]).is_err());
        // Another size with as many groups passes here, and no last group of that size does.
        let liar = BlobRef { size: blob.size + 1, ..blob };
        let outline = Outline::from_bytes(liar, &good).unwrap();
        assert!(!outline.is_group(3, &bytes[3 * mib..]));
        assert!(!outline.is_group(3, &[&bytes[3 * mib..], &[0]].concat()));
    }
}
