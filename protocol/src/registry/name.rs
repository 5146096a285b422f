//! Names, and what they name: entries and links.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::cbor::{Reader, Writer};
use super::fault::Fault;

/// Longest name of a kind or relation, in bytes.
pub const KIND_BYTES_MAX: usize = 32;
/// Longest name of an entry, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest name of a field, in bytes.
pub const FIELD_NAME_BYTES_MAX: usize = 64;

/// The kinds that have a meaning to OmniMesh itself; others are the users' own.
pub const KINDS: [&str; 7] = ["agent", "workflow", "tool", "model", "dataset", "infrastructure", "service"];
/// The relations that have a meaning to OmniMesh itself; others are the users' own.
pub const RELATIONS: [&str; 4] = ["runs", "uses", "produces", "deployed_on"];

/// `a-z`, then `a-z 0-9 _ -`.
fn is_identifier(text: &str) -> bool {
    text.len() <= KIND_BYTES_MAX
        && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
}

/// Not empty, not too long, no control characters (category Cc, which Unicode never changes).
fn is_free_text(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control)
}

/// Text of a certain form that is cheap to clone.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $good:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name, if it has the right form.
            ///
            /// # Errors
            /// [`Fault::BadName`]
            pub fn new(text: &str) -> Result<Self, Fault> {
                let good: fn(&str) -> bool = $good;
                if good(text) { Ok($name(text.into())) } else { Err(Fault::BadName) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Fault;

            fn from_str(text: &str) -> Result<Self, Fault> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name_type! {
    /// What sort of thing an entry is: one of [`KINDS`], or an own one of 1 to 32 characters `a-z 0-9 _ -` that
    /// begins with a letter.
    EntryKind, is_identifier
}

name_type! {
    /// What sort of link there is between two entries: one of [`RELATIONS`], or an own one, formed as kinds are.
    Relation, is_identifier
}

name_type! {
    /// The name of an entry among those of its kind: 1 to 128 bytes of UTF-8 without control characters.
    EntryName, |text| is_free_text(text, NAME_BYTES_MAX)
}

name_type! {
    /// The name of a field: 1 to 64 bytes of UTF-8 without control characters.
    FieldName, |text| is_free_text(text, FIELD_NAME_BYTES_MAX)
}

/// What an entry is known by. Shown as `kind/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryKey {
    /// What sort of thing.
    pub kind: EntryKind,
    /// Which of them.
    pub name: EntryName,
}

impl EntryKey {
    /// The key of this kind and name.
    ///
    /// # Errors
    /// [`Fault::BadName`]
    pub fn new(kind: &str, name: &str) -> Result<Self, Fault> {
        Ok(EntryKey { kind: EntryKind::new(kind)?, name: EntryName::new(name)? })
    }

    /// Before all keys; no key itself.
    fn nothing() -> Self {
        EntryKey { kind: EntryKind("".into()), name: EntryName("".into()) }
    }

    /// Where the keys of this kind and prefix begin; the prefix need not be a name.
    pub(super) fn lowest(kind: EntryKind, prefix: &str) -> Self {
        EntryKey { kind, name: EntryName(prefix.into()) }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let kind = EntryKind::new(reader.text()?)?;
        Ok(EntryKey { kind, name: EntryName::new(reader.text()?)? })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.text(self.kind.as_str());
        writer.text(self.name.as_str());
    }
}

impl fmt::Display for EntryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

impl FromStr for EntryKey {
    type Err = Fault;

    /// Reads `kind/name`; the name may have further slashes.
    fn from_str(text: &str) -> Result<Self, Fault> {
        let (kind, name) = text.split_once('/').ok_or(Fault::BadName)?;
        EntryKey::new(kind, name)
    }
}

/// A link from one entry to another. Shown as `from -relation-> to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Where it begins.
    pub from: EntryKey,
    /// What it says: `from` *runs*, *uses*, *produces*, is *deployed_on* … `to`.
    pub relation: Relation,
    /// Where it ends.
    pub to: EntryKey,
}

impl Link {
    /// Where the links from an entry begin, in the order of links; no link itself.
    pub(super) fn first_from(from: &EntryKey) -> Self {
        Link { from: from.clone(), relation: Relation("".into()), to: EntryKey::nothing() }
    }

    /// Where the links to an entry begin, in the order of [`Reverse`]; no link itself.
    pub(super) fn first_to(to: &EntryKey) -> Self {
        Link { from: EntryKey::nothing(), relation: Relation("".into()), to: to.clone() }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let from = EntryKey::read(reader)?;
        let relation = Relation::new(reader.text()?)?;
        Ok(Link { from, relation, to: EntryKey::read(reader)? })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        self.from.write(writer);
        writer.text(self.relation.as_str());
        self.to.write(writer);
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -{}-> {}", self.from, self.relation, self.to)
    }
}

/// A link in the order of where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reverse(pub(super) Link);

impl Ord for Reverse {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&self.0, &other.0);
        (&a.to, &a.relation, &a.from).cmp(&(&b.to, &b.relation, &b.from))
    }
}

impl PartialOrd for Reverse {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_forms() {
        for kind in KINDS.into_iter().chain(["a", "my-kind_2", &"k".repeat(32)]) {
            assert_eq!(EntryKind::new(kind).unwrap().as_str(), kind);
        }
        for kind in ["", "Agent", "2nd", "_x", "a b", "ä", "a/b", &"k".repeat(33)] {
            assert_eq!(EntryKind::new(kind), Err(Fault::BadName), "{kind}");
        }
        for relation in RELATIONS {
            Relation::new(relation).unwrap();
        }
        for name in ["x", "Llama 3", "org/model:7b", "küche", &"n".repeat(128)] {
            EntryName::new(name).unwrap();
        }
        for name in ["", "a\nb", "\u{7f}", "\u{9b}", &"n".repeat(129)] {
            assert_eq!(EntryName::new(name), Err(Fault::BadName), "{name}");
        }
        assert_eq!(FieldName::new(&"f".repeat(65)), Err(Fault::BadName));
    }

    #[test]
    fn keys_are_read_from_text() {
        let key: EntryKey = "model/org/name".parse().unwrap();
        assert_eq!((key.kind.as_str(), key.name.as_str()), ("model", "org/name"));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!("model".parse::<EntryKey>(), Err(Fault::BadName));
    }
}
