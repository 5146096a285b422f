//! What makes a mesh one mesh: its name and its secret.
//!
//! ```text
//! mesh_id        = first 16 bytes of BLAKE3.derive_key("omnimesh 2026-11 mesh id", secret ‖ name)
//! open secret    = BLAKE3.derive_key("omnimesh 2026-11 open mesh secret", name)
//! member proof   = BLAKE3.keyed_hash(BLAKE3.derive_key("omnimesh 2026-11 member proof", secret),
//!                                    prover's key ‖ verifier's key)
//! ```
//!
//! The mesh id is public. It stands in protocol and topic names, so that two meshes never merge by
//! accident; that nobody else can speak is the work of the secret. A *member proof* shows the knowledge
//! of the secret to one peer whose key the transport has already authenticated; it is worth nothing to
//! anybody else.

use std::fmt;
use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::id::{FixedBytes, MeshId, NodeId};

const MESH_ID_CONTEXT: &str = "omnimesh 2026-11 mesh id";
const OPEN_SECRET_CONTEXT: &str = "omnimesh 2026-11 open mesh secret";
const MEMBER_PROOF_CONTEXT: &str = "omnimesh 2026-11 member proof";

/// Longest mesh name, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;
/// Most bootstrap addresses in an invite.
pub const INVITE_ADDRESSES_MAX: usize = 16;
/// Longest address in an invite, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// What every invite begins with.
const INVITE_PREFIX: &str = "omnimesh1-";
/// Longest invite that is looked at, in characters.
const INVITE_CHARS_MAX: usize = 8192;

/// The 32 bytes that all members share. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct MeshSecret([u8; 32]);

impl MeshSecret {
    /// Takes 32 bytes that should have come from a good source of randomness.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        MeshSecret(bytes)
    }

    /// The secret of the open mesh of this name: everybody knows it.
    pub fn open(name: &str) -> Self {
        MeshSecret(blake3::derive_key(OPEN_SECRET_CONTEXT, name.as_bytes()))
    }

    /// The bytes, to be stored with care.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshSecret(…)")
    }
}

/// A mesh as its members know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    name: String,
    secret: MeshSecret,
    id: MeshId,
}

/// The name of a mesh is empty, too long, or has characters that do not belong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mesh name {name:?} is not 1 to {NAME_BYTES_MAX} bytes of letters, digits, '-', '_' and '.'")]
pub struct MeshNameError {
    name: String,
}

impl Mesh {
    /// The mesh of this name and secret.
    ///
    /// # Errors
    /// The name must be 1 to 64 bytes of letters, digits, `-`, `_` and `.`.
    pub fn new(name: &str, secret: MeshSecret) -> Result<Self, MeshNameError> {
        let good = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(good) {
            return Err(MeshNameError { name: name.chars().take(80).collect() });
        }
        let mut hasher = blake3::Hasher::new_derive_key(MESH_ID_CONTEXT);
        hasher.update(secret.as_bytes()).update(name.as_bytes());
        let mut id = [0; MeshId::LEN];
        hasher.finalize_xof().fill(&mut id);
        Ok(Mesh { name: name.to_owned(), secret, id: MeshId::from_bytes(id) })
    }

