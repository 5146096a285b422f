//! Results that workers have signed, and what two that contradict each other prove.
//!
//! ```text
//! statements = [ [ key, hash, size ], … ]
//! signed     = "omnimesh/1/results" ‖ mesh id ‖ statements                    Ed25519, by the worker
//! evidence   = [ 1, mesh id, key, accused, [ signed results, … ] ]
//! accused, signed results = [ worker, statements, signature ]
//! ```
//!
//! One signature covers all results of a frame, so that small tasks are cheap.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::id::{MeshId, NodeId};
use crate::identity::{Identity, PublicKey};
use crate::registry::Fault;
use crate::registry::cbor::{Reader, Writer};

use super::id::{BlobRef, TaskKey};
use super::job::list;

/// Begins what is signed, so that no signature for something else can be taken for one of a result.
pub const CONTEXT: &[u8] = b"omnimesh/1/results";
/// Most statements under one signature.
pub const STATEMENTS_MAX: usize = 256;
/// Most workers in a piece of evidence.
const WITNESSES_MAX: usize = 16;
const VERSION: u64 = 1;

/// "This is what came of that."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The task, with its inputs.
    pub key: TaskKey,
    /// Its output.
    pub result: BlobRef,
}

/// Statements and a signature that was not checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedResults {
    /// In which mesh.
    pub mesh: MeshId,
    /// Who says so.
    pub worker: NodeId,
    /// What it says.
    pub statements: Vec<Statement>,
    /// Its signature.
    pub signature: [u8; 64],
}

/// Statements that their worker has signed. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedResults(Arc<SignedResults>);

fn write_statements(statements: &[Statement], writer: &mut Writer) {
    writer.array(statements.len());
    for statement in statements {
        writer.array(3);
        writer.bytes(statement.key.as_bytes());
        statement.result.write(writer);
    }
}

fn read_statement(reader: &mut Reader<'_>) -> Result<Statement, Fault> {
    reader.array_of(3)?;
    Ok(Statement { key: TaskKey::read(reader)?, result: BlobRef::read(reader)? })
}

fn message(mesh: &MeshId, statements: &[Statement]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.raw(CONTEXT);
    writer.raw(mesh.as_bytes());
    write_statements(statements, &mut writer);
    writer.bytes
}

impl SignedResults {
    /// Signs statements.
    pub fn sign(identity: &Identity, mesh: MeshId, statements: Vec<Statement>) -> Self {
        let signature = identity.sign(&message(&mesh, &statements));
        SignedResults { mesh, worker: identity.id(), statements, signature }
    }

    /// Checks the signature; 40 µs. Pure: any thread may do it.
    pub fn verify(self) -> Option<VerifiedResults> {
        self.is_signed().then(|| VerifiedResults(Arc::new(self)))
    }

    fn is_signed(&self) -> bool {
        PublicKey::new(&self.worker)
            .is_some_and(|key| key.verify(&message(&self.mesh, &self.statements), &self.signature))
    }

    /// For a simulation: the signature is taken for good.
    #[doc(hidden)]
    pub fn assume_verified(self) -> VerifiedResults {
        VerifiedResults(Arc::new(self))
    }

    fn says(&self, key: &TaskKey) -> Option<BlobRef> {
        self.statements.iter().find(|statement| statement.key == *key).map(|statement| statement.result)
    }

    fn write(&self, writer: &mut Writer) {
        writer.array(3);
        writer.bytes(self.worker.as_bytes());
        write_statements(&self.statements, writer);
        writer.bytes(&self.signature);
    }

    fn read(reader: &mut Reader<'_>, mesh: MeshId) -> Result<Self, Fault> {
        reader.array_of(3)?;
        let worker = NodeId::from_bytes(reader.fixed_bytes()?);
        let statements = list(reader, read_statement)?;
        if statements.is_empty() || statements.len() > STATEMENTS_MAX {
            return Err(Fault::Malformed);
        }
        Ok(SignedResults { mesh, worker, statements, signature: reader.fixed_bytes()? })
    }
}

impl VerifiedResults {
    /// Who says so.
    pub fn worker(&self) -> NodeId {
        self.0.worker
    }

    /// What it says.
    pub fn statements(&self) -> &[Statement] {
        &self.0.statements
    }
}

/// That a worker has signed another result for a task than others have: everybody can check it.
///
/// It proves what was signed, not who is right: who convicts by it asks for more witnesses than there may be liars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Which task, with its inputs.
    pub key: TaskKey,
    accused: SignedResults,
    witnesses: Vec<SignedResults>,
}

