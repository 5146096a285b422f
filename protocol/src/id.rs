//! Names and counters: newtypes, so that a step is never taken for a sequence number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bytes before the key in a libp2p peer id: identity multihash (0x00) of 36 bytes, holding the
/// protobuf of an Ed25519 key (field 1 = 1, field 2 = 32 bytes). Source: libp2p specs, peer-ids.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// A node: its Ed25519 public key, 32 bytes.
///
/// Its text form is the libp2p peer id of that key (`12D3KooW…`), which people see everywhere; the wire
/// carries the bare 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// Takes the bytes as they are; whether they are a point of the curve shows when a signature is checked.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        NodeId(bytes)
    }

    /// The public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The libp2p peer id in its binary form, 38 bytes.
    pub fn to_peer_id_bytes(&self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// The node behind a libp2p peer id in its binary form; `None` unless it is of an Ed25519 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX)?;
        Some(NodeId(key.try_into().ok()?))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not the peer id of an Ed25519 key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the peer id of an Ed25519 key (expected text like 12D3KooW…)")]
pub struct ParseNodeIdError;

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // 38 bytes are at most 52 characters of base58; refuse longer text before decoding it.
        if text.len() > 64 {
            return Err(ParseNodeIdError);
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| ParseNodeIdError)?;
        NodeId::from_peer_id_bytes(&bytes).ok_or(ParseNodeIdError)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            deserializer.deserialize_bytes(FixedBytes::<32>).map(NodeId)
        }
    }
}

/// Reads a byte string of exactly `N` bytes.
pub(crate) struct FixedBytes<const N: usize>;

impl<const N: usize> serde::de::Visitor<'_> for FixedBytes<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a byte string of {N} bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

/// The text is not the lower-case hex of the right length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {expected} hexadecimal digits")]
pub struct ParseHexError {
    expected: usize,
}

/// A fixed number of bytes with a name: hex for people, a byte string on the wire.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// How many bytes it has.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                $name(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseHexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let error = ParseHexError { expected: 2 * $len };
                if text.len() != 2 * $len {
                    return Err(error);
                }
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| error.clone())?;
                Ok($name(bytes.try_into().map_err(|_| error)?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    deserializer.deserialize_bytes(FixedBytes::<$len>).map($name)
                }
            }
        }
    };
}

hex_id! {
    /// A mesh: follows from its name and secret, see [`crate::mesh`]. Public; part of every protocol and topic name.
    MeshId, 16
}

hex_id! {
    /// What was published, by content: the first 20 bytes of the BLAKE3 hash of a gossiped message's data.
    ///
    /// Bound to the content, so that two conflicting messages of one author and sequence number are two
    /// messages for everybody.
    MessageId, 20
}

hex_id! {
    /// A BLAKE3 hash.
    Hash, 32
}

impl MessageId {
    /// The id of a gossiped message with this data.
    pub fn of(data: &[u8]) -> Self {
        let mut id = [0; 20];
        id.copy_from_slice(&blake3::hash(data).as_bytes()[..20]);
        MessageId(id)
    }
}

impl Hash {
    /// The hash of these bytes.
    pub fn of(data: &[u8]) -> Self {
        Hash(*blake3::hash(data).as_bytes())
    }
}

/// A count with a meaning.
macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// This one plus `n`, or the last there is.
            #[must_use]
            pub const fn saturating_add(self, n: u64) -> Self {
                $name(self.0.saturating_add(n))
            }

            /// This one less `n`, or the first there is.
            #[must_use]
            pub const fn saturating_sub(self, n: u64) -> Self {
                $name(self.0.saturating_sub(n))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter! {
    /// A tick of the mesh's shared clock: `floor(mesh time / step interval)`.
    Step
}

counter! {
    /// A run of `phase_interval` steps that share one phase key: `step / phase_interval`.
    Phase
}

counter! {
    /// An author's count of its own payloads, starting at 1.
    Seq
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_text_is_the_libp2p_peer_id() {
        // Key and peer id of the libp2p specification's Ed25519 example (peer-ids/peer-ids.md).
        let key = data_encoding::HEXLOWER
            .decode(b"1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e")
            .unwrap();
        let id = NodeId::from_bytes(key.try_into().unwrap());
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<NodeId>().unwrap(), id);
    }

    #[test]
    fn node_id_refuses_other_text() {
        for text in
            ["", "12D3KooW", "0OIl", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", &"1".repeat(1000)]
        {
            assert_eq!(text.parse::<NodeId>(), Err(ParseNodeIdError), "{text}");
        }
    }

    #[test]
    fn hex_ids_round_trip() {
        let id = MessageId::of(b"x");
        assert_eq!(id.to_string().parse::<MessageId>().unwrap(), id);
        assert!("zz".parse::<MessageId>().is_err());
        assert_eq!(id.to_string().to_uppercase().parse::<MessageId>().unwrap(), id);
        assert!("zz".repeat(20).parse::<MessageId>().is_err());
        let cbor = serde_cbor::to_vec(&id).unwrap();
        assert_eq!(cbor.len(), 21);
        assert_eq!(serde_cbor::from_slice::<MessageId>(&cbor).unwrap(), id);
    }
}
