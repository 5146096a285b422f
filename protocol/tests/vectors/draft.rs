//! Envelopes put together by hand, byte by byte, so that they can be wrong in one place.

use omnimesh_protocol::mesh::MeshSecret;
use omnimesh_protocol::pattern::PatternGenerator;
use omnimesh_protocol::{Identity, Mesh, Step};

use crate::{cbor, secret};

pub(crate) const SIGNATURE_CONTEXT: &[u8] = b"omnimesh/1/envelope";
pub(crate) const PHASE_INTERVAL: u64 = 100;

/// The fields of a signed part that is right in all places.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) mesh: [u8; 16],
    pub(crate) author: [u8; 32],
    pub(crate) seq: u64,
    pub(crate) step: u64,
    pub(crate) kind: u64,
    pub(crate) channel: String,
    pub(crate) prev: Option<[u8; 32]>,
    pub(crate) timestamp_us: Option<u64>,
    pub(crate) payloads: Vec<Vec<u8>>,
}

impl Draft {
    /// The ten items, encoded.
    pub(crate) fn items(&self) -> Vec<Vec<u8>> {
        let or_null = |item: Option<Vec<u8>>| item.unwrap_or_else(|| cbor::NULL.to_vec());
        let payloads: Vec<_> = self.payloads.iter().map(cbor::bytes).collect();
        vec![
            cbor::uint(1),
            cbor::bytes(self.mesh),
            cbor::bytes(self.author),
            cbor::uint(self.seq),
            cbor::uint(self.step),
            cbor::uint(self.kind),
            cbor::text(&self.channel),
            or_null(self.prev.map(cbor::bytes)),
            or_null(self.timestamp_us.map(cbor::uint)),
            cbor::array(&payloads),
        ]
    }

    /// The signed part.
    pub(crate) fn signed(&self) -> Vec<u8> {
        cbor::array(&self.items())
    }

    /// The whole envelope, with tag and signature as they should be.
    pub(crate) fn sealed(&self, seed: u8) -> Vec<u8> {
        let signed = self.signed();
        outer(&signed, &tag(&secret(), self.step, &signed), &signature(seed, &signed))
    }
}

/// The mesh of all drafts.
pub(crate) fn mesh() -> Mesh {
    Mesh::new("kitchen", secret()).unwrap()
}

/// A draft by the author of seed 1 at step 1000.
pub(crate) fn draft() -> Draft {
    Draft {
        mesh: *mesh().id().as_bytes(),
        author: *Identity::from_seed(&[1; 32]).id().as_bytes(),
        seq: 7,
        step: 1000,
        kind: 0,
        channel: "news".to_owned(),
        prev: None,
        timestamp_us: None,
        payloads: vec![b"hello".to_vec()],
    }
}

pub(crate) fn outer(signed: &[u8], tag: &[u8], signature: &[u8]) -> Vec<u8> {
    cbor::array(&[cbor::bytes(signed), cbor::bytes(tag), cbor::bytes(signature)])
}

/// An envelope with this signed part, and with the tag of step 1000 and the signature of seed 1, both good.
pub(crate) fn around(signed: &[u8]) -> Vec<u8> {
    outer(signed, &tag(&secret(), draft().step, signed), &signature(1, signed))
}

pub(crate) fn tag_key(secret: &MeshSecret, step: u64) -> [u8; 32] {
    let one = 1.try_into().unwrap();
    let mut patterns = PatternGenerator::new(secret.clone(), PHASE_INTERVAL.try_into().unwrap(), one);
    *patterns.at(Step(step)).tag_key()
}

pub(crate) fn tag(secret: &MeshSecret, step: u64, signed: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(&tag_key(secret, step), signed).as_bytes()
}

pub(crate) fn signature_input(signed: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, blake3::hash(signed).as_bytes()].concat()
}

pub(crate) fn signature(seed: u8, signed: &[u8]) -> [u8; 64] {
    Identity::from_seed(&[seed; 32]).sign(&signature_input(signed))
}