impl Evidence {
    /// Puts signed results about one task together; `None` if they prove nothing.
    pub fn new(key: TaskKey, accused: &VerifiedResults, witnesses: &[VerifiedResults]) -> Option<Self> {
        let witnesses = witnesses.iter().take(WITNESSES_MAX).map(|witness| (*witness.0).clone()).collect();
        let evidence = Evidence { key, accused: (*accused.0).clone(), witnesses };
        evidence.is_consistent().then_some(evidence)
    }

    /// Who is accused.
    pub fn accused(&self) -> NodeId {
        self.accused.worker
    }

    /// In which mesh.
    pub fn mesh(&self) -> MeshId {
        self.accused.mesh
    }

    /// What the accused has signed, and what the others have.
    pub fn results(&self) -> Option<(BlobRef, BlobRef)> {
        Some((self.accused.says(&self.key)?, self.witnesses.first()?.says(&self.key)?))
    }

    /// Those who have signed the other result.
    pub fn witnesses(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.witnesses.iter().map(|witness| witness.worker)
    }

    /// Two witnesses at least, each another than the accused, all of one mesh, that have signed one result where the
    /// accused has signed another.
    fn is_consistent(&self) -> bool {
        let Some((accused, others)) = self.results() else { return false };
        let workers: BTreeSet<NodeId> = self.witnesses().collect();
        accused.hash != others.hash
            && self.witnesses.len() >= 2
            && workers.len() == self.witnesses.len()
            && !workers.contains(&self.accused())
            && self.witnesses.iter().all(|witness| {
                witness.mesh == self.accused.mesh
                    && witness.says(&self.key).is_some_and(|blob| blob.hash == others.hash)
            })
    }

    /// Checks all of it.
    pub fn verify(&self) -> bool {
        self.is_consistent()
            && self.accused.is_signed()
            && self.witnesses.iter().all(SignedResults::is_signed)
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.array(5);
        writer.unsigned(VERSION);
        writer.bytes(self.accused.mesh.as_bytes());
        writer.bytes(self.key.as_bytes());
        self.accused.write(&mut writer);
        writer.array(self.witnesses.len());
        self.witnesses.iter().for_each(|witness| witness.write(&mut writer));
        writer.bytes
    }

    /// Reads the bytes; nothing is checked beyond their form.
    ///
    /// # Errors
    /// If they are not exactly what [`Evidence::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes);
        let items = reader.array()?;
        if reader.unsigned()? != VERSION {
            return Err(Fault::UnknownVersion);
        }
        if items != 5 {
            return Err(Fault::Malformed);
        }
        let mesh = MeshId::from_bytes(reader.fixed_bytes()?);
        let key = TaskKey::read(&mut reader)?;
        let accused = SignedResults::read(&mut reader, mesh)?;
        let witnesses = list(&mut reader, |reader| SignedResults::read(reader, mesh))?;
        reader.finish()?;
        if witnesses.len() > WITNESSES_MAX {
            return Err(Fault::TooManyFields);
        }
        Ok(Evidence { key, accused, witnesses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(seed: u8, result: &[u8]) -> SignedResults {
        let identity = Identity::from_seed(&[seed; 32]);
        let statement = Statement { key: TaskKey::from_bytes([9; 32]), result: BlobRef::of(result) };
        SignedResults::sign(&identity, MeshId::from_bytes([3; 16]), vec![statement])
    }

    fn verified(seed: u8, result: &[u8]) -> VerifiedResults {
        signed(seed, result).verify().unwrap()
    }

    #[test]
    fn evidence_returns_and_cannot_be_made_up() {
        let key = TaskKey::from_bytes([9; 32]);
        let witnesses = [verified(1, b"right"), verified(2, b"right")];
        let evidence = Evidence::new(key, &verified(3, b"wrong"), &witnesses).unwrap();
        assert!(evidence.verify());
        let bytes = evidence.encode();
        assert_eq!(Evidence::decode(&bytes).unwrap(), evidence);
        // One bit elsewhere, and it is none.
        for place in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[place] ^= 1;
            assert!(!Evidence::decode(&forged).is_ok_and(|forged| forged.verify()), "byte {place}");
        }
        // One witness, twice the same, or nobody who disagrees.
        assert!(Evidence::new(key, &verified(3, b"wrong"), &witnesses[..1]).is_none());
        let twice = [verified(1, b"right"), verified(1, b"right")];
        assert!(Evidence::new(key, &verified(3, b"wrong"), &twice).is_none());
        assert!(Evidence::new(key, &verified(3, b"right"), &witnesses).is_none());
        assert!(Evidence::new(key, &verified(1, b"wrong"), &witnesses).is_none());
    }

    #[test]
    fn a_signature_holds_for_its_mesh_only() {
        let mut other = signed(1, b"right");
        other.mesh = MeshId::from_bytes([4; 16]);
        assert!(other.verify().is_none());
    }
}
