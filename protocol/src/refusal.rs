//! Why a message is refused: one code for each gate, the same in metrics, events, test vectors and docs.

use std::fmt;

/// Declares the codes once: variant, snake_case code, sentence for people.
macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident => $code:literal, $text:literal;)*) => {
        /// Why a message was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Refusal {
            $(#[doc = $text] $(#[$doc])* $variant,)*
        }

        impl Refusal {
            /// All of them, in the order of the gates.
            pub const ALL: &[Refusal] = &[$(Refusal::$variant),*];

            /// The stable name in metrics, events and test vectors.
            pub const fn code(self) -> &'static str {
                match self { $(Refusal::$variant => $code),* }
            }

            /// What it means, for people.
            pub const fn explanation(self) -> &'static str {
                match self { $(Refusal::$variant => $text),* }
            }

            /// The reason with this code.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.code() == code)
            }
        }
    };
}

refusals! {
    TooLarge => "too_large", "the message is larger than `gossip.message_bytes_max`";
    Truncated => "truncated", "the bytes end before the message does";
    TrailingBytes => "trailing_bytes", "bytes follow after the end of the message";
    TooDeep => "too_deep", "the message is nested deeper than any message is";
    NotCanonical => "not_canonical", "the message is not in the one encoding that is allowed";
    Malformed => "malformed", "the bytes are not a message";
    UnknownVersion => "unknown_version", "the message has a format version that this node does not know";
    WrongMesh => "wrong_mesh", "the message is of another mesh";
    WrongChannel => "wrong_channel", "the message names another channel than the topic it came on";
    WrongKind => "wrong_kind", "the message is durable and came on an ephemeral channel, or the other way round, or its sequence number and its predecessor do not fit";
    NotSynchronised => "not_synchronised", "this node has no step yet, so it can judge no message";
    StaleStep => "stale_step", "the message's step is older than `node.step_window_past` allows";
    FutureStep => "future_step", "the message's step is further ahead than `node.step_window_future` allows";
    BadPattern => "bad_pattern", "the tag does not match: the author does not know the mesh secret, or the message was changed";
    Replay => "replay", "the author has used this sequence number before";
    NotProvablyNew => "not_provably_new", "this node cannot rule out that it has seen the message before it restarted or forgot the author";
    Quarantined => "quarantined", "the author is in quarantine";
    BadKey => "bad_key", "the author is not a usable Ed25519 public key";
    BadSignature => "bad_signature", "the signature is not the author's";
}

impl Refusal {
    /// How many there are.
    pub const COUNT: usize = Refusal::ALL.len();

    /// Its place in [`Refusal::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// True if only a peer that misbehaves can have forwarded such a message: an honest one would have
    /// refused it too, whatever its clock and memory.
    pub const fn is_forwarders_fault(self) -> bool {
        !matches!(
            self,
            Refusal::NotSynchronised
                | Refusal::StaleStep
                | Refusal::FutureStep
                | Refusal::Replay
                | Refusal::NotProvablyNew
                | Refusal::Quarantined
                // A peer of another version, or with another limit, may forward these in good faith.
                | Refusal::TooLarge
                | Refusal::UnknownVersion
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.explanation())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_found_again() {
        for (i, reason) in Refusal::ALL.iter().enumerate() {
            assert_eq!(reason.index(), i);
            assert_eq!(Refusal::from_code(reason.code()), Some(*reason));
        }
        assert_eq!(Refusal::from_code("no such"), None);
    }
}
