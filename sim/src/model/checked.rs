//! Signatures, checked once for all nodes that got the same bytes.

use omnimesh_protocol::identity::PublicKey;
use omnimesh_protocol::refusal::Refusal;
use omnimesh_protocol::relay::Unchecked;
use omnimesh_protocol::validate::{Unverified, Verified};

/// What a shard remembers of a signature that it checked.
#[derive(Clone, Debug)]
pub(super) enum Checked {
    Good(PublicKey),
    Bad(Refusal),
}

impl Checked {
    pub(super) fn of(message: &Unverified) -> Self {
        let Some(key) = PublicKey::new(&message.envelope().header().author) else {
            return Checked::Bad(Refusal::BadKey);
        };
        if message.envelope().is_signed_by(&key) {
            Checked::Good(key)
        } else {
            Checked::Bad(Refusal::BadSignature)
        }
    }

    /// The same where authenticity is a fact of the model.
    pub(super) fn assumed(message: &Unverified, is_genuine: bool) -> Self {
        match PublicKey::new(&message.envelope().header().author) {
            None => Checked::Bad(Refusal::BadKey),
            Some(key) if is_genuine => Checked::Good(key),
            Some(_) => Checked::Bad(Refusal::BadSignature),
        }
    }

    pub(super) fn result(self, message: Unverified) -> Result<Verified, Unchecked> {
        match self {
            Checked::Good(key) => Ok(message.assume_verified(key)),
            Checked::Bad(reason) => Err(Unchecked::Refused(reason)),
        }
    }
}
