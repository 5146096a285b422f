//! Who a node is: an Ed25519 key pair.

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::id::NodeId;

/// A node's key pair. The secret is wiped when this is dropped and never printed.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
    id: NodeId,
}

impl Identity {
    /// The key pair of a 32-byte seed (RFC 8032's private key).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let id = NodeId::from_bytes(key.verifying_key().to_bytes());
        Identity { key, id }
    }

    /// The seed, to be stored with care.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.key.to_bytes())
    }

    /// The public key.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Signs `message`; 64 bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.id)
    }
}

/// A public key, decompressed and ready to check signatures; costs 4 µs to make, so keep it. Clones share it: it
/// takes some 200 bytes.
#[derive(Clone, Debug)]
pub struct PublicKey(Arc<VerifyingKey>);

impl PublicKey {
    /// Decompresses the key; `None` if the bytes are no point of the curve, or one of small order, for
    /// which anybody can make signatures.
    pub fn new(id: &NodeId) -> Option<Self> {
        let key = VerifyingKey::from_bytes(id.as_bytes()).ok()?;
        (!key.is_weak()).then(|| PublicKey(Arc::new(key)))
    }

    /// Checks a signature strictly: every node agrees on the answer, and nobody can make a second valid
    /// signature out of a first.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8032_test_2() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let seed: [u8; 32] =
            hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").try_into().unwrap();
        let identity = Identity::from_seed(&seed);
        assert_eq!(
            identity.id().as_bytes().as_slice(),
            hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        );
        let signature = identity.sign(&[0x72]);
        assert_eq!(
            signature.as_slice(),
            hex(
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            )
        );
        let key = PublicKey::new(&identity.id()).unwrap();
        assert!(key.verify(&[0x72], &signature));
        assert!(!key.verify(&[0x73], &signature));
    }

    #[test]
    fn weak_keys_are_refused() {
        assert!(PublicKey::new(&NodeId::from_bytes([0; 32])).is_none());
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        assert!(PublicKey::new(&NodeId::from_bytes(identity_point)).is_none());
    }

    #[test]
    fn debug_shows_no_secret() {
        let identity = Identity::from_seed(&[7; 32]);
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.id()));
    }
}
