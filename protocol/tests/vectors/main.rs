//! The test vectors of `docs/protocol.md`: makes them, compares them with `docs/vectors/*.json` byte for
//! byte, and checks each one as a reader of the document would, from the text of the file alone.
//!
//! Every value follows from constants in these files, so the vectors are the same on every machine. After
//! a change of the protocol (which needs a new version), write them anew:
//!
//! ```text
//! OMNIMESH_WRITE_VECTORS=1 cargo test -p omnimesh-protocol --test vectors
//! ```

#![expect(clippy::unwrap_used, reason = "a test: a panic is its report")]

mod blobs;
mod cbor;
mod chacha;
mod checkpoints;
mod compute;
mod control;
mod curve;
mod draft;
mod envelopes;
mod evidence;
mod gossip;
mod job_specs;
mod jobs;
mod ledger;
mod log;
mod membership;
mod mesh;
mod names;
mod patterns;
mod probes;
mod registry;
mod rejected;
mod replay;
mod results;
mod signatures;
mod specs;
mod tasks;

use std::path::Path;

use data_encoding::HEXLOWER;
use omnimesh_protocol::mesh::MeshSecret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Set to write the files instead of comparing them.
const WRITE: &str = "OMNIMESH_WRITE_VECTORS";

#[derive(Serialize, Deserialize)]
struct File<C> {
    description: String,
    cases: Vec<C>,
}

/// Compares the cases with the file, or writes it, and returns what the file then says.
fn settle<C: Serialize + DeserializeOwned>(name: &str, description: &str, cases: Vec<C>) -> Vec<C> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors").join(name);
    let file = File { description: description.to_owned(), cases };
    let text = serde_json::to_string_pretty(&file).unwrap() + "\n";
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &text).unwrap_or_else(|error| panic!("cannot write {path:?}: {error}"));
    }
    let found =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path:?}: {error}"));
    let differing = text.lines().zip(found.lines()).position(|(made, found)| made != found);
    assert!(
        text == found,
        "docs/vectors/{name} is not what the code makes (first difference in line {}). If the protocol was meant to change, \
         write the vectors anew: {WRITE}=1 cargo test -p omnimesh-protocol --test vectors",
        differing.unwrap_or_else(|| text.lines().count().min(found.lines().count())) + 1,
    );
    serde_json::from_str::<File<C>>(&found).unwrap().cases
}

/// Bytes, as lower-case hex.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Hex(Vec<u8>);

impl Hex {
    fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap()
    }
}

impl<T: AsRef<[u8]>> From<T> for Hex {
    fn from(bytes: T) -> Self {
        Hex(bytes.as_ref().to_vec())
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        HEXLOWER.decode(text.as_bytes()).map(Hex).map_err(serde::de::Error::custom)
    }
}

/// Bytes, so many times over: what is long is mostly the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Piece {
    hex: Hex,
    times: usize,
}

impl Piece {
    fn once(bytes: impl AsRef<[u8]>) -> Self {
        Piece { hex: bytes.into(), times: 1 }
    }

    fn zeros(times: usize) -> Self {
        Piece { hex: [0].into(), times }
    }
}

fn joined(pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.hex.0.repeat(piece.times)).collect()
}

/// The outcome of what is refused by nobody.
const GOOD: &str = "good";

/// A comment, bytes, and what their outcome has to be.
type Listed = (&'static str, Vec<u8>, &'static str);

/// A number of up to 64 bits, as decimal text: JSON readers may round what is above 53 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Num(u64);

impl Serialize for Num {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Num {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Num).map_err(serde::de::Error::custom)
    }
}

/// A secret with no two equal bytes, so that no order of bytes goes unnoticed.
fn secret() -> MeshSecret {
    let mut bytes = [0; 32];
    for (byte, value) in bytes.iter_mut().zip(0x40..) {
        *byte = value;
    }
    MeshSecret::from_bytes(bytes)
}

/// An unsigned varint: seven bits in each byte, the lowest first; the highest bit says that more follow.
fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