    /// The mesh whose secret follows from its name.
    ///
    /// # Errors
    /// As [`Mesh::new`].
    pub fn open(name: &str) -> Result<Self, MeshNameError> {
        Self::new(name, MeshSecret::open(name))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its secret.
    pub fn secret(&self) -> &MeshSecret {
        &self.secret
    }

    /// Its public id.
    pub fn id(&self) -> MeshId {
        self.id
    }

    /// What `prover` shows `verifier` to prove that it knows the secret.
    pub fn member_proof(&self, prover: &NodeId, verifier: &NodeId) -> [u8; 32] {
        let key = blake3::derive_key(MEMBER_PROOF_CONTEXT, self.secret.as_bytes());
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(prover.as_bytes()).update(verifier.as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Checks what `prover` showed `verifier`, in constant time.
    pub fn verify_member(&self, prover: &NodeId, verifier: &NodeId, proof: &[u8; 32]) -> bool {
        self.member_proof(prover, verifier).ct_eq(proof).into()
    }
}

/// All that a new node needs to join a mesh: name, secret, and where to knock.
///
/// Its text form is one token: `omnimesh1-` and the unpadded base64url of the CBOR array
/// `[name, secret, [address…]]` followed by the first 4 bytes of that CBOR's BLAKE3 hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// The mesh.
    pub mesh: Mesh,
    /// Multiaddresses that end in `/p2p/<peer id>`, most useful first; not checked here.
    pub bootstrap: Vec<String>,
}

/// The text is not an invite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It does not look like one.
    #[error("this is not an invite: it should begin with {INVITE_PREFIX:?}")]
    NotAnInvite,
    /// It was cut short or changed on its way.
    #[error("the invite is damaged ({0}): copy the whole token, on one line, again")]
    Damaged(&'static str),
    /// It was made with a name that cannot be.
    #[error(transparent)]
    Name(#[from] MeshNameError),
}

#[derive(Serialize, Deserialize)]
struct InviteWire(String, SecretWire, Vec<String>);

struct SecretWire(MeshSecret);

impl Serialize for SecretWire {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_bytes())
    }
}

impl<'de> Deserialize<'de> for SecretWire {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(FixedBytes::<32>).map(|bytes| SecretWire(MeshSecret(bytes)))
    }
}

/// Whether a multiaddress leads nowhere but to the machine that uses it.
pub fn is_loopback(address: &str) -> bool {
    let mut parts = address.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("ip4" | "ip6"), Some(ip)) => {
            ip.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
        }
        (Some("dns" | "dns4" | "dns6"), Some(name)) => name.eq_ignore_ascii_case("localhost"),
        _ => false,
    }
}

impl Invite {
    /// The invite of a node with these addresses, the most useful first. An invite is for other machines, where a loopback
    /// address leads to whatever runs there: such addresses are in it only if there are no others.
    pub fn new(mesh: Mesh, addresses: impl IntoIterator<Item = String>) -> Self {
        let mut bootstrap: Vec<String> = addresses.into_iter().collect();
        if bootstrap.iter().any(|address| !is_loopback(address)) {
            bootstrap.retain(|address| !is_loopback(address));
        }
        bootstrap.truncate(INVITE_ADDRESSES_MAX);
        Invite { mesh, bootstrap }
    }

    /// True if nobody can join with it but nodes on the machine where it was made.
    pub fn is_for_this_machine_only(&self) -> bool {
        self.bootstrap.iter().all(|address| is_loopback(address))
    }

