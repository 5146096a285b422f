//! Why an operation is refused: one stable code for each reason.

use std::fmt;

macro_rules! faults {
    ($($variant:ident => $code:literal, $text:literal;)*) => {
        /// Why bytes are not an operation, or one cannot be written. Every node refuses the same.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $(#[doc = $text] $variant,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Fault] = &[$(Fault::$variant),*];

            /// The stable name in metrics and test vectors.
            pub const fn code(self) -> &'static str {
                match self { $(Fault::$variant => $code),* }
            }
        }

        impl fmt::Display for Fault {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Fault::$variant => $text),* })
            }
        }
    };
}

faults! {
    TooLarge => "too_large", "the operation or a value in it has more bytes than are allowed";
    Truncated => "truncated", "the bytes end before the operation does";
    TrailingBytes => "trailing_bytes", "bytes follow after the end of the operation";
    NotCanonical => "not_canonical", "the operation is not in the one encoding that is allowed";
    Malformed => "malformed", "the bytes are not an operation";
    UnknownVersion => "unknown_version", "the operation has a format version that this node does not know";
    UnknownOperation => "unknown_operation", "the operation is of a sort that this node does not know";
    BadName => "bad_name", "a kind, relation, or name of an entry or field is empty, too long or has characters that are not allowed";
    TooDeep => "too_deep", "a value is nested deeper than is allowed";
    BadNumber => "bad_number", "an integer does not fit 64 bits, or a float is not finite";
    TooManyFields => "too_many_fields", "the entry would have more fields than are allowed";
    TooFarAhead => "too_far_ahead", "the operation claims to come after one that is too far ahead of its step";
}

impl Fault {
    /// How many there are.
    pub const COUNT: usize = Fault::ALL.len();
}

impl std::error::Error for Fault {}