    /// The token.
    pub fn encode(&self) -> String {
        let wire = InviteWire(
            self.mesh.name.clone(),
            SecretWire(self.mesh.secret.clone()),
            self.bootstrap.iter().take(INVITE_ADDRESSES_MAX).cloned().collect(),
        );
        let mut bytes = serde_cbor::to_vec(&wire).expect("strings and bytes always encode");
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(&check.as_bytes()[..4]);
        format!("{INVITE_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// Reads a token; white space around it is of no matter.
    ///
    /// # Errors
    /// Says whether it is no invite at all, or a damaged one.
    pub fn decode(text: &str) -> Result<Self, InviteError> {
        let text = text.trim();
        let body = text.strip_prefix(INVITE_PREFIX).ok_or(InviteError::NotAnInvite)?;
        if body.len() > INVITE_CHARS_MAX {
            return Err(InviteError::Damaged("too long"));
        }
        let bytes =
            BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| InviteError::Damaged("not base64url"))?;
        let (cbor, check) = bytes.split_last_chunk::<4>().ok_or(InviteError::Damaged("too short"))?;
        if blake3::hash(cbor).as_bytes()[..4] != check[..] {
            return Err(InviteError::Damaged("its check does not match"));
        }
        let InviteWire(name, secret, bootstrap) =
            serde_cbor::from_slice(cbor).map_err(|_| InviteError::Damaged("its content is malformed"))?;
        if bootstrap.len() > INVITE_ADDRESSES_MAX || bootstrap.iter().any(|a| a.len() > ADDRESS_BYTES_MAX) {
            return Err(InviteError::Damaged("too many or too long addresses"));
        }
        Ok(Invite { mesh: Mesh::new(&name, secret.0)?, bootstrap })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        Invite {
            mesh: Mesh::new("kitchen", MeshSecret::from_bytes([9; 32])).unwrap(),
            bootstrap: vec!["/ip4/127.0.0.1/tcp/7411/p2p/12D3KooWx".into()],
        }
    }

    #[test]
    fn id_depends_on_name_and_secret() {
        let mesh = Mesh::new("a", MeshSecret::from_bytes([1; 32])).unwrap();
        assert_ne!(mesh.id(), Mesh::new("b", MeshSecret::from_bytes([1; 32])).unwrap().id());
        assert_ne!(mesh.id(), Mesh::new("a", MeshSecret::from_bytes([2; 32])).unwrap().id());
        assert_eq!(Mesh::open("demo").unwrap().id(), Mesh::open("demo").unwrap().id());
    }

    #[test]
    fn names_are_checked() {
        for name in ["", "a/b", "a b", "a\n", &"x".repeat(65)] {
            assert!(Mesh::open(name).is_err(), "{name:?}");
        }
        Mesh::open("küche-2.b_c").unwrap();
    }

    #[test]
    fn invites_round_trip_and_show_damage() {
        let token = invite().encode();
        assert_eq!(Invite::decode(&format!("  {token}\n")).unwrap(), invite());
        assert_eq!(Invite::decode("hello"), Err(InviteError::NotAnInvite));
        for i in INVITE_PREFIX.len()..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[i] = if bytes[i] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bytes).unwrap();
            assert!(matches!(Invite::decode(&bad), Err(InviteError::Damaged(_))), "{i}");
            assert!(Invite::decode(&token[..i]).is_err());
        }
    }

    #[test]
    fn invites_lead_to_other_machines_if_they_can() {
        let here = ["/ip4/127.0.0.1/tcp/1", "/ip4/127.1.2.3/udp/1/quic-v1", "/ip6/::1/tcp/1"];
        let here = [&here[..], &["/ip6/::ffff:127.0.0.1/tcp/1", "/dns4/localhost/tcp/1"]].concat();
        let there = ["/ip4/192.0.2.7/tcp/1", "/dns/mesh.example/tcp/1", "/ip6/2001:db8::1/udp/1/quic-v1"];
        let invite = |addresses: &[&[&str]]| {
            Invite::new(Mesh::open("demo").unwrap(), addresses.concat().into_iter().map(str::to_owned))
        };
        let mixed = invite(&[&there[..1], &here, &there[1..]]);
        assert_eq!(
            (mixed.bootstrap.clone(), mixed.is_for_this_machine_only()),
            (there.map(str::to_owned).to_vec(), false)
        );
        let alone = invite(&[&here]);
        assert_eq!((alone.bootstrap.len(), alone.is_for_this_machine_only()), (here.len(), true));
        // What fills it is what counts.
        let many: Vec<&str> = std::iter::repeat_n(here[0], INVITE_ADDRESSES_MAX).chain([there[0]]).collect();
        assert_eq!(invite(&[&many]).bootstrap, [there[0]]);
        assert_eq!(invite(&[&[there[0]; INVITE_ADDRESSES_MAX + 1]]).bootstrap.len(), INVITE_ADDRESSES_MAX);
    }

    #[test]
    fn member_proofs_are_for_one_pair_in_one_direction() {
        let mesh = Mesh::open("demo").unwrap();
        let (a, b) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let proof = mesh.member_proof(&a, &b);
        assert!(mesh.verify_member(&a, &b, &proof));
        assert!(!mesh.verify_member(&b, &a, &proof));
        assert!(!Mesh::open("other").unwrap().verify_member(&a, &b, &proof));
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", invite());
        assert!(text.contains("MeshSecret(…)"), "{text}");
    }
}
